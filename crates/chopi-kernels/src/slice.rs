//! Slices whose element type is a value: what tensors and loops hand each other.

use std::mem::MaybeUninit;

use half::{bf16, f16};

use crate::float::FloatType;
use crate::int::IntType;

/// A slice of floats.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // The names are the types.
pub enum FloatSlice<'a> {
    F16(&'a [f16]),
    BF16(&'a [bf16]),
    F32(&'a [f32]),
    F64(&'a [f64]),
}

/// A slice of floats to be written, every element of it.
#[derive(Debug)]
#[allow(missing_docs)] // The names are the types.
pub enum FloatSliceMut<'a> {
    F16(&'a mut [MaybeUninit<f16>]),
    BF16(&'a mut [MaybeUninit<bf16>]),
    F32(&'a mut [MaybeUninit<f32>]),
    F64(&'a mut [MaybeUninit<f64>]),
}

/// A slice of integers.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)] // The names are the types.
pub enum IntSlice<'a> {
    I8(&'a [i8]),
    U8(&'a [u8]),
    I16(&'a [i16]),
    U16(&'a [u16]),
    I32(&'a [i32]),
    U32(&'a [u32]),
    I64(&'a [i64]),
}

/// A slice of integers to be written, every element of it.
#[derive(Debug)]
#[allow(missing_docs)] // The names are the types.
pub enum IntSliceMut<'a> {
    I8(&'a mut [MaybeUninit<i8>]),
    U8(&'a mut [MaybeUninit<u8>]),
    I16(&'a mut [MaybeUninit<i16>]),
    U16(&'a mut [MaybeUninit<u16>]),
    I32(&'a mut [MaybeUninit<i32>]),
    U32(&'a mut [MaybeUninit<u32>]),
    I64(&'a mut [MaybeUninit<i64>]),
}

/// `match` on a [`FloatSlice`] or [`FloatSliceMut`], the same arm for every element type.
#[macro_export]
macro_rules! match_float {
    ($enum:ident, $value:expr, $data:ident => $arm:expr) => {
        match $value {
            $crate::$enum::F16($data) => $arm,
            $crate::$enum::BF16($data) => $arm,
            $crate::$enum::F32($data) => $arm,
            $crate::$enum::F64($data) => $arm,
        }
    };
}

/// `match` on an [`IntSlice`] or [`IntSliceMut`], the same arm for every element type.
#[macro_export]
macro_rules! match_int {
    ($enum:ident, $value:expr, $data:ident => $arm:expr) => {
        match $value {
            $crate::$enum::I8($data) => $arm,
            $crate::$enum::U8($data) => $arm,
            $crate::$enum::I16($data) => $arm,
            $crate::$enum::U16($data) => $arm,
            $crate::$enum::I32($data) => $arm,
            $crate::$enum::U32($data) => $arm,
            $crate::$enum::I64($data) => $arm,
        }
    };
}

impl FloatSlice<'_> {
    /// The element type.
    #[inline]
    pub fn float_type(&self) -> FloatType {
        match self {
            Self::F16(_) => FloatType::F16,
            Self::BF16(_) => FloatType::BF16,
            Self::F32(_) => FloatType::F32,
            Self::F64(_) => FloatType::F64,
        }
    }

    /// The number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        match_float!(FloatSlice, self, data => data.len())
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl<'a> FloatSlice<'a> {
    /// The elements before `at`, and the others.
    ///
    /// # Panics
    /// Where there are fewer elements.
    pub fn split_at(self, at: usize) -> (Self, Self) {
        macro_rules! split {
            ($($variant:ident)*) => {
                match self {
                    $(Self::$variant(data) => {
                        let (before, after) = data.split_at(at);
                        (Self::$variant(before), Self::$variant(after))
                    })*
                }
            };
        }
        split!(F16 BF16 F32 F64)
    }
}

impl<'a> IntSliceMut<'a> {
    /// The elements before `at`, and the others.
    ///
    /// # Panics
    /// Where there are fewer elements.
    pub fn split_at_mut(self, at: usize) -> (Self, Self) {
        macro_rules! split {
            ($($variant:ident)*) => {
                match self {
                    $(Self::$variant(data) => {
                        let (before, after) = data.split_at_mut(at);
                        (Self::$variant(before), Self::$variant(after))
                    })*
                }
            };
        }
        split!(I8 U8 I16 U16 I32 U32 I64)
    }

    /// The slice, for a shorter time.
    pub fn reborrow(&mut self) -> IntSliceMut<'_> {
        match_int!(IntSliceMut, self, data => crate::Int::slice_mut(data))
    }
}

impl FloatSliceMut<'_> {
    /// The number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        match_float!(FloatSliceMut, self, data => data.len())
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The element type.
    #[inline]
    pub fn float_type(&self) -> FloatType {
        match self {
            Self::F16(_) => FloatType::F16,
            Self::BF16(_) => FloatType::BF16,
            Self::F32(_) => FloatType::F32,
            Self::F64(_) => FloatType::F64,
        }
    }
}

/// What both kinds of slices of integers tell.
macro_rules! int_slice {
    ($slice:ident) => {
        impl $slice<'_> {
            /// The element type.
            #[inline]
    pub fn int_type(&self) -> IntType {
                match self {
                    Self::I8(_) => IntType::I8,
                    Self::U8(_) => IntType::U8,
                    Self::I16(_) => IntType::I16,
                    Self::U16(_) => IntType::U16,
                    Self::I32(_) => IntType::I32,
                    Self::U32(_) => IntType::U32,
                    Self::I64(_) => IntType::I64,
                }
            }

            /// The number of elements.
            #[inline]
    pub fn len(&self) -> usize {
                match_int!($slice, self, data => data.len())
            }

            /// Whether there is no element.
            #[inline]
    pub fn is_empty(&self) -> bool {
                self.len() == 0
            }
        }
    };
}

int_slice!(IntSlice);
int_slice!(IntSliceMut);
