//! What can be wrong with what a product is given.

/// The result of every fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What was wrong, with the numbers that explain it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Quantizing the operands failed.
    #[error(transparent)]
    Quantization(#[from] chopi_core::Error),

    /// A slice that does not have the length that its shape says.
    #[error("{what} has {len} elements, expected {expected}")]
    Length {
        /// What the slice is.
        what: &'static str,
        /// Its length.
        len: usize,
        /// The length of its shape.
        expected: usize,
    },
}
