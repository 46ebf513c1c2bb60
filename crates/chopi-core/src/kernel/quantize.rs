//! q = clamp(round(x/s + z)): floats to codes.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::buffer::IntSliceMut;
use crate::dtype::{Block, Compute, Float, HALF_BLOCK};
use crate::kernel::code::{Code, CodeSliceMut};
use crate::kernel::general::{self, Coder};
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::{LaneBlock, Lanes, Steps, Sum, for_each_block, is_fast};
use crate::kernel::parallel::{self, piece_len};
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
    if !is_fast(params, F::TYPE) {
        let coder = Coder::new::<F>(params, tiles);
        return by_pieces(x, out, |x, first, out| {
            general::quantize(x, &coder, tiles, first, nan, params.bounds(), out)
        });
    }
    let steps = Steps::new(params, F::TYPE);
    let lanes = Lanes::new(params, tiles, F::TYPE);
    let run = match (steps.reciprocal, steps.sum) {
        (false, Sum::Exact) => fast::<F, O, false, EXACT>,
        (false, Sum::Rounded) => fast::<F, O, false, ROUNDED>,
        (false, Sum::After) => fast::<F, O, false, AFTER>,
        (true, Sum::Exact) => fast::<F, O, true, EXACT>,
        (true, Sum::Rounded) => fast::<F, O, true, ROUNDED>,
        (true, Sum::After) => fast::<F, O, true, AFTER>,
        (_, Sum::Fused) => fast::<F, O, true, FUSED>,
    };
    by_pieces(x, out, |x, first, out| {
        run(x, &lanes, tiles, first, nan, out)
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

pub(crate) const EXACT: u8 = 0;
pub(crate) const ROUNDED: u8 = 1;
pub(crate) const AFTER: u8 = 2;
pub(crate) const FUSED: u8 = 3;

per_isa! {
    fn fast[F: Float, O: Code, const RECIPROCAL: bool, const SUM: u8][F, O, RECIPROCAL, SUM](
        x: &[F],
        lanes: &Lanes<F::Compute>,
        tiles: &Tiles,
        first: usize,
        nan: NanPolicy,
        out: &mut [MaybeUninit<O>],
    ) -> bool {
        let mut buffer: Block<F::Compute> = [MaybeUninit::uninit(); HALF_BLOCK];
        let mut any_nan = false;
        for_each_block(tiles, first..first + x.len(), F::BLOCK, |elements, params| {
            let lanes = lanes.block(params);
            let out = &mut out[elements.clone()];
            let block = F::widen_block(&x[elements], &mut buffer);
            if fast_block::<_, O, RECIPROCAL, SUM>(block, lanes, out) {
                match nan {
                    NanPolicy::Error => any_nan = true,
                    NanPolicy::ZeroPoint => {
                        let block = nan_to_zero(block);
                        fast_block::<_, O, RECIPROCAL, SUM>(&block, lanes, out);
                    }
                }
            }
        });
        !any_nan
    }
}

/// A block whose NaN are 0.0, which has the zero point's code.
#[cold]
pub(crate) fn nan_to_zero<C: Compute>(block: &[C]) -> Vec<C> {
    block
        .iter()
        .map(|&x| if x.is_nan() { C::zero() } else { x })
        .collect()
}

/// Writes the codes of a block; returns whether it holds NaN.
#[inline(always)]
fn fast_block<C: Compute, O: Code, const RECIPROCAL: bool, const SUM: u8>(
    x: &[C],
    p: LaneBlock<'_, C>,
    out: &mut [MaybeUninit<O>],
) -> bool {
    let scale = if RECIPROCAL { p.inverse } else { p.scale };
    let mut any_nan = 0_u32;
    if scale.len() == 1 {
        let (scale, zero) = (scale[0], p.zero[0]);
        let (low, high, magic) = (p.low[0], p.high[0], p.magic[0]);
        for (&x, out) in x.iter().zip(out) {
            let (bits, is_nan) = code::<C, RECIPROCAL, SUM>(x, scale, zero, low, high, magic);
            any_nan |= u32::from(is_nan);
            out.write(O::from_low_bits(bits));
        }
    } else {
        let n = x.len();
        let (out, scale, zero) = (&mut out[..n], &scale[..n], &p.zero[..n]);
        let (low, high, magic) = (&p.low[..n], &p.high[..n], &p.magic[..n]);
        for i in 0..n {
            let (bits, is_nan) =
                code::<C, RECIPROCAL, SUM>(x[i], scale[i], zero[i], low[i], high[i], magic[i]);
            any_nan |= u32::from(is_nan);
            out[i].write(O::from_low_bits(bits));
        }
    }
    any_nan != 0
}

/// The low bits of the code of `x`, and whether it is NaN.
#[inline(always)]
fn code<C: Compute, const RECIPROCAL: bool, const SUM: u8>(
    x: C,
    scale: C,
    zero: C,
    low: C,
    high: C,
    magic: C,
) -> (u32, bool) {
    let v = clamped(scaled::<C, RECIPROCAL, SUM>(x, scale, zero), low, high);
    let bits = (v + magic).low_bits();
    // Only the sum after rounding needs the integer z, which is MAGIC + z less MAGIC.
    let bits = match SUM {
        AFTER => bits.wrapping_add((C::MAGIC + zero).low_bits()),
        _ => bits,
    };
    (bits, x.is_nan())
}

/// x scaled, with z added where that comes before rounding and is rounded.
#[inline(always)]
pub(crate) fn scaled<C: Compute, const RECIPROCAL: bool, const SUM: u8>(
    x: C,
    scale: C,
    zero: C,
) -> C {
    let v = match (RECIPROCAL, SUM) {
        (_, FUSED) => x.mul_add(scale, zero),
        (true, _) => x * scale,
        (false, _) => x / scale,
    };
    if SUM == ROUNDED { v + zero } else { v }
}

/// v between the bounds; NaN stays NaN.
#[inline(always)]
pub(crate) fn clamped<C: Compute>(v: C, low: C, high: C) -> C {
    // In this order a comparison with NaN keeps the NaN, and each is one instruction.
    let v = if low > v { low } else { v };
    if high < v { high } else { v }
}
