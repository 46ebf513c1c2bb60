//! Memory whose size an input says.

use crate::error::{Error, Result};

/// A vector without elements that has room for `len` of them.
///
/// # Errors
/// [`Error::Memory`] where there is not so much memory.
pub fn with_room<T>(len: usize) -> Result<Vec<T>> {
    let mut room = Vec::new();
    match room.try_reserve_exact(len) {
        Ok(()) => Ok(room),
        Err(_) => Err(Error::Memory {
            bytes: len.saturating_mul(size_of::<T>()),
        }),
    }
}

/// A vector of `len` times the same element.
///
/// # Errors
/// [`Error::Memory`] where there is not so much memory.
pub fn repeated<T: Clone>(element: T, len: usize) -> Result<Vec<T>> {
    let mut elements = with_room(len)?;
    elements.resize(len, element);
    Ok(elements)
}

/// A vector of the elements of an iterator.
///
/// # Errors
/// [`Error::Memory`] where there is not so much memory.
pub fn collected<T>(elements: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>> {
    let mut collected = with_room(elements.len())?;
    collected.extend(elements);
    Ok(collected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_memory_than_there_is_is_an_error_that_says_how_much() {
        for len in [1 << 60, usize::MAX] {
            let error = repeated(0_u64, len).unwrap_err().to_string();
            let bytes = len.saturating_mul(8);
            assert_eq!(error, format!("there is no memory for {bytes} bytes"));
        }
        assert_eq!(repeated(7, 3).unwrap(), [7; 3]);
    }
}
