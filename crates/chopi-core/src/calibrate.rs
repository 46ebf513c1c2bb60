//! From the range of a group to its scale and zero point.

use crate::convention::{
    Arithmetic, ConstantGroup, Convention, Parameters, ScaleFloor, SpanDivision, SymmetricScale,
    SymmetricZero, ZeroPointRule,
};
use crate::dtype::FloatType;
use crate::error::{Error, Result};
use crate::scheme::{Granularity, Scheme, Symmetry, Zero};

/// The scale and the zero point of one group; the zero point is an integer but for
/// [`ZeroPointRule::Real`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ScaleZero {
    pub scale: f64,
    pub zero_point: f64,
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
    let symmetric = scheme.symmetry == Symmetry::Symmetric;
    let parameters = match convention.parameters_u8 {
        Some(parameters)
            if !symmetric && float == FloatType::F32 && (scheme.qmin, scheme.qmax) == (0, 255) =>
        {
            parameters
        }
        _ => convention.parameters,
    };
    // Data that the library converts before it looks at them.
    let arithmetic = parameters.arithmetic.of(float);
    let (min, max) = (arithmetic.round(min), arithmetic.round(max));
    let (min, max) = match scheme.zero {
        Zero::AsObserved if !parameters.always_include_zero => (min, max),
        _ => (min.min(0.0), max.max(0.0)),
    };
    if min == max && parameters.constant_group == ConstantGroup::Exact {
        return Ok(constant_group(min, scheme));
    }
    Formulas {
        parameters,
        scheme,
        float,
        min,
        max,
    }
    .evaluate(group)
}

/// The formulas of [`Parameters`] for one group.
struct Formulas<'a> {
    parameters: Parameters,
    scheme: &'a Scheme,
    float: FloatType,
    min: f64,
    max: f64,
}

impl Formulas<'_> {
    fn evaluate(&self, group: usize) -> Result<ScaleZero> {
        let symmetric = self.scheme.symmetry == Symmetry::Symmetric;
        let compute = self.float.compute();
        let mut scale = if symmetric {
            self.symmetric_scale()
        } else {
            self.asymmetric_scale()
        };
        let mut zero_point = None;
        match self.parameters.scale_floor {
            ScaleFloor::Relative => {
                if !symmetric {
                    let least = match self.float {
                        FloatType::F64 => 1.0 / f64::from(1 << 30),
                        _ => 1.0 / f64::from(1 << 24),
                    };
                    scale = scale.max(self.abs_max() * least);
                }
                scale = scale.max(compute.min_positive());
            }
            ScaleFloor::Scale(floor) => scale = scale.max(floor),
            ScaleFloor::OneForSubnormal if scale < self.float.min_positive() => {
                (scale, zero_point) = (1.0, Some(0.0));
            }
            ScaleFloor::OneForZero if self.min == 0.0 && self.max == 0.0 => {
                (scale, zero_point) = (1.0, Some(0.0));
            }
            ScaleFloor::EpsilonForZero if scale == 0.0 => {
                let zero = self.zero_point(scale);
                (scale, zero_point) = (
                    self.float.epsilon(),
                    Some(if zero.is_nan() { 0.0 } else { zero }),
                );
            }
            ScaleFloor::AbsMaxOne if scale < compute.min_positive() => {
                return Err(Error::Scale {
                    group,
                    scale,
                    float: compute,
                });
            }
            _ => {}
        }
        if !(scale > 0.0 && scale.is_finite()) {
            return Err(Error::Scale {
                group,
                scale,
                float: compute,
            });
        }
        let mut zero_point = zero_point.unwrap_or_else(|| self.zero_point(scale));
        let i32s = f64::from(i32::MIN)..=f64::from(i32::MAX);
        match self.parameters.zero_point {
            ZeroPointRule::RoundedI32 if !i32s.contains(&zero_point) => {
                let expected = "a 32-bit integer".to_owned();
                return Err(Error::ZeroPoint {
                    group,
                    zero_point,
                    expected,
                });
            }
            ZeroPointRule::RoundedSaturatingI32 => {
                zero_point = zero_point.clamp(*i32s.start(), *i32s.end());
            }
            _ => {}
        }
        Ok(ScaleZero {
            scale: compute.round(self.round_to(self.parameters.scale_type, scale)),
            zero_point,
        })
    }

    /// The result of an f64 operation on two numbers of a type of at most 25 bits of precision,
    /// rounded to that type, is what the type's own operation gives. Halves are computed in f32 and
    /// rounded again.
    fn round(&self, value: f64) -> f64 {
        self.round_to(self.parameters.arithmetic, value)
    }

    fn round_to(&self, arithmetic: Arithmetic, value: f64) -> f64 {
        let float = arithmetic.of(self.float);
        float.round(float.compute().round(value))
    }

    fn abs_max(&self) -> f64 {
        self.min.abs().max(self.max.abs())
    }

    /// qmax − qmin, rounded as the library does when it meets a float.
    fn steps(&self) -> f64 {
        self.round((self.scheme.qmax - self.scheme.qmin) as f64)
    }

    fn symmetric_scale(&self) -> f64 {
        let scheme = self.scheme;
        let abs_max = self.abs_max();
        let qmax = scheme.qmax as f64;
        let half_span = self.round((scheme.qmax - scheme.qmin) as f64 / 2.0);
        match self.parameters.symmetric_scale {
            SymmetricScale::AbsMaxOverQmax => match self.parameters.scale_floor {
                ScaleFloor::SpanOrOne(floor) if scheme.bits > 8 => {
                    self.round(abs_max.max(floor) / qmax)
                }
                ScaleFloor::SpanOrOne(_) if abs_max == 0.0 => 1.0,
                _ => self.round(abs_max / qmax),
            },
            SymmetricScale::AbsMaxOverHalfSpan => self.round(abs_max / half_span),
            SymmetricScale::AbsMaxOverQmaxFrom8Bits if scheme.bits >= 8 && scheme.qmin < 0 => {
                self.round(abs_max / qmax)
            }
            SymmetricScale::AbsMaxOverQmaxFrom8Bits => self.round(abs_max / half_span),
            SymmetricScale::AbsMaxTimesInverse => {
                let abs_max = if abs_max < FloatType::F32.min_positive() {
                    1.0
                } else {
                    abs_max
                };
                let bound = self.round(((1_i64 << (scheme.bits - 1)) as f64) - 0.5);
                self.round(abs_max * self.inverse(bound))
            }
            SymmetricScale::SpanOverSpan => self.asymmetric_scale(),
        }
    }

    fn asymmetric_scale(&self) -> f64 {
        let steps = self.steps();
        let span = self.round(self.max - self.min);
        let span = match self.parameters.scale_floor {
            ScaleFloor::Span(floor) | ScaleFloor::SpanOrOne(floor) => span.max(self.round(floor)),
            _ => span,
        };
        let per_channel = matches!(self.scheme.granularity, Granularity::PerChannel { .. });
        match self.parameters.span_division {
            SpanDivision::ReciprocalPerChannel if per_channel => {
                self.round(span * self.inverse(steps))
            }
            // Halving both ends keeps a span beyond the largest f64 finite.
            _ if span.is_infinite() && self.parameters.arithmetic == Arithmetic::F64 => {
                (self.max * 0.5 - self.min * 0.5) / (steps * 0.5)
            }
            _ => self.round(span / steps),
        }
    }

    /// 1/n as XLA takes it when it turns a division by a broadcast number into a product.
    fn inverse(&self, n: f64) -> f64 {
        let inverse = FloatType::F32.round(1.0 / n);
        if self.float == FloatType::F16 {
            self.float.round(inverse)
        } else {
            inverse
        }
    }

    fn zero_point(&self, scale: f64) -> f64 {
        let scheme = self.scheme;
        let (qmin, qmax) = (scheme.qmin as f64, scheme.qmax as f64);
        if scheme.symmetry == Symmetry::Symmetric {
            return symmetric_zero(self.parameters.symmetric_zero, scheme) as f64;
        }
        let quotient = self.round(self.min / scale);
        let real = self.round(qmin - quotient);
        match self.parameters.zero_point {
            ZeroPointRule::Rounded
            | ZeroPointRule::RoundedI32
            | ZeroPointRule::RoundedSaturatingI32 => real.round_ties_even(),
            ZeroPointRule::ClampedThenRounded => real.clamp(qmin, qmax).round_ties_even(),
            ZeroPointRule::QuotientRounded => (qmin - quotient.round_ties_even()).clamp(qmin, qmax),
            ZeroPointRule::RoundedAway => real.round().clamp(qmin, qmax),
            ZeroPointRule::Real => real,
        }
    }
}

/// The zero point of every group of a symmetric scheme.
pub(crate) fn symmetric_zero(rule: SymmetricZero, scheme: &Scheme) -> i64 {
    let (qmin, qmax) = (scheme.qmin, scheme.qmax);
    match rule {
        SymmetricZero::Middle if qmin >= 0 => ((qmin + qmax) as f64 / 2.0).round_ties_even() as i64,
        SymmetricZero::MiddleDown if matches!((qmin, qmax), (0, 255 | 65535)) => (qmax + 1) / 2,
        SymmetricZero::MiddleDown if qmin >= 0 => (qmin + qmax) / 2,
        _ => 0,
    }
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
        zero_point: zero_point as f64,
    }
}
