//! How the elements of a dense tensor fall into groups.

use std::borrow::Cow;
use std::ops::Range;

use crate::layout::Layout;
use crate::memory::{NoMemory, collected, make_room, repeated};

/// Runs of consecutive elements with the parameters that belong to them.
///
/// Every granularity of a dense tensor, in whatever order its axes lie, collapses to one pattern:
/// memory is a sequence of blocks of `axis` rows, `width` elements each; `size` consecutive rows
/// (fewer at the end of a block) share `width` parameters, and after `period` of those the parameters
/// begin anew.
///
/// | granularity | width | axis | size | period |
/// |---|---|---|---|---|
/// | per tensor | 1 | all elements | all elements | 1 |
/// | per channel, (outer, channels, inner) | 1 | inner | inner | channels |
/// | per channel, with short channels | channels·inner | 1 | 1 | 1 |
/// | per group, (outer, axis, inner) | inner | axis | size | all |
///
/// Channels that are shorter than `Tiles::SHORT_CHANNEL` elements are laid out as rows in which
/// each channel's parameter is repeated, so that no run is too short to be worth a loop.
#[derive(Clone, Debug)]
pub struct Tiles {
    /// The number of elements.
    len: usize,
    width: usize,
    axis: usize,
    size: usize,
    period: usize,
    /// How many times each parameter stands in a row.
    repeat: usize,
    /// The number of groups.
    groups: usize,
    /// How the parameters lie in memory order, where that is not row-major; their tensor has the shape of the
    /// layout. In a box, which keeps the tiles small, and few tensors need it.
    order: Option<Box<Layout>>,
}

/// One run: its elements and its parameters, one or as many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tile {
    /// Consecutive elements, in memory order.
    pub elements: Range<usize>,
    /// The parameters of the elements, one for all or one for each.
    pub params: Range<usize>,
}

/// The elements of one group: `count` runs of `len` consecutive elements, `stride` apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GroupElements {
    start: usize,
    count: usize,
    stride: usize,
    len: usize,
}

impl GroupElements {
    /// The elements: where they lie if they lie together, or else copied.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for elements that have to be copied.
    pub fn gather<'a, T: Copy>(
        &self,
        data: &'a [T],
        buffer: &'a mut Vec<T>,
    ) -> Result<&'a [T], NoMemory> {
        if self.count == 1 {
            return Ok(&data[self.start..self.start + self.len]);
        }
        buffer.clear();
        make_room(buffer, self.count * self.len)?;
        for i in 0..self.count {
            let start = self.start + i * self.stride;
            buffer.extend_from_slice(&data[start..start + self.len]);
        }
        Ok(buffer)
    }
}

impl Tile {
    /// The elements as a range of a piece of the tensor that starts at offset `first`, and the
    /// parameters.
    #[inline(always)]
    pub fn within(self, first: usize) -> (Range<usize>, Range<usize>) {
        (
            self.elements.start - first..self.elements.end - first,
            self.params,
        )
    }
}

impl Tiles {
    const SHORT_CHANNEL: usize = 64;

    /// One group of all elements.
    #[inline]
    pub fn per_tensor(layout: &Layout) -> Self {
        let len = layout.len();
        Self {
            len,
            width: 1,
            axis: len,
            size: len,
            period: 1,
            repeat: 1,
            groups: 1,
            order: None,
        }
    }

    /// A group for each index along an axis.
    ///
    /// # Panics
    /// Where the layout has no such axis.
    pub fn per_channel(layout: &Layout, axis: usize) -> Self {
        let (outer, channels, inner) = layout.split(axis);
        let short = inner == 1 || (inner < Self::SHORT_CHANNEL && outer > inner);
        let (width, length, period, repeat) = match short {
            // Without an element, no parameter is repeated. What overflows has no element either, or more
            // than memory holds.
            true => (channels.saturating_mul(inner), 1, 1, inner.max(1)),
            false => (1, inner, channels, 1),
        };
        Self {
            len: layout.len(),
            width,
            axis: length,
            size: length,
            period,
            repeat,
            groups: channels,
            order: None,
        }
    }

    /// A group for each `size` consecutive elements along an axis, the last one shorter where `size` does
    /// not divide the axis.
    ///
    /// # Panics
    /// Where the layout has no such axis, or `size` is 0.
    pub fn per_group(layout: &Layout, axis: usize, size: usize) -> Self {
        let (outer, length, inner) = layout.split(axis);
        let order = (!layout.is_row_major()).then(|| layout.with_axis(axis, length.div_ceil(size)));
        // It overflows only where another axis is empty, or for more elements than memory holds.
        let period = outer.saturating_mul(length.div_ceil(size));
        Self {
            len: layout.len(),
            width: inner,
            axis: length,
            size: size.min(length),
            period,
            repeat: 1,
            groups: period.saturating_mul(inner),
            order: order.map(Box::new),
        }
    }

    /// The number of elements.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The runs of a range of elements, in order, the first and the last cut off where the range
    /// begins and ends.
    ///
    /// # Panics
    /// Where the range goes beyond the elements.
    #[inline(always)]
    pub fn runs(&self, range: Range<usize>) -> Runs<'_> {
        assert!(range.end <= self.len, "elements up to {}", range.end);
        let mut runs = Runs {
            tiles: self,
            range: range.clone(),
            group: 0,
            group_end: 0,
            block_end: 0,
        };
        if !range.is_empty() {
            let block_len = self.axis * self.width;
            // Divisions take a good part of a small tensor's time.
            let (block, offset) = match range.start {
                0 => (0, 0),
                start => (start / block_len, start % block_len),
            };
            let group = match offset {
                0 => 0,
                offset => offset / (self.size * self.width),
            };
            let start = block * block_len;
            runs.block_end = start + block_len;
            runs.group_end = runs
                .block_end
                .min(start + (group + 1) * self.size * self.width);
            if range.start > 0 {
                runs.group = (block * self.axis.div_ceil(self.size) + group) % self.period;
            }
        }
        runs
    }

    /// The number of elements of a run of [`runs`](Self::runs) that has one parameter, but for the last run
    /// of an axis; 0 where an element has its own.
    pub(crate) fn uniform_run(&self) -> usize {
        match self.width {
            1 => self.size,
            _ => 0,
        }
    }

    /// The number of elements of a group, where each group lies in one piece and all are of one size.
    pub fn size_of_consecutive_groups(&self) -> Option<usize> {
        let consecutive = self.width == 1 && self.period.checked_mul(self.size) == Some(self.len);
        (consecutive && self.len > 0).then_some(self.size)
    }

    /// Where the elements of a group lie; `group` is its index in memory order.
    ///
    /// # Panics
    /// Where the tensor has no element; the place of a group that there is not has no meaning, or panics.
    pub fn group(&self, group: usize) -> GroupElements {
        let &Self {
            len,
            width,
            axis,
            size,
            repeat,
            ..
        } = self;
        let (first, column) = (group * repeat / width, group * repeat % width);
        let of_block = axis.div_ceil(size);
        let (block, group) = (first / of_block, first % of_block);
        // After how many blocks the parameters begin anew, and how often they do.
        let period = self.period / of_block;
        let repeats = len / (axis * width) / period;
        let rows = size.min(axis - group * size);
        let start = (block * axis + group * size) * width + column;
        let (count, stride, len) = match (width, repeats) {
            (1, _) => (repeats, period * axis, rows),
            (_, 1) => (rows, width, repeat),
            _ => (repeats, period * axis * width, repeat),
        };
        GroupElements {
            start,
            count,
            stride,
            len,
        }
    }

    /// How many times each parameter stands in the runs' parameter ranges.
    #[inline]
    pub fn repeat(&self) -> usize {
        self.repeat
    }

    /// The number of elements of each group, in memory order.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for so many groups.
    pub fn elements_per_group(&self) -> Result<Vec<usize>, NoMemory> {
        if self.len == 0 {
            return repeated(0, self.groups());
        }
        let elements = (0..self.groups()).map(|group| self.group(group));
        collected(elements.map(|elements| elements.count * elements.len))
    }

    /// The number of groups.
    #[inline]
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// One value a group, from memory order to row-major order.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for values that have to be moved.
    #[inline]
    pub fn into_row_major<T: Copy>(&self, values: Vec<T>) -> Result<Vec<T>, NoMemory> {
        match &self.order {
            None => Ok(values),
            Some(order) => order.into_row_major(values),
        }
    }

    /// One value a group, from row-major order to memory order.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for values that have to be moved.
    #[inline]
    pub fn to_memory_order<'a, T: Copy>(&self, values: &'a [T]) -> Result<Cow<'a, [T]>, NoMemory> {
        match &self.order {
            None => Ok(Cow::Borrowed(values)),
            Some(order) => order.to_memory_order(values),
        }
    }
}

/// The runs of a range of elements: see [`Tiles::runs`].
#[derive(Clone, Debug)]
pub struct Runs<'a> {
    tiles: &'a Tiles,
    /// What is left of the range.
    range: Range<usize>,
    /// The group of the first element that is left, and where it and its block end.
    group: usize,
    group_end: usize,
    block_end: usize,
}

impl Iterator for Runs<'_> {
    type Item = Tile;

    #[inline(always)]
    fn next(&mut self) -> Option<Tile> {
        let &Tiles {
            width,
            axis,
            size,
            period,
            ..
        } = self.tiles;
        let start = self.range.start;
        if start >= self.range.end {
            return None;
        }
        if start == self.group_end {
            self.group = if self.group + 1 == period {
                0
            } else {
                self.group + 1
            };
            if start == self.block_end {
                self.block_end += axis * width;
            }
            self.group_end = self.block_end.min(start + size * width);
        }
        let (end, params) = match width {
            1 => (
                self.group_end.min(self.range.end),
                self.group..self.group + 1,
            ),
            _ => {
                let column = start % width;
                let end = (start - column + width).min(self.range.end);
                let first = self.group * width + column;
                (end, first..first + (end - start))
            }
        };
        self.range.start = end;
        Some(Tile {
            elements: start..end,
            params,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Which groups there are.
    #[derive(Clone, Copy, Debug)]
    enum Groups {
        All,
        Channels(usize),
        Sized(usize, usize),
    }

    impl Groups {
        fn tiles(self, layout: &Layout) -> Tiles {
            match self {
                Self::All => Tiles::per_tensor(layout),
                Self::Channels(axis) => Tiles::per_channel(layout, axis),
                Self::Sized(axis, size) => Tiles::per_group(layout, axis, size),
            }
        }
    }

    /// The parameter of each element, by runs of every partition into two pieces.
    fn check(shape: &[usize], groups: Groups, expected: impl Fn(usize) -> usize) {
        let layout = Layout::row_major(shape);
        let tiles = groups.tiles(&layout);
        for cut in 0..=layout.len() {
            let mut params = Vec::new();
            for piece in [0..cut, cut..layout.len()] {
                let mut next = piece.start;
                for run in tiles.runs(piece.clone()) {
                    assert_eq!(run.elements.start, next);
                    next = run.elements.end;
                    match run.params.len() {
                        1 => params.extend(run.elements.map(|_| run.params.start)),
                        _ => params.extend(run.params.clone()),
                    }
                }
                assert_eq!(next, piece.end.max(piece.start));
            }
            let params: Vec<usize> = params.into_iter().map(|p| p / tiles.repeat()).collect();
            let expected: Vec<usize> = (0..layout.len()).map(&expected).collect();
            assert_eq!(params, expected, "{shape:?} {groups:?} cut at {cut}");
        }
    }

    #[test]
    fn an_empty_tensor_has_no_runs_whatever_its_other_axes() {
        let (most, big) = (usize::MAX, 1 << 40);
        for shape in [[0, most, most], [big, big, 0], [big, 0, big], [9, 3, 0]] {
            let layout = Layout::row_major(&shape);
            let by_axis = |axis| [Groups::Channels(axis), Groups::Sized(axis, 1)];
            for groups in (0..3).flat_map(by_axis).chain([Groups::All]) {
                let tiles = groups.tiles(&layout);
                assert_eq!(
                    (tiles.len(), tiles.runs(0..0).count()),
                    (0, 0),
                    "{groups:?}"
                );
                if tiles.groups() < 100 {
                    let ranges = crate::min_max(crate::FloatSlice::F32(&[]), &tiles).unwrap();
                    assert_eq!(ranges.map(|r| r.min.len()), Some(tiles.groups()));
                }
            }
        }
    }

    #[test]
    fn runs_give_each_element_the_parameter_of_its_group() {
        check(&[7, 3], Groups::All, |_| 0);
        check(&[2, 3, 5], Groups::Channels(1), |i| i / 5 % 3);
        check(&[9, 3, 5], Groups::Channels(1), |i| i / 5 % 3);
        check(&[4, 3], Groups::Channels(1), |i| i % 3);
        check(&[3, 7], Groups::Sized(1, 3), |i| i / 7 * 3 + i % 7 / 3);
        check(&[3, 7], Groups::Sized(1, 99), |i| i / 7);
        check(&[2, 5, 3], Groups::Sized(1, 2), |i| {
            (i / 15 * 3 + i / 3 % 5 / 2) * 3 + i % 3
        });
        check(&[0, 3], Groups::Channels(0), |_| 0);
    }

    fn groups() -> impl Strategy<Value = Groups> {
        prop_oneof![
            Just(Groups::All),
            (0_usize..3).prop_map(Groups::Channels),
            (0_usize..3, 1_usize..6).prop_map(|(axis, size)| Groups::Sized(axis, size)),
        ]
    }

    proptest! {
        #[test]
        fn the_groups_hold_what_their_tiles_hold(
            shape in proptest::collection::vec(1_usize..6, 3),
            long in 1_usize..90,
            groups in groups(),
            order in Just([0, 1, 2]).prop_shuffle(),
        ) {
            let mut shape = shape;
            shape[2] = long;
            let mut strides = vec![0_isize; 3];
            let mut next = 1;
            for &axis in order.iter().rev() {
                strides[axis] = next;
                next *= shape[axis] as isize;
            }
            let layout = Layout::dense(&shape, &strides).unwrap();
            let tiles = groups.tiles(&layout);
            let mut by_tiles = vec![Vec::new(); tiles.groups()];
            for tile in tiles.runs(0..layout.len()) {
                for (j, element) in tile.elements.clone().enumerate() {
                    let param = if tile.params.len() == 1 { 0 } else { j };
                    by_tiles[(tile.params.start + param) / tiles.repeat()].push(element);
                }
            }
            let elements: Vec<usize> = (0..layout.len()).collect();
            let mut buffer = Vec::new();
            for (group, expected) in by_tiles.iter().enumerate() {
                let actual = tiles.group(group).gather(&elements, &mut buffer).unwrap();
                prop_assert_eq!(actual, expected);
            }
        }
    }
}
