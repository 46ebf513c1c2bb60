//! Parameters as the kernels read them.

use std::ops::Range;

use smallvec::SmallVec;

use crate::dtype::{Compute, FloatType};
use crate::kernel::vector::MAX_LANES;
use crate::qparams::QParams;
use crate::recipe::{Recipe, reciprocal};
use crate::tiles::Tiles;

/// The parameters of each group, an array for each number, in the memory order of the tensor and
/// repeated as its tiles say.
#[derive(Debug)]
pub(crate) struct Lanes<C> {
    /// s.
    pub scale: PerGroup<C>,
    /// 1/s, rounded; empty where the convention divides.
    pub inverse: PerGroup<C>,
    /// z.
    pub zero: PerGroup<C>,
}

/// A number for each group; one is kept without an allocation.
pub(crate) type PerGroup<C> = SmallVec<[C; 1]>;

impl<C: Compute> Lanes<C> {
    /// The parameters for data of type `float`.
    pub fn new(params: &QParams, tiles: &Tiles, float: FloatType) -> Self {
        let multiplies = Recipe::new(params, float).steps.multiplies();
        let repeat = tiles.repeat();
        let scale = tiles.to_memory_order(params.scale());
        let zero = per_group(params.scale().len(), params.zero_points());
        let zero = tiles.to_memory_order(&zero);
        let inverse = match multiplies {
            false => PerGroup::new(),
            true => each(&scale, repeat, |s| {
                C::from_f64(reciprocal(params, float, s))
            }),
        };
        Self {
            scale: each(&scale, repeat, C::from_f64),
            inverse,
            zero: each(&zero, repeat, C::from_f64),
        }
    }
}

/// `count` numbers; one without a loop, which took a good part of a small tensor's time.
fn per_group<C: Copy>(count: usize, mut values: impl Iterator<Item = C>) -> PerGroup<C> {
    match (count, values.next()) {
        (1, Some(value)) => PerGroup::from_buf([value]),
        (_, first) => first.into_iter().chain(values).collect(),
    }
}

/// `f` of each value, each result `repeat` times.
fn each<C: Copy>(values: &[f64], repeat: usize, f: impl Fn(f64) -> C) -> PerGroup<C> {
    if repeat == 1 {
        return per_group(values.len(), values.iter().map(|&v| f(v)));
    }
    values
        .iter()
        .flat_map(|&v| std::iter::repeat_n(f(v), repeat))
        .collect()
}

/// The parameters of the elements of a block, one for all or one for each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneBlock<'a, C> {
    pub scale: &'a [C],
    /// Empty where the convention divides.
    pub inverse: &'a [C],
    pub zero: &'a [C],
}

impl<C: Compute> Lanes<C> {
    #[inline(always)]
    pub fn block(&self, params: Range<usize>) -> LaneBlock<'_, C> {
        LaneBlock {
            scale: &self.scale[params.clone()],
            inverse: if self.inverse.is_empty() {
                &[]
            } else {
                &self.inverse[params.clone()]
            },
            zero: &self.zero[params],
        }
    }
}

/// The parameters of a block that is shorter than a vector, made as long, if they are one for each
/// element.
pub(crate) struct PaddedBlock<C> {
    scale: [C; MAX_LANES],
    inverse: [C; MAX_LANES],
    zero: [C; MAX_LANES],
    lanes: usize,
    has_inverse: bool,
}

impl<C: Compute> LaneBlock<'_, C> {
    /// The parameters, for `lanes` elements.
    pub fn padded(&self, lanes: usize) -> PaddedBlock<C> {
        let padded = |values: &[C]| {
            let mut padded = [C::one(); MAX_LANES];
            padded[..values.len()].copy_from_slice(values);
            padded
        };
        PaddedBlock {
            scale: padded(self.scale),
            inverse: padded(self.inverse),
            zero: padded(self.zero),
            lanes: if self.zero.len() == 1 { 1 } else { lanes },
            has_inverse: !self.inverse.is_empty(),
        }
    }
}

impl<C> PaddedBlock<C> {
    pub fn block(&self) -> LaneBlock<'_, C> {
        LaneBlock {
            scale: &self.scale[..self.lanes],
            inverse: &self.inverse[..if self.has_inverse { self.lanes } else { 0 }],
            zero: &self.zero[..self.lanes],
        }
    }
}

/// Calls `f(elements, params)` for each block of the runs of a piece of a tensor, in order: blocks
/// are at most `size` elements long, and their parameters are one or as many. `piece` is its range
/// in the tensor, `elements` a range in the piece.
#[inline(always)]
pub(crate) fn for_each_block(
    tiles: &Tiles,
    piece: Range<usize>,
    size: usize,
    mut f: impl FnMut(Range<usize>, Range<usize>),
) {
    let first = piece.start;
    for run in tiles.runs(piece) {
        let uniform = run.params.len() == 1;
        let (mut start, mut param) = (run.elements.start, run.params.start);
        while start < run.elements.end {
            let end = run.elements.end.min(start + size);
            let params = if uniform { 1 } else { end - start };
            f(start - first..end - first, param..param + params);
            if !uniform {
                param += params;
            }
            start = end;
        }
    }
}
