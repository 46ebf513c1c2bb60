//! The same result composed from primitive tensor operations, for tensors that have no host memory.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::ops::Range;

use crate::convention::FakeQuantizedNan;
use crate::dtype::{Compute, FloatType};
use crate::error::{Error, Result};
use crate::kernel::lanes::{
    Steps, Sum, integers_fit, inverse, is_exact_difference, is_narrow_product,
    is_native_difference, is_native_half,
};
use crate::kernel::uniform;
use crate::layout::Layout;
use crate::qparams::QParams;
use crate::ranges::{Ranges, first_index};
use crate::scheme::{Granularity, NanPolicy, Rounding, resolve_axis};

/// A tensor of a framework that computes where the elements are: a cheap handle, without gradient.
///
/// Operations of two tensors broadcast as NumPy's do; arithmetic rounds once, as IEEE 754 says.
pub trait DeviceTensor: Sized {
    /// What a float tensor is to the user.
    type Float;
    /// What a tensor of codes is to the user.
    type Int;

    /// The length of each axis.
    fn shape(&self) -> Vec<usize>;
    /// The element type of a float tensor; an error for any other.
    fn float_type(&self) -> Result<FloatType>;
    /// A float tensor on the same device; `values` in row-major order are numbers of its type.
    fn constant(&self, values: &[f64], shape: &[usize], float: FloatType) -> Result<Self>;
    /// The conversion of a float or integer tensor, rounded to nearest even.
    fn cast(&self, float: FloatType) -> Result<Self>;
    /// The same elements in row-major order in another shape.
    fn reshape(&self, shape: &[usize]) -> Result<Self>;
    /// The part of these indices along an axis.
    fn narrow(&self, axis: usize, range: Range<usize>) -> Result<Self>;
    /// Parts put together along an axis.
    fn cat(parts: Vec<Self>, axis: usize) -> Result<Self>;
    /// `self + other`.
    fn add(&self, other: &Self) -> Result<Self>;
    /// `self − other`.
    fn sub(&self, other: &Self) -> Result<Self>;
    /// `self · other`.
    fn mul(&self, other: &Self) -> Result<Self>;
    /// `self / other`.
    fn div(&self, other: &Self) -> Result<Self>;
    /// The mask of `self > other`, false for NaN.
    fn gt(&self, other: &Self) -> Result<Self>;
    /// The mask of `self ≠ other`, true for NaN.
    fn ne(&self, other: &Self) -> Result<Self>;
    /// Where `self`, a mask of the full shape, holds `yes`, else `no`.
    fn select(&self, yes: &Self, no: &Self) -> Result<Self>;
    /// The smallest element along an axis, which is kept with length 1. There is no NaN.
    fn min_along(&self, axis: usize) -> Result<Self>;
    /// The largest element along an axis, likewise.
    fn max_along(&self, axis: usize) -> Result<Self>;
    /// The elements of a float tensor in host memory, in row-major order.
    fn to_host(&self) -> Result<Vec<f64>>;
    /// A float tensor for the user, in its own type.
    fn into_float(self) -> Result<Self::Float>;
    /// A tensor of codes for the user, from integers within the bounds held in a float tensor: of
    /// the smallest type that the device can convert to.
    fn into_int(self, bounds: (i64, i64)) -> Result<Self::Int>;
}

/// The device tensor of a framework whose tensors are all in host memory: there is none.
#[derive(Debug)]
pub struct HostOnly<F, I>(Infallible, PhantomData<(F, I)>);

#[rustfmt::skip]
impl<F, I> DeviceTensor for HostOnly<F, I> {
    type Float = F;
    type Int = I;

    fn shape(&self) -> Vec<usize> { match self.0 {} }
    fn float_type(&self) -> Result<FloatType> { match self.0 {} }
    fn constant(&self, _: &[f64], _: &[usize], _: FloatType) -> Result<Self> { match self.0 {} }
    fn cast(&self, _: FloatType) -> Result<Self> { match self.0 {} }
    fn reshape(&self, _: &[usize]) -> Result<Self> { match self.0 {} }
    fn narrow(&self, _: usize, _: Range<usize>) -> Result<Self> { match self.0 {} }
    fn cat(_: Vec<Self>, _: usize) -> Result<Self> {
        // There is no part to give.
        Err(Error::Empty { shape: Vec::new() })
    }
    fn add(&self, _: &Self) -> Result<Self> { match self.0 {} }
    fn sub(&self, _: &Self) -> Result<Self> { match self.0 {} }
    fn mul(&self, _: &Self) -> Result<Self> { match self.0 {} }
    fn div(&self, _: &Self) -> Result<Self> { match self.0 {} }
    fn gt(&self, _: &Self) -> Result<Self> { match self.0 {} }
    fn ne(&self, _: &Self) -> Result<Self> { match self.0 {} }
    fn select(&self, _: &Self, _: &Self) -> Result<Self> { match self.0 {} }
    fn min_along(&self, _: usize) -> Result<Self> { match self.0 {} }
    fn max_along(&self, _: usize) -> Result<Self> { match self.0 {} }
    fn to_host(&self) -> Result<Vec<f64>> { match self.0 {} }
    fn into_float(self) -> Result<F> { match self.0 {} }
    fn into_int(self, _: (i64, i64)) -> Result<I> { match self.0 {} }
}

/// A part of a tensor in which every group has the same length, with an axis for the groups and one
/// for their elements, and which parameters belong to it.
struct Part {
    /// The part along the group axis; `None` for the whole tensor.
    narrow: Option<(usize, Range<usize>)>,
    /// The shape in which parameters broadcast.
    shape: Vec<usize>,
    /// The indices of the part's parameters, in row-major order.
    params: Vec<usize>,
    /// Their shape.
    params_shape: Vec<usize>,
}

impl Part {
    fn tensor<T: DeviceTensor>(&self, tensor: &T) -> Result<T> {
        match &self.narrow {
            None => tensor.reshape(&self.shape),
            Some((axis, range)) => tensor.narrow(*axis, range.clone())?.reshape(&self.shape),
        }
    }

    /// One number a group, as a tensor that broadcasts to the part.
    fn constant<T: DeviceTensor>(
        &self,
        like: &T,
        float: FloatType,
        number: impl Fn(usize) -> f64,
    ) -> Result<T> {
        let values: Vec<f64> = self.params.iter().map(|&group| number(group)).collect();
        like.constant(&values, &self.params_shape, float)
    }
}

/// The parts of a tensor: two where the last group along an axis is shorter, else one.
fn parts(shape: &[usize], granularity: Granularity) -> Result<Vec<Part>> {
    let rank = shape.len();
    match granularity {
        Granularity::PerTensor => Ok(vec![Part {
            narrow: None,
            shape: shape.to_vec(),
            params: vec![0],
            params_shape: vec![1; rank],
        }]),
        Granularity::PerChannel { axis } => {
            let axis = resolve_axis(axis, shape)?;
            let mut params_shape = vec![1; rank];
            params_shape[axis] = shape[axis];
            let params = (0..shape[axis]).collect();
            Ok(vec![Part {
                narrow: None,
                shape: shape.to_vec(),
                params,
                params_shape,
            }])
        }
        Granularity::PerGroup { axis, size } => {
            let axis = resolve_axis(axis, shape)?;
            let (length, groups) = (shape[axis], shape[axis].div_ceil(size));
            let outer: usize = shape[..axis].iter().product();
            let inner: usize = shape[axis + 1..].iter().product();
            let whole = length / size;
            let part = |first: usize, count: usize, size: usize, start: usize| {
                let split = |size: usize| {
                    let mut split = shape.to_vec();
                    split.splice(axis..=axis, [count, size]);
                    split
                };
                let of_outer = |o: usize| {
                    let (from, to) = (o * groups + first, o * groups + first + count);
                    from * inner..to * inner
                };
                Part {
                    narrow: Some((axis, start..start + count * size)),
                    shape: split(size),
                    params: (0..outer).flat_map(of_outer).collect(),
                    params_shape: split(1),
                }
            };
            let mut parts = Vec::new();
            if whole > 0 || length == 0 {
                parts.push(part(0, whole, size, 0));
            }
            if length % size > 0 {
                parts.push(part(whole, 1, length % size, whole * size));
            }
            Ok(parts)
        }
    }
}

/// `f` of each part of the tensor, put together again.
fn by_parts<T: DeviceTensor>(
    shape: &[usize],
    granularity: Granularity,
    f: impl Fn(&Part) -> Result<T>,
) -> Result<T> {
    let parts = parts(shape, granularity)?;
    let mut results = Vec::with_capacity(parts.len());
    let mut axis = 0;
    for part in &parts {
        let mut part_shape = shape.to_vec();
        if let Some((a, range)) = &part.narrow {
            axis = *a;
            part_shape[axis] = range.len();
        }
        results.push(f(part)?.reshape(&part_shape)?);
    }
    match results.len() {
        1 => Ok(results.swap_remove(0)),
        _ => T::cat(results, axis),
    }
}

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
    let (mut min, mut max) = (vec![0.0; groups], vec![0.0; groups]);
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
    Ok(Ranges::new(granularity, float, params_shape, min, max))
}

/// The codes of a tensor.
pub(crate) fn quantize<T: DeviceTensor>(x: &T, params: &QParams, nan: NanPolicy) -> Result<T::Int> {
    let shape = x.shape();
    let granularity = params.granularity_for(x.float_type()?, &shape)?;
    let is_nan = x.ne(x)?;
    let mut x = x.reshape(&shape)?;
    if any(&is_nan, &x)? {
        if nan == NanPolicy::Error {
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
    if params.convention().fake_quantized_nan == FakeQuantizedNan::NaN {
        return x.reshape(&shape);
    }
    let smallest = x.constant(&[f64::NEG_INFINITY], &vec![1; shape.len()], x.float_type()?)?;
    x.ne(x)?.select(&smallest, x)
}

/// The dequantized codes of a tensor; NaN stays NaN, or is less than any number.
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

/// The same, and 1 for each element whose code is in range before it is clamped, else 0.
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
        let zero: Vec<f64> = params.zero_points().collect();
        let zero = part.constant(&q, wide, |group| zero[group])?;
        let difference = clamped.sub(&zero)?.cast(compute)?;
        let x = part.tensor(x)?.cast(compute)?;
        let scale = |group: usize| compute.round(params.scale()[group]);
        let v = match Steps::new(params, float).reciprocal {
            true => {
                let inverse = |group| inverse(params, float, scale(group));
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
    let draws: Vec<f64> = (0..count as u64)
        .map(|index| uniform::scalar(seed, index))
        .collect();
    x.constant(&draws, &shape, FloatType::F64).map(Some)
}

/// The codes of a part, as integers in a float tensor: of the compute type where
/// [`integers_fit`] says so, else of `f64`; clamped to `room` steps beyond the range. NaN stays NaN.
fn codes<T: DeviceTensor>(
    x: &T,
    draws: Option<&T>,
    params: &QParams,
    part: &Part,
    room: f64,
) -> Result<T> {
    let float = x.float_type()?;
    let compute = float.compute();
    let steps = Steps::new(params, float);
    let wide = if integers_fit(params, float) {
        compute
    } else {
        FloatType::F64
    };
    let magic = match wide {
        FloatType::F64 => f64::MAGIC,
        _ => f64::from(f32::MAGIC),
    };
    let (qmin, qmax) = params.bounds();
    let (scale, zero) = (params.scale(), params.zero_points().collect::<Vec<_>>());
    let scale = |group: usize| compute.round(scale[group]);
    let zero = |group: usize| zero[group];
    let is_native = is_native_half(params, float);
    let native = |v: T| {
        if is_native {
            v.cast(float)?.cast(compute)
        } else {
            Ok(v)
        }
    };
    let number = |x: &T, n: f64| x.constant(&[n], &vec![1; part.shape.len()], wide);

    let x = part.tensor(x)?.cast(compute)?;
    let inverse = || part.constant(&x, compute, |group| inverse(params, float, scale(group)));
    let mut v = match (steps.reciprocal, steps.sum) {
        (_, Sum::Fused) => {
            // The product of two f32 is exact in f64; of the sum with z, what f64 rounds off decides
            // where it lies halfway between two f32.
            let exact = FloatType::F64;
            let product = x.cast(exact)?.mul(&inverse()?.cast(exact)?)?;
            let zero = part.constant(&x, exact, zero)?;
            let sum = product.add(&zero)?;
            // Knuth's two-sum, for operands of any order of magnitude.
            let virtual_zero = sum.sub(&product)?;
            let virtual_product = sum.sub(&virtual_zero)?;
            let error = product
                .sub(&virtual_product)?
                .add(&zero.sub(&virtual_zero)?)?;
            round_to_f32(&sum, &error, &|n| {
                x.constant(&[n], &vec![1; part.shape.len()], exact)
            })?
            .cast(compute)?
        }
        (true, _) => native(x.mul(&inverse()?)?)?,
        (false, _) => native(x.div(&part.constant(&x, compute, scale)?)?)?,
    };
    if steps.sum == Sum::Rounded {
        let zero = native(part.constant(&x, compute, zero)?)?;
        v = native(v.add(&zero)?)?;
    }
    v = v.cast(wide)?;
    let offset = |group| {
        if steps.sum.before_clamp() {
            0.0
        } else {
            zero(group)
        }
    };
    let low = part.constant(&x, wide, |group| qmin as f64 - offset(group) - room)?;
    let high = part.constant(&x, wide, |group| qmax as f64 - offset(group) + room)?;
    v = low.gt(&v)?.select(&low, &v)?;
    v = v.gt(&high)?.select(&high, &v)?;

    let zero = part.constant(&x, wide, zero)?;
    let m = number(&x, magic)?;
    if params.scheme().rounding == Rounding::NearestEven {
        return match steps.sum {
            Sum::Exact => v.add(&m.add(&zero)?)?.sub(&m),
            Sum::Rounded | Sum::Fused => v.add(&m)?.sub(&m),
            Sum::After => v.add(&m)?.sub(&m)?.add(&zero),
        };
    }
    // As in the kernels: v rounded to nearest even, what is left, and a step to a neighbour.
    let r = v.add(&m)?.sub(&m)?;
    let d = v.sub(&r)?;
    let sum = if steps.sum == Sum::Exact {
        v.add(&zero)?
    } else {
        v
    };
    let (none, one) = (number(&x, 0.0)?, number(&x, 1.0)?);
    let (half, near_half) = (number(&x, 0.5)?, number(&x, -0.5)?);
    let count = |mask: &T| mask.select(&one, &none);
    let positive = |x: &T| count(&x.gt(&none)?);
    let negative = |x: &T| count(&none.gt(x)?);
    let step = match params.scheme().rounding {
        Rounding::NearestEven => none,
        Rounding::NearestAway => {
            let equal = |a: &T, b: &T| a.ne(b)?.select(&none, &one);
            equal(&d, &half)?
                .mul(&positive(&sum)?)?
                .sub(&equal(&d, &near_half)?.mul(&negative(&sum)?)?)?
        }
        Rounding::TowardZero => {
            let below = negative(&sum)?;
            positive(&d)?
                .mul(&below)?
                .sub(&negative(&d)?.mul(&one.sub(&below)?)?)?
        }
        Rounding::Floor => none.sub(&negative(&d)?)?,
        Rounding::Ceiling => positive(&d)?,
        Rounding::Stochastic { .. } => {
            let down = negative(&d)?;
            match draws {
                // fraction > u, where the fraction is d or d + 1.
                Some(draws) => {
                    let u = part.tensor(draws)?.cast(wide)?.sub(&down)?;
                    count(&d.gt(&u)?)?.sub(&down)?
                }
                None => none,
            }
        }
    };
    let r = r.add(&step)?;
    if steps.sum.before_clamp() {
        Ok(r)
    } else {
        r.add(&zero)
    }
}

/// (q − z)·s of the codes of a part, rounded once to the compute type of `float`.
fn values<T: DeviceTensor>(q: &T, params: &QParams, part: &Part, float: FloatType) -> Result<T> {
    let compute = float.compute();
    let (scale, zero) = (params.scale(), params.zero_points().collect::<Vec<_>>());
    let scale = |group: usize| compute.round(scale[group]);
    let fit = integers_fit(params, float) || params.has_real_zero_points();
    if fit || compute == FloatType::F64 || !is_exact_difference(params) {
        let wide = if fit { compute } else { FloatType::F64 };
        let zero = part.constant(q, wide, |group| zero[group])?;
        let mut d = q.cast(wide)?.sub(&zero)?.cast(compute)?;
        if is_native_difference(params, float) {
            d = d.cast(float)?.cast(compute)?;
        }
        let product = d.mul(&part.constant(q, compute, scale)?)?;
        return match is_narrow_product(params, float) {
            true => product.cast(FloatType::F32)?.cast(compute),
            false => Ok(product),
        };
    }
    // The exact product of an integer of 34 bits and an f32, as the f64 `product` and what it
    // leaves, `error`; then the rounding to f32. Large scales are made small first, so that nothing
    // overflows before the end.
    let wide = FloatType::F64;
    let shrink = |group: usize| {
        if scale(group) > 1.0 {
            2_f64.powi(64)
        } else {
            1.0
        }
    };
    let number = |n: f64| q.constant(&[n], &vec![1; part.shape.len()], wide);
    let zero = part.constant(q, wide, |group| zero[group])?;
    let scaled = part.constant(q, wide, |group| scale(group) / shrink(group))?;
    let d = q.sub(&zero)?;
    let magic = number(f64::MAGIC)?;
    let high = d
        .mul(&number(1.0 / 65_536.0)?)?
        .add(&magic)?
        .sub(&magic)?
        .mul(&number(65_536.0)?)?;
    let (a, b) = (high.mul(&scaled)?, d.sub(&high)?.mul(&scaled)?);
    let product = a.add(&b)?;
    let error = b.sub(&product.sub(&a)?)?;
    round_to_f32(&product, &error, &number)?
        .mul(&part.constant(q, wide, shrink)?)?
        .cast(FloatType::F32)
}

/// The `f64` number `sum + error`, error at most half a unit in the last place of sum, rounded once
/// to `f32` and held in `f64`. Only where the sum lies halfway between two `f32` does the error
/// decide.
fn round_to_f32<T: DeviceTensor>(
    sum: &T,
    error: &T,
    number: &impl Fn(f64) -> Result<T>,
) -> Result<T> {
    let to_f32 = |x: &T| x.cast(FloatType::F32)?.cast(FloatType::F64);
    let near = to_f32(sum)?;
    let rest = sum.sub(&near)?;
    let other = near.add(&rest.add(&rest)?)?;
    let beyond = error.mul(&rest)?.gt(&number(0.0)?)?.select(&other, &near)?;
    to_f32(&other)?.ne(&other)?.select(&near, &beyond)
}
