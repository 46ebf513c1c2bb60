//! What `python/pychop_cases.py` writes: records of safetensors.

use std::collections::HashMap;

use anyhow::{Context, Result, bail, ensure};
use ndarray::{ArrayD, IxDyn};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

/// One case: its description and the tensors.
#[derive(Debug)]
pub struct Record<'a> {
    metadata: HashMap<String, String>,
    tensors: SafeTensors<'a>,
}

/// What was quantized how.
#[derive(Debug)]
pub struct Case {
    /// The kind of data.
    pub data: String,
    /// The number of bits.
    pub bits: u32,
    /// The symmetry.
    pub symmetric: bool,
    /// The channel axis, if it is per channel.
    pub axis: Option<isize>,
    /// What pychop's calibration warned of, if it did.
    pub warning: Option<String>,
}

/// An array to be quantized.
#[derive(Debug)]
pub enum Array {
    F32(ArrayD<f32>),
    F64(ArrayD<f64>),
}

impl<'a> Record<'a> {
    /// Reads a record.
    pub fn new(bytes: &'a [u8]) -> Result<Self> {
        let (_, metadata) = SafeTensors::read_metadata(bytes)?;
        Ok(Self {
            metadata: metadata.metadata().clone().unwrap_or_default(),
            tensors: SafeTensors::deserialize(bytes)?,
        })
    }
}

impl Record<'_> {
    /// What the case is.
    pub fn case(&self) -> Result<Case> {
        let get = |name: &str| {
            let value = self.metadata.get(name).map(String::as_str);
            value.with_context(|| format!("a record says no {name}"))
        };
        let axis = get("axis")?;
        Ok(Case {
            data: get("data")?.to_owned(),
            bits: get("bits")?.parse()?,
            symmetric: get("symmetric")? == "True",
            axis: if axis.is_empty() {
                None
            } else {
                Some(axis.parse()?)
            },
            warning: self.metadata.get("warning").cloned(),
        })
    }

    /// The array, where it is a new one.
    pub fn array(&self) -> Result<Option<Array>> {
        let Ok(x) = self.tensors.tensor("x") else {
            return Ok(None);
        };
        let shape = IxDyn(x.shape());
        Ok(Some(match x.dtype() {
            Dtype::F32 => Array::F32(ArrayD::from_shape_vec(
                shape,
                elements(&x, f32::from_le_bytes),
            )?),
            Dtype::F64 => Array::F64(ArrayD::from_shape_vec(
                shape,
                elements(&x, f64::from_le_bytes),
            )?),
            other => bail!("arrays of {other} are not expected"),
        }))
    }

    /// The scales.
    pub fn scales(&self) -> Result<Vec<f64>> {
        self.floats("scale")
    }

    /// The dequantized values, where pychop computes them without an overflow.
    pub fn values(&self) -> Result<Option<Vec<f64>>> {
        let present = self.tensors.tensor("values").is_ok();
        present.then(|| self.floats("values")).transpose()
    }

    /// A tensor of floats, each as the `f64` that equals it.
    fn floats(&self, name: &str) -> Result<Vec<f64>> {
        let tensor = self.tensors.tensor(name)?;
        Ok(match tensor.dtype() {
            Dtype::F32 => elements(&tensor, |bytes| f32::from_le_bytes(bytes).into()),
            Dtype::F64 => elements(&tensor, f64::from_le_bytes),
            other => bail!("{name} is of {other}, expected floats"),
        })
    }

    /// The zero points, if the case has any.
    pub fn zero_points(&self) -> Result<Option<Vec<i64>>> {
        let Ok(tensor) = self.tensors.tensor("zero_point") else {
            return Ok(None);
        };
        ensure!(
            tensor.dtype() == Dtype::I32,
            "the zero points are of {}",
            tensor.dtype()
        );
        Ok(Some(elements(&tensor, |bytes| {
            i32::from_le_bytes(bytes).into()
        })))
    }

    /// The codes.
    pub fn codes(&self) -> Result<Vec<i16>> {
        let tensor = self.tensors.tensor("codes")?;
        ensure!(
            tensor.dtype() == Dtype::I16,
            "the codes are of {}",
            tensor.dtype()
        );
        Ok(elements(&tensor, i16::from_le_bytes))
    }
}

fn elements<T, const N: usize>(tensor: &TensorView<'_>, element: impl Fn([u8; N]) -> T) -> Vec<T> {
    tensor
        .data()
        .as_chunks()
        .0
        .iter()
        .map(|bytes| element(*bytes))
        .collect()
}

impl Case {
    /// The case with its array.
    pub fn described(&self, array: &Array) -> String {
        let Self {
            data, bits, axis, ..
        } = self;
        let symmetry = if self.symmetric {
            "symmetric"
        } else {
            "asymmetric"
        };
        let granularity = match axis {
            None => "per tensor".to_owned(),
            Some(axis) => format!("per channel along axis {axis}"),
        };
        let (float, shape) = (array.float(), array.shape());
        format!("{data} {float} {shape:?}, {bits} bits, {symmetry}, {granularity}")
    }
}

impl Array {
    /// The name of the element type.
    pub fn float(&self) -> &'static str {
        match self {
            Self::F32(_) => "f32",
            Self::F64(_) => "f64",
        }
    }

    pub fn shape(&self) -> &[usize] {
        match self {
            Self::F32(x) => x.shape(),
            Self::F64(x) => x.shape(),
        }
    }
}
