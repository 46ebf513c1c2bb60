//! How the elements of a dense tensor fall into groups.

use std::borrow::Cow;
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
    /// Uniform runs of `inner` elements, a channel each.
    Channels {
        channels: usize,
        inner: usize,
    },
    /// Rows of channels·repeat elements in which each channel's parameter is repeated.
    Rows {
        channels: usize,
        repeat: usize,
    },
    /// Uniform runs of `size` elements along an axis, the last one of each axis shorter.
    Groups {
        axis: usize,
        size: usize,
    },
    /// Rows of `inner` elements, `size` rows with the same parameters.
    GroupRows {
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
            Granularity::PerTensor => (Kind::Tensor, Layout::row_major(&[1])),
            Granularity::PerChannel { axis } => {
                let axis = resolve_axis(axis, layout.shape())?;
                let (outer, channels, inner) = layout.split(axis);
                let kind = if inner == 1 || (inner < Self::SHORT_CHANNEL && outer > inner) {
                    Kind::Rows {
                        channels,
                        repeat: inner,
                    }
                } else {
                    Kind::Channels { channels, inner }
                };
                (kind, Layout::row_major(&[channels]))
            }
            Granularity::PerGroup { axis, size } => {
                let axis = resolve_axis(axis, layout.shape())?;
                let (_, len, inner) = layout.split(axis);
                let kind = if inner == 1 {
                    Kind::Groups { axis: len, size }
                } else {
                    Kind::GroupRows {
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

    /// The run of this index; runs follow one another in memory.
    #[inline]
    fn tile(&self, i: usize) -> Tile {
        let uniform = |elements, group| Tile {
            elements,
            params: group..group + 1,
        };
        match self.kind {
            Kind::Tensor => uniform(0..self.len, 0),
            Kind::Channels { channels, inner } => uniform(i * inner..(i + 1) * inner, i % channels),
            Kind::Rows { channels, repeat } => {
                let width = channels * repeat;
                Tile {
                    elements: i * width..(i + 1) * width,
                    params: 0..width,
                }
            }
            Kind::Groups { axis, size } => {
                let (outer, group) = (i / axis.div_ceil(size), i % axis.div_ceil(size));
                let end = ((group + 1) * size).min(axis);
                uniform(outer * axis + group * size..outer * axis + end, i)
            }
            Kind::GroupRows { axis, inner, size } => {
                let (outer, row) = (i / axis, i % axis);
                let first = (outer * axis.div_ceil(size) + row / size) * inner;
                Tile {
                    elements: i * inner..(i + 1) * inner,
                    params: first..first + inner,
                }
            }
        }
    }

    /// The index of the run that holds the element at this offset.
    fn at(&self, offset: usize) -> usize {
        match self.kind {
            Kind::Tensor => 0,
            Kind::Channels { inner, .. } | Kind::GroupRows { inner, .. } => offset / inner,
            Kind::Rows { channels, repeat } => offset / (channels * repeat),
            Kind::Groups { axis, size } => {
                offset / axis * axis.div_ceil(size) + offset % axis / size
            }
        }
    }

    /// The runs of a range of elements, the first and the last cut off where the range begins and
    /// ends.
    #[inline(always)]
    pub fn runs(&self, range: Range<usize>) -> impl Iterator<Item = Tile> {
        let first = if range.is_empty() {
            0
        } else {
            self.at(range.start)
        };
        let mut next = first;
        let mut start = range.start;
        std::iter::from_fn(move || {
            if start >= range.end {
                return None;
            }
            let Tile { elements, params } = self.tile(next);
            next += 1;
            let end = elements.end.min(range.end);
            let (before, after) = (start - elements.start, elements.end - end);
            let params = match params.len() {
                1 => params,
                _ => params.start + before..params.end - after,
            };
            let run = start..end;
            start = end;
            Some(Tile {
                elements: run,
                params,
            })
        })
    }

    /// How many times each parameter stands in the runs' parameter ranges.
    pub fn repeat(&self) -> usize {
        match self.kind {
            Kind::Rows { repeat, .. } => repeat,
            _ => 1,
        }
    }

    /// Calls `f` with the offset of each element and the index of its group, in memory order.
    pub fn for_each_element(&self, mut f: impl FnMut(usize, usize)) {
        for Tile { elements, params } in self.runs(0..self.len) {
            for (i, element) in elements.enumerate() {
                let at = if params.len() == 1 { 0 } else { i };
                f(element, (params.start + at) / self.repeat());
            }
        }
    }

    /// The number of elements of each group, in memory order.
    pub fn elements_per_group(&self) -> Vec<usize> {
        let mut elements = vec![0; self.groups()];
        self.for_each_element(|_, group| elements[group] += 1);
        elements
    }

    /// The number of groups.
    pub fn groups(&self) -> usize {
        self.params.len()
    }

    /// One value a group, from memory order to row-major order.
    pub fn to_row_major<'a, T: Copy>(&self, values: &'a [T]) -> Cow<'a, [T]> {
        self.params.to_row_major(values)
    }

    /// One value a group, from row-major order to memory order.
    pub fn to_memory_order<'a, T: Copy>(&self, values: &'a [T]) -> Cow<'a, [T]> {
        self.params.to_memory_order(values)
    }
}
