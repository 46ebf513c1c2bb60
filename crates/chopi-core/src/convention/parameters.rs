//! How scale and zero point come from the range of the data.

use super::Arithmetic;

/// How scale and zero point come from the range [min, max] of a group.
///
/// r(…) is rounding to the type of [`arithmetic`](Self::arithmetic), which each operation ends with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Parameters {
    /// The type that parameters are computed in.
    pub arithmetic: Arithmetic,
    /// The type that s is rounded to in the end, and at least to the compute type.
    pub scale_type: Arithmetic,
    /// Whether the range is extended to hold 0.0, whatever the scheme says.
    pub always_include_zero: bool,
    /// The scale of a symmetric scheme.
    pub symmetric_scale: SymmetricScale,
    /// The zero point of a symmetric scheme.
    pub symmetric_zero: SymmetricZero,
    /// How a span is divided by the number of steps.
    pub span_division: SpanDivision,
    /// What keeps the scale away from zero.
    pub scale_floor: ScaleFloor,
    /// What becomes of a group whose elements are all equal.
    pub constant_group: ConstantGroup,
    /// The zero point of an asymmetric scheme.
    pub zero_point: ZeroPointRule,
}

/// The scale of a symmetric scheme, a = max(|min|, |max|).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymmetricScale {
    /// a / qmax.
    AbsMaxOverQmax,
    /// a / ((qmax − qmin)/2): 127.5 for a full 8-bit range, 127 for a narrow one.
    AbsMaxOverHalfSpan,
    /// a / qmax for signed ranges of 8 bits or more, a / ((qmax − qmin)/2) for others.
    AbsMaxOverQmaxFrom8Bits,
    /// a · r(1/(2^(b−1) − ½)).
    AbsMaxTimesInverse,
    /// (max − min) / (qmax − qmin), which clips data that are not centred on zero.
    SpanOverSpan,
}

/// The zero point of a symmetric scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SymmetricZero {
    /// 0.
    Zero,
    /// RNE((qmin + qmax)/2) of an unsigned range, 0 of a signed one.
    Middle,
    /// ⌊(qmin + qmax)/2⌋ of an unsigned range, but 128 of [0, 255] and 32768 of [0, 65535]; 0 of a
    /// signed one.
    MiddleDown,
}

/// How the span max − min is divided by the number of steps n = qmax − qmin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SpanDivision {
    /// r(span / r(n)).
    Divide,
    /// The same per tensor; r(span · inv) per channel, inv = 1/r(n) rounded to `f16` for `f16`
    /// tensors, else to `f32`.
    ReciprocalPerChannel,
}

/// What keeps the scale away from zero.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ScaleFloor {
    /// s is at least the compute type's smallest normal number, and asymmetric at least
    /// max(|min|, |max|)·2^−24 (2^−30 for `f64`), so that x/s and z stay small.
    Relative,
    /// max − min is at least this.
    Span(f64),
    /// s is at least this.
    Scale(f64),
    /// s = 0 becomes the element type's machine epsilon, after z is computed from s = 0.
    EpsilonForZero,
    /// s = 1 and z = 0 where s is less than the element type's smallest normal number.
    OneForSubnormal,
    /// s = 1 and z = 0 where min = max = 0.
    OneForZero,
    /// max − min is at least this for an asymmetric scheme; symmetric, s = 1 where the data are all
    /// zero.
    SpanOrOne(f64),
    /// max(|min|, |max|) counts as 1 where it is 0, or subnormal in `f32`; a scale that is subnormal
    /// in `f32` is refused. (`f16` has no number so small but 0.)
    AbsMaxOne,
}

/// What becomes of a group whose elements are all equal to c.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConstantGroup {
    /// It comes back exactly: s = |c|, or 1 where c = 0, and a zero point to match.
    Exact,
    /// The formulas hold for it as for any other.
    Ordinary,
}

/// The zero point of an asymmetric scheme.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroPointRule {
    /// RNE(r(qmin − r(min/s))), any integer.
    Rounded,
    /// The same, where it is a 32-bit integer; otherwise an error.
    RoundedI32,
    /// The same, clamped to 32-bit integers.
    RoundedSaturatingI32,
    /// RNE(clamp(r(qmin − r(min/s)), qmin, qmax)).
    ClampedThenRounded,
    /// clamp(qmin − RNE(r(min/s)), qmin, qmax).
    QuotientRounded,
    /// clamp(round half away(r(qmin − r(min/s))), qmin, qmax).
    RoundedAway,
    /// r(qmin − r(min/s)) as it is, not an integer.
    Real,
}
