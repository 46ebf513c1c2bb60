//! Weights that are quantized already, by whatever program.

use crate::architecture::WEIGHT;
use crate::archive::{Archive, Entry};
use crate::error::{Error, Result};
use chopi::formats::chopi::KEY;
use chopi::formats::dtype::float_type;

/// The ends of names that only parts of quantized weights have.
const PARTS: [&str; 26] = [
    ".qweight",
    ".qzeros",
    ".g_idx",
    ".weight_packed",
    ".weight_scale",
    ".weight_scale_2",
    ".weight_scale_inv",
    ".weight_zero_point",
    ".weight_global_scale",
    ".weight_shape",
    ".input_scale",
    ".input_global_scale",
    ".SCB",
    ".weight_format",
    ".weight.absmax",
    ".weight.quant_map",
    ".weight.nested_absmax",
    ".weight.quant_state.bitsandbytes__nf4",
    ".weight.quant_state.bitsandbytes__fp4",
    ".weight.SCB",
    ".codebooks",
    ".codes",
    ".weight.qdata",
    ".W_q",
    "_proj_blocks",
    "_proj_scales",
];
/// What companions of quantized weights add to the names of these.
const COMPANIONS: [&str; 5] = ["_scale", "_scale_inv", "_scales", "_zero_point", "_zeros"];

/// Checks that a model's files hold no weights that are quantized already.
///
/// # Errors
/// What was found.
pub fn check(archives: &[Archive]) -> Result<()> {
    archives
        .iter()
        .try_for_each(|archive| check_of(archive, |_| true))
}

/// Checks that none of some tensors of a file belongs to a weight that is quantized already.
///
/// # Errors
/// What was found.
pub fn check_of(archive: &Archive, of: impl Fn(&Entry) -> bool) -> Result<()> {
    if archive.metadata.contains_key(KEY) {
        let path = archive.path.to_owned();
        return Err(Error::AlreadyQuantized { path });
    }
    let tensors = archive.tensors.values().filter(|tensor| of(tensor));
    let parts: Vec<&str> = tensors.filter_map(|tensor| part(tensor, archive)).collect();
    if let Some(first) = parts.first() {
        let tensor = &archive.tensors[*first];
        return Err(Error::QuantizedWeights {
            path: archive.path.to_owned(),
            found: format!("{:?} is {} {:?}", tensor.name, tensor.dtype, tensor.shape),
            count: parts.len(),
        });
    }
    Ok(())
}

/// The name of a tensor that is a part of a quantized weight.
fn part<'a>(tensor: &'a Entry, archive: &Archive) -> Option<&'a str> {
    let name = &*tensor.name;
    let is_code = |dtype| float_type(dtype).is_none();
    let companion = COMPANIONS.iter().any(|end| {
        let weight = name
            .strip_suffix(end)
            .and_then(|weight| archive.tensors.get(weight));
        weight.is_some_and(|weight| is_code(weight.dtype))
    });
    let codes = name.ends_with(WEIGHT) && tensor.shape.len() >= 2 && is_code(tensor.dtype);
    let named = PARTS.iter().any(|end| name.ends_with(end));
    (companion || codes || named).then_some(name)
}
