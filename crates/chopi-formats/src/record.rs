//! How a quantized tensor is kept in a file.
//!
//! A quantized tensor `NAME` has an integer dtype. `NAME_scale` holds its scales and, where they are
//! not all 0, `NAME_zero_point` its zero points, both of the shape of
//! [`chopi_core::QParams::shape`]. The file's metadata hold a [`Record`] as JSON under the key `chopi`.

use std::collections::BTreeMap;

use chopi_core::{
    Convention, Granularity, QParams, Scheme,
    backend::{FloatType, IntType},
    convention::ZeroPoints,
};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::archive::{Archive, Entry};
use crate::codes::Codes;
use crate::error::{Fault, Result};
use crate::with_int;

/// The key of the [`Record`] in the metadata of a file.
pub const KEY: &str = "chopi";
const VERSION: u32 = 2;

/// What a file says about its quantized tensors.
#[derive(Debug, Deserialize, Serialize)]
pub struct Record {
    version: u32,
    /// How tensors were quantized, each way once.
    schemes: Vec<Spec>,
    /// The index of each tensor's scheme.
    tensors: BTreeMap<String, usize>,
}

/// How a tensor was quantized.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Spec {
    /// The scheme.
    pub scheme: Scheme,
    /// The name that [`Convention::from_name`] knows.
    pub convention: String,
    /// The original dtype.
    pub dtype: FloatType,
}

impl Record {
    /// The record of tensors, with their names.
    pub fn new(quantized: impl Iterator<Item = (String, Spec)>) -> Self {
        let mut schemes: Vec<Spec> = Vec::new();
        let tensors = quantized.map(|(name, quantized)| {
            let known = schemes.iter().position(|scheme| *scheme == quantized);
            let index = known.unwrap_or_else(|| {
                schemes.push(quantized);
                schemes.len() - 1
            });
            (name, index)
        });
        Self {
            version: VERSION,
            tensors: tensors.collect(),
            schemes,
        }
    }

    /// The names of the quantized tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// How a tensor was quantized, if it was.
    pub fn get(&self, name: &str) -> Option<&Spec> {
        self.schemes.get(*self.tensors.get(name)?)
    }

    /// The record of a file, if it has one.
    ///
    /// # Errors
    /// Where it is not a record of this version.
    pub fn of(archive: &Archive) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Some(json) = archive.metadata.get(KEY) else {
            return Ok(None);
        };
        let invalid = |error| archive.bad_metadata(error);
        let unknown = |version| {
            archive.bad_metadata(format!("version {version} is unknown, expected {VERSION}"))
        };
        match serde_json::from_str::<Self>(json) {
            Ok(record) if record.version != VERSION => Err(unknown(record.version)),
            Ok(record) => match record
                .tensors
                .iter()
                .find(|(name, _)| record.get(name).is_none())
            {
                Some((name, scheme)) => {
                    let schemes = record.schemes.len();
                    Err(archive.bad_metadata(format!(
                        "{name:?} has the scheme of index {scheme}, but there are {schemes}"
                    )))
                }
                None => Ok(Some(record)),
            },
            // Another version may look otherwise.
            Err(error) => match serde_json::from_str(json) {
                Ok(Version { version }) if version != VERSION => Err(unknown(version)),
                _ => Err(invalid(error)),
            },
        }
    }
}

/// A tensor of codes with the tensors of its parameters, found to be of the dtypes and shapes that
/// their file says.
#[derive(Debug)]
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

    /// Reads the codes, row-major.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn codes(&self) -> std::result::Result<Codes, Fault> {
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
        let codes = self.tensor(name)?;
        let Some(quantized) = self.record.get(name) else {
            return Err(Fault::Missing {
                name: name.to_owned(),
            });
        };
        let scheme = &quantized.scheme;
        let convention = Convention::from_name(&quantized.convention)?;
        if codes.shape.contains(&0) {
            return Err(Fault::NoElements);
        }
        let int = int_dtype(IntType::smallest((scheme.qmin, scheme.qmax)));
        if codes.dtype != int {
            return Err(Fault::Dtype {
                found: codes.dtype,
                expected: int,
            });
        }
        let granularity = convention.granularity_for(scheme.granularity, codes.shape.len());
        let shape = granularity.params_shape(&codes.shape)?;
        let scale = self.companion(scale_name(name), &[scale_dtype(quantized.dtype)], &shape)?;
        let zero_point_dtypes: &[Dtype] = match convention.zero_points(scheme) {
            ZeroPoints::None => &[],
            ZeroPoints::Integers => &[Dtype::I32, Dtype::I64],
            ZeroPoints::Real => &[scale_dtype(quantized.dtype)],
        };
        let zero_point = match zero_point_dtypes {
            [] => None,
            dtypes => Some(self.companion(zero_point_name(name), dtypes, &shape)?),
        };
        Ok(Stored {
            codes: codes.clone(),
            scheme: scheme.clone(),
            convention,
            float: quantized.dtype,
            granularity,
            params_shape: shape,
            scale: scale.clone(),
            zero_point: zero_point.cloned(),
        })
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

/// The name of the tensor of scales.
pub fn scale_name(name: &str) -> String {
    format!("{name}_scale")
}

/// The name of the tensor of zero points.
pub fn zero_point_name(name: &str) -> String {
    format!("{name}_zero_point")
}

/// The dtype of the scales of a tensor of this type: they are numbers of its compute type.
pub fn scale_dtype(float: FloatType) -> Dtype {
    float_dtype(float.compute())
}

/// The float type of a dtype that chopi quantizes.
pub fn float_type(dtype: Dtype) -> Option<FloatType> {
    match dtype {
        Dtype::F16 => Some(FloatType::F16),
        Dtype::BF16 => Some(FloatType::BF16),
        Dtype::F32 => Some(FloatType::F32),
        Dtype::F64 => Some(FloatType::F64),
        _ => None,
    }
}

/// The dtype of a float type.
pub fn float_dtype(float: FloatType) -> Dtype {
    match float {
        FloatType::F16 => Dtype::F16,
        FloatType::BF16 => Dtype::BF16,
        FloatType::F32 => Dtype::F32,
        FloatType::F64 => Dtype::F64,
    }
}

/// The dtype of an integer type.
pub fn int_dtype(int: IntType) -> Dtype {
    match int {
        IntType::I8 => Dtype::I8,
        IntType::U8 => Dtype::U8,
        IntType::I16 => Dtype::I16,
        IntType::U16 => Dtype::U16,
        IntType::I32 => Dtype::I32,
        IntType::U32 => Dtype::U32,
        IntType::I64 => Dtype::I64,
    }
}
