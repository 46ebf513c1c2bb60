//! The definitions of [`Convention::CHOPI`](chopi_core::Convention::CHOPI), read one element at a
//! time with no thought of speed.

use chopi_core::{
    Granularity, Rounding, Scheme, Symmetry, Zero,
    backend::{Compute, Float, FloatType},
};

/// The scale and the zero point of a group with this range.
pub fn params(min: f64, max: f64, scheme: &Scheme, float: FloatType) -> (f64, i64) {
    let (mut min, mut max) = (min, max);
    if scheme.zero == Zero::Included {
        min = min.min(0.0);
        max = max.max(0.0);
    }
    let symmetric = scheme.symmetry == Symmetry::Symmetric;
    if min == max {
        let sign: i64 = if min > 0.0 {
            1
        } else if min < 0.0 {
            -1
        } else {
            0
        };
        let scale = if sign == 0 { 1.0 } else { min.abs() };
        let zero = if symmetric {
            0
        } else {
            sign.max(scheme.qmin).min(scheme.qmax) - sign
        };
        return (scale, zero);
    }
    let is_f64 = float == FloatType::F64;
    let smallest = if is_f64 {
        f64::MIN_POSITIVE
    } else {
        f64::from(f32::MIN_POSITIVE)
    };
    let largest = min.abs().max(max.abs());
    let scale = if symmetric {
        (largest / scheme.qmax as f64).max(smallest)
    } else {
        let levels = (scheme.qmax - scheme.qmin) as f64;
        let plain = (max - min) / levels;
        let scale = if plain.is_finite() {
            plain
        } else {
            (max / 2.0 - min / 2.0) / (levels / 2.0)
        };
        let tiny = if is_f64 {
            1.0 / f64::from(1 << 30)
        } else {
            1.0 / f64::from(1 << 24)
        };
        scale.max(largest * tiny).max(smallest)
    };
    let zero = if symmetric {
        0.0
    } else {
        (scheme.qmin as f64 - min / scale).round_ties_even()
    };
    let zero = zero as i64;
    let mut scale = if is_f64 {
        scale
    } else {
        f64::from(scale as f32)
    };
    let is_fine = |s: f64| {
        let codes = [min, max].map(|x| differences(x, s, zero, scheme, float));
        codes.iter().flatten().all(|&d| product_fits(d, s, float))
    };
    // The largest scale with which so many steps fit, for ever more steps, until those of min and max do.
    let plain = scale;
    let mut steps = ((float.max() / plain) as u128).max(1);
    while !is_fine(scale) {
        scale = largest_scale(steps, float).min(plain);
        steps += 1;
    }
    (scale, zero)
}

/// q − z for each code q that x may get: the nearest, or both where two are nearest or the rounding is not
/// to nearest.
fn differences(x: f64, scale: f64, zero: i64, scheme: &Scheme, float: FloatType) -> Vec<i64> {
    let quotient = float.compute().round(x / scale);
    let to_nearest = [Rounding::NearestEven, Rounding::NearestAway].contains(&scheme.rounding);
    let mut codes = vec![quotient.floor(), quotient.ceil()];
    if to_nearest {
        codes.retain(|code| (code - quotient).abs() <= 0.5);
    }
    let clamped = |code: f64| (code as i64).clamp(scheme.qmin - zero, scheme.qmax - zero);
    codes.into_iter().map(clamped).collect()
}

/// A normal number as an integer times a power of 2.
fn integer_and_exponent(x: f64) -> (u128, i32) {
    let exponent = (x.to_bits() >> 52) as i32 - 1075;
    let integer = (x.to_bits() & ((1 << 52) - 1)) | (1 << 52);
    (u128::from(integer), exponent)
}

/// Whether |d|·s is at most the largest number of the type.
fn product_fits(d: i64, scale: f64, float: FloatType) -> bool {
    let ((m, e), (largest, last)) = (
        integer_and_exponent(scale),
        integer_and_exponent(float.max()),
    );
    // It has at most 34 + 53 bits.
    let product = u128::from(d.unsigned_abs()) * m;
    match last - e {
        // With a scale so much smaller than the largest number it is far from it.
        71.. => true,
        gap @ 0..=70 => product <= largest << gap,
        // The range of two codes may have a scale that is larger itself.
        gap @ -40..0 => product << -gap <= largest,
        _ => product == 0,
    }
}

/// The largest number of the compute type of which `steps` times are at most the largest number of the
/// type.
fn largest_scale(steps: u128, float: FloatType) -> f64 {
    let (largest, exponent) = integer_and_exponent(float.max());
    let quotient = (largest << 64) / steps;
    let digits = if float == FloatType::F64 { 53 } else { 24 };
    let spare = (128 - quotient.leading_zeros()).saturating_sub(digits);
    let rounded_down = quotient >> spare << spare;
    rounded_down as f64 * 2_f64.powi(-64) * 2_f64.powi(exponent)
}

/// The code of the element at row-major index `index`; `None` for NaN.
pub fn code<F: Float>(x: F, scale: f64, zero: i64, scheme: &Scheme, index: usize) -> Option<i64> {
    let code = unclamped_code(x, scale, zero, scheme, index)?;
    Some(code.clamp(scheme.qmin, scheme.qmax))
}

/// The code of the element at row-major index `index` before it is clamped to the range; ±2^62 where it
/// is beyond 2^60, `None` for NaN.
pub fn unclamped_code<F: Float>(
    x: F,
    scale: f64,
    zero: i64,
    scheme: &Scheme,
    index: usize,
) -> Option<i64> {
    let quotient = (x.widen() / <F::Compute as Compute>::from_f64(scale)).as_f64();
    if quotient.is_nan() {
        return None;
    }
    if quotient.abs() > 2_f64.powi(60) {
        // Infinities too: farther away than any zero point.
        return Some(if quotient > 0.0 { 1 << 62 } else { -(1 << 62) });
    }
    // `trunc` and `fract` are exact, and the integer sum cannot overflow.
    let whole = quotient.trunc() as i128;
    let rest = quotient.fract();
    let sum_is_negative = (whole + i128::from(zero), rest) < (0, 0.0);
    let down = whole - i128::from(rest < 0.0);
    let up = whole + i128::from(rest > 0.0);
    let half = rest.abs() == 0.5;
    let near = if rest.abs() > 0.5 {
        [down, up][usize::from(rest > 0.0)]
    } else {
        whole
    };
    let rounded = match scheme.rounding {
        Rounding::NearestEven if half && (down + i128::from(zero)) % 2 == 0 => down,
        Rounding::NearestEven if half => up,
        Rounding::NearestAway if half && sum_is_negative => down,
        Rounding::NearestAway if half => up,
        Rounding::NearestEven | Rounding::NearestAway => near,
        Rounding::TowardZero if sum_is_negative => up,
        Rounding::TowardZero | Rounding::Floor => down,
        Rounding::Ceiling => up,
        Rounding::Stochastic { seed } => {
            // fraction > u, where the fraction is rest or rest + 1.
            let u = draw(seed, index);
            if rest > if rest < 0.0 { u - 1.0 } else { u } {
                up
            } else {
                down
            }
        }
    };
    Some((rounded + i128::from(zero)) as i64)
}

/// The number in [0, 1) that stochastic rounding compares with at an index, as
/// [`Rounding::Stochastic`] says.
pub fn draw(seed: u64, index: usize) -> f64 {
    let mut k = seed.wrapping_add(0x9e3779b97f4a7c15);
    k = (k ^ (k >> 30)).wrapping_mul(0xbf58476d1ce4e5b9);
    k = (k ^ (k >> 27)).wrapping_mul(0x94d049bb133111eb);
    k ^= k >> 31;
    let modulo = |x: u64| x % (1 << 32);
    let mut h = modulo(index as u64) ^ modulo(k);
    h = modulo((h ^ (h >> 16)) * 0x21f0aaad) ^ (k >> 32);
    h = modulo((h ^ (h >> 15)) * 0xd35a2d97);
    h ^= h >> 15;
    (h / 256) as f64 / (1 << 24) as f64
}

/// The value of a code.
pub fn value<F: Float>(code: i64, scale: f64, zero: i64) -> F {
    let difference = code - zero;
    let product = match F::TYPE {
        FloatType::F64 => difference as f64 * scale,
        // 29 bits times 24 bits is exact in f64, so the rounding to f32 is the only one.
        _ if difference.abs() < 1 << 29 => f64::from((difference as f64 * scale) as f32),
        _ => {
            // scale = mantissa·2^exponent with an integer mantissa of 24 bits.
            let bits = (scale as f32).to_bits();
            let normal = u32::from(bits >> 23 != 0);
            let mantissa = i128::from(bits & 0x7f_ffff | normal << 23);
            let exponent = (bits >> 23) as i32 - 149 - normal as i32;
            let exact = i128::from(difference) * mantissa;
            f64::from((f64::from(exact as f32) * 2_f64.powi(exponent)) as f32)
        }
    };
    F::narrow(<F::Compute as Compute>::from_f64(product))
}

/// For each element in row-major order, the index of its group in the row-major order of the
/// parameters.
pub fn groups(shape: &[usize], granularity: Granularity) -> Vec<usize> {
    let resolve = |axis: isize| {
        (if axis < 0 {
            axis + shape.len() as isize
        } else {
            axis
        }) as usize
    };
    let count: usize = shape.iter().product();
    (0..count)
        .map(|offset| {
            let mut rest = offset;
            let mut index = vec![0; shape.len()];
            for axis in (0..shape.len()).rev() {
                index[axis] = rest % shape[axis];
                rest /= shape[axis];
            }
            match granularity {
                Granularity::PerTensor => 0,
                Granularity::PerChannel { axis } => index[resolve(axis)],
                Granularity::PerGroup { axis, size } => {
                    let axis = resolve(axis);
                    let lengths = shape.iter().enumerate().map(|(a, &length)| {
                        if a == axis {
                            length.div_ceil(size)
                        } else {
                            length
                        }
                    });
                    index[axis] /= size;
                    lengths
                        .zip(&index)
                        .fold(0, |flat, (length, &i)| flat * length + i)
                }
            }
        })
        .collect()
}

/// The range of each group.
pub fn ranges<F: Float>(data: &[F], groups: &[usize]) -> Vec<(f64, f64)> {
    let count = groups.iter().max().map_or(0, |&last| last + 1);
    let mut ranges = vec![(f64::INFINITY, f64::NEG_INFINITY); count];
    for (x, &group) in data.iter().zip(groups) {
        let (min, max) = ranges[group];
        let x = x.widen().as_f64();
        ranges[group] = (min.min(x), max.max(x));
    }
    ranges
}
