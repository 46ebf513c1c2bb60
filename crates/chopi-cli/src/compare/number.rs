//! Numbers that hold those of every dtype exactly.

use std::fmt;

use serde::Serialize;

/// A number that is compared: `i128` for every integer dtype, [`FloatNumber`] for every float one.
pub trait Number: Copy {
    /// |a − a|.
    const ZERO: Difference;

    fn differs(self, other: Self) -> bool;
    /// |a − b| of numbers that differ.
    fn difference(self, other: Self) -> Difference;
    /// The nearest `f64`.
    fn to_f64(self) -> f64;
}

impl Number for i128 {
    const ZERO: Difference = Difference::Integer(0);

    fn differs(self, other: Self) -> bool {
        self != other
    }

    fn difference(self, other: Self) -> Difference {
        Difference::Integer(self.abs_diff(other))
    }

    fn to_f64(self) -> f64 {
        self as f64
    }
}

/// A float that equals another one if it has the same bits.
#[derive(Clone, Copy, Debug)]
pub struct FloatNumber {
    pub bits: u64,
    pub value: f64,
}

impl FloatNumber {
    /// A number that equals others of the same value, whatever their dtype: its bits are those of
    /// an `f64`, and a NaN has always the same ones.
    pub fn of_value(value: f64) -> Self {
        let bits = match value.is_nan() {
            true => f64::NAN.to_bits(),
            false => value.to_bits(),
        };
        Self { bits, value }
    }
}

impl Number for FloatNumber {
    const ZERO: Difference = Difference::Float(0.0);

    fn differs(self, other: Self) -> bool {
        self.bits != other.bits
    }

    fn difference(self, other: Self) -> Difference {
        Difference::Float((self.value - other.value).abs())
    }

    fn to_f64(self) -> f64 {
        self.value
    }
}

/// How far two numbers are from each other: exact between integers.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(untagged)]
pub enum Difference {
    Integer(u128),
    Float(f64),
}

impl Difference {
    /// The larger of the two; NaN if one of them is.
    pub fn max(self, other: Self) -> Self {
        match (self, other) {
            (Self::Integer(a), Self::Integer(b)) => Self::Integer(a.max(b)),
            (a, b) if b.to_f64() > a.to_f64() || b.to_f64().is_nan() => b,
            (a, _) => a,
        }
    }

    /// The nearest `f64`.
    pub fn to_f64(self) -> f64 {
        match self {
            Self::Integer(difference) => difference as f64,
            Self::Float(difference) => difference,
        }
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Integer(difference) => write!(f, "{difference}"),
            Self::Float(difference) => write!(f, "{difference:.3e}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nan_is_the_largest_difference() {
        let [nan, infinite, one] = [f64::NAN, f64::INFINITY, 1.0].map(Difference::Float);
        assert!(nan.max(infinite).to_f64().is_nan());
        assert!(infinite.max(nan).to_f64().is_nan());
        assert_eq!(one.max(infinite), infinite);
        assert_eq!(infinite.max(one), infinite);
    }

    #[test]
    fn integers_are_subtracted_exactly() {
        let difference = i128::from(u64::MAX).difference(i128::from(i64::MIN));
        assert_eq!(difference.to_string(), "27670116110564327423");
    }

    #[test]
    fn floats_of_two_dtypes_are_equal_where_their_values_are() {
        let differ = |a, b| FloatNumber::of_value(a).differs(FloatNumber::of_value(b));
        assert!(!differ(0.5, 0.5) && !differ(f64::NAN, -f64::NAN));
        assert!(differ(0.0, -0.0) && differ(f64::NAN, 0.0));
    }
}
