//! The exact smallest and largest value of each group.

use std::sync::Mutex;

use crate::element::Element;
use crate::float::Compute;
use crate::isa::{Loop, dispatch};
use crate::lanes::PerGroup;
use crate::match_float;
use crate::memory::{NoMemory, collected};
use crate::parallel::{self, piece_len};
use crate::slice::FloatSlice;
use crate::tiles::Tiles;
use crate::vector::{Arch, MAX_LANES, Mask, Vector, prefetch};

/// The smallest and the largest value of each group, in row-major order; −0.0 counts as +0.0, so that
/// the order of the data cannot be seen.
#[derive(Clone, Debug, PartialEq)]
pub struct MinMax {
    /// The smallest value of each group; infinity for a group of none.
    pub min: Vec<f64>,
    /// The largest value of each group; −infinity for a group of none.
    pub max: Vec<f64>,
}

/// The range of each group of `data`, or none where a value is NaN or infinite.
///
/// # Errors
/// [`NoMemory`] where there is none for the ranges of so many groups.
///
/// # Panics
/// Where `data` is not as long as the tiles say.
pub fn min_max(data: FloatSlice<'_>, tiles: &Tiles) -> Result<Option<MinMax>, NoMemory> {
    assert_eq!(data.len(), tiles.len(), "numbers of elements");
    match_float!(FloatSlice, data, data => min_max_floats(data, tiles))
}

fn min_max_floats<F: Element>(data: &[F], tiles: &Tiles) -> Result<Option<MinMax>, NoMemory> {
    let width = tiles.groups().saturating_mul(tiles.repeat());
    let mut all = Extrema::new();
    all.make_room(width)?;
    let extend = |extrema: &mut Extrema<F::Compute>, first: usize, data: &[F]| {
        dispatch(Extend {
            data,
            tiles,
            first,
            extrema,
        });
    };
    let n = piece_len(data.len());
    if data.len() <= n {
        extend(&mut all, 0, data);
    } else {
        let shared = Mutex::new((&mut all, Ok(())));
        let start = || {
            let mut extrema = Extrema::new();
            extrema.make_room(width).map(|()| extrema)
        };
        type Piece<'a, F> = (usize, &'a [F]);
        let work = |extrema: &mut Result<Extrema<F::Compute>, NoMemory>,
                    (i, data): Piece<'_, F>| {
            if let Ok(extrema) = extrema {
                extend(extrema, i * n, data);
            }
        };
        // The extrema of finite values do not depend on which thread finds them.
        let merge = |extrema: Result<Extrema<F::Compute>, NoMemory>| {
            let mut shared = shared.lock().unwrap_or_else(|e| e.into_inner());
            match extrema {
                Ok(extrema) => shared.0.merge(extrema),
                Err(error) => shared.1 = Err(error),
            }
        };
        parallel::for_each(data.chunks(n).enumerate(), start, work, merge);
        shared.into_inner().unwrap_or_else(|e| e.into_inner()).1?;
    }
    if !all.finite {
        return Ok(None);
    }
    let of_groups = |values: &[F::Compute], pick: fn(F::Compute, F::Compute) -> F::Compute| {
        let groups = values.chunks_exact(tiles.repeat());
        let of_group = |group: &[F::Compute]| {
            let first = group[0];
            group[1..].iter().fold(first, |a, &b| pick(a, b)).as_f64() + 0.0
        };
        tiles.into_row_major(collected(groups.map(of_group))?)
    };
    Ok(Some(MinMax {
        min: of_groups(&all.min, smaller)?,
        max: of_groups(&all.max, larger)?,
    }))
}

#[inline(always)]
fn smaller<C: Compute>(x: C, least: C) -> C {
    if x < least { x } else { least }
}

#[inline(always)]
fn larger<C: Compute>(x: C, most: C) -> C {
    if x > most { x } else { most }
}

/// The smallest and the largest value of each parameter's elements, in memory order.
struct Extrema<C> {
    min: PerGroup<C>,
    max: PerGroup<C>,
    /// Whether every value was finite. The others mean nothing where one was not.
    finite: bool,
}

impl<C: Compute> Extrema<C> {
    /// No extrema yet.
    fn new() -> Self {
        Self {
            min: PerGroup::new(),
            max: PerGroup::new(),
            finite: true,
        }
    }

    /// Makes them the extrema of no elements, `width` times.
    fn make_room(&mut self, width: usize) -> Result<(), NoMemory> {
        for (list, value) in [
            (&mut self.min, C::infinity()),
            (&mut self.max, -C::infinity()),
        ] {
            list.try_reserve_exact(width)
                .map_err(|_| NoMemory::of::<C>(width))?;
            list.resize(width, value);
        }
        Ok(())
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

/// Extends the extrema by the values of a piece of the tensor that starts at index `first`.
struct Extend<'a, F: Element> {
    data: &'a [F],
    tiles: &'a Tiles,
    first: usize,
    extrema: &'a mut Extrema<F::Compute>,
}

impl<F: Element> Loop for Extend<'_, F> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        let Self {
            data,
            tiles,
            first,
            extrema,
        } = self;
        let Extrema { min, max, finite } = extrema;
        for tile in tiles.runs(first..first + data.len()) {
            let (elements, params) = tile.within(first);
            let (x, min, max) = (&data[elements], &mut min[params.clone()], &mut max[params]);
            *finite &= extend(arch, x, min, max);
        }
    }
}

/// How many vectors are in work at once.
const CHAINS: usize = 4;

/// Extends the range of a run, or that of each of its elements; returns whether all are finite.
#[inline(always)]
pub(crate) fn extend<F: Element, A: Arch>(
    arch: A,
    x: &[F],
    min: &mut [F::Compute],
    max: &mut [F::Compute],
) -> bool {
    let lanes = <F::Vector<A>>::LANES;
    let n = x.len();
    if n < lanes {
        let mut finite = true;
        for (i, x) in x.iter().enumerate() {
            let (x, i) = (x.widen(), if min.len() == 1 { 0 } else { i });
            (min[i], max[i]) = (smaller(x, min[i]), larger(x, max[i]));
            finite &= num_traits::Float::is_finite(x);
        }
        return finite;
    }
    let splat = |x| F::Vector::splat(arch, x);
    let zero = splat(F::Compute::default());
    // What is left for a last vector overlaps the one before: the extrema do not change by it.
    let offsets = |from: usize| (from..n).step_by(lanes).map(move |i| i.min(n - lanes));
    if min.len() > 1 {
        let mut sum = zero;
        for i in offsets(0) {
            let x = F::load(arch, &x[i..]);
            let (min, max) = (&mut min[i..i + lanes], &mut max[i..i + lanes]);
            store(x.min(Vector::load(arch, min)), min);
            store(x.max(Vector::load(arch, max)), max);
            sum = x.poison(sum);
        }
        return !sum.is_nan().any();
    }
    // Independent chains, so that no operation waits for the one before: the extrema of finite
    // values do not depend on the order.
    let mut chains = [(splat(min[0]), splat(max[0]), zero); CHAINS];
    let (size, mut done) = (CHAINS * lanes, 0);
    while done + size <= n {
        let block = &x[done..done + size];
        prefetch(block);
        for (chain, state) in chains.iter_mut().enumerate() {
            let x = F::load(arch, &block[chain * lanes..]);
            *state = (x.min(state.0), x.max(state.1), x.poison(state.2));
        }
        done += size;
    }
    let state = &mut chains[0];
    for i in offsets(done) {
        let x = F::load(arch, &x[i..]);
        *state = (x.min(state.0), x.max(state.1), x.poison(state.2));
    }
    let (mut least, mut most, mut sum) = chains[0];
    for &(min, max, other) in &chains[1..] {
        (least, most, sum) = (min.min(least), max.max(most), sum.add(other));
    }
    let mut buffer = [F::Compute::default(); MAX_LANES];
    let buffer = &mut buffer[..lanes];
    store(least, buffer);
    min[0] = buffer.iter().fold(min[0], |least, &x| smaller(x, least));
    store(most, buffer);
    max[0] = buffer.iter().fold(max[0], |most, &x| larger(x, most));
    !sum.is_nan().any()
}

/// Writes a vector over numbers.
#[inline(always)]
fn store<V: Vector>(vector: V, to: &mut [V::Scalar]) {
    vector.store(crate::element::as_uninit(to));
}
