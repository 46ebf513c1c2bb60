//! The numeric choices on which quantization libraries differ.

use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::scheme::{Granularity, Rounding, Symmetry};

/// Every numeric choice on which libraries differ, as plain data.
///
/// A named constant is one library at one version. Notation: b bits, codes in [qmin, qmax], scale
/// s, zero point z, RNE is rounding to nearest with ties to even.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Convention {
    /// The name that the program and [`Convention::from_name`] know it by.
    pub name: Cow<'static, str>,
    /// The integer range of an asymmetric scheme that asks for none.
    pub asymmetric_range: DefaultRange,
    /// The integer range of a symmetric scheme that asks for none.
    pub symmetric_range: DefaultRange,
    /// The type that parameters are computed in, each operation rounded to it.
    pub parameter_arithmetic: Arithmetic,
    /// The scale of a symmetric scheme.
    pub symmetric_scale: SymmetricScale,
    /// What keeps the scale away from zero.
    pub scale_floor: ScaleFloor,
    /// What becomes of a group whose elements are all equal.
    pub constant_group: ConstantGroup,
    /// The zero point of an asymmetric scheme.
    pub zero_point: ZeroPointRule,
    /// The type that x/s + z is computed in.
    pub arithmetic: Arithmetic,
    /// How x is divided by s.
    pub scaling: Scaling,
    /// Where the zero point is added.
    pub zero_point_add: ZeroPointAdd,
    /// The rounding of a scheme that asks for none.
    pub rounding: Rounding,
    /// Per-channel schemes of tensors of fewer dimensions than this are per tensor.
    pub per_channel_min_rank: usize,
}

/// An integer range that follows from the number of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum DefaultRange {
    /// [0, 2^b − 1].
    Unsigned,
    /// [0, 2^(b−1) − 1]: b − 1 bits.
    UnsignedHalf,
    /// [−2^(b−1), 2^(b−1) − 1].
    Signed,
    /// [−2^(b−1) + 1, 2^(b−1) − 1].
    Narrow,
}

impl DefaultRange {
    pub(crate) fn bounds(self, bits: u32) -> (i64, i64) {
        let half = 1_i64 << (bits - 1);
        match self {
            Self::Unsigned => (0, 2 * half - 1),
            Self::UnsignedHalf => (0, half - 1),
            Self::Signed => (-half, half - 1),
            Self::Narrow => (1 - half, half - 1),
        }
    }
}

/// The type that a computation is done in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Arithmetic {
    /// `f64`.
    F64,
    /// `f64` for `f64` tensors, else `f32`; halves are widened.
    Compute,
    /// The tensor's element type, halves included.
    Element,
}

/// The scale of a symmetric scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum SymmetricScale {
    /// max(|min|, |max|) / qmax.
    AbsMaxOverQmax,
    /// (max − min) / (qmax − qmin), which clips data that are not centred on zero.
    SpanOverSpan,
}

/// What keeps the scale away from zero.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum ScaleFloor {
    /// s is at least the compute type's smallest normal number, and asymmetric at least
    /// max(|min|, |max|)·2^−24 (2^−30 for `f64`), so that x/s and z stay small.
    Relative,
    /// max − min is at least this.
    Span(f64),
}

/// What becomes of a group whose elements are all equal to c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum ConstantGroup {
    /// It comes back exactly: s = |c|, or 1 where c = 0, and a zero point to match.
    Exact,
    /// The formulas hold for it as for any other.
    Ordinary,
}

/// The zero point of an asymmetric scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum ZeroPointRule {
    /// RNE(qmin − min/s), any integer.
    Rounded,
    /// The same, where it is a 32-bit integer; otherwise an error.
    RoundedI32,
}

/// How x is divided by s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Scaling {
    /// x/s, rounded once.
    Divide,
    /// x·inv with inv = 1/s rounded: two roundings.
    Reciprocal,
}

/// Where the zero point is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum ZeroPointAdd {
    /// Before the rounding to an integer; the sum is exact.
    Exact,
    /// Before the rounding to an integer; the sum is rounded to `f64`.
    InF64,
    /// Before the rounding to an integer; the sum is rounded to the type of the arithmetic.
    Rounded,
    /// After the rounding to an integer.
    AfterRounding,
}

impl Convention {
    /// chopi's own numbers, the default.
    ///
    /// 1. Range: symmetric [−2^(b−1), 2^(b−1) − 1] with z = 0; asymmetric [0, 2^b − 1].
    /// 2. Statistics: the exact min and max of each group; NaN or ±∞ is an error.
    /// 3. Parameters, in `f64`. Symmetric: s = max(|min|, |max|)/qmax. Asymmetric:
    ///    s = (max − min)/(qmax − qmin), at least max(|min|, |max|)·2^−24 (2^−30 for `f64`
    ///    tensors), and z = RNE(qmin − min/s). In both s is at least the compute type's smallest
    ///    normal number, z comes from that s, and then s is rounded to the compute type, once.
    /// 4. A constant group (min = max = c) comes back exactly. c = 0 gives s = 1 and
    ///    z = clamp(0, qmin, qmax); otherwise s = |c| and z = clamp(g, qmin, qmax) − g with g the
    ///    sign of c. (A symmetric scheme keeps z = 0 even where that clips: an unsigned symmetric
    ///    range has no code for a negative c.)
    /// 5. Quantize: q = clamp(RNE(x/s + z), qmin, qmax). The quotient is rounded once, to the
    ///    compute type; the sum is exact. ±∞ saturates; NaN is an error, or z.
    /// 6. Dequantize: x̂ = (q − z)·s. The difference is exact; the product is rounded once to the
    ///    compute type, and for `f16` and `bf16` then to the element type.
    /// 7. Fake-quantize equals dequantize(quantize(x)) bit for bit, except that NaN stays NaN.
    ///
    /// The compute type is `f64` for `f64` tensors, else `f32`.
    pub const CHOPI: Self = Self {
        name: Cow::Borrowed("chopi"),
        asymmetric_range: DefaultRange::Unsigned,
        symmetric_range: DefaultRange::Signed,
        parameter_arithmetic: Arithmetic::F64,
        symmetric_scale: SymmetricScale::AbsMaxOverQmax,
        scale_floor: ScaleFloor::Relative,
        constant_group: ConstantGroup::Exact,
        zero_point: ZeroPointRule::Rounded,
        arithmetic: Arithmetic::Compute,
        scaling: Scaling::Divide,
        zero_point_add: ZeroPointAdd::Exact,
        rounding: Rounding::NearestEven,
        per_channel_min_rank: 0,
    };

    /// pychop 0.6.2 with its NumPy backend (`pychop/np/integer.py`), under NumPy 2.
    ///
    /// Range: symmetric [−2^(b−1), 2^(b−1) − 1]; asymmetric [0, 2^(b−1) − 1], which uses b − 1
    /// bits. Parameters, in the input's type: s = max(max − min, 10⁻⁵)/(qmax − qmin), for a
    /// symmetric scheme too (so data that are not centred on zero are clipped);
    /// z = RNE(qmin − min/s) as a 32-bit integer, 0 for a symmetric scheme. Quantize:
    /// clamp(RNE(x/s + z)), the quotient in the input's type, the sum in `f64`. Dequantize:
    /// (q − z)·s. A per-channel scheme is per tensor for arrays of one dimension or none.
    ///
    /// Where pychop warns and goes on, chopi refuses: a zero point that does not fit `i32` (an
    /// offset over 2^31 steps; pychop's cast gives what the CPU makes of it), a range that
    /// overflows the input's type (pychop's scale becomes infinite and its result NaN), NaN and
    /// infinities in the calibration data. Where pychop returns `f64` from `dequantize` for `f32`
    /// data (NumPy's promotion of `int32 * float32`), chopi returns that product rounded to `f32`.
    /// Where q − z is beyond `i32` (z within 2^15 of −2^31), pychop's 8-bit and 16-bit codes wrap
    /// around in it; chopi's difference is exact.
    /// pychop treats a negative axis as "per tensor"; chopi counts it from the end.
    pub const PYCHOP: Self = Self {
        name: Cow::Borrowed("pychop"),
        asymmetric_range: DefaultRange::UnsignedHalf,
        symmetric_range: DefaultRange::Signed,
        parameter_arithmetic: Arithmetic::Element,
        symmetric_scale: SymmetricScale::SpanOverSpan,
        scale_floor: ScaleFloor::Span(1e-5),
        constant_group: ConstantGroup::Ordinary,
        zero_point: ZeroPointRule::RoundedI32,
        arithmetic: Arithmetic::Element,
        scaling: Scaling::Divide,
        zero_point_add: ZeroPointAdd::InF64,
        rounding: Rounding::NearestEven,
        per_channel_min_rank: 2,
    };

    /// All named conventions.
    pub const ALL: &'static [Self] = &[Self::CHOPI, Self::PYCHOP];

    /// The named convention of this name.
    ///
    /// # Errors
    /// [`Error::UnknownConvention`], with the names that there are.
    pub fn from_name(name: &str) -> Result<Self> {
        Self::ALL
            .iter()
            .find(|c| c.name == name)
            .cloned()
            .ok_or_else(|| {
                let names: Vec<&str> = Self::ALL.iter().map(|c| &*c.name).collect();
                Error::UnknownConvention {
                    name: name.to_owned(),
                    expected: names.join(", "),
                }
            })
    }

    /// The granularity that a scheme of this granularity has on a tensor of this rank: per tensor
    /// instead of per channel below [`per_channel_min_rank`](Self::per_channel_min_rank).
    pub fn granularity_for(&self, granularity: Granularity, rank: usize) -> Granularity {
        match granularity {
            Granularity::PerChannel { .. } if rank < self.per_channel_min_rank => {
                Granularity::PerTensor
            }
            other => other,
        }
    }

    /// (qmin, qmax) where the scheme asks for no range.
    pub(crate) fn default_range(&self, bits: u32, symmetry: Symmetry) -> (i64, i64) {
        match symmetry {
            Symmetry::Asymmetric => self.asymmetric_range.bounds(bits),
            Symmetry::Symmetric => self.symmetric_range.bounds(bits),
        }
    }
}

impl Default for Convention {
    fn default() -> Self {
        Self::CHOPI
    }
}
