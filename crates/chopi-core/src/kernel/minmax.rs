//! The exact smallest and largest value of each group.

use std::sync::Mutex;

use smallvec::smallvec;

use crate::dtype::{Compute, Float};
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::PerGroup;
use crate::kernel::vector::{MAX_LANES, Vector, VectorExt, offsets, prefetch};
use crate::parallel::{self, piece_len};
use crate::tiles::Tiles;

/// The smallest and the largest value of each group, in memory order.
pub(crate) struct MinMax<C> {
    pub min: PerGroup<C>,
    pub max: PerGroup<C>,
    /// Whether every value was finite. The others mean nothing where one was not.
    pub finite: bool,
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
        for run_of in tiles.runs(first..first + data.len()) {
            let (elements, params) = run_of.within(first);
            let (x, min, max) = (&data[elements], &mut min[params.clone()], &mut max[params]);
            // SAFETY: this is compiled for the instruction set of `A`.
            *finite &= unsafe { run::<<F::Compute as Compute>::Vector<A>, F>(x, min, max) };
        }
    }
}

/// Extends the range of a run, or that of each of its elements; returns whether all are finite.
///
/// # Safety
/// That of [`Vector`].
#[inline(always)]
pub(crate) unsafe fn run<V, F>(x: &[F], min: &mut [F::Compute], max: &mut [F::Compute]) -> bool
where
    V: Vector<Scalar = F::Compute>,
    F: Float,
{
    let n = x.len();
    if n < V::LANES {
        let mut finite = true;
        for (i, x) in x.iter().enumerate() {
            let (x, i) = (x.widen(), if min.len() == 1 { 0 } else { i });
            (min[i], max[i]) = (smaller(x, min[i]), larger(x, max[i]));
            finite &= num_traits::Float::is_finite(x);
        }
        return finite;
    }
    let from = x.as_ptr();
    // SAFETY: the caller's; the offsets are those of whole vectors within the run, and where there
    // is more than one range, there are as many as elements.
    unsafe {
        let zero = V::splat(F::Compute::default());
        if min.len() > 1 {
            let mut sum = zero;
            let (min, max) = (min.as_mut_ptr(), max.as_mut_ptr());
            for i in offsets::<V>(0, n) {
                let x = V::load_elements(from.add(i));
                x.min(V::load(min.add(i))).store(min.add(i));
                x.max(V::load(max.add(i))).store(max.add(i));
                sum = x.poison(sum);
            }
            return !V::any(sum.is_nan());
        }
        // Independent chains, so that no operation waits for the one before: the extrema of finite
        // values do not depend on the order.
        let mut chains = [(V::splat(min[0]), V::splat(max[0]), zero); CHAINS];
        let mut i = 0;
        while i + CHAINS * V::LANES <= n {
            prefetch(from.wrapping_add(i), CHAINS * V::LANES);
            for (chain, state) in chains.iter_mut().enumerate() {
                let x = V::load_elements(from.add(i + chain * V::LANES));
                *state = (x.min(state.0), x.max(state.1), x.poison(state.2));
            }
            i += CHAINS * V::LANES;
        }
        // What is left, with elements from before it where it is shorter than a vector.
        let rest = (n - i).clamp(V::LANES, n);
        let (from, state) = (from.add(n - rest), &mut chains[0]);
        for i in offsets::<V>(0, rest) {
            let x = V::load_elements(from.add(i));
            *state = (x.min(state.0), x.max(state.1), x.poison(state.2));
        }
        let (mut least, mut most, mut sum) = chains[0];
        for &(min, max, other) in &chains[1..] {
            (least, most, sum) = (min.min(least), max.max(most), sum.add(other));
        }
        let mut lanes = [F::Compute::default(); MAX_LANES];
        least.store(lanes.as_mut_ptr());
        min[0] = lanes[..V::LANES]
            .iter()
            .fold(min[0], |least, &x| smaller(x, least));
        most.store(lanes.as_mut_ptr());
        max[0] = lanes[..V::LANES]
            .iter()
            .fold(max[0], |most, &x| larger(x, most));
        !V::any(sum.is_nan())
    }
}

/// How many vectors are in work at once.
const CHAINS: usize = 4;

#[inline(always)]
fn fold_repeats<C: Compute>(values: &[C], repeat: usize, pick: fn(C, C) -> C) -> PerGroup<C> {
    let fold = |group: &[C]| group[1..].iter().fold(group[0], |a, &b| pick(a, b));
    values.chunks_exact(repeat).map(fold).collect()
}
