//! What can be wrong with what a product is given.

use chopi_core::IntType;

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

    /// Values that are neither one for all nor one for each.
    #[error("{what}: there are {len}, expected 1 or {expected}")]
    Each {
        /// What they are.
        what: &'static str,
        /// How many there are.
        len: usize,
        /// How many rows or columns there are.
        expected: usize,
    },

    /// Codes that are not of 8 bits.
    #[error("the codes are {found:?}, expected U8 or I8")]
    Type {
        /// Their type.
        found: IntType,
    },

    /// Matrices that do not fit together.
    #[error("the left matrix has {left} columns, but the right one has {right} rows")]
    Depth {
        /// The depth of the left matrix.
        left: usize,
        /// The depth of the right matrix.
        right: usize,
    },

    /// A product whose sums could leave the range of `i32`.
    #[error(
        "a sum of {depth} products can reach {bound}, which 32 bits do not hold; split the depth"
    )]
    Overflow {
        /// The depth of the matrices.
        depth: usize,
        /// What the largest column of the right matrix and the range of the left one come to.
        bound: u64,
    },
}

impl Error {
    pub(crate) fn check_length(what: &'static str, len: usize, expected: usize) -> Result<()> {
        if len == expected {
            Ok(())
        } else {
            Err(Self::Length {
                what,
                len,
                expected,
            })
        }
    }

    pub(crate) fn check_each(what: &'static str, len: usize, expected: usize) -> Result<()> {
        if len == 1 || len == expected {
            Ok(())
        } else {
            Err(Self::Each {
                what,
                len,
                expected,
            })
        }
    }
}
