//! One way through a tensor for every loop that makes an element of each element: in pieces for the
//! threads, in runs with the numbers of their groups, in blocks of vectors, with the rest padded.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::lanes::{Lanes, Merged, Params};
use crate::loops::affine::{ALL, ALL_BY_PRODUCTS, EACH, Run, has_reciprocals};
use crate::parallel::{self, piece_len};
use crate::vector::{Arch, BLOCK, MAX_LANES, Vector, prefetch};

/// Consecutive elements of a tensor, what is made of them, and a mask, which is empty where there is
/// none.
pub(crate) struct Piece<'a, I, O> {
    /// The index of the first element.
    pub first: usize,
    pub x: &'a [I],
    pub out: &'a mut [MaybeUninit<O>],
    pub mask: &'a mut [MaybeUninit<u8>],
}

impl<'a, I, O> Piece<'a, I, O> {
    /// The piece, for a shorter time.
    pub fn reborrow(&mut self) -> Piece<'_, I, O> {
        Piece {
            first: self.first,
            x: self.x,
            out: self.out,
            mask: self.mask,
        }
    }
}

impl<'a, I: Sync, O: Send> Piece<'a, I, O> {
    /// The tensor.
    ///
    /// # Panics
    /// Where the lengths differ from those of the tiles.
    pub fn whole(
        params: &Params<'_>,
        x: &'a [I],
        out: &'a mut [MaybeUninit<O>],
        mask: &'a mut [MaybeUninit<u8>],
    ) -> Self {
        let len = params.tiles().len();
        let mask_len = if mask.is_empty() { 0 } else { len };
        let lens = (x.len(), out.len(), mask.len());
        assert_eq!(lens, (len, len, mask_len), "numbers of elements");
        Self {
            first: 0,
            x,
            out,
            mask,
        }
    }

    /// Calls `run` with each piece of the tensor, on the threads that there are; whether any returned
    /// true.
    pub fn any(self, run: impl Fn(Piece<'_, I, O>) -> bool + Sync) -> bool {
        let (len, size) = (self.x.len(), piece_len(self.x.len()));
        if len <= size {
            return run(self);
        }
        let (any, run) = (AtomicBool::new(false), &run);
        let mut pieces = Pieces { size, rest: self };
        parallel::run_all(len.div_ceil(size), &mut || {
            let piece = pieces.next()?;
            let any = &any;
            Some(Box::new(move || {
                if run(piece) {
                    any.store(true, Ordering::Relaxed);
                }
            }))
        });
        any.into_inner()
    }

    /// Calls `run` with each piece of the tensor, on the threads that there are.
    pub fn each(self, run: impl Fn(Piece<'_, I, O>) + Sync) {
        self.any(|piece| {
            run(piece);
            false
        });
    }
}

/// A tensor in pieces of a size.
struct Pieces<'a, I, O> {
    size: usize,
    rest: Piece<'a, I, O>,
}

impl<'a, I, O> Iterator for Pieces<'a, I, O> {
    type Item = Piece<'a, I, O>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = &mut self.rest;
        let len = self.size.min(rest.x.len());
        if len == 0 {
            return None;
        }
        let (x, x_rest) = rest.x.split_at(len);
        let (out, out_rest) = std::mem::take(&mut rest.out).split_at_mut(len);
        let mask_len = len.min(rest.mask.len());
        let (mask, mask_rest) = std::mem::take(&mut rest.mask).split_at_mut(mask_len);
        let first = rest.first;
        *rest = Piece {
            first: first + len,
            x: x_rest,
            out: out_rest,
            mask: mask_rest,
        };
        Some(Piece {
            first,
            x,
            out,
            mask,
        })
    }
}

/// What the loop `KIND` (see [`ANY`](super::affine::ANY)) makes of the elements of a run, `N` vectors at a
/// time.
pub(crate) trait Step<V: Vector, const KIND: u8> {
    /// The elements that are read.
    type In: Copy + Default;
    /// The elements that are written.
    type Out: Copy;
    /// Whether there is a mask.
    const MASK: bool;
    /// Whether to take [`BLOCK`] vectors at a time.
    const BY_BLOCKS: bool;

    /// Makes `N` vectors of the run, from offset `i` on: the elements are `x`, what they become goes to
    /// `out`, and the mask to `mask`. `NUMBERS` says which parameters they have: it is one of
    /// [`EACH`], [`ALL`] and [`ALL_BY_PRODUCTS`].
    fn step<const NUMBERS: u8, const N: usize>(
        &mut self,
        run: &Run<'_, V>,
        i: usize,
        x: &[Self::In],
        out: &mut [MaybeUninit<Self::Out>],
        mask: &mut [MaybeUninit<u8>],
    );
}

/// Takes a step through a piece of a tensor.
#[inline(always)]
pub(crate) fn drive<V: Vector, S: Step<V, KIND>, const KIND: u8>(
    arch: V::Arch,
    step: &mut S,
    params: &Params<'_>,
    lanes: &Lanes<V::Scalar>,
    piece: Piece<'_, S::In, S::Out>,
) {
    let Piece {
        first,
        x,
        out,
        mask,
    } = piece;
    let lanes = lanes.all();
    let mut runs = params.tiles().runs(first..first + x.len());
    // The run after short ones, which was looked at.
    let mut ahead = None;
    loop {
        let Some(tile) = (match ahead.take() {
            None => runs.next(),
            ahead => ahead,
        }) else {
            return;
        };
        let (mut elements, p) = tile.within(first);
        let (mut p, index) = (lanes.part(p), first + elements.start);

        // Runs that are shorter than a vector are taken together.
        let mut merged;
        if !has_reciprocals(KIND) && elements.len() < V::LANES {
            ahead = runs.next();
            if ahead.is_some() {
                merged = Merged::new();
                merged.push(p, elements.len());
                while let Some(tile) = ahead.take_if(|tile| {
                    let n = tile.elements.len();
                    n < V::LANES && merged.has_room(n)
                }) {
                    let (more, p) = tile.within(first);
                    elements.end = more.end;
                    merged.push(lanes.part(p), more.len());
                    ahead = runs.next();
                }
                p = merged.block();
            }
        }
        let to_mask = match S::MASK {
            true => &mut mask[elements.clone()],
            false => &mut [][..],
        };
        let (mut x, to) = (&x[elements.clone()], &mut out[elements]);

        // A run that is shorter than a vector is made as long.
        let n = x.len();
        let (padded_x, padded_p);
        let mut padded_out = [const { MaybeUninit::uninit() }; MAX_LANES];
        let mut padded_mask = [const { MaybeUninit::uninit() }; MAX_LANES];
        let (mut out, mut mask) = (&mut *to, &mut *to_mask);
        if n < V::LANES {
            let mut elements = [S::In::default(); MAX_LANES];
            elements[..n].copy_from_slice(x);
            (padded_x, padded_p) = (elements, p.padded());
            (x, p) = (&padded_x[..V::LANES], padded_p.block());
            (out, mask) = (
                &mut padded_out[..V::LANES],
                &mut padded_mask[..if S::MASK { V::LANES } else { 0 }],
            );
        }
        let run = Run::new::<KIND>(arch, p, index, params.recipe());
        match has_reciprocals(KIND) {
            true => match run.by_products::<KIND>(S::MASK.into()) {
                Some(run) => vectors::<V, S, KIND, ALL_BY_PRODUCTS>(step, &run, x, out, mask),
                None => vectors::<V, S, KIND, ALL>(step, &run, x, out, mask),
            },
            false if p.is_uniform() => vectors::<V, S, KIND, ALL>(step, &run, x, out, mask),
            false => vectors::<V, S, KIND, EACH>(step, &run, x, out, mask),
        }
        if n < V::LANES {
            to.copy_from_slice(&padded_out[..n]);
            if S::MASK {
                to_mask.copy_from_slice(&padded_mask[..n]);
            }
        }
    }
}

/// Takes a step through a run of at least a vector; the last vector overlaps the one before where the
/// run is no multiple of it.
#[inline(always)]
fn vectors<V: Vector, S: Step<V, KIND>, const KIND: u8, const NUMBERS: u8>(
    step: &mut S,
    run: &Run<'_, V>,
    x: &[S::In],
    out: &mut [MaybeUninit<S::Out>],
    mask: &mut [MaybeUninit<u8>],
) {
    let n = x.len();
    let mask_of = |i: usize, len: usize| if S::MASK { i..i + len } else { 0..0 };
    let mut i = 0;
    if S::BY_BLOCKS && V::Arch::SPECIALIZED {
        let len = BLOCK * V::LANES;
        while i + len <= n {
            let (x, out) = (&x[i..i + len], &mut out[i..i + len]);
            prefetch(x);
            step.step::<NUMBERS, BLOCK>(run, i, x, out, &mut mask[mask_of(i, len)]);
            i += len;
        }
    }
    while i < n {
        let at = i.min(n - V::LANES);
        let (x, out) = (&x[at..at + V::LANES], &mut out[at..at + V::LANES]);
        step.step::<NUMBERS, 1>(run, at, x, out, &mut mask[mask_of(at, V::LANES)]);
        i += V::LANES;
    }
}
