//! The tensors of a model, as its files have them.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor};
use chopi_formats::{Dtype, Plain, Quantized, StoredTensor};

use crate::config::Config;
use crate::error::{Error, Result};
use crate::gguf::Layout;
use crate::scheme::Inputs;

/// The tensors of a model; each is read when it is asked for.
#[derive(Debug)]
pub(crate) struct Weights {
    files: chopi_formats::Model,
    /// Where a GGUF file has the tensors, unless by the names of Hugging Face.
    gguf: Option<Layout>,
    /// What becomes of the inputs of layers, by name.
    inputs: BTreeMap<String, Inputs>,
}

/// The key of the inputs of layers in `config.json`.
pub(crate) const INPUTS: &str = "chopi_inputs";

/// A matrix: floats in `f32`, or codes.
pub(crate) enum Matrix {
    Float(Tensor),
    Codes(Box<Quantized>),
}

impl Weights {
    /// The tensors of a model's folder or file, and what `config.json` says of the inputs of its layers.
    pub(crate) fn open(path: &Path, config: &Config) -> Result<Self> {
        let expected =
            "the inputs of layers by name: float, dynamic, dynamic4 or static with parameters";
        let files = chopi_formats::open(path)?;
        Ok(Self {
            gguf: Layout::of(&files, config)?,
            files,
            inputs: config.optional(INPUTS, expected)?.unwrap_or_default(),
        })
    }

    /// The names of all tensors.
    pub(crate) fn names(&self) -> Vec<&str> {
        match &self.gguf {
            Some(layout) => layout.names().keys().map(String::as_str).collect(),
            None => self.files.tensors().map(StoredTensor::name).collect(),
        }
    }

    /// A tensor of [these names](Self::names).
    pub(crate) fn tensor(&self, name: &str) -> Result<chopi_formats::Tensor> {
        let Some(tensor) = self.stored(name) else {
            let (name, shape) = (name.to_owned(), Vec::new());
            return Err(Error::Missing { name, shape });
        };
        match &self.gguf {
            Some(layout) => layout.restored(name, tensor.read()?),
            None => Ok(tensor.read()?),
        }
    }

    fn stored(&self, name: &str) -> Option<&StoredTensor> {
        let name = match &self.gguf {
            Some(layout) => layout.names().get(name)?,
            None => name,
        };
        self.files.get(name)
    }

    /// What becomes of the inputs of a layer, if its weights are integers.
    pub(crate) fn inputs(&self, name: &str) -> Inputs {
        self.inputs.get(name).cloned().unwrap_or_default()
    }

    /// Whether there is a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.stored(name).is_some()
    }

    /// The values of a tensor that has to be there and to have this shape.
    pub(crate) fn get(&self, name: &str, shape: &[usize]) -> Result<Tensor> {
        float(name, self.read(name, shape)?.dequantize())
    }

    /// A matrix that has to be there and to have this shape.
    pub(crate) fn matrix(&self, name: &str, (rows, columns): (usize, usize)) -> Result<Matrix> {
        match self.read(name, &[rows, columns])? {
            chopi_formats::Tensor::Quantized(codes) => Ok(Matrix::Codes(codes)),
            plain => float(name, plain.dequantize()).map(Matrix::Float),
        }
    }

    fn read(&self, name: &str, expected: &[usize]) -> Result<chopi_formats::Tensor> {
        match self.stored(name) {
            None => Err(Error::Missing {
                name: name.to_owned(),
                shape: expected.to_vec(),
            }),
            Some(tensor) if tensor.shape() == expected => self.tensor(name),
            Some(tensor) => Err(Error::Shape {
                name: name.to_owned(),
                found: tensor.shape().to_vec(),
                expected: expected.to_vec(),
            }),
        }
    }
}

/// Values in `f32`.
fn float(name: &str, plain: Result<Plain, chopi_formats::Fault>) -> Result<Tensor> {
    let plain = plain.map_err(|fault| Error::Values {
        name: name.to_owned(),
        fault: Box::new(fault),
    })?;
    let dtype = match plain.dtype() {
        Dtype::F16 => DType::F16,
        Dtype::BF16 => DType::BF16,
        Dtype::F32 => DType::F32,
        Dtype::F64 => DType::F64,
        other => {
            return Err(Error::Dtype {
                name: name.to_owned(),
                dtype: other.to_string(),
                expected: "F16, BF16, F32 or F64",
            });
        }
    };
    let tensor = Tensor::from_raw_buffer(plain.bytes(), dtype, plain.shape(), &Device::Cpu)?;
    Ok(tensor.to_dtype(DType::F32)?)
}
