//! QLinearConv: the convolution of codes, as codes.

use chopi_core::backend::{Float, collected, try_collected};
use chopi_matmul::requantize::{Code, FloatMultiplier, OutputCodes};
use ndarray::{Array, ArrayRef, Dimension, Ix1};

use super::convolution::Convolution;
use super::{ConvAttributes, Error, Quantized, Result};

/// QLinearConv-10, of the ONNX specification:
///
/// y = saturate(RNE(RN(C + B) · RN(RN(s_x·s_w)/s_y)) + z_y)
///
/// with C the sums of [`conv_integer`](super::conv_integer()), B the bias of the output channel (in
/// units of s_x·s_w; the sum saturates to int32), RN the rounding to `f32`, also of the product, and
/// RNE that to the nearest integer, ties to even. The text of the specification leaves open what is
/// rounded; ONNX Runtime computes this.
///
/// The scale and the zero point of `x` are scalars; those of `w` are too, or have one for each output
/// channel. The element type of `y_zero_point` is that of the output.
///
/// ```
/// # mod chopi { pub use chopi_ndarray as ndarray; }
/// use chopi::ndarray::onnx::{ConvAttributes, Quantized, qlinear_conv};
/// use ndarray::{arr0, array};
///
/// let (codes, scale, zero_point) = (array![[[3_u8, 5, 9]]], arr0(0.5_f32).into_dyn(), arr0(1).into_dyn());
/// let x = Quantized { codes: &*codes, scale: &*scale, zero_point: &*zero_point };
/// let (codes, scale, zero_point) = (array![[[1_i8, -2]]], arr0(0.5_f32).into_dyn(), arr0(0).into_dyn());
/// let w = Quantized { codes: &*codes, scale: &*scale, zero_point: &*zero_point };
/// // The sums are −6 and −12, and with the bias −2 and −8: −0.5 and −2.
/// let bias = array![4];
/// let y = qlinear_conv(&x, &w, 0.5, 100_u8, Some(&bias), &ConvAttributes::default())?;
/// assert_eq!(y, array![[[99, 96]]]);
/// # Ok::<(), chopi_ndarray::onnx::Error>(())
/// ```
///
/// # Errors
/// The errors of [`conv_integer`](super::conv_integer()); [`Error::ZeroPointShape`] for a zero point of
/// another shape than its scale; [`Error::Product`] for a bias of another length than M, and for a
/// multiplier that is NaN or infinite.
pub fn qlinear_conv<X, W, Y, S, D>(
    x: &Quantized<'_, X, S, D>,
    w: &Quantized<'_, W, S, D>,
    y_scale: S,
    y_zero_point: Y,
    bias: Option<&ArrayRef<i32, Ix1>>,
    attributes: &ConvAttributes,
) -> Result<Array<Y, D>>
where
    X: Code,
    W: Code,
    Y: Code,
    S: Float<Compute = f32>,
    D: Dimension,
{
    let (x_scales, _) = x.parameters()?;
    let (&[x_scale], Some(&x_zero)) = (&*x_scales, x.zero_point.first()) else {
        return Err(Error::ParameterShape {
            name: "x_scale",
            shape: x.scale.shape().to_vec(),
            operand: x.codes.shape().to_vec(),
            expected: "a scalar".to_owned(),
        });
    };
    let (w_scales, w_zeros) = w.parameters()?;
    let zeros = (&*w_zeros, w.scale.shape());
    let convolution = Convolution::new(x.codes.shape(), w.codes, zeros, attributes)?;
    let y_scale = y_scale.widen();
    let multipliers = w_scales
        .iter()
        .map(|&w| FloatMultiplier::from_scales(x_scale, w, y_scale));
    let multipliers = try_collected(multipliers)?;
    let bias = bias
        .map(|bias| collected(bias.iter().copied()))
        .transpose()?;
    let codes = OutputCodes::new(y_zero_point);
    convolution.run(x.codes, x_zero, y_zero_point, |conv, x, y| {
        conv.convolve_requantized(x, bias.as_deref(), &multipliers, codes, y)
    })
}
