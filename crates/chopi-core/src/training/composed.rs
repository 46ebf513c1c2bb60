//! Fake quantization composed of a framework's differentiable operations, where it can have none of one's
//! own.

use super::{LearnedParams, Ste};
use crate::Granularity;
use crate::backend::{Backend, DeviceTensor, FloatTensor, Layout};
use crate::error::Result;
use crate::qparams::QParams;
use chopi_kernels::memory::collected;

/// Fake-quantizes with fixed parameters: the bits of
/// [`Chopi::fake_quantize`](crate::Chopi::fake_quantize); the gradient passes by `ste`. That of an
/// infinite element is 0, also with [`Ste::Identity`].
///
/// To the values, which have no gradient, comes the difference of x and its own detached elements: 0 with
/// the gradient of x.
///
/// # Errors
/// [`Error::ParamsShape`](crate::Error::ParamsShape) for parameters for another shape;
/// [`Error::Dtype`](crate::Error::Dtype) for an unsupported dtype.
pub fn composed_fake_quantize<B, T>(x: &T, params: &QParams, ste: Ste) -> Result<T>
where
    B: Backend,
    T: DeviceTensor + From<T::Float> + From<T::Int>,
    T::Float: FloatTensor<B, Owned = T::Float, Int = T::Int>,
{
    let (values, inside) = values_and_mask(x, params)?;
    pass(x, &values, (ste == Ste::Clipped).then_some(&inside))
}

/// Fake-quantizes with learned parameters, whose gradients are those of [`LearnedParams`]. The sums of
/// gradients are the framework's, in the widest type that the device has, so their last bit may differ.
///
/// `scale` and `zero_point`, real numbers in the shape of the parameters, are the tensors that `params`
/// was made of and that get the gradients; without `zero_point` it is fixed.
///
/// # Errors
/// The errors of [`composed_fake_quantize`]; [`Error::Unsupported`](crate::Error::Unsupported) for a
/// convention whose gradients cannot be composed.
pub fn composed_fake_quantize_learned<B, T>(
    x: &T,
    scale: &T,
    zero_point: Option<&T>,
    params: &LearnedParams,
) -> Result<T>
where
    B: Backend,
    T: DeviceTensor + From<T::Float> + From<T::Int>,
    T::Float: FloatTensor<B, Owned = T::Float, Int = T::Int>,
{
    let forward = params.params();
    let (float, wide) = (x.float_type()?, x.widest_float());
    let (values, inside) = values_and_mask(x, forward)?;
    let factors = params.factors(&Layout::row_major(&x.shape()))?;
    // A term whose value is 0 and whose derivative by `parameter` is `derivative` times the factor.
    let term = |parameter: &T, factors: &[f64], derivative: &T| {
        let zero = parameter.detach()?.sub(parameter)?.cast(wide)?;
        let factors = x.constant(factors, forward.shape(), wide)?;
        let zero = zero.reshape(forward.shape())?.mul(&factors)?;
        let zero = spread(&zero, forward, &x.shape())?;
        zero.mul(&derivative.cast(wide)?)?.cast(float)
    };
    let detached = x.detach()?.cast(float.compute())?.into_float()?;
    let derivative = params.scale_derivative(&detached)?.into();
    let y = pass(x, &values, Some(&inside))?.sub(&term(scale, &factors, &derivative)?)?;
    let Some(zero_point) = zero_point else {
        return Ok(y);
    };
    let factors: Vec<f64> = collected(factors.iter().zip(forward.scale()).map(|(g, s)| -g * s))?;
    let outside = inside.cast(wide)?.mul_scalar(-1.0)?.add_scalar(1.0)?;
    y.sub(&term(zero_point, &factors, &outside)?)
}

/// The fake-quantized values, without gradient, and the mask of the straight-through estimator.
fn values_and_mask<B, T>(x: &T, params: &QParams) -> Result<(T, T)>
where
    B: Backend,
    T: DeviceTensor + From<T::Float> + From<T::Int>,
    T::Float: FloatTensor<B, Owned = T::Float, Int = T::Int>,
{
    let (values, inside) = params.fake_quantize_with_mask(&x.detach()?.into_float()?)?;
    Ok((values.into(), inside.into()))
}

/// `values`, with the gradient to x where `inside` holds and x is finite. To the bit: subtracting +0 changes
/// nothing, not even −0, and where x is infinite nothing is subtracted.
fn pass<T: DeviceTensor>(x: &T, values: &T, inside: Option<&T>) -> Result<T> {
    let zero = x.detach()?.sub(x)?;
    let none = x.constant(&[0.0], &vec![1; x.shape().len()], x.float_type()?)?;
    values.sub(&match inside {
        Some(inside) => inside.select(&zero, &none)?,
        None => {
            // 0·x is 0 unless x is infinite or NaN.
            let is_not_finite = x.detach()?.mul_scalar(0.0)?.ne(&none)?;
            is_not_finite.select(&none, &zero)?
        }
    })
}

/// One number a group, in the shape of the parameters, so that it broadcasts to a tensor of this shape.
fn spread<T: DeviceTensor>(groups: &T, params: &QParams, shape: &[usize]) -> Result<T> {
    let rank = shape.len();
    let resolve = |axis: isize| axis.rem_euclid(rank.max(1) as isize) as usize;
    let granularity = params.scheme().granularity;
    let mut spread = vec![1; rank];
    match params.convention().granularity_for(granularity, rank) {
        Granularity::PerTensor => groups.reshape(&spread),
        Granularity::PerChannel { axis } => {
            spread[resolve(axis)] = shape[resolve(axis)];
            groups.reshape(&spread)
        }
        Granularity::PerGroup { axis, size } => {
            let axis = resolve(axis);
            let index: Vec<usize> = collected((0..shape[axis]).map(|i| i / size))?;
            groups.index_select(axis, &index)
        }
    }
}
