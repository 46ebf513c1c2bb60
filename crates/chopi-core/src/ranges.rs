//! The observed range of each group of elements.

use crate::backend::{Backend, FloatTensor, HostFloats};
use crate::buffer::FloatSlice;
use crate::device;
use crate::dtype::{Compute, Float, FloatType};
use crate::error::{Error, Result};
use crate::kernel::lanes::PerGroup;
use crate::kernel::minmax::{MinMax, min_max};
use crate::layout::Layout;
use crate::match_float;
use crate::scheme::Granularity;
use crate::tiles::Tiles;

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
            None => tensor.with_host(|host| Self::observe_host(host, granularity)),
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

    fn observe_host(host: HostFloats<'_>, granularity: Granularity) -> Result<Self> {
        Self::observe_slice(host.data, &host.layout, granularity)
    }

    /// The range of each group of elements in memory order.
    pub(crate) fn observe_slice(
        data: FloatSlice<'_>,
        layout: &Layout,
        granularity: Granularity,
    ) -> Result<Self> {
        match_float!(FloatSlice, data, data => Self::observe_floats(data, layout, granularity))
    }

    fn observe_floats<F: Float>(
        data: &[F],
        layout: &Layout,
        granularity: Granularity,
    ) -> Result<Self> {
        let shape = granularity.params_shape(layout.shape())?;
        if layout.is_empty() {
            return Err(Error::Empty {
                shape: layout.shape().to_vec(),
            });
        }
        let tiles = Tiles::new(layout, granularity)?;
        let MinMax { min, max, finite } = min_max(data, &tiles);
        if !finite {
            return Err(non_finite(data, layout));
        }
        // Adding +0.0 turns −0.0 into +0.0, so that the order of the data cannot be seen.
        let in_row_major = |values: PerGroup<F::Compute>| -> Vec<f64> {
            let values: Vec<f64> = values.into_iter().map(|v| v.as_f64() + 0.0).collect();
            tiles.to_row_major(&values).into_owned()
        };
        Ok(Self::new(
            granularity,
            F::TYPE,
            shape,
            in_row_major(min),
            in_row_major(max),
        ))
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

/// The error for data that hold NaN or an infinity.
pub(crate) fn non_finite<F: Float>(data: &[F], layout: &Layout) -> Error {
    let is_bad = |v: &F| !num_traits::Float::is_finite(v.widen());
    let first = first_index(data, layout, is_bad);
    Error::NonFinite {
        value: first.as_ref().map_or(f64::NAN, |(_, v)| v.widen().as_f64()),
        index: first.map_or_else(Vec::new, |(index, _)| index),
        count: data.iter().filter(|v| is_bad(v)).count(),
    }
}

/// The element that is first in row-major order among those that satisfy a predicate.
pub(crate) fn first_index<T: Copy>(
    data: &[T],
    layout: &Layout,
    predicate: impl Fn(&T) -> bool,
) -> Option<(Vec<usize>, T)> {
    let hits = data.iter().enumerate().filter(|(_, v)| predicate(v));
    match layout.order() {
        None => hits.map(|(offset, v)| (layout.index(offset), *v)).next(),
        Some(_) => hits
            .map(|(offset, v)| (layout.index(offset), *v))
            .min_by(|a, b| a.0.cmp(&b.0)),
    }
}
