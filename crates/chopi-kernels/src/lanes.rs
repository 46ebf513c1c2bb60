//! The numbers of each group as the loops read them.

use std::ops::Range;

use smallvec::SmallVec;

use crate::float::Compute;
use crate::memory::{NoMemory, with_room};
use crate::recipe::Recipe;
use crate::tiles::{Runs, Tile, Tiles};
use crate::vector::MAX_LANES;

/// A number for each group; one is kept without an allocation.
pub type PerGroup<C> = SmallVec<[C; 1]>;

/// The zero point of each group, by their type.
#[derive(Clone, Copy, Debug)]
pub enum ZeroPointSlice<'a> {
    /// Integers of at most 53 bits.
    Integers(&'a [i64]),
    /// Real numbers.
    Reals(&'a [f64]),
}

impl ZeroPointSlice<'_> {
    /// The number of groups.
    #[inline]
    pub fn len(&self) -> usize {
        match self {
            Self::Integers(zero_points) => zero_points.len(),
            Self::Reals(zero_points) => zero_points.len(),
        }
    }

    /// Whether there is no group.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// What a loop computes with: a recipe, the numbers of each group, and which elements they belong to.
///
/// The numbers are in the row-major order of the groups.
#[derive(Clone, Debug)]
pub struct Params<'a> {
    recipe: Recipe,
    tiles: Tiles,
    scale: &'a [f64],
    reciprocal: PerGroup<f64>,
    zero_point: ZeroPointSlice<'a>,
}

impl<'a> Params<'a> {
    /// `reciprocal` is 1/s of each group as the recipe multiplies by it, or empty where the recipe
    /// divides.
    ///
    /// # Panics
    /// Where qmin > qmax, the tiles have another number of groups, or the recipe multiplies and there are
    /// no reciprocals.
    #[inline]
    pub fn new(
        recipe: Recipe,
        tiles: Tiles,
        scale: &'a [f64],
        reciprocal: PerGroup<f64>,
        zero_point: ZeroPointSlice<'a>,
    ) -> Self {
        let (qmin, qmax) = (recipe.qmin, recipe.qmax);
        assert!(qmin <= qmax, "no codes in {qmin}..={qmax}");
        let groups = tiles.groups();
        let reciprocals = if recipe.steps.multiplies() { groups } else { 0 };
        let counts = (scale.len(), zero_point.len(), reciprocal.len());
        assert_eq!(counts, (groups, groups, reciprocals), "numbers of groups");
        Self {
            recipe,
            tiles,
            scale,
            reciprocal,
            zero_point,
        }
    }

    /// What is done with an element.
    #[inline]
    pub fn recipe(&self) -> &Recipe {
        &self.recipe
    }

    /// Which elements belong to which group.
    #[inline]
    pub fn tiles(&self) -> &Tiles {
        &self.tiles
    }

    /// Whether the codes, the zero points and their differences are small enough for the arithmetic of
    /// `C` to be exact on them, so that codes can be computed in vectors of it.
    pub(crate) fn fit<C: Compute>(&self) -> bool {
        let (recipe, limit) = (&self.recipe, C::MAGIC_LIMIT);
        match self.zero_point {
            ZeroPointSlice::Integers(zero_points) => {
                recipe.fits(limit, zero_points.iter().map(|&zero| zero as f64))
            }
            ZeroPointSlice::Reals(zero_points) => recipe.fits(limit, zero_points.iter().copied()),
        }
    }

    /// Whether (q − z)·s can be computed in vectors of `C` too.
    pub(crate) fn values_fit<C: Compute>(&self) -> bool {
        self.fit::<C>() && !self.recipe.narrow_product
    }
}

/// Numbers of groups, or of the elements of a row; a few are kept without an allocation.
type LaneList<C> = SmallVec<[C; FEW]>;
const FEW: usize = 16;

/// The numbers of each group in the type `C`, in the memory order of the tensor and repeated as its
/// tiles say.
#[derive(Debug)]
pub(crate) struct Lanes<C> {
    scale: LaneList<C>,
    /// 1/s; empty where the recipe divides.
    reciprocal: LaneList<C>,
    zero: LaneList<C>,
}

impl<C: Compute> Lanes<C> {
    /// No numbers yet: [`fill`](Self::fill) writes them where they lie, as to move them would take a good part
    /// of a small tensor's time.
    #[inline(always)]
    pub fn new() -> Self {
        Self {
            scale: LaneList::new(),
            reciprocal: LaneList::new(),
            zero: LaneList::new(),
        }
    }

    /// Fills in the numbers, of which there are none yet.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for them.
    #[inline]
    pub fn fill(&mut self, params: &Params<'_>) -> Result<(), NoMemory> {
        let tiles = &params.tiles;
        fill(&mut self.scale, params.scale, tiles, C::from_f64)?;
        fill(&mut self.reciprocal, &params.reciprocal, tiles, C::from_f64)?;
        match params.zero_point {
            ZeroPointSlice::Integers(zero_points) => {
                fill(&mut self.zero, zero_points, tiles, |zero| {
                    C::from_f64(zero as f64)
                })
            }
            ZeroPointSlice::Reals(zero_points) => {
                fill(&mut self.zero, zero_points, tiles, C::from_f64)
            }
        }
    }

    /// [`new`](Self::new) and [`fill`](Self::fill), where the few nanoseconds of a result that is moved do
    /// not count.
    pub fn filled(params: &Params<'_>) -> Result<Self, NoMemory> {
        let mut lanes = Self::new();
        lanes.fill(params)?;
        Ok(lanes)
    }

    /// The numbers of the elements of a block.
    #[inline(always)]
    pub fn block(&self, params: Range<usize>) -> LaneBlock<'_, C> {
        self.all().part(params)
    }

    /// The numbers of all blocks.
    #[inline(always)]
    pub fn all(&self) -> LaneBlock<'_, C> {
        LaneBlock {
            divisor: match self.reciprocal.is_empty() {
                true => &self.scale,
                false => &self.reciprocal,
            },
            scale: &self.scale,
            zero: &self.zero,
        }
    }
}

/// Fills a list that is empty with the numbers of groups, given in row-major order.
#[inline(always)]
fn fill<T: Copy, C: Compute>(
    list: &mut LaneList<C>,
    values: &[T],
    tiles: &Tiles,
    number: impl Fn(T) -> C,
) -> Result<(), NoMemory> {
    match *values {
        [] => {}
        // Without a loop.
        [value] if tiles.repeat() == 1 => list.push(number(value)),
        _ => fill_groups(
            list,
            &tiles.to_memory_order(values)?,
            tiles.repeat(),
            number,
        )?,
    }
    Ok(())
}

#[inline(never)]
fn fill_groups<T: Copy, C: Compute>(
    list: &mut LaneList<C>,
    values: &[T],
    repeat: usize,
    number: impl Fn(T) -> C,
) -> Result<(), NoMemory> {
    let len = values.len().saturating_mul(repeat);
    let numbers = values.iter().map(|&value| number(value));
    if len > FEW {
        // A vector is quicker to fill than the list itself.
        let mut numbers_of_all = with_room(len)?;
        match repeat {
            1 => numbers_of_all.extend(numbers),
            _ => numbers.for_each(|number| {
                numbers_of_all.resize(numbers_of_all.len() + repeat, number);
            }),
        }
        *list = LaneList::from_vec(numbers_of_all);
        return Ok(());
    }
    let mut few = [C::zero(); FEW];
    match repeat {
        1 => few
            .iter_mut()
            .zip(numbers)
            .for_each(|(to, number)| *to = number),
        _ => (few.chunks_exact_mut(repeat).zip(numbers)).for_each(|(to, number)| to.fill(number)),
    }
    *list = LaneList::from_buf_and_len(few, len);
    Ok(())
}

/// The numbers of the elements of a block, one for all or one for each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneBlock<'a, C> {
    /// What x is divided by, s, or multiplied with, 1/s.
    pub divisor: &'a [C],
    pub scale: &'a [C],
    pub zero: &'a [C],
}

impl<C: Compute> LaneBlock<'_, C> {
    /// The numbers of some of the elements.
    #[inline(always)]
    pub fn part(&self, params: Range<usize>) -> Self {
        Self {
            divisor: &self.divisor[params.clone()],
            scale: &self.scale[params.clone()],
            zero: &self.zero[params],
        }
    }

    /// Whether all elements have the same numbers.
    #[inline(always)]
    pub fn is_uniform(&self) -> bool {
        self.zero.len() == 1
    }

    /// The numbers of as many elements as a vector has at most, where there are fewer.
    #[inline(always)]
    pub fn padded(&self) -> PaddedBlock<C> {
        let padded = |values: &[C]| {
            let mut padded = [C::one(); MAX_LANES];
            padded[..values.len()].copy_from_slice(values);
            padded
        };
        PaddedBlock {
            divisor: padded(self.divisor),
            scale: padded(self.scale),
            zero: padded(self.zero),
            len: if self.is_uniform() { 1 } else { MAX_LANES },
        }
    }
}

/// The most elements of [`Merged`] blocks, but for a vector that may be written beyond.
const ROOM: usize = 2 * MAX_LANES;

/// The numbers of several blocks that are shorter than a vector, one for each element.
pub(crate) struct Merged<C> {
    divisor: [C; ROOM + MAX_LANES],
    scale: [C; ROOM + MAX_LANES],
    zero: [C; ROOM + MAX_LANES],
    /// Whether the divisors are the scales.
    divides: bool,
    len: usize,
}

impl<C: Compute> Merged<C> {
    /// No blocks yet.
    #[inline(always)]
    pub fn new() -> Self {
        Self {
            divisor: [C::one(); ROOM + MAX_LANES],
            scale: [C::one(); ROOM + MAX_LANES],
            zero: [C::one(); ROOM + MAX_LANES],
            divides: false,
            len: 0,
        }
    }

    /// Whether there is room for `n` elements more.
    #[inline(always)]
    pub fn has_room(&self, n: usize) -> bool {
        self.len + n <= ROOM
    }

    /// Adds a block of `n` elements, for which there is room, and which are fewer than a vector has.
    #[inline(always)]
    pub fn push(&mut self, block: LaneBlock<'_, C>, n: usize) {
        self.divides = std::ptr::eq(block.divisor, block.scale);
        for (to, from, needed) in [
            (&mut self.divisor, block.divisor, !self.divides),
            (&mut self.scale, block.scale, true),
            (&mut self.zero, block.zero, true),
        ] {
            let to = &mut to[self.len..][..MAX_LANES];
            match block.is_uniform() {
                _ if !needed => {}
                // A vector, as long as any block may be: the next block is written over the rest.
                true => to.fill(from[0]),
                false => to[..n].copy_from_slice(from),
            }
        }
        self.len += n;
    }

    /// The block of all.
    #[inline(always)]
    pub fn block(&self) -> LaneBlock<'_, C> {
        let divisor = match self.divides {
            true => &self.scale,
            false => &self.divisor,
        };
        LaneBlock {
            divisor: &divisor[..self.len],
            scale: &self.scale[..self.len],
            zero: &self.zero[..self.len],
        }
    }
}

/// The numbers of a block that is shorter than a vector, made as long where they are one for each
/// element.
pub(crate) struct PaddedBlock<C> {
    divisor: [C; MAX_LANES],
    scale: [C; MAX_LANES],
    zero: [C; MAX_LANES],
    len: usize,
}

impl<C> PaddedBlock<C> {
    #[inline(always)]
    pub fn block(&self) -> LaneBlock<'_, C> {
        LaneBlock {
            divisor: &self.divisor[..self.len],
            scale: &self.scale[..self.len],
            zero: &self.zero[..self.len],
        }
    }
}

/// The blocks of the runs of a piece of a tensor, in order: they are at most `size` elements long, and
/// their parameters are one or as many. `piece` is its range in the tensor; each block is a range in the
/// piece, with the range of its parameters.
///
/// An iterator, not a function that takes a closure: a closure need not be compiled for the instruction set
/// of the loop that it stands in.
#[inline(always)]
pub(crate) fn blocks(tiles: &Tiles, piece: Range<usize>, size: usize) -> Blocks<'_> {
    Blocks {
        first: piece.start,
        size,
        rest: Tile {
            elements: piece.start..piece.start,
            params: 0..0,
        },
        runs: tiles.runs(piece),
    }
}

/// See [`blocks`].
pub(crate) struct Blocks<'a> {
    first: usize,
    size: usize,
    /// What is left of the run.
    rest: Tile,
    runs: Runs<'a>,
}

impl Iterator for Blocks<'_> {
    type Item = (Range<usize>, Range<usize>);

    #[inline(always)]
    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.elements.is_empty() {
            self.rest = self.runs.next()?;
        }
        let Tile { elements, params } = &mut self.rest;
        let (start, end) = (elements.start, elements.end.min(elements.start + self.size));
        elements.start = end;
        let of_block = match params.len() {
            1 => params.clone(),
            _ => {
                let first = params.start;
                params.start += end - start;
                first..params.start
            }
        };
        Some((start - self.first..end - self.first, of_block))
    }
}
