//! The integer types that hold codes.

use std::fmt;
use std::mem::MaybeUninit;

use crate::float::Compute;
use crate::slice::{IntSlice, IntSliceMut};

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
    #[inline]
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
    #[inline]
    pub fn holds(self, qmin: i64, qmax: i64) -> bool {
        let (min, max) = self.bounds();
        min <= qmin && qmax <= max
    }

    /// The first of these types that holds `qmin..=qmax`; `I64` where none does.
    #[inline]
    pub fn first_of(types: &[Self], (qmin, qmax): (i64, i64)) -> Self {
        types
            .iter()
            .copied()
            .find(|int| int.holds(qmin, qmax))
            .unwrap_or(Self::I64)
    }

    /// The smallest type that holds `qmin..=qmax`; the signed one where both of a width do.
    #[inline]
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

/// An integer element type that holds codes.
pub trait Int:
    crate::sealed::Sealed + Copy + Default + Ord + fmt::Debug + Send + Sync + 'static
{
    /// The type as a value.
    const TYPE: IntType;

    /// The code's value.
    fn to_i64(self) -> i64;
    /// The code's value in the compute type, rounded to nearest even where it does not fit.
    fn to_compute<C: Compute>(self) -> C;
    /// The slice with its type as a value.
    fn slice(data: &[Self]) -> IntSlice<'_>;
    /// The slice, to be written, with its type as a value.
    fn slice_mut(data: &mut [MaybeUninit<Self>]) -> IntSliceMut<'_>;
    /// The slice, to be written, as one of this type, if it is.
    fn from_slice_mut<'a>(data: IntSliceMut<'a>) -> Option<&'a mut [MaybeUninit<Self>]>;
}

macro_rules! impl_int {
    ($($t:ident $type:ident),*) => {$(
        impl crate::sealed::Sealed for $t {}

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
