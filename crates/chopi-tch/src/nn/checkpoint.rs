//! One file from which training goes on to the bit.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use chopi_core::training::{
    CHECKPOINT_MEAN as MEAN, CHECKPOINT_QUANTIZERS as QUANTIZERS, CHECKPOINT_SQUARE as SQUARE,
    CHECKPOINT_STEPS as STEP, Quantizers,
};
use chopi_core::{Backend, Error, Result};
use safetensors::{Dtype, SafeTensors, View};
use tch::nn::VarStore;
use tch::{Device, Kind, TchError, Tensor};

use super::Adam;
use super::ops::{lengths, shape};
use crate::{LibTorch, framework};

/// Saves a network in training to one safetensors file: its variables, learned scales among them, by
/// their names; the states of its fake-quantizers, in the file's metadata; and the moments of the
/// optimizer.
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
    safetensors::serialize_to_file(tensors, Some(metadata), path.as_ref()).map_err(other)
}

/// Brings a network, made like the one that was saved, and its optimizer into the saved state.
///
/// # Errors
/// A file that cannot be read, or that has no such variable, fake-quantizer or moment, or one of
/// another shape.
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
    quantizers.set_states(states)?;
    for (name, mut variable) in variables.variables() {
        restore(&tensors, &name, &mut variable)?;
    }
    if let Some(optimizer) = optimizer {
        let step = entry(STEP)?.parse().map_err(other)?;
        optimizer.restore(step, |kind, name, moment| {
            restore(&tensors, &format!("{kind}{name}"), moment)
        })?;
    }
    Ok(())
}

/// Copies the saved tensor of this name into one of the same shape and kind.
fn restore(tensors: &SafeTensors<'_>, name: &str, into: &mut Tensor) -> Result<()> {
    let saved = tensors.tensor(name).map_err(other)?;
    let kind = into.f_kind().map_err(framework)?;
    if saved.shape() != shape(into) || saved.dtype() != dtype(kind)? {
        return Err(message(format!(
            "{name} is {:?} {:?}, expected {:?} {:?}",
            saved.dtype(),
            saved.shape(),
            kind,
            into.size()
        )));
    }
    let mut copy = || {
        let value = Tensor::f_from_data_size(saved.data(), &lengths(saved.shape()), kind)?;
        tch::no_grad(|| into.f_copy_(&value))
    };
    copy().map_err(framework)
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
        let bytes = || -> std::result::Result<Vec<u8>, TchError> {
            let host = tensor.detach().f_to_device(Device::Cpu)?.f_contiguous()?;
            let bytes = host.f_reshape([-1])?.f_view_dtype(Kind::Uint8)?;
            let mut data = vec![0; bytes.numel()];
            bytes.f_copy_data(&mut data, bytes.numel())?;
            Ok(data)
        };
        Ok(Self {
            dtype: dtype(kind)?,
            shape: shape(tensor),
            data: bytes().map_err(framework)?,
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
