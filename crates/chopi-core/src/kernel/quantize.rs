//! q = clamp(round(x/s + z)): floats to codes.

use std::marker::PhantomData;
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::buffer::IntSliceMut;
use crate::dtype::{Compute, Float, FloatType};
use crate::kernel::affine::{
    ANY, DIVIDE_AFTER, DIVIDE_EXACT, DIVIDE_ROUNDED, FUSED, MULTIPLY_AFTER, MULTIPLY_ROUNDED, Plan,
};
use crate::kernel::code::{Code, CodeSliceMut, Width};
use crate::kernel::general::{self, Coder};
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::{LaneBlock, Lanes};
use crate::kernel::run::Run;
use crate::kernel::vector::{BLOCK, MAX_LANES, Vector, VectorExt, offsets, prefetch};
use crate::parallel::{self, piece_len};
use crate::qparams::QParams;
use crate::recipe::integers_fit;
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
    let lanes = Lanes::new(params, tiles, F::TYPE);
    let run = match plan.kind() {
        DIVIDE_EXACT if const { Worth::<F, O>::USUAL } => fast::<F, O, DIVIDE_EXACT>,
        DIVIDE_ROUNDED if const { Worth::<F, O>::ALL } => fast::<F, O, DIVIDE_ROUNDED>,
        DIVIDE_AFTER if const { Worth::<F, O>::ALL } => fast::<F, O, DIVIDE_AFTER>,
        MULTIPLY_ROUNDED if const { Worth::<F, O>::ALL } => fast::<F, O, MULTIPLY_ROUNDED>,
        MULTIPLY_AFTER if const { Worth::<F, O>::ALL } => fast::<F, O, MULTIPLY_AFTER>,
        FUSED if const { Worth::<F, O>::ALL } => fast::<F, O, FUSED>,
        _ => fast::<F, O, ANY>,
    };
    by_pieces(x, out, |x, first, out| {
        run(x, &lanes, tiles, first, &plan, nan, out)
    })
}

/// Which loops are worth their size: what is not is not compiled.
struct Worth<F, O>(PhantomData<(F, O)>);

impl<F: Float, O: Code> Worth<F, O> {
    /// One for the usual kind of steps.
    const USUAL: bool = matches!(O::WIDTH, Width::W8);
    /// One for each kind, and by blocks of vectors.
    const ALL: bool = Self::USUAL && matches!(F::TYPE, FloatType::F32);
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
    // SAFETY: the caller's.
    unsafe {
        let run = Run::<V, F>::new::<KIND>(x, p, index, plan);
        match run.is_uniform() {
            true => run.quantize::<O, KIND, true>(nan, out),
            false => run.quantize::<O, KIND, false>(nan, out),
        }
    }
}

impl<V: Vector<Scalar = F::Compute>, F: Float> Run<'_, V, F> {
    /// Writes the codes, as many as `out` takes; returns whether there is NaN.
    ///
    /// # Safety
    /// That of [`Vector`].
    #[inline(always)]
    unsafe fn quantize<O: Code, const KIND: u8, const UNIFORM: bool>(
        self,
        nan: NanPolicy,
        out: &mut [MaybeUninit<O>],
    ) -> bool {
        // SAFETY: the caller's; the offsets are those of whole vectors within the run, and the codes
        // that are taken by blocks are bytes.
        unsafe {
            let (n, to) = (out.len(), out.as_mut_ptr().cast::<O>());
            let mut any_nan = V::none();
            let mut in_blocks = 0;
            if const { Worth::<F, O>::ALL && V::IN_BLOCKS } {
                in_blocks = n - n % (BLOCK * V::LANES);
                for i in (0..in_blocks).step_by(BLOCK * V::LANES) {
                    prefetch(self.from.wrapping_add(i), BLOCK * V::LANES);
                    let x = self.elements::<BLOCK>(i, nan, &mut any_nan);
                    let codes =
                        self.codes::<KIND, UNIFORM, BLOCK>(x, i, V::splat(F::Compute::default()));
                    V::store_block_low_8(codes, to.add(i).cast());
                }
            }
            for i in offsets::<V>(in_blocks, n) {
                let x = self.elements::<1>(i, nan, &mut any_nan);
                let [code] = self.codes::<KIND, UNIFORM, 1>(x, i, V::splat(F::Compute::default()));
                code.store_codes(to.add(i));
            }
            V::any(any_nan)
        }
    }

    /// The elements from offset `i` on, NaN as the policy says.
    ///
    /// # Safety
    /// That of [`Vector`].
    #[inline(always)]
    unsafe fn elements<const N: usize>(
        &self,
        i: usize,
        nan: NanPolicy,
        any_nan: &mut V::Mask,
    ) -> [V; N] {
        // SAFETY: the caller's.
        unsafe {
            let zero = V::splat(F::Compute::default());
            let mut block = [zero; N];
            for (k, x) in block.iter_mut().enumerate() {
                *x = V::load_elements(self.from.add(i + k * V::LANES));
                let is_nan = x.is_nan();
                *any_nan = V::or(*any_nan, is_nan);
                if nan == NanPolicy::ZeroPoint {
                    // 0.0 has the zero point's code.
                    *x = V::select(is_nan, zero, *x);
                }
            }
            block
        }
    }
}
