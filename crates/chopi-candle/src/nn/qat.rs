//! Layers for quantization-aware training.

use candle_core::{Result, Tensor};
use candle_nn::{
    Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Embedding, Linear, Module, ModuleT, VarBuilder,
};
use chopi_core::training::{QatConfig, Quantizers};

use super::{Converted, Evaluated, IntQuantizedLayer, chopi};
use crate::OnDevice;
use crate::tensor::float_type;

/// A layer that multiplies its input with a weight, or looks its rows up: what [`Qat`] needs
/// to know to quantize both. Implement it for layers that are not in the list.
pub trait Weighted: Module {
    /// The weight; its first axis is that of the output channels.
    fn weight(&self) -> &Tensor;

    /// The bias, which is added to the product, if there is one.
    fn bias(&self) -> Option<&Tensor> {
        None
    }

    /// A layer like this one, with another weight of this one's shape and another bias.
    #[must_use]
    fn with(&self, weight: Tensor, bias: Option<Tensor>) -> Self;
}

/// A layer for quantization-aware training: float in and out, its weights and inputs fake-quantized,
/// each or none.
///
/// Made by [`new`](QatLinear::new), with fresh variables, or of an existing layer by
/// [`from_layer`](Self::from_layer). Its fake-quantizers are `weight_quantizer` and
/// `activation_quantizer` in its place of the network.
#[derive(Clone, Debug)]
pub struct Qat<L> {
    layer: L,
    weights: Option<IntQuantizedLayer>,
    activations: Option<IntQuantizedLayer>,
}

/// A linear layer for quantization-aware training, y = x̂·ŵᵀ + b, with x̂ and ŵ the fake-quantized input
/// and weight, in floats. What [`convert`](Qat::convert) gives of it becomes a layer of integers.
pub type QatLinear = Qat<Linear>;
/// A convolution along one axis for quantization-aware training: of x̂ with ŵ, the fake-quantized input
/// and weight.
pub type QatConv1d = Qat<Conv1d>;
/// A convolution along two axes for quantization-aware training: of x̂ with ŵ, the fake-quantized input
/// and weight.
pub type QatConv2d = Qat<Conv2d>;
/// An embedding for quantization-aware training: rows of ŵ, the fake-quantized weight. The input are
/// indices, which are not quantized.
pub type QatEmbedding = Qat<Embedding>;

impl Weighted for Linear {
    fn weight(&self) -> &Tensor {
        self.weight()
    }

    fn bias(&self) -> Option<&Tensor> {
        self.bias()
    }

    fn with(&self, weight: Tensor, bias: Option<Tensor>) -> Self {
        Self::new(weight, bias)
    }
}

impl Weighted for Conv1d {
    fn weight(&self) -> &Tensor {
        self.weight()
    }

    fn bias(&self) -> Option<&Tensor> {
        self.bias()
    }

    fn with(&self, weight: Tensor, bias: Option<Tensor>) -> Self {
        Self::new(weight, bias, *self.config())
    }
}

impl Weighted for Conv2d {
    fn weight(&self) -> &Tensor {
        self.weight()
    }

    fn bias(&self) -> Option<&Tensor> {
        self.bias()
    }

    fn with(&self, weight: Tensor, bias: Option<Tensor>) -> Self {
        Self::new(weight, bias, *self.config())
    }
}

impl Weighted for Embedding {
    fn weight(&self) -> &Tensor {
        self.embeddings()
    }

    fn with(&self, weight: Tensor, _: Option<Tensor>) -> Self {
        Self::new(weight, self.hidden_size())
    }
}

impl<L: Weighted> Qat<L> {
    /// Quantizes an existing layer. `vb` points to its place in the network, for the names of the
    /// fake-quantizers and the variables of learned scales.
    ///
    /// # Errors
    /// A name that is taken; a weight without the axis of the scheme; learned parameters of
    /// activations that are not per tensor: those need
    /// [`IntQuantizedLayer::for_shape`] and [`from_parts`](Self::from_parts).
    pub fn from_layer(
        layer: L,
        config: &QatConfig,
        vb: VarBuilder<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        let weights = config.weight_quantizer().map(|quantizer| {
            let (shape, vb) = (layer.weight().dims(), vb.pp("weight_quantizer"));
            IntQuantizedLayer::for_shape(quantizer.clone(), shape, vb, quantizers)
        });
        let activations = config.activation_quantizer().map(|quantizer| {
            let vb = vb.pp("activation_quantizer");
            IntQuantizedLayer::new(quantizer.clone(), vb, quantizers)
        });
        Ok(Self::from_parts(
            layer,
            weights.transpose()?,
            activations.transpose()?,
        ))
    }

    /// A layer and the fake-quantizers of its weights and its input.
    pub fn from_parts(
        layer: L,
        weights: Option<IntQuantizedLayer>,
        activations: Option<IntQuantizedLayer>,
    ) -> Self {
        Self {
            layer,
            weights,
            activations,
        }
    }

    /// The layer and the fake-quantizers again.
    pub fn into_parts(self) -> (L, Option<IntQuantizedLayer>, Option<IntQuantizedLayer>) {
        (self.layer, self.weights, self.activations)
    }

    /// The layer itself, with the weight in floating point.
    pub fn layer(&self) -> &L {
        &self.layer
    }

    /// The fake-quantizer of the weight.
    pub fn weights(&self) -> Option<&IntQuantizedLayer> {
        self.weights.as_ref()
    }

    /// The fake-quantizer of the input.
    pub fn activations(&self) -> Option<&IntQuantizedLayer> {
        self.activations.as_ref()
    }

    /// This layer in evaluation, as a [`Module`].
    pub fn evaluated(&self) -> Evaluated<'_, Self> {
        Evaluated(self)
    }

    /// The layer in integers, as it is evaluated.
    ///
    /// # Errors
    /// [`NotCalibrated`](chopi_core::Error::NotCalibrated) where it was never trained.
    pub fn convert(&self) -> Result<Converted> {
        let bias = self.layer.bias().map(OnDevice::from);
        self.convert_with(&self.layer.weight().into(), bias.as_ref())
    }

    /// The layer with another weight and bias in integers.
    pub(super) fn convert_with(
        &self,
        weight: &OnDevice,
        bias: Option<&OnDevice>,
    ) -> Result<Converted> {
        let [weights, activations] =
            [&self.weights, &self.activations].map(|layer| layer.as_ref().map(|layer| &layer.0));
        Converted::new(weight, bias, weights, activations).map_err(chopi)
    }

    /// x̂, or indices as they are.
    pub(super) fn quantized_input(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match &self.activations {
            Some(activations) if float_type(x.dtype()).is_ok() => activations.forward_t(x, train),
            _ => Ok(x.clone()),
        }
    }
}

impl<L: Weighted> ModuleT for Qat<L> {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.quantized_input(x, train)?;
        match &self.weights {
            None => self.layer.forward(&x),
            Some(weights) => {
                let weight = weights.forward_t(self.layer.weight(), train)?;
                let bias = self.layer.bias().cloned();
                self.layer.with(weight, bias).forward(&x)
            }
        }
    }
}

impl QatLinear {
    /// A fresh layer with bias, initialized as [`candle_nn::linear()`] does.
    ///
    /// # Errors
    /// The errors of [`from_layer`](Self::from_layer) and [`candle_nn::linear()`].
    pub fn new(
        inputs: usize,
        outputs: usize,
        config: &QatConfig,
        vb: VarBuilder<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        let layer = candle_nn::linear(inputs, outputs, vb.clone())?;
        Self::from_layer(layer, config, vb, quantizers)
    }
}

impl QatConv1d {
    /// A fresh layer with bias, initialized as [`candle_nn::conv1d`] does.
    ///
    /// # Errors
    /// The errors of [`from_layer`](Self::from_layer) and [`candle_nn::conv1d`].
    pub fn new(
        (inputs, outputs, kernel): (usize, usize, usize),
        convolution: Conv1dConfig,
        config: &QatConfig,
        vb: VarBuilder<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        let layer = candle_nn::conv1d(inputs, outputs, kernel, convolution, vb.clone())?;
        Self::from_layer(layer, config, vb, quantizers)
    }
}

impl QatConv2d {
    /// A fresh layer with bias, initialized as [`candle_nn::conv2d`] does.
    ///
    /// # Errors
    /// The errors of [`from_layer`](Self::from_layer) and [`candle_nn::conv2d`].
    pub fn new(
        (inputs, outputs, kernel): (usize, usize, usize),
        convolution: Conv2dConfig,
        config: &QatConfig,
        vb: VarBuilder<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        let layer = candle_nn::conv2d(inputs, outputs, kernel, convolution, vb.clone())?;
        Self::from_layer(layer, config, vb, quantizers)
    }
}

impl QatEmbedding {
    /// A fresh layer, initialized as [`candle_nn::embedding()`] does. Its input are indices, so a
    /// fake-quantizer of activations is left out.
    ///
    /// # Errors
    /// The errors of [`from_layer`](Self::from_layer) and [`candle_nn::embedding()`].
    pub fn new(
        rows: usize,
        columns: usize,
        config: &QatConfig,
        vb: VarBuilder<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        let layer = candle_nn::embedding(rows, columns, vb.clone())?;
        let weights = config.weight_quantizer().cloned();
        let config = weights.map_or_else(QatConfig::new, |w| QatConfig::new().weights(w));
        Self::from_layer(layer, &config, vb, quantizers)
    }
}
