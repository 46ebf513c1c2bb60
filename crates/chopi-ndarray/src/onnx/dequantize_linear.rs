//! DequantizeLinear: codes to floats.

use std::marker::PhantomData;

use chopi_core::backend::{Float, IntType, collected};
use ndarray::{Array, ArrayRef, Dimension, Zip};

use super::codes::TypedCodes;
use super::groups::{filled, granularity, mapped, spread};
use super::quantize_linear::{all_positive, params};
use super::{DequantizableElement, Error, Result};

/// The attributes of DequantizeLinear-25; the defaults are the specification's.
///
/// Its attribute `output_dtype` is the element type of the result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DequantizeAttributes {
    /// The axis of per-axis and blocked scales; a negative one counts from the end. By default 1.
    pub axis: isize,
    /// The number of elements along the axis that share a scale; 0, the default, without blocks.
    pub block_size: usize,
}

impl Default for DequantizeAttributes {
    fn default() -> Self {
        Self {
            axis: 1,
            block_size: 0,
        }
    }
}

/// DequantizeLinear, of the ONNX specification's opset 25:
///
/// y = (x − z)·s
///
/// with z = 0 where there is no zero point. x − z is exact, but for int32, which is rounded to
/// `f32`; the product is rounded to `f32`, and then to the type of the result where that is a half.
///
/// `x` has any shape, `x_scale` and `x_zero_point` the shapes that the
/// [module](super#scales-and-zero-points) says. The element type of the result is the specification's
/// `output_dtype`, by default there that of the scale. (The text has it determine the precision of
/// the product; both of ONNX's implementations compute as said here.)
///
/// ```
/// # mod chopi { pub use chopi_ndarray as ndarray; }
/// use chopi::ndarray::onnx::{DequantizeAttributes, dequantize_linear};
/// use ndarray::{Array1, arr0, array};
///
/// let q = array![0_u8, 128, 255];
/// let (scale, zero_point) = (arr0(0.5_f32), arr0(128));
/// let attributes = DequantizeAttributes::default();
/// let y: Array1<f32> = dequantize_linear(&q, &scale, Some(&zero_point), &attributes)?;
/// assert_eq!(y, array![-64.0, 0.0, 63.5]);
/// # Ok::<(), chopi_ndarray::onnx::Error>(())
/// ```
///
/// # Errors
/// [`Error::ScaleShape`], [`Error::ZeroPointShape`] and [`Error::BlockSize`] for shapes that do not
/// fit each other; [`Error::ZeroPoint`] for a zero point of int32 that is not 0; [`Error::Core`] for
/// an axis that the tensor does not have.
pub fn dequantize_linear<I, S, O, D, G>(
    x: &ArrayRef<I, D>,
    x_scale: &ArrayRef<S, G>,
    x_zero_point: Option<&ArrayRef<I, G>>,
    attributes: &DequantizeAttributes,
) -> Result<Array<O, D>>
where
    I: DequantizableElement,
    S: Float<Compute = f32>,
    O: Float<Compute = f32>,
    D: Dimension,
    G: Dimension,
{
    let DequantizeAttributes { axis, block_size } = *attributes;
    let zero_shape = x_zero_point.map(|z| z.shape());
    let granularity = granularity(x.shape(), x_scale.shape(), zero_shape, axis, block_size)?;
    let zeros = match x_zero_point {
        None => mapped(x_scale, |_| 0)?,
        Some(zero_point) => mapped(zero_point, |z| z.to_i64())?,
    };
    if I::TYPE == IntType::I32 {
        if let Some((group, &zero_point)) = zeros.iter().enumerate().find(|(_, z)| **z != 0) {
            return Err(Error::ZeroPoint {
                group,
                zero_point,
                expected: "0 for int32".to_owned(),
            });
        }
    } else if all_positive(x_scale) {
        let scales = collected(x_scale.iter().map(|s| s.widen().into()))?;
        let zeros = collected(zeros.into_iter())?;
        let params = params(
            O::TYPE,
            granularity,
            x.shape(),
            (scales, zeros),
            I::TYPE.bounds(),
        )?;
        let codes = TypedCodes {
            array: x.view(),
            values: PhantomData,
        };
        return Ok(params.dequantize(&codes)?);
    }
    let scale = mapped(x_scale, |s| s.widen())?;
    let mut values = filled(O::default(), x.shape())?;
    Zip::from(&mut values)
        .and(x)
        .and_broadcast(&spread(&scale, granularity, x.shape())?)
        .and_broadcast(&spread(&zeros, granularity, x.shape())?)
        .for_each(|value, q, s, z| *value = O::narrow((q.to_i64() - z) as f32 * s));
    Ok(values)
}
