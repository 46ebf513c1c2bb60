//! The float types that are quantized.

use std::fmt;
use std::mem::MaybeUninit;

use half::{bf16, f16};

use crate::slice::{FloatSlice, FloatSliceMut};

/// The float types that chopi quantizes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum FloatType {
    /// IEEE 754 binary16.
    F16,
    /// The upper half of an `f32`.
    BF16,
    /// IEEE 754 binary32.
    F32,
    /// IEEE 754 binary64.
    F64,
}

impl FloatType {
    /// The type that numbers of this type are computed in: `F64` for `F64`, else `F32`.
    #[inline]
    pub fn compute(self) -> Self {
        match self {
            Self::F64 => Self::F64,
            _ => Self::F32,
        }
    }

    /// The narrowest type that holds the values of both.
    pub fn or_wider(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::F64, _) | (_, Self::F64) => Self::F64,
            _ => Self::F32,
        }
    }

    /// `value` rounded to this type, to nearest even.
    #[inline]
    pub fn round(self, value: f64) -> f64 {
        match self {
            // Not by `from_f64`, which looks at the upper 32 bits of the number only.
            Self::F16 => f16::from_f32(round_to_odd(value)).to_f64(),
            Self::BF16 => bf16::from_f32(round_to_odd(value)).to_f64(),
            Self::F32 => f64::from(value as f32),
            Self::F64 => value,
        }
    }

    /// The distance from 1 to the next larger number of this type.
    pub fn epsilon(self) -> f64 {
        match self {
            Self::F16 => f16::EPSILON.to_f64(),
            Self::BF16 => bf16::EPSILON.to_f64(),
            Self::F32 => f64::from(f32::EPSILON),
            Self::F64 => f64::EPSILON,
        }
    }

    /// The smallest positive normal number of this type.
    pub fn min_positive(self) -> f64 {
        match self {
            Self::F16 => f16::MIN_POSITIVE.to_f64(),
            Self::BF16 => bf16::MIN_POSITIVE.to_f64(),
            Self::F32 => f64::from(f32::MIN_POSITIVE),
            Self::F64 => f64::MIN_POSITIVE,
        }
    }

    /// The largest finite number of this type.
    pub fn max(self) -> f64 {
        match self {
            Self::F16 => f16::MAX.to_f64(),
            Self::BF16 => bf16::MAX.to_f64(),
            Self::F32 => f64::from(f32::MAX),
            Self::F64 => f64::MAX,
        }
    }
}

/// `value` in `f32`; where it is not one, the neighbour whose last bit is 1, so that a further
/// rounding to fewer bits gives what a single one does.
fn round_to_odd(value: f64) -> f32 {
    let near = value as f32;
    if f64::from(near) == value || value.is_nan() {
        return near;
    }
    let beyond = f64::from(near).abs() > value.abs();
    f32::from_bits((near.to_bits() - u32::from(beyond)) | 1)
}

impl fmt::Display for FloatType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F16 => "f16",
            Self::BF16 => "bf16",
            Self::F32 => "f32",
            Self::F64 => "f64",
        })
    }
}

/// A float element type: `f32`, `f64`, [`half::f16`] or [`half::bf16`].
pub trait Float:
    crate::sealed::Sealed + Copy + Default + fmt::Debug + Send + Sync + 'static
{
    /// The type as a value.
    const TYPE: FloatType;
    /// The type that it is computed in: itself, or `f32` for the two halves.
    type Compute: Compute;

    /// The exact value in the compute type.
    fn widen(self) -> Self::Compute;
    /// A number of the compute type rounded to nearest even.
    fn narrow(value: Self::Compute) -> Self;

    /// The slice with its type as a value.
    fn slice(data: &[Self]) -> FloatSlice<'_>;
    /// The slice, to be written, with its type as a value.
    fn slice_mut(data: &mut [MaybeUninit<Self>]) -> FloatSliceMut<'_>;
    /// The slice as one of this type, if it is.
    fn from_slice(data: FloatSlice<'_>) -> Option<&[Self]>;
    /// The slice, to be written, as one of this type, if it is.
    fn from_slice_mut<'a>(data: FloatSliceMut<'a>) -> Option<&'a mut [MaybeUninit<Self>]>;
}

/// A float type that arithmetic is done in: `f32` or `f64`.
pub trait Compute: Float<Compute = Self> + num_traits::Float {
    /// 1.5·2^(p−1), p the precision: added to |v| ≤ 2^(p−2), it rounds v to the nearest integer,
    /// ties to even, and leaves that integer in the low bits of the sum.
    const MAGIC: Self;
    /// The largest n with 2n + 1 ≤ 2^(p−2): codes and zero points up to n have exact differences, and
    /// neighbours of them too.
    const MAGIC_LIMIT: i64;

    /// The integer n for which `self` is MAGIC + n, modulo 2^32.
    fn low_bits(self) -> u32;
    /// The low 32 bits of the representation.
    fn low_word(self) -> u32;
    /// The conversion of an integer of at most 16 bits, exact.
    fn from_i32(value: i32) -> Self;
    /// The conversion of an integer, rounded to nearest even.
    fn from_i64(value: i64) -> Self;
    /// The conversion from `f64`, rounded to nearest even.
    fn from_f64(value: f64) -> Self;
    /// The conversion to `f64`, exact.
    fn as_f64(self) -> f64;
    /// d·s rounded once, for an integer |d| < 2^36 held in a `f64`.
    fn exact_product(d: f64, s: Self) -> Self;
}

/// The methods of [`Float`] that tie the type to its variant of the slices.
macro_rules! impl_slices {
    ($type:ident) => {
        fn slice(data: &[Self]) -> FloatSlice<'_> {
            FloatSlice::$type(data)
        }
        fn slice_mut(data: &mut [MaybeUninit<Self>]) -> FloatSliceMut<'_> {
            FloatSliceMut::$type(data)
        }
        fn from_slice(data: FloatSlice<'_>) -> Option<&[Self]> {
            match data {
                FloatSlice::$type(data) => Some(data),
                _ => None,
            }
        }
        fn from_slice_mut<'a>(data: FloatSliceMut<'a>) -> Option<&'a mut [MaybeUninit<Self>]> {
            match data {
                FloatSliceMut::$type(data) => Some(data),
                _ => None,
            }
        }
    };
}

macro_rules! impl_compute {
    ($t:ident, $type:ident, $bits:ident, $magic:expr, $limit:expr, $product:item) => {
        impl crate::sealed::Sealed for $t {}

        impl Float for $t {
            const TYPE: FloatType = FloatType::$type;
            type Compute = Self;

            #[inline(always)]
            fn widen(self) -> Self {
                self
            }
            #[inline(always)]
            fn narrow(value: Self) -> Self {
                value
            }
            impl_slices!($type);
        }

        impl Compute for $t {
            const MAGIC: Self = $magic;
            const MAGIC_LIMIT: i64 = $limit;

            #[inline(always)]
            fn low_bits(self) -> u32 {
                self.low_word().wrapping_sub(Self::MAGIC.low_word())
            }
            #[inline(always)]
            fn low_word(self) -> u32 {
                self.to_bits() as u32
            }
            #[inline(always)]
            fn from_i32(value: i32) -> Self {
                value as Self
            }
            #[inline(always)]
            fn from_i64(value: i64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn from_f64(value: f64) -> Self {
                value as Self
            }
            #[inline(always)]
            fn as_f64(self) -> f64 {
                self.into()
            }
            #[inline(always)]
            $product
        }
    };
}

impl_compute!(
    f32,
    F32,
    u32,
    12_582_912.0,
    (1 << 21) - 1,
    fn exact_product(d: f64, s: f32) -> f32 {
        // Two exact partial products, then their sum rounded to odd, so that the rounding to f32
        // sees on which side of every f32 midpoint the exact product lies.
        const SPLIT: f64 = 65_536.0;
        let s = f64::from(s);
        let high = (d / SPLIT).trunc() * SPLIT;
        let (a, b) = (high * s, (d - high) * s);
        let sum = a + b;
        let error = b - (sum - a);
        let bits = sum.to_bits();
        let away = ((error > 0.0) == (sum > 0.0)) as u64;
        let inexact = (error.abs() > 0.0 && bits & 1 == 0) as u64;
        // One step away from zero where the error points away from it, else one step towards it.
        f64::from_bits(bits.wrapping_add(inexact * (2 * away).wrapping_sub(inexact))) as f32
    }
);
impl_compute!(
    f64,
    F64,
    u64,
    6_755_399_441_055_744.0,
    (1 << 50) - 1,
    fn exact_product(d: f64, s: f64) -> f64 {
        d * s
    }
);

macro_rules! impl_half {
    ($t:ident, $type:ident) => {
        impl crate::sealed::Sealed for $t {}

        impl Float for $t {
            const TYPE: FloatType = FloatType::$type;
            type Compute = f32;

            #[inline(always)]
            fn widen(self) -> f32 {
                self.to_f32()
            }
            #[inline(always)]
            fn narrow(value: f32) -> Self {
                Self::from_f32(value)
            }
            impl_slices!($type);
        }
    };
}

impl_half!(f16, F16);
impl_half!(bf16, BF16);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rounding_to_halves_sees_every_bit_of_the_number() {
        for (float, step) in [
            (FloatType::F16, 2_f64.powi(-10)),
            (FloatType::BF16, 2_f64.powi(-7)),
        ] {
            let tie = 1.0 + step / 2.0;
            assert_eq!(float.round(tie), 1.0);
            assert_eq!(float.round(-tie), -1.0);
            for exponent in [-52, -40, -30, -23] {
                let little = 2_f64.powi(exponent);
                assert_eq!(float.round(tie + little), 1.0 + step, "{float} {exponent}");
                assert_eq!(float.round(tie - little), 1.0, "{float} {exponent}");
                assert_eq!(
                    float.round(-tie - little),
                    -1.0 - step,
                    "{float} {exponent}"
                );
            }
        }
        assert_eq!(FloatType::F16.round(1e300), f64::INFINITY);
        assert_eq!(FloatType::BF16.round(-1e-300), 0.0);
        assert!(FloatType::F16.round(f64::NAN).is_nan());
    }
}
