//! The two formulas on a part of a tensor: its codes, and the values of codes.

use super::DeviceTensor;
use super::parts::Part;
use crate::error::Result;
use crate::qparams::QParams;
use crate::recipe::{integers_fit, recipe, reciprocal};
use chopi_kernels::{Compute, FloatType, Rounding, Steps};

/// The codes of a part, as integers in a float tensor: of the compute type where
/// [`integers_fit`] says so, else of `f64`; clamped to `room` steps beyond the range. NaN stays NaN.
pub(super) fn codes<T: DeviceTensor>(
    x: &T,
    draws: Option<&T>,
    params: &QParams,
    part: &Part,
    room: f64,
) -> Result<T> {
    let float = x.float_type()?;
    let compute = float.compute();
    let recipe = recipe(params, float);
    let steps = recipe.steps;
    let wide = if integers_fit(params, float) {
        compute
    } else {
        FloatType::F64
    };
    let magic = match wide {
        FloatType::F64 => f64::MAGIC,
        _ => f64::from(f32::MAGIC),
    };
    let (qmin, qmax) = (recipe.qmin, recipe.qmax);
    let scale = params.scale();
    let scale = |group: usize| compute.round(scale[group]);
    let zero = |group: usize| params.zero_point_of(group);
    let native = |v: T| {
        if recipe.native {
            v.cast(float)?.cast(compute)
        } else {
            Ok(v)
        }
    };
    let number = |x: &T, n: f64| x.constant(&[n], &vec![1; part.shape.len()], wide);

    let x = part.tensor(x)?.cast(compute)?;
    let inverse = || part.constant(&x, compute, |group| reciprocal(params, float, scale(group)));
    let mut v = match steps {
        Steps::Fused => {
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
        _ if steps.multiplies() => native(x.mul(&inverse()?)?)?,
        _ => native(x.div(&part.constant(&x, compute, scale)?)?)?,
    };
    if steps.rounds_sum() && steps != Steps::Fused {
        let zero = native(part.constant(&x, compute, zero)?)?;
        v = native(v.add(&zero)?)?;
    }
    v = v.cast(wide)?;
    let offset = |group| {
        if steps.rounds_sum() { 0.0 } else { zero(group) }
    };
    let low = part.constant(&x, wide, |group| qmin as f64 - offset(group) - room)?;
    let high = part.constant(&x, wide, |group| qmax as f64 - offset(group) + room)?;
    v = low.gt(&v)?.select(&low, &v)?;
    v = v.gt(&high)?.select(&high, &v)?;

    let zero = part.constant(&x, wide, zero)?;
    let m = number(&x, magic)?;
    if recipe.rounding == Rounding::NearestEven {
        return match steps {
            Steps::DivideExact => v.add(&m.add(&zero)?)?.sub(&m),
            Steps::DivideAfter | Steps::MultiplyAfter => v.add(&m)?.sub(&m)?.add(&zero),
            Steps::DivideRounded | Steps::MultiplyRounded | Steps::Fused => v.add(&m)?.sub(&m),
        };
    }
    // As in the kernels: v rounded to nearest even, what is left, and a step to a neighbour.
    let r = v.add(&m)?.sub(&m)?;
    let d = v.sub(&r)?;
    let sum = if steps == Steps::DivideExact {
        v.add(&zero)?
    } else {
        v
    };
    let (none, one) = (number(&x, 0.0)?, number(&x, 1.0)?);
    let (half, near_half) = (number(&x, 0.5)?, number(&x, -0.5)?);
    let count = |mask: &T| mask.select(&one, &none);
    let positive = |x: &T| count(&x.gt(&none)?);
    let negative = |x: &T| count(&none.gt(x)?);
    let step = match recipe.rounding {
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
    if steps.rounds_sum() {
        Ok(r)
    } else {
        r.add(&zero)
    }
}

/// (q − z)·s of the codes of a part, rounded once to the compute type of `float`.
pub(super) fn values<T: DeviceTensor>(
    q: &T,
    params: &QParams,
    part: &Part,
    float: FloatType,
) -> Result<T> {
    let compute = float.compute();
    let scale = params.scale();
    let scale = |group: usize| compute.round(scale[group]);
    let recipe = recipe(params, float);
    let fit = integers_fit(params, float) || params.has_real_zero_points();
    if fit || compute == FloatType::F64 || !recipe.has_exact_difference() {
        let wide = if fit { compute } else { FloatType::F64 };
        let zero = part.constant(q, wide, |group| params.zero_point_of(group))?;
        let mut d = q.cast(wide)?.sub(&zero)?.cast(compute)?;
        if recipe.has_native_difference() {
            d = d.cast(float)?.cast(compute)?;
        }
        let product = d.mul(&part.constant(q, compute, scale)?)?;
        return match recipe.narrow_product {
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
    let zero = part.constant(q, wide, |group| params.zero_point_of(group))?;
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
