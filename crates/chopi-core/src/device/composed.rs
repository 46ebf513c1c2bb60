//! The operations of whole tensors, with their errors: what the kernels do in host memory.

use super::DeviceTensor;
use super::parts::{by_parts, parts};
use super::values::{codes, values};
use crate::error::{Error, Result};
use crate::host::first_index;
use crate::observer::Ranges;
use crate::qparams::QParams;
use crate::recipe::{recipe, reciprocal};
use crate::scheme::{Granularity, NanPolicy, Rounding};
use chopi_kernels::memory::{collected, repeated};
use chopi_kernels::{FloatType, Layout, uniform};

/// The range of each group of a tensor.
pub(crate) fn observe<T: DeviceTensor>(x: &T, granularity: Granularity) -> Result<Ranges> {
    let (shape, float) = (x.shape(), x.float_type()?);
    let params_shape = granularity.params_shape(&shape)?;
    if shape.contains(&0) {
        return Err(Error::Empty { shape });
    }
    let x = x.cast(float.compute())?;
    let zero = x.constant(&[0.0], &vec![1; shape.len()], float.compute())?;
    if any(&x.mul(&zero)?.ne(&zero)?, &x)? {
        let data = x.to_host()?;
        let layout = Layout::row_major(&shape);
        let bad = |v: &f64| !v.is_finite();
        let (index, value) = first_index(&data, &layout, bad).unwrap_or((Vec::new(), f64::NAN));
        let count = data.iter().filter(|v| bad(v)).count();
        return Err(Error::NonFinite {
            index,
            value,
            count,
        });
    }
    let groups = params_shape.iter().product();
    let (mut min, mut max) = (repeated(0.0, groups)?, repeated(0.0, groups)?);
    for part in parts(&shape, granularity)? {
        let elements = part.tensor(&x)?;
        let (mut low, mut high) = (elements.reshape(&part.shape)?, elements);
        for (axis, &length) in part.params_shape.iter().enumerate() {
            // A group axis is in the parameters too; along the others they have length 1.
            if length == 1 {
                (low, high) = (low.min_along(axis)?, high.max_along(axis)?);
            }
        }
        for (values, tensor) in [(&mut min, low), (&mut max, high)] {
            for (&group, value) in part.params.iter().zip(tensor.to_host()?) {
                values[group] = value + 0.0;
            }
        }
    }
    let ranges = Ranges::new(granularity, float, params_shape, min, max);
    Ok(ranges.with_grouped_length(granularity.grouped_length(&shape)))
}

/// The codes of a tensor.
pub(crate) fn quantize<T: DeviceTensor>(x: &T, params: &QParams) -> Result<T::Int> {
    let shape = x.shape();
    let granularity = params.granularity_for(x.float_type()?, &shape)?;
    let is_nan = x.ne(x)?;
    let mut x = x.reshape(&shape)?;
    if any(&is_nan, &x)? {
        if params.nan_policy() == NanPolicy::Error {
            let data = x.to_host()?;
            let count = data.iter().filter(|v| v.is_nan()).count();
            let first = first_index(&data, &Layout::row_major(&shape), |v: &f64| v.is_nan());
            return Err(Error::NaN {
                index: first.map_or_else(Vec::new, |f| f.0),
                count,
            });
        }
        // 0.0 has the zero point's code.
        x = is_nan.select(
            &x.constant(&[0.0], &vec![1; shape.len()], x.float_type()?)?,
            &x,
        )?;
    }
    let draws = draws(&x, params)?;
    by_parts(&shape, granularity, |part| {
        codes(&x, draws.as_ref(), params, part, 0.0)
    })?
    .into_int(params.bounds())
}

/// The values of a tensor of codes.
pub(crate) fn dequantize<T: DeviceTensor>(q: &T, params: &QParams) -> Result<T::Float> {
    let shape = q.shape();
    let granularity = params.granularity_for(params.float_type(), &shape)?;
    let q = q.cast(FloatType::F64)?;
    let (qmin, qmax) = params.bounds();
    let bound = |bound: i64| q.constant(&[bound as f64], &vec![1; shape.len()], FloatType::F64);
    if any(&q.gt(&bound(qmax)?)?, &q)? || any(&bound(qmin)?.gt(&q)?, &q)? {
        let data = q.to_host()?;
        let outside = |q: &f64| *q < qmin as f64 || *q > qmax as f64;
        if let Some((index, code)) = first_index(&data, &Layout::row_major(&shape), outside) {
            return Err(Error::Code {
                index,
                code: code as i64,
                qmin,
                qmax,
            });
        }
    }
    let float = params.float_type();
    by_parts(&shape, granularity, |part| {
        values(&part.tensor(&q)?, params, part, float)
    })?
    .cast(float)?
    .into_float()
}

/// The tensor with −∞ for NaN where fake-quantize takes NaN for less than any number.
fn without_smallest_nan<T: DeviceTensor>(x: &T, params: &QParams) -> Result<T> {
    let shape = x.shape();
    if !params.convention().fake_quantizes_nan_to_qmin() {
        return x.reshape(&shape);
    }
    let smallest = x.constant(&[f64::NEG_INFINITY], &vec![1; shape.len()], x.float_type()?)?;
    x.ne(x)?.select(&smallest, x)
}

/// The dequantized codes of a tensor. NaN stays NaN, or counts as less than any number where the
/// convention says so.
pub(crate) fn fake_quantize<T: DeviceTensor>(x: &T, params: &QParams) -> Result<T::Float> {
    let x = &without_smallest_nan(x, params)?;
    let (shape, float) = (x.shape(), x.float_type()?);
    let granularity = params.granularity_for(float, &shape)?;
    let draws = draws(x, params)?;
    by_parts(&shape, granularity, |part| {
        values(
            &codes(x, draws.as_ref(), params, part, 0.0)?,
            params,
            part,
            float,
        )
    })?
    .cast(float)?
    .into_float()
}

/// The dequantized codes of a tensor, as [`fake_quantize`] gives them, and a mask: 1 for each element
/// whose code is in range before it is clamped, else 0.
pub(crate) fn fake_quantize_with_mask<T: DeviceTensor>(
    x: &T,
    params: &QParams,
) -> Result<(T::Float, T::Int)> {
    let x = &without_smallest_nan(x, params)?;
    let (shape, float) = (x.shape(), x.float_type()?);
    let granularity = params.granularity_for(float, &shape)?;
    let draws = draws(x, params)?;
    // One step of room on each side tells a code beyond a bound from one at it.
    let q = by_parts(&shape, granularity, |part| {
        codes(x, draws.as_ref(), params, part, 1.0)
    })?;
    let number = |n: f64| q.constant(&[n], &vec![1; shape.len()], q.float_type()?);
    let (qmin, qmax) = params.bounds();
    let (low, high) = (number(qmin as f64)?, number(qmax as f64)?);
    let (below, above) = (low.gt(&q)?, q.gt(&high)?);
    let inside = q.ne(&q)?.select(&number(0.0)?, &number(1.0)?)?;
    let inside = below.select(&number(0.0)?, &above.select(&number(0.0)?, &inside)?)?;
    let q = below.select(&low, &above.select(&high, &q)?)?;
    let values = by_parts(&shape, granularity, |part| {
        values(&part.tensor(&q)?, params, part, float)
    })?;
    Ok((
        values.cast(float)?.into_float()?,
        inside.into_int((0, 255))?,
    ))
}

/// ∂x̂/∂s of each element: (q − z) − x/s inside of the range, q − z outside.
pub(crate) fn scale_derivative<T: DeviceTensor>(x: &T, params: &QParams) -> Result<T::Float> {
    let (shape, float) = (x.shape(), x.float_type()?);
    let granularity = params.granularity_for(float, &shape)?;
    let compute = float.compute();
    let draws = draws(x, params)?;
    by_parts(&shape, granularity, |part| {
        let q = codes(x, draws.as_ref(), params, part, 1.0)?;
        let wide = q.float_type()?;
        let number = |n: f64| q.constant(&[n], &vec![1; part.shape.len()], wide);
        let (low, high) = (
            number(params.bounds().0 as f64)?,
            number(params.bounds().1 as f64)?,
        );
        let (below, above) = (low.gt(&q)?, q.gt(&high)?);
        let clamped = below.select(&low, &above.select(&high, &q)?)?;
        let zero = part.constant(&q, wide, |group| params.zero_point_of(group))?;
        let difference = clamped.sub(&zero)?.cast(compute)?;
        let x = part.tensor(x)?.cast(compute)?;
        let scale = |group: usize| compute.round(params.scale()[group]);
        let v = match recipe(params, float).steps.multiplies() {
            true => {
                let inverse = |group| reciprocal(params, float, scale(group));
                x.mul(&part.constant(&x, compute, inverse)?)?
            }
            false => x.div(&part.constant(&x, compute, scale)?)?,
        };
        let inside = difference.sub(&v)?;
        below.select(&difference, &above.select(&difference, &inside)?)
    })?
    .cast(float)?
    .into_float()
}

/// Whether a mask holds anywhere; `like` is a float tensor of its shape.
fn any<T: DeviceTensor>(mask: &T, like: &T) -> Result<bool> {
    let shape = like.shape();
    if shape.contains(&0) {
        return Ok(false);
    }
    let number = |x: f64| like.constant(&[x], &vec![1; shape.len()], FloatType::F32);
    let ones = mask.select(&number(1.0)?, &number(0.0)?)?;
    Ok(ones
        .reshape(&[shape.iter().product()])?
        .max_along(0)?
        .to_host()?
        .contains(&1.0))
}

/// What stochastic rounding compares the fraction of each element with.
fn draws<T: DeviceTensor>(x: &T, params: &QParams) -> Result<Option<T>> {
    let Rounding::Stochastic { seed } = params.scheme().rounding else {
        return Ok(None);
    };
    let shape = x.shape();
    let count: usize = shape.iter().product();
    let draws: Vec<f64> = collected((0..count).map(|index| uniform(seed, index as u64)))?;
    x.constant(&draws, &shape, FloatType::F64).map(Some)
}
