//! What a library decides: a convention is one implementation of [`Library`].

use std::panic::RefUnwindSafe;

use crate::convention::group::{Group, ScaleZero};
use crate::convention::support::Groups;
use crate::error::Result;
use crate::scheme::{Rounding, Scheme, Symmetry};
use chopi_kernels::FloatType;
use chopi_kernels::Steps;

/// All numbers of bits that a scheme can have.
const ALL_BITS: &[u32] = &[
    2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27,
    28, 29, 30, 31, 32,
];

/// The choices of one library. The default methods are what most libraries have.
pub(crate) trait Library: RefUnwindSafe + Sync {
    /// The name that a convention is saved and found under.
    fn name(&self) -> &'static str;

    // What there is; everything else is refused.

    /// The element types of the tensors that it quantizes.
    fn float_types(&self) -> &'static [FloatType];

    /// The numbers of bits, in ascending order.
    fn bits(&self) -> &'static [u32] {
        ALL_BITS
    }

    /// Whether there are only symmetric schemes of so many bits.
    fn is_symmetric_only(&self, _bits: u32) -> bool {
        false
    }

    /// (qmin, qmax) of a scheme that asks for no range.
    fn default_range(&self, bits: u32, symmetry: Symmetry) -> (i64, i64);

    /// Which integer ranges there are besides the default ones.
    fn other_ranges(&self) -> OtherRanges {
        OtherRanges::None
    }

    /// The rounding of a scheme that asks for none.
    fn default_rounding(&self) -> Rounding {
        Rounding::NearestEven
    }

    /// Whether there are other roundings than the default one.
    fn has_other_roundings(&self) -> bool {
        false
    }

    /// Whether there are per-group schemes.
    fn groups(&self) -> Groups {
        Groups::None
    }

    /// Per-channel schemes of tensors of fewer dimensions than this are per tensor.
    fn per_channel_min_rank(&self) -> usize {
        0
    }

    // Scale and zero point.

    /// The scale and the zero point of a group.
    ///
    /// # Errors
    /// [`Error::Scale`](crate::Error::Scale) and [`Error::ZeroPoint`](crate::Error::ZeroPoint) where
    /// there are none.
    fn parameters(&self, group: Group<'_>) -> Result<ScaleZero>;

    /// The zero point of every group of a symmetric scheme.
    fn symmetric_zero_point(&self, _scheme: &Scheme) -> i64 {
        0
    }

    /// Whether every zero point is one of the codes, an integer in [qmin, qmax].
    fn has_zero_points_in_range(&self) -> bool {
        true
    }

    /// Whether the zero points of asymmetric schemes are real numbers.
    fn has_real_zero_points(&self) -> bool {
        false
    }

    /// The type of the scales for data of type `float`.
    fn scale_type(&self, float: FloatType) -> FloatType {
        float.compute()
    }

    // Codes and values.

    /// How x becomes a code.
    fn steps(&self, scheme: &Scheme, float: FloatType) -> Steps;

    /// 1/s, for steps that multiply by it.
    fn reciprocal(&self, float: FloatType, scale: f64) -> f64 {
        float.compute().round(1.0 / scale)
    }

    /// Whether the result of each operation is rounded to the element type, for halves too; else to the
    /// compute type.
    fn computes_in_element_type(&self) -> bool {
        false
    }

    /// Whether (q − z)·s is rounded to `f32`, for `f64` data too.
    fn has_f32_values(&self, _scheme: &Scheme) -> bool {
        false
    }

    /// Whether fake-quantize takes NaN for less than any number; else NaN stays NaN.
    fn nan_is_smallest(&self) -> bool {
        false
    }

    /// Whether the gradients of learned scales and zero points are PyTorch's; else they are those of the
    /// formulas.
    fn has_torch_gradients(&self) -> bool {
        false
    }
}

/// Which integer ranges a library has besides the default ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OtherRanges {
    None,
    /// The ranges of the full width, signed and unsigned, whatever the symmetry.
    FullWidth,
    Any,
}

/// [0, 2^b − 1].
pub(crate) fn unsigned(bits: u32) -> (i64, i64) {
    (0, (1 << bits) - 1)
}

/// [−2^(b−1), 2^(b−1) − 1].
pub(crate) fn signed(bits: u32) -> (i64, i64) {
    let half = 1 << (bits - 1);
    (-half, half - 1)
}

/// [−2^(b−1) + 1, 2^(b−1) − 1].
pub(crate) fn narrow(bits: u32) -> (i64, i64) {
    let half = 1 << (bits - 1);
    (1 - half, half - 1)
}
