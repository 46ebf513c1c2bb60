//! x̂ = (q − z)·s: codes to floats.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::dtype::{Compute, Float, HALF_BLOCK, Int};
use crate::kernel::affine::{ANY, Plan};
use crate::kernel::general::Coder;
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::{LaneBlock, Lanes, for_each_block};
use crate::kernel::run::Run;
use crate::kernel::vector::{MAX_LANES, Vector, VectorExt, offsets};
use crate::parallel::{self, piece_len};
use crate::qparams::QParams;
use crate::recipe::values_fit;
use crate::tiles::Tiles;

/// Writes the value of every code, which must lie in the scheme's range.
pub(crate) fn dequantize<I: Int, F: Float>(
    codes: &[I],
    params: &QParams,
    tiles: &Tiles,
    out: &mut [MaybeUninit<F>],
) {
    if values_fit(params, F::TYPE) {
        let (lanes, plan) = (
            Lanes::new(params, tiles, F::TYPE),
            Plan::new(params, F::TYPE),
        );
        by_pieces(codes, out, |codes, first, out| {
            fast(codes, &lanes, tiles, first, &plan, out)
        });
    } else {
        let coder = Coder::new::<F>(params, tiles);
        by_pieces(codes, out, |codes, first, out| {
            general(codes, &coder, tiles, first, out)
        });
    }
}

/// `run(codes, first, out)` of every piece, `first` its offset.
fn by_pieces<I: Int, F: Float>(
    codes: &[I],
    out: &mut [MaybeUninit<F>],
    run: impl Fn(&[I], usize, &mut [MaybeUninit<F>]) + Sync,
) {
    let n = piece_len(codes.len());
    let pieces = codes.chunks(n).zip(out.chunks_mut(n)).enumerate();
    let work = |(): &mut (), (i, (codes, out)): (usize, (&[I], &mut [MaybeUninit<F>]))| {
        run(codes, i * n, out)
    };
    parallel::for_each(pieces, || (), work, |()| ());
}

per_isa! {
    fn fast[I: Int, F: Float][I, F](
        codes: &[I],
        lanes: &Lanes<F::Compute>,
        tiles: &Tiles,
        first: usize,
        plan: &Plan,
        out: &mut [MaybeUninit<F>],
    ) -> () {
        for run_of in tiles.runs(first..first + codes.len()) {
            let (elements, params) = run_of.within(first);
            let (codes, out) = (&codes[elements.clone()], &mut out[elements]);
            // SAFETY: this is compiled for the instruction set of `A`.
            unsafe {
                run::<<F::Compute as Compute>::Vector<A>, I, F>(codes, lanes.block(params), plan, out)
            }
        }
    }
}

/// # Safety
/// That of [`Vector`].
#[inline(always)]
unsafe fn run<V, I, F>(
    codes: &[I],
    p: LaneBlock<'_, F::Compute>,
    plan: &Plan,
    out: &mut [MaybeUninit<F>],
) where
    V: Vector<Scalar = F::Compute>,
    I: Int,
    F: Float,
{
    let n = codes.len();
    if n < V::LANES {
        let mut short = [I::default(); MAX_LANES];
        short[..n].copy_from_slice(codes);
        let mut values = [MaybeUninit::new(F::default()); MAX_LANES];
        let (short, p) = (&short[..V::LANES], p.padded(V::LANES));
        // SAFETY: the caller's; as many elements as lanes, and as many parameters or one.
        unsafe { whole::<V, I, F>(short, p.block(), plan, &mut values[..V::LANES]) }
        return out.copy_from_slice(&values[..n]);
    }
    // SAFETY: the caller's.
    unsafe { whole::<V, I, F>(codes, p, plan, out) }
}

/// The same for a run of at least a vector.
///
/// # Safety
/// That of [`Vector`].
#[inline(always)]
unsafe fn whole<V, I, F>(
    codes: &[I],
    p: LaneBlock<'_, F::Compute>,
    plan: &Plan,
    out: &mut [MaybeUninit<F>],
) where
    V: Vector<Scalar = F::Compute>,
    I: Int,
    F: Float,
{
    // SAFETY: the caller's.
    unsafe {
        let run = Run::<V, I>::new::<ANY>(codes, p, 0, plan);
        match run.is_uniform() {
            true => run.dequantize::<F, true>(out),
            false => run.dequantize::<F, false>(out),
        }
    }
}

impl<V: Vector, I: Int> Run<'_, V, I> {
    /// Writes the values, as many as `out` takes.
    ///
    /// # Safety
    /// That of [`Vector`].
    #[inline(always)]
    unsafe fn dequantize<F, const UNIFORM: bool>(self, out: &mut [MaybeUninit<F>])
    where
        F: Float<Compute = V::Scalar>,
    {
        // SAFETY: the caller's; the offsets are those of whole vectors within the run.
        unsafe {
            let to = out.as_mut_ptr().cast::<F>();
            for i in offsets::<V>(0, out.len()) {
                let affine = self.affine::<ANY, UNIFORM>(i);
                let difference = V::load_codes(self.from.add(i)).sub(affine.zero);
                let value = affine.value::<F, ANY>(difference, self.plan);
                value.store_elements(to.add(i));
            }
        }
    }
}

per_isa! {
    fn general[I: Int, F: Float][I, F](
        codes: &[I],
        coder: &Coder<F::Compute>,
        tiles: &Tiles,
        first: usize,
        out: &mut [MaybeUninit<F>],
    ) -> () {
        let mut buffer = [0.0; HALF_BLOCK];
        for_each_block(tiles, first..first + codes.len(), HALF_BLOCK, |elements, params| {
            let block = &mut buffer[..elements.len()];
            for (wide, &q) in block.iter_mut().zip(&codes[elements.clone()]) {
                *wide = q.to_compute::<f64>();
            }
            coder.dequantize_block(block, params, &mut out[elements]);
        });
    }
}

/// Whether a code lies outside of `qmin..=qmax`.
pub(crate) fn any_outside<I: Int>(codes: &[I], qmin: i64, qmax: i64) -> bool {
    if I::TYPE.bounds().0 >= qmin && I::TYPE.bounds().1 <= qmax {
        return false;
    }
    let n = piece_len(codes.len());
    let any = AtomicBool::new(false);
    let work = |(): &mut (), codes: &[I]| {
        if outside(codes, qmin, qmax) {
            any.store(true, Ordering::Relaxed);
        }
    };
    parallel::for_each(codes.chunks(n), || (), work, |()| ());
    any.into_inner()
}

per_isa! {
    fn outside[I: Int][I](codes: &[I], qmin: i64, qmax: i64) -> bool {
        codes.chunks(HALF_BLOCK).any(|block| {
            // In their own type, of which a vector holds the most.
            let Some(&first) = block.first() else { return false };
            let (low, high) = block
                .iter()
                .fold((first, first), |(low, high), &q| (low.min(q), high.max(q)));
            low.to_i64() < qmin || high.to_i64() > qmax
        })
    }
}
