//! Codes of few bits, packed densely: eight codes of 4 bits in 4 bytes.
//!
//! A [`Packing`] says how codes lie in bytes, as compressed-tensors and ONNX keep them, and packs and
//! unpacks them. [`QParams`](crate::QParams) work on codes that are not packed.
//!
//! ```
//! # use chopi_core as chopi;
//! use chopi::packing::Packing;
//!
//! let packing = Packing::compressed_tensors(4)?;
//! let codes = [-8_i8, 7, 0, -1, 3];
//! let packed = packing.pack(&codes, 5)?; // one row of 5 codes, in one 32-bit word
//! assert_eq!(packed, [0xf0, 0x78, 0x0b, 0x00]);
//! assert_eq!(packing.unpack::<i8>(&packed, 1, 5)?, codes);
//! # Ok::<(), chopi_core::Error>(())
//! ```

use std::mem::MaybeUninit;

use chopi_kernels::{Int, IntSliceMut, IntType, Sign, match_int, pack, unpack};

use crate::backend::Fill;
use crate::error::{Error, Result};

/// How codes of 1 to 8 bits lie in bytes: one after the other without gaps, from the lowest bit of
/// the first byte on, so that code i begins at bit i·b.
///
/// Codes come in rows; the bits that are left over at the end of a row, up to a whole number of its
/// units, are 0.
///
/// ```
/// # use chopi_core as chopi;
/// use chopi::packing::{Field, Packing};
///
/// let packing = Packing::new(3, Field::Unsigned)?; // rows of whole bytes
/// assert_eq!(packing.pack(&[1_u8, 2, 3], 3)?, [0b1101_0001, 0]); // 3·2^6 + 2·2^3 + 1, in 9 bits
/// # Ok::<(), chopi_core::Error>(())
/// ```
#[doc(alias("pack_to_int32", "bitpack"))]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Packing {
    bits: u32,
    field: Field,
    unit: usize,
}

/// The bits of a code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Field {
    /// An unsigned code as it is: 0..=2^b − 1.
    Unsigned,
    /// A signed code, −2^(b−1)..=2^(b−1) − 1, in two's complement.
    TwosComplement,
    /// A signed code plus 2^(b−1).
    Offset,
}

impl Packing {
    /// Rows of whole bytes.
    ///
    /// # Errors
    /// [`Error::PackedBits`] where `bits` is not in 1..=8.
    pub fn new(bits: u32, field: Field) -> Result<Self> {
        if !(1..=8).contains(&bits) {
            return Err(Error::PackedBits { bits });
        }
        let unit = 1;
        Ok(Self { bits, field, unit })
    }

    /// The packing of `pack_to_int32` of compressed-tensors 0.20, for signed codes: each row apart, in whole
    /// 32-bit little-endian words, with [`Field::Offset`].
    ///
    /// # Errors
    /// [`Error::PackedBits`] where `bits` is not in 1..=8.
    pub fn compressed_tensors(bits: u32) -> Result<Self> {
        let packing = Self::new(bits, Field::Offset)?;
        Ok(Self { unit: 4, ..packing })
    }

    /// The packing of ONNX 1.19 for tensors of INT2, INT4, UINT2 and UINT4: all elements as one row, signed
    /// ones in two's complement.
    ///
    /// # Errors
    /// [`Error::PackedBits`] where `bits` is not in 1..=8.
    pub fn onnx(bits: u32, signed: bool) -> Result<Self> {
        let field = if signed {
            Field::TwosComplement
        } else {
            Field::Unsigned
        };
        Self::new(bits, field)
    }

    /// The bits of a code.
    pub fn bits(&self) -> u32 {
        self.bits
    }

    /// The smallest and the largest code.
    pub fn bounds(&self) -> (i64, i64) {
        let half = 1 << (self.bits - 1);
        match self.field {
            Field::Unsigned => (0, 2 * half - 1),
            Field::TwosComplement | Field::Offset => (-half, half - 1),
        }
    }

    /// The bytes of a row of this many codes; `usize::MAX` where there are more, as no memory holds.
    pub fn row_bytes(&self, codes: usize) -> usize {
        self.code_bytes(codes)
            .checked_next_multiple_of(self.unit)
            .unwrap_or(usize::MAX)
    }

    /// The bytes that this many codes fill.
    fn code_bytes(&self, codes: usize) -> usize {
        let bits = self.bits as usize;
        // Without overflow for any number of codes: bits ≤ 8.
        codes / 8 * bits + (codes % 8 * bits).div_ceil(8)
    }

    /// Packs rows of `row` codes each.
    ///
    /// # Errors
    /// [`Error::Code`] for a code that the bits do not hold, [`Error::PackedRows`] where the rows are
    /// not whole.
    pub fn pack<I: Int>(&self, codes: &[I], row: usize) -> Result<Vec<u8>> {
        let rows = self.rows(codes.len(), row)?;
        let row_bytes = self.row_bytes(row);
        let packed = |out: IntSliceMut<'_>| {
            let bytes = u8::from_slice_mut(out).expect("bytes were asked for");
            // Rows of no codes have no bytes.
            let bytes = bytes.chunks_exact_mut(row_bytes.max(1));
            for (r, (codes, out)) in codes.chunks_exact(row.max(1)).zip(bytes).enumerate() {
                let (fields, left_over) = out.split_at_mut(self.code_bytes(row));
                if !pack(I::slice(codes), self.bits, self.sign(), fields) {
                    return Err(self.outside(codes, r * row));
                }
                left_over.fill(MaybeUninit::new(0));
            }
            Ok(())
        };
        Fill::new(rows.saturating_mul(row_bytes), packed).into_ints()
    }

    /// Unpacks `rows` rows of `row` codes each: `i8` for signed codes, `u8` for unsigned ones.
    ///
    /// # Errors
    /// [`Error::PackedLength`] where there are not as many bytes; [`Error::Dtype`] for another type.
    pub fn unpack<I: Int>(&self, packed: &[u8], rows: usize, row: usize) -> Result<Vec<I>> {
        let row_bytes = self.row_bytes(row);
        let codes = rows.checked_mul(row);
        let bytes = rows.checked_mul(row_bytes);
        let (Some(codes), true) = (codes, bytes == Some(packed.len())) else {
            return Err(self.length(packed.len(), rows, row));
        };
        let (low, _) = self.bounds();
        let int = if low < 0 { IntType::I8 } else { IntType::U8 };
        if I::TYPE != int {
            return Err(Error::Dtype {
                backend: "unpack",
                dtype: I::TYPE.to_string(),
                expected: "i8 for signed codes, u8 for unsigned ones",
            });
        }
        let unpacked = |out: IntSliceMut<'_>| {
            match_int!(IntSliceMut, out, out => {
                // Rows of no codes have nothing to unpack, however many there are.
                for (r, out) in out.chunks_exact_mut(row.max(1)).enumerate() {
                    let packed = &packed[r * row_bytes..(r + 1) * row_bytes];
                    unpack(packed, self.bits, self.sign(), Int::slice_mut(out));
                }
            });
            Ok(())
        };
        Fill::new(codes, unpacked).into_ints()
    }

    /// The number of rows.
    fn rows(&self, codes: usize, row: usize) -> Result<usize> {
        match codes {
            0 => Ok(0),
            _ if row > 0 && codes.is_multiple_of(row) => Ok(codes / row),
            _ => Err(Error::PackedRows { codes, row }),
        }
    }

    /// The error for the first of these codes that the bits do not hold; the first of all has this index.
    fn outside<I: Int>(&self, codes: &[I], first: usize) -> Error {
        let (qmin, qmax) = self.bounds();
        let mut codes = codes.iter().map(|code| code.to_i64()).zip(first..);
        let outside = codes.find(|(code, _)| !(qmin..=qmax).contains(code));
        let (code, index) = outside.expect("a code is outside");
        Error::Code {
            index: vec![index],
            code,
            qmin,
            qmax,
        }
    }

    fn sign(&self) -> Sign {
        let half = 1 << (self.bits - 1);
        let (flip, offset) = match self.field {
            Field::Unsigned => (0, 0),
            Field::TwosComplement => (half, half),
            Field::Offset => (0, half),
        };
        Sign { flip, offset }
    }

    fn length(&self, bytes: usize, rows: usize, row: usize) -> Error {
        Error::PackedLength {
            bytes,
            rows,
            row,
            bits: self.bits,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packings() -> impl Strategy<Value = Packing> {
        let field = prop_oneof![
            Just(Field::Unsigned),
            Just(Field::TwosComplement),
            Just(Field::Offset)
        ];
        (1_u32..=8, field, prop_oneof![Just(1), Just(4)]).prop_map(|(bits, field, unit)| Packing {
            bits,
            field,
            unit,
        })
    }

    /// Bit by bit.
    fn naive(packing: Packing, codes: &[i64], row: usize) -> Vec<u8> {
        let mut packed = Vec::new();
        for codes in codes.chunks(row) {
            let mut bytes = vec![0_u8; packing.row_bytes(row)];
            for (i, code) in codes.iter().enumerate() {
                let field = match packing.field {
                    Field::Offset => code + (1 << (packing.bits - 1)),
                    _ => *code,
                };
                for bit in 0..packing.bits as usize {
                    let position = i * packing.bits as usize + bit;
                    bytes[position / 8] |= ((field >> bit & 1) as u8) << (position % 8);
                }
            }
            packed.extend(bytes);
        }
        packed
    }

    proptest! {
        #[test]
        fn packing_is_what_it_says_and_loses_nothing(
            packing in packings(),
            rows in 1_usize..4,
            row in prop_oneof![1_usize..40, 1000_usize..1100],
            seed in any::<u32>(),
        ) {
            let (low, high) = packing.bounds();
            let code = |i: usize| {
                let hash = (i as u32).wrapping_mul(2_654_435_761).wrapping_add(seed);
                low + i64::from(hash >> 8) % (high - low + 1)
            };
            let codes: Vec<i64> = (0..rows * row).map(code).collect();
            let packed = packing.pack(&codes, row).unwrap();
            prop_assert_eq!(&packed, &naive(packing, &codes, row));
            let back: Vec<i64> = match packing.field {
                Field::Unsigned => {
                    let back = packing.unpack::<u8>(&packed, rows, row).unwrap();
                    back.into_iter().map(i64::from).collect()
                }
                _ => {
                    let back = packing.unpack::<i8>(&packed, rows, row).unwrap();
                    back.into_iter().map(i64::from).collect()
                }
            };
            prop_assert_eq!(back, codes);
        }
    }

    #[test]
    fn the_words_are_those_of_compressed_tensors() {
        // pack_to_int32(torch.arange(-4, 4).repeat(2).reshape(1, -1), 3) of 0.20.
        let codes: Vec<i8> = (-4..4).chain(-4..4).collect();
        let packed = Packing::compressed_tensors(3)
            .unwrap()
            .pack(&codes, 16)
            .unwrap();
        let word = |i: usize| i32::from_le_bytes(packed[4 * i..4 * i + 4].try_into().unwrap());
        assert_eq!([word(0), word(1)], [-1_996_831_096, 64_198]);
    }

    #[test]
    fn nibbles_lie_low_first_as_in_onnx() {
        let signed = Packing::onnx(4, true).unwrap();
        assert_eq!(signed.pack(&[1_i8, -8, 7], 3).unwrap(), [0x81, 0x07]);
        let unsigned = Packing::onnx(2, false).unwrap();
        assert_eq!(
            unsigned.pack(&[1_u8, 2, 3, 0, 2], 5).unwrap(),
            [0b0011_1001, 0b10]
        );
    }

    #[test]
    fn what_cannot_be_packed_is_refused() {
        for bits in [0, 9, 32] {
            assert!(matches!(
                Packing::onnx(bits, true),
                Err(Error::PackedBits { .. })
            ));
        }
        let packing = Packing::onnx(4, true).unwrap();
        let error = packing.pack(&[0_i32, 7, 8], 3).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the code at index [2] is 8, expected -8..=7"
        );
        assert!(matches!(
            packing.pack(&[0_i8; 3], 2),
            Err(Error::PackedRows { .. })
        ));
        assert!(matches!(
            packing.unpack::<i8>(&[0; 3], 2, 4),
            Err(Error::PackedLength { .. })
        ));
        assert!(matches!(
            packing.unpack::<u8>(&[0; 2], 1, 4),
            Err(Error::Dtype { .. })
        ));
        assert!(packing.pack::<i8>(&[], 0).unwrap().is_empty());
        // As many rows as there are numbers, in no time.
        let none = Packing::onnx(8, false).unwrap();
        for (rows, row) in [(usize::MAX, 0), (0, usize::MAX)] {
            assert!(none.unpack::<u8>(&[], rows, row).unwrap().is_empty());
        }
        let words = Packing::compressed_tensors(8).unwrap();
        assert!(words.pack::<i8>(&[], usize::MAX).unwrap().is_empty());
        assert!(matches!(
            words.unpack::<i8>(&[], 1, usize::MAX),
            Err(Error::PackedLength { .. })
        ));
    }
}
