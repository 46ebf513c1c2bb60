//! x̂ = (clamp(round(x/s + z)) − z)·s: quantize and dequantize in one pass, with or without the
//! mask of the elements whose code was in range before it was clamped.

use std::mem::MaybeUninit;

use crate::buffer::FloatSlice;
use crate::dtype::{Compute, Float};
use crate::kernel::affine::{
    ANY, Affine, DIVIDE_AFTER, DIVIDE_EXACT, DIVIDE_ROUNDED, FUSED, MULTIPLY_AFTER,
    MULTIPLY_ROUNDED, Plan,
};
use crate::kernel::general::{self, Coder};
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::{LaneBlock, Lanes, values_fit};
use crate::kernel::vector::{MAX_LANES, Vector, VectorExt, offsets};
use crate::parallel::{self, piece_len};
use crate::qparams::QParams;
use crate::tiles::Tiles;

/// Writes the dequantized code of every element of `x` to `out`, both in memory order: the bits
/// that `dequantize(quantize(x))` gives, but for NaN, which stays NaN or has the value of qmin, as
/// the convention says.
pub(crate) fn fake_quantize<F: Float>(
    x: &[F],
    params: &QParams,
    tiles: &Tiles,
    out: &mut [MaybeUninit<F>],
) {
    dispatch::<F, false>(x, params, tiles, out, &mut []);
}

/// The same, and writes to `mask` 1 where round(x/s + z) lies in qmin..=qmax, else 0; 0 for NaN.
pub(crate) fn fake_quantize_with_mask<F: Float>(
    x: &[F],
    params: &QParams,
    tiles: &Tiles,
    out: &mut [MaybeUninit<F>],
    mask: &mut [MaybeUninit<u8>],
) {
    dispatch::<F, true>(x, params, tiles, out, mask);
}

/// `mask` is empty where there is none.
fn dispatch<F: Float, const MASK: bool>(
    x: &[F],
    params: &QParams,
    tiles: &Tiles,
    out: &mut [MaybeUninit<F>],
    mask: &mut [MaybeUninit<u8>],
) {
    if !values_fit(params, F::TYPE) {
        let coder = Coder::new::<F>(params, tiles);
        return by_pieces::<F, MASK>(x, out, mask, |x, first, out, mask| {
            general::fake_quantize::<F, MASK>(x, &coder, tiles, first, params.bounds(), out, mask)
        });
    }
    let plan = Plan::new(params, F::TYPE);
    let kind = plan.kind();
    if kind != DIVIDE_EXACT
        && let (FloatSlice::F32(x), Some(out)) =
            (F::slice(x), f32::from_slice_mut(F::slice_mut(out)))
    {
        // Only f32 is worth a loop for each kind.
        let run = match kind {
            DIVIDE_ROUNDED => fast::<f32, DIVIDE_ROUNDED, MASK>,
            DIVIDE_AFTER => fast::<f32, DIVIDE_AFTER, MASK>,
            MULTIPLY_ROUNDED => fast::<f32, MULTIPLY_ROUNDED, MASK>,
            MULTIPLY_AFTER => fast::<f32, MULTIPLY_AFTER, MASK>,
            FUSED => fast::<f32, FUSED, MASK>,
            _ => fast::<f32, ANY, MASK>,
        };
        let lanes = Lanes::new(params, tiles, F::TYPE);
        return by_pieces::<f32, MASK>(x, out, mask, |x, first, out, mask| {
            run(x, &lanes, tiles, first, &plan, out, mask)
        });
    }
    let run = match kind {
        DIVIDE_EXACT => fast::<F, DIVIDE_EXACT, MASK>,
        _ => fast::<F, ANY, MASK>,
    };
    let lanes = Lanes::new(params, tiles, F::TYPE);
    by_pieces::<F, MASK>(x, out, mask, |x, first, out, mask| {
        run(x, &lanes, tiles, first, &plan, out, mask)
    })
}

/// `run(x, first, out, mask)` of every piece, `first` its offset.
fn by_pieces<F: Float, const MASK: bool>(
    x: &[F],
    out: &mut [MaybeUninit<F>],
    mask: &mut [MaybeUninit<u8>],
    run: impl Fn(&[F], usize, &mut [MaybeUninit<F>], &mut [MaybeUninit<u8>]) + Sync,
) {
    let n = piece_len(x.len());
    let pieces = x.chunks(n).zip(out.chunks_mut(n)).enumerate();
    if MASK {
        let work = |(): &mut (), ((i, (x, out)), mask): (_, &mut [MaybeUninit<u8>])| {
            let (i, x, out): (usize, &[F], &mut [MaybeUninit<F>]) = (i, x, out);
            run(x, i * n, out, mask)
        };
        parallel::for_each(pieces.zip(mask.chunks_mut(n)), || (), work, |()| ());
    } else {
        let work = |(): &mut (), (i, (x, out)): (usize, (&[F], &mut [MaybeUninit<F>]))| {
            run(x, i * n, out, &mut [])
        };
        parallel::for_each(pieces, || (), work, |()| ());
    }
}

per_isa! {
    fn fast[F: Float, const KIND: u8, const MASK: bool][F, KIND, MASK](
        x: &[F],
        lanes: &Lanes<F::Compute>,
        tiles: &Tiles,
        first: usize,
        plan: &Plan,
        out: &mut [MaybeUninit<F>],
        mask: &mut [MaybeUninit<u8>],
    ) -> () {
        for run_of in tiles.runs(first..first + x.len()) {
            let (elements, params) = run_of.within(first);
            let (p, index) = (lanes.block(params), first + elements.start);
            let mask = if MASK { &mut mask[elements.clone()] } else { &mut [] };
            let (x, out) = (&x[elements.clone()], &mut out[elements]);
            // SAFETY: this is compiled for the instruction set of `A`.
            unsafe {
                run::<<F::Compute as Compute>::Vector<A>, F, KIND, MASK>(x, p, index, plan, out, mask)
            }
        }
    }
}

/// # Safety
/// That of [`Vector`].
#[inline(always)]
unsafe fn run<V, F, const KIND: u8, const MASK: bool>(
    x: &[F],
    p: LaneBlock<'_, F::Compute>,
    index: usize,
    plan: &Plan,
    out: &mut [MaybeUninit<F>],
    mask: &mut [MaybeUninit<u8>],
) where
    V: Vector<Scalar = F::Compute>,
    F: Float,
{
    let n = x.len();
    if n < V::LANES {
        let mut short = [F::default(); MAX_LANES];
        short[..n].copy_from_slice(x);
        let mut values = [MaybeUninit::new(F::default()); MAX_LANES];
        let mut inside = [MaybeUninit::new(0); MAX_LANES];
        let (short, p) = (&short[..V::LANES], p.padded(V::LANES));
        let (long, all) = (&mut values[..V::LANES], &mut inside[..V::LANES]);
        // SAFETY: the caller's; as many elements as lanes, and as many parameters or one.
        unsafe { whole::<V, F, KIND, MASK>(short, p.block(), index, plan, long, all) }
        out.copy_from_slice(&values[..n]);
        if MASK {
            mask.copy_from_slice(&inside[..n]);
        }
        return;
    }
    // SAFETY: the caller's.
    unsafe { whole::<V, F, KIND, MASK>(x, p, index, plan, out, mask) }
}

/// The same for a run of at least a vector.
///
/// # Safety
/// That of [`Vector`].
#[inline(always)]
unsafe fn whole<V, F, const KIND: u8, const MASK: bool>(
    x: &[F],
    p: LaneBlock<'_, F::Compute>,
    index: usize,
    plan: &Plan,
    out: &mut [MaybeUninit<F>],
    mask: &mut [MaybeUninit<u8>],
) where
    V: Vector<Scalar = F::Compute>,
    F: Float,
{
    // SAFETY: the caller's; `offsets` gives those of whole vectors within the run, and
    // there is as much of the mask as of the run.
    unsafe {
        // One step of room on each side tells a code beyond a bound from one at it.
        let room = V::splat(F::Compute::from_i32(MASK.into()));
        let smallest = V::splat(num_traits::Float::neg_infinity());
        let uniform = Affine::<V>::splat::<KIND>(p, plan);
        let is_uniform = p.zero.len() == 1;
        let (from, to) = (x.as_ptr(), out.as_mut_ptr().cast::<F>());
        let mask = mask.as_mut_ptr().cast::<u8>();
        for i in offsets::<V>(x.len()) {
            let affine = match is_uniform {
                true => uniform,
                false => Affine::load::<KIND>(p, i, plan),
            };
            let mut x = V::load_elements(from.add(i));
            if matches!(KIND, MULTIPLY_AFTER | ANY) && plan.nan_is_smallest {
                x = V::select(x.is_nan(), smallest, x);
            }
            let mut code = affine.code::<F, KIND>(x, plan, room, index + i);
            if MASK {
                let (inside, clamped) = Affine::inside(code, plan);
                V::store_mask(inside, mask.add(i));
                code = clamped;
            }
            affine
                .value::<F, KIND>(code, plan)
                .store_elements(to.add(i));
        }
    }
}
