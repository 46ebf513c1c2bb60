//! ConvInteger: the exact convolution of codes.

use chopi_matmul::requantize::Code;
use ndarray::{Array, ArrayRef, Dimension, IxDyn};

use super::convolution::Convolution;
use super::quantized::zero_points;
use super::{ConvAttributes, Result};

/// ConvInteger-10, of the ONNX specification:
///
/// y\[n, m, o\] = Σ_c Σ_k (x\[n, c, o·stride + k·dilation − before\] − z_x) · (w\[m, c, k\] − z_w\[m\]),
/// in int32, exact
///
/// over the channels of m's group. `x` has shape \[N, C, D_1, …\], `w` \[M, C/group, K_1, …\], with any
/// number of spatial axes from one on; outside of it x is z_x. The zero point of `w` is a scalar or has
/// one for each of the M output channels; without zero points they are 0.
///
/// ```
/// # mod chopi { pub use chopi_ndarray as ndarray; }
/// use chopi::ndarray::onnx::{ConvAttributes, conv_integer};
/// use ndarray::array;
///
/// let x = array![[[1_u8, 2, 3, 4]]];
/// let w = array![[[1_i8, 1, 1]]];
/// let same = ConvAttributes { pads: vec![1, 1], ..Default::default() };
/// assert_eq!(conv_integer(&x, &w, Some(1), None, &same)?, array![[[1, 3, 6, 5]]]);
/// # Ok::<(), chopi_ndarray::onnx::Error>(())
/// ```
///
/// # Errors
/// [`Error::ConvAttribute`](super::Error::ConvAttribute) for attributes and
/// [`Error::ParameterShape`](super::Error::ParameterShape) for zero points that do not fit;
/// [`Error::Product`](super::Error::Product) for shapes that do not fit, and where a sum might not fit
/// int32.
pub fn conv_integer<X: Code, W: Code, D: Dimension>(
    x: &ArrayRef<X, D>,
    w: &ArrayRef<W, D>,
    x_zero_point: Option<X>,
    w_zero_point: Option<&ArrayRef<W, IxDyn>>,
    attributes: &ConvAttributes,
) -> Result<Array<i32, D>> {
    let zeros = zero_points(w_zero_point)?;
    let zero_shape = w_zero_point.map_or(&[][..], |zeros| zeros.shape());
    let convolution = Convolution::new(x.shape(), w, (&zeros, zero_shape), attributes)?;
    let zero_point = x_zero_point.unwrap_or_default();
    convolution.run(x, zero_point, 0, |conv, x, y| conv.convolve(x, y))
}
