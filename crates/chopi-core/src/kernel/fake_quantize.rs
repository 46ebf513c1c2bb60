//! x̂ = (clamp(round(x/s + z)) − z)·s: quantize and dequantize in one pass, with or without the
//! mask of the elements whose code was in range before it was clamped.

use std::mem::MaybeUninit;

use crate::dtype::{Block, Compute, Float, HALF_BLOCK};
use crate::kernel::general::{self, Coder};
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::{LaneBlock, Lanes, Steps, Sum, for_each_block, is_fast};
use crate::kernel::parallel::{self, piece_len};
use crate::kernel::quantize::{AFTER, EXACT, FUSED, ROUNDED, clamped, scaled};
use crate::qparams::QParams;
use crate::tiles::Tiles;

/// Writes the dequantized code of every element of `x` to `out`, both in memory order: the bits
/// that `dequantize(quantize(x))` gives, but for NaN, which stays NaN.
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
    if !is_fast(params, F::TYPE) {
        let coder = Coder::new::<F>(params, tiles);
        return by_pieces::<F, MASK>(x, out, mask, |x, first, out, mask| {
            general::fake_quantize::<F, MASK>(x, &coder, tiles, first, params.bounds(), out, mask)
        });
    }
    let steps = Steps::new(params, F::TYPE);
    let lanes = Lanes::new(params, tiles, F::TYPE);
    let run = match (steps.reciprocal, steps.sum) {
        (false, Sum::Exact) => fast::<F, false, EXACT, MASK>,
        (false, Sum::Rounded) => fast::<F, false, ROUNDED, MASK>,
        (false, Sum::After) => fast::<F, false, AFTER, MASK>,
        (true, Sum::Exact) => fast::<F, true, EXACT, MASK>,
        (true, Sum::Rounded) => fast::<F, true, ROUNDED, MASK>,
        (true, Sum::After) => fast::<F, true, AFTER, MASK>,
        (_, Sum::Fused) => fast::<F, true, FUSED, MASK>,
    };
    by_pieces::<F, MASK>(x, out, mask, |x, first, out, mask| {
        run(x, &lanes, tiles, first, out, mask)
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
    fn fast[F: Float, const RECIPROCAL: bool, const SUM: u8, const MASK: bool]
    [F, RECIPROCAL, SUM, MASK](
        x: &[F],
        lanes: &Lanes<F::Compute>,
        tiles: &Tiles,
        first: usize,
        out: &mut [MaybeUninit<F>],
        mask: &mut [MaybeUninit<u8>],
    ) -> () {
        let mut buffer: Block<F::Compute> = [MaybeUninit::uninit(); HALF_BLOCK];
        for_each_block(tiles, first..first + x.len(), F::BLOCK, |elements, params| {
            let lanes = lanes.block(params);
            let mask = if MASK { &mut mask[elements.clone()] } else { &mut [] };
            let block = F::widen_block(&x[elements.clone()], &mut buffer);
            F::narrow_block(&mut out[elements], |out| {
                fast_block::<_, RECIPROCAL, SUM, MASK>(block, lanes, out, mask)
            });
        });
    }
}

#[inline(always)]
fn fast_block<C: Compute, const RECIPROCAL: bool, const SUM: u8, const MASK: bool>(
    x: &[C],
    p: LaneBlock<'_, C>,
    out: &mut [MaybeUninit<C>],
    mask: &mut [MaybeUninit<u8>],
) {
    let divisor = if RECIPROCAL { p.inverse } else { p.scale };
    let n = x.len();
    let (out, mask) = (&mut out[..n], &mut mask[..if MASK { n } else { 0 }]);
    if divisor.len() == 1 {
        let (divisor, scale, zero) = (divisor[0], p.scale[0], p.zero[0]);
        let (low, high, magic) = (p.low[0], p.high[0], p.magic[0]);
        for i in 0..n {
            let v = scaled::<C, RECIPROCAL, SUM>(x[i], divisor, zero);
            let (r, inside) = rounded::<C, MASK>(v, low, high, magic);
            out[i].write(dequantized::<C, SUM>(r, scale, zero));
            if MASK {
                mask[i].write(inside);
            }
        }
    } else {
        let (divisor, scale) = (&divisor[..n], &p.scale[..n]);
        let (zero, low) = (&p.zero[..n], &p.low[..n]);
        let (high, magic) = (&p.high[..n], &p.magic[..n]);
        for i in 0..n {
            let v = scaled::<C, RECIPROCAL, SUM>(x[i], divisor[i], zero[i]);
            let (r, inside) = rounded::<C, MASK>(v, low[i], high[i], magic[i]);
            out[i].write(dequantized::<C, SUM>(r, scale[i], zero[i]));
            if MASK {
                mask[i].write(inside);
            }
        }
    }
}

/// v rounded to an integer between the bounds, and 1 where it lies there unclamped, else 0.
#[inline(always)]
pub(crate) fn rounded<C: Compute, const MASK: bool>(v: C, low: C, high: C, magic: C) -> (C, u8) {
    if !MASK {
        return ((clamped(v, low, high) + magic) - magic, 0);
    }
    // One step of room on each side tells a code beyond a bound from one at it.
    let r = (clamped(v, low - C::one(), high + C::one()) + magic) - magic;
    let clamped = clamped(r, low, high);
    (clamped, u8::from(r == clamped))
}

/// (r − z)·s, where r holds z as [`Lanes`] says.
#[inline(always)]
fn dequantized<C: Compute, const SUM: u8>(r: C, scale: C, zero: C) -> C {
    match SUM {
        ROUNDED | FUSED => (r - zero) * scale,
        _ => r * scale,
    }
}
