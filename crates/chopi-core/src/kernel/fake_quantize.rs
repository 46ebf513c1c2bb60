//! x̂ = (clamp(round(x/s + z)) − z)·s: quantize and dequantize in one pass.

use std::mem::MaybeUninit;

use crate::dtype::{Block, Compute, Float, HALF_BLOCK};
use crate::kernel::general::{self, Coder};
use crate::kernel::lanes::{LaneBlock, Lanes, Steps, Sum, for_each_block, is_fast};
use crate::kernel::per_cpu;
use crate::kernel::quantize::{AFTER, EXACT, FUSED, ROUNDED, clamped};
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
    if !is_fast(params, F::TYPE) {
        return general::fake_quantize(x, &Coder::new::<F>(params, tiles), tiles, out);
    }
    let steps = Steps::new(params, F::TYPE);
    let lanes = Lanes::new(params, tiles, F::TYPE);
    let run = match (steps.reciprocal, steps.sum) {
        (false, Sum::Exact) => fast::<F, false, EXACT>,
        (false, Sum::Rounded) => fast::<F, false, ROUNDED>,
        (false, Sum::After) => fast::<F, false, AFTER>,
        (true, Sum::Exact) => fast::<F, true, EXACT>,
        (true, Sum::Rounded) => fast::<F, true, ROUNDED>,
        (true, Sum::After) => fast::<F, true, AFTER>,
        (_, Sum::Fused) => fast::<F, true, FUSED>,
    };
    run(x, &lanes, tiles, out)
}

per_cpu! {
    fn fast[F: Float, const RECIPROCAL: bool, const SUM: u8][F, RECIPROCAL, SUM](
        x: &[F],
        lanes: &Lanes<F::Compute>,
        tiles: &Tiles,
        out: &mut [MaybeUninit<F>],
    ) -> () {
        let mut buffer: Block<F::Compute> = [MaybeUninit::uninit(); HALF_BLOCK];
        for_each_block(tiles, F::BLOCK, |elements, params| {
            let lanes = lanes.block(params);
            let block = F::widen_block(&x[elements.clone()], &mut buffer);
            F::narrow_block(&mut out[elements], |out| {
                fast_block::<_, RECIPROCAL, SUM>(block, lanes, out)
            });
        });
    }
}

#[inline(always)]
fn fast_block<C: Compute, const RECIPROCAL: bool, const SUM: u8>(
    x: &[C],
    p: LaneBlock<'_, C>,
    out: &mut [MaybeUninit<C>],
) {
    let divisor = if RECIPROCAL { p.inverse } else { p.scale };
    if divisor.len() == 1 {
        let (divisor, scale, zero) = (divisor[0], p.scale[0], p.zero[0]);
        let (low, high, magic) = (p.low[0], p.high[0], p.magic[0]);
        for (&x, out) in x.iter().zip(out) {
            let v = clamped::<C, RECIPROCAL, SUM>(x, divisor, zero, low, high);
            out.write(dequantized::<C, SUM>(v, scale, zero, magic));
        }
    } else {
        let n = x.len();
        let (out, divisor, scale) = (&mut out[..n], &divisor[..n], &p.scale[..n]);
        let (zero, low) = (&p.zero[..n], &p.low[..n]);
        let (high, magic) = (&p.high[..n], &p.magic[..n]);
        for i in 0..n {
            let v = clamped::<C, RECIPROCAL, SUM>(x[i], divisor[i], zero[i], low[i], high[i]);
            out[i].write(dequantized::<C, SUM>(v, scale[i], zero[i], magic[i]));
        }
    }
}

/// (round(v) − z)·s, where v holds z as [`Lanes`] says.
#[inline(always)]
fn dequantized<C: Compute, const SUM: u8>(v: C, scale: C, zero: C, magic: C) -> C {
    let rounded = (v + magic) - magic;
    match SUM {
        ROUNDED | FUSED => (rounded - zero) * scale,
        _ => rounded * scale,
    }
}
