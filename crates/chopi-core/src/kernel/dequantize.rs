//! x̂ = (q − z)·s: codes to floats.

use std::mem::MaybeUninit;

use crate::dtype::{Float, HALF_BLOCK, Int};
use crate::kernel::general::Coder;
use crate::kernel::lanes::{Lanes, for_each_block, integers_fit, is_native_difference};
use crate::kernel::per_cpu;
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
        fast(codes, &Lanes::new(params, tiles, F::TYPE), tiles, out);
    } else {
        general(codes, &Coder::new::<F>(params, tiles), tiles, out);
    }
}

per_cpu! {
    fn fast[I: Int, F: Float][I, F](
        codes: &[I],
        lanes: &Lanes<F::Compute>,
        tiles: &Tiles,
        out: &mut [MaybeUninit<F>],
    ) -> () {
        for_each_block(tiles, F::BLOCK, |elements, params| {
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

per_cpu! {
    fn general[I: Int, F: Float][I, F](
        codes: &[I],
        coder: &Coder<F::Compute>,
        tiles: &Tiles,
        out: &mut [MaybeUninit<F>],
    ) -> () {
        let mut buffer = [0.0; HALF_BLOCK];
        for_each_block(tiles, HALF_BLOCK, |elements, params| {
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
    outside(codes, qmin, qmax)
}

per_cpu! {
    fn outside[I: Int][I](codes: &[I], qmin: i64, qmax: i64) -> bool {
        codes.chunks(HALF_BLOCK).any(|block| {
            block.iter().fold(false, |bad, q| bad | (q.to_i64() < qmin) | (q.to_i64() > qmax))
        })
    }
}
