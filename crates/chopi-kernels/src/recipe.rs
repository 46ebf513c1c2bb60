//! What is done with an element, but for the numbers of its group.

/// The steps from an element x to the number that is rounded to its code, with scale s and zero
/// point z.
///
/// These are the combinations that quantization libraries have. A rounded operation ends with a
/// rounding to the compute type: `f64` for `f64` data, else `f32`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Steps {
    /// round(x/s + z): the quotient is rounded, the sum exact.
    DivideExact,
    /// round(x/s + z): the quotient and the sum are rounded.
    DivideRounded,
    /// round(x/s) + z: the zero point is added after the rounding to an integer.
    DivideAfter,
    /// round(x·r + z), r = 1/s: the product and the sum are rounded.
    MultiplyRounded,
    /// round(x·r) + z, r = 1/s: the zero point is added after the rounding to an integer.
    MultiplyAfter,
    /// round(x·r + z), r = 1/s: the product and the sum are rounded together, by a fused multiply-add.
    Fused,
}

impl Steps {
    /// Whether x is multiplied by the reciprocal of the scale, not divided by the scale.
    #[inline(always)]
    pub fn multiplies(self) -> bool {
        matches!(
            self,
            Self::MultiplyRounded | Self::MultiplyAfter | Self::Fused
        )
    }

    /// Whether the zero point is part of the number before that is clamped, since the sum is rounded.
    #[inline(always)]
    pub fn rounds_sum(self) -> bool {
        matches!(
            self,
            Self::DivideRounded | Self::MultiplyRounded | Self::Fused
        )
    }

    /// Whether the zero point is added after the rounding to an integer.
    #[inline(always)]
    pub fn adds_after(self) -> bool {
        matches!(self, Self::DivideAfter | Self::MultiplyAfter)
    }
}

/// How x/s becomes an integer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Rounding {
    /// To the nearest integer, ties to the even one.
    #[default]
    NearestEven,
    /// To the nearest integer, ties away from zero.
    NearestAway,
    /// Toward zero.
    TowardZero,
    /// Down, toward −∞.
    Floor,
    /// Up, toward +∞.
    Ceiling,
    /// Up with a probability equal to the fraction, so that the mean of the codes is x/s.
    ///
    /// The element at row-major index i goes up where its fraction is greater than
    /// u = ⌊h / 2^8⌋ · 2^−24, h a 32-bit hash of i modulo 2^32. With k the first output of the
    /// SplitMix64 generator (Steele, Lea, Flood 2014) of this seed, k₀ its low half and k₁ its high
    /// half, all modulo 2^32:
    ///
    /// ```text
    /// h = i ^ k₀;  h = ((h ^ h>>16) · 0x21f0aaad) ^ k₁;  h = (h ^ h>>15) · 0xd35a2d97;  h = h ^ h>>15
    /// ```
    ///
    /// (the finalizer `lowbias32` of Wellons' hash-prospector, keyed twice). So the result depends
    /// on the seed and on nothing else: not on the backend, the threads or the CPU.
    Stochastic {
        /// The seed.
        seed: u64,
    },
}

/// What is done with an element, but for the numbers of its group. Every combination has a meaning, as
/// long as qmin ≤ qmax.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Recipe {
    /// From the element to the number that is rounded.
    pub steps: Steps,
    /// From that number to the code.
    pub rounding: Rounding,
    /// Whether each operation on `f16` and `bf16` data is rounded to their type, not to `f32` alone.
    pub native: bool,
    /// Whether (q − z)·s is rounded to `f32` for `f64` data.
    pub narrow_product: bool,
    /// Whether fake-quantize takes NaN for less than any number; else NaN stays NaN.
    pub nan_is_smallest: bool,
    /// The smallest code.
    pub qmin: i64,
    /// The largest code.
    pub qmax: i64,
}

impl Recipe {
    /// Whether q − z is rounded to the element type, `f16` or `bf16`: where the sum with z is.
    #[inline(always)]
    pub fn has_native_difference(&self) -> bool {
        self.native && self.steps.rounds_sum()
    }

    /// Whether (q − z)·s is rounded once, however far away z is; else q − z is rounded too.
    #[inline(always)]
    pub fn has_exact_difference(&self) -> bool {
        !matches!(self.steps, Steps::DivideRounded | Steps::MultiplyRounded)
    }

    /// Whether the codes and the zero points are at most `limit` in magnitude: with
    /// [`MAGIC_LIMIT`](crate::Compute::MAGIC_LIMIT), the arithmetic of a compute type is exact on them and
    /// their differences.
    #[inline]
    pub fn fits(&self, limit: i64, mut zero_points: impl Iterator<Item = f64>) -> bool {
        // Not `abs`, which i64::MIN does not have.
        let small = |n: i64| (-limit..=limit).contains(&n);
        let in_floats = limit as f64;
        small(self.qmin) && small(self.qmax) && zero_points.all(|z| z.abs() <= in_floats)
    }
}
