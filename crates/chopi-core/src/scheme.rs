//! What to quantize to: bits, symmetry, granularity, integer range and rounding.

use std::fmt;
use std::ops::RangeInclusive;

use smallvec::smallvec;

use chopi_kernels::{Axes, IntType, Layout, Tiles};

use crate::error::{Error, Result};

pub use chopi_kernels::Rounding;

/// How a tensor is quantized: [`SchemeFields`] that fit each other.
///
/// They can be read as if they were the scheme's own, and not be changed:
///
/// ```
/// # use chopi_core as chopi;
/// use chopi::{Chopi, Scheme, SchemeFields};
///
/// let scheme = Chopi::builder().num_bits(4).scheme()?;
/// assert_eq!((scheme.qmin, scheme.qmax), (0, 15));
/// let narrower = Scheme::new(SchemeFields { qmax: 14, ..*scheme })?;
/// assert!(Scheme::new(SchemeFields { qmax: 16, ..*scheme }).is_err());
/// # Ok::<(), chopi_core::Error>(())
/// ```
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(
    feature = "serde",
    serde(try_from = "SchemeFields", into = "SchemeFields")
)]
pub struct Scheme(SchemeFields);

impl fmt::Debug for Scheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scheme")
            .field("bits", &self.bits)
            .field("symmetry", &self.symmetry)
            .field("granularity", &format_args!("{}", self.granularity))
            .field("qmin", &self.qmin)
            .field("qmax", &self.qmax)
            .field("zero", &self.zero)
            .field("rounding", &self.rounding)
            .finish()
    }
}

/// What a [`Scheme`] consists of.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct SchemeFields {
    /// The width of a code in bits, 2..=32.
    pub bits: u32,
    /// Whether the zero point is 0.
    pub symmetry: Symmetry,
    /// Which elements share a scale and a zero point.
    pub granularity: Granularity,
    /// The smallest code.
    pub qmin: i64,
    /// The largest code.
    pub qmax: i64,
    /// Whether 0.0 is put into the calibrated range.
    pub zero: Zero,
    /// How x/s becomes an integer.
    pub rounding: Rounding,
}

/// Whether the zero point is 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Symmetry {
    /// The zero point is calibrated: the range of the data is used whole.
    #[default]
    Asymmetric,
    /// The zero point is 0: 0.0 is code 0, and a product of integers needs no correction.
    Symmetric,
}

/// Which elements share a scale and a zero point.
///
/// A negative axis counts from the end: -1 is the last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Granularity {
    /// All of the tensor. Parameters have shape `[1]`.
    #[default]
    PerTensor,
    /// All elements of one index along an axis. Parameters have shape `[channels]`.
    PerChannel {
        /// The channel axis.
        axis: isize,
    },
    /// `size` consecutive elements along an axis, for each index of the other axes; the last group
    /// is shorter where `size` does not divide the axis. Parameters have the tensor's shape with
    /// the axis replaced by the number of groups.
    PerGroup {
        /// The axis along which groups lie.
        axis: isize,
        /// The number of elements in a group, at least 1.
        size: usize,
    },
}

impl Granularity {
    /// Whether both may divide a tensor into the same groups: a negative axis counts from the end of axes whose
    /// number is not known here.
    pub(crate) fn may_be(self, other: Self) -> bool {
        let is_one = |a: isize, b: isize| a == b || (a < 0) != (b < 0);
        match (self, other) {
            (Self::PerTensor, Self::PerTensor) => true,
            (Self::PerChannel { axis: a }, Self::PerChannel { axis: b }) => is_one(a, b),
            (
                Self::PerGroup { axis: a, size },
                Self::PerGroup {
                    axis: b,
                    size: other,
                },
            ) => size == other && is_one(a, b),
            _ => false,
        }
    }

    /// The shape of the parameters for a tensor of this shape.
    ///
    /// # Errors
    /// [`Error::Axis`] where the tensor has no such axis, [`Error::GroupSize`] for groups of 0.
    pub fn params_shape(&self, shape: &[usize]) -> Result<Vec<usize>> {
        Ok(self.params_axes(shape)?.into_vec())
    }

    /// The length of the axis that is split into groups, if one is. The shape of the parameters tells it
    /// only where the last group is as long as the others.
    pub(crate) fn grouped_length(&self, shape: &[usize]) -> Option<usize> {
        match *self {
            Self::PerGroup { axis, .. } => resolve_axis(axis, shape).ok().map(|axis| shape[axis]),
            _ => None,
        }
    }

    /// Checks that groups along an axis of the one length are groups along an axis of the other, where
    /// both are known.
    pub(crate) fn check_grouped(
        &self,
        expected: Option<usize>,
        length: Option<usize>,
    ) -> Result<()> {
        match (*self, expected, length) {
            (Self::PerGroup { size, .. }, Some(expected), Some(length)) if expected != length => {
                Err(Error::GroupedAxis {
                    size,
                    expected,
                    length,
                })
            }
            _ => Ok(()),
        }
    }

    /// Which elements of a tensor of this layout share parameters.
    ///
    /// # Errors
    /// [`Error::Axis`] where the tensor has no such axis, [`Error::GroupSize`] for groups of 0.
    pub(crate) fn tiles(&self, layout: &Layout) -> Result<Tiles> {
        Ok(match *self {
            Self::PerTensor => Tiles::per_tensor(layout),
            Self::PerChannel { axis } => {
                Tiles::per_channel(layout, resolve_axis(axis, layout.shape())?)
            }
            Self::PerGroup { size: 0, .. } => return Err(Error::GroupSize),
            Self::PerGroup { axis, size } => {
                Tiles::per_group(layout, resolve_axis(axis, layout.shape())?, size)
            }
        })
    }

    /// Whether the parameters for a tensor of this shape have the shape `params`.
    ///
    /// # Errors
    /// The errors of [`params_shape`](Self::params_shape).
    #[inline]
    pub(crate) fn has_params_shape(&self, shape: &[usize], params: &[usize]) -> Result<bool> {
        Ok(match *self {
            Self::PerTensor => *params == [1],
            Self::PerChannel { axis } => *params == [shape[resolve_axis(axis, shape)?]],
            Self::PerGroup { .. } => self.params_axes(shape)?[..] == *params,
        })
    }

    fn params_axes(&self, shape: &[usize]) -> Result<Axes> {
        Ok(match *self {
            Self::PerTensor => smallvec![1],
            Self::PerChannel { axis } => smallvec![shape[resolve_axis(axis, shape)?]],
            Self::PerGroup { size: 0, .. } => return Err(Error::GroupSize),
            Self::PerGroup { axis, size } => {
                let axis = resolve_axis(axis, shape)?;
                let mut params = Axes::from_slice(shape);
                params[axis] = shape[axis].div_ceil(size);
                params
            }
        })
    }
}

/// `per_tensor`, `per_channel(axis 0)`, `per_group(128, axis -1)`.
impl fmt::Display for Granularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PerTensor => f.write_str("per_tensor"),
            Self::PerChannel { axis } => write!(f, "per_channel(axis {axis})"),
            Self::PerGroup { axis, size } => write!(f, "per_group({size}, axis {axis})"),
        }
    }
}

/// The index of an axis that may count from the end.
pub(crate) fn resolve_axis(axis: isize, shape: &[usize]) -> Result<usize> {
    let rank = shape.len() as isize;
    let resolved = if axis < 0 { axis + rank } else { axis };
    if (0..rank).contains(&resolved) {
        Ok(resolved as usize)
    } else {
        Err(Error::Axis {
            axis,
            shape: shape.to_vec(),
        })
    }
}

/// The range of integers that the codes of b bits are taken from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CodeRange {
    /// The range that the convention has for the symmetry of the scheme.
    #[default]
    Default,
    /// [0, 2^b − 1]. With a symmetric scheme it is for data without negative values, as a ReLU gives them:
    /// [`Convention::CHOPI`](crate::Convention::CHOPI) refuses others, some libraries move the zero point to
    /// the middle.
    Unsigned,
    /// [−2^(b−1), 2^(b−1) − 1].
    Signed,
    /// [−2^(b−1) + 1, 2^(b−1) − 1]: the signed range without its smallest code, so that it is
    /// centred on 0.
    Narrow,
    /// Any range of at most 2^b integers that a 32-bit integer type holds.
    Custom {
        /// The smallest code.
        qmin: i64,
        /// The largest code.
        qmax: i64,
    },
}

impl From<RangeInclusive<i64>> for CodeRange {
    /// The integers from the start to the end, as [`CodeRange::Custom`].
    fn from(range: RangeInclusive<i64>) -> Self {
        let (qmin, qmax) = range.into_inner();
        Self::Custom { qmin, qmax }
    }
}

impl CodeRange {
    /// (qmin, qmax) for `bits` bits; `default` stands in for [`CodeRange::Default`].
    pub(crate) fn bounds(self, bits: u32, default: (i64, i64)) -> (i64, i64) {
        let half = 1_i64 << (bits - 1);
        match self {
            Self::Default => default,
            Self::Unsigned => (0, 2 * half - 1),
            Self::Signed => (-half, half - 1),
            Self::Narrow => (1 - half, half - 1),
            Self::Custom { qmin, qmax } => (qmin, qmax),
        }
    }
}

/// Whether 0.0 is put into the calibrated range.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Zero {
    /// The range is the data's: values of 280..310 K keep all levels. 0.0 may have no code.
    #[default]
    AsObserved,
    /// The range is extended to hold 0.0, which then comes back exactly: for padding, ReLU and
    /// runtimes that take zero points in the integer range only.
    Included,
}

/// What becomes of NaN in `quantize`.
///
/// NaN and ±∞ in each operation, the same in every convention but for one cell:
///
/// | operation | NaN | ±∞ |
/// |---|---|---|
/// | calibrate | [`Error::NonFinite`], which says where | the same |
/// | quantize, [`NanPolicy::Error`] | [`Error::NaN`], which says where | qmax, qmin |
/// | quantize, [`NanPolicy::ZeroPoint`] | clamp(RNE(z), qmin, qmax) | qmax, qmin |
/// | dequantize | codes are integers | codes are integers |
/// | fake-quantize | NaN; in [`TORCH_FAKE`] the value of qmin | the values of qmax, qmin |
/// | the mask of fake-quantize | 0 | 0 |
///
/// This is chopi's policy where the library of a convention has no result that is the same on all
/// its paths; what they do have stands at [`Convention`].
///
/// [`TORCH_FAKE`]: crate::Convention::TORCH_FAKE
/// [`Convention`]: crate::Convention
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NanPolicy {
    /// NaN is an error that says where, [`Error::NaN`].
    #[default]
    Error,
    /// NaN becomes the zero point, clamped into the integer range.
    ZeroPoint,
}

impl std::ops::Deref for Scheme {
    type Target = SchemeFields;

    #[inline]
    fn deref(&self) -> &SchemeFields {
        &self.0
    }
}

impl From<Scheme> for SchemeFields {
    fn from(scheme: Scheme) -> Self {
        scheme.0
    }
}

impl TryFrom<SchemeFields> for Scheme {
    type Error = Error;

    fn try_from(fields: SchemeFields) -> Result<Self> {
        Self::new(fields)
    }
}

impl Scheme {
    /// The scheme of these fields.
    ///
    /// # Errors
    /// [`Error::Bits`], [`Error::Range`] and [`Error::GroupSize`] where they do not fit each other.
    pub fn new(fields: SchemeFields) -> Result<Self> {
        check_bits(fields.bits)?;
        let (qmin, qmax) = (fields.qmin, fields.qmax);
        let reject = |reason: String| Err(Error::Range { qmin, qmax, reason });
        let holds = |int: IntType| int.holds(qmin, qmax);
        if qmin >= qmax {
            return reject("holds fewer than two codes".to_owned());
        }
        if !holds(IntType::I32) && !holds(IntType::U32) {
            return reject("does not fit i32 or u32".to_owned());
        }
        if qmax - qmin >= 1 << fields.bits {
            return reject(format!("has more than 2^{} codes", fields.bits));
        }
        if fields.symmetry == Symmetry::Symmetric && (qmin > 0 || qmax < 1) {
            return reject("cannot be symmetric: it must hold 0 and 1".to_owned());
        }
        if let Granularity::PerGroup { size: 0, .. } = fields.granularity {
            return Err(Error::GroupSize);
        }
        Ok(Self(fields))
    }
}

pub(crate) fn check_bits(bits: u32) -> Result<()> {
    if (2..=32).contains(&bits) {
        Ok(())
    } else {
        Err(Error::Bits { bits })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_of_nothing_are_refused() {
        let granularity = Granularity::PerGroup { axis: 0, size: 0 };
        assert!(matches!(
            granularity.params_shape(&[4]),
            Err(Error::GroupSize)
        ));
    }
}
