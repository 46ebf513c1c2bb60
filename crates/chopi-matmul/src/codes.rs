//! The operands: matrices of 8-bit codes.

use chopi_core::backend::IntSlice;

use crate::broadcast;
use crate::error::{Error, Result};

/// 8-bit codes, unsigned or signed.
#[derive(Clone, Copy, Debug)]
pub enum CodeSlice<'a> {
    /// Codes in 0..=255.
    U8(&'a [u8]),
    /// Codes in −128..=127.
    I8(&'a [i8]),
}

impl<'a> From<&'a [u8]> for CodeSlice<'a> {
    fn from(codes: &'a [u8]) -> Self {
        Self::U8(codes)
    }
}

impl<'a> From<&'a [i8]> for CodeSlice<'a> {
    fn from(codes: &'a [i8]) -> Self {
        Self::I8(codes)
    }
}

impl<'a> TryFrom<IntSlice<'a>> for CodeSlice<'a> {
    type Error = Error;

    fn try_from(codes: IntSlice<'a>) -> Result<Self> {
        match codes {
            IntSlice::U8(codes) => Ok(Self::U8(codes)),
            IntSlice::I8(codes) => Ok(Self::I8(codes)),
            other => Err(Error::Type {
                found: other.int_type(),
            }),
        }
    }
}

impl<'a> CodeSlice<'a> {
    /// The number of codes.
    pub fn len(&self) -> usize {
        match self {
            Self::U8(codes) => codes.len(),
            Self::I8(codes) => codes.len(),
        }
    }

    /// Whether there is no code.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The smallest and the largest code that there can be.
    pub fn bounds(&self) -> (i32, i32) {
        match self {
            Self::U8(_) => (0, 255),
            Self::I8(_) => (-128, 127),
        }
    }

    /// The codes with these indices.
    pub(crate) fn part(self, range: std::ops::Range<usize>) -> Self {
        match self {
            Self::U8(codes) => Self::U8(&codes[range]),
            Self::I8(codes) => Self::I8(&codes[range]),
        }
    }

    /// The code at an index, as a number.
    pub(crate) fn at(&self, index: usize) -> i32 {
        match self {
            Self::U8(codes) => codes[index].into(),
            Self::I8(codes) => codes[index].into(),
        }
    }

    /// The codes as bytes, signed ones in two's complement.
    pub(crate) fn bytes(self) -> &'a [u8] {
        match self {
            Self::U8(codes) => codes,
            // SAFETY: the pointer and the length are those of a slice that is borrowed for as long as the
            // result; `i8` and `u8` have one size and alignment, and every byte is a value of both.
            Self::I8(codes) => unsafe {
                std::slice::from_raw_parts(codes.as_ptr().cast(), codes.len())
            },
        }
    }
}

/// The left matrix of a product, [rows, depth], row by row: the activations.
///
/// Stands for the numbers code − zero point.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    codes: CodeSlice<'a>,
    rows: usize,
    depth: usize,
    zero_points: &'a [i32],
}

impl<'a> Matrix<'a> {
    /// A matrix of `rows` × `depth` codes, with one zero point or one for each row.
    ///
    /// # Errors
    /// [`Error::Length`] where the lengths are not those.
    pub fn new(
        codes: impl Into<CodeSlice<'a>>,
        rows: usize,
        depth: usize,
        zero_points: &'a [i32],
    ) -> Result<Self> {
        let codes = codes.into();
        Error::check_length("the left matrix", codes.len(), rows.saturating_mul(depth))?;
        Error::check_each(
            "the zero points of the left matrix",
            zero_points.len(),
            rows,
        )?;
        Ok(Self {
            codes,
            rows,
            depth,
            zero_points,
        })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The number of columns, over which the product sums.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The codes.
    pub fn codes(&self) -> CodeSlice<'a> {
        self.codes
    }

    /// The zero point of a row.
    pub(crate) fn zero_point(&self, row: usize) -> i32 {
        broadcast::of(self.zero_points, row)
    }

    /// The largest |code − zero point| that there can be.
    pub(crate) fn magnitude(&self) -> u64 {
        let (low, high) = self.codes.bounds();
        let distance = |&zero: &i32| zero.abs_diff(low).max(zero.abs_diff(high));
        self.zero_points
            .iter()
            .map(distance)
            .max()
            .unwrap_or(0)
            .into()
    }
}
