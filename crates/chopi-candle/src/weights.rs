//! Weights that are quantized and dequantized as a model takes them.

use candle_core::{DType, Device, Result, Shape, Tensor};
use candle_nn::var_builder::SimpleBackend;
use candle_nn::{Init, VarBuilder};
use chopi_core::model::WeightQuantizer;

/// A [`VarBuilder`] that gives any model quantized and dequantized weights, without a change to the
/// model's code.
///
/// The tensors that `weights` selects, by the names that they have under `variables`, are those of
/// `variables`, converted to the dtype that the model asks for, then quantized and dequantized; all
/// others pass as they are. [`WeightQuantizer::quantized`] says afterwards what became of them.
///
/// What is quantized is not trainable: the result is for evaluation, and no gradient reaches
/// `variables` through it. To train with quantization there is [`nn`](crate::nn).
///
/// ```
/// # mod chopi { pub use chopi_candle as candle; pub use chopi_core::*; }
/// use std::collections::HashMap;
///
/// use candle_core::{DType, Device, Tensor};
/// use candle_nn::{Module, VarBuilder};
/// use chopi::candle::quantized_var_builder;
/// use chopi::model::WeightQuantizer;
/// use chopi::{Calibration, Chopi};
///
/// let weight = Tensor::randn(0_f32, 1.0, (2, 8), &Device::Cpu)?;
/// let tensors = HashMap::from([("fc.weight".to_owned(), weight)]);
/// let variables = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
///
/// let scheme = Chopi::builder().num_bits(4).symmetric(true).per_channel(0);
/// let weights = WeightQuantizer::new(scheme, Calibration::MeanSquaredError)?;
/// let variables = quantized_var_builder(variables, &weights);
/// let layer = candle_nn::linear_no_bias(8, 2, variables.pp("fc"))?; // or any model
/// for (name, weight) in weights.quantized() {
///     println!("{name}: {:.1} dB", weight.metrics.sqnr_db());
/// }
/// # assert_eq!(weights.quantized().len(), 1);
/// # layer.forward(&Tensor::zeros((1, 8), DType::F32, &Device::Cpu)?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn quantized_var_builder<'a>(
    variables: VarBuilder<'a>,
    weights: &WeightQuantizer,
) -> VarBuilder<'a> {
    let (dtype, device) = (variables.dtype(), variables.device().clone());
    let quantized = QuantizedVariables {
        variables,
        weights: weights.clone(),
    };
    VarBuilder::from_backend(Box::new(quantized), dtype, device)
}

/// The variables of another builder, some of them quantized.
struct QuantizedVariables<'a> {
    variables: VarBuilder<'a>,
    weights: WeightQuantizer,
}

impl QuantizedVariables<'_> {
    fn pass(&self, name: &str, tensor: Tensor) -> Result<Tensor> {
        let float = crate::tensor::float_type(tensor.dtype()).is_ok();
        if !float || !self.weights.selects(name, tensor.dims()) {
            return Ok(tensor);
        }
        let quantized = self.weights.fake_quantize(name, &tensor.detach());
        quantized.map_err(candle_core::Error::wrap)
    }
}

impl SimpleBackend for QuantizedVariables<'_> {
    fn get(
        &self,
        shape: Shape,
        name: &str,
        init: Init,
        dtype: DType,
        device: &Device,
    ) -> Result<Tensor> {
        let variables = self.variables.clone().set_device(device.clone());
        self.pass(
            name,
            variables.get_with_hints_dtype(shape, name, init, dtype)?,
        )
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let variables = self.variables.clone().set_device(device.clone());
        self.pass(name, variables.get_unchecked_dtype(name, dtype)?)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.variables.contains_tensor(name)
    }
}
