//! Codes in memory: integers, one each or packed.

use std::borrow::Cow;
use std::ops::Range;

use chopi_core::backend::{Int, IntSlice, IntType, Layout, collected, match_int, repeated};
use chopi_core::packing::Packing;
use chopi_core::{Error, Result};

use crate::archive::Entry;
use crate::element::IntElement;
use crate::error::Fault;
use crate::with_int;

/// The codes of a tensor, row-major.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Codes {
    /// One integer for each code.
    Ints(Ints),
    /// Codes of 2 to 8 bits without gaps, each row apart.
    Packed(PackedCodes),
}

/// Integers in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs)] // The names are the types.
pub enum Ints {
    I8(Vec<i8>),
    U8(Vec<u8>),
    I16(Vec<i16>),
    U16(Vec<u16>),
    I32(Vec<i32>),
    U32(Vec<u32>),
    I64(Vec<i64>),
}

/// Rows of packed codes. A row is what lies at one index of the first axis: of a matrix of shape [out, in] the
/// `in` codes of an output.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackedCodes {
    packing: Packing,
    rows: usize,
    row: usize,
    bytes: Vec<u8>,
}

/// The rows of a tensor: how many, and the elements of each. A tensor of fewer than two axes is one row.
pub(crate) fn rows_of(shape: &[usize]) -> (usize, usize) {
    match shape {
        [] => (1, 1),
        [len] => (1, *len),
        [rows, row @ ..] => {
            // Without overflow where there are no rows.
            let row = row.iter().fold(1_usize, |n, &len| n.saturating_mul(len));
            (*rows, row)
        }
    }
}

impl Codes {
    /// The codes as integers, one each: unpacked where they are packed.
    ///
    /// # Errors
    /// Where there is no memory for them.
    pub fn unpacked(&self) -> Result<Cow<'_, Ints>> {
        match self {
            Self::Ints(ints) => Ok(Cow::Borrowed(ints)),
            Self::Packed(packed) => Ok(Cow::Owned(packed.unpack()?)),
        }
    }

    /// The bytes that they take in memory.
    pub fn bytes(&self) -> usize {
        match self {
            Self::Ints(ints) => ints.len() * ints.int_type().size(),
            Self::Packed(packed) => packed.bytes.len(),
        }
    }

    /// Checks that there are as many as a tensor of this shape has.
    pub(crate) fn check(&self, shape: &[usize]) -> Result<()> {
        let elements = match self {
            Self::Ints(ints) => ints.len(),
            Self::Packed(packed) => packed.rows * packed.row,
        };
        let mut lens = shape.iter();
        match lens.try_fold(1_usize, |n, &len| n.checked_mul(len)) == Some(elements) {
            true => Ok(()),
            false => Err(Error::Elements {
                elements,
                shape: shape.to_vec(),
            }),
        }
    }
}

impl PackedCodes {
    /// `rows` rows of `row` codes each.
    ///
    /// # Errors
    /// [`Error::PackedLength`] where there are not as many bytes as they take.
    pub fn new(packing: Packing, bytes: Vec<u8>, rows: usize, row: usize) -> Result<Self> {
        let expected = rows.checked_mul(packing.row_bytes(row));
        match expected == Some(bytes.len()) && rows.checked_mul(row).is_some() {
            true => Ok(Self {
                packing,
                rows,
                row,
                bytes,
            }),
            false => Err(Error::PackedLength {
                bytes: bytes.len(),
                rows,
                row,
                bits: packing.bits(),
            }),
        }
    }

    /// How the codes lie in the bytes.
    pub fn packing(&self) -> Packing {
        self.packing
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The codes in a row.
    pub fn row(&self) -> usize {
        self.row
    }

    /// The rows, one after the other, each of [`Packing::row_bytes`] bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn unpack(&self) -> Result<Ints> {
        unpack(self.packing, &self.bytes, self.rows, self.row)
    }
}

/// Reads and unpacks the rows of some elements of a tensor of packed codes.
pub(crate) fn unpacked_rows(
    codes: &Entry,
    packing: Packing,
    row: usize,
    elements: Range<usize>,
) -> std::result::Result<Ints, Fault> {
    let (start, rows) = (elements.start / row.max(1), elements.len() / row.max(1));
    let row_bytes = packing.row_bytes(row);
    let mut bytes = repeated(0, rows * row_bytes)?;
    codes.data.read(start * row_bytes, &mut bytes)?;
    Ok(unpack(packing, &bytes, rows, row)?)
}

/// Unpacks rows of codes.
pub(crate) fn unpack(packing: Packing, bytes: &[u8], rows: usize, row: usize) -> Result<Ints> {
    match packing.bounds() {
        (0, _) => Ok(Ints::U8(packing.unpack(bytes, rows, row)?)),
        _ => Ok(Ints::I8(packing.unpack(bytes, rows, row)?)),
    }
}

impl Ints {
    /// The integers.
    pub fn as_slice(&self) -> IntSlice<'_> {
        match self {
            Self::I8(ints) => IntSlice::I8(ints),
            Self::U8(ints) => IntSlice::U8(ints),
            Self::I16(ints) => IntSlice::I16(ints),
            Self::U16(ints) => IntSlice::U16(ints),
            Self::I32(ints) => IntSlice::I32(ints),
            Self::U32(ints) => IntSlice::U32(ints),
            Self::I64(ints) => IntSlice::I64(ints),
        }
    }

    /// The type of the integers.
    pub fn int_type(&self) -> IntType {
        self.as_slice().int_type()
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.as_slice().len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Codes in the row-major order of their tensor, as integers of type `int`, which holds them.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is none for them.
    pub(crate) fn row_major(codes: IntSlice<'_>, layout: &Layout, int: IntType) -> Result<Self> {
        match_int!(IntSlice, codes, codes => {
            let codes = layout.to_row_major(codes)?;
            with_int!(int, I => {
                let codes: Vec<I> = collected(codes.iter().map(|q| I::of(q.to_i64())))?;
                Ok(Self::from(codes))
            })
        })
    }
}

macro_rules! from_vec {
    ($($t:ident $variant:ident),*) => {$(
        impl From<Vec<$t>> for Ints {
            fn from(ints: Vec<$t>) -> Self {
                Self::$variant(ints)
            }
        }
    )*};
}

from_vec!(i8 I8, u8 U8, i16 I16, u16 U16, i32 I32, u32 U32, i64 I64);
