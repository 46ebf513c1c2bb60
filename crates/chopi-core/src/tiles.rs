//! How the elements of a dense tensor fall into groups.

use std::ops::Range;

use crate::error::Result;
use crate::layout::Layout;
use crate::scheme::{Granularity, resolve_axis};

/// Runs of consecutive elements with the parameters that belong to them.
///
/// Every granularity of a dense tensor, in whatever order its axes lie, collapses to a sequence of
/// runs of two kinds: a *uniform* run shares one parameter; a *row* has one parameter an element.
/// Channels that are shorter than [`Tiles::SHORT_CHANNEL`] elements are laid out as rows whose
/// parameters are repeated, so that no run is too short to be worth a loop.
#[derive(Clone, Debug)]
pub(crate) struct Tiles {
    kind: Kind,
    len: usize,
    /// How the parameters lie in memory order; their tensor has the shape of the layout.
    params: Layout,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Tensor,
    /// (outer, channels, inner): uniform runs of `inner` elements.
    Channels {
        outer: usize,
        channels: usize,
        inner: usize,
    },
    /// (outer, channels·repeat): rows in which each channel's parameter is repeated.
    Rows {
        outer: usize,
        channels: usize,
        repeat: usize,
    },
    /// (outer, axis): uniform runs of `size` elements, the last one of each axis shorter.
    Groups {
        outer: usize,
        axis: usize,
        size: usize,
    },
    /// (outer, axis, inner): rows of `inner` elements, `size` rows with the same parameters.
    GroupRows {
        outer: usize,
        axis: usize,
        inner: usize,
        size: usize,
    },
}

/// One run: its elements and its parameters, one or as many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tile {
    pub elements: Range<usize>,
    pub params: Range<usize>,
}

impl Tiles {
    const SHORT_CHANNEL: usize = 64;

    pub fn new(layout: &Layout, granularity: Granularity) -> Result<Self> {
        let (kind, params) = match granularity {
            Granularity::PerTensor => (Kind::Tensor, Layout::row_major(vec![1])),
            Granularity::PerChannel { axis } => {
                let axis = resolve_axis(axis, layout.shape())?;
                let (outer, channels, inner) = layout.split(axis);
                let kind = if inner == 1 || (inner < Self::SHORT_CHANNEL && outer > inner) {
                    Kind::Rows {
                        outer,
                        channels,
                        repeat: inner,
                    }
                } else {
                    Kind::Channels {
                        outer,
                        channels,
                        inner,
                    }
                };
                (kind, Layout::row_major(vec![channels]))
            }
            Granularity::PerGroup { axis, size } => {
                let axis = resolve_axis(axis, layout.shape())?;
                let (outer, len, inner) = layout.split(axis);
                let kind = if inner == 1 {
                    Kind::Groups {
                        outer,
                        axis: len,
                        size,
                    }
                } else {
                    Kind::GroupRows {
                        outer,
                        axis: len,
                        inner,
                        size,
                    }
                };
                (kind, layout.with_axis(axis, len.div_ceil(size)))
            }
        };
        Ok(Self {
            kind,
            len: layout.len(),
            params,
        })
    }

    /// The number of runs.
    pub fn count(&self) -> usize {
        if self.len == 0 {
            return 0;
        }
        match self.kind {
            Kind::Tensor => 1,
            Kind::Channels {
                outer, channels, ..
            } => outer * channels,
            Kind::Rows { outer, .. } => outer,
            Kind::Groups { outer, axis, size } => outer * axis.div_ceil(size),
            Kind::GroupRows { outer, axis, .. } => outer * axis,
        }
    }

    /// The run of this index; runs follow one another in memory.
    #[inline]
    pub fn tile(&self, i: usize) -> Tile {
        let uniform = |elements, group| Tile {
            elements,
            params: group..group + 1,
        };
        match self.kind {
            Kind::Tensor => uniform(0..self.len, 0),
            Kind::Channels {
                channels, inner, ..
            } => uniform(i * inner..(i + 1) * inner, i % channels),
            Kind::Rows {
                channels, repeat, ..
            } => {
                let width = channels * repeat;
                Tile {
                    elements: i * width..(i + 1) * width,
                    params: 0..width,
                }
            }
            Kind::Groups { axis, size, .. } => {
                let (outer, group) = (i / axis.div_ceil(size), i % axis.div_ceil(size));
                let end = ((group + 1) * size).min(axis);
                uniform(outer * axis + group * size..outer * axis + end, i)
            }
            Kind::GroupRows {
                axis, inner, size, ..
            } => {
                let (outer, row) = (i / axis, i % axis);
                let first = (outer * axis.div_ceil(size) + row / size) * inner;
                Tile {
                    elements: i * inner..(i + 1) * inner,
                    params: first..first + inner,
                }
            }
        }
    }

    /// How many times each parameter stands in the runs' parameter ranges.
    pub fn repeat(&self) -> usize {
        match self.kind {
            Kind::Rows { repeat, .. } => repeat,
            _ => 1,
        }
    }

    /// The number of groups.
    pub fn groups(&self) -> usize {
        self.params.len()
    }

    /// One value a group, from memory order to row-major order.
    pub fn to_row_major<T: Copy>(&self, values: &[T]) -> Vec<T> {
        self.params.to_row_major(values)
    }

    /// One value a group, from row-major order to memory order.
    pub fn to_memory_order<T: Copy>(&self, values: &[T]) -> Vec<T> {
        self.params.to_memory_order(values)
    }
}
