//! One file from which training goes on to the bit.

use std::collections::HashMap;
use std::path::Path;
use std::sync::PoisonError;

use candle_core::{Error, Result, Tensor, safetensors::MmapedSafetensors};
use candle_nn::VarMap;
use chopi_core::training::{
    CHECKPOINT_MEAN as MEAN, CHECKPOINT_QUANTIZERS as QUANTIZERS, CHECKPOINT_SQUARE as SQUARE,
    CHECKPOINT_STEPS as STEP, Quantizers, write_checkpoint,
};

use super::{Adam, chopi};

/// Saves a network in training to one safetensors file: its variables, learned scales among them, by
/// their names; the states of its fake-quantizers, in the file's metadata; and the moments of the
/// optimizer. An earlier file of this name is replaced once the new one is whole.
///
/// # Errors
/// What cannot be written.
pub fn save_checkpoint(
    path: impl AsRef<Path>,
    variables: &VarMap,
    quantizers: &Quantizers,
    optimizer: Option<&Adam>,
) -> Result<()> {
    let states = serde_json::to_string(&quantizers.states()).map_err(Error::wrap)?;
    let mut metadata = HashMap::from([(QUANTIZERS.to_owned(), states)]);
    let mut tensors = HashMap::new();
    let data = variables.data().lock();
    for (name, variable) in data.unwrap_or_else(PoisonError::into_inner).iter() {
        tensors.insert(name.clone(), variable.as_detached_tensor());
    }
    if let Some(optimizer) = optimizer {
        metadata.insert(STEP.to_owned(), optimizer.steps().to_string());
        for (name, mean, square) in optimizer.moments() {
            tensors.insert(format!("{MEAN}{name}"), mean.clone());
            tensors.insert(format!("{SQUARE}{name}"), square.clone());
        }
    }
    write_checkpoint(path.as_ref(), |path| {
        safetensors::serialize_to_file(&tensors, Some(metadata), path).map_err(Error::wrap)
    })
}

/// Brings a network, made like the one that was saved, and its optimizer into the saved state.
///
/// # Errors
/// A file that cannot be read, or that has no such variable, fake-quantizer or moment, or one of
/// another shape or dtype; then nothing is changed.
pub fn load_checkpoint(
    path: impl AsRef<Path>,
    variables: &mut VarMap,
    quantizers: &Quantizers,
    optimizer: Option<&mut Adam>,
) -> Result<()> {
    let path = path.as_ref();
    let metadata = metadata(path)?;
    let entry = |name: &str| {
        metadata.get(name).ok_or_else(|| {
            Error::Msg(format!(
                "{} has no {name}: is it a checkpoint?",
                path.display()
            ))
        })
    };
    let states = serde_json::from_str(entry(QUANTIZERS)?).map_err(Error::wrap)?;
    // SAFETY: as everywhere that a file is mapped, nobody may change it meanwhile.
    let file = unsafe { MmapedSafetensors::new(path)? };
    let saved = |name: &str, like: &Tensor| {
        let saved = file.load(name, like.device())?;
        match saved.shape() == like.shape() && saved.dtype() == like.dtype() {
            true => Ok(saved),
            false => candle_core::bail!(
                "{name} is {:?} {:?}, expected {:?} {:?}",
                saved.dtype(),
                saved.shape(),
                like.dtype(),
                like.shape()
            ),
        }
    };
    // All of it is there before anything changes.
    let variables = variables.data().lock();
    let variables = variables.unwrap_or_else(PoisonError::into_inner);
    let values = variables
        .iter()
        .map(|(name, variable)| Ok((variable, saved(name, variable)?)))
        .collect::<Result<Vec<_>>>()?;
    let moments = match &optimizer {
        None => None,
        Some(optimizer) => {
            let step = entry(STEP)?.parse().map_err(Error::wrap)?;
            let moments = optimizer.moments().map(|(name, mean, square)| {
                let mean = saved(&format!("{MEAN}{name}"), mean)?;
                Ok((mean, saved(&format!("{SQUARE}{name}"), square)?))
            });
            Some((step, moments.collect::<Result<Vec<_>>>()?))
        }
    };
    quantizers.set_states(states).map_err(chopi)?;
    for (variable, value) in values {
        variable.set(&value)?;
    }
    if let (Some(optimizer), Some((step, moments))) = (optimizer, moments) {
        optimizer.restore(step, moments);
    }
    Ok(())
}

/// Gives a network in training the weights of one in floats: every variable but learned scales and zero
/// points, which start on the first batch, comes by its name from a safetensors file, converted to its dtype
/// if the file has another float one. The file may hold more.
///
/// # Errors
/// A file that cannot be read, or that has no tensor of a variable's name, or one of another shape or of
/// integers; then nothing is changed.
pub fn load_float(
    path: impl AsRef<Path>,
    variables: &VarMap,
    quantizers: &Quantizers,
) -> Result<()> {
    // SAFETY: as everywhere that a file is mapped, nobody may change it meanwhile.
    let file = unsafe { MmapedSafetensors::new(path.as_ref())? };
    let learned = quantizers.learned_variables();
    let variables = variables.data().lock();
    let variables = variables.unwrap_or_else(PoisonError::into_inner);
    let of_floats = variables.iter().filter(|(name, _)| !learned.contains(name));
    let values = of_floats
        .map(|(name, variable)| {
            let value = file.load(name, variable.device())?;
            if value.shape() != variable.shape() || !value.dtype().is_float() {
                candle_core::bail!(
                    "{name} is {:?} {:?}, expected floats of shape {:?}",
                    value.dtype(),
                    value.shape(),
                    variable.shape()
                );
            }
            Ok((variable, value.to_dtype(variable.dtype())?))
        })
        .collect::<Result<Vec<_>>>()?;
    for (variable, value) in values {
        variable.set(&value)?;
    }
    Ok(())
}

fn metadata(path: &Path) -> Result<HashMap<String, String>> {
    let data = std::fs::read(path)?;
    let (_, metadata) = safetensors::SafeTensors::read_metadata(&data).map_err(Error::wrap)?;
    Ok(metadata.metadata().clone().unwrap_or_default())
}
