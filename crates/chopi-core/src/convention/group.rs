//! The range of one group of values, and the arithmetic on it that libraries share.

use crate::error::{Error, Result};
use crate::scheme::{Granularity, Scheme, Symmetry};
use chopi_kernels::FloatType;

/// The scale and the zero point of one group. The zero point is an integer, but in conventions of
/// real zero points.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct ScaleZero {
    pub scale: f64,
    pub zero_point: f64,
}

/// The range of the values of one group, with what its parameters depend on besides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Group<'a> {
    pub min: f64,
    pub max: f64,
    pub scheme: &'a Scheme,
    /// The type of the data.
    pub float: FloatType,
    /// The index of the group, for errors.
    pub index: usize,
}

impl Group<'_> {
    /// The group with min and max rounded to `float`, for a library that converts the data before it
    /// looks at them.
    pub fn rounded_to(self, float: FloatType) -> Self {
        Self {
            min: float.round(self.min),
            max: float.round(self.max),
            ..self
        }
    }

    /// The group with its range extended to hold 0.
    pub fn with_zero(self) -> Self {
        Self {
            min: self.min.min(0.0),
            max: self.max.max(0.0),
            ..self
        }
    }

    pub fn is_symmetric(&self) -> bool {
        self.scheme.symmetry == Symmetry::Symmetric
    }

    pub fn is_per_channel(&self) -> bool {
        matches!(self.scheme.granularity, Granularity::PerChannel { .. })
    }

    pub fn qmin(&self) -> f64 {
        self.scheme.qmin as f64
    }

    pub fn qmax(&self) -> f64 {
        self.scheme.qmax as f64
    }

    /// max(|min|, |max|).
    pub fn abs_max(&self) -> f64 {
        self.min.abs().max(self.max.abs())
    }

    /// max − min, rounded to `float`.
    pub fn span(&self, float: FloatType) -> f64 {
        round(float, self.max - self.min)
    }

    /// qmax − qmin, the number of steps between the smallest code and the largest, rounded to `float`.
    pub fn steps(&self, float: FloatType) -> f64 {
        round(float, (self.scheme.qmax - self.scheme.qmin) as f64)
    }

    /// (qmax − qmin)/2, rounded to `float`: 127.5 for 8 bits, 127 for a narrow range of 8 bits.
    pub fn half_steps(&self, float: FloatType) -> f64 {
        round(float, (self.scheme.qmax - self.scheme.qmin) as f64 / 2.0)
    }

    /// (max − min)/(qmax − qmin) in `f64`, finite where min and max are.
    pub fn span_over_steps(&self) -> f64 {
        let (span, steps) = (self.max - self.min, self.steps(FloatType::F64));
        match span.is_infinite() {
            true => (self.max * 0.5 - self.min * 0.5) / (steps * 0.5),
            false => span / steps,
        }
    }

    /// qmin − min/s, the zero point before it is made an integer; quotient and difference each rounded
    /// to `float`.
    pub fn real_zero_point(&self, float: FloatType, scale: f64) -> f64 {
        round(float, self.qmin() - round(float, self.min / scale))
    }

    /// `z` clamped to [qmin, qmax].
    pub fn clamp(&self, z: f64) -> f64 {
        z.clamp(self.qmin(), self.qmax())
    }

    /// The scale, if it is a positive finite number.
    ///
    /// # Errors
    /// [`Error::Scale`] if it is not.
    pub fn checked(&self, scale: f64) -> Result<f64> {
        match scale > 0.0 && scale.is_finite() {
            true => Ok(scale),
            false => Err(self.scale_error(scale)),
        }
    }

    /// The error that refuses this scale.
    pub fn scale_error(&self, scale: f64) -> Error {
        Error::Scale {
            group: self.index,
            scale,
            float: self.float.compute(),
        }
    }
}

/// `value`, the result of one `f64` operation on numbers of type `float`, as the operation of that
/// type itself gives it. Halves are computed in `f32`, whose result is then rounded to the half.
///
/// (Rounding the `f64` result to a type of at most 25 bits of precision gives what rounding the exact
/// one gives.)
pub(crate) fn round(float: FloatType, value: f64) -> f64 {
    float.round(float.compute().round(value))
}

/// 1/n as XLA takes it when it turns a division by a broadcast number into a product: rounded to the
/// compute type, and for `f16` data then to `f16`.
pub(crate) fn xla_reciprocal(float: FloatType, n: f64) -> f64 {
    let reciprocal = float.compute().round(1.0 / n);
    match float {
        FloatType::F16 => float.round(reciprocal),
        _ => reciprocal,
    }
}
