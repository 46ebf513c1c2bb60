//! The convolution as a layer, on tensors of any framework.

use chopi_core::{
    Builder, QParams,
    backend::{
        Backend, Fill, Float, FloatSliceMut, FloatTensor, HostInts, IntTensor, Layout, bf16,
        collected, f16, repeated,
    },
};

use super::{ConvInput, ConvParams, PackedConv};
use crate::broadcast;
use crate::error::{Error, Result};
use crate::linear::{Activations, check_params, is_per_output, narrow, to_f32};

/// A convolution with integer weights, on tensors of any framework: floats in and out, the input quantized
/// dynamically image by image or by static parameters, the product one of integers.
///
/// For an input x of shape \[N, C, D_1, …\] and weights of shape \[M, C/groups, K_1, …\]:
///
/// y\[n, m, o\] = clamp(Σ · (s_x\[n\] · s_w\[m\]) + b\[m\])
///
/// where Σ is the exact sum over the codes that the [module](super) defines. Its conversion to `f32`, and
/// each operation after that, is rounded to `f32`, and the result to the type of x. The input is
/// quantized by static parameters or, image by image, by its range: so the other images of a batch do
/// not change a result. Where there is padding, that range includes zero.
#[derive(Clone, Debug)]
pub struct QuantizedConv {
    packed: PackedConv,
    scales: Vec<f32>,
    bias: Option<Vec<f32>>,
    clamp: Option<(f32, f32)>,
    activations: Activations,
}

impl QuantizedConv {
    /// A layer of the codes of its weights and their parameters: per tensor, or per channel of axis 0.
    ///
    /// # Errors
    /// [`Error::Weights`] for weights of another granularity, [`Error::Convolution`] where the groups do
    /// not divide the output channels; [`Error::Range`], [`Error::RealZeroPoints`] and
    /// [`Error::ZeroPoint`] for weights or activations that are not of 8 bits;
    /// [`Error::StaticActivations`]; an invalid scheme of the activations.
    pub fn new<B: Backend, Q: IntTensor<B> + ?Sized>(
        weights: &Q,
        params: &QParams,
        convolution: ConvParams,
        activations: Activations,
    ) -> Result<Self> {
        activations.check()?;
        let pack = |codes: HostInts<'_>| {
            check_params("the weights", params)?;
            let shape = codes.layout().shape();
            if !is_per_output(params, shape) {
                let expected = "one for all, or one for each output channel";
                return Err(Error::weights(&codes, params, expected));
            }
            let bytes = narrow(&codes, params.bounds())?;
            let zeros: Vec<i32> = collected(params.zero_point().iter().map(|&z| z as i32))?;
            PackedConv::new(bytes.codes(), shape, convolution, &zeros)
        };
        Ok(Self {
            packed: weights.with_host(|codes| Ok(pack(codes)?))?,
            scales: to_f32(params.scale())?,
            bias: None,
            clamp: None,
            activations,
        })
    }

    /// The layer, which now adds a bias, one number for each output channel.
    ///
    /// # Errors
    /// [`Error::Length`] for another length.
    pub fn with_bias(self, bias: Vec<f32>) -> Result<Self> {
        Error::check_length("the bias", bias.len(), self.packed.shape()[0])?;
        Ok(Self {
            bias: Some(bias),
            ..self
        })
    }

    /// The layer, whose results are now clamped to \[min, max\]: to \[0, ∞\] for a rectified linear unit.
    #[must_use]
    pub fn with_clamp(self, min: f32, max: f32) -> Self {
        Self {
            clamp: Some((min, max)),
            ..self
        }
    }

    /// The output for an input of shape \[N, C, D_1, …\].
    ///
    /// # Errors
    /// [`Error::Convolution`] for another shape; [`Error::Padding`] where static parameters have a zero
    /// point that is not a code, and there is padding; [`Error::Overflow`]; what quantizing the input
    /// says, as for NaN.
    pub fn forward<B: Backend, T: FloatTensor<B> + ?Sized>(&self, x: &T) -> Result<T::Owned> {
        let padded = self
            .packed
            .params()
            .padding
            .iter()
            .any(|&padding| padding != (0, 0));
        let images = |builder: Builder| match padded {
            true => builder.per_channel(0).include_zero(),
            false => builder.per_channel(0),
        };
        let (codes, params) = self.activations.quantize(x, images)?;
        let output = codes.with_host(|codes| {
            let geometry = self.packed.geometry(codes.layout().shape())?;
            let y = self.images(&codes, &params)?;
            let layout = Layout::row_major(&geometry.output_shape());
            let fill = |out: FloatSliceMut<'_>| {
                match out {
                    FloatSliceMut::F32(out) => write(&y, out),
                    FloatSliceMut::F64(out) => {
                        for (out, &y) in out.iter_mut().zip(&y) {
                            out.write(y.into());
                        }
                    }
                    FloatSliceMut::F16(out) => write::<f16>(&y, out),
                    FloatSliceMut::BF16(out) => write::<bf16>(&y, out),
                }
                Ok(())
            };
            // SAFETY: `fill` is given as many elements as `y` has, and each of its arms writes one for each
            // of those.
            x.float_like(&layout, unsafe { Fill::new_unchecked(y.len(), fill) })
        });
        Ok(output?)
    }

    /// The output of quantized images, row-major.
    fn images(&self, codes: &HostInts<'_>, params: &QParams) -> Result<Vec<f32>> {
        let shape = codes.layout().shape();
        let bytes = narrow(codes, params.bounds())?;
        let (all, scales) = (bytes.codes(), to_f32(params.scale())?);
        let images = shape.first().copied().unwrap_or(0);
        // The shape is that of the backend's codes, the parameters are those of its input.
        Error::check_each("the scales of the images", scales.len(), images)?;
        let one = [&[1], shape.get(1..).unwrap_or(&[])].concat();
        let geometry = self.packed.geometry(&one)?;
        let (from, to) = (geometry.input_len(), geometry.output_len());
        let mut y = repeated(0.0, images.saturating_mul(to))?;
        if y.is_empty() {
            return Ok(y);
        }
        for image in 0..images {
            let scale = broadcast::of(&scales, image);
            let input = ConvInput {
                codes: all.part(image * from..(image + 1) * from),
                shape: &one,
                zero_point: broadcast::of(params.zero_point(), image) as i32,
            };
            let products: Vec<f32> = collected(self.scales.iter().map(|of_w| scale * of_w))?;
            let (bias, y) = (self.bias.as_deref(), &mut y[image * to..(image + 1) * to]);
            self.packed
                .convolve_dequantized(&input, &products, bias, self.clamp, y)?;
        }
        Ok(y)
    }
}

/// Numbers in another type, rounded.
fn write<F: Float<Compute = f32>>(from: &[f32], to: &mut [std::mem::MaybeUninit<F>]) {
    for (to, &from) in to.iter_mut().zip(from) {
        to.write(F::narrow(from));
    }
}
