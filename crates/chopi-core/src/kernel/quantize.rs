//! q = clamp(round(x/s + z)): floats to codes.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::buffer::{FloatSlice, IntSliceMut};
use crate::dtype::{Compute, Float};
use crate::kernel::affine::{
    ANY, Affine, DIVIDE_AFTER, DIVIDE_EXACT, DIVIDE_ROUNDED, FUSED, MULTIPLY_AFTER,
    MULTIPLY_ROUNDED, Plan,
};
use crate::kernel::code::{Code, CodeSliceMut};
use crate::kernel::general::{self, Coder};
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::{LaneBlock, Lanes, integers_fit};
use crate::kernel::vector::{MAX_LANES, Vector, VectorExt, offsets};
use crate::parallel::{self, piece_len};
use crate::qparams::QParams;
use crate::scheme::NanPolicy;
use crate::tiles::Tiles;

/// Writes the code of every element of `x` to `out`, both in memory order.
///
/// Returns whether `x` holds no NaN, or the policy has a code for it; where it returns false, `out`
/// is written whole, but the codes of NaN mean nothing.
pub(crate) fn quantize<F: Float>(
    x: &[F],
    params: &QParams,
    tiles: &Tiles,
    nan: NanPolicy,
    out: IntSliceMut<'_>,
) -> bool {
    match CodeSliceMut::new(out, params.scheme().qmin) {
        CodeSliceMut::W8(out) => quantize_codes(x, params, tiles, nan, out),
        CodeSliceMut::W16(out) => quantize_codes(x, params, tiles, nan, out),
        CodeSliceMut::W32(out) => quantize_codes(x, params, tiles, nan, out),
        CodeSliceMut::W64(out) => quantize_codes(x, params, tiles, nan, out),
        CodeSliceMut::Signed64(out) => quantize_codes(x, params, tiles, nan, out),
    }
}

fn quantize_codes<F: Float, O: Code>(
    x: &[F],
    params: &QParams,
    tiles: &Tiles,
    nan: NanPolicy,
    out: &mut [MaybeUninit<O>],
) -> bool {
    if !integers_fit(params, F::TYPE) {
        let coder = Coder::new::<F>(params, tiles);
        return by_pieces(x, out, |x, first, out| {
            general::quantize(x, &coder, tiles, first, nan, params.bounds(), out)
        });
    }
    let plan = Plan::new(params, F::TYPE);
    let kind = plan.kind();
    // Only f32 to 8 bits is worth a loop for each kind.
    if let (FloatSlice::F32(x), Some(out)) = (F::slice(x), O::as_bytes_mut(out)) {
        let run = match kind {
            DIVIDE_EXACT => fast::<f32, u8, DIVIDE_EXACT>,
            DIVIDE_ROUNDED => fast::<f32, u8, DIVIDE_ROUNDED>,
            DIVIDE_AFTER => fast::<f32, u8, DIVIDE_AFTER>,
            MULTIPLY_ROUNDED => fast::<f32, u8, MULTIPLY_ROUNDED>,
            MULTIPLY_AFTER => fast::<f32, u8, MULTIPLY_AFTER>,
            FUSED => fast::<f32, u8, FUSED>,
            _ => fast::<f32, u8, ANY>,
        };
        let lanes = Lanes::new(params, tiles, F::TYPE);
        return by_pieces(x, out, |x, first, out| {
            run(x, &lanes, tiles, first, &plan, nan, out)
        });
    }
    let run = match kind {
        DIVIDE_EXACT => fast::<F, O, DIVIDE_EXACT>,
        _ => fast::<F, O, ANY>,
    };
    let lanes = Lanes::new(params, tiles, F::TYPE);
    by_pieces(x, out, |x, first, out| {
        run(x, &lanes, tiles, first, &plan, nan, out)
    })
}

/// `run(x, first, out)` of every piece, `first` its offset; whether all returned true.
fn by_pieces<F: Float, O: Code>(
    x: &[F],
    out: &mut [MaybeUninit<O>],
    run: impl Fn(&[F], usize, &mut [MaybeUninit<O>]) -> bool + Sync,
) -> bool {
    let n = piece_len(x.len());
    let all = AtomicBool::new(true);
    let pieces = x.chunks(n).zip(out.chunks_mut(n)).enumerate();
    let work = |(): &mut (), (i, (x, out)): (usize, (&[F], &mut [MaybeUninit<O>]))| {
        if !run(x, i * n, out) {
            all.store(false, Ordering::Relaxed);
        }
    };
    parallel::for_each(pieces, || (), work, |()| ());
    all.into_inner()
}

per_isa! {
    fn fast[F: Float, O: Code, const KIND: u8][F, O, KIND](
        x: &[F],
        lanes: &Lanes<F::Compute>,
        tiles: &Tiles,
        first: usize,
        plan: &Plan,
        nan: NanPolicy,
        out: &mut [MaybeUninit<O>],
    ) -> bool {
        let mut any_nan = false;
        for run_of in tiles.runs(first..first + x.len()) {
            let (elements, params) = run_of.within(first);
            let (p, index) = (lanes.block(params), first + elements.start);
            let (x, out) = (&x[elements.clone()], &mut out[elements]);
            // SAFETY: this is compiled for the instruction set of `A`.
            any_nan |= unsafe {
                run::<<F::Compute as Compute>::Vector<A>, F, O, KIND>(x, p, index, plan, nan, out)
            };
        }
        !any_nan || nan == NanPolicy::ZeroPoint
    }
}

/// Writes the codes of a run; returns whether it holds NaN.
///
/// # Safety
/// That of [`Vector`].
#[inline(always)]
unsafe fn run<V, F, O, const KIND: u8>(
    x: &[F],
    p: LaneBlock<'_, F::Compute>,
    index: usize,
    plan: &Plan,
    nan: NanPolicy,
    out: &mut [MaybeUninit<O>],
) -> bool
where
    V: Vector<Scalar = F::Compute>,
    F: Float,
    O: Code,
{
    let n = x.len();
    if n < V::LANES {
        let mut short = [F::default(); MAX_LANES];
        short[..n].copy_from_slice(x);
        let mut codes = [MaybeUninit::new(O::default()); MAX_LANES];
        // SAFETY: the caller's; as many elements as lanes, and as many parameters or one.
        let (short, p) = (&short[..V::LANES], p.padded(V::LANES));
        // SAFETY: the caller's; as many elements as lanes, and as many parameters or one.
        let any_nan = unsafe {
            whole::<V, F, O, KIND>(short, p.block(), index, plan, nan, &mut codes[..V::LANES])
        };
        out.copy_from_slice(&codes[..n]);
        return any_nan;
    }
    // SAFETY: the caller's.
    unsafe { whole::<V, F, O, KIND>(x, p, index, plan, nan, out) }
}

/// The same for a run of at least a vector.
///
/// # Safety
/// That of [`Vector`].
#[inline(always)]
unsafe fn whole<V, F, O, const KIND: u8>(
    x: &[F],
    p: LaneBlock<'_, F::Compute>,
    index: usize,
    plan: &Plan,
    nan: NanPolicy,
    out: &mut [MaybeUninit<O>],
) -> bool
where
    V: Vector<Scalar = F::Compute>,
    F: Float,
    O: Code,
{
    // SAFETY: the caller's; `offsets` gives those of whole vectors within the run.
    unsafe {
        let (zero, mut any_nan) = (V::splat(F::Compute::default()), V::none());
        let uniform = Affine::<V>::splat::<KIND>(p, plan);
        let is_uniform = p.zero.len() == 1;
        let (from, to) = (x.as_ptr(), out.as_mut_ptr().cast::<O>());
        for i in offsets::<V>(x.len()) {
            let affine = match is_uniform {
                true => uniform,
                false => Affine::load::<KIND>(p, i, plan),
            };
            let mut x = V::load_elements(from.add(i));
            let is_nan = x.is_nan();
            any_nan = V::or(any_nan, is_nan);
            if nan == NanPolicy::ZeroPoint {
                // 0.0 has the zero point's code.
                x = V::select(is_nan, zero, x);
            }
            affine
                .code::<F, KIND>(x, plan, zero, index + i)
                .store_codes(to.add(i));
        }
        V::any(any_nan)
    }
}
