//! The definitions, naively.

use chopi_core::backend::{Float, FloatType};
use chopi_ndarray::onnx::QuantizedType;
use ndarray::{Dimension, IxDyn};

/// A number rounded to a type of so many bits of precision, to nearest even: scaled so that the
/// type's numbers beside it are integers.
pub fn round(x: f64, float: FloatType) -> f64 {
    let (digits, least, largest) = match float {
        FloatType::F16 => (11, -14, 65504.0),
        FloatType::BF16 => (8, -126, f64::from(f32::from_bits(0x7f7f_0000))),
        FloatType::F32 => (24, -126, f64::from(f32::MAX)),
        FloatType::F64 => return x,
    };
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let exponent = ((x.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(least);
    let step = 2_f64.powi(exponent - (digits - 1));
    let rounded = (x / step).round_ties_even() * step;
    match rounded.abs() > largest {
        true => f64::INFINITY.copysign(x),
        false => rounded,
    }
}

pub fn wide<F: Float<Compute = f32>>(x: F) -> f64 {
    x.widen().into()
}

/// The index in the scale of the element at this index of the tensor.
pub fn group(index: &IxDyn, scale: &[usize], axis: isize, block_size: usize) -> IxDyn {
    let axis = |rank: usize| axis.rem_euclid(rank as isize) as usize;
    let mut group = index.clone();
    match scale {
        [] => IxDyn(&[]),
        [1] if block_size == 0 => IxDyn(&[0]),
        [_] if block_size == 0 => IxDyn(&[index[axis(index.ndim())]]),
        _ => {
            group[axis(index.ndim())] /= block_size;
            group
        }
    }
}

/// The code of a quotient; none for NaN.
pub fn code(quotient: f64, zero_point: i64, codes: QuantizedType) -> Option<i64> {
    let (qmin, qmax) = codes.bounds();
    let sum = quotient.round_ties_even() + zero_point as f64;
    (!sum.is_nan()).then(|| sum.clamp(qmin as f64, qmax as f64) as i64)
}
