//! The gradients of fake quantization: straight through, and of a learned scale and zero point.
//!
//! Notation: y = x̂ = (q − z)·s with q = clamp(round(v + z)), v = x/s; dy = ∂L/∂y. An element is
//! *inside* where round(v + z) lies in [qmin, qmax] before it is clamped; NaN is not.
//!
//! Sums over a group are taken in `f64`, in an order that depends on the layout alone: a run of
//! elements with one parameter goes in blocks of [`HALF_BLOCK`] elements with [`LANES`] sums each,
//! which are added to the group's sum in order; a row with a parameter an element adds each element
//! to the sum of its parameter.

use std::mem::MaybeUninit;

use crate::dtype::{Block, Compute, Float, HALF_BLOCK};
use crate::kernel::fake_quantize::{fake_quantize_with_mask, rounded};
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::{LaneBlock, Lanes, Steps, Sum, for_each_block, is_fast};
use crate::kernel::parallel::{self, piece_len};
use crate::kernel::quantize::{self, AFTER, EXACT, FUSED, ROUNDED, scaled};
use crate::qparams::QParams;
use crate::scheme::NanPolicy;
use crate::tiles::Tiles;

const LANES: usize = 16;

/// Writes dx = dy inside, 0 outside.
pub(crate) fn straight_through<F: Float>(
    x: &[F],
    dy: &[F],
    params: &QParams,
    tiles: &Tiles,
    out: &mut [MaybeUninit<F>],
) {
    if !is_fast(params, F::TYPE) {
        let mask = mask(x, params, tiles, out);
        for ((out, &dy), inside) in out.iter_mut().zip(dy).zip(mask) {
            out.write(if inside { dy } else { F::default() });
        }
        return;
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
    let n = piece_len(x.len());
    let pieces = out.chunks_mut(n).enumerate();
    let work = |(): &mut (), (i, out): (usize, &mut [MaybeUninit<F>])| {
        let (start, end) = (i * n, i * n + out.len());
        run(&x[start..end], &dy[start..end], &lanes, tiles, start, out)
    };
    parallel::for_each(pieces, || (), work, |()| ());
}

/// Which elements are inside; `scratch` is written.
fn mask<F: Float>(
    x: &[F],
    params: &QParams,
    tiles: &Tiles,
    scratch: &mut [MaybeUninit<F>],
) -> Vec<bool> {
    let mut mask = vec![MaybeUninit::new(0); x.len()];
    fake_quantize_with_mask(x, params, tiles, scratch, &mut mask);
    // SAFETY: the vector was made of initialized elements.
    let inside = |mask: MaybeUninit<u8>| unsafe { mask.assume_init() } != 0;
    mask.into_iter().map(inside).collect()
}

per_isa! {
    fn fast[F: Float, const RECIPROCAL: bool, const SUM: u8][F, RECIPROCAL, SUM](
        x: &[F],
        dy: &[F],
        lanes: &Lanes<F::Compute>,
        tiles: &Tiles,
        first: usize,
        out: &mut [MaybeUninit<F>],
    ) -> () {
        let mut buffer: Block<F::Compute> = [MaybeUninit::uninit(); HALF_BLOCK];
        for_each_block(tiles, first..first + x.len(), F::BLOCK, |elements, params| {
            let x = F::widen_block(&x[elements.clone()], &mut buffer);
            let (dy, out) = (&dy[elements.clone()], &mut out[elements]);
            fast_block::<F, RECIPROCAL, SUM>(x, dy, lanes.block(params), out);
        });
    }
}

#[inline(always)]
fn fast_block<F: Float, const RECIPROCAL: bool, const SUM: u8>(
    x: &[F::Compute],
    dy: &[F],
    p: LaneBlock<'_, F::Compute>,
    out: &mut [MaybeUninit<F>],
) {
    let divisor = if RECIPROCAL { p.inverse } else { p.scale };
    let n = x.len();
    let (dy, out) = (&dy[..n], &mut out[..n]);
    let pass = |inside: u8, dy: F| if inside != 0 { dy } else { F::default() };
    if divisor.len() == 1 {
        let (divisor, zero) = (divisor[0], p.zero[0]);
        let (low, high, magic) = (p.low[0], p.high[0], p.magic[0]);
        for i in 0..n {
            let v = scaled::<_, RECIPROCAL, SUM>(x[i], divisor, zero);
            let (_, inside) = rounded::<_, true>(v, low, high, magic);
            out[i].write(pass(inside, dy[i]));
        }
    } else {
        let (divisor, zero) = (&divisor[..n], &p.zero[..n]);
        let (low, high, magic) = (&p.low[..n], &p.high[..n], &p.magic[..n]);
        for i in 0..n {
            let v = scaled::<_, RECIPROCAL, SUM>(x[i], divisor[i], zero[i]);
            let (_, inside) = rounded::<_, true>(v, low[i], high[i], magic[i]);
            out[i].write(pass(inside, dy[i]));
        }
    }
}

/// The sums of each group, in memory order.
#[derive(Debug)]
pub(crate) struct Sums {
    /// Σ dy·∂y/∂s.
    pub scale: Vec<f64>,
    /// Σ dy over the elements outside; with the rule of PyTorch Σ dy·∂y/∂z.
    pub zero: Vec<f64>,
}

/// How the derivatives are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Rule {
    /// ∂y/∂s = (q − z) − v inside and q − z outside, the difference rounded once.
    Exact,
    /// As PyTorch's learnable fake quantization takes them, with its factor in every term.
    Torch { factor: f64 },
}

/// Writes dx, as [`straight_through`] does, and gives the sums of the parameters' gradients.
pub(crate) fn learned<F: Float>(
    x: &[F],
    dy: &[F],
    params: &QParams,
    tiles: &Tiles,
    rule: Rule,
    out: &mut [MaybeUninit<F>],
) -> Sums {
    let lanes = Lanes::new(params, tiles, F::TYPE);
    let width = lanes.scale.len();
    let mut sums = Sums {
        scale: vec![0.0; width],
        zero: vec![0.0; width],
    };
    let steps = Steps::new(params, F::TYPE);
    match (rule, steps.reciprocal, steps.sum) {
        (Rule::Torch { factor }, ..) => {
            let factor = F::Compute::from_f64(factor);
            torch(x, dy, &lanes, tiles, factor, &mut sums, out);
        }
        _ if !is_fast(params, F::TYPE) => {
            let derivatives = derivatives(x, params, tiles, &lanes, out);
            general(dy, &derivatives, tiles, &mut sums, out);
        }
        (_, false, Sum::Exact) => {
            exact::<F, false, EXACT>(x, dy, &lanes, tiles, &mut sums, out);
        }
        (_, false, Sum::Rounded) => {
            exact::<F, false, ROUNDED>(x, dy, &lanes, tiles, &mut sums, out);
        }
        (_, false, Sum::After) => {
            exact::<F, false, AFTER>(x, dy, &lanes, tiles, &mut sums, out);
        }
        (_, true, Sum::Exact) => exact::<F, true, EXACT>(x, dy, &lanes, tiles, &mut sums, out),
        (_, true, Sum::Rounded) => {
            exact::<F, true, ROUNDED>(x, dy, &lanes, tiles, &mut sums, out);
        }
        (_, true, Sum::After) => exact::<F, true, AFTER>(x, dy, &lanes, tiles, &mut sums, out),
        (_, _, Sum::Fused) => exact::<F, true, FUSED>(x, dy, &lanes, tiles, &mut sums, out),
    }
    let repeat = tiles.repeat();
    if repeat > 1 {
        let fold = |sums: &[f64]| sums.chunks_exact(repeat).map(|c| c.iter().sum()).collect();
        sums = Sums {
            scale: fold(&sums.scale),
            zero: fold(&sums.zero),
        };
    }
    sums
}

/// ∂y/∂s of every element in the compute type, and which ones are inside.
pub(crate) fn derivatives<F: Float>(
    x: &[F],
    params: &QParams,
    tiles: &Tiles,
    lanes: &Lanes<F::Compute>,
    scratch: &mut [MaybeUninit<F>],
) -> Vec<(F::Compute, bool)> {
    let steps = Steps::new(params, F::TYPE);
    let mask = mask(x, params, tiles, scratch);
    let mut codes = vec![MaybeUninit::new(0_i64); x.len()];
    let out = crate::IntSliceMut::I64(&mut codes);
    quantize::quantize(x, params, tiles, NanPolicy::ZeroPoint, out);
    let zeros: Vec<f64> = params.zero_points().collect();
    let zeros = tiles.to_memory_order(&zeros);
    let mut derivatives = Vec::with_capacity(x.len());
    for_each_block(tiles, 0..x.len(), F::BLOCK, |elements, params| {
        for (i, offset) in elements.enumerate() {
            let at = params.start + if params.len() == 1 { 0 } else { i };
            // SAFETY: the vector was made of initialized elements.
            let q = unsafe { codes[offset].assume_init() };
            let difference = F::Compute::from_f64(q as f64 - zeros[at / tiles.repeat()]);
            let x = x[offset].widen();
            let v = match steps.reciprocal {
                true => x * lanes.inverse[at],
                false => x / lanes.scale[at],
            };
            let derivative = match mask[offset] {
                true => difference - v,
                false if num_traits::Float::is_nan(x) => x,
                false => difference,
            };
            derivatives.push((derivative, mask[offset]));
        }
    });
    derivatives
}

/// The sums from the derivatives.
fn general<F: Float>(
    dy: &[F],
    derivatives: &[(F::Compute, bool)],
    tiles: &Tiles,
    sums: &mut Sums,
    out: &mut [MaybeUninit<F>],
) {
    let mut buffer: Block<F::Compute> = [MaybeUninit::uninit(); HALF_BLOCK];
    for_each_block(tiles, 0..dy.len(), HALF_BLOCK, |elements, params| {
        let derivatives = &derivatives[elements.clone()];
        let element = |i: usize, _: usize, dy: F::Compute| {
            let (derivative, inside) = derivatives[i];
            Element {
                inside,
                scale: dy.as_f64() * derivative.as_f64(),
                zero: if inside { 0.0 } else { dy.as_f64() },
            }
        };
        let (dy, out) = (&dy[elements.clone()], &mut out[elements]);
        add::<F>(dy, &mut buffer, params, element, sums, out);
    });
}

/// What one element adds to the sums.
struct Element {
    inside: bool,
    scale: f64,
    zero: f64,
}

/// Adds the elements of a block to the sums and writes dx. `element(i, j, dy)` is the block's
/// i-th element, with the j-th of the block's parameters.
#[inline(always)]
fn add<F: Float>(
    dy: &[F],
    buffer: &mut Block<F::Compute>,
    params: std::ops::Range<usize>,
    element: impl Fn(usize, usize, F::Compute) -> Element,
    sums: &mut Sums,
    out: &mut [MaybeUninit<F>],
) {
    let n = dy.len();
    let wide = &F::widen_block(dy, buffer)[..n];
    let out = &mut out[..n];
    let pass = |inside: bool, dy: F| if inside { dy } else { F::default() };
    if params.len() == 1 {
        let (mut scale, mut zero) = ([0.0; LANES], [0.0; LANES]);
        let whole = n - n % LANES;
        for start in (0..whole).step_by(LANES) {
            for lane in 0..LANES {
                let i = start + lane;
                let e = element(i, 0, wide[i]);
                out[i].write(pass(e.inside, dy[i]));
                scale[lane] += e.scale;
                zero[lane] += e.zero;
            }
        }
        for i in whole..n {
            let e = element(i, 0, wide[i]);
            out[i].write(pass(e.inside, dy[i]));
            scale[i - whole] += e.scale;
            zero[i - whole] += e.zero;
        }
        sums.scale[params.start] += scale.iter().sum::<f64>();
        sums.zero[params.start] += zero.iter().sum::<f64>();
    } else {
        let (scale, zero) = (&mut sums.scale[params.clone()], &mut sums.zero[params]);
        let (scale, zero) = (&mut scale[..n], &mut zero[..n]);
        for i in 0..n {
            let e = element(i, i, wide[i]);
            out[i].write(pass(e.inside, dy[i]));
            scale[i] += e.scale;
            zero[i] += e.zero;
        }
    }
}

per_isa! {
    /// [`learned`] with [`Rule::Exact`].
    fn exact[F: Float, const RECIPROCAL: bool, const SUM: u8][F, RECIPROCAL, SUM](
        x: &[F],
        dy: &[F],
        lanes: &Lanes<F::Compute>,
        tiles: &Tiles,
        sums: &mut Sums,
        out: &mut [MaybeUninit<F>],
    ) -> () {
        let mut buffer: Block<F::Compute> = [MaybeUninit::uninit(); HALF_BLOCK];
        let mut dy_buffer: Block<F::Compute> = [MaybeUninit::uninit(); HALF_BLOCK];
        for_each_block(tiles, 0..dy.len(), HALF_BLOCK, |elements, params| {
            let n = elements.len();
            let x = &F::widen_block(&x[elements.clone()], &mut buffer)[..n];
            let p = lanes.block(params.clone());
            let divisor = if RECIPROCAL { p.inverse } else { p.scale };
            let (dy, out) = (&dy[elements.clone()], &mut out[elements]);
            let element = |i: usize, j: usize, dy: F::Compute| {
                let (divisor, zero) = (divisor[j], p.zero[j]);
                let v = scaled::<_, RECIPROCAL, SUM>(x[i], divisor, zero);
                let (r, inside) = rounded::<_, true>(v, p.low[j], p.high[j], p.magic[j]);
                // r is q − z, or q where v holds z.
                let (difference, v) = match SUM {
                    ROUNDED | FUSED => (r - zero, scaled::<_, RECIPROCAL, EXACT>(x[i], divisor, zero)),
                    _ => (r, v),
                };
                let inside = inside != 0;
                let derivative = if inside { difference - v } else { difference };
                Element {
                    inside,
                    scale: dy.as_f64() * derivative.as_f64(),
                    zero: if inside { 0.0 } else { dy.as_f64() },
                }
            };
            add::<F>(dy, &mut dy_buffer, params, element, sums, out);
        });
    }
}

per_isa! {
    /// [`learned`] with [`Rule::Torch`]: PyTorch 2.13's
    /// `_fake_quantize_learnable_per_{tensor,channel}_affine` on a CPU with fused multiply-add. Each
    /// operation rounds to the compute type; a code of 2^63 or more counts as below, and NaN too.
    fn torch[F: Float][F](
        x: &[F],
        dy: &[F],
        lanes: &Lanes<F::Compute>,
        tiles: &Tiles,
        factor: F::Compute,
        sums: &mut Sums,
        out: &mut [MaybeUninit<F>],
    ) -> () {
        let mut buffer: Block<F::Compute> = [MaybeUninit::uninit(); HALF_BLOCK];
        let mut dy_buffer: Block<F::Compute> = [MaybeUninit::uninit(); HALF_BLOCK];
        let overflow = F::Compute::from_f64(9_223_372_036_854_775_808.0);
        for_each_block(tiles, 0..dy.len(), HALF_BLOCK, |elements, params| {
            let n = elements.len();
            let x = &F::widen_block(&x[elements.clone()], &mut buffer)[..n];
            let p = lanes.block(params.clone());
            let (dy, out) = (&dy[elements.clone()], &mut out[elements]);
            let element = |i: usize, j: usize, dy: F::Compute| {
                use num_traits::Float as _;
                let (x, s, inverse, zero) = (x[i], p.scale[j], p.inverse[j], p.zero[j]);
                let (low, high) = (p.low[j] + zero, p.high[j] + zero);
                let v = x.mul_add(inverse, zero);
                let below = low - F::Compute::from_f64(1.0);
                let v = if v < overflow { v } else { below };
                let (q, inside) = rounded::<_, true>(v, low, high, F::Compute::MAGIC);
                let inside = inside != 0;
                let difference = q - zero;
                let (scale, zero) = if inside {
                    (dy * difference.mul_add(s, -x) * inverse, F::Compute::from_f64(0.0))
                } else {
                    (dy * difference, -dy * s)
                };
                Element {
                    inside,
                    scale: (scale * factor).as_f64(),
                    zero: (zero * factor).as_f64(),
                }
            };
            add::<F>(dy, &mut dy_buffer, params, element, sums, out);
        });
    }
}
