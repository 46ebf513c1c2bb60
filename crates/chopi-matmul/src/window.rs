//! The memory of a product, in rectangles that threads write at the same time.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::ops::Range;

use crate::error::{Error, Result};
use crate::kernel::PANEL;

/// Memory of the caller, initialized or not, that a product writes whole elements to.
#[derive(Debug)]
pub(crate) struct Memory<'a, T> {
    data: *mut T,
    len: usize,
    life: PhantomData<&'a mut [MaybeUninit<T>]>,
}

impl<'a, T> From<&'a mut [MaybeUninit<T>]> for Memory<'a, T> {
    fn from(out: &'a mut [MaybeUninit<T>]) -> Self {
        Self {
            data: out.as_mut_ptr().cast(),
            len: out.len(),
            life: PhantomData,
        }
    }
}

impl<'a, T> From<&'a mut [T]> for Memory<'a, T> {
    fn from(out: &'a mut [T]) -> Self {
        Self {
            data: out.as_mut_ptr(),
            len: out.len(),
            life: PhantomData,
        }
    }
}

/// A rectangle of a row-major matrix that nobody else has: what it is to a matrix is what `&mut [T]` is
/// to a slice. It can be written, but not read, since its memory may be uninitialized.
///
/// Rows and columns are counted from the first ones of the matrix, whatever the rectangle.
#[derive(Debug)]
pub(crate) struct Window<'a, T> {
    /// The memory of the matrix, of which each row has `stride` elements. The elements of `rows` and
    /// `columns` lie in it, and belong to this window alone.
    matrix: *mut T,
    stride: usize,
    rows: Range<usize>,
    columns: Range<usize>,
    life: PhantomData<&'a mut [MaybeUninit<T>]>,
}

// SAFETY: a window is a mutable borrow of its elements, which may be sent where the elements may.
unsafe impl<T: Send> Send for Window<'_, T> {}

impl<'a, T> Window<'a, T> {
    /// All of a matrix of `rows` × `columns`, whose elements are those of `out`.
    ///
    /// # Errors
    /// [`Error::Length`] where `out` has not as many elements.
    pub(crate) fn new(rows: usize, columns: usize, out: Memory<'a, T>) -> Result<Self> {
        Error::check_length("the product", out.len, rows.saturating_mul(columns))?;
        Ok(Self {
            matrix: out.data,
            stride: columns,
            rows: 0..rows,
            columns: 0..columns,
            life: PhantomData,
        })
    }

    /// The rows before `row`, and the others.
    pub(crate) fn split_at_row(self, row: usize) -> (Self, Self) {
        let row = row.clamp(self.rows.start, self.rows.end);
        let part = |rows| Self {
            rows,
            columns: self.columns.clone(),
            ..self
        };
        (part(self.rows.start..row), part(row..self.rows.end))
    }

    /// The columns before `column`, and the others.
    pub(crate) fn split_at_column(self, column: usize) -> (Self, Self) {
        let column = column.clamp(self.columns.start, self.columns.end);
        let part = |columns| Self {
            rows: self.rows.clone(),
            columns,
            ..self
        };
        (
            part(self.columns.start..column),
            part(column..self.columns.end),
        )
    }
}

impl<T: Copy> Window<'_, T> {
    /// Writes the elements of `row` over a panel, which begins at `column`; those beyond the window's
    /// last column are left out.
    ///
    /// # Panics
    /// Where the row or the first column is not in the window.
    #[inline(always)]
    pub(crate) fn write(&mut self, row: usize, column: usize, elements: &[T; PANEL]) {
        let there = self.rows.contains(&row) && self.columns.contains(&column);
        assert!(there, "row {row} and column {column} are not in the window");
        let len = self.columns.end - column;
        // SAFETY: the row is one of the window's, and so are `len` columns from `column` on. Their
        // elements lie one after the other in memory that this window alone has.
        unsafe {
            let to = self.matrix.add(row * self.stride + column);
            if len >= PANEL {
                to.cast::<[T; PANEL]>().write_unaligned(*elements);
            } else {
                std::ptr::copy_nonoverlapping(elements.as_ptr(), to, len);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_write_their_own_elements_and_no_others() {
        let mut out = [0; 3 * 20];
        let window = Window::new(3, 20, (&mut out[..]).into()).unwrap();
        let (mut above, below) = window.split_at_row(1);
        let (mut left, mut right) = below.split_at_column(16);
        above.write(0, 0, &[1; PANEL]);
        above.write(0, 16, &[2; PANEL]);
        std::thread::scope(|scope| {
            scope.spawn(|| left.write(2, 0, &[3; PANEL]));
            right.write(2, 16, &[4; PANEL]);
            right.write(1, 18, &[5; PANEL]);
        });
        let row = |a, b| [[a; 16].as_slice(), &[b; 4]].concat();
        let mut expected = [row(1, 2), row(0, 0), row(3, 4)].concat();
        expected[38..40].fill(5);
        assert_eq!(out[..], expected);
    }

    #[test]
    fn what_is_outside_is_not_written() {
        for (row, column) in [(0, 0), (2, 0), (1, 4)] {
            let mut out = [0; 12];
            let window = Window::new(3, 4, (&mut out[..]).into()).unwrap();
            let (upper, _) = window.split_at_row(2);
            let (_, mut middle) = upper.split_at_row(1);
            let write = std::panic::AssertUnwindSafe(|| middle.write(row, column, &[1; PANEL]));
            assert!(std::panic::catch_unwind(write).is_err());
            assert_eq!(out, [0; 12]);
        }
    }

    #[test]
    fn memory_of_another_length_is_refused() {
        assert!(Window::new(2, 2, (&mut [0; 5][..]).into()).is_err());
        assert!(Window::new(usize::MAX, 2, (&mut [0; 5][..]).into()).is_err());
        assert!(Window::new(0, 7, (&mut [0; 0][..]).into()).is_ok());
    }
}
