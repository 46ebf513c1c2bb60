//! A quantized tensor as it is found in a file.

use std::ops::Range;

use chopi_core::{
    Convention, Granularity, QParams, Scheme,
    backend::{FloatType, IntType},
    convention::ZeroPoints,
    packing::Packing,
};
use safetensors::Dtype;

use super::record::Record;
use super::{Names, packing};
use crate::archive::{Archive, Entry};
use crate::codes::{Codes, Ints, PackedCodes, rows_of, unpacked_rows};
use crate::dtype::{int_dtype, scale_dtype};
use crate::error::{Fault, Result};
use crate::with_int;

/// A tensor of codes with the tensors of its parameters, found to be of the dtypes and shapes that
/// their file says.
#[derive(Clone, Debug)]
pub struct Stored {
    /// The tensor of codes.
    pub codes: Entry,
    /// The scheme of the codes.
    pub scheme: Scheme,
    /// The convention that the parameters belong to.
    pub convention: Convention,
    /// The original dtype.
    pub float: FloatType,
    /// The granularity on this tensor.
    pub granularity: Granularity,
    /// The lengths of the axes of the tensor.
    pub shape: Vec<usize>,
    packing: Option<Packing>,
    params_shape: Vec<usize>,
    scale: Entry,
    zero_point: Option<Entry>,
}

impl Stored {
    /// The tensor of a name.
    ///
    /// # Errors
    /// Where the file does not hold what its record says.
    pub fn find(archive: &Archive, record: &Record, name: &str) -> Result<Self> {
        let fault = |fault| archive.fault(name, fault);
        let found = Parts { archive, record }.stored(name);
        found.map_err(fault)
    }

    /// The tensors that it consists of: the codes, and the parameters.
    pub fn parts(&self) -> impl Iterator<Item = &Entry> {
        [&self.codes, &self.scale]
            .into_iter()
            .chain(&self.zero_point)
    }

    /// Reads some of the codes: whole rows where they are packed.
    pub(crate) fn codes_of(&self, elements: Range<usize>) -> std::result::Result<Ints, Fault> {
        match self.packing {
            Some(packing) => {
                let (_, row) = rows_of(&self.shape);
                unpacked_rows(&self.codes, packing, row, elements)
            }
            None => {
                let int = IntType::smallest((self.scheme.qmin, self.scheme.qmax));
                with_int!(int, I => Ok(self.codes.elements_of::<I>(elements)?.into()))
            }
        }
    }

    /// How the codes are packed, if they are.
    pub fn packing(&self) -> Option<Packing> {
        self.packing
    }

    /// Reads the codes, row-major.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn codes(&self) -> std::result::Result<Codes, Fault> {
        if let Some(packing) = self.packing {
            let (rows, row) = rows_of(&self.shape);
            let packed = PackedCodes::new(packing, self.codes.bytes()?, rows, row)?;
            return Ok(Codes::Packed(packed));
        }
        let int = IntType::smallest((self.scheme.qmin, self.scheme.qmax));
        with_int!(int, I => Ok(Codes::Ints(self.codes.elements::<I>()?.into())))
    }

    /// Reads the parameters.
    ///
    /// # Errors
    /// Where they cannot be read, or are not numbers that a calibration can give.
    pub fn params(&self) -> std::result::Result<QParams, Fault> {
        let scale = floats(&self.scale)?;
        let (scheme, convention) = (self.scheme.clone(), self.convention);
        let (float, shape) = (self.float, self.params_shape.clone());
        let zero_point: Vec<i64> = match &self.zero_point {
            None => vec![0; scale.len()],
            Some(reals) if [Dtype::F32, Dtype::F64].contains(&reals.dtype) => {
                let zero_point = floats(reals)?;
                return Ok(QParams::with_real_zero_points(
                    scheme, convention, float, shape, scale, zero_point,
                )?);
            }
            Some(i64s) if i64s.dtype == Dtype::I64 => i64s.elements()?,
            Some(i32s) => {
                let zero_point = i32s.elements::<i32>()?;
                zero_point.into_iter().map(i64::from).collect()
            }
        };
        Ok(QParams::new(
            scheme, convention, float, shape, scale, zero_point,
        )?)
    }
}

/// The elements of a tensor of F32 or F64.
fn floats(tensor: &Entry) -> std::result::Result<Vec<f64>, Fault> {
    match tensor.dtype {
        Dtype::F64 => tensor.elements(),
        _ => {
            let floats = tensor.elements::<f32>()?;
            Ok(floats.into_iter().map(f64::from).collect())
        }
    }
}

/// A file and what it says.
#[derive(Clone, Copy)]
struct Parts<'a> {
    archive: &'a Archive,
    record: &'a Record,
}

impl<'a> Parts<'a> {
    fn stored(self, name: &str) -> std::result::Result<Stored, Fault> {
        let names = match self.record.has_old_names() {
            true => Names::old(name),
            false => Names::new(name),
        };
        let codes = self.tensor(&names.codes)?;
        let Some(spec) = self.record.get(name) else {
            let name = name.to_owned();
            return Err(Fault::Missing { name });
        };
        let (scheme, convention) = (&spec.scheme, spec.convention);
        let packing = match spec.packed {
            true => Some(packing(scheme).ok_or(Fault::NotPacked)?),
            false => None,
        };
        let shape = self.shape(name, codes, packing)?;
        if shape.contains(&0) {
            return Err(Fault::NoElements);
        }
        let int = match packing {
            None => int_dtype(IntType::smallest((scheme.qmin, scheme.qmax))),
            Some(_) => Dtype::U8,
        };
        if codes.dtype != int {
            return Err(Fault::Dtype {
                found: codes.dtype,
                expected: int,
            });
        }
        let granularity = convention.granularity_for(scheme.granularity, shape.len());
        let params_shape = granularity.params_shape(&shape)?;
        let float = [scale_dtype(spec.dtype)];
        let scale = self.companion(names.scale, &float, &params_shape)?;
        let zero_point_dtypes: &[Dtype] = match convention.zero_points(scheme) {
            ZeroPoints::None => &[],
            ZeroPoints::Integers => &[Dtype::I32, Dtype::I64],
            ZeroPoints::Real => &float,
        };
        let zero_point = match zero_point_dtypes {
            [] => None,
            dtypes => Some(self.companion(names.zero_point, dtypes, &params_shape)?),
        };
        Ok(Stored {
            codes: codes.clone(),
            scheme: scheme.clone(),
            convention,
            float: spec.dtype,
            granularity,
            shape,
            packing,
            params_shape,
            scale: scale.clone(),
            zero_point: zero_point.cloned(),
        })
    }

    /// The shape of a tensor: the shape of its codes, unless they are packed.
    fn shape(
        self,
        name: &str,
        codes: &Entry,
        packing: Option<Packing>,
    ) -> std::result::Result<Vec<usize>, Fault> {
        let Some(packing) = packing else {
            return Ok(codes.shape.clone());
        };
        let shape = self.record.shape(name).ok_or(Fault::NoShape)?;
        // The product of what follows the first axis must not overflow.
        let rows = shape.iter().try_fold(1_usize, |n, &len| n.checked_mul(len));
        let (rows, row) = match rows {
            Some(_) => rows_of(shape),
            None => return Err(Fault::NoShape),
        };
        let expected = [rows, packing.row_bytes(row)];
        match codes.shape == expected {
            true => Ok(shape.to_vec()),
            false => Err(Fault::CompanionShape {
                name: codes.name.clone(),
                found: codes.shape.clone(),
                expected: expected.to_vec(),
            }),
        }
    }

    fn tensor(self, name: &str) -> std::result::Result<&'a Entry, Fault> {
        let missing = || Fault::Missing {
            name: name.to_owned(),
        };
        self.archive.tensors.get(name).ok_or_else(missing)
    }

    /// A tensor of parameters.
    fn companion(
        self,
        name: String,
        dtypes: &[Dtype],
        shape: &[usize],
    ) -> std::result::Result<&'a Entry, Fault> {
        let tensor = self.tensor(&name)?;
        if self.record.get(&name).is_some() {
            return Err(Fault::QuantizedCompanion { name });
        }
        if !dtypes.contains(&tensor.dtype) {
            let expected: Vec<String> = dtypes.iter().map(Dtype::to_string).collect();
            return Err(Fault::CompanionDtype {
                name,
                found: tensor.dtype,
                expected: expected.join(" or "),
            });
        }
        if tensor.shape != shape {
            return Err(Fault::CompanionShape {
                name,
                found: tensor.shape.clone(),
                expected: shape.to_vec(),
            });
        }
        Ok(tensor)
    }
}
