//! One file from which training goes on to the bit.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use chopi_core::backend::{Backend, repeated};
use chopi_core::training::{
    CHECKPOINT_MEAN as MEAN, CHECKPOINT_QUANTIZERS as QUANTIZERS, CHECKPOINT_SQUARE as SQUARE,
    CHECKPOINT_STEPS as STEP, Quantizers, write_checkpoint,
};
use chopi_core::{Error, Result};
use safetensors::{Dtype, SafeTensors, View};
use tch::nn::VarStore;
use tch::{Device, Kind, TchError, Tensor};

use super::Adam;
use super::ops::{lengths, shape};
use crate::{LibTorch, framework};

/// Saves a network in training to one safetensors file: its variables, learned scales among them, by
/// their names; the states of its fake-quantizers, in the file's metadata; and the moments of the
/// optimizer. An earlier file of this name is replaced once the new one is whole.
///
/// # Errors
/// What cannot be written.
pub fn save_checkpoint(
    path: impl AsRef<Path>,
    variables: &VarStore,
    quantizers: &Quantizers,
    optimizer: Option<&Adam>,
) -> Result<()> {
    let states = serde_json::to_string(&quantizers.states()).map_err(other)?;
    let mut metadata = HashMap::from([(QUANTIZERS.to_owned(), states)]);
    let mut tensors = BTreeMap::new();
    for (name, variable) in variables.variables() {
        tensors.insert(name, Saved::new(&variable)?);
    }
    if let Some(optimizer) = optimizer {
        metadata.insert(STEP.to_owned(), optimizer.steps().to_string());
        for (name, mean, square) in optimizer.moments() {
            tensors.insert(format!("{MEAN}{name}"), Saved::new(mean)?);
            tensors.insert(format!("{SQUARE}{name}"), Saved::new(square)?);
        }
    }
    write_checkpoint(path.as_ref(), |path| {
        safetensors::serialize_to_file(tensors, Some(metadata), path).map_err(io::Error::other)
    })
    .map_err(other)
}

/// Brings a network, made like the one that was saved, and its optimizer into the saved state.
///
/// # Errors
/// A file that cannot be read, or that has no such variable, fake-quantizer or moment, or one of
/// another shape or kind; then nothing is changed.
pub fn load_checkpoint(
    path: impl AsRef<Path>,
    variables: &mut VarStore,
    quantizers: &Quantizers,
    optimizer: Option<&mut Adam>,
) -> Result<()> {
    let path = path.as_ref();
    let data = std::fs::read(path).map_err(other)?;
    let (_, metadata) = SafeTensors::read_metadata(&data).map_err(other)?;
    let metadata = metadata.metadata().clone().unwrap_or_default();
    let entry = |name: &str| {
        metadata
            .get(name)
            .ok_or_else(|| message(format!("{} has no {name}", path.display())))
    };
    let states = serde_json::from_str(entry(QUANTIZERS)?).map_err(other)?;
    let tensors = SafeTensors::deserialize(&data).map_err(other)?;
    let saved = |name: &str, like: &Tensor| saved(&tensors, name, like);
    // All of it is there before anything changes.
    let values = variables.variables().into_iter();
    let values = values
        .map(|(name, variable)| Ok((saved(&name, &variable)?, variable)))
        .collect::<Result<Vec<_>>>()?;
    let moments = match &optimizer {
        None => None,
        Some(optimizer) => {
            let step = entry(STEP)?.parse().map_err(other)?;
            let moments = optimizer.moments().map(|(name, mean, square)| {
                let mean = saved(&format!("{MEAN}{name}"), mean)?;
                Ok((mean, saved(&format!("{SQUARE}{name}"), square)?))
            });
            Some((step, moments.collect::<Result<Vec<_>>>()?))
        }
    };
    quantizers.set_states(states)?;
    for (value, mut variable) in values {
        tch::no_grad(|| variable.f_copy_(&value)).map_err(framework)?;
    }
    if let (Some(optimizer), Some((step, moments))) = (optimizer, moments) {
        optimizer.restore(step, moments);
    }
    Ok(())
}

/// Gives a network in training the weights of one in floats: every variable but learned scales and zero
/// points, which start on the first batch, comes by its name from a safetensors file, converted to its kind
/// if the file has another float one. The file may hold more.
///
/// # Errors
/// A file that cannot be read, or that has no tensor of a variable's name, or one of another shape or of
/// integers; then nothing is changed.
pub fn load_float(
    path: impl AsRef<Path>,
    variables: &VarStore,
    quantizers: &Quantizers,
) -> Result<()> {
    let data = std::fs::read(path).map_err(other)?;
    let tensors = SafeTensors::deserialize(&data).map_err(other)?;
    let learned = quantizers.learned_variables();
    let of_floats = variables.variables().into_iter();
    let values = of_floats
        .filter(|(name, _)| !learned.contains(name))
        .map(|(name, variable)| {
            let value = tensors
                .tensor(&name)
                .map_err(|error| message(format!("{name}: {error}")))?;
            let kind = match value.dtype() {
                Dtype::F16 => Kind::Half,
                Dtype::BF16 => Kind::BFloat16,
                Dtype::F32 => Kind::Float,
                Dtype::F64 => Kind::Double,
                dtype => return Err(message(format!("{name} is {dtype:?}, expected floats"))),
            };
            if value.shape() != shape(&variable) {
                return Err(message(format!(
                    "{name} is of shape {:?}, expected {:?}",
                    value.shape(),
                    variable.size()
                )));
            }
            let value = Tensor::f_from_data_size(value.data(), &lengths(value.shape()), kind);
            Ok((value.map_err(framework)?, variable))
        })
        .collect::<Result<Vec<_>>>()?;
    for (value, mut variable) in values {
        // The copy converts.
        tch::no_grad(|| variable.f_copy_(&value)).map_err(framework)?;
    }
    Ok(())
}

/// The saved tensor of this name, which must be of the shape and kind of `like`, on its device.
fn saved(tensors: &SafeTensors<'_>, name: &str, like: &Tensor) -> Result<Tensor> {
    let saved = tensors.tensor(name).map_err(other)?;
    let kind = like.f_kind().map_err(framework)?;
    if saved.shape() != shape(like) || saved.dtype() != dtype(kind)? {
        return Err(message(format!(
            "{name} is {:?} {:?}, expected {:?} {:?}",
            saved.dtype(),
            saved.shape(),
            kind,
            like.size()
        )));
    }
    Tensor::f_from_data_size(saved.data(), &lengths(saved.shape()), kind)
        .and_then(|value| value.f_to_device(like.device()))
        .map_err(framework)
}

/// A tensor's bytes.
struct Saved {
    dtype: Dtype,
    shape: Vec<usize>,
    data: Vec<u8>,
}

impl Saved {
    fn new(tensor: &Tensor) -> Result<Self> {
        let kind = tensor.f_kind().map_err(framework)?;
        let bytes = || -> std::result::Result<Tensor, TchError> {
            let host = tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?;
            host.f_reshape([-1])?.f_view_dtype(Kind::Uint8)
        };
        let bytes = bytes().map_err(framework)?;
        let mut data = repeated(0, bytes.numel())?;
        bytes
            .f_copy_data(&mut data, bytes.numel())
            .map_err(framework)?;
        Ok(Self {
            dtype: dtype(kind)?,
            shape: shape(tensor),
            data,
        })
    }
}

impl View for Saved {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        Cow::Borrowed(&self.data)
    }

    fn data_len(&self) -> usize {
        self.data.len()
    }
}

fn dtype(kind: Kind) -> Result<Dtype> {
    match kind {
        Kind::Half => Ok(Dtype::F16),
        Kind::BFloat16 => Ok(Dtype::BF16),
        Kind::Float => Ok(Dtype::F32),
        Kind::Double => Ok(Dtype::F64),
        Kind::Uint8 => Ok(Dtype::U8),
        Kind::Int8 => Ok(Dtype::I8),
        Kind::Int16 => Ok(Dtype::I16),
        Kind::Int => Ok(Dtype::I32),
        Kind::Int64 => Ok(Dtype::I64),
        Kind::Bool => Ok(Dtype::BOOL),
        kind => Err(Error::Dtype {
            backend: LibTorch::NAME,
            dtype: format!("{kind:?}"),
            expected: "a kind that safetensors has",
        }),
    }
}

fn other(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Framework {
        backend: LibTorch::NAME,
        source: source.into(),
    }
}

fn message(text: String) -> Error {
    Error::Framework {
        backend: LibTorch::NAME,
        source: text.into(),
    }
}
