//! Integers as the kernels write them: by their bits.

use std::mem::MaybeUninit;

use crate::buffer::IntSliceMut;

/// An unsigned integer that takes the low bits of a code; the signed type of its width reads the
/// same bits as the signed code.
pub(crate) trait Code: Copy + Default + Send {
    const WIDTH: Width;

    fn from_low_bits(bits: u32) -> Self;
}

/// How wide a code is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Width {
    W8,
    W16,
    Wider,
}

macro_rules! impl_code {
    ($($t:ident $width:ident),*) => {$(
        impl Code for $t {
            const WIDTH: Width = Width::$width;

            #[inline(always)]
            fn from_low_bits(bits: u32) -> Self {
                bits as Self
            }
        }
    )*};
}

// In 64 bits, codes that may exceed i32 are not negative.
impl_code!(u8 W8, u16 W16, u32 Wider, u64 Wider);

/// Codes that may be negative fit i32, whose sign is extended.
impl Code for i64 {
    const WIDTH: Width = Width::Wider;

    #[inline(always)]
    fn from_low_bits(bits: u32) -> Self {
        (bits as i32).into()
    }
}

/// A slice of codes to be written, by width.
pub(crate) enum CodeSliceMut<'a> {
    W8(&'a mut [MaybeUninit<u8>]),
    W16(&'a mut [MaybeUninit<u16>]),
    W32(&'a mut [MaybeUninit<u32>]),
    W64(&'a mut [MaybeUninit<u64>]),
    Signed64(&'a mut [MaybeUninit<i64>]),
}

impl<'a> CodeSliceMut<'a> {
    /// The slice for codes that are at least `qmin`.
    pub fn new(slice: IntSliceMut<'a>, qmin: i64) -> Self {
        /// Reinterprets a slice of signed integers as one of unsigned integers.
        ///
        /// # Safety
        /// `U` must be the unsigned integer of the width of the signed integer `S`.
        unsafe fn unsigned<S, U>(data: &mut [MaybeUninit<S>]) -> &mut [MaybeUninit<U>] {
            // SAFETY: the caller says that the two have the same size and alignment, and every
            // bit pattern is a value of both.
            unsafe { &mut *(std::ptr::from_mut(data) as *mut [MaybeUninit<U>]) }
        }
        match slice {
            IntSliceMut::U8(data) => Self::W8(data),
            IntSliceMut::U16(data) => Self::W16(data),
            IntSliceMut::U32(data) => Self::W32(data),
            // SAFETY: i8 and u8 have one width.
            IntSliceMut::I8(data) => Self::W8(unsafe { unsigned(data) }),
            // SAFETY: i16 and u16 have one width.
            IntSliceMut::I16(data) => Self::W16(unsafe { unsigned(data) }),
            // SAFETY: i32 and u32 have one width.
            IntSliceMut::I32(data) => Self::W32(unsafe { unsigned(data) }),
            IntSliceMut::I64(data) if qmin < 0 => Self::Signed64(data),
            // SAFETY: i64 and u64 have one width.
            IntSliceMut::I64(data) => Self::W64(unsafe { unsigned(data) }),
        }
    }
}
