//! The exact smallest and largest value of each group.

use std::sync::Mutex;

use smallvec::smallvec;

use crate::dtype::{Compute, Float};
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::PerGroup;
use crate::kernel::parallel::{self, piece_len};
use crate::tiles::Tiles;

/// The smallest and the largest value of each group, in memory order.
pub(crate) struct MinMax<C> {
    pub min: PerGroup<C>,
    pub max: PerGroup<C>,
    /// Whether every value was finite. The others mean nothing where one was not.
    pub finite: bool,
}

/// min and max, and the sum of x·0, which is NaN where an x is NaN or infinite.
///
/// Independent lanes, so that the compiler may keep them in vectors: min and max of finite
/// values do not depend on the order.
struct Lanes<C> {
    min: [C; LANES],
    max: [C; LANES],
    zero: [C; LANES],
}

const LANES: usize = 32;

impl<C: Compute> Lanes<C> {
    #[inline(always)]
    fn new() -> Self {
        let (infinity, zero) = (C::infinity(), C::zero());
        Self {
            min: [infinity; LANES],
            max: [-infinity; LANES],
            zero: [zero; LANES],
        }
    }

    #[inline(always)]
    fn add(&mut self, lane: usize, x: C) {
        self.min[lane] = smaller(x, self.min[lane]);
        self.max[lane] = larger(x, self.max[lane]);
        self.zero[lane] = self.zero[lane] + x * C::zero();
    }

    #[inline(always)]
    fn add_all(&mut self, x: &[C]) {
        let chunks = x.chunks_exact(LANES);
        let rest = chunks.remainder();
        for chunk in chunks {
            for (lane, &x) in chunk.iter().enumerate() {
                self.add(lane, x);
            }
        }
        for (lane, &x) in rest.iter().enumerate() {
            self.add(lane, x);
        }
    }

    #[inline(always)]
    fn finish(&self) -> (C, C, bool) {
        let mut min = C::infinity();
        let mut max = -min;
        let mut zero = C::zero();
        for lane in 0..LANES {
            min = smaller(self.min[lane], min);
            max = larger(self.max[lane], max);
            zero = zero + self.zero[lane];
        }
        (min, max, zero == C::zero())
    }
}

#[inline(always)]
fn smaller<C: Compute>(x: C, least: C) -> C {
    if x < least { x } else { least }
}

#[inline(always)]
fn larger<C: Compute>(x: C, most: C) -> C {
    if x > most { x } else { most }
}

/// The range of each group of `data`.
pub(crate) fn min_max<F: Float>(data: &[F], tiles: &Tiles) -> MinMax<F::Compute> {
    let n = piece_len(data.len());
    let empty = || MinMax::<F::Compute>::empty(tiles.groups() * tiles.repeat());
    let all = Mutex::new(empty());
    let work = |ranges: &mut MinMax<F::Compute>, (i, data): (usize, &[F])| {
        extend(data, tiles, i * n, ranges);
    };
    // The extrema of finite values do not depend on which thread finds them.
    let merge = |ranges| all.lock().unwrap_or_else(|e| e.into_inner()).merge(ranges);
    parallel::for_each(data.chunks(n).enumerate(), empty, work, merge);
    let mut all = all.into_inner().unwrap_or_else(|e| e.into_inner());
    if tiles.repeat() > 1 {
        all.min = fold_repeats(&all.min, tiles.repeat(), smaller);
        all.max = fold_repeats(&all.max, tiles.repeat(), larger);
    }
    all
}

impl<C: Compute> MinMax<C> {
    /// That of no elements, `width` times.
    fn empty(width: usize) -> Self {
        Self {
            min: smallvec![C::infinity(); width],
            max: smallvec![-C::infinity(); width],
            finite: true,
        }
    }

    fn merge(&mut self, other: Self) {
        self.finite &= other.finite;
        for (a, b) in self.min.iter_mut().zip(other.min) {
            *a = smaller(b, *a);
        }
        for (a, b) in self.max.iter_mut().zip(other.max) {
            *a = larger(b, *a);
        }
    }
}

per_isa! {
    /// Extends `ranges` by the values of a piece of the tensor that starts at offset `first`.
    fn extend[F: Float][F](
        data: &[F],
        tiles: &Tiles,
        first: usize,
        ranges: &mut MinMax<F::Compute>,
    ) -> () {
        let MinMax { min, max, finite } = ranges;
        let mut buffer = [std::mem::MaybeUninit::uninit(); crate::dtype::HALF_BLOCK];
        for tile in tiles.runs(first..first + data.len()) {
            let elements = &data[tile.elements.start - first..tile.elements.end - first];
            if tile.params.len() == 1 {
                let mut lanes = Lanes::new();
                for block in elements.chunks(F::BLOCK) {
                    lanes.add_all(F::widen_block(block, &mut buffer));
                }
                let (least, most, all_finite) = lanes.finish();
                let group = tile.params.start;
                min[group] = smaller(least, min[group]);
                max[group] = larger(most, max[group]);
                *finite &= all_finite;
            } else {
                let min = min[tile.params.clone()].chunks_mut(F::BLOCK);
                let max = max[tile.params].chunks_mut(F::BLOCK);
                for ((block, min), max) in elements.chunks(F::BLOCK).zip(min).zip(max) {
                    let x = F::widen_block(block, &mut buffer);
                    *finite &= row_min_max(x, min, max);
                }
            }
        }
    }
}

#[inline(always)]
fn row_min_max<C: Compute>(x: &[C], min: &mut [C], max: &mut [C]) -> bool {
    let mut bad = 0_u32;
    for ((&x, min), max) in x.iter().zip(min).zip(max) {
        *min = smaller(x, *min);
        *max = larger(x, *max);
        bad |= u32::from(x * C::zero() != C::zero());
    }
    bad == 0
}

#[inline(always)]
fn fold_repeats<C: Compute>(values: &[C], repeat: usize, pick: fn(C, C) -> C) -> PerGroup<C> {
    let fold = |group: &[C]| group[1..].iter().fold(group[0], |a, &b| pick(a, b));
    values.chunks_exact(repeat).map(fold).collect()
}
