//! Slices whose element type is a value: what backends and kernels hand each other.

use std::mem::MaybeUninit;

use half::{bf16, f16};

use crate::dtype::{Float, FloatType, Int, IntType};
use crate::error::Result;

/// A slice of floats.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
pub enum FloatSlice<'a> {
    F16(&'a [f16]),
    BF16(&'a [bf16]),
    F32(&'a [f32]),
    F64(&'a [f64]),
}

/// A slice of floats to be written, every element of it.
#[derive(Debug)]
#[allow(missing_docs)]
pub enum FloatSliceMut<'a> {
    F16(&'a mut [MaybeUninit<f16>]),
    BF16(&'a mut [MaybeUninit<bf16>]),
    F32(&'a mut [MaybeUninit<f32>]),
    F64(&'a mut [MaybeUninit<f64>]),
}

/// A slice of integers.
#[derive(Clone, Copy, Debug)]
#[allow(missing_docs)]
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
#[allow(missing_docs)]
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
    pub fn float_type(&self) -> FloatType {
        match self {
            Self::F16(_) => FloatType::F16,
            Self::BF16(_) => FloatType::BF16,
            Self::F32(_) => FloatType::F32,
            Self::F64(_) => FloatType::F64,
        }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match_float!(FloatSlice, self, data => data.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl FloatSliceMut<'_> {
    /// The element type.
    pub fn float_type(&self) -> FloatType {
        match self {
            Self::F16(_) => FloatType::F16,
            Self::BF16(_) => FloatType::BF16,
            Self::F32(_) => FloatType::F32,
            Self::F64(_) => FloatType::F64,
        }
    }
}

/// `int_type` of both kinds of slices.
macro_rules! int_type {
    () => {
        /// The element type.
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
    };
}

impl IntSliceMut<'_> {
    int_type!();
}

impl IntSlice<'_> {
    int_type!();

    /// The number of elements.
    pub fn len(&self) -> usize {
        match_int!(IntSlice, self, data => data.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Tells the system that this memory, of which nothing has been touched yet, will be used whole: so
/// that it comes in pages of 2 MiB, not one by one of 4 KiB, which costs more than to fill them.
/// NumPy does likewise.
#[cfg(target_os = "linux")]
fn ask_for_huge_pages<T>(memory: &mut [MaybeUninit<T>]) {
    const WORTH_IT: usize = 4 << 20;
    const PAGE: usize = 4096;
    let bytes = size_of_val(memory);
    if bytes >= WORTH_IT {
        let start = memory.as_mut_ptr().cast::<u8>();
        let before = start.align_offset(PAGE);
        // SAFETY: the pages lie whole in memory that is ours, and the advice changes nothing that a
        // program can see. A system that does not take it says so, which is no matter.
        unsafe {
            libc::madvise(
                start.add(before).cast(),
                (bytes - before) / PAGE * PAGE,
                libc::MADV_HUGEPAGE,
            )
        };
    }
}

#[cfg(not(target_os = "linux"))]
fn ask_for_huge_pages<T>(_: &mut [MaybeUninit<T>]) {}

/// What fills the memory of a new tensor.
///
/// Its methods initialize every element of the slice that they are given before they return Ok,
/// which whoever made this has promised: so a backend may take the memory as initialized then.
#[derive(Debug)]
pub struct Fill<W>(W);

impl<W> Fill<W> {
    pub(crate) fn new(write: W) -> Self {
        Self(write)
    }

    /// What `write` fills memory with: for kernels outside this crate.
    ///
    /// # Safety
    /// `write` must have initialized every element of the slice that it is given when it returns Ok.
    pub unsafe fn new_unchecked(write: W) -> Self {
        Self(write)
    }

    /// A new vector of `len` elements, none of which is written before `write` does.
    fn vec<T>(
        len: usize,
        write: impl FnOnce(&mut [MaybeUninit<T>]) -> Result<()>,
    ) -> Result<Vec<T>> {
        let mut data = Vec::with_capacity(len);
        let memory = &mut data.spare_capacity_mut()[..len];
        ask_for_huge_pages(memory);
        write(memory)?;
        // SAFETY: the capacity is at least `len`, and `write` has initialized every
        // element of the slice, since it returned Ok.
        unsafe { data.set_len(len) };
        Ok(data)
    }
}

impl<W: FnOnce(FloatSliceMut<'_>) -> Result<()>> Fill<W> {
    /// Writes the elements.
    ///
    /// # Errors
    /// What is wrong with the tensor that they are computed from.
    pub fn write_floats(self, out: FloatSliceMut<'_>) -> Result<()> {
        self.0(out)
    }

    /// The elements in a new vector, written once.
    ///
    /// # Errors
    /// What is wrong with the tensor that they are computed from.
    pub fn floats<A: Float>(self, len: usize) -> Result<Vec<A>> {
        Self::vec(len, |data| self.write_floats(A::slice_mut(data)))
    }
}

impl<W: FnOnce(IntSliceMut<'_>) -> Result<()>> Fill<W> {
    /// Writes the elements.
    ///
    /// # Errors
    /// What is wrong with the tensor that they are computed from.
    pub fn write_ints(self, out: IntSliceMut<'_>) -> Result<()> {
        self.0(out)
    }

    /// The elements in a new vector, written once.
    ///
    /// # Errors
    /// What is wrong with the tensor that they are computed from.
    pub fn ints<I: Int>(self, len: usize) -> Result<Vec<I>> {
        Self::vec(len, |data| self.write_ints(I::slice_mut(data)))
    }
}
