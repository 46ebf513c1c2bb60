//! What fills the memory of a new tensor.

use std::fmt;
use std::mem::MaybeUninit;

use chopi_kernels::{Float, FloatSliceMut, Int, IntSliceMut, memory::with_room};

use crate::error::{Error, Result};

/// What fills the memory of a new tensor: a number of elements, and what writes each of them.
///
/// A backend gets one where it has to make a tensor, and takes the elements as a vector, or has its own
/// memory filled. It gets no element that was not written: what writes them is core's, or was promised
/// in an `unsafe` block.
///
/// ```compile_fail,E0624
/// # use chopi_core as chopi;
/// use chopi::backend::{Fill, IntSliceMut};
/// let lie = Fill::new(1000, |_: IntSliceMut<'_>| chopi_core::Result::Ok(()));
/// ```
///
/// ```compile_fail,E0133
/// # use chopi_core as chopi;
/// use chopi::backend::{Fill, IntSliceMut};
/// let lie = Fill::new_unchecked(1000, |_: IntSliceMut<'_>| chopi_core::Result::Ok(()));
/// ```
pub struct Fill<W> {
    len: usize,
    write: W,
}

impl<W> fmt::Debug for Fill<W> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fill").field("len", &self.len).finish()
    }
}

impl<W> Fill<W> {
    /// `write` is given `len` elements, and writes each of them before it returns Ok: crate-private, as
    /// that is a promise.
    pub(crate) fn new(len: usize, write: W) -> Self {
        Self { len, write }
    }

    /// What `write` fills memory with, for kernels of other crates.
    ///
    /// # Safety
    /// `write` must have initialized every element of the slice that it is given when it returns Ok.
    pub unsafe fn new_unchecked(len: usize, write: W) -> Self {
        Self { len, write }
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn check(&self, elements: usize) -> Result<()> {
        match elements == self.len {
            true => Ok(()),
            false => Err(Error::Elements {
                elements,
                shape: vec![self.len],
            }),
        }
    }
}

impl<W: FnOnce(FloatSliceMut<'_>) -> Result<()>> Fill<W> {
    /// Writes the elements into memory of the caller: every one of them is initialized where the result
    /// is Ok.
    ///
    /// # Errors
    /// [`Error::Elements`] where `out` has another length; what is wrong with the tensor that the
    /// elements are computed from.
    pub fn write_floats(self, out: FloatSliceMut<'_>) -> Result<()> {
        self.check(out.len())?;
        (self.write)(out)
    }

    /// The elements in a new vector, written once.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is no memory for them; what is wrong with the tensor that the elements are computed from.
    pub fn into_floats<A: Float>(self) -> Result<Vec<A>> {
        new_vec(self.len, |data| (self.write)(A::slice_mut(data)))
    }
}

impl<W: FnOnce(IntSliceMut<'_>) -> Result<()>> Fill<W> {
    /// Writes the elements into memory of the caller: every one of them is initialized where the result
    /// is Ok.
    ///
    /// # Errors
    /// [`Error::Elements`] where `out` has another length; what is wrong with the tensor that the
    /// elements are computed from.
    pub fn write_ints(self, out: IntSliceMut<'_>) -> Result<()> {
        self.check(out.len())?;
        (self.write)(out)
    }

    /// The elements in a new vector, written once.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is no memory for them; what is wrong with the tensor that the elements are computed from.
    pub fn into_ints<I: Int>(self) -> Result<Vec<I>> {
        new_vec(self.len, |data| (self.write)(I::slice_mut(data)))
    }
}

/// A vector of `len` elements, none of which is written before `write` does, which is the `write` of a
/// [`Fill`].
fn new_vec<T>(
    len: usize,
    write: impl FnOnce(&mut [MaybeUninit<T>]) -> Result<()>,
) -> Result<Vec<T>> {
    let mut data = with_room(len)?;
    let memory = &mut data.spare_capacity_mut()[..len];
    ask_for_huge_pages(memory);
    write(memory)?;
    // SAFETY: the capacity is at least `len`, and `write`, which returned Ok, has initialized every
    // element of the slice: whoever made the `Fill` has promised it.
    unsafe { data.set_len(len) };
    Ok(data)
}

/// Tells the system that this memory, of which nothing has been touched yet, will be used whole: so
/// that it comes in pages of 2 MiB, not one by one of 4 KiB, which costs more than to fill them.
/// NumPy asks for them too.
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
