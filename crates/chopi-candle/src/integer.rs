//! Layers that multiply integers, as candle modules.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Module};
use chopi_core::Chopi;
use chopi_matmul::Activations;
use chopi_matmul::conv::{self, ConvParams};

use crate::nn::Converted;

fn wrap(error: chopi_matmul::Error) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

/// [`chopi_matmul::QuantizedLinear`] as a candle module: a linear layer with integer weights, whose
/// product is one of integers; float tensors in, float tensors out.
///
/// The layer to train with quantization is [`QatLinear`](crate::nn::QatLinear). This one runs on the
/// CPU; tensors of other devices are copied there and back.
///
/// ```
/// # mod chopi { pub use chopi_candle as candle; pub use chopi_core::*; pub use chopi_matmul as matmul; }
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
/// use chopi::candle::QuantizedLinear;
/// use chopi::Chopi;
/// use chopi::matmul::Activations;
///
/// let weight = Tensor::randn(0_f32, 1.0, (16, 32), &Device::Cpu)?;
/// let layer = Linear::new(weight, None);
/// let weights = Chopi::builder().num_bits(8).symmetric(true).per_channel(0).build()?;
/// let integer = QuantizedLinear::from_float(&layer, weights, Activations::default())?;
///
/// let x = Tensor::randn(0_f32, 1.0, (4, 32), &Device::Cpu)?;
/// let difference = (integer.forward(&x)? - layer.forward(&x)?)?.abs()?.max_all()?;
/// assert!(difference.to_scalar::<f32>()? < 0.3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct QuantizedLinear(chopi_matmul::QuantizedLinear);

impl QuantizedLinear {
    /// An existing layer with its weights quantized by `weights`, per tensor, per channel of axis 0,
    /// or in groups along axis 1.
    ///
    /// # Errors
    /// The errors of quantizing the weights, and those of [`chopi_matmul::QuantizedLinear::new`].
    pub fn from_float(
        layer: &candle_nn::Linear,
        weights: Chopi,
        activations: Activations,
    ) -> Result<Self> {
        let linear =
            chopi_matmul::QuantizedLinear::from_float(layer.weight(), weights, activations);
        let linear = linear.and_then(|linear| linear.with_bias_of(layer.bias()));
        linear.map(Self).map_err(wrap)
    }

    /// A trained layer as [`convert`](crate::nn::Qat::convert) gives it. Where its input was
    /// not quantized in training, each row is, to 8 bits.
    ///
    /// # Errors
    /// Weights that were not quantized; the errors of [`chopi_matmul::QuantizedLinear::new`].
    pub fn from_converted(layer: &Converted) -> Result<Self> {
        let linear = chopi_matmul::QuantizedLinear::from_converted(layer);
        linear.map(Self).map_err(wrap)
    }

    /// The layer, whose results are now clamped to \[min, max\]: to \[0, ∞\] for a rectified linear unit.
    #[must_use]
    pub fn with_clamp(self, min: f32, max: f32) -> Self {
        Self(self.0.with_clamp(min, max))
    }
}

impl From<chopi_matmul::QuantizedLinear> for QuantizedLinear {
    fn from(layer: chopi_matmul::QuantizedLinear) -> Self {
        Self(layer)
    }
}

impl Module for QuantizedLinear {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x).map_err(wrap)
    }
}

/// [`chopi_matmul::conv::QuantizedConv`] as a candle module: a convolution along one, two or three axes
/// with integer weights, whose product is one of integers; float tensors in, float tensors out.
///
/// The layers to train with quantization are [`QatConv1d`](crate::nn::QatConv1d) and
/// [`QatConv2d`](crate::nn::QatConv2d). This one runs on the CPU; tensors of other devices are copied
/// there and back.
///
/// ```
/// # mod chopi { pub use chopi_candle as candle; pub use chopi_core::*; pub use chopi_matmul as matmul; }
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Conv2d, Conv2dConfig, Module};
/// use chopi::candle::QuantizedConv;
/// use chopi::Chopi;
/// use chopi::matmul::Activations;
///
/// let weight = Tensor::randn(0_f32, 1.0, (16, 8, 3, 3), &Device::Cpu)?;
/// let layer = Conv2d::new(weight, None, Conv2dConfig { padding: 1, ..Default::default() });
/// let weights = Chopi::builder().num_bits(8).symmetric(true).per_channel(0).build()?;
/// let integer = QuantizedConv::from_conv2d(&layer, weights, Activations::default())?;
///
/// let x = Tensor::randn(0_f32, 1.0, (4, 8, 12, 12), &Device::Cpu)?;
/// let difference = (integer.forward(&x)? - layer.forward(&x)?)?.abs()?.max_all()?;
/// assert!(difference.to_scalar::<f32>()? < 0.6);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct QuantizedConv(conv::QuantizedConv);

impl QuantizedConv {
    /// An existing layer along one axis, with its weights quantized by `weights`, per tensor or per
    /// channel of axis 0.
    ///
    /// # Errors
    /// The errors of quantizing the weights, and those of [`conv::QuantizedConv::new`].
    pub fn from_conv1d(layer: &Conv1d, weights: Chopi, activations: Activations) -> Result<Self> {
        let params = conv1d_params(layer.config());
        let conv = conv::QuantizedConv::from_float(layer.weight(), weights, params, activations);
        let conv = conv.and_then(|conv| conv.with_bias_of(layer.bias()));
        conv.map(Self).map_err(wrap)
    }

    /// An existing layer along two axes, with its weights quantized by `weights`, per tensor or per
    /// channel of axis 0.
    ///
    /// # Errors
    /// The errors of [`from_conv1d`](Self::from_conv1d).
    pub fn from_conv2d(layer: &Conv2d, weights: Chopi, activations: Activations) -> Result<Self> {
        let params = conv2d_params(layer.config());
        let conv = conv::QuantizedConv::from_float(layer.weight(), weights, params, activations);
        let conv = conv.and_then(|conv| conv.with_bias_of(layer.bias()));
        conv.map(Self).map_err(wrap)
    }

    /// A trained layer as [`convert`](crate::nn::Qat::convert) gives it, and what it does with its
    /// kernel. Where its input was not quantized in training, each image is, to 8 bits.
    ///
    /// # Errors
    /// Weights that were not quantized; the errors of [`conv::QuantizedConv::new`].
    pub fn from_converted(layer: &Converted, params: ConvParams) -> Result<Self> {
        let conv = conv::QuantizedConv::from_converted(layer, params);
        conv.map(Self).map_err(wrap)
    }

    /// The layer, whose results are now clamped to \[min, max\]: to \[0, ∞\] for a rectified linear unit.
    #[must_use]
    pub fn with_clamp(self, min: f32, max: f32) -> Self {
        Self(self.0.with_clamp(min, max))
    }
}

impl From<conv::QuantizedConv> for QuantizedConv {
    fn from(layer: conv::QuantizedConv) -> Self {
        Self(layer)
    }
}

impl Module for QuantizedConv {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x).map_err(wrap)
    }
}

/// The strides, padding, dilations and groups of a candle convolution along one axis.
pub fn conv1d_params(config: &Conv1dConfig) -> ConvParams {
    ConvParams {
        strides: vec![config.stride],
        padding: vec![(config.padding, config.padding)],
        dilations: vec![config.dilation],
        groups: config.groups,
    }
}

/// The strides, padding, dilations and groups of a candle convolution along two axes.
pub fn conv2d_params(config: &Conv2dConfig) -> ConvParams {
    ConvParams {
        strides: vec![config.stride; 2],
        padding: vec![(config.padding, config.padding); 2],
        dilations: vec![config.dilation; 2],
        groups: config.groups,
    }
}

/// [`chopi_matmul::QuantizedEmbedding`] as a candle module: an embedding whose table is kept in 8-bit
/// codes; indices in, `f32` rows out.
///
/// The layer to train with quantization is [`QatEmbedding`](crate::nn::QatEmbedding).
///
/// ```
/// # mod chopi { pub use chopi_candle as candle; pub use chopi_core::*; }
/// use candle_core::{Device, Tensor};
/// use candle_nn::Module;
/// use chopi::candle::QuantizedEmbedding;
/// use chopi::Chopi;
///
/// let table = Tensor::new(&[[0.5_f32, -1.0], [2.0, 4.0]], &Device::Cpu)?;
/// let codes = Chopi::builder().num_bits(8).symmetric(true).per_channel(0).build()?;
/// let embedding = QuantizedEmbedding::from_table(&table, codes)?;
/// let rows = embedding.forward(&Tensor::new(&[1_u32, 1, 0], &Device::Cpu)?)?;
/// assert_eq!(rows.dims(), [3, 2]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct QuantizedEmbedding(chopi_matmul::QuantizedEmbedding);

impl QuantizedEmbedding {
    /// A table of shape \[rows, columns\], quantized by `codes`, per tensor or per channel of axis 0.
    ///
    /// # Errors
    /// The errors of quantizing the table and of [`chopi_matmul::QuantizedEmbedding::new`].
    pub fn from_table(table: &Tensor, codes: Chopi) -> Result<Self> {
        let table = chopi_matmul::QuantizedEmbedding::from_table(table, codes);
        table.map(Self).map_err(wrap)
    }

    /// A trained embedding as [`convert`](crate::nn::Qat::convert) gives it.
    ///
    /// # Errors
    /// A table that was not quantized; the errors of [`chopi_matmul::QuantizedEmbedding::new`].
    pub fn from_converted(layer: &Converted) -> Result<Self> {
        let table = chopi_matmul::QuantizedEmbedding::from_converted(layer);
        table.map(Self).map_err(wrap)
    }
}

impl From<chopi_matmul::QuantizedEmbedding> for QuantizedEmbedding {
    fn from(layer: chopi_matmul::QuantizedEmbedding) -> Self {
        Self(layer)
    }
}

impl Module for QuantizedEmbedding {
    fn forward(&self, indices: &Tensor) -> Result<Tensor> {
        crate::tensor::check_room(indices).map_err(candle_core::Error::wrap)?;
        let rows = indices.to_dtype(DType::I64)?.to_device(&Device::Cpu)?;
        let rows = rows.flatten_all()?.to_vec1::<i64>()?;
        let values = self.0.rows_of(&rows).map_err(wrap)?;
        let shape = [indices.dims(), &[self.0.columns()]].concat();
        Tensor::from_vec(values, shape, indices.device())
    }
}
