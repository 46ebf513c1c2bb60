//! How a quantized tensor is kept in a file.
//!
//! A quantized tensor `NAME` has an integer dtype. `NAME_scale` holds its scales and, where the
//! scheme is asymmetric, `NAME_zero_point` its zero points, both of the shape of
//! [`chopi::QParams::shape`]. The file's metadata hold a [`Record`] as JSON under the key `chopi`.

use std::collections::BTreeMap;

use chopi::{Convention, FloatType, Granularity, IntType, QParams, Scheme, Symmetry};
use safetensors::Dtype;
use serde::{Deserialize, Serialize};

use crate::archive::{Archive, Tensor};
use crate::element::elements;
use crate::error::{Fault, Result};

/// The key of the [`Record`] in the metadata of a file.
pub const KEY: &str = "chopi";
const VERSION: u32 = 1;

/// What a file says about its quantized tensors.
#[derive(Debug, Deserialize, Serialize)]
pub struct Record {
    version: u32,
    pub tensors: BTreeMap<String, Quantized>,
}

/// What a file says about one of them.
#[derive(Clone, Debug, Deserialize, Serialize)]
pub struct Quantized {
    pub scheme: Scheme,
    /// The name that [`Convention::from_name`] knows.
    pub convention: String,
    /// The original dtype.
    pub dtype: FloatType,
}

impl Record {
    pub fn new(tensors: BTreeMap<String, Quantized>) -> Self {
        Self {
            version: VERSION,
            tensors,
        }
    }

    /// The record of a file, if it has one.
    ///
    /// # Errors
    /// Where it is not a record of this version.
    pub fn of(archive: &Archive<'_>) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Some(json) = archive.metadata.get(KEY) else {
            return Ok(None);
        };
        let invalid = |error| archive.bad_metadata(error);
        let Version { version } = serde_json::from_str(json).map_err(invalid)?;
        if version != VERSION {
            let reason = format!("version {version} is unknown, expected {VERSION}");
            return Err(archive.bad_metadata(reason));
        }
        serde_json::from_str(json).map(Some).map_err(invalid)
    }
}

/// A tensor of codes, found to be what its file says it is.
#[derive(Debug)]
pub struct Stored<'a> {
    pub codes: &'a Tensor<'a>,
    pub params: QParams,
    /// The granularity on this tensor.
    pub granularity: Granularity,
    /// The names of the tensors that hold the parameters.
    pub companions: Vec<String>,
    /// The bytes of the codes and the parameters.
    pub len: usize,
}

impl<'a> Stored<'a> {
    /// # Errors
    /// Where the file does not hold what its record says.
    pub fn find(
        archive: &'a Archive<'a>,
        record: &Record,
        name: &str,
        quantized: &Quantized,
    ) -> Result<Self> {
        find(archive, record, name, quantized).map_err(|fault| archive.fault(name, fault))
    }
}

fn find<'a>(
    archive: &'a Archive<'a>,
    record: &Record,
    name: &str,
    quantized: &Quantized,
) -> std::result::Result<Stored<'a>, Fault> {
    let tensor = |name: &str| {
        let missing = || Fault::Missing {
            name: name.to_owned(),
        };
        archive.tensors.get(name).ok_or_else(missing)
    };
    let codes = tensor(name)?;
    let Quantized {
        scheme,
        convention,
        dtype: float,
    } = quantized;
    scheme.check()?;
    let convention = Convention::from_name(convention)?;
    if codes.shape.contains(&0) {
        return Err(Fault::NoElements);
    }
    let int = IntType::smallest(scheme.qmin, scheme.qmax);
    if codes.dtype != int_dtype(int) {
        return Err(Fault::Dtype {
            found: codes.dtype,
            expected: int_dtype(int).to_string(),
        });
    }
    let granularity = convention.granularity_for(scheme.granularity, codes.shape.len());
    let shape = granularity.params_shape(&codes.shape)?;

    let mut stored_len = codes.data.len();
    let mut companions = Vec::new();
    let mut companion = |name: String, dtypes: &[Dtype]| {
        let found = tensor(&name)?;
        if record.tensors.contains_key(&name) {
            return Err(Fault::QuantizedCompanion { name });
        }
        if !dtypes.contains(&found.dtype) {
            let expected: Vec<String> = dtypes.iter().map(Dtype::to_string).collect();
            return Err(Fault::CompanionDtype {
                name,
                found: found.dtype,
                expected: expected.join(" or "),
            });
        }
        if found.shape != shape {
            return Err(Fault::CompanionShape {
                name,
                found: found.shape.clone(),
                expected: shape.clone(),
            });
        }
        stored_len += found.data.len();
        companions.push(name);
        Ok(found)
    };
    let scale = match companion(scale_name(name), &[scale_dtype(*float)])? {
        f64s if f64s.dtype == Dtype::F64 => elements::<f64>(f64s.data).into_owned(),
        f32s => {
            let scale = elements::<f32>(f32s.data);
            scale.iter().copied().map(f64::from).collect()
        }
    };
    let zero_point = match scheme.symmetry {
        Symmetry::Symmetric => vec![0; scale.len()],
        Symmetry::Asymmetric => {
            match companion(zero_point_name(name), &[Dtype::I32, Dtype::I64])? {
                i64s if i64s.dtype == Dtype::I64 => elements::<i64>(i64s.data).into_owned(),
                i32s => {
                    let zero_point = elements::<i32>(i32s.data);
                    zero_point.iter().copied().map(i64::from).collect()
                }
            }
        }
    };
    Ok(Stored {
        codes,
        params: QParams::new(scheme.clone(), convention, *float, shape, scale, zero_point)?,
        granularity,
        companions,
        len: stored_len,
    })
}

pub fn scale_name(name: &str) -> String {
    format!("{name}_scale")
}

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

pub fn float_dtype(float: FloatType) -> Dtype {
    match float {
        FloatType::F16 => Dtype::F16,
        FloatType::BF16 => Dtype::BF16,
        FloatType::F32 => Dtype::F32,
        FloatType::F64 => Dtype::F64,
    }
}

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
