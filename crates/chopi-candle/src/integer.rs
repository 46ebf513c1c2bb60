//! Layers that multiply integers, as candle modules.

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Module};
use chopi_core::backend::{Backend, IntTensor};
use chopi_core::{
    Chopi, QParams,
    backend::{NoMemory, repeated, with_room},
};
use chopi_matmul::conv::{self, ConvParams};
use chopi_matmul::{Activations, Error};

use crate::nn::Converted;

pub(crate) fn wrap(error: impl std::error::Error + Send + Sync + 'static) -> candle_core::Error {
    candle_core::Error::wrap(error)
}

/// [`chopi_matmul::QuantizedLinear`] as a candle module: a linear layer with integer weights, whose
/// product is one of integers; float tensors in, float tensors out.
///
/// The layer to train with quantization is [`QatLinear`](crate::nn::QatLinear). This one runs on the
/// CPU; tensors of other devices are copied there and back.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
/// use chopi_candle::QuantizedLinear;
/// use chopi_core::Chopi;
/// use chopi_matmul::Activations;
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
        let (codes, weights) = quantized(layer.weight(), weights)?;
        Self::new(&codes, &weights, activations, layer.bias())
    }

    /// A trained layer as [`convert`](crate::nn::Qat::convert) gives it. Where its input was
    /// not quantized in training, each row is, to 8 bits.
    ///
    /// # Errors
    /// Weights that were not quantized; the errors of [`chopi_matmul::QuantizedLinear::new`].
    pub fn from_converted(layer: &Converted) -> Result<Self> {
        let (codes, weights, activations) = trained(layer)?;
        Self::new(codes, weights, activations, layer.bias.as_ref())
    }

    pub(crate) fn new<B: Backend>(
        codes: &impl IntTensor<B>,
        weights: &QParams,
        activations: Activations,
        bias: Option<&Tensor>,
    ) -> Result<Self> {
        let layer =
            chopi_matmul::QuantizedLinear::new(codes, weights, activations).map_err(wrap)?;
        Ok(Self(match bias {
            None => layer,
            Some(bias) => layer.with_bias(host(bias)?).map_err(wrap)?,
        }))
    }

    /// The layer, whose results are now clamped to \[min, max\]: to \[0, ∞\] for a rectified linear unit.
    #[must_use]
    pub fn with_clamp(self, min: f32, max: f32) -> Self {
        Self(self.0.with_clamp(min, max))
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
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Conv2d, Conv2dConfig, Module};
/// use chopi_candle::QuantizedConv;
/// use chopi_core::Chopi;
/// use chopi_matmul::Activations;
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
        let (codes, weights) = quantized(layer.weight(), weights)?;
        let params = conv1d_params(layer.config());
        Self::new(&codes, &weights, params, activations, layer.bias())
    }

    /// An existing layer along two axes, with its weights quantized by `weights`, per tensor or per
    /// channel of axis 0.
    ///
    /// # Errors
    /// The errors of [`from_conv1d`](Self::from_conv1d).
    pub fn from_conv2d(layer: &Conv2d, weights: Chopi, activations: Activations) -> Result<Self> {
        let (codes, weights) = quantized(layer.weight(), weights)?;
        let params = conv2d_params(layer.config());
        Self::new(&codes, &weights, params, activations, layer.bias())
    }

    /// A trained layer as [`convert`](crate::nn::Qat::convert) gives it, and what it does with its
    /// kernel. Where its input was not quantized in training, each image is, to 8 bits.
    ///
    /// # Errors
    /// Weights that were not quantized; the errors of [`conv::QuantizedConv::new`].
    pub fn from_converted(layer: &Converted, params: ConvParams) -> Result<Self> {
        let (codes, weights, activations) = trained(layer)?;
        Self::new(codes, weights, params, activations, layer.bias.as_ref())
    }

    pub(crate) fn new<B: Backend>(
        codes: &impl IntTensor<B>,
        weights: &QParams,
        params: ConvParams,
        activations: Activations,
        bias: Option<&Tensor>,
    ) -> Result<Self> {
        let layer = conv::QuantizedConv::new(codes, weights, params, activations).map_err(wrap)?;
        Ok(Self(match bias {
            None => layer,
            Some(bias) => layer.with_bias(host(bias)?).map_err(wrap)?,
        }))
    }

    /// The layer, whose results are now clamped to \[min, max\]: to \[0, ∞\] for a rectified linear unit.
    #[must_use]
    pub fn with_clamp(self, min: f32, max: f32) -> Self {
        Self(self.0.with_clamp(min, max))
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

/// What a trained layer multiplies with, and how its input is quantized.
fn trained(layer: &Converted) -> Result<(&Tensor, &QParams, Activations)> {
    let (Some(codes), Some(weights)) = (&layer.weight_codes, &layer.weight) else {
        candle_core::bail!("the layer was trained with weights that are not quantized");
    };
    let params = layer.activations.as_ref().and_then(Chopi::params);
    let activations = match params {
        Some(params) => Activations::Static(params.try_clone().map_err(wrap)?),
        None => Activations::default(),
    };
    let weights = weights.params().ok_or(chopi_core::Error::NotCalibrated);
    Ok((codes, weights.map_err(wrap)?, activations))
}

/// The codes of weights, and the parameters that a quantizer has or takes from them.
pub(crate) fn quantized(weights: &Tensor, mut quantizer: Chopi) -> Result<(Tensor, QParams)> {
    let codes = quantizer.quantize(weights).map_err(wrap)?;
    let params = quantizer.into_params();
    let params = params.ok_or(chopi_core::Error::NotCalibrated);
    Ok((codes, params.map_err(wrap)?))
}

/// The elements of a tensor of one axis.
fn host(tensor: &Tensor) -> Result<Vec<f32>> {
    tensor
        .to_dtype(DType::F32)?
        .to_device(&Device::Cpu)?
        .to_vec1()
}

/// [`chopi_matmul::QuantizedEmbedding`] as a candle module: an embedding whose table is kept in 8-bit
/// codes; indices in, `f32` rows out.
///
/// The layer to train with quantization is [`QatEmbedding`](crate::nn::QatEmbedding).
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_nn::Module;
/// use chopi_candle::QuantizedEmbedding;
/// use chopi_core::Chopi;
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
        let (codes, params) = quantized(table, codes)?;
        Self::new(&codes, &params)
    }

    /// A trained embedding as [`convert`](crate::nn::Qat::convert) gives it.
    ///
    /// # Errors
    /// A table that was not quantized; the errors of [`chopi_matmul::QuantizedEmbedding::new`].
    pub fn from_converted(layer: &Converted) -> Result<Self> {
        let (codes, params, _) = trained(layer)?;
        Self::new(codes, params)
    }

    pub(crate) fn new<B: Backend>(codes: &impl IntTensor<B>, params: &QParams) -> Result<Self> {
        let table = chopi_matmul::QuantizedEmbedding::new(codes, params);
        Ok(Self(table.map_err(wrap)?))
    }
}

impl Module for QuantizedEmbedding {
    fn forward(&self, indices: &Tensor) -> Result<Tensor> {
        let rows = indices.to_dtype(DType::I64)?.to_device(&Device::Cpu)?;
        let rows = rows.flatten_all()?.to_vec1::<i64>()?;
        let row = |&row: &i64| {
            let rows = self.0.rows();
            u32::try_from(row).map_err(|_| wrap(Error::Row { row, rows }))
        };
        let room = |error: NoMemory| wrap(chopi_core::Error::from(error));
        let mut numbers = with_room(rows.len()).map_err(room)?;
        for of_row in &rows {
            numbers.push(row(of_row)?);
        }
        let len = numbers.len().saturating_mul(self.0.columns());
        let mut values = repeated(0.0, len).map_err(room)?;
        self.0.lookup(&numbers, &mut values).map_err(wrap)?;
        let shape = [indices.dims(), &[self.0.columns()]].concat();
        Tensor::from_vec(values, shape, indices.device())
    }
}
