//! From the range of a group to its scale and zero point.

use crate::convention::{
    Arithmetic, ConstantGroup, Convention, ScaleFloor, SymmetricScale, ZeroPointRule,
};
use crate::dtype::FloatType;
use crate::error::{Error, Result};
use crate::scheme::{Scheme, Symmetry, Zero};

/// The scale and the zero point of one group.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ScaleZero {
    pub scale: f64,
    pub zero_point: i64,
}

/// The parameters of the group with this range of values of type `float`, by the formulas of
/// [`Convention`]. `group` is its index, for errors.
pub(crate) fn scale_and_zero_point(
    (min, max): (f64, f64),
    scheme: &Scheme,
    convention: &Convention,
    float: FloatType,
    group: usize,
) -> Result<ScaleZero> {
    let (min, max) = match scheme.zero {
        Zero::AsObserved => (min, max),
        Zero::Included => (min.min(0.0), max.max(0.0)),
    };
    let symmetric = scheme.symmetry == Symmetry::Symmetric;
    if min == max && convention.constant_group == ConstantGroup::Exact {
        return Ok(constant_group(min, scheme));
    }
    // The result of an f64 operation on two numbers of a type of at most 25 bits of precision,
    // rounded to that type, is what the type's own operation gives.
    let round = |value: f64| match convention.parameter_arithmetic {
        Arithmetic::F64 => value,
        Arithmetic::Compute => float.compute().round(value),
        Arithmetic::Element => float.round(value),
    };
    let (qmin, qmax) = (scheme.qmin as f64, scheme.qmax as f64);
    let steps = round(qmax - qmin);
    let abs_max = min.abs().max(max.abs());

    let span_over_span = || {
        let span = round(max - min);
        match convention.scale_floor {
            ScaleFloor::Span(floor) => round(span.max(round(floor)) / steps),
            // Halving both ends keeps a span beyond the largest f64 finite.
            _ if span.is_infinite() => round((max * 0.5 - min * 0.5) / (steps * 0.5)),
            _ => round(span / steps),
        }
    };
    let mut scale = match (symmetric, convention.symmetric_scale) {
        (true, SymmetricScale::AbsMaxOverQmax) => round(abs_max / qmax),
        (true, SymmetricScale::SpanOverSpan) | (false, _) => span_over_span(),
    };
    if convention.scale_floor == ScaleFloor::Relative {
        if !symmetric {
            let digits = if float == FloatType::F64 { -30 } else { -24 };
            scale = scale.max(abs_max * 2_f64.powi(digits));
        }
        scale = scale.max(float.compute().min_positive());
    }
    if !(scale > 0.0 && scale.is_finite()) {
        return Err(Error::Scale {
            group,
            scale,
            float: float.compute(),
        });
    }

    let zero_point = if symmetric {
        0.0
    } else {
        round(qmin - round(min / scale)).round_ties_even()
    };
    let in_i32 = (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&zero_point);
    if convention.zero_point == ZeroPointRule::RoundedI32 && !in_i32 {
        return Err(Error::ZeroPoint {
            group,
            zero_point,
            expected: "a 32-bit integer".to_owned(),
        });
    }
    Ok(ScaleZero {
        scale: float.compute().round(scale),
        zero_point: zero_point as i64,
    })
}

/// The parameters under which a group whose elements all equal `c` comes back exactly.
fn constant_group(c: f64, scheme: &Scheme) -> ScaleZero {
    let sign = if c == 0.0 { 0 } else { c.signum() as i64 };
    let zero_point = match scheme.symmetry {
        Symmetry::Symmetric => 0,
        Symmetry::Asymmetric => sign.clamp(scheme.qmin, scheme.qmax) - sign,
    };
    ScaleZero {
        scale: if c == 0.0 { 1.0 } else { c.abs() },
        zero_point,
    }
}
