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

use crate::buffer::IntSliceMut;
use crate::dtype::{Block, Compute, Float, HALF_BLOCK};
use crate::kernel::fake_quantize::fake_quantize_with_mask;
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::{Lanes, for_each_block};
use crate::kernel::quantize;
use crate::parallel::{self, piece_len};
use crate::qparams::QParams;
use crate::recipe::Recipe;
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
    let mask = mask(x, params, tiles, out);
    let n = piece_len(x.len());
    let pieces = out.chunks_mut(n).zip(dy.chunks(n)).zip(mask.chunks(n));
    type Piece<'a, F> = ((&'a mut [MaybeUninit<F>], &'a [F]), &'a [bool]);
    let work = |(): &mut (), ((out, dy), mask): Piece<'_, F>| {
        for ((out, &dy), &inside) in out.iter_mut().zip(dy).zip(mask) {
            out.write(if inside { dy } else { F::default() });
        }
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
    let width = tiles.groups() * tiles.repeat();
    let mut sums = Sums {
        scale: vec![0.0; width],
        zero: vec![0.0; width],
    };
    match rule {
        Rule::Exact => {
            let derivatives = Derivatives::new(x, params, tiles, out);
            exact(x, dy, &derivatives, tiles, &mut sums, out);
        }
        Rule::Torch { factor } => {
            let (lanes, factor) = (
                Lanes::new(params, tiles, F::TYPE),
                F::Compute::from_f64(factor),
            );
            torch(
                (x, dy),
                &lanes,
                params.bounds(),
                tiles,
                factor,
                &mut sums,
                out,
            );
        }
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

/// Writes ∂y/∂s of every element.
pub(crate) fn scale_derivatives<F: Float>(
    x: &[F],
    params: &QParams,
    tiles: &Tiles,
    out: &mut [MaybeUninit<F>],
) {
    let derivatives = Derivatives::new(x, params, tiles, out);
    for_each_block(tiles, 0..x.len(), HALF_BLOCK, |elements, params| {
        for (i, offset) in elements.enumerate() {
            let param = params.start + if params.len() == 1 { 0 } else { i };
            let derivative = derivatives.at(x[offset].widen(), offset, param);
            out[offset].write(F::narrow(derivative));
        }
    });
}

/// What ∂y/∂s follows from, by [`Rule::Exact`].
struct Derivatives<C> {
    codes: Vec<MaybeUninit<i64>>,
    mask: Vec<bool>,
    lanes: Lanes<C>,
    /// z, exact.
    integers: Lanes<f64>,
    reciprocal: bool,
}

impl<C: Compute> Derivatives<C> {
    /// Those of the elements of `x`; `scratch` is written.
    fn new<F: Float<Compute = C>>(
        x: &[F],
        params: &QParams,
        tiles: &Tiles,
        scratch: &mut [MaybeUninit<F>],
    ) -> Self {
        let mut codes = vec![MaybeUninit::new(0); x.len()];
        let out = IntSliceMut::I64(&mut codes);
        quantize::quantize(x, params, tiles, NanPolicy::ZeroPoint, out);
        Self {
            codes,
            mask: mask(x, params, tiles, scratch),
            lanes: Lanes::new(params, tiles, F::TYPE),
            integers: Lanes::new(params, tiles, F::TYPE),
            reciprocal: Recipe::new(params, F::TYPE).steps.multiplies(),
        }
    }

    /// ∂y/∂s of the element at `offset`, which is `x` and has the parameters at `param`.
    #[inline(always)]
    fn at(&self, x: C, offset: usize, param: usize) -> C {
        // SAFETY: the vector was made of initialized elements.
        let q = unsafe { self.codes[offset].assume_init() };
        let difference = C::from_f64(q as f64 - self.integers.zero[param]);
        if self.mask[offset] {
            let v = match self.reciprocal {
                true => x * self.lanes.inverse[param],
                false => x / self.lanes.scale[param],
            };
            difference - v
        } else if x.is_nan() {
            x
        } else {
            difference
        }
    }
}

/// [`learned`] with [`Rule::Exact`].
fn exact<F: Float>(
    x: &[F],
    dy: &[F],
    derivatives: &Derivatives<F::Compute>,
    tiles: &Tiles,
    sums: &mut Sums,
    out: &mut [MaybeUninit<F>],
) {
    let mut buffer: Block<F::Compute> = [MaybeUninit::uninit(); HALF_BLOCK];
    for_each_block(tiles, 0..dy.len(), HALF_BLOCK, |elements, params| {
        let (first, param) = (elements.start, params.start);
        let element = |i: usize, j: usize, dy: F::Compute| {
            let (offset, dy) = (first + i, dy.as_f64());
            let derivative = derivatives.at(x[offset].widen(), offset, param + j);
            let inside = derivatives.mask[offset];
            Element {
                inside,
                scale: dy * derivative.as_f64(),
                zero: if inside { 0.0 } else { dy },
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
    /// [`learned`] with [`Rule::Torch`]: PyTorch 2.13's
    /// `_fake_quantize_learnable_per_{tensor,channel}_affine` on a CPU with fused multiply-add. Each
    /// operation rounds to the compute type; a code of 2^63 or more counts as below, and NaN too.
    fn torch[F: Float][F](
        inputs: (&[F], &[F]),
        lanes: &Lanes<F::Compute>,
        bounds: (i64, i64),
        tiles: &Tiles,
        factor: F::Compute,
        sums: &mut Sums,
        out: &mut [MaybeUninit<F>],
    ) -> () {
        let (x, dy) = inputs;
        let mut buffer: Block<F::Compute> = [MaybeUninit::uninit(); HALF_BLOCK];
        let mut dy_buffer: Block<F::Compute> = [MaybeUninit::uninit(); HALF_BLOCK];
        let one = F::Compute::from_f64(1.0);
        let (low, high) = (bounds.0 as f64, bounds.1 as f64);
        let overflow = F::Compute::from_f64(9_223_372_036_854_775_808.0);
        for_each_block(tiles, 0..dy.len(), HALF_BLOCK, |elements, params| {
            let n = elements.len();
            let x = &F::widen_block(&x[elements.clone()], &mut buffer)[..n];
            let p = lanes.block(params.clone());
            let (dy, out) = (&dy[elements.clone()], &mut out[elements]);
            let element = |i: usize, j: usize, dy: F::Compute| {
                use num_traits::Float as _;
                let (x, s, zero) = (x[i], p.scale[j], p.zero[j]);
                let inverse = p.inverse.get(j).copied().unwrap_or(one / s);
                let v = x.mul_add(inverse, zero);
                // NaN compares with nothing.
                let r = if v < overflow {
                    v.as_f64().clamp(low - 1.0, high + 1.0).round_ties_even()
                } else {
                    low - 1.0
                };
                let inside = low <= r && r <= high;
                let q = F::Compute::from_f64(r.clamp(low, high));
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
