//! What a trained layer becomes.

use super::LayerQuantizer;
use crate::backend::{Backend, DeviceTensor, FloatTensor};
use crate::error::Result;
use crate::quantizer::Chopi;

/// A trained layer in integers; `T` is the framework's tensor.
#[derive(Clone, Debug)]
pub struct Converted<T> {
    /// The quantizer of the weight, calibrated, where the weight is quantized.
    pub weight: Option<Chopi>,
    /// The weight's codes; dequantized they are the weight that the layer was evaluated with.
    pub weight_codes: Option<T>,
    /// The quantizer of the input, calibrated, where that is quantized.
    pub activations: Option<Chopi>,
    /// The bias, which is added to the product.
    pub bias: Option<T>,
}

impl<T> Converted<T> {
    /// The layer with this weight and bias, as its fake-quantizers of weight and input evaluate it.
    ///
    /// # Errors
    /// [`Error::NotCalibrated`](crate::Error::NotCalibrated) where it was never trained; the errors of
    /// [`Chopi::quantize`].
    pub fn new<B: Backend, D>(
        weight: &D,
        bias: Option<&D>,
        weights: Option<&LayerQuantizer<D>>,
        activations: Option<&LayerQuantizer<D>>,
    ) -> Result<Self>
    where
        D: DeviceTensor<Float = T, Int = T>,
        T: FloatTensor<B, Int = T>,
    {
        let mut quantizer = weights.map(LayerQuantizer::to_chopi).transpose()?;
        let codes = match &mut quantizer {
            None => None,
            Some(quantizer) => Some(quantizer.quantize(&weight.detach()?.into_float()?)?),
        };
        let bias = bias.map(|bias| bias.detach()?.into_float()).transpose()?;
        Ok(Self {
            weight: quantizer,
            weight_codes: codes,
            activations: activations.map(LayerQuantizer::to_chopi).transpose()?,
            bias,
        })
    }
}
