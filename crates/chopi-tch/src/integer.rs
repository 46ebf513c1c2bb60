//! Layers that multiply integers, as tch modules.

use chopi_core::backend::{Backend, repeated};
use chopi_core::{Chopi, Error};
use chopi_matmul::conv::{self, ConvParams};
use chopi_matmul::{Activations, Result};
use tch::nn::{self, ConvConfigND, Module, PaddingMode};
use tch::{Device, Kind, Tensor};

use crate::device::{lengths, shape};
use crate::nn::{Converted, Convolution, Weighted};
use crate::{LibTorch, framework};

/// [`chopi_matmul::QuantizedLinear`] as a tch module: a linear layer with integer weights, whose product is one
/// of integers; float tensors in, float tensors out, without gradient.
///
/// The layer to train with quantization is [`QatLinear`](crate::nn::QatLinear). This one takes tensors on the
/// CPU. A layer that was read from a file becomes one by [`From`].
///
/// ```
/// # mod chopi { pub use chopi_core::*; pub use chopi_matmul as matmul; pub use chopi_tch as tch; }
/// use chopi::Chopi;
/// use chopi::matmul::Activations;
/// use chopi::tch::QuantizedLinear;
/// use tch::nn::{self, Module};
/// use tch::{Device, Kind, Tensor};
///
/// let variables = nn::VarStore::new(Device::Cpu);
/// let layer = nn::linear(variables.root() / "fc", 32, 16, Default::default());
/// let weights = Chopi::builder().num_bits(8).symmetric(true).per_channel(0).build()?;
/// let integer = QuantizedLinear::from_float(&layer, weights, Activations::default())?;
///
/// let x = Tensor::randn([4, 32], (Kind::Float, Device::Cpu));
/// let difference = (integer.forward(&x) - layer.forward(&x)).abs().max();
/// assert!(difference.double_value(&[]) < 0.1);
/// # Ok::<(), chopi_matmul::Error>(())
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
        layer: &nn::Linear,
        weights: Chopi,
        activations: Activations,
    ) -> Result<Self> {
        let linear = chopi_matmul::QuantizedLinear::from_float(&layer.ws, weights, activations)?;
        linear.with_bias_of(layer.bs.as_ref()).map(Self)
    }

    /// A trained layer as [`convert`](crate::nn::Qat::convert) gives it. Where its input was
    /// not quantized in training, each row is, to 8 bits.
    ///
    /// # Errors
    /// Weights that were not quantized; the errors of [`chopi_matmul::QuantizedLinear::new`].
    pub fn from_converted(layer: &Converted) -> Result<Self> {
        chopi_matmul::QuantizedLinear::from_converted(layer).map(Self)
    }

    /// The layer, whose results are now clamped to \[min, max\]: to \[0, ∞\] for a rectified linear unit.
    #[must_use]
    pub fn with_clamp(self, min: f32, max: f32) -> Self {
        Self(self.0.with_clamp(min, max))
    }

    /// The output for an input of shape \[…, inputs\].
    ///
    /// # Errors
    /// The errors of [`chopi_matmul::QuantizedLinear::forward`].
    pub fn f_forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

impl From<chopi_matmul::QuantizedLinear> for QuantizedLinear {
    fn from(layer: chopi_matmul::QuantizedLinear) -> Self {
        Self(layer)
    }
}

/// # Panics
/// On the errors of [`QuantizedLinear::f_forward`].
impl Module for QuantizedLinear {
    fn forward(&self, x: &Tensor) -> Tensor {
        expect(self.f_forward(x))
    }
}

/// [`chopi_matmul::conv::QuantizedConv`] as a tch module: a convolution with integer weights, whose product is
/// one of integers; float tensors in, float tensors out, without gradient.
///
/// The layers to train with quantization are [`QatConv1d`](crate::nn::QatConv1d) and
/// [`QatConv2d`](crate::nn::QatConv2d). This one takes tensors on the CPU. A layer that was read from a file
/// becomes one by [`From`].
#[derive(Clone, Debug)]
pub struct QuantizedConv(conv::QuantizedConv);

impl QuantizedConv {
    /// An existing layer along one axis or two, with its weights quantized by `weights`, per tensor or per
    /// channel of axis 0.
    ///
    /// # Errors
    /// The errors of quantizing the weights, those of [`conv_params`] and those of
    /// [`conv::QuantizedConv::new`].
    pub fn from_float<const N: usize>(
        layer: &Convolution<[i64; N]>,
        weights: Chopi,
        activations: Activations,
    ) -> Result<Self>
    where
        Convolution<[i64; N]>: Weighted,
    {
        let params = conv_params(layer.config())?;
        let conv = conv::QuantizedConv::from_float(layer.weight(), weights, params, activations)?;
        conv.with_bias_of(layer.bias()).map(Self)
    }

    /// A trained layer as [`convert`](crate::nn::Qat::convert) gives it, and what it does with its
    /// kernel. Where its input was not quantized in training, each image is, to 8 bits.
    ///
    /// # Errors
    /// Weights that were not quantized; the errors of [`conv::QuantizedConv::new`].
    pub fn from_converted(layer: &Converted, params: ConvParams) -> Result<Self> {
        conv::QuantizedConv::from_converted(layer, params).map(Self)
    }

    /// The layer, whose results are now clamped to \[min, max\]: to \[0, ∞\] for a rectified linear unit.
    #[must_use]
    pub fn with_clamp(self, min: f32, max: f32) -> Self {
        Self(self.0.with_clamp(min, max))
    }

    /// The output for an input of shape \[N, C, D_1, …\].
    ///
    /// # Errors
    /// The errors of [`conv::QuantizedConv::forward`].
    pub fn f_forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward(x)
    }
}

impl From<conv::QuantizedConv> for QuantizedConv {
    fn from(layer: conv::QuantizedConv) -> Self {
        Self(layer)
    }
}

/// # Panics
/// On the errors of [`QuantizedConv::f_forward`].
impl Module for QuantizedConv {
    fn forward(&self, x: &Tensor) -> Tensor {
        expect(self.f_forward(x))
    }
}

/// The strides, padding, dilations and groups of a tch convolution.
///
/// # Errors
/// [`Error::Framework`] for a number that is negative, and for a padding that is not one of zeros.
pub fn conv_params<const N: usize>(
    config: &ConvConfigND<[i64; N]>,
) -> chopi_core::Result<ConvParams> {
    let refused = |problem: String| Error::Framework {
        backend: LibTorch::NAME,
        source: problem.into(),
    };
    if !matches!(config.padding_mode, PaddingMode::Zeros) {
        let mode = config.padding_mode;
        return Err(refused(format!(
            "the padding mode is {mode:?}, expected Zeros"
        )));
    }
    let number = |what: &str, n: i64| {
        let number = usize::try_from(n);
        number.map_err(|_| {
            refused(format!(
                "{what} is {n}, expected a number that is not negative"
            ))
        })
    };
    let numbers = |what: &str, of: [i64; N]| {
        let numbers = of.into_iter().map(|n| number(what, n));
        numbers.collect::<chopi_core::Result<Vec<_>>>()
    };
    let padding = numbers("the padding", config.padding)?;
    Ok(ConvParams {
        strides: numbers("the stride", config.stride)?,
        padding: padding.into_iter().map(|n| (n, n)).collect(),
        dilations: numbers("the dilation", config.dilation)?,
        groups: number("the number of groups", config.groups)?,
    })
}

/// [`chopi_matmul::QuantizedEmbedding`] as a tch module: an embedding whose table is kept in 8-bit
/// codes; indices in, Float rows out.
///
/// The layer to train with quantization is [`QatEmbedding`](crate::nn::QatEmbedding). A layer that was read
/// from a file becomes one by [`From`].
#[derive(Clone, Debug)]
pub struct QuantizedEmbedding(chopi_matmul::QuantizedEmbedding);

impl QuantizedEmbedding {
    /// A table of shape \[rows, columns\], quantized by `codes`, per tensor or per channel of axis 0.
    ///
    /// # Errors
    /// The errors of quantizing the table and of [`chopi_matmul::QuantizedEmbedding::new`].
    pub fn from_table(table: &Tensor, codes: Chopi) -> Result<Self> {
        chopi_matmul::QuantizedEmbedding::from_table(table, codes).map(Self)
    }

    /// A trained embedding as [`convert`](crate::nn::Qat::convert) gives it.
    ///
    /// # Errors
    /// A table that was not quantized; the errors of [`chopi_matmul::QuantizedEmbedding::new`].
    pub fn from_converted(layer: &Converted) -> Result<Self> {
        chopi_matmul::QuantizedEmbedding::from_converted(layer).map(Self)
    }

    /// The rows of these indices, along a last axis that the indices do not have.
    ///
    /// # Errors
    /// [`Row`](chopi_matmul::Error::Row) for a row that is not there; indices that are no integers.
    pub fn f_forward(&self, indices: &Tensor) -> Result<Tensor> {
        crate::tensor::check_strided(indices)?;
        let kind = indices.f_kind().map_err(framework)?;
        if !matches!(
            kind,
            Kind::Uint8 | Kind::Int8 | Kind::Int16 | Kind::Int | Kind::Int64
        ) {
            return Err(chopi_matmul::Error::from(Error::Dtype {
                backend: LibTorch::NAME,
                dtype: format!("{kind:?}"),
                expected: "indices of Int8, Uint8, Int16, Int or Int64",
            }));
        }
        let read = crate::tensor::in_memory(indices)?;
        let host = read
            .as_ref()
            .unwrap_or(indices)
            .f_to_device(Device::Cpu)
            .and_then(|host| host.f_to_kind(Kind::Int64)?.f_contiguous());
        let host = host.map_err(framework)?;
        let mut rows = repeated(0_i64, host.numel())?;
        host.f_copy_data(&mut rows, host.numel())
            .map_err(framework)?;
        let values = self.0.rows_of(&rows)?;
        let shape = [shape(indices), vec![self.0.columns()]].concat();
        let values = Tensor::f_from_slice(&values).and_then(|values| {
            values
                .f_reshape(lengths(&shape))?
                .f_to_device(indices.device())
        });
        Ok(values.map_err(framework)?)
    }
}

impl From<chopi_matmul::QuantizedEmbedding> for QuantizedEmbedding {
    fn from(layer: chopi_matmul::QuantizedEmbedding) -> Self {
        Self(layer)
    }
}

/// # Panics
/// On the errors of [`QuantizedEmbedding::f_forward`].
impl Module for QuantizedEmbedding {
    fn forward(&self, indices: &Tensor) -> Tensor {
        expect(self.f_forward(indices))
    }
}

/// What a `forward` of tch does about an error.
fn expect(result: Result<Tensor>) -> Tensor {
    result.unwrap_or_else(|error| panic!("{error}"))
}
