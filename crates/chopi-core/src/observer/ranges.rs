//! The observed range of each group of elements.

use chopi_kernels::{FloatType, MinMax, memory::copied, min_max};

use crate::backend::{Backend, FloatTensor, HostFloats};
use crate::device;
use crate::error::{Error, Result};
use crate::host::non_finite;
use crate::scheme::{Granularity, resolve_axis};

/// The exact smallest and largest value of each group of elements: the min/max observer.
///
/// Ranges of several batches merge into the range of all of them, in any order with the same
/// result.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked"))]
pub struct Ranges {
    granularity: Granularity,
    float: FloatType,
    shape: Vec<usize>,
    /// The length of the axis that is split into groups, if one is.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    length: Option<usize>,
    min: Vec<f64>,
    max: Vec<f64>,
}

/// What saved [`Ranges`] say, before they are checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Unchecked {
    granularity: Granularity,
    float: FloatType,
    shape: Vec<usize>,
    #[serde(default)]
    length: Option<usize>,
    min: Vec<f64>,
    max: Vec<f64>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for Ranges {
    type Error = Error;

    fn try_from(saved: Unchecked) -> Result<Self> {
        let Unchecked {
            granularity,
            float,
            shape,
            length,
            min,
            max,
        } = saved;
        let ranges = Self::new(granularity, float, shape, min, max);
        ranges.with_grouped_length(length).checked()
    }
}

impl Ranges {
    /// The range of each group of a tensor.
    ///
    /// # Errors
    /// [`Error::Empty`] where the tensor has no element, [`Error::NonFinite`] where it holds NaN or
    /// an infinity, [`Error::Axis`] where it has no such axis.
    pub fn observe<B: Backend, T: FloatTensor<B> + ?Sized>(
        tensor: &T,
        granularity: Granularity,
    ) -> Result<Self> {
        match tensor.on_device() {
            Some(tensor) => device::observe(&tensor, granularity),
            None => tensor.with_host(|host| Self::observe_host(&host, granularity)),
        }
    }

    /// Ranges that come from elsewhere than observed values, for a tensor of this shape and type: `min` and
    /// `max` hold the ends of each group, in the row-major order of the groups.
    ///
    /// # Errors
    /// [`Error::Axis`] where the tensor has no such axis; [`Error::ObservedGroups`] where it has another
    /// number of groups; [`Error::Ends`] where the ends of a group are no finite numbers of the type, the
    /// smaller first.
    pub fn from_ends(
        granularity: Granularity,
        float: FloatType,
        tensor: &[usize],
        min: Vec<f64>,
        max: Vec<f64>,
    ) -> Result<Self> {
        let shape = granularity.params_shape(tensor)?;
        let ranges = Self::new(granularity, float, shape, min, max);
        ranges
            .with_grouped_length(granularity.grouped_length(tensor))
            .checked()
    }

    pub(crate) fn new(
        granularity: Granularity,
        float: FloatType,
        shape: Vec<usize>,
        min: Vec<f64>,
        max: Vec<f64>,
    ) -> Self {
        Self {
            granularity,
            float,
            shape,
            length: None,
            min,
            max,
        }
    }

    /// The ranges of groups along an axis of this length.
    pub(crate) fn with_grouped_length(self, length: Option<usize>) -> Self {
        Self { length, ..self }
    }

    /// The length of the axis that is split into groups, if one is and it is known.
    pub(crate) fn grouped_length(&self) -> Option<usize> {
        self.length
    }

    /// The ranges, if they are some.
    pub(crate) fn checked(self) -> Result<Self> {
        let ends = self.min.iter().copied().zip(self.max.iter().copied());
        match self.min.len() == self.max.len() {
            true => check_groups(
                self.granularity,
                self.float,
                (&self.shape, self.length),
                ends,
            )?,
            false => {
                return Err(observed_groups(
                    self.min.len(),
                    &self.shape,
                    self.granularity,
                ));
            }
        }
        Ok(self)
    }

    /// The range of each group of elements in host memory.
    pub(crate) fn observe_host(host: &HostFloats<'_>, granularity: Granularity) -> Result<Self> {
        let layout = host.layout();
        let shape = granularity.params_shape(layout.shape())?;
        if layout.is_empty() {
            return Err(Error::Empty {
                shape: layout.shape().to_vec(),
            });
        }
        let ranges = min_max(host.data(), &granularity.tiles(layout)?)?;
        let MinMax { min, max } = ranges.ok_or_else(|| non_finite(host))?;
        let ranges = Self::new(granularity, host.float_type(), shape, min, max);
        Ok(ranges.with_grouped_length(granularity.grouped_length(layout.shape())))
    }

    /// The range of this data and that of `other`.
    ///
    /// # Errors
    /// [`Error::Merge`] where the two have different shapes or granularities, [`Error::GroupedAxis`]
    /// where their groups are of axes of different lengths.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        self.take_groups(other)?;
        for (a, b) in self.min.iter_mut().zip(&other.min) {
            *a = a.min(*b);
        }
        for (a, b) in self.max.iter_mut().zip(&other.max) {
            *a = a.max(*b);
        }
        Ok(())
    }

    /// Makes the groups those of the other ranges too, and the type one that holds both, but for the ranges
    /// themselves.
    ///
    /// # Errors
    /// The errors of [`merge`](Self::merge); nothing is changed then.
    pub(crate) fn take_groups(&mut self, other: &Self) -> Result<()> {
        if self.shape != other.shape || self.granularity != other.granularity {
            return Err(Error::Merge {
                left: self.shape.clone(),
                right: other.shape.clone(),
            });
        }
        self.granularity.check_grouped(self.length, other.length)?;
        self.length = self.length.or(other.length);
        self.float = self.float.or_wider(other.float);
        Ok(())
    }

    /// A copy, as [`Clone`] makes it.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is none for it.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            shape: self.shape.clone(),
            min: copied(&self.min)?,
            max: copied(&self.max)?,
            ..*self
        })
    }

    /// Changes each end of each range to what `f` makes of it and of that of the other ranges, of as many
    /// groups.
    pub(crate) fn change(&mut self, other: &Self, f: impl Fn(f64, f64) -> f64) {
        for (ends, others) in [(&mut self.min, &other.min), (&mut self.max, &other.max)] {
            for (a, &b) in ends.iter_mut().zip(others) {
                *a = f(*a, b);
            }
        }
    }

    /// The granularity of the groups.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The type of the observed values.
    pub fn float_type(&self) -> FloatType {
        self.float
    }

    /// The shape of the parameters: `[1]`, `[channels]`, or the tensor's with one axis in groups.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The smallest value of each group, in row-major order.
    pub fn min(&self) -> &[f64] {
        &self.min
    }

    /// The largest value of each group, in row-major order.
    pub fn max(&self) -> &[f64] {
        &self.max
    }
}

/// Checks that there are as many groups as the shape says, at least one, and that each has a range.
pub(super) fn check_groups(
    granularity: Granularity,
    float: FloatType,
    (shape, length): (&[usize], Option<usize>),
    ends: impl ExactSizeIterator<Item = (f64, f64)>,
) -> Result<()> {
    let groups = shape
        .iter()
        .try_fold(1, |n: usize, &len| n.checked_mul(len));
    let has_shape = match granularity {
        Granularity::PerTensor => *shape == [1],
        Granularity::PerChannel { .. } => shape.len() == 1,
        // On a tensor of this shape, but for the one axis.
        Granularity::PerGroup { axis, size } => {
            let groups = resolve_axis(axis, shape).map(|axis| shape[axis]);
            size > 0 && groups.is_ok_and(|n| length.is_none_or(|len| len.div_ceil(size) == n))
        }
    };
    if !has_shape || ends.len() == 0 || groups != Some(ends.len()) {
        return Err(observed_groups(ends.len(), shape, granularity));
    }
    for (group, (min, max)) in ends.enumerate() {
        if !(-float.max() <= min && min <= max && max <= float.max()) {
            return Err(Error::Ends {
                group,
                min,
                max,
                float,
            });
        }
    }
    Ok(())
}

fn observed_groups(groups: usize, shape: &[usize], granularity: Granularity) -> Error {
    Error::ObservedGroups {
        groups,
        shape: shape.to_vec(),
        granularity,
    }
}
