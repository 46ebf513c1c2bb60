//! Scale, clamp and round: from a vector of elements to their codes and back.

use crate::dtype::{Compute, Float};
use crate::kernel::lanes::LaneBlock;
use crate::kernel::steps::{Steps, Sum};
use crate::kernel::vector::{Vector, VectorExt};
pub(crate) use crate::recipe::Recipe as Plan;
use crate::scheme::Rounding;

// The steps that kernels are compiled for: those of the named conventions, to nearest even, and
// one that takes any, at a branch each.
pub(crate) const DIVIDE_EXACT: u8 = 0;
pub(crate) const DIVIDE_ROUNDED: u8 = 1;
pub(crate) const DIVIDE_AFTER: u8 = 2;
pub(crate) const MULTIPLY_ROUNDED: u8 = 3;
pub(crate) const MULTIPLY_AFTER: u8 = 4;
pub(crate) const FUSED: u8 = 5;
pub(crate) const ANY: u8 = 6;

impl Plan {
    /// Which of the constants above it is.
    pub fn kind(&self) -> u8 {
        if self.native || self.rounding != Rounding::NearestEven {
            return ANY;
        }
        match self.steps {
            Steps::MultiplyAfter => MULTIPLY_AFTER,
            // The one kind above that looks at NaN, as its library does.
            _ if self.nan_is_smallest => ANY,
            Steps::DivideExact => DIVIDE_EXACT,
            Steps::DivideRounded => DIVIDE_ROUNDED,
            Steps::DivideAfter => DIVIDE_AFTER,
            Steps::MultiplyRounded => MULTIPLY_ROUNDED,
            Steps::Fused => FUSED,
        }
    }

    #[inline(always)]
    pub fn steps<const KIND: u8>(&self) -> Steps {
        match KIND {
            DIVIDE_EXACT => Steps::DivideExact,
            DIVIDE_ROUNDED => Steps::DivideRounded,
            DIVIDE_AFTER => Steps::DivideAfter,
            MULTIPLY_ROUNDED => Steps::MultiplyRounded,
            MULTIPLY_AFTER => Steps::MultiplyAfter,
            FUSED => Steps::Fused,
            _ => self.steps,
        }
    }
}

/// The parameters of a vector of elements.
///
/// With v the scaled element, M = [`Compute::MAGIC`] and each sum in the convention's order:
///
/// | zero point added | bounds of v | M + code |
/// |---|---|---|
/// | exactly, before rounding | qmin − z, qmax − z | v + (M + z) |
/// | after rounding | qmin − z, qmax − z | (v + M) + z |
/// | rounded or fused, before rounding | qmin, qmax | v + M, where v holds z |
///
/// The sum with M is exact but for one rounding, to an integer, half to even: it *is* the rounding.
/// Clamping before it equals clamping after it, since the bounds are integers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Affine<V> {
    /// What x is divided by or multiplied with.
    divisor: V,
    scale: V,
    pub zero: V,
    low: V,
    high: V,
}

impl<V: Vector> Affine<V> {
    /// The parameters of all elements of a block that has one of each; those of its first element where
    /// it has more.
    ///
    /// # Safety
    /// That of [`Vector`], here and in all that follows.
    #[inline(always)]
    pub unsafe fn splat<const KIND: u8>(p: LaneBlock<'_, V::Scalar>, plan: &Plan) -> Self {
        let divisor = p.inverse.first().unwrap_or(&p.scale[0]);
        // SAFETY: the caller's.
        unsafe {
            let (divisor, scale) = (V::splat(*divisor), V::splat(p.scale[0]));
            Self::new::<KIND>(divisor, scale, V::splat(p.zero[0]), plan)
        }
    }

    /// The parameters of the elements from index `i` of a block that has one each.
    ///
    /// # Safety
    /// There must be as many as lanes from there.
    #[inline(always)]
    pub unsafe fn load<const KIND: u8>(p: LaneBlock<'_, V::Scalar>, i: usize, plan: &Plan) -> Self {
        let divisor = match plan.steps::<KIND>().multiplies() {
            true => p.inverse,
            false => p.scale,
        };
        // SAFETY: the caller's.
        unsafe {
            let (divisor, scale) = (
                V::load(divisor.as_ptr().add(i)),
                V::load(p.scale.as_ptr().add(i)),
            );
            Self::new::<KIND>(divisor, scale, V::load(p.zero.as_ptr().add(i)), plan)
        }
    }

    #[inline(always)]
    unsafe fn new<const KIND: u8>(divisor: V, scale: V, zero: V, plan: &Plan) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let (mut low, mut high) = (integer::<V>(plan.qmin), integer::<V>(plan.qmax));
            if !plan.steps::<KIND>().sum().before_clamp() {
                (low, high) = (low.sub(zero), high.sub(zero));
            }
            Self {
                divisor,
                scale,
                zero,
                low,
                high,
            }
        }
    }

    /// v, clamped to `room` steps beyond its bounds; NaN for NaN.
    ///
    /// # Safety
    /// That of [`Vector`].
    #[inline(always)]
    pub unsafe fn scaled<F, const KIND: u8>(&self, x: V, plan: &Plan, room: V) -> V
    where
        F: Float<Compute = V::Scalar>,
    {
        let steps = plan.steps::<KIND>();
        let (reciprocal, sum) = (steps.multiplies(), steps.sum());
        let native = KIND == ANY && plan.native;
        // SAFETY: the caller's.
        unsafe {
            let mut v = match (reciprocal, sum) {
                (_, Sum::Fused) => x.mul_add(self.divisor, self.zero),
                (true, _) => x.mul(self.divisor),
                (false, _) => x.div(self.divisor),
            };
            if native {
                v = v.round_to::<F>();
            }
            if sum == Sum::Rounded {
                v = v.add(if native {
                    self.zero.round_to::<F>()
                } else {
                    self.zero
                });
                if native {
                    v = v.round_to::<F>();
                }
            }
            // In this order a comparison with NaN keeps the NaN.
            v = self.low.sub(room).max(v);
            self.high.add(room).min(v)
        }
    }

    /// What turns v rounded to an integer into M + code.
    #[inline(always)]
    pub unsafe fn magic(&self, sum: Sum) -> V {
        // SAFETY: the caller's.
        unsafe {
            let magic = V::splat(V::Scalar::MAGIC);
            match sum.before_clamp() {
                true => magic,
                false => magic.add(self.zero),
            }
        }
    }

    /// The v of which the sum with the zero point is 0; a rounded sum has the sign of the exact one.
    #[inline(always)]
    pub unsafe fn origin(&self, sum: Sum) -> V {
        // SAFETY: the caller's.
        unsafe {
            let none = number::<V>(0.0);
            match sum {
                Sum::Exact => none.sub(self.zero),
                _ => none,
            }
        }
    }

    /// Whether the code, given as M + code, lies in the range; false for NaN. And the code clamped to
    /// it.
    ///
    /// # Safety
    /// That of [`Vector`].
    #[inline(always)]
    pub unsafe fn inside(code: V, plan: &Plan) -> (V::Mask, V) {
        // SAFETY: the caller's.
        unsafe {
            let magic = V::splat(V::Scalar::MAGIC);
            let (low, high) = (integer::<V>(plan.qmin), integer::<V>(plan.qmax));
            let clamped = magic.add(high).min(magic.add(low).max(code));
            (clamped.eq(code), clamped)
        }
    }

    /// q − z, of M + q.
    ///
    /// # Safety
    /// That of [`Vector`].
    #[inline(always)]
    pub unsafe fn difference<const KIND: u8>(&self, code: V, plan: &Plan) -> V {
        // SAFETY: the caller's.
        unsafe {
            let magic = V::splat(V::Scalar::MAGIC);
            match plan.steps::<KIND>().sum().before_clamp() {
                // A zero point that is rounded with x/s need not be an integer.
                true => code.sub(magic).sub(self.zero),
                // The difference of two integers near M is exact.
                false => code.sub(magic.add(self.zero)),
            }
        }
    }

    /// (q − z)·s, of q − z; each step rounded where the convention rounds it.
    ///
    /// # Safety
    /// That of [`Vector`].
    #[inline(always)]
    pub unsafe fn value<F, const KIND: u8>(&self, difference: V, plan: &Plan) -> V
    where
        F: Float<Compute = V::Scalar>,
    {
        // SAFETY: the caller's.
        unsafe {
            let difference = match KIND == ANY && plan.has_native_difference() {
                true => difference.round_to::<F>(),
                false => difference,
            };
            difference.mul(self.scale)
        }
    }
}

#[inline(always)]
pub(crate) unsafe fn number<V: Vector>(n: f64) -> V {
    // SAFETY: the caller's.
    unsafe { V::splat(V::Scalar::from_f64(n)) }
}

#[inline(always)]
unsafe fn integer<V: Vector>(n: i64) -> V {
    // SAFETY: the caller's.
    unsafe { V::splat(V::Scalar::from_i64(n)) }
}
