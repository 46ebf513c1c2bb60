//! Parameters of the rows, the columns or the channels of an operand: slices with one value for all, or
//! one for each. [`Error::check_each`](crate::Error) checks their lengths.

use crate::kernel::PANEL;

/// The value of a row, a column or a channel.
#[inline(always)]
pub(crate) fn of<T: Copy>(values: &[T], line: usize) -> T {
    match values {
        [all] => *all,
        each => each[line],
    }
}

/// A value for each column, filled up to whole panels.
pub(crate) fn panels<T: Copy>(values: &[T], columns: usize, fill: T) -> impl Iterator<Item = T> {
    let padding = columns.next_multiple_of(PANEL) - columns;
    (0..columns)
        .map(|column| of(values, column))
        .chain(std::iter::repeat_n(fill, padding))
}
