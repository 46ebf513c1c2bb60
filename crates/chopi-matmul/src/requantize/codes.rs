//! The codes that are the output: their type, zero point and bounds.

use std::fmt;

use crate::{CodeSlice, Error, Result};

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for i8 {}
}

/// The element type of 8-bit codes: `u8` or `i8`.
pub trait Code:
    sealed::Sealed + Copy + Default + Ord + fmt::Debug + Send + Sync + Into<i32> + 'static
{
    /// The smallest code.
    const MIN: Self;
    /// The largest code.
    const MAX: Self;

    /// A slice with its type as a value.
    fn codes(codes: &[Self]) -> CodeSlice<'_>;

    /// The code of this value, which must be one.
    #[doc(hidden)]
    fn from_low_bits(value: i32) -> Self;
}

macro_rules! impl_code {
    ($($t:ident),*) => {$(
        impl Code for $t {
            const MIN: Self = $t::MIN;
            const MAX: Self = $t::MAX;

            fn codes(codes: &[Self]) -> CodeSlice<'_> {
                codes.into()
            }

            #[inline(always)]
            fn from_low_bits(value: i32) -> Self {
                value as Self
            }
        }
    )*};
}

impl_code!(u8, i8);

/// Which codes an accumulator becomes: the zero point z, and the bounds qmin and qmax.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputCodes<Q> {
    zero_point: Q,
    min: Q,
    max: Q,
}

impl<Q: Code> OutputCodes<Q> {
    /// All codes of the type, with this zero point.
    pub fn new(zero_point: Q) -> Self {
        Self {
            zero_point,
            min: Q::MIN,
            max: Q::MAX,
        }
    }

    /// The codes within \[min, max\] alone, which is a clamp fused with the requantization: \[z, qmax\] for
    /// a ReLU.
    ///
    /// # Errors
    /// [`Error::CodeBounds`] where `min` is above `max`.
    pub fn clamped(self, min: Q, max: Q) -> Result<Self> {
        if min > max {
            return Err(Error::CodeBounds {
                min: min.into(),
                max: max.into(),
            });
        }
        Ok(Self { min, max, ..self })
    }

    /// The code of 0.
    pub fn zero_point(self) -> Q {
        self.zero_point
    }

    /// The smallest and the largest code.
    pub fn bounds(self) -> (Q, Q) {
        (self.min, self.max)
    }

    /// qmin − z and qmax − z: what a rounded product is clamped to, so that adding z cannot overflow.
    #[inline(always)]
    pub(super) fn range(self) -> (i32, i32) {
        let zero: i32 = self.zero_point.into();
        (self.min.into() - zero, self.max.into() - zero)
    }

    /// The code of a rounded product within the [range](Self::range).
    #[inline(always)]
    pub(super) fn at(self, clamped: i32) -> Q {
        Q::from_low_bits(clamped + self.zero_point.into())
    }
}
