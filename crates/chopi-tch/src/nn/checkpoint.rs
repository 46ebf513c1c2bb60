//! One file from which training goes on to the bit.

use std::collections::BTreeMap;
use std::path::Path;

use chopi_core::Result;
use chopi_core::training::{self, Quantizers};
use tch::nn::VarStore;

use super::Adam;
use crate::OnDevice;

/// Saves a network in training to one safetensors file: its variables, learned scales among them, by
/// their names; the states of its fake-quantizers, in the file's metadata; and the moments of the
/// optimizer. An earlier file of this name is replaced once the new one is whole.
///
/// # Errors
/// What cannot be written.
pub fn save_checkpoint(
    path: impl AsRef<Path>,
    network: &VarStore,
    quantizers: &Quantizers,
    optimizer: Option<&Adam>,
) -> Result<()> {
    let optimizer = optimizer.map(|adam| &adam.0);
    training::save_checkpoint(path.as_ref(), variables(network), quantizers, optimizer)
}

/// Brings a network, made like the one that was saved, and its optimizer into the saved state.
///
/// # Errors
/// A file that cannot be read, or that has no such variable, fake-quantizer or moment, or one of
/// another shape or kind; then nothing is changed.
pub fn load_checkpoint(
    path: impl AsRef<Path>,
    network: &mut VarStore,
    quantizers: &Quantizers,
    optimizer: Option<&mut Adam>,
) -> Result<()> {
    let optimizer = optimizer.map(|adam| &mut adam.0);
    training::load_checkpoint(path.as_ref(), &variables(network), quantizers, optimizer)
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
    network: &VarStore,
    quantizers: &Quantizers,
) -> Result<()> {
    training::load_float(path.as_ref(), &variables(network), quantizers)
}

/// The variables of a network by name.
pub(super) fn variables(network: &VarStore) -> BTreeMap<String, OnDevice> {
    let variables = network.variables().into_iter();
    variables
        .map(|(name, variable)| (name, OnDevice(variable)))
        .collect()
}
