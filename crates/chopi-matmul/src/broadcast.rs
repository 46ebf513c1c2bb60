//! Parameters of the rows, the columns or the channels of an operand: slices with one value for all, or
//! one for each. [`Error::check_each`](crate::Error) checks their lengths.

use chopi_core::backend::with_room;

use crate::error::Result;
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
///
/// # Errors
/// [`Error::Quantization`](crate::Error) where there is no memory for them.
pub(crate) fn panels<T: Copy>(values: &[T], columns: usize, fill: T) -> Result<Vec<T>> {
    let padded = columns.checked_next_multiple_of(PANEL);
    let mut panels = with_room(padded.unwrap_or(usize::MAX))?;
    panels.extend((0..columns).map(|column| of(values, column)));
    panels.resize(columns.next_multiple_of(PANEL), fill);
    Ok(panels)
}
