//! The formats that models are written in.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use chopi_core::backend::IntType;
use safetensors::Dtype;
use serde_json::Value;

use crate::chopi::Spec;
use crate::error::{Error, Fault, Result};
use crate::gguf::BlockType;
use crate::header::Header;
use crate::model::Model;
use crate::parts::Parts;
use crate::tensor::{Tensor, byte_len};
use crate::write::Output;

/// A way to keep a model. How each tensor lies in its file is planned before any is written, as the header of a file
/// comes first; then the tensors are written, in any order and piece by piece; and what was written is read.
pub trait Format: fmt::Debug + Sync {
    /// The header of a file of no tensors.
    fn header(&self) -> Header {
        Header::new(BTreeMap::new())
    }

    /// Adds what a tensor takes to the header of its file.
    ///
    /// # Errors
    /// A tensor that the format cannot keep so; a name that another tensor has.
    fn plan(&self, tensor: &TensorPlan, header: &mut Header) -> std::result::Result<Parts, Fault>;

    /// Adds to the header what the format says of its tensors. Gives what it says of them in the `config.json` of
    /// a folder, under the key `quantization_config`, if the format is one of folders.
    ///
    /// # Errors
    /// Metadata that cannot be written.
    fn describe(
        &self,
        tensors: &[TensorPlan],
        header: &mut Header,
    ) -> serde_json::Result<Option<Value>>;

    /// Writes all of a tensor where it was planned. `fault` makes the error of the tensor.
    ///
    /// # Errors
    /// A file that cannot be written; a tensor that was planned otherwise.
    fn write(
        &self,
        parts: &Parts,
        tensor: &Tensor,
        output: &Output,
        fault: &dyn Fn(Fault) -> Error,
    ) -> Result<()> {
        parts.write(tensor, output, fault)
    }

    /// Opens a model that was written.
    ///
    /// # Errors
    /// Where it cannot be read.
    fn read(&self, path: &Path) -> Result<Model> {
        Model::open(path)
    }
}

/// A tensor that is to be written.
#[derive(Clone, Debug)]
pub struct TensorPlan {
    /// Its name in the float model.
    pub name: String,
    /// The lengths of its axes.
    pub shape: Vec<usize>,
    /// How it is kept.
    pub keep: Keep,
}

/// How a tensor is to be kept.
#[derive(Clone, Debug)]
pub enum Keep {
    /// Its elements as they are.
    Plain(Dtype),
    /// As codes with parameters.
    Codes {
        /// How it is quantized.
        spec: Spec,
        /// The type of integer zero points: I32, or I64 where one does not fit that.
        zero_point: IntType,
    },
    /// As blocks of GGUF.
    Blocks(BlockType),
}

impl TensorPlan {
    /// The plan of a tensor in memory, which is kept as it is.
    pub fn of(name: &str, tensor: &Tensor) -> Self {
        let keep = match tensor {
            Tensor::Plain(plain) => Keep::Plain(plain.dtype()),
            Tensor::Blocks(blocks) => Keep::Blocks(blocks.block_type()),
            Tensor::Quantized(quantized) => {
                let params = quantized.params();
                let fits = |z: &i64| i32::try_from(*z).is_ok();
                let scheme = params.scheme().clone();
                Keep::Codes {
                    spec: Spec::new(scheme, *params.convention(), params.float_type()),
                    zero_point: match params.zero_point().iter().all(fits) {
                        true => IntType::I32,
                        false => IntType::I64,
                    },
                }
            }
        };
        Self {
            name: name.to_owned(),
            shape: tensor.shape().to_vec(),
            keep,
        }
    }
}

/// Adds a tensor that is kept as it is.
///
/// # Errors
/// [`Fault::NameTaken`] where another tensor has its name.
pub(crate) fn plain(
    tensor: &TensorPlan,
    dtype: Dtype,
    header: &mut Header,
) -> std::result::Result<Parts, Fault> {
    let len = byte_len(dtype, &tensor.shape).ok_or(Fault::NoShape)?;
    let slot = header.add(&tensor.name, dtype, &tensor.shape, len)?;
    Ok(Parts::Plain(slot))
}
