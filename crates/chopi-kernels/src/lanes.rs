//! The numbers of each group as the loops read them.

use std::ops::Range;

use smallvec::SmallVec;

use crate::float::Compute;
use crate::memory::{NoMemory, fill_per_group, make_room_per_group};
use crate::recipe::Recipe;
use crate::tiles::{Runs, Tile, Tiles};
use crate::vector::MAX_LANES;

/// A number for each group; one is kept without an allocation.
pub type PerGroup<C> = SmallVec<[C; 1]>;

/// What a loop computes with: a recipe, the numbers of each group, and which elements they belong to.
///
/// The numbers are in the row-major order of the groups.
#[derive(Clone, Debug)]
pub struct Params<'a> {
    recipe: Recipe,
    tiles: Tiles,
    scale: &'a [f64],
    reciprocal: PerGroup<f64>,
    zero_point: PerGroup<f64>,
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
        zero_point: PerGroup<f64>,
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
        let zero_points = self.zero_point.iter().copied();
        self.recipe.fits(C::MAGIC_LIMIT, zero_points)
    }

    /// Whether (q − z)·s can be computed in vectors of `C` too.
    pub(crate) fn values_fit<C: Compute>(&self) -> bool {
        self.fit::<C>() && !self.recipe.narrow_product
    }
}

/// The numbers of each group in the type `C`, in the memory order of the tensor and repeated as its
/// tiles say.
#[derive(Debug)]
pub(crate) struct Lanes<C> {
    scale: PerGroup<C>,
    /// 1/s; empty where the recipe divides.
    reciprocal: PerGroup<C>,
    zero: PerGroup<C>,
}

impl<C: Compute> Lanes<C> {
    /// The numbers of one group, without a loop and an allocation, which took a good part of a small
    /// tensor's time; of several groups nothing yet, which [`fill`](Self::fill) changes.
    #[inline]
    pub fn new(params: &Params<'_>) -> Self {
        let is_repeated = params.tiles.repeat() > 1;
        let typed = |values: &[f64]| match *values {
            [value] if !is_repeated => PerGroup::from_buf([C::from_f64(value)]),
            _ => PerGroup::new(),
        };
        Self {
            scale: typed(params.scale),
            reciprocal: typed(&params.reciprocal),
            zero: typed(&params.zero_point),
        }
    }

    /// Fills in the numbers of several groups.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for them.
    #[inline]
    pub fn fill(&mut self, params: &Params<'_>) -> Result<(), NoMemory> {
        match self.zero.is_empty() {
            true => self.fill_groups(params),
            false => Ok(()),
        }
    }

    #[inline(never)]
    fn fill_groups(&mut self, params: &Params<'_>) -> Result<(), NoMemory> {
        let fill = |list: &mut PerGroup<C>, values: &[f64]| {
            if values.is_empty() {
                return Ok(());
            }
            let (tiles, repeat) = (&params.tiles, params.tiles.repeat());
            let values = tiles.to_memory_order(values)?;
            if repeat == 1 {
                return fill_per_group(list, values.iter().map(|&value| C::from_f64(value)));
            }
            make_room_per_group(list, values.len().saturating_mul(repeat))?;
            for &value in &*values {
                list.resize(list.len() + repeat, C::from_f64(value));
            }
            Ok(())
        };
        fill(&mut self.scale, params.scale)?;
        fill(&mut self.reciprocal, &params.reciprocal)?;
        fill(&mut self.zero, &params.zero_point)
    }

    /// [`new`](Self::new) and [`fill`](Self::fill), where the few nanoseconds of a result that is moved do
    /// not count.
    pub fn filled(params: &Params<'_>) -> Result<Self, NoMemory> {
        let mut lanes = Self::new(params);
        lanes.fill(params)?;
        Ok(lanes)
    }

    /// The numbers of the elements of a block.
    #[inline(always)]
    pub fn block(&self, params: Range<usize>) -> LaneBlock<'_, C> {
        let scale = &self.scale[params.clone()];
        LaneBlock {
            divisor: match self.reciprocal.is_empty() {
                true => scale,
                false => &self.reciprocal[params.clone()],
            },
            scale,
            zero: &self.zero[params],
        }
    }
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
