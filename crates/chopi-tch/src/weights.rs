//! The weights of a model, quantized and dequantized in place.

use std::collections::BTreeMap;

use chopi_core::Result;
use chopi_core::model::WeightQuantizer;
use tch::nn::VarStore;

use crate::device::shape;
use crate::framework;
use crate::tensor::float_type;

/// Quantizes and dequantizes the weights of a model where they lie, without a change to the model's
/// code: the tensors of `variables` that `weights` selects, by their names in it.
///
/// Layers that were made from `variables` compute with the new values from then on. No gradient is
/// recorded; the float values are gone. [`WeightQuantizer::quantized`] says what became of which
/// tensor.
///
/// # Errors
/// [`Error::Tensor`](chopi_core::Error::Tensor) for a tensor that cannot be quantized; those before it,
/// by name, are quantized then.
///
/// ```
/// # mod chopi { pub use chopi_core::*; pub use chopi_tch as tch; }
/// use chopi::model::WeightQuantizer;
/// use chopi::{Calibration, Chopi};
/// use tch::{Device, nn};
///
/// let variables = nn::VarStore::new(Device::Cpu);
/// let layer = nn::linear(variables.root() / "fc", 8, 2, Default::default()); // or any model
///
/// let scheme = Chopi::builder().num_bits(4).symmetric(true).per_channel(0);
/// let weights = WeightQuantizer::new(scheme, Calibration::MeanSquaredError)?;
/// chopi::tch::quantize_variables(&variables, &weights)?;
/// for (name, weight) in weights.quantized() {
///     println!("{name}: {:.1} dB", weight.metrics.sqnr_db());
/// }
/// # assert_eq!(weights.quantized().len(), 1);
/// # Ok::<(), chopi_core::Error>(())
/// ```
pub fn quantize_variables(variables: &VarStore, weights: &WeightQuantizer) -> Result<()> {
    // In the order of their names, so that an error is always the same one.
    let variables: BTreeMap<_, _> = variables.variables().into_iter().collect();
    for (name, mut variable) in variables {
        if float_type(&variable).is_err() || !weights.selects(&name, &shape(&variable)) {
            continue;
        }
        let quantized = weights.fake_quantize(&name, &variable.detach())?;
        tch::no_grad(|| variable.f_copy_(&quantized)).map_err(framework)?;
    }
    Ok(())
}
