//! The observed range of each group of elements.

use chopi_kernels::{FloatType, MinMax, min_max};

use crate::backend::{Backend, FloatTensor, HostFloats};
use crate::device;
use crate::error::{Error, Result};
use crate::host::non_finite;
use crate::scheme::Granularity;

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
            min,
            max,
        } = saved;
        Self::new(granularity, float, shape, min, max).checked()
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
            min,
            max,
        }
    }

    /// The ranges, if they are some.
    pub(crate) fn checked(self) -> Result<Self> {
        let ends = self.min.iter().copied().zip(self.max.iter().copied());
        match self.min.len() == self.max.len() {
            true => check_groups(self.granularity, self.float, &self.shape, ends)?,
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
        let ranges = min_max(host.data(), &granularity.tiles(layout)?);
        let MinMax { min, max } = ranges.ok_or_else(|| non_finite(host))?;
        Ok(Self::new(granularity, host.float_type(), shape, min, max))
    }

    /// The range of this data and that of `other`.
    ///
    /// # Errors
    /// [`Error::Merge`] where the two have different shapes or granularities.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.shape != other.shape || self.granularity != other.granularity {
            return Err(Error::Merge {
                left: self.shape.clone(),
                right: other.shape.clone(),
            });
        }
        self.float = self.float.or_wider(other.float);
        for (a, b) in self.min.iter_mut().zip(&other.min) {
            *a = a.min(*b);
        }
        for (a, b) in self.max.iter_mut().zip(&other.max) {
            *a = a.max(*b);
        }
        Ok(())
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
    shape: &[usize],
    ends: impl ExactSizeIterator<Item = (f64, f64)>,
) -> Result<()> {
    let groups = shape
        .iter()
        .try_fold(1, |n: usize, &len| n.checked_mul(len));
    let has_shape = match granularity {
        Granularity::PerTensor => *shape == [1],
        Granularity::PerChannel { .. } => shape.len() == 1,
        Granularity::PerGroup { size, .. } => size > 0,
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
