//! QuantizeLinear: floats to codes.

use std::marker::PhantomData;

use chopi_core::{
    Convention, Granularity, NanPolicy, QParams, Rounding, Scheme, SchemeFields, Symmetry, Zero,
    backend::{Float, FloatType, bf16, collected, f16, repeated},
};
use ndarray::{Array, ArrayRef, Dimension, Zip};

use super::codes::QuantizedTo;
use super::groups::{filled, granularity, mapped, spread};
use super::{
    DequantizableElement, DequantizeAttributes, Error, QuantizedElement, QuantizedType, Result,
};

/// The attributes of QuantizeLinear-25; the defaults are the specification's.
///
/// Its attribute `saturate` is for 8-bit floats: integers always saturate.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct QuantizeAttributes {
    /// The axis of per-axis and blocked scales; a negative one counts from the end. By default 1.
    pub axis: isize,
    /// The number of elements along the axis that share a scale; 0, the default, without blocks.
    pub block_size: usize,
    /// The type of the codes, whose [element](QuantizedType::element) is that of the result; by
    /// default the type that has all of the element's values.
    pub output_dtype: Option<QuantizedType>,
    /// The type that x/s is rounded to: `F32`, `F16` or `BF16`; by default the type of the scale.
    pub precision: Option<FloatType>,
    /// What becomes of a NaN quotient, of which the specification says nothing. By default it is an
    /// error.
    pub nan: NanPolicy,
}

impl Default for QuantizeAttributes {
    fn default() -> Self {
        let DequantizeAttributes { axis, block_size } = DequantizeAttributes::default();
        Self {
            axis,
            block_size,
            output_dtype: None,
            precision: None,
            nan: NanPolicy::default(),
        }
    }
}

impl QuantizeAttributes {
    /// The attributes with which DequantizeLinear takes the scale and the zero point in the same way.
    pub fn groups(&self) -> DequantizeAttributes {
        DequantizeAttributes {
            axis: self.axis,
            block_size: self.block_size,
        }
    }
}

/// QuantizeLinear, of the ONNX specification's opset 25:
///
/// y = saturate(RNE(P(P(x)/P(s))) + z)
///
/// with P the rounding to the attribute `precision`, by default to the type of the scale; RNE that
/// to the nearest integer, ties to even; z = 0 where there is no zero point. The sum is exact.
/// Saturation is to the bounds of the type of the codes, whatever its element holds: uint4 to
/// \[0, 15\], int16 to \[−32768, 32767\] and so on.
///
/// `x` has any shape, `y_scale` and `y_zero_point` the shapes that the
/// [module](super#scales-and-zero-points) says. The element type of the zero point and of the
/// result chooses the codes: `i8`, `u8`, `i16`, `u16`; the attribute `output_dtype` chooses those of
/// 2 and 4 bits in `i8` and `u8`. Without a zero point the type of the result says it
/// (the specification's default is uint8):
///
/// ```
/// # mod chopi { pub use chopi_ndarray as ndarray; }
/// use chopi::ndarray::onnx::{QuantizeAttributes, quantize_linear};
/// use ndarray::{Array1, arr0, array};
///
/// let x = array![0.0_f32, 0.5, 1.5, 400.0];
/// let q: Array1<u8> = quantize_linear(&x, &arr0(1.0_f32), None, &QuantizeAttributes::default())?;
/// assert_eq!(q, array![0, 0, 2, 255]);
/// # Ok::<(), chopi_ndarray::onnx::Error>(())
/// ```
///
/// # Errors
/// [`Error::ScaleShape`], [`Error::ZeroPointShape`] and [`Error::BlockSize`] for shapes that do not
/// fit each other; [`Error::OutputType`] where the codes are not of the result's element type;
/// [`Error::ZeroPoint`] for a zero point that is not a code; [`Error::Precision`] for `F64`;
/// [`Error::Core`] for an axis that the tensor does not have, and for a NaN quotient (of a NaN, of
/// 0/0 or of ∞/∞), with its index, unless [`NanPolicy`] says otherwise.
pub fn quantize_linear<A, S, Z, D, G>(
    x: &ArrayRef<A, D>,
    y_scale: &ArrayRef<S, G>,
    y_zero_point: Option<&ArrayRef<Z, G>>,
    attributes: &QuantizeAttributes,
) -> Result<Array<Z, D>>
where
    A: Float<Compute = f32>,
    S: Float<Compute = f32>,
    Z: QuantizedElement,
    D: Dimension,
    G: Dimension,
{
    let QuantizeAttributes {
        axis, block_size, ..
    } = *attributes;
    let zero_shape = y_zero_point.map(|z| z.shape());
    let granularity = granularity(x.shape(), y_scale.shape(), zero_shape, axis, block_size)?;
    let output = attributes.output_dtype.unwrap_or(Z::QUANTIZED);
    if output.element() != Z::TYPE {
        return Err(Error::OutputType {
            output_dtype: output,
            element: Z::TYPE,
        });
    }
    let zeros = zero_points(y_zero_point, y_scale.len(), output)?;
    let bounds = output.bounds();
    let precision = attributes.precision.unwrap_or(S::TYPE);
    let quotient = match precision {
        FloatType::F32 if all_positive(y_scale) => {
            let scales = collected(y_scale.iter().map(|s| s.widen().into()))?;
            let params = params(A::TYPE, granularity, x.shape(), (scales, zeros), bounds)?;
            return codes(x, params, attributes.nan);
        }
        FloatType::F32 => quotient::<f32, _, _, _, _>(x, y_scale, granularity)?,
        FloatType::F16 => quotient::<f16, _, _, _, _>(x, y_scale, granularity)?,
        FloatType::BF16 => quotient::<bf16, _, _, _, _>(x, y_scale, granularity)?,
        FloatType::F64 => return Err(Error::Precision { precision }),
    };
    let ones = repeated(1.0, zeros.len())?;
    let params = params(
        FloatType::F32,
        granularity,
        x.shape(),
        (ones, zeros),
        bounds,
    )?;
    codes(&quotient, params, attributes.nan)
}

/// The zero point of each group.
fn zero_points<Z: DequantizableElement, G: Dimension>(
    zero_point: Option<&ArrayRef<Z, G>>,
    groups: usize,
    output: QuantizedType,
) -> Result<Vec<i64>> {
    let Some(zero_point) = zero_point else {
        return Ok(repeated(0, groups)?);
    };
    let zeros: Vec<i64> = collected(zero_point.iter().map(|z| z.to_i64()))?;
    let (qmin, qmax) = output.bounds();
    match zeros.iter().position(|z| !(qmin..=qmax).contains(z)) {
        None => Ok(zeros),
        Some(group) => Err(Error::ZeroPoint {
            group,
            zero_point: zeros[group],
            expected: format!("{qmin}..={qmax} for {output}"),
        }),
    }
}

/// Whether the kernels take these scales.
pub(super) fn all_positive<S: Float<Compute = f32>, G: Dimension>(scales: &ArrayRef<S, G>) -> bool {
    scales
        .iter()
        .all(|s| s.widen() > 0.0 && s.widen().is_finite())
}

/// The kernels' parameters for data of type `float` and codes in these bounds.
pub(super) fn params(
    float: FloatType,
    granularity: Granularity,
    shape: &[usize],
    (scale, zero_point): (Vec<f64>, Vec<i64>),
    (qmin, qmax): (i64, i64),
) -> Result<QParams> {
    let scheme = Scheme::new(SchemeFields {
        bits: (qmax - qmin).ilog2() + 1,
        symmetry: Symmetry::Asymmetric,
        granularity,
        qmin,
        qmax,
        zero: Zero::Included,
        rounding: Rounding::NearestEven,
    })?;
    let shape = granularity.params_shape(shape)?;
    Ok(QParams::new(
        scheme,
        Convention::ONNX_SPEC,
        float,
        shape,
        scale,
        zero_point,
    )?)
}

/// The codes that the kernels give.
pub(super) fn codes<A: Float, Z: QuantizedElement, D: Dimension>(
    x: &ArrayRef<A, D>,
    params: QParams,
    nan: NanPolicy,
) -> Result<Array<Z, D>> {
    let x = QuantizedTo {
        array: x.view(),
        codes: PhantomData::<Z>,
    };
    Ok(params.with_nan_policy(nan).quantize(&x)?.array)
}

/// P(P(x)/P(s)). Rounding the `f32` quotient of two halves to their type rounds the exact quotient:
/// `f32` has more than twice their digits and two.
fn quotient<P, A, S, D, G>(
    x: &ArrayRef<A, D>,
    scale: &ArrayRef<S, G>,
    granularity: Granularity,
) -> Result<Array<f32, D>>
where
    P: Float<Compute = f32>,
    A: Float<Compute = f32>,
    S: Float<Compute = f32>,
    D: Dimension,
    G: Dimension,
{
    let scale = mapped(scale, |s| P::narrow(s.widen()).widen())?;
    // The conversions of halves are what takes the time.
    let exact = A::TYPE == P::TYPE;
    let dividend = |x: f32| if exact { x } else { P::narrow(x).widen() };
    let mut quotients = filled(0.0, x.shape())?;
    Zip::from(&mut quotients)
        .and(x)
        .and_broadcast(&spread(&scale, granularity, x.shape())?)
        .for_each(|quotient, x, s| *quotient = P::narrow(dividend(x.widen()) / s).widen());
    Ok(quotients)
}
