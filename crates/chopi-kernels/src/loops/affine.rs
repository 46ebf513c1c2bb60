//! Scale, clamp and round: from a vector of elements to their codes and back.

use crate::element::Element;
use crate::float::Compute;
use crate::lanes::{LaneBlock, Params};
use crate::loops::uniform;
use crate::recipe::{Recipe, Rounding, Steps};
use crate::reciprocal::Reciprocal;
use crate::vector::{Arch, Vector};

/// Which loop a recipe takes: one is compiled for each of [`Steps`] with the usual rounding, to nearest
/// even, where `KIND` is its number; the loop [`ANY`] takes every recipe, at a branch for each choice.
pub(crate) const ANY: u8 = u8::MAX;

// The numbers of the steps.
pub(crate) const DIVIDE_EXACT: u8 = Steps::DivideExact as u8;
pub(crate) const DIVIDE_ROUNDED: u8 = Steps::DivideRounded as u8;
pub(crate) const DIVIDE_AFTER: u8 = Steps::DivideAfter as u8;
pub(crate) const MULTIPLY_ROUNDED: u8 = Steps::MultiplyRounded as u8;
pub(crate) const MULTIPLY_AFTER: u8 = Steps::MultiplyAfter as u8;
pub(crate) const FUSED: u8 = Steps::Fused as u8;

/// Which numbers the elements of a run have: each its own.
pub(crate) const EACH: u8 = 0;
/// All elements of a run have the same numbers.
pub(crate) const ALL: u8 = 1;
/// All elements of a run have the same numbers, and their quotients are [products](crate::reciprocal).
pub(crate) const ALL_BY_PRODUCTS: u8 = 2;

// The loops that divide, for runs that are long and have one divisor each: see `reciprocal`.
pub(crate) const DIVIDE_EXACT_LONG: u8 = DIVIDE_EXACT | LONG;
pub(crate) const DIVIDE_ROUNDED_LONG: u8 = DIVIDE_ROUNDED | LONG;
pub(crate) const DIVIDE_AFTER_LONG: u8 = DIVIDE_AFTER | LONG;
const LONG: u8 = 64;

/// Whether the loop `kind` takes the quotients of a run from a reciprocal.
pub(crate) const fn has_reciprocals(kind: u8) -> bool {
    matches!(
        kind,
        DIVIDE_EXACT_LONG | DIVIDE_ROUNDED_LONG | DIVIDE_AFTER_LONG
    )
}

impl Params<'_> {
    /// The loop that the elements take; `long` is the length of the runs from which on a reciprocal takes
    /// less time than the divisions that it saves.
    pub(crate) fn kind(&self, long: usize) -> u8 {
        match self.recipe().kind() {
            kind @ (DIVIDE_EXACT | DIVIDE_ROUNDED | DIVIDE_AFTER)
                if self.tiles().uniform_run() >= long =>
            {
                kind | LONG
            }
            kind => kind,
        }
    }
}

impl Recipe {
    /// The loop that this recipe takes, whatever the tiles.
    fn kind(&self) -> u8 {
        // Of the loops for known steps, that of `MULTIPLY_AFTER` alone looks at NaN, as its library does.
        let smallest = self.nan_is_smallest && self.steps != Steps::MultiplyAfter;
        if self.native || self.rounding != Rounding::NearestEven || smallest {
            return ANY;
        }
        self.steps as u8
    }

    /// The steps of the loop `KIND`.
    #[inline(always)]
    pub(crate) fn steps<const KIND: u8>(&self) -> Steps {
        match KIND {
            DIVIDE_EXACT | DIVIDE_EXACT_LONG => Steps::DivideExact,
            DIVIDE_ROUNDED | DIVIDE_ROUNDED_LONG => Steps::DivideRounded,
            DIVIDE_AFTER | DIVIDE_AFTER_LONG => Steps::DivideAfter,
            MULTIPLY_ROUNDED => Steps::MultiplyRounded,
            MULTIPLY_AFTER => Steps::MultiplyAfter,
            FUSED => Steps::Fused,
            _ => self.steps,
        }
    }
}

/// The numbers of the groups of a vector of elements.
///
/// With v the scaled element, M = [`Compute::MAGIC`] and each sum as the steps say:
///
/// | zero point added | bounds of v | M + code |
/// |---|---|---|
/// | exactly, before rounding | qmin − z, qmax − z | v + (M + z) |
/// | after rounding | qmin − z, qmax − z | (v + M) + z |
/// | rounded or fused, before rounding | qmin, qmax | v + M, where v holds z |
///
/// The sum with M is exact but for one rounding, to an integer, half to even: it *is* the rounding.
/// Clamping before it equals clamping after it, since the bounds are integers.
///
/// Where quotients are products, not v is clamped but x, to numbers whose codes are the bounds: the
/// code never falls as x grows. So no product overflows, and no infinity comes to one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affine<V> {
    /// What x is divided by or multiplied with.
    divisor: V,
    /// The lower part of the reciprocal, where quotients are products.
    rest: V,
    scale: V,
    pub zero: V,
    /// What v lacks when it is clamped: z, or 0 where v holds z.
    lacking: V,
    /// The bounds of v, or where quotients are products, of x.
    low: V,
    high: V,
}

impl<V: Vector> Affine<V> {
    /// The numbers of all elements of a block that has one of each, or of its first element.
    #[inline(always)]
    pub fn splat<const KIND: u8>(
        arch: V::Arch,
        p: LaneBlock<'_, V::Scalar>,
        recipe: &Recipe,
    ) -> Self {
        let number = |values: &[V::Scalar]| V::splat(arch, values[0]);
        let (divisor, scale) = (number(p.divisor), number(p.scale));
        Self::new::<KIND>(divisor, scale, number(p.zero), recipe)
    }

    /// The numbers of the elements from index `i` of a block that has one of each for each element.
    #[inline(always)]
    pub fn load<const KIND: u8>(
        arch: V::Arch,
        p: LaneBlock<'_, V::Scalar>,
        i: usize,
        recipe: &Recipe,
    ) -> Self {
        let divisor = V::load(arch, &p.divisor[i..]);
        let scale = V::load(arch, &p.scale[i..]);
        Self::new::<KIND>(divisor, scale, V::load(arch, &p.zero[i..]), recipe)
    }

    #[inline(always)]
    fn new<const KIND: u8>(divisor: V, scale: V, zero: V, recipe: &Recipe) -> Self {
        let arch = zero.arch();
        let lacking = match recipe.steps::<KIND>().rounds_sum() {
            true => integer(arch, 0),
            false => zero,
        };
        Self {
            divisor,
            rest: integer(arch, 0),
            scale,
            zero,
            lacking,
            low: integer::<V>(arch, recipe.qmin).sub(lacking),
            high: integer::<V>(arch, recipe.qmax).sub(lacking),
        }
    }

    /// The numbers for [`ALL_BY_PRODUCTS`], of elements whose codes are clamped to `room` steps beyond the
    /// range; none where a product is not the quotient.
    #[inline(always)]
    fn by_products<const KIND: u8>(
        self,
        p: LaneBlock<'_, V::Scalar>,
        recipe: &Recipe,
        room: i32,
    ) -> Option<Self> {
        let bounds = Bounds::new(
            p.divisor[0],
            p.zero[0],
            recipe.steps::<KIND>(),
            recipe,
            room,
        )?;
        let splat = |x| V::splat(self.zero.arch(), x);
        Some(Self {
            divisor: splat(bounds.reciprocal.high),
            rest: splat(bounds.reciprocal.low),
            low: splat(bounds.low),
            high: splat(bounds.high),
            ..self
        })
    }

    /// v, clamped to `room` steps beyond its bounds; NaN for NaN.
    #[inline(always)]
    fn clamp(&self, v: V, room: V) -> V {
        // In this order a comparison with NaN keeps the NaN.
        let v = self.low.sub(room).max(v);
        self.high.add(room).min(v)
    }

    /// x, clamped to its bounds, over s; NaN for NaN.
    #[inline(always)]
    fn quotient(&self, x: V) -> V {
        // In this order a comparison with NaN keeps the NaN.
        let x = self.high.min(self.low.max(x));
        x.mul_add(self.divisor, x.mul(self.rest))
    }

    /// What turns v rounded to an integer into M + code.
    #[inline(always)]
    fn magic(&self) -> V {
        V::splat(self.zero.arch(), V::Scalar::MAGIC).add(self.lacking)
    }

    /// M + clamp(RNE(z), qmin, qmax), the code of NaN.
    #[inline(always)]
    pub fn zero_code(&self, recipe: &Recipe) -> V {
        let arch = self.zero.arch();
        let (low, high) = (recipe.qmin, recipe.qmax);
        let zero = integer::<V>(arch, low).max(self.zero);
        integer::<V>(arch, high)
            .min(zero)
            .add(V::splat(arch, V::Scalar::MAGIC))
    }

    /// The v of which the sum with the zero point is 0; a rounded sum has the sign of the exact one.
    #[inline(always)]
    fn origin(&self, steps: Steps) -> V {
        let none = V::splat(self.zero.arch(), V::Scalar::default());
        match steps {
            Steps::DivideExact => none.sub(self.zero),
            _ => none,
        }
    }

    /// q − z, of M + q.
    #[inline(always)]
    pub fn difference<const KIND: u8>(&self, code: V, recipe: &Recipe) -> V {
        let magic = V::splat(code.arch(), V::Scalar::MAGIC);
        match recipe.steps::<KIND>().rounds_sum() {
            // A zero point that is rounded with x/s need not be an integer.
            true => code.sub(magic).sub(self.zero),
            // The difference of two integers near M is exact.
            false => code.sub(magic.add(self.zero)),
        }
    }

    /// (q − z)·s, of q − z; each step rounded where the recipe rounds it.
    #[inline(always)]
    pub fn value<F, const KIND: u8>(&self, difference: V, recipe: &Recipe) -> V
    where
        F: Element<Compute = V::Scalar, Vector<V::Arch> = V>,
    {
        let native = KIND == ANY && recipe.has_native_difference();
        let difference = match native {
            true => F::round::<V::Arch>(difference),
            false => difference,
        };
        difference.mul(self.scale)
    }
}

/// What quotients by products need: the reciprocal, and the bounds of x.
struct Bounds<C> {
    reciprocal: Reciprocal<C>,
    low: C,
    high: C,
}

impl<C: Compute> Bounds<C> {
    /// None where a product is not the quotient, or no x of a bound's code is found.
    #[inline(always)]
    fn new(s: C, zero: C, steps: Steps, recipe: &Recipe, room: i32) -> Option<Self> {
        let room = i64::from(room);
        let codes = [recipe.qmin - room, recipe.qmax + room].map(C::from_i64);
        if steps.rounds_sum() {
            return Self::of_rounded_sums(s, zero, codes);
        }
        // The quotients, nearly, of the bounds: their codes are the bounds.
        let [low, high] = codes.map(|code| code - zero);
        Some(Self {
            reciprocal: Reciprocal::to_integers(s, low.abs().max(high.abs()))?,
            low: low * s,
            high: high * s,
        })
    }

    /// For steps that round the sum.
    #[inline(never)]
    fn of_rounded_sums(s: C, zero: C, [low, high]: [C; 2]) -> Option<Self> {
        let bound = |code: C| {
            let x = (code - zero) * s;
            (((x / s + zero) + C::MAGIC) - C::MAGIC == code).then_some(x)
        };
        Some(Self {
            reciprocal: Reciprocal::new(s)?,
            low: bound(low)?,
            high: bound(high)?,
        })
    }
}

/// Whether the code, given as M + code, lies in the range; false for NaN. And the code clamped to it.
#[inline(always)]
pub(crate) fn inside<V: Vector>(code: V, recipe: &Recipe) -> (V::Mask, V) {
    let arch = code.arch();
    let magic = V::splat(arch, V::Scalar::MAGIC);
    let (low, high) = (
        integer::<V>(arch, recipe.qmin),
        integer::<V>(arch, recipe.qmax),
    );
    let clamped = magic.add(high).min(magic.add(low).max(code));
    (clamped.eq(code), clamped)
}

/// At least a vector of elements, or of codes, with the numbers of their groups.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a, V: Vector> {
    pub arch: V::Arch,
    /// A copy, of which the compiler can tell that no output lies over it.
    pub recipe: Recipe,
    params: LaneBlock<'a, V::Scalar>,
    /// The numbers of all elements, where they have one of each.
    uniform: Affine<V>,
    /// The index of the first element in the tensor.
    index: usize,
}

impl<'a, V: Vector> Run<'a, V> {
    #[inline(always)]
    pub fn new<const KIND: u8>(
        arch: V::Arch,
        params: LaneBlock<'a, V::Scalar>,
        index: usize,
        recipe: &Recipe,
    ) -> Self {
        Self {
            arch,
            recipe: *recipe,
            params,
            uniform: Affine::splat::<KIND>(arch, params, recipe),
            index,
        }
    }

    /// The run with quotients by products, of elements whose codes are clamped to `room` steps beyond the
    /// range; none where a product is not the quotient.
    #[inline(always)]
    pub fn by_products<const KIND: u8>(&self, room: i32) -> Option<Self> {
        let uniform = self.uniform;
        let uniform = uniform.by_products::<KIND>(self.params, &self.recipe, room)?;
        Some(Self { uniform, ..*self })
    }

    /// The numbers of the vector at offset `i`; `NUMBERS` is one of [`EACH`], [`ALL`] and
    /// [`ALL_BY_PRODUCTS`].
    #[inline(always)]
    pub fn affine<const KIND: u8, const NUMBERS: u8>(&self, i: usize) -> Affine<V> {
        match NUMBERS {
            EACH => Affine::load::<KIND>(self.arch, self.params, i, &self.recipe),
            _ => self.uniform,
        }
    }

    /// M + the code of each element of a few vectors, the first of them at offset `i`, clamped to `room`
    /// steps beyond the range; NaN for NaN.
    #[inline(always)]
    pub fn codes<F, const KIND: u8, const NUMBERS: u8, const N: usize>(
        &self,
        mut block: [V; N],
        i: usize,
        room: V,
    ) -> [V; N]
    where
        F: Element<Compute = V::Scalar, Vector<V::Arch> = V>,
        V::Arch: Arch,
    {
        let (arch, recipe) = (self.arch, &self.recipe);
        let steps = recipe.steps::<KIND>();
        // A macro, for a closure need not be compiled for the instruction set.
        macro_rules! each {
            (|$affine:ident, $v:ident| $result:expr) => {
                for (k, $v) in block.iter_mut().enumerate() {
                    let $affine = self.affine::<KIND, NUMBERS>(i + k * V::LANES);
                    *$v = $result;
                }
            };
        }
        let rounding = match KIND {
            ANY => recipe.rounding,
            _ => Rounding::NearestEven,
        };
        // One decision for all vectors, here and below.
        match steps {
            Steps::Fused => each!(|affine, v| v.mul_add(affine.divisor, affine.zero)),
            _ if NUMBERS == ALL_BY_PRODUCTS => each!(|affine, v| affine.quotient(*v)),
            _ if steps.multiplies() => each!(|affine, v| v.mul(affine.divisor)),
            _ => each!(|affine, v| v.div(affine.divisor)),
        }
        let sums = steps.rounds_sum() && steps != Steps::Fused;
        match KIND == ANY && recipe.native {
            false if sums => each!(|affine, v| v.add(affine.zero)),
            false => {}
            true => {
                each!(|_affine, v| F::round::<V::Arch>(*v));
                if sums {
                    each!(|affine, v| {
                        let sum = v.add(F::round::<V::Arch>(affine.zero));
                        F::round::<V::Arch>(sum)
                    });
                }
            }
        }
        if NUMBERS != ALL_BY_PRODUCTS {
            each!(|affine, v| affine.clamp(*v, room));
        }
        match rounding {
            Rounding::NearestEven if steps.adds_after() => {
                let magic = V::splat(arch, V::Scalar::MAGIC);
                each!(|affine, v| v.add(magic).add(affine.zero));
            }
            Rounding::NearestEven => each!(|affine, v| v.add(affine.magic())),
            Rounding::NearestAway => {
                let (one, minus) = (integer::<V>(arch, 1), integer::<V>(arch, -1));
                each!(|affine, v| {
                    let magic = affine.magic();
                    let code = v.add(magic);
                    let left = v.sub(code.sub(magic));
                    // ½ to the side of the sum's sign is a tie that went to the other one.
                    let away = V::select(v.gt(affine.origin(steps)), one, minus);
                    V::select(left.add(left).eq(away), code.add(away), code)
                });
            }
            Rounding::TowardZero => each!(|affine, v| {
                let negative = affine.origin(steps).gt(*v);
                V::select(negative, v.ceil(), v.floor()).add(affine.magic())
            }),
            Rounding::Floor => each!(|affine, v| v.floor().add(affine.magic())),
            Rounding::Ceiling => each!(|affine, v| v.ceil().add(affine.magic())),
            // One more than the floor where the fraction exceeds the random number.
            Rounding::Stochastic { seed } => {
                let unit = V::splat(arch, V::Scalar::from_f64(uniform::UNIT));
                let mut index = (self.index + i) as u64;
                each!(|affine, v| {
                    let words = uniform::words::<V>(arch, seed, index);
                    index += V::LANES as u64;
                    v.ceil_difference(V::from_words(words), unit)
                        .add(affine.magic())
                });
            }
        }
        block
    }
}

#[inline(always)]
fn integer<V: Vector>(arch: V::Arch, n: i64) -> V {
    V::splat(arch, V::Scalar::from_i64(n))
}
