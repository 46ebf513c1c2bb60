//! Codes of up to 32 bits and zero points beyond them: a block at a time, in `f64`.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::dtype::{Block, Compute, Float, FloatType, HALF_BLOCK};
use crate::kernel::affine::Plan;
use crate::kernel::code::Code;
use crate::kernel::isa::per_isa;
use crate::kernel::lanes::{LaneBlock, Lanes, for_each_block};
use crate::kernel::steps::Sum;
use crate::kernel::uniform;
use crate::qparams::QParams;
use crate::recipe::integers_fit;
use crate::scheme::{NanPolicy, Rounding};
use crate::tiles::Tiles;

/// Computes codes as integers held in `f64`.
pub(crate) struct Coder<C> {
    plan: Plan,
    /// Whether q − z is not rounded, and exact in `f64` only.
    exact: bool,
    /// The scales, in the compute type.
    scales: Lanes<C>,
    /// The integers, exact.
    integers: Lanes<f64>,
}

impl<C: Compute> Coder<C> {
    pub fn new<F: Float<Compute = C>>(params: &QParams, tiles: &Tiles) -> Self {
        let plan = Plan::new(params, F::TYPE);
        Self {
            plan,
            exact: !integers_fit(params, F::TYPE) && plan.has_exact_difference(),
            scales: Lanes::new(params, tiles, F::TYPE),
            integers: Lanes::new(params, tiles, F::TYPE),
        }
    }

    /// The codes of a block that starts at offset `first` of the tensor, clamped to `room` steps
    /// beyond the range; NaN for NaN.
    #[inline(always)]
    fn codes<F: Float<Compute = C>>(
        &self,
        x: &[F],
        params: Range<usize>,
        first: usize,
        room: f64,
        codes: &mut [f64],
    ) {
        let scales = self.scales.block(params.clone());
        let integers = self.integers.block(params);
        if scales.scale.len() == 1 {
            self.scale::<F, false>(x, scales, codes);
            self.round::<false>(integers, first, room, codes);
        } else {
            self.scale::<F, true>(x, scales, codes);
            self.round::<true>(integers, first, room, codes);
        }
    }

    /// v: the scaled elements, with z added where that is rounded.
    #[inline(always)]
    fn scale<F: Float<Compute = C>, const ROW: bool>(
        &self,
        x: &[F],
        p: LaneBlock<'_, C>,
        v: &mut [f64],
    ) {
        let mut buffer: Block<C> = [MaybeUninit::uninit(); HALF_BLOCK];
        let x = F::widen_block(x, &mut buffer);
        let at = |i: usize| if ROW { i } else { 0 };
        let native = |c: C| {
            if self.plan.native {
                F::narrow(c).widen()
            } else {
                c
            }
        };
        let inverse = p.inverse;
        match (self.plan.steps.multiplies(), self.plan.steps.sum()) {
            (_, Sum::Fused) => {
                for (i, (v, &x)) in v.iter_mut().zip(x).enumerate() {
                    *v = x.mul_add(inverse[at(i)], p.zero[at(i)]).as_f64();
                }
            }
            (true, _) => {
                for (i, (v, &x)) in v.iter_mut().zip(x).enumerate() {
                    *v = native(x * inverse[at(i)]).as_f64();
                }
            }
            (false, _) => {
                for (i, (v, &x)) in v.iter_mut().zip(x).enumerate() {
                    *v = native(x / p.scale[at(i)]).as_f64();
                }
            }
        }
        if self.plan.steps.sum() == Sum::Rounded {
            for (i, v) in v.iter_mut().enumerate() {
                *v = native(C::from_f64(*v) + native(p.zero[at(i)])).as_f64();
            }
        }
    }

    /// From v to the clamped integer.
    #[inline(always)]
    fn round<const ROW: bool>(
        &self,
        p: LaneBlock<'_, f64>,
        first: usize,
        room: f64,
        v: &mut [f64],
    ) {
        let at = |i: usize| if ROW { i } else { 0 };
        let sum = self.plan.steps.sum();
        let zero_if = |condition: bool, i: usize| if condition { p.zero[at(i)] } else { 0.0 };
        // What is added before rounding, and after: the signs of the sums are those of v + before,
        // whose rounding keeps the sign.
        let before = |i: usize| zero_if(sum == Sum::Exact, i);
        let after = |i: usize| zero_if(!sum.before_clamp(), i);
        let (qmin, qmax) = (self.plan.qmin as f64 - room, self.plan.qmax as f64 + room);
        for (i, v) in v.iter_mut().enumerate() {
            *v = clamped(*v, qmin - after(i), qmax - after(i));
        }
        if self.plan.rounding == Rounding::NearestEven {
            for (i, v) in v.iter_mut().enumerate() {
                *v = (*v + (f64::MAGIC + before(i))) - f64::MAGIC;
            }
            if sum == Sum::After {
                for (i, v) in v.iter_mut().enumerate() {
                    *v += after(i);
                }
            }
            return;
        }
        // r is v rounded to nearest even and d what is left, both exact; each rounding is r or a
        // neighbour of it.
        let mut neighbour = |step: &dyn Fn(f64, f64, usize) -> f64| {
            for (i, v) in v.iter_mut().enumerate() {
                let r = (*v + f64::MAGIC) - f64::MAGIC;
                *v = r + step(*v - r, *v + before(i), i) + after(i);
            }
        };
        let if_so = |condition: bool| f64::from(u8::from(condition));
        match self.plan.rounding {
            Rounding::NearestEven => {}
            Rounding::NearestAway => {
                neighbour(&|d, sum, _| if_so(d == 0.5 && sum > 0.0) - if_so(d == -0.5 && sum < 0.0))
            }
            Rounding::TowardZero => {
                neighbour(&|d, sum, _| if_so(d > 0.0 && sum < 0.0) - if_so(d < 0.0 && sum >= 0.0))
            }
            Rounding::Floor => neighbour(&|d, _, _| -if_so(d < 0.0)),
            Rounding::Ceiling => neighbour(&|d, _, _| if_so(d > 0.0)),
            Rounding::Stochastic { seed } => neighbour(&|d, _, i| {
                let down = if_so(d < 0.0);
                // fraction > u, where the fraction is d or d + 1.
                if_so(d > uniform::scalar(seed, (first + i) as u64) - down) - down
            }),
        }
    }
}

/// v between the bounds; NaN stays NaN.
#[inline(always)]
fn clamped(v: f64, low: f64, high: f64) -> f64 {
    // In this order a comparison with NaN keeps the NaN, and each is one instruction.
    let v = if low > v { low } else { v };
    if high < v { high } else { v }
}

per_isa! {
    /// Writes the codes of `x`, like [`super::quantize::quantize`].
    fn quantize[F: Float, O: Code][F, O](
        x: &[F],
        coder: &Coder<F::Compute>,
        tiles: &Tiles,
        first: usize,
        nan: NanPolicy,
        bounds: (i64, i64),
        out: &mut [MaybeUninit<O>],
    ) -> bool {
        let mut buffer = [0.0; HALF_BLOCK];
        let (qmin, qmax) = (bounds.0 as f64, bounds.1 as f64);
        let mut any_nan = false;
        for_each_block(tiles, first..first + x.len(), HALF_BLOCK, |elements, params| {
            let codes = &mut buffer[..elements.len()];
            let index = first + elements.start;
            coder.codes(&x[elements.clone()], params.clone(), index, 0.0, codes);
            if codes.iter().any(|q| q.is_nan()) {
                any_nan = true;
                let zero = &coder.integers.zero[params];
                for (i, q) in codes.iter_mut().enumerate().filter(|(_, q)| q.is_nan()) {
                    *q = zero[i % zero.len()].clamp(qmin, qmax);
                }
            }
            for (out, &q) in out[elements].iter_mut().zip(&*codes) {
                out.write(O::from_low_bits((q + f64::MAGIC).low_bits()));
            }
        });
        !any_nan || nan == NanPolicy::ZeroPoint
    }
}

per_isa! {
    /// Writes the dequantized codes of `x` and with `MASK` the mask, like
    /// [`super::fake_quantize::fake_quantize_with_mask`].
    fn fake_quantize[F: Float, const MASK: bool][F, MASK](
        x: &[F],
        coder: &Coder<F::Compute>,
        tiles: &Tiles,
        first: usize,
        bounds: (i64, i64),
        out: &mut [MaybeUninit<F>],
        mask: &mut [MaybeUninit<u8>],
    ) -> () {
        let mut buffer = [0.0; HALF_BLOCK];
        let (qmin, qmax) = (bounds.0 as f64, bounds.1 as f64);
        for_each_block(tiles, first..first + x.len(), HALF_BLOCK, |elements, params| {
            let codes = &mut buffer[..elements.len()];
            let index = first + elements.start;
            let x = &x[elements.clone()];
            // One step of room on each side tells a code beyond a bound from one at it.
            let room = if MASK { 1.0 } else { 0.0 };
            coder.codes(x, params.clone(), index, room, codes);
            if coder.plan.nan_is_smallest {
                for q in codes.iter_mut() {
                    *q = if q.is_nan() { qmin - room } else { *q };
                }
            }
            if MASK {
                for (inside, q) in mask[elements.clone()].iter_mut().zip(&mut *codes) {
                    inside.write(u8::from(qmin <= *q && *q <= qmax));
                    *q = clamped(*q, qmin, qmax);
                }
            }
            coder.dequantize_block(codes, params, &mut out[elements]);
        });
    }
}

impl<C: Compute> Coder<C> {
    /// x̂ = (q − z)·s, for codes held in `f64`.
    #[inline(always)]
    pub fn dequantize_block<F: Float<Compute = C>>(
        &self,
        codes: &[f64],
        params: Range<usize>,
        out: &mut [MaybeUninit<F>],
    ) {
        let p = self.scales.block(params.clone());
        let zero = self.integers.block(params).zero;
        let at = |i: usize| if p.scale.len() == 1 { 0 } else { i };
        let native = |c: C| {
            if self.plan.has_native_difference() {
                F::narrow(c).widen()
            } else {
                c
            }
        };
        F::narrow_block(out, |out| {
            for (i, (out, &q)) in out.iter_mut().zip(codes).enumerate() {
                let scale = p.scale[at(i)];
                let difference = q - zero[at(i)];
                let value = match self.exact {
                    true => C::exact_product(difference, scale),
                    false => native(C::from_f64(difference)) * scale,
                };
                out.write(match self.plan.narrow_product {
                    true => C::from_f64(FloatType::F32.round(value.as_f64())),
                    false => value,
                });
            }
        });
    }
}
