//! The gradients of fake quantization: straight through, and of a learned scale and zero point.
//!
//! Notation: y = x̂ = (q − z)·s with q = clamp(round(v + z)), v = x/s; dy = ∂L/∂y. An element is
//! *inside* where round(v + z) lies in [qmin, qmax] before it is clamped; NaN is not.
//!
//! Sums over a group are taken in `f64`, in an order that depends on the layout alone: a run of
//! elements with one parameter goes in blocks of [`WIDE_BLOCK`] elements with [`LANES`] sums each,
//! which are added to the group's sum in order; a row with a parameter an element adds each element
//! to the sum of its parameter.

use std::mem::MaybeUninit;
use std::ops::Range;

use crate::element::{Element, WIDE_BLOCK, Wide, assume_init};
use crate::float::{Compute, Float};
use crate::isa::{Loop, dispatch};
use crate::lanes::{Lanes, Params, blocks};
use crate::loops::fake_quantize::{self, same_type};
use crate::loops::quantize::quantize;
use crate::match_float;
use crate::memory::{NoMemory, collected, copied, repeated};
use crate::parallel::{self, piece_len};
use crate::slice::{FloatSlice, FloatSliceMut, IntSliceMut};
use crate::vector::Arch;

const LANES: usize = 16;

/// Writes dx = dy inside, 0 outside, with `x`, `dy` and dx in memory order.
///
/// # Errors
/// [`NoMemory`] where there is none for the numbers of the groups or for which elements are inside.
///
/// # Panics
/// Where the three are not of one type, or one is not as long as the tiles say.
pub fn straight_through(
    x: FloatSlice<'_>,
    dy: FloatSlice<'_>,
    params: &Params<'_>,
    out: FloatSliceMut<'_>,
) -> Result<(), NoMemory> {
    match_float!(FloatSlice, x, x => straight_through_floats(x, of_type(dy), params, same_type(out)))
}

/// A slice as one of a type.
fn of_type<F: Float>(x: FloatSlice<'_>) -> &[F] {
    match F::from_slice(x) {
        Some(x) => x,
        None => panic!("gradients of type {} for {}", x.float_type(), F::TYPE),
    }
}

fn straight_through_floats<F: Element>(
    x: &[F],
    dy: &[F],
    params: &Params<'_>,
    out: &mut [MaybeUninit<F>],
) -> Result<(), NoMemory> {
    assert_eq!(dy.len(), x.len(), "numbers of elements");
    let mask = mask(x, params, out)?;
    let n = piece_len(x.len());
    let pieces = out.chunks_mut(n).zip(dy.chunks(n)).zip(mask.chunks(n));
    type Piece<'a, F> = ((&'a mut [MaybeUninit<F>], &'a [F]), &'a [bool]);
    let work = |(): &mut (), ((out, dy), mask): Piece<'_, F>| {
        for ((out, &dy), &inside) in out.iter_mut().zip(dy).zip(mask) {
            out.write(if inside { dy } else { F::default() });
        }
    };
    parallel::for_each(pieces, || (), work, |()| ());
    Ok(())
}

/// Which elements are inside; `scratch` is written.
fn mask<F: Element>(
    x: &[F],
    params: &Params<'_>,
    scratch: &mut [MaybeUninit<F>],
) -> Result<Vec<bool>, NoMemory> {
    let mut mask = repeated(MaybeUninit::new(0), x.len())?;
    fake_quantize::floats::<F, true>(x, params, scratch, &mut mask)?;
    // SAFETY: the vector was made of initialized elements.
    let mask = unsafe { assume_init(&mask) };
    collected(mask.iter().map(|&inside: &u8| inside != 0))
}

/// The sums of each group, in memory order.
#[derive(Clone, Debug, PartialEq)]
pub struct Sums {
    /// Σ dy·∂y/∂s.
    pub scale: Vec<f64>,
    /// Σ dy over the elements outside; with the rule of PyTorch Σ dy·∂y/∂z.
    pub zero_point: Vec<f64>,
}

/// How the derivatives are taken.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum GradientRule {
    /// ∂y/∂s = (q − z) − v inside and q − z outside, the difference rounded once.
    Exact,
    /// PyTorch 2.13's `_fake_quantize_learnable_per_{tensor,channel}_affine` on a CPU with fused
    /// multiply-add, with its factor in every term. Each operation rounds to the compute type; a code of
    /// 2^63 or more counts as below, and NaN too.
    Torch {
        /// What each term is multiplied with.
        factor: f64,
    },
}

/// Writes dx, as [`straight_through`] does, and gives the sums of the parameters' gradients.
///
/// # Errors
/// [`NoMemory`] where there is none for the codes or for the numbers of the groups.
///
/// # Panics
/// Where `x`, `dy` and dx are not of one type, or one is not as long as the tiles say.
pub fn learned(
    x: FloatSlice<'_>,
    dy: FloatSlice<'_>,
    params: &Params<'_>,
    rule: GradientRule,
    out: FloatSliceMut<'_>,
) -> Result<Sums, NoMemory> {
    match_float!(FloatSlice, x, x => learned_floats(x, of_type(dy), params, rule, same_type(out)))
}

fn learned_floats<F: Element>(
    x: &[F],
    dy: &[F],
    params: &Params<'_>,
    rule: GradientRule,
    out: &mut [MaybeUninit<F>],
) -> Result<Sums, NoMemory> {
    let tiles = params.tiles();
    let lens = (x.len(), dy.len(), out.len());
    assert_eq!(
        lens,
        (tiles.len(), tiles.len(), tiles.len()),
        "numbers of elements"
    );
    let width = tiles.groups() * tiles.repeat();
    let mut sums = Sums {
        scale: repeated(0.0, width)?,
        zero_point: repeated(0.0, width)?,
    };
    match rule {
        GradientRule::Exact => {
            let derivatives = Derivatives::new(x, params, out)?;
            exact(x, dy, &derivatives, params, &mut sums, out);
        }
        GradientRule::Torch { factor } => dispatch(Torch {
            x,
            dy,
            params,
            lanes: &Lanes::filled(params)?,
            factor: F::Compute::from_f64(factor),
            sums: &mut sums,
            out,
        }),
    }
    let repeat = tiles.repeat();
    if repeat > 1 {
        let fold = |sums: &[f64]| collected(sums.chunks_exact(repeat).map(|c| c.iter().sum()));
        sums = Sums {
            scale: fold(&sums.scale)?,
            zero_point: fold(&sums.zero_point)?,
        };
    }
    Ok(sums)
}

/// Writes ∂y/∂s of every element, by [`GradientRule::Exact`].
///
/// # Errors
/// [`NoMemory`] where there is none for the codes or for the numbers of the groups.
///
/// # Panics
/// Where `out` is of another type than `x`, or one of them not as long as the tiles say.
pub fn scale_derivatives(
    x: FloatSlice<'_>,
    params: &Params<'_>,
    out: FloatSliceMut<'_>,
) -> Result<(), NoMemory> {
    match_float!(FloatSlice, x, x => {
        let out = same_type(out);
        let derivatives = Derivatives::new(x, params, out)?;
        for (elements, params) in blocks(params.tiles(), 0..x.len(), WIDE_BLOCK) {
            for (i, offset) in elements.enumerate() {
                let param = params.start + if params.len() == 1 { 0 } else { i };
                let derivative = derivatives.at(x[offset].widen(), offset, param);
                out[offset].write(Float::narrow(derivative));
            }
        }
    });
    Ok(())
}

/// What ∂y/∂s follows from, by [`GradientRule::Exact`].
struct Derivatives<C> {
    codes: Vec<i64>,
    mask: Vec<bool>,
    /// x/s is x·divisor where the recipe multiplies.
    lanes: Lanes<C>,
    /// z, exact.
    integers: Lanes<f64>,
    multiplies: bool,
}

impl<C: Compute> Derivatives<C> {
    /// The derivatives of the elements of `x`; `scratch` is written.
    fn new<F: Element<Compute = C>>(
        x: &[F],
        params: &Params<'_>,
        scratch: &mut [MaybeUninit<F>],
    ) -> Result<Self, NoMemory> {
        let recipe = params.recipe();
        let codes = match crate::IntType::I16.holds(recipe.qmin, recipe.qmax) {
            // The vectors write 16 bits.
            true => collected(codes::<F, i16>(x, params)?.into_iter().map(i64::from))?,
            false => codes::<F, i64>(x, params)?,
        };
        Ok(Self {
            codes,
            mask: mask(x, params, scratch)?,
            lanes: Lanes::filled(params)?,
            integers: Lanes::filled(params)?,
            multiplies: recipe.steps.multiplies(),
        })
    }

    /// ∂y/∂s of the element at `offset`, which is `x` and has the parameters at `param`.
    #[inline(always)]
    fn at(&self, x: C, offset: usize, param: usize) -> C {
        let zero = self.integers.block(param..param + 1).zero[0];
        let difference = C::from_f64(self.codes[offset] as f64 - zero);
        if self.mask[offset] {
            let divisor = self.lanes.block(param..param + 1).divisor[0];
            let v = match self.multiplies {
                true => x * divisor,
                false => x / divisor,
            };
            difference - v
        } else if x.is_nan() {
            x
        } else {
            difference
        }
    }
}

/// The codes of elements; of NaN the zero point's.
fn codes<F: Element, I: crate::Int>(x: &[F], params: &Params<'_>) -> Result<Vec<I>, NoMemory> {
    let mut codes = repeated(MaybeUninit::new(I::default()), x.len())?;
    let out: IntSliceMut<'_> = I::slice_mut(&mut codes);
    quantize(F::slice(x), params, out)?;
    // SAFETY: the vector was made of initialized elements.
    copied(unsafe { assume_init(&codes) })
}

/// [`learned`] with [`GradientRule::Exact`].
fn exact<F: Element>(
    x: &[F],
    dy: &[F],
    derivatives: &Derivatives<F::Compute>,
    params: &Params<'_>,
    sums: &mut Sums,
    out: &mut [MaybeUninit<F>],
) {
    let mut buffer: Wide<F::Compute> = [MaybeUninit::uninit(); WIDE_BLOCK];
    for (elements, params) in blocks(params.tiles(), 0..dy.len(), WIDE_BLOCK) {
        let (first, param) = (elements.start, params.start);
        let element = |i: usize, j: usize, dy: F::Compute| {
            let (offset, dy) = (first + i, dy.as_f64());
            let derivative = derivatives.at(x[offset].widen(), offset, param + j);
            let inside = derivatives.mask[offset];
            Term {
                inside,
                scale: dy * derivative.as_f64(),
                zero_point: if inside { 0.0 } else { dy },
            }
        };
        let (dy, out) = (&dy[elements.clone()], &mut out[elements]);
        add::<F>(dy, &mut buffer, params, element, sums, out);
    }
}

/// What one element adds to the sums.
struct Term {
    inside: bool,
    scale: f64,
    zero_point: f64,
}

/// Adds the elements of a block to the sums and writes dx. `element(i, j, dy)` is the block's
/// i-th element, with the j-th of the block's parameters.
#[inline(always)]
fn add<F: Element>(
    dy: &[F],
    buffer: &mut Wide<F::Compute>,
    params: Range<usize>,
    element: impl Fn(usize, usize, F::Compute) -> Term,
    sums: &mut Sums,
    out: &mut [MaybeUninit<F>],
) {
    let n = dy.len();
    let wide = &F::widen_block(dy, buffer)[..n];
    let out = &mut out[..n];
    let pass = |inside: bool, dy: F| if inside { dy } else { F::default() };
    if params.len() == 1 {
        let (mut scale, mut zero_point) = ([0.0; LANES], [0.0; LANES]);
        let whole = n - n % LANES;
        for start in (0..whole).step_by(LANES) {
            for lane in 0..LANES {
                let i = start + lane;
                let e = element(i, 0, wide[i]);
                out[i].write(pass(e.inside, dy[i]));
                scale[lane] += e.scale;
                zero_point[lane] += e.zero_point;
            }
        }
        for i in whole..n {
            let e = element(i, 0, wide[i]);
            out[i].write(pass(e.inside, dy[i]));
            scale[i - whole] += e.scale;
            zero_point[i - whole] += e.zero_point;
        }
        sums.scale[params.start] += scale.iter().sum::<f64>();
        sums.zero_point[params.start] += zero_point.iter().sum::<f64>();
    } else {
        let scale = &mut sums.scale[params.clone()][..n];
        let zero_point = &mut sums.zero_point[params][..n];
        for i in 0..n {
            let e = element(i, i, wide[i]);
            out[i].write(pass(e.inside, dy[i]));
            scale[i] += e.scale;
            zero_point[i] += e.zero_point;
        }
    }
}

/// [`learned`] with [`GradientRule::Torch`].
struct Torch<'a, F: Element> {
    x: &'a [F],
    dy: &'a [F],
    params: &'a Params<'a>,
    lanes: &'a Lanes<F::Compute>,
    factor: F::Compute,
    sums: &'a mut Sums,
    out: &'a mut [MaybeUninit<F>],
}

impl<F: Element> Loop for Torch<'_, F> {
    type Output = ();
    const IS_PLAIN: bool = true;

    #[inline(always)]
    fn run<A: Arch>(self, _: A) {
        let Self {
            x,
            dy,
            params,
            lanes,
            factor,
            sums,
            out,
        } = self;
        let mut buffer: Wide<F::Compute> = [MaybeUninit::uninit(); WIDE_BLOCK];
        let mut dy_buffer: Wide<F::Compute> = [MaybeUninit::uninit(); WIDE_BLOCK];
        let one = F::Compute::from_f64(1.0);
        let recipe = params.recipe();
        let (low, high) = (recipe.qmin as f64, recipe.qmax as f64);
        let overflow = F::Compute::from_f64(9_223_372_036_854_775_808.0);
        for (elements, params) in blocks(params.tiles(), 0..dy.len(), WIDE_BLOCK) {
            let n = elements.len();
            let x = &F::widen_block(&x[elements.clone()], &mut buffer)[..n];
            let p = lanes.block(params.clone());
            let (dy, out) = (&dy[elements.clone()], &mut out[elements]);
            let element = |i: usize, j: usize, dy: F::Compute| {
                use num_traits::Float as _;
                let (x, s, zero) = (x[i], p.scale[j], p.zero[j]);
                let inverse = match recipe.steps.multiplies() {
                    true => p.divisor[j],
                    false => one / s,
                };
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
                let (scale, zero) = match inside {
                    true => (
                        dy * difference.mul_add(s, -x) * inverse,
                        F::Compute::from_f64(0.0),
                    ),
                    false => (dy * difference, -dy * s),
                };
                Term {
                    inside,
                    scale: (scale * factor).as_f64(),
                    zero_point: (zero * factor).as_f64(),
                }
            };
            add::<F>(dy, &mut dy_buffer, params, element, sums, out);
        }
    }
}
