//! Layers for quantization-aware training.

use chopi_core::Result;
use chopi_core::training::{QatConfig, Quantizers};
use tch::Tensor;
use tch::nn::{self, ConvConfigND, EmbeddingConfig, LinearConfig, ModuleT, Path};

use super::{Converted, Convolution, Embedding, IntQuantizedLayer, Weighted, expect};
use crate::OnDevice;
use crate::device::shape;
use crate::tensor::float_type;

/// A layer for quantization-aware training: float in and out, its weights and inputs fake-quantized,
/// each or none.
///
/// Made by [`new`](QatLinear::new), with fresh variables, or of an existing layer by
/// [`from_layer`](Self::from_layer). Its fake-quantizers are `weight_quantizer` and
/// `activation_quantizer` in its place of the network.
#[derive(Debug)]
pub struct Qat<L> {
    layer: L,
    weights: Option<IntQuantizedLayer>,
    activations: Option<IntQuantizedLayer>,
}

/// A linear layer for quantization-aware training, y = x̂·ŵᵀ + b, with x̂ and ŵ the fake-quantized input
/// and weight, in floats. What [`convert`](Qat::convert) gives of it becomes a layer of integers.
pub type QatLinear = Qat<nn::Linear>;
/// A convolution along one axis for quantization-aware training: of x̂ with ŵ, the fake-quantized input
/// and weight.
pub type QatConv1d = Qat<Convolution<[i64; 1]>>;
/// A convolution along two axes for quantization-aware training: of x̂ with ŵ, the fake-quantized input
/// and weight.
pub type QatConv2d = Qat<Convolution<[i64; 2]>>;
/// An embedding for quantization-aware training: rows of ŵ, the fake-quantized weight. The input are
/// indices, which are not quantized.
pub type QatEmbedding = Qat<Embedding>;

impl<L: Weighted> Qat<L> {
    /// Quantizes an existing layer. `path` is its place in the network, for the names of the
    /// fake-quantizers and the variables of learned scales.
    ///
    /// # Errors
    /// A name that is taken; a weight without the axis of the scheme; learned parameters of
    /// activations that are not per tensor: those need
    /// [`IntQuantizedLayer::for_shape`] and [`from_parts`](Self::from_parts).
    pub fn from_layer(
        layer: L,
        config: &QatConfig,
        path: &Path<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        let weights = config.weight_quantizer().map(|quantizer| {
            let (shape, path) = (shape(layer.weight()), path / "weight_quantizer");
            IntQuantizedLayer::for_shape(quantizer.clone(), &shape, &path, quantizers)
        });
        let activations = config.activation_quantizer().map(|quantizer| {
            let path = path / "activation_quantizer";
            IntQuantizedLayer::new(quantizer.clone(), &path, quantizers)
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

    /// The output of the layer for `x`, in training or in evaluation.
    ///
    /// # Errors
    /// The errors of [`IntQuantizedLayer::f_forward_t`]; [`Framework`](chopi_core::Error::Framework) for
    /// an error of libtorch.
    pub fn f_forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.quantized_input(x, train)?;
        let bias = self.layer.bias();
        match &self.weights {
            None => self.layer.f_forward_with(&x, self.layer.weight(), bias),
            Some(weights) => {
                let weight = weights.f_forward_t(self.layer.weight(), train)?;
                self.layer.f_forward_with(&x, &weight, bias)
            }
        }
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
        Converted::new(weight, bias, weights, activations)
    }

    /// x̂, or indices as they are.
    pub(super) fn quantized_input(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match &self.activations {
            Some(activations) if float_type(x).is_ok() => activations.f_forward_t(x, train),
            _ => Ok(x.shallow_clone()),
        }
    }
}

/// # Panics
/// On the errors of [`Qat::f_forward_t`].
impl<L: Weighted> ModuleT for Qat<L> {
    fn forward_t(&self, x: &Tensor, train: bool) -> Tensor {
        expect(self.f_forward_t(x, train))
    }
}

impl QatLinear {
    /// A fresh layer with bias, initialized as [`nn::linear`] does.
    ///
    /// # Errors
    /// The errors of [`from_layer`](Self::from_layer).
    pub fn new(
        inputs: i64,
        outputs: i64,
        config: &QatConfig,
        path: &Path<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        let layer = nn::linear(path, inputs, outputs, LinearConfig::default());
        Self::from_layer(layer, config, path, quantizers)
    }
}

impl<const N: usize> Qat<Convolution<[i64; N]>>
where
    Convolution<[i64; N]>: Weighted,
{
    /// A fresh layer, initialized as [`nn::conv`] does.
    ///
    /// # Errors
    /// The errors of [`from_layer`](Self::from_layer).
    pub fn new(
        (inputs, outputs, kernel): (i64, i64, [i64; N]),
        convolution: ConvConfigND<[i64; N]>,
        config: &QatConfig,
        path: &Path<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        let layer = nn::conv(path, inputs, outputs, kernel, convolution);
        Self::from_layer(
            Convolution::new(layer, convolution),
            config,
            path,
            quantizers,
        )
    }
}

impl QatEmbedding {
    /// A fresh layer, initialized as [`nn::embedding`] does. Its input are indices, so a
    /// fake-quantizer of activations is left out.
    ///
    /// # Errors
    /// The errors of [`from_layer`](Self::from_layer).
    pub fn new(
        rows: i64,
        columns: i64,
        embedding: EmbeddingConfig,
        config: &QatConfig,
        path: &Path<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        let layer = nn::embedding(path, rows, columns, embedding);
        let weights = config.weight_quantizer().cloned();
        let config = weights.map_or_else(QatConfig::new, |w| QatConfig::new().weights(w));
        Self::from_layer(Embedding::new(layer, embedding), &config, path, quantizers)
    }
}
