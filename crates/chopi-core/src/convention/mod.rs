//! Whose numbers are computed: a library, at one version.
//!
//! A convention is a file of its own: the definition in words, and under it the lines that compute the
//! parameters of a group and say how kernels go on from there. To add one is to add a file with an
//! implementation of `Library` and a line in [`Convention::ALL`].

mod aqt;
mod chopi;
mod compressed_tensors;
mod group;
mod library;
mod onnx;
mod pychop;
mod support;
mod tflite;
mod torch;

use std::fmt;

use group::Group;
pub(crate) use group::ScaleZero;
pub(crate) use library::Library;
pub use support::{Groups, ZeroPoints};

use crate::error::{Error, Result};
use crate::scheme::{Granularity, Rounding, Scheme, Symmetry, Zero};
use chopi_kernels::FloatType;

/// Whose numbers to compute: those of one library, at one version.
///
/// A convention is one of the constants below, whose documentation defines its numbers.
///
/// ```
/// # use chopi_core as chopi;
/// use chopi::{Convention, backend::FloatType};
///
/// let convention = Convention::from_name("pychop")?;
/// assert_eq!(convention, Convention::PYCHOP);
/// assert!(!convention.float_types().contains(&FloatType::BF16));
/// # Ok::<(), chopi_core::Error>(())
/// ```
///
/// It cannot be put together from parts of others: only combinations that a library has, and that every
/// kernel computes, exist. So this does not compile:
///
/// ```compile_fail
/// # use chopi_core as chopi;
/// use chopi::Convention;
///
/// let mine = Convention { name: "mine", ..Convention::CHOPI };
/// ```
///
/// Notation: b bits, codes in [qmin, qmax], scale s, zero point z, RNE is rounding to nearest with ties
/// to even. The *compute type* is `f64` for `f64` tensors, else `f32`; the *element type* is the
/// tensor's.
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
/// compressed-tensors in their conventions; every other cell is chopi's policy. Two cases are left, where
/// a convention computes in `f16`: a zero point beyond 65,504 is infinite too, and its sum with an infinity of the
/// other sign is NaN; and the reciprocal of a scale of 2^25 or more is 0, whose product with an infinity is NaN.
/// Such an infinity gets no code that is defined, and is NaN once it is fake-quantized.
///
/// Two conventions are equal if they have the same name. With the feature `serde` a convention is saved as
/// its name.
#[derive(Clone, Copy)]
pub struct Convention(&'static dyn Library);

impl Convention {
    /// The conventions that stand for a library, each of which is compared with it to the bit.
    pub const ALL: &'static [Self] = &[
        Self::CHOPI,
        Self::PYCHOP,
        Self::PYCHOP_TORCH,
        Self::PYCHOP_JAX,
        Self::TORCH,
        Self::TORCH_FAKE,
        Self::ONNX,
        Self::COMPRESSED_TENSORS,
        Self::TFLITE,
        Self::AQT,
    ];

    /// The conventions that stand for no library.
    const OTHERS: &'static [Self] = &[Self::ONNX_SPEC];

    /// The name that the convention is saved and found under.
    pub fn name(&self) -> &'static str {
        self.0.name()
    }

    /// The convention of this name.
    ///
    /// # Errors
    /// [`Error::UnknownConvention`], with the names that there are.
    pub fn from_name(name: &str) -> Result<Self> {
        let all = || Self::ALL.iter().chain(Self::OTHERS).copied();
        all().find(|c| c.name() == name).ok_or_else(|| {
            let names: Vec<&str> = all().map(|c| c.name()).collect();
            Error::UnknownConvention {
                name: name.to_owned(),
                expected: names.join(", "),
            }
        })
    }

    /// The granularity that a scheme of this granularity has on a tensor of this rank: per tensor
    /// instead of per channel where the rank is less than the library wants for channels (2 in pychop's
    /// conventions).
    pub fn granularity_for(&self, granularity: Granularity, rank: usize) -> Granularity {
        match granularity {
            Granularity::PerChannel { .. } if rank < self.0.per_channel_min_rank() => {
                Granularity::PerTensor
            }
            other => other,
        }
    }

    /// Whether fake-quantize gives NaN the value of qmin; else NaN stays NaN. What quantize does with
    /// it, [`NanPolicy`](crate::NanPolicy) says.
    pub fn fake_quantizes_nan_to_qmin(&self) -> bool {
        self.0.nan_is_smallest()
    }

    /// Whether the gradients of learned scales and zero points are taken as PyTorch's learnable fake
    /// quantization takes them; else by their formula, each element's derivative rounded once and the sum
    /// in `f64`. Both stand at [`LearnedParams`](crate::training::LearnedParams).
    pub fn has_torch_gradients(&self) -> bool {
        self.0.has_torch_gradients()
    }

    /// (qmin, qmax) where the scheme asks for no range.
    pub(crate) fn default_range(&self, bits: u32, symmetry: Symmetry) -> (i64, i64) {
        self.0.default_range(bits, symmetry)
    }

    /// The rounding of a scheme that asks for none.
    pub(crate) fn default_rounding(&self) -> Rounding {
        self.0.default_rounding()
    }

    /// The parameters of the group with this range of values of type `float`. `index` is the group's,
    /// for errors.
    ///
    /// # Errors
    /// [`Error::Scale`] and [`Error::ZeroPoint`] where the convention has none for this range.
    pub(crate) fn scale_and_zero_point(
        &self,
        (min, max): (f64, f64),
        scheme: &Scheme,
        float: FloatType,
        index: usize,
    ) -> Result<ScaleZero> {
        let group = Group {
            min,
            max,
            scheme,
            float,
            index,
        };
        self.0.parameters(match scheme.zero {
            Zero::AsObserved => group,
            Zero::Included => group.with_zero(),
        })
    }

    /// What the library decides.
    pub(crate) fn library(&self) -> &'static dyn Library {
        self.0
    }
}

impl Default for Convention {
    fn default() -> Self {
        Self::CHOPI
    }
}

impl PartialEq for Convention {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl Eq for Convention {}

impl fmt::Debug for Convention {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(feature = "serde")]
impl serde::Serialize for Convention {
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

#[cfg(feature = "serde")]
impl<'de> serde::Deserialize<'de> for Convention {
    fn deserialize<D: serde::Deserializer<'de>>(
        deserializer: D,
    ) -> std::result::Result<Self, D::Error> {
        let name = String::deserialize(deserializer)?;
        Self::from_name(&name).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::Builder;

    /// The scale and the zero point of a range in the scheme of a quantizer, as those of group 3.
    pub fn parameters(
        builder: &Builder,
        float: FloatType,
        range: (f64, f64),
    ) -> Result<(f64, f64)> {
        let scheme = builder.scheme()?;
        let params = (builder.convention).scale_and_zero_point(range, &scheme, float, 3)?;
        Ok((params.scale, params.zero_point))
    }

    #[test]
    fn conventions_are_found_under_their_own_names_and_equal_to_no_other() {
        let all: Vec<Convention> = [Convention::ALL, Convention::OTHERS].concat();
        for (i, &a) in all.iter().enumerate() {
            let found = Convention::from_name(a.name()).unwrap();
            assert_eq!(found.name(), a.name());
            assert_eq!(format!("{a:?}"), a.name());
            for (j, &b) in all.iter().enumerate() {
                assert_eq!(a == b, i == j, "{a:?} and {b:?}");
            }
        }
    }

    #[test]
    fn an_unknown_name_is_refused_with_the_names_that_there_are() {
        let error = Convention::from_name("nobody").unwrap_err().to_string();
        assert!(error.contains("nobody"), "{error}");
        assert!(
            error.contains("chopi, pychop,") && error.contains("onnx-spec"),
            "{error}"
        );
    }
}
