//! DynamicQuantizeLinear: floats to codes, with the scale and the zero point of their range.

use chopi_core::{Chopi, Convention, Granularity, NanPolicy, QParams, observer::Ranges};
use ndarray::{Array, ArrayRef, Dimension};

use super::Result;
use super::quantize_linear::codes;

/// DynamicQuantizeLinear, of the ONNX specification's opset 11, the latest: the codes, the scale and
/// the zero point (y, y_scale, y_zero_point), uint8 per tensor.
///
/// s = (max(0, max x) − min(0, min x))/255
/// z = RNE(saturate(0 − min(0, min x)/s))
/// y = saturate(RNE(x/s) + z)
///
/// Each operation is rounded to `f32`; z uses that s; saturation is to \[0, 255\]; RNE is the
/// rounding to the nearest integer, ties to even. Where all x are 0, and where there are none, the
/// definition has no s: it is 1 then, as in ONNX Runtime.
///
/// ```
/// # mod chopi { pub use chopi_ndarray as ndarray; }
/// use chopi::ndarray::onnx::dynamic_quantize_linear;
/// use ndarray::array;
///
/// let (y, scale, zero_point) = dynamic_quantize_linear(&array![0.0_f32, 2.0, -3.0])?;
/// assert_eq!((y, scale, zero_point), (array![153, 255, 0], 5.0 / 255.0, 153));
/// # Ok::<(), chopi_ndarray::onnx::Error>(())
/// ```
///
/// # Errors
/// [`chopi_core::Error::NonFinite`] for NaN and infinities, with the index of the first one;
/// [`chopi_core::Error::Scale`] where s is infinite or zero in `f32`.
pub fn dynamic_quantize_linear<D: Dimension>(
    x: &ArrayRef<f32, D>,
) -> Result<(Array<u8, D>, f32, u8)> {
    if x.is_empty() {
        return Ok((Array::zeros(x.raw_dim()), 1.0, 0));
    }
    let quantizer = Chopi::builder().convention(Convention::ONNX).build()?;
    let ranges = Ranges::observe(&x.view(), Granularity::PerTensor)?;
    let params = QParams::from_ranges(&ranges, quantizer.scheme(), quantizer.convention())?;
    let (scale, zero_point) = (params.scale()[0] as f32, params.zero_point()[0] as u8);
    Ok((codes(x, params, NanPolicy::Error)?, scale, zero_point))
}
