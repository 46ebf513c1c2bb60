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
pub struct Ranges {
    granularity: Granularity,
    float: FloatType,
    shape: Vec<usize>,
    min: Vec<f64>,
    max: Vec<f64>,
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
