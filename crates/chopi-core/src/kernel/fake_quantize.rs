//! x̂ = (clamp(round(x/s + z)) − z)·s: quantize and dequantize in one pass, with or without the
//! mask of the elements whose code was in range before it was clamped.

use std::mem::MaybeUninit;

use crate::dtype::{Compute, Float, FloatType};
use crate::kernel::affine::{
    ANY, Affine, DIVIDE_AFTER, DIVIDE_EXACT, DIVIDE_ROUNDED, FUSED, MULTIPLY_AFTER,
    MULTIPLY_ROUNDED, Plan,
};
use crate::kernel::general::{self, Coder};
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::{LaneBlock, Lanes};
use crate::kernel::run::Run;
use crate::kernel::vector::{BLOCK, MAX_LANES, Vector, VectorExt, offsets, prefetch};
use crate::parallel::{self, piece_len};
use crate::qparams::QParams;
use crate::recipe::values_fit;
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
    let lanes = Lanes::new(params, tiles, F::TYPE);
    let run = match plan.kind() {
        DIVIDE_EXACT => fast::<F, DIVIDE_EXACT, MASK>,
        DIVIDE_ROUNDED if const { is_f32::<F>() } => fast::<F, DIVIDE_ROUNDED, MASK>,
        DIVIDE_AFTER if const { is_f32::<F>() } => fast::<F, DIVIDE_AFTER, MASK>,
        MULTIPLY_ROUNDED if const { is_f32::<F>() } => fast::<F, MULTIPLY_ROUNDED, MASK>,
        MULTIPLY_AFTER if const { is_f32::<F>() } => fast::<F, MULTIPLY_AFTER, MASK>,
        FUSED if const { is_f32::<F>() } => fast::<F, FUSED, MASK>,
        _ => fast::<F, ANY, MASK>,
    };
    by_pieces::<F, MASK>(x, out, mask, |x, first, out, mask| {
        run(x, &lanes, tiles, first, &plan, out, mask)
    })
}

/// Whether a loop for each kind of steps is worth its size, and one by blocks of vectors: what is not
/// is not compiled.
const fn is_f32<F: Float>() -> bool {
    matches!(F::TYPE, FloatType::F32)
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
    // SAFETY: the caller's.
    unsafe {
        let run = Run::<V, F>::new::<KIND>(x, p, index, plan);
        match run.is_uniform() {
            true => run.fake_quantize::<KIND, true, MASK>(out, mask),
            false => run.fake_quantize::<KIND, false, MASK>(out, mask),
        }
    }
}

impl<V: Vector<Scalar = F::Compute>, F: Float> Run<'_, V, F> {
    /// Writes the values, as many as `out` takes, and the mask.
    ///
    /// # Safety
    /// That of [`Vector`]; there must be as much of the mask as of `out`, if there is one.
    #[inline(always)]
    unsafe fn fake_quantize<const KIND: u8, const UNIFORM: bool, const MASK: bool>(
        self,
        out: &mut [MaybeUninit<F>],
        mask: &mut [MaybeUninit<u8>],
    ) {
        // SAFETY: the caller's; the offsets are those of whole vectors within the run.
        unsafe {
            let (n, to) = (out.len(), out.as_mut_ptr().cast::<F>());
            let mask = mask.as_mut_ptr().cast::<u8>();
            let mut in_blocks = 0;
            if const { is_f32::<F>() && V::IN_BLOCKS } {
                in_blocks = n - n % (BLOCK * V::LANES);
                for i in (0..in_blocks).step_by(BLOCK * V::LANES) {
                    prefetch(self.from.wrapping_add(i), BLOCK * V::LANES);
                    let inside = self.values_at::<KIND, UNIFORM, MASK, BLOCK>(i, to.add(i));
                    if MASK {
                        V::store_block_mask(inside, mask.add(i));
                    }
                }
            }
            for i in offsets::<V>(in_blocks, n) {
                let [inside] = self.values_at::<KIND, UNIFORM, MASK, 1>(i, to.add(i));
                if MASK {
                    V::store_mask(inside, mask.add(i));
                }
            }
        }
    }

    /// Writes the values of the vectors from offset `i` on; returns which lie inside, where a mask is
    /// asked for.
    ///
    /// # Safety
    /// That of [`Vector`].
    #[inline(always)]
    unsafe fn values_at<const KIND: u8, const UNIFORM: bool, const MASK: bool, const N: usize>(
        &self,
        i: usize,
        to: *mut F,
    ) -> [V::Mask; N] {
        // SAFETY: the caller's.
        unsafe {
            let plan = self.plan;
            // One step of room on each side tells a code beyond a bound from one at it.
            let room = V::splat(F::Compute::from_i32(MASK.into()));
            let mut block = [room; N];
            for (k, x) in block.iter_mut().enumerate() {
                *x = V::load_elements(self.from.add(i + k * V::LANES));
                if matches!(KIND, MULTIPLY_AFTER | ANY) && plan.nan_is_smallest {
                    let smallest = V::splat(num_traits::Float::neg_infinity());
                    *x = V::select(x.is_nan(), smallest, *x);
                }
            }
            let mut inside = [V::none(); N];
            let codes = self.codes::<KIND, UNIFORM, N>(block, i, room);
            for (k, mut code) in codes.into_iter().enumerate() {
                if MASK {
                    (inside[k], code) = Affine::inside(code, plan);
                }
                let affine = self.affine::<KIND, UNIFORM>(i + k * V::LANES);
                let difference = affine.difference::<KIND>(code, plan);
                let value = affine.value::<F, KIND>(difference, plan);
                value.store_elements(to.add(k * V::LANES));
            }
            inside
        }
    }
}
