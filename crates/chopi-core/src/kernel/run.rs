//! A run of elements with their parameters: a few vectors at a time to M + their codes.

use crate::dtype::{Compute, Float};
use crate::kernel::affine::{ANY, Affine, Plan, number};
use crate::kernel::lanes::LaneBlock;
use crate::kernel::steps::Sum;
use crate::kernel::uniform;
use crate::kernel::vector::Vector;
use crate::scheme::Rounding;

/// At least a vector of elements, or of codes, with one parameter of each kind for all or for each.
#[derive(Clone, Copy)]
pub(crate) struct Run<'a, V: Vector, T> {
    pub from: *const T,
    pub plan: &'a Plan,
    params: LaneBlock<'a, V::Scalar>,
    /// The parameters of all elements, where they have one of each.
    uniform: Affine<V>,
    /// The index of the first element in the tensor.
    index: usize,
}

impl<'a, V: Vector, T> Run<'a, V, T> {
    /// # Safety
    /// That of [`Vector`], here and in all that follows.
    #[inline(always)]
    pub unsafe fn new<const KIND: u8>(
        elements: &[T],
        params: LaneBlock<'a, V::Scalar>,
        index: usize,
        plan: &'a Plan,
    ) -> Self {
        Self {
            from: elements.as_ptr(),
            plan,
            params,
            // SAFETY: the caller's.
            uniform: unsafe { Affine::splat::<KIND>(params, plan) },
            index,
        }
    }

    /// Whether all elements have the same parameters. It is `UNIFORM` in what follows, so that the
    /// loops are compiled for either.
    #[inline(always)]
    pub fn is_uniform(&self) -> bool {
        self.params.zero.len() == 1
    }

    /// The parameters of the vector at offset `i`.
    ///
    /// # Safety
    /// There must be a vector.
    #[inline(always)]
    pub unsafe fn affine<const KIND: u8, const UNIFORM: bool>(&self, i: usize) -> Affine<V> {
        match UNIFORM {
            true => self.uniform,
            // SAFETY: the caller's.
            false => unsafe { Affine::load::<KIND>(self.params, i, self.plan) },
        }
    }

    /// M + the code of each number of a few vectors, the first of them at offset `i`, clamped to `room`
    /// steps beyond the range; NaN for NaN.
    ///
    /// # Safety
    /// There must be as many vectors.
    #[inline(always)]
    pub unsafe fn codes<const KIND: u8, const UNIFORM: bool, const N: usize>(
        &self,
        mut block: [V; N],
        i: usize,
        room: V,
    ) -> [V; N]
    where
        T: Float<Compute = V::Scalar>,
    {
        let plan = self.plan;
        let sum = plan.steps::<KIND>().sum();
        // A macro, for a closure is not compiled for the instruction set.
        macro_rules! each {
            (|$affine:ident, $v:ident| $result:expr) => {
                for (k, $v) in block.iter_mut().enumerate() {
                    let $affine = self.affine::<KIND, UNIFORM>(i + k * V::LANES);
                    *$v = $result;
                }
            };
        }
        let rounding = match KIND {
            ANY => plan.rounding,
            _ => Rounding::NearestEven,
        };
        // SAFETY: the caller's.
        unsafe {
            each!(|affine, v| affine.scaled::<T, KIND>(*v, plan, room));
            // One decision for all vectors.
            match rounding {
                Rounding::NearestEven if sum == Sum::After => {
                    let magic = V::splat(V::Scalar::MAGIC);
                    each!(|affine, v| v.add(magic).add(affine.zero));
                }
                Rounding::NearestEven => each!(|affine, v| v.add(affine.magic(sum))),
                Rounding::NearestAway => each!(|affine, v| {
                    let magic = affine.magic(sum);
                    let code = v.add(magic);
                    let left = v.sub(code.sub(magic));
                    // ½ to the side of the sum's sign is a tie that went to the other one.
                    let away = V::select(v.gt(affine.origin(sum)), number(1.0), number(-1.0));
                    V::select(left.add(left).eq(away), code.add(away), code)
                }),
                Rounding::TowardZero => each!(|affine, v| {
                    let negative = affine.origin(sum).gt(*v);
                    V::select(negative, v.ceil(), v.floor()).add(affine.magic(sum))
                }),
                Rounding::Floor => each!(|affine, v| v.floor().add(affine.magic(sum))),
                Rounding::Ceiling => each!(|affine, v| v.ceil().add(affine.magic(sum))),
                // One more than the floor where the fraction exceeds the random number.
                Rounding::Stochastic { seed } => {
                    let mut index = (self.index + i) as u64;
                    each!(|affine, v| {
                        let words = uniform::words::<V>(seed, index);
                        index += V::LANES as u64;
                        v.ceil_difference(V::from_words(words), number(uniform::UNIT))
                            .add(affine.magic(sum))
                    });
                }
            }
        }
        block
    }
}
