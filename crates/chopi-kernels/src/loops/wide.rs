//! Codes of up to 32 bits and zero points beyond them: a block at a time, in `f64`.
//!
//! It is plain Rust: what takes this path is seldom, and has no vectors of its own.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::element::{self, Element, WIDE_BLOCK};
use crate::float::{Compute, FloatType};
use crate::isa::{Loop, dispatch};
use crate::lanes::{LaneBlock, Lanes, Params, blocks};
use crate::loops::driver::Piece;
use crate::loops::uniform::uniform;
use crate::match_int;
use crate::memory::NoMemory;
use crate::recipe::{Recipe, Rounding, Steps};
use crate::slice::{IntSlice, IntSliceMut};
use crate::vector::Arch;

/// Computes codes as integers held in `f64`.
pub(crate) struct Wide<'a, F: Element> {
    params: &'a Params<'a>,
    /// Whether q − z is rounded to no type, and exact in `f64` only.
    exact: bool,
    /// The scales, in the compute type.
    scales: Lanes<F::Compute>,
    /// The integers, exact.
    integers: Lanes<f64>,
}

impl<'a, F: Element> Wide<'a, F> {
    pub fn new(params: &'a Params<'a>) -> Result<Self, NoMemory> {
        let recipe = params.recipe();
        let is_exact = recipe.has_exact_difference() && !recipe.has_native_difference();
        Ok(Self {
            params,
            exact: is_exact && !params.fit::<F::Compute>(),
            scales: Lanes::filled(params)?,
            integers: Lanes::filled(params)?,
        })
    }

    /// Writes the codes of the elements from index `first` on; whether any is NaN.
    pub fn quantize(&self, x: &[F], first: usize, mut out: IntSliceMut<'_>) -> bool {
        let recipe = *self.params.recipe();
        let (qmin, qmax) = (recipe.qmin as f64, recipe.qmax as f64);
        let mut buffer = [0.0; WIDE_BLOCK];
        let mut any_nan = false;
        let piece = first..first + x.len();
        for (elements, params) in blocks(self.params.tiles(), piece, WIDE_BLOCK) {
            let codes = &mut buffer[..elements.len()];
            let index = first + elements.start;
            self.codes(&x[elements.clone()], params.clone(), index, 0.0, codes);
            if codes.iter().fold(false, |any, q| any | q.is_nan()) {
                // Not where x is an infinity, and its sum with an infinite zero point none: only NaN in x is an error.
                any_nan |= x[elements.clone()]
                    .iter()
                    .any(|x| num_traits::Float::is_nan(x.widen()));
                let zero = self.integers.block(params).zero;
                for (i, q) in codes.iter_mut().enumerate().filter(|(_, q)| q.is_nan()) {
                    *q = zero[i % zero.len()].clamp(qmin, qmax);
                }
            }
            let bits = |q: f64| (q + f64::MAGIC).low_bits();
            // In 64 bits, the sign of codes that may be negative, and fit i32, is extended; other codes
            // may exceed i32.
            macro_rules! write {
                ($out:ident, $convert:expr) => {
                    for (out, &q) in $out[elements].iter_mut().zip(&*codes) {
                        out.write($convert(bits(q)));
                    }
                };
            }
            match &mut out {
                IntSliceMut::I8(out) => write!(out, |bits| bits as i8),
                IntSliceMut::U8(out) => write!(out, |bits| bits as u8),
                IntSliceMut::I16(out) => write!(out, |bits| bits as i16),
                IntSliceMut::U16(out) => write!(out, |bits| bits as u16),
                IntSliceMut::I32(out) => write!(out, |bits| bits as i32),
                IntSliceMut::U32(out) => write!(out, |bits| bits),
                IntSliceMut::I64(out) if recipe.qmin < 0 => {
                    write!(out, |bits| i64::from(bits as i32))
                }
                IntSliceMut::I64(out) => write!(out, i64::from),
            }
        }
        any_nan
    }

    /// Writes the dequantized codes of a piece, and the mask.
    pub fn fake_quantize(&self, piece: Piece<'_, F, F>) {
        let Piece {
            first,
            x,
            out,
            mask,
        } = piece;
        let recipe = *self.params.recipe();
        let (qmin, qmax) = (recipe.qmin as f64, recipe.qmax as f64);
        // One step of room on each side tells a code beyond a bound from one at it.
        let room = if mask.is_empty() { 0.0 } else { 1.0 };
        let mut buffer = [0.0; WIDE_BLOCK];
        let piece = first..first + x.len();
        for (elements, params) in blocks(self.params.tiles(), piece, WIDE_BLOCK) {
            let codes = &mut buffer[..elements.len()];
            let index = first + elements.start;
            self.codes(&x[elements.clone()], params.clone(), index, room, codes);
            if recipe.nan_is_smallest {
                for q in codes.iter_mut() {
                    *q = if q.is_nan() { qmin - room } else { *q };
                }
            }
            if !mask.is_empty() {
                for (inside, q) in mask[elements.clone()].iter_mut().zip(&mut *codes) {
                    inside.write(u8::from(qmin <= *q && *q <= qmax));
                    *q = clamped(*q, qmin, qmax);
                }
            }
            self.values(codes, params, &mut out[elements]);
        }
    }

    /// Writes the values of the codes from index `first` on.
    pub fn dequantize(&self, codes: IntSlice<'_>, first: usize, out: &mut [MaybeUninit<F>]) {
        let mut buffer = [0.0; WIDE_BLOCK];
        let piece = first..first + codes.len();
        for (elements, params) in blocks(self.params.tiles(), piece, WIDE_BLOCK) {
            let block = &mut buffer[..elements.len()];
            match_int!(IntSlice, codes, codes => {
                for (wide, &q) in block.iter_mut().zip(&codes[elements.clone()]) {
                    *wide = crate::int::Int::to_compute::<f64>(q);
                }
            });
            self.values(block, params, &mut out[elements]);
        }
    }

    /// The codes of a block that starts at index `first` of the tensor, clamped to `room` steps
    /// beyond the range; NaN for NaN.
    fn codes(&self, x: &[F], params: Range<usize>, first: usize, room: f64, codes: &mut [f64]) {
        let recipe = *self.params.recipe();
        dispatch(Scale::<F> {
            recipe,
            x,
            p: self.scales.block(params.clone()),
            v: codes,
        });
        dispatch(Round {
            recipe,
            zero: self.integers.block(params).zero,
            first,
            room,
            v: codes,
        });
    }

    /// x̂ = (q − z)·s, for codes held in `f64`, which are overwritten.
    fn values(&self, codes: &mut [f64], params: Range<usize>, out: &mut [MaybeUninit<F>]) {
        dispatch(Values {
            recipe: *self.params.recipe(),
            exact: self.exact,
            scale: self.scales.block(params.clone()).scale,
            zero: self.integers.block(params).zero,
            codes,
            out,
        });
    }
}

/// v between the bounds; NaN stays NaN.
#[inline(always)]
fn clamped(v: f64, low: f64, high: f64) -> f64 {
    // In this order a comparison with NaN keeps the NaN, and each is one instruction.
    let v = if low > v { low } else { v };
    if high < v { high } else { v }
}

/// From elements to v: scaled, with z added where that is rounded.
struct Scale<'a, F: Element> {
    recipe: Recipe,
    x: &'a [F],
    p: LaneBlock<'a, F::Compute>,
    v: &'a mut [f64],
}

impl<F: Element> Loop for Scale<'_, F> {
    type Output = ();
    const IS_PLAIN: bool = true;

    #[inline(always)]
    fn run<A: Arch>(self, _: A) {
        match self.p.is_uniform() {
            true => self.scale::<false>(),
            false => self.scale::<true>(),
        }
    }
}

impl<F: Element> Scale<'_, F> {
    #[inline(always)]
    fn scale<const ROW: bool>(self) {
        let Self { recipe, x, p, v } = self;
        let mut buffer: element::Wide<F::Compute> = [MaybeUninit::uninit(); WIDE_BLOCK];
        let x = F::widen_block(x, &mut buffer);
        let at = |i: usize| if ROW { i } else { 0 };
        // As long as the compiler can tell, so that it need not check each index.
        let len = if ROW { v.len() } else { 1 };
        let (divisor, zero) = (&p.divisor[..len], &p.zero[..len]);
        let round = |v: &mut [f64]| {
            for v in v {
                *v = F::narrow(F::Compute::from_f64(*v)).widen().as_f64();
            }
        };
        match recipe.steps {
            Steps::Fused => {
                use num_traits::Float as _;
                for (i, (v, &x)) in v.iter_mut().zip(x).enumerate() {
                    *v = x.mul_add(divisor[at(i)], zero[at(i)]).as_f64();
                }
            }
            Steps::MultiplyRounded | Steps::MultiplyAfter => {
                for (i, (v, &x)) in v.iter_mut().zip(x).enumerate() {
                    *v = (x * divisor[at(i)]).as_f64();
                }
            }
            Steps::DivideExact | Steps::DivideRounded | Steps::DivideAfter => {
                for (i, (v, &x)) in v.iter_mut().zip(x).enumerate() {
                    *v = (x / divisor[at(i)]).as_f64();
                }
            }
        }
        if recipe.native {
            round(v);
        }
        if matches!(recipe.steps, Steps::DivideRounded | Steps::MultiplyRounded) {
            for (i, v) in v.iter_mut().enumerate() {
                let zero = match recipe.native {
                    true => F::narrow(zero[at(i)]).widen(),
                    false => zero[at(i)],
                };
                *v = (F::Compute::from_f64(*v) + zero).as_f64();
            }
            if recipe.native {
                round(v);
            }
        }
    }
}

/// From v to the clamped integer.
struct Round<'a> {
    recipe: Recipe,
    zero: &'a [f64],
    /// The index of the first element in the tensor.
    first: usize,
    room: f64,
    v: &'a mut [f64],
}

impl Loop for Round<'_> {
    type Output = ();
    const IS_PLAIN: bool = true;

    #[inline(always)]
    fn run<A: Arch>(self, _: A) {
        match self.zero.len() {
            1 => self.round::<false>(),
            _ => self.round::<true>(),
        }
    }
}

impl Round<'_> {
    #[inline(always)]
    fn round<const ROW: bool>(self) {
        let Self {
            recipe,
            zero,
            first,
            room,
            v,
        } = self;
        let at = |i: usize| if ROW { i } else { 0 };
        let zero = &zero[..if ROW { v.len() } else { 1 }];
        // What is added before rounding, and after: z or nothing, without a branch for each element. The
        // signs of the sums are those of v + before, whose rounding keeps the sign.
        let one_if = |condition: bool| f64::from(u8::from(condition));
        let is_before = one_if(recipe.steps == Steps::DivideExact);
        let is_after = one_if(!recipe.steps.rounds_sum());
        let before = |i: usize| zero[at(i)] * is_before;
        let after = |i: usize| zero[at(i)] * is_after;
        let (qmin, qmax) = (recipe.qmin as f64 - room, recipe.qmax as f64 + room);
        for (i, v) in v.iter_mut().enumerate() {
            *v = clamped(*v, qmin - after(i), qmax - after(i));
        }
        if recipe.rounding == Rounding::NearestEven {
            for (i, v) in v.iter_mut().enumerate() {
                *v = (*v + (f64::MAGIC + before(i))) - f64::MAGIC;
            }
            if recipe.steps.adds_after() {
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
        match recipe.rounding {
            Rounding::NearestEven => {}
            Rounding::NearestAway => neighbour(&|d, sum, _| {
                one_if(d == 0.5 && sum > 0.0) - one_if(d == -0.5 && sum < 0.0)
            }),
            Rounding::TowardZero => {
                neighbour(&|d, sum, _| one_if(d > 0.0 && sum < 0.0) - one_if(d < 0.0 && sum >= 0.0))
            }
            Rounding::Floor => neighbour(&|d, _, _| -one_if(d < 0.0)),
            Rounding::Ceiling => neighbour(&|d, _, _| one_if(d > 0.0)),
            Rounding::Stochastic { seed } => neighbour(&|d, _, i| {
                let down = one_if(d < 0.0);
                // fraction > u, where the fraction is d or d + 1.
                one_if(d > uniform(seed, (first + i) as u64) - down) - down
            }),
        }
    }
}

/// From codes, which are overwritten, to their values.
struct Values<'a, F: Element> {
    recipe: Recipe,
    exact: bool,
    scale: &'a [F::Compute],
    zero: &'a [f64],
    codes: &'a mut [f64],
    out: &'a mut [MaybeUninit<F>],
}

impl<F: Element> Loop for Values<'_, F> {
    type Output = ();
    const IS_PLAIN: bool = true;

    #[inline(always)]
    fn run<A: Arch>(self, _: A) {
        match self.zero.len() {
            1 => self.values::<false>(),
            _ => self.values::<true>(),
        }
    }
}

impl<F: Element> Values<'_, F> {
    #[inline(always)]
    fn values<const ROW: bool>(self) {
        let Self {
            recipe,
            exact,
            scale,
            zero,
            codes: differences,
            out,
        } = self;
        let at = |i: usize| if ROW { i } else { 0 };
        let len = if ROW { differences.len() } else { 1 };
        let (scale, zero) = (&scale[..len], &zero[..len]);
        for (i, d) in differences.iter_mut().enumerate() {
            *d -= zero[at(i)];
        }
        if recipe.has_native_difference() {
            for d in differences.iter_mut() {
                *d = F::narrow(F::Compute::from_f64(*d)).widen().as_f64();
            }
        }
        F::narrow_block(out, |out| {
            let products = out.iter_mut().zip(&*differences).enumerate();
            // Narrow products are of `f64` alone, whose exact product is the plain one.
            if recipe.narrow_product {
                for (i, (out, &d)) in products {
                    let product = (F::Compute::from_f64(d) * scale[at(i)]).as_f64();
                    out.write(F::Compute::from_f64(FloatType::F32.round(product)));
                }
            } else if exact {
                for (i, (out, &d)) in products {
                    out.write(F::Compute::exact_product(d, scale[at(i)]));
                }
            } else {
                for (i, (out, &d)) in products {
                    out.write(F::Compute::from_f64(d) * scale[at(i)]);
                }
            }
        });
    }
}
