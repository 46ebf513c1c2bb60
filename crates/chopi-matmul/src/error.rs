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

    /// A multiplier that is NaN or infinite.
    #[error("the multiplier is {multiplier}, expected a finite number")]
    Multiplier {
        /// The multiplier.
        multiplier: f64,
    },

    /// An exponent that a fixed-point multiplier does not have.
    #[error("the exponent of the multiplier is {exponent}, expected -31..=30")]
    Exponent {
        /// The exponent.
        exponent: i32,
    },

    /// Bounds of codes in the wrong order.
    #[error("the codes are to lie in {min}..={max}, which is empty")]
    CodeBounds {
        /// The smallest code.
        min: i32,
        /// The largest code.
        max: i32,
    },
}
