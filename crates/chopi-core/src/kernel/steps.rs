//! The steps from an element to its code.

/// How an element x becomes its code, before the clamp to [qmin, qmax]: the combinations of scaling and
/// of adding the zero point that exist. s is the scale, z the zero point, and round(…) goes to an
/// integer, by the rounding of the scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steps {
    /// round(x/s + z): the quotient is rounded, the sum is exact.
    DivideExact,
    /// round(x/s + z): the quotient and the sum are each rounded to the type of the computation.
    DivideRounded,
    /// round(x/s) + z.
    DivideAfter,
    /// round(x·(1/s) + z): reciprocal, product and sum are each rounded to the type of the computation.
    MultiplyRounded,
    /// round(x·(1/s)) + z: reciprocal and product are each rounded.
    MultiplyAfter,
    /// round(x·(1/s) + z): the reciprocal is rounded, and product and sum are rounded once together, as a
    /// fused multiply-add does.
    Fused,
}

/// Where the zero point is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sum {
    /// Before the rounding to an integer, exactly.
    Exact,
    /// Before the rounding to an integer; the sum is rounded to the type of the computation.
    Rounded,
    /// Before the rounding to an integer; product and sum are rounded once together.
    Fused,
    /// After the rounding to an integer.
    After,
}

impl Steps {
    /// Whether x is multiplied by 1/s, not divided by s.
    pub const fn multiplies(self) -> bool {
        matches!(
            self,
            Self::MultiplyRounded | Self::MultiplyAfter | Self::Fused
        )
    }

    /// Where the zero point is added.
    pub const fn sum(self) -> Sum {
        match self {
            Self::DivideExact => Sum::Exact,
            Self::DivideRounded | Self::MultiplyRounded => Sum::Rounded,
            Self::DivideAfter | Self::MultiplyAfter => Sum::After,
            Self::Fused => Sum::Fused,
        }
    }
}

impl Sum {
    /// Whether the zero point is in the number already when it is clamped.
    pub const fn before_clamp(self) -> bool {
        matches!(self, Self::Rounded | Self::Fused)
    }
}
