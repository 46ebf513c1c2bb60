//! Memory whose size an input says: to want more than there is is an error, never the end of the process.
//!
//! What has a small size that no input changes is allocated as usual: the shape of a tensor, the text of an
//! error, the tasks that threads take.

/// There is not as much memory as an input asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no memory for {bytes} bytes")]
pub struct NoMemory {
    /// The number of bytes that are wanted; `usize::MAX` where there are more.
    pub bytes: usize,
}

impl NoMemory {
    /// There is no memory for `len` elements of type `T`.
    #[cold]
    pub(crate) fn of<T>(len: usize) -> Self {
        Self {
            bytes: len.saturating_mul(size_of::<T>()),
        }
    }
}

/// A vector without elements that has room for `len` of them.
///
/// # Errors
/// [`NoMemory`] where there is not so much memory.
pub fn with_room<T>(len: usize) -> Result<Vec<T>, NoMemory> {
    let mut room = Vec::new();
    make_room(&mut room, len)?;
    Ok(room)
}

/// Makes room for `more` elements at the end of a vector.
///
/// # Errors
/// [`NoMemory`] where there is not so much memory; the vector is as it was then.
pub fn make_room<T>(vec: &mut Vec<T>, more: usize) -> Result<(), NoMemory> {
    let len = vec.len();
    vec.try_reserve_exact(more)
        .map_err(|_| NoMemory::of::<T>(len.saturating_add(more)))
}

/// A vector of `len` times the same element.
///
/// # Errors
/// [`NoMemory`] where there is not so much memory.
pub fn repeated<T: Clone>(element: T, len: usize) -> Result<Vec<T>, NoMemory> {
    let mut elements = with_room(len)?;
    elements.resize(len, element);
    Ok(elements)
}

/// A vector of the elements of an iterator.
///
/// # Errors
/// [`NoMemory`] where there is not so much memory.
pub fn collected<T>(elements: impl ExactSizeIterator<Item = T>) -> Result<Vec<T>, NoMemory> {
    let mut collected = with_room(elements.len())?;
    collected.extend(elements);
    Ok(collected)
}

/// A vector of the elements of an iterator, or the first error of one of them.
///
/// # Errors
/// [`NoMemory`] where there is not so much memory; the first error of an element.
pub fn try_collected<T, E: From<NoMemory>>(
    elements: impl ExactSizeIterator<Item = Result<T, E>>,
) -> Result<Vec<T>, E> {
    let mut collected = with_room(elements.len())?;
    for element in elements {
        collected.push(element?);
    }
    Ok(collected)
}

/// A vector of the elements of a slice.
///
/// # Errors
/// [`NoMemory`] where there is not so much memory.
pub fn copied<T: Copy>(elements: &[T]) -> Result<Vec<T>, NoMemory> {
    let mut copied = with_room(elements.len())?;
    copied.extend_from_slice(elements);
    Ok(copied)
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
