//! Layers that multiply integers, as candle modules.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::Module;
use chopi_core::Chopi;
use chopi_matmul::{Activations, Linear};

use crate::nn::Converted;

/// A linear layer whose product is one of integers: float tensors in, float tensors out.
///
/// See [`Linear`] for what it computes. It runs on the CPU; tensors of other devices are copied
/// there and back.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
/// use chopi_candle::IntLinear;
/// use chopi_core::Chopi;
/// use chopi_matmul::Activations;
///
/// let weight = Tensor::randn(0_f32, 1.0, (16, 32), &Device::Cpu)?;
/// let layer = Linear::new(weight, None);
/// let weights = Chopi::builder().num_bits(8).symmetric(true).per_channel(0).build()?;
/// let integer = IntLinear::from_float(&layer, weights, Activations::default())?;
///
/// let x = Tensor::randn(0_f32, 1.0, (4, 32), &Device::Cpu)?;
/// let difference = (integer.forward(&x)? - layer.forward(&x)?)?.abs()?.max_all()?;
/// assert!(difference.to_scalar::<f32>()? < 0.3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct IntLinear(Linear);

impl IntLinear {
    /// An existing layer with its weights quantized by `weights`, per tensor, per channel of axis 0,
    /// or in groups along axis 1.
    ///
    /// # Errors
    /// Those of quantizing the weights and of [`Linear::new`].
    pub fn from_float(
        layer: &candle_nn::Linear,
        mut weights: Chopi,
        activations: Activations,
    ) -> Result<Self> {
        let codes = weights
            .quantize(layer.weight())
            .map_err(candle_core::Error::wrap)?;
        Self::new(&codes, &weights, activations, layer.bias())
    }

    /// A trained layer as [`convert`](crate::nn::Quantized::convert) gives it. Where its input was
    /// not quantized in training, each row is, to 8 bits.
    ///
    /// # Errors
    /// Weights that were not quantized; those of [`Linear::new`].
    pub fn from_converted(layer: &Converted) -> Result<Self> {
        let (Some(codes), Some(weights)) = (&layer.weight_codes, &layer.weight) else {
            candle_core::bail!("the layer was trained with weights that are not quantized");
        };
        let params = layer.activations.as_ref().and_then(Chopi::params);
        let activations = params
            .cloned()
            .map_or_else(Activations::default, Activations::Static);
        Self::new(codes, weights, activations, layer.bias.as_ref())
    }

    fn new(
        codes: &Tensor,
        weights: &Chopi,
        activations: Activations,
        bias: Option<&Tensor>,
    ) -> Result<Self> {
        let wrap = candle_core::Error::wrap;
        let params = weights
            .params()
            .ok_or(chopi_core::Error::NotCalibrated)
            .map_err(wrap)?;
        let layer = Linear::new(codes, params, activations).map_err(candle_core::Error::wrap)?;
        let Some(bias) = bias else {
            return Ok(Self(layer));
        };
        let bias = bias
            .to_dtype(DType::F32)?
            .to_device(&Device::Cpu)?
            .to_vec1()?;
        Ok(Self(
            layer.with_bias(bias).map_err(candle_core::Error::wrap)?,
        ))
    }

    /// The same layer with its results clamped: to (0, ∞) for a rectified linear unit.
    #[must_use]
    pub fn with_clamp(self, min: f32, max: f32) -> Self {
        Self(self.0.with_clamp(min, max))
    }
}

impl Module for IntLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x).map_err(candle_core::Error::wrap)
    }
}
