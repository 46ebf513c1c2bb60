//! The accumulator of an emulated product.

use crate::{Error, Result};

/// What becomes of a sum that an accumulator does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Overflow {
    /// The low b bits of the sum are kept, in two's complement.
    Wrap,
    /// The sum becomes the smallest or the largest number that the accumulator holds.
    Saturate,
    /// The sum is an error that says where, [`Error::AccumulatorOverflow`].
    Report,
}

/// An accumulator of b bits, which holds −2^(b−1)..=2^(b−1) − 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accumulator {
    bits: u32,
    overflow: Overflow,
}

impl Accumulator {
    /// An accumulator of 2 to 32 bits; hardware has 16, 24 or 32.
    ///
    /// # Errors
    /// [`Error::AccumulatorBits`] for another width.
    pub fn new(bits: u32, overflow: Overflow) -> Result<Self> {
        match bits {
            2..=32 => Ok(Self { bits, overflow }),
            _ => Err(Error::AccumulatorBits { bits }),
        }
    }

    /// The number of bits of the accumulator.
    pub fn bits(self) -> u32 {
        self.bits
    }

    /// What becomes of a sum that the accumulator does not hold.
    pub fn overflow(self) -> Overflow {
        self.overflow
    }

    /// ⟦sum⟧ for an accumulator that wraps around.
    #[inline(always)]
    pub(super) fn wrap(self, sum: i64) -> i64 {
        let unused = 64 - self.bits;
        sum << unused >> unused
    }

    /// ⟦sum⟧ for an accumulator that saturates.
    #[inline(always)]
    pub(super) fn saturate(self, sum: i64) -> i64 {
        let half = 1_i64 << (self.bits - 1);
        sum.clamp(-half, half - 1)
    }

    /// Whether it holds this number.
    #[inline(always)]
    pub(super) fn holds(self, sum: i64) -> bool {
        self.wrap(sum) == sum
    }
}
