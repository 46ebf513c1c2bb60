//! Element types: the floats that are quantized and the integers that hold codes.

use std::fmt;
use std::mem::MaybeUninit;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::buffer::{FloatSlice, FloatSliceMut, IntSlice, IntSliceMut};
use crate::kernel::vector::{Arch, Vector};

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
    pub fn compute(self) -> Self {
        match self {
            Self::F64 => Self::F64,
            _ => Self::F32,
        }
    }

    /// The narrowest type that holds the values of both.
    pub(crate) fn or_wider(self, other: Self) -> Self {
        match (self, other) {
            (a, b) if a == b => a,
            (Self::F64, _) | (_, Self::F64) => Self::F64,
            _ => Self::F32,
        }
    }

    /// `value` rounded to this type, to nearest even.
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

/// The integer types that hold codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum IntType {
    /// 8 bits, signed.
    I8,
    /// 8 bits, unsigned.
    U8,
    /// 16 bits, signed.
    I16,
    /// 16 bits, unsigned.
    U16,
    /// 32 bits, signed.
    I32,
    /// 32 bits, unsigned.
    U32,
    /// 64 bits, signed: accepted as input, for frameworks whose default integer it is.
    I64,
}

impl IntType {
    /// The smallest and the largest value of the type.
    pub fn bounds(self) -> (i64, i64) {
        match self {
            Self::I8 => (i8::MIN.into(), i8::MAX.into()),
            Self::U8 => (0, u8::MAX.into()),
            Self::I16 => (i16::MIN.into(), i16::MAX.into()),
            Self::U16 => (0, u16::MAX.into()),
            Self::I32 => (i32::MIN.into(), i32::MAX.into()),
            Self::U32 => (0, u32::MAX.into()),
            Self::I64 => (i64::MIN, i64::MAX),
        }
    }

    /// Whether every code of `qmin..=qmax` is a value of the type.
    pub fn holds(self, qmin: i64, qmax: i64) -> bool {
        let (min, max) = self.bounds();
        min <= qmin && qmax <= max
    }

    /// The first of these types that holds `qmin..=qmax`; `I64` where none does.
    pub fn first_of(types: &[Self], (qmin, qmax): (i64, i64)) -> Self {
        types
            .iter()
            .copied()
            .find(|int| int.holds(qmin, qmax))
            .unwrap_or(Self::I64)
    }

    /// The smallest type that holds `qmin..=qmax`; the signed one where both of a width do.
    pub fn smallest(bounds: (i64, i64)) -> Self {
        let types = [
            Self::I8,
            Self::U8,
            Self::I16,
            Self::U16,
            Self::I32,
            Self::U32,
        ];
        Self::first_of(&types, bounds)
    }

    /// The bytes that one value takes.
    pub fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 => 4,
            Self::I64 => 8,
        }
    }
}

impl fmt::Display for IntType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I8 => "i8",
            Self::U8 => "u8",
            Self::I16 => "i16",
            Self::U16 => "u16",
            Self::I32 => "i32",
            Self::U32 => "u32",
            Self::I64 => "i64",
        })
    }
}

mod sealed {
    pub trait Sealed {}
}

/// A float element type: `f32`, `f64`, [`half::f16`] or [`half::bf16`].
pub trait Float: sealed::Sealed + Copy + Default + fmt::Debug + Send + Sync + 'static {
    /// The type as a value.
    const TYPE: FloatType;
    /// The type that it is computed in: itself, or `f32` for the two halves.
    type Compute: Compute;

    /// The exact value in the compute type.
    fn widen(self) -> Self::Compute;
    /// A number of the compute type rounded to nearest even.
    fn narrow(value: Self::Compute) -> Self;

    /// `src` in the compute type: itself, or converted into `buffer`, which is at least as long.
    #[doc(hidden)]
    fn widen_block<'a>(
        src: &'a [Self],
        buffer: &'a mut Block<Self::Compute>,
    ) -> &'a [Self::Compute];

    /// Calls `compute` on a buffer of `out`'s length and leaves the result in `out`, narrowed.
    #[doc(hidden)]
    fn narrow_block(
        out: &mut [MaybeUninit<Self>],
        compute: impl FnOnce(&mut [MaybeUninit<Self::Compute>]),
    );

    /// The slice with its type as a value.
    fn slice(data: &[Self]) -> FloatSlice<'_>;
    /// Likewise, to be written.
    fn slice_mut(data: &mut [MaybeUninit<Self>]) -> FloatSliceMut<'_>;
    /// The slice as one of this type, if it is.
    fn from_slice(data: FloatSlice<'_>) -> Option<&[Self]>;
    /// Likewise, to be written.
    fn from_slice_mut<'a>(data: FloatSliceMut<'a>) -> Option<&'a mut [MaybeUninit<Self>]>;
}

/// The length of the longest block that is widened at once.
pub(crate) const HALF_BLOCK: usize = 512;

/// A buffer for widened elements.
#[doc(hidden)]
pub type Block<C> = [MaybeUninit<C>; HALF_BLOCK];

/// A float type that arithmetic is done in: `f32` or `f64`.
pub trait Compute: Float<Compute = Self> + num_traits::Float {
    /// 1.5·2^(p−1), p the precision: added to |v| ≤ 2^(p−2), it rounds v to the nearest integer,
    /// ties to even, and leaves that integer in the low bits of the sum.
    const MAGIC: Self;
    /// The largest integer of which the double, and one more, is such a v: codes and zero points up to
    /// it have differences and neighbours that are.
    const MAGIC_LIMIT: i64;

    /// A vector of such numbers.
    #[doc(hidden)]
    type Vector<A: Arch>: Vector<Scalar = Self>;

    /// The integer n for which `self` is MAGIC + n, modulo 2^32.
    fn low_bits(self) -> u32;
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

macro_rules! impl_compute {
    ($t:ident, $type:ident, $bits:ident, $magic:expr, $limit:expr, $product:item) => {
        impl sealed::Sealed for $t {}

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
            #[inline(always)]
            fn widen_block<'a>(src: &'a [Self], _: &'a mut Block<Self>) -> &'a [Self] {
                src
            }
            #[inline(always)]
            fn narrow_block(
                out: &mut [MaybeUninit<Self>],
                compute: impl FnOnce(&mut [MaybeUninit<Self>]),
            ) {
                compute(out)
            }
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
        }

        impl Compute for $t {
            type Vector<A: Arch> = A::$type;

            const MAGIC: Self = $magic;
            const MAGIC_LIMIT: i64 = $limit;

            #[inline(always)]
            fn low_bits(self) -> u32 {
                (self.to_bits() as u32).wrapping_sub(Self::MAGIC.to_bits() as u32)
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
        impl sealed::Sealed for $t {}

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
            fn widen_block<'a>(src: &'a [Self], buffer: &'a mut Block<f32>) -> &'a [f32] {
                let buffer = &mut buffer[..src.len()];
                buffer.fill(MaybeUninit::new(0.0));
                // SAFETY: every element of `buffer` was initialized by the line above.
                let buffer = unsafe { &mut *(std::ptr::from_mut(buffer) as *mut [f32]) };
                src.convert_to_f32_slice(buffer);
                buffer
            }
            fn narrow_block(
                out: &mut [MaybeUninit<Self>],
                compute: impl FnOnce(&mut [MaybeUninit<f32>]),
            ) {
                let mut buffer = [MaybeUninit::new(0.0_f32); HALF_BLOCK];
                let buffer = &mut buffer[..out.len()];
                compute(buffer);
                // SAFETY: the buffer was made of initialized elements.
                let buffer = unsafe { &*(std::ptr::from_ref(buffer) as *const [f32]) };
                out.fill(MaybeUninit::new(Self::ZERO));
                // SAFETY: every element of `out` was initialized by the line above.
                let out = unsafe { &mut *(std::ptr::from_mut(out) as *mut [Self]) };
                out.convert_from_f32_slice(buffer);
            }
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
        }
    };
}

impl_half!(f16, F16);
impl_half!(bf16, BF16);

/// An integer element type that holds codes.
pub trait Int: sealed::Sealed + Copy + Default + Ord + fmt::Debug + Send + Sync + 'static {
    /// The type as a value.
    const TYPE: IntType;

    /// The code's value.
    fn to_i64(self) -> i64;
    /// The code's value in the compute type, rounded to nearest even where it does not fit.
    #[doc(hidden)]
    fn to_compute<C: Compute>(self) -> C;
    /// The slice with its type as a value.
    fn slice(data: &[Self]) -> IntSlice<'_>;
    /// Likewise, to be written.
    fn slice_mut(data: &mut [MaybeUninit<Self>]) -> IntSliceMut<'_>;
    /// The slice as one of this type, if it is.
    fn from_slice_mut<'a>(data: IntSliceMut<'a>) -> Option<&'a mut [MaybeUninit<Self>]>;
}

macro_rules! impl_int {
    ($($t:ident $type:ident),*) => {$(
        impl sealed::Sealed for $t {}

        impl Int for $t {
            const TYPE: IntType = IntType::$type;

            #[inline(always)]
            fn to_i64(self) -> i64 {
                self as i64
            }
            #[inline(always)]
            fn to_compute<C: Compute>(self) -> C {
                // The narrow types convert through i32, for which every CPU has an instruction.
                match Self::TYPE.size() {
                    1 | 2 => C::from_i32(self as i32),
                    _ => C::from_i64(self as i64),
                }
            }
            fn slice(data: &[Self]) -> IntSlice<'_> {
                IntSlice::$type(data)
            }
            fn slice_mut(data: &mut [MaybeUninit<Self>]) -> IntSliceMut<'_> {
                IntSliceMut::$type(data)
            }
            fn from_slice_mut<'a>(data: IntSliceMut<'a>) -> Option<&'a mut [MaybeUninit<Self>]> {
                match data {
                    IntSliceMut::$type(data) => Some(data),
                    _ => None,
                }
            }
        }
    )*};
}

impl_int!(i8 I8, u8 U8, i16 I16, u16 U16, i32 I32, u32 U32, i64 I64);

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
