//! The numeric choices on which quantization libraries differ.

mod named;
mod parameters;
mod support;

pub use parameters::{
    ConstantGroup, Parameters, ScaleFloor, SpanDivision, SymmetricScale, SymmetricZero,
    ZeroPointRule,
};
pub use support::{Groups, Support, ZeroPoints};

use crate::dtype::FloatType;
use crate::error::Error;
use crate::scheme::{Granularity, Rounding, Symmetry};

/// Every numeric choice on which libraries differ, as plain data.
///
/// A named constant is one library at one version. Notation: b bits, codes in [qmin, qmax], scale
/// s, zero point z, RNE is rounding to nearest with ties to even. The *compute type* is `f64` for
/// `f64` tensors, else `f32`; dt is the tensor's element type.
///
/// NaN and ±∞: [`NanPolicy`](crate::NanPolicy) says what chopi makes of them. Few libraries have a
/// result that does not depend on which of their paths runs:
///
/// | library | NaN in quantize | NaN in fake-quantize | ±∞ | either in calibration |
/// |---|---|---|---|---|
/// | pychop, NumPy and PyTorch | 0 or −2^63, by the width: a C cast without a defined result | the same | saturates | s is NaN or ∞ |
/// | pychop, JAX | 0, whatever z is; XLA leaves it open | none | saturates | the same |
/// | PyTorch, quantize | qmax per tensor, 0 per channel, 0 without AVX2 | none | saturates | the same |
/// | PyTorch, fake-quantize | none | the value of qmin | saturates; per channel +∞ becomes qmin | the same |
/// | ONNX Runtime | qmin, or qmax where z < 0, by the kernel | none | saturates, or wraps, by the kernel | an assertion fails, or s is NaN or ∞ |
/// | compressed-tensors | 0: a C cast without a defined result | NaN | saturates | s is NaN or ∞ |
/// | TFLite | qmin, qmax or wrapped, by the kernel | none | saturates, or wraps, by the kernel | the same |
/// | AQT | 0 = z; XLA leaves it open | 0 | saturates | s is NaN or ∞ |
///
/// So infinities saturate, as they do on at least one path of each; NaN in fake-quantize is that of PyTorch and of
/// compressed-tensors in their conventions; every other cell is chopi's policy.
///
/// With the feature `serde` a convention is saved as its name.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Convention {
    /// The name that the program and [`Convention::from_name`] know it by.
    pub name: &'static str,
    /// What the library has at all; everything else is refused.
    pub support: Support,
    /// The integer range of an asymmetric scheme that asks for none.
    pub asymmetric_range: DefaultRange,
    /// The integer range of a symmetric scheme that asks for none.
    pub symmetric_range: DefaultRange,
    /// How scale and zero point come from the range of the data.
    pub parameters: Parameters,
    /// The same for asymmetric [0, 255] and `f32` data, where the library has another way for them.
    pub parameters_u8: Option<Parameters>,
    /// The type that codes and values are computed in, each operation rounded to it.
    pub arithmetic: Arithmetic,
    /// How x is divided by s.
    pub scaling: Scaling,
    /// Where the zero point is added.
    pub zero_point_add: ZeroPointAdd,
    /// The same for per-channel and per-group schemes.
    pub zero_point_add_grouped: ZeroPointAdd,
    /// The type that (q − z)·s is rounded to, before the element type.
    pub value: Arithmetic,
    /// The same for per-channel and per-group schemes.
    pub value_grouped: Arithmetic,
    /// What fake-quantize makes of NaN.
    pub fake_quantized_nan: FakeQuantizedNan,
    /// The rounding of a scheme that asks for none.
    pub rounding: Rounding,
    /// How the gradients of learned scales and zero points are taken.
    pub learned_gradient: LearnedGradient,
    /// Per-channel schemes of tensors of fewer dimensions than this are per tensor.
    pub per_channel_min_rank: usize,
}

/// An integer range that follows from the number of bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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
pub enum Arithmetic {
    /// `f64`.
    F64,
    /// `f32`, for `f64` tensors too.
    F32,
    /// `f64` for `f64` tensors, else `f32`; halves are widened.
    Compute,
    /// The tensor's element type, halves included.
    Element,
}

/// How the gradients of learned scales and zero points are taken; both stand at
/// [`LearnedParams`](crate::training::LearnedParams).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LearnedGradient {
    /// By their formula, each element's derivative rounded once and the sum in `f64`.
    Exact,
    /// As PyTorch's learnable fake quantization takes them.
    Torch,
}

impl Arithmetic {
    /// The type for tensors of type `float`.
    pub(crate) fn of(self, float: FloatType) -> FloatType {
        match self {
            Self::F64 => FloatType::F64,
            Self::F32 => FloatType::F32,
            Self::Compute => float.compute(),
            Self::Element => float,
        }
    }
}

/// What fake-quantize makes of NaN; what quantize does, [`NanPolicy`](crate::NanPolicy) says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FakeQuantizedNan {
    /// NaN.
    NaN,
    /// The value of qmin.
    Smallest,
}

/// How x is divided by s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scaling {
    /// x/s, rounded once.
    Divide,
    /// x·inv with inv = 1/s rounded: two roundings.
    Reciprocal,
    /// Likewise, with inv rounded to `f16` for `f16` tensors, else to the compute type.
    ReciprocalOfF16,
    /// Likewise, with inv rounded to `f32`, for `f64` tensors too.
    ReciprocalOfF32,
    /// Likewise, with inv rounded to the element type.
    ReciprocalOfElement,
}

/// Where the zero point is added.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroPointAdd {
    /// Before the rounding to an integer; the sum is exact.
    Exact,
    /// Before the rounding to an integer; the sum is rounded to `f64`, and q − z is exact.
    InF64,
    /// Before the rounding to an integer; the sum is rounded to the type of the arithmetic, and so
    /// is q − z.
    Rounded,
    /// Before the rounding to an integer; product and sum are rounded once together, as a fused
    /// multiply-add does. Only with [`Scaling::Reciprocal`].
    Fused,
    /// After the rounding to an integer.
    AfterRounding,
}

impl Convention {
    /// The named convention of this name.
    ///
    /// # Errors
    /// [`Error::UnknownConvention`], with the names that there are.
    pub fn from_name(name: &str) -> crate::Result<Self> {
        let named = Self::ALL.iter().find(|convention| convention.name == name);
        named.copied().ok_or_else(|| {
            let names: Vec<&str> = Self::ALL.iter().map(|c| c.name).collect();
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

#[cfg(feature = "serde")]
impl serde::Serialize for Convention {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name)
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Convention {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name).map_err(serde::de::Error::custom)
    }
}

impl Default for Convention {
    fn default() -> Self {
        Self::CHOPI
    }
}
