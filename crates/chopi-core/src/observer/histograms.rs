//! The histogram of each group of elements.

use crate::backend::{Backend, FloatTensor};
use crate::error::{Error, Result};
use crate::groups::{Groups, on_host};
use crate::host::non_finite;
use crate::scheme::Granularity;
use chopi_kernels::FloatType;
use chopi_kernels::Histogram;
use chopi_kernels::memory::with_room;
use chopi_kernels::{Float, match_float};

/// The [`Histogram`] of each group of elements.
///
/// Histograms of several batches merge into the histograms of all of them, in any order with the same
/// bits. A group takes 32 KiB, however many values it has seen.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked"))]
pub struct Histograms {
    granularity: Granularity,
    float: FloatType,
    shape: Vec<usize>,
    /// The length of the axis that is split into groups, if one is.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    length: Option<usize>,
    groups: Vec<Histogram>,
}

/// What saved [`Histograms`] say, before they are checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Unchecked {
    granularity: Granularity,
    float: FloatType,
    shape: Vec<usize>,
    #[serde(default)]
    length: Option<usize>,
    groups: Vec<Histogram>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for Histograms {
    type Error = Error;

    fn try_from(saved: Unchecked) -> Result<Self> {
        let Unchecked {
            granularity,
            float,
            shape,
            length,
            groups,
        } = saved;
        // One that is empty has no range.
        let ends = groups.iter().map(|group| (group.min(), group.max()));
        super::ranges::check_groups(granularity, float, (&shape, length), ends)?;
        Ok(Self {
            granularity,
            float,
            shape,
            length,
            groups,
        })
    }
}

impl Histograms {
    /// The histogram of each group of a tensor.
    ///
    /// # Errors
    /// [`Error::Empty`] where the tensor has no element, [`Error::NonFinite`] where it holds NaN or
    /// an infinity, [`Error::Axis`] where it has no such axis, [`Error::Memory`] where there is none for the
    /// histograms of so many groups.
    pub fn observe<B: Backend, T: FloatTensor<B> + ?Sized>(
        tensor: &T,
        granularity: Granularity,
    ) -> Result<Self> {
        let mut groups = Vec::new();
        let (of, float) = for_each_histogram(tensor, granularity, |of, histogram, _| {
            if groups.is_empty() {
                groups = with_room(of.len())?;
            }
            groups.push(histogram.try_clone()?);
            Ok(())
        })?;
        Ok(Self {
            granularity,
            float,
            shape: of.shape,
            length: of.length,
            groups,
        })
    }

    /// The histograms of these data and those of `other`.
    ///
    /// # Errors
    /// [`Error::Merge`] where the two have different shapes or granularities, [`Error::GroupedAxis`]
    /// where their groups are of axes of different lengths.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        if self.shape != other.shape || self.granularity != other.granularity {
            return Err(Error::Merge {
                left: self.shape.clone(),
                right: other.shape.clone(),
            });
        }
        self.granularity.check_grouped(self.length, other.length)?;
        self.length = self.length.or(other.length);
        self.float = self.float.or_wider(other.float);
        // Each histogram holds a value, so that none wants memory after another has changed.
        for (a, b) in self.groups.iter_mut().zip(&other.groups) {
            a.merge(b)?;
        }
        Ok(())
    }

    /// A copy, as [`Clone`] makes it.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is none for it.
    pub fn try_clone(&self) -> Result<Self> {
        let mut groups = with_room(self.groups.len())?;
        for group in &self.groups {
            groups.push(group.try_clone()?);
        }
        Ok(Self {
            shape: self.shape.clone(),
            groups,
            ..*self
        })
    }

    /// The granularity of the groups.
    pub fn granularity(&self) -> Granularity {
        self.granularity
    }

    /// The type of the observed values.
    pub fn float_type(&self) -> FloatType {
        self.float
    }

    /// The shape of the parameters, as [`Ranges::shape`](crate::observer::Ranges::shape).
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The length of the axis that is split into groups, if one is and it is known.
    pub(crate) fn grouped_length(&self) -> Option<usize> {
        self.length
    }

    /// The histogram of each group, in row-major order.
    pub fn groups(&self) -> &[Histogram] {
        &self.groups
    }
}

/// Calls `f` with the histogram of each group of a tensor, in row-major order: one at a time, in the
/// memory of one. With it go the groups and the type of the values, which are given in the end too.
pub(crate) fn for_each_histogram<B: Backend, T: FloatTensor<B> + ?Sized>(
    tensor: &T,
    granularity: Granularity,
    mut f: impl FnMut(&Groups, &Histogram, FloatType) -> Result<()>,
) -> Result<(Groups, FloatType)> {
    on_host(tensor, |host| {
        let groups = Groups::new(host.layout(), granularity)?;
        let mut histogram = Histogram::new();
        match_float!(FloatSlice, host.data(), data => {
            let mut buffer = Vec::new();
            for elements in groups.iter() {
                histogram.clear();
                let elements = Float::slice(elements.gather(data, &mut buffer)?);
                if !histogram.observe(elements)? {
                    return Err(non_finite(&host));
                }
                f(&groups, &histogram, host.float_type())?;
            }
        });
        Ok((groups, host.float_type()))
    })
}
