//! x̂ = (q − z)·s: codes to floats.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::dtype::{Float, HALF_BLOCK, Int};
use crate::kernel::general::Coder;
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::{Lanes, for_each_block, integers_fit, is_native_difference};
use crate::kernel::parallel::{self, piece_len};
use crate::qparams::QParams;
use crate::tiles::Tiles;

/// Writes the value of every code, which must lie in the scheme's range.
pub(crate) fn dequantize<I: Int, F: Float>(
    codes: &[I],
    params: &QParams,
    tiles: &Tiles,
    out: &mut [MaybeUninit<F>],
) {
    if integers_fit(params, F::TYPE) && !is_native_difference(params, F::TYPE) {
        let lanes = Lanes::new(params, tiles, F::TYPE);
        by_pieces(codes, out, |codes, first, out| {
            fast(codes, &lanes, tiles, first, out)
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
        out: &mut [MaybeUninit<F>],
    ) -> () {
        for_each_block(tiles, first..first + codes.len(), F::BLOCK, |elements, params| {
            let p = lanes.block(params);
            let codes = &codes[elements.clone()];
            F::narrow_block(&mut out[elements], |out| {
                if let (&[scale], &[zero]) = (p.scale, p.zero) {
                    for (out, &q) in out.iter_mut().zip(codes) {
                        out.write((q.to_compute::<F::Compute>() - zero) * scale);
                    }
                } else {
                    let params = p.scale.iter().zip(p.zero);
                    for ((out, &q), (&scale, &zero)) in out.iter_mut().zip(codes).zip(params) {
                        out.write((q.to_compute::<F::Compute>() - zero) * scale);
                    }
                }
            });
        });
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
            block.iter().fold(false, |bad, q| bad | (q.to_i64() < qmin) | (q.to_i64() > qmax))
        })
    }
}
