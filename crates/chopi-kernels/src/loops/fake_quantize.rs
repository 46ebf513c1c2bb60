//! x̂ = (clamp(round(x/s + z)) − z)·s: quantize and dequantize in one pass, with or without the
//! mask of the elements whose code was in range before it was clamped.

use std::mem::MaybeUninit;

use crate::element::Element;
use crate::float::{Compute, Float, FloatType};
use crate::isa::{Loop, dispatch};
use crate::lanes::{Lanes, Params};
use crate::loops::affine::{
    ANY, DIVIDE_AFTER, DIVIDE_AFTER_LONG, DIVIDE_EXACT, DIVIDE_EXACT_LONG, DIVIDE_ROUNDED,
    DIVIDE_ROUNDED_LONG, FUSED, MULTIPLY_AFTER, MULTIPLY_ROUNDED, Run, inside,
};
use crate::loops::driver::{Piece, Step, drive};
use crate::loops::wide::Wide;
use crate::match_float;
use crate::memory::NoMemory;
use crate::slice::{FloatSlice, FloatSliceMut};
use crate::vector::{Arch, Vector};

/// From how many elements on the reciprocal of their scale takes less time than their divisions.
const LONG: usize = 1024;

/// Writes the dequantized code of every element of `x` to `out`, both in memory order: the bits
/// that dequantizing what `quantize` gives would give, but for NaN, which stays NaN or has the value of
/// qmin, as the recipe says.
///
/// # Errors
/// [`NoMemory`] where there is none for the numbers of the groups; `out` is as it was then.
///
/// # Panics
/// Where `out` is of another type than `x`, or one of them not as long as the tiles say.
pub fn fake_quantize(
    x: FloatSlice<'_>,
    params: &Params<'_>,
    out: FloatSliceMut<'_>,
) -> Result<(), NoMemory> {
    match_float!(FloatSlice, x, x => floats::<_, false>(x, params, same_type(out), &mut []))
}

/// [`fake_quantize`], and writes to `mask` 1 where round(x/s + z) lies in qmin..=qmax, else 0; 0 for
/// NaN.
///
/// # Errors
/// The errors of [`fake_quantize`].
///
/// # Panics
/// Where `out` is of another type than `x`, or one of the three not as long as the tiles say.
pub fn fake_quantize_with_mask(
    x: FloatSlice<'_>,
    params: &Params<'_>,
    out: FloatSliceMut<'_>,
    mask: &mut [MaybeUninit<u8>],
) -> Result<(), NoMemory> {
    assert_eq!(mask.len(), x.len(), "elements of the mask");
    match_float!(FloatSlice, x, x => floats::<_, true>(x, params, same_type(out), mask))
}

/// A slice to be written as one of a type.
pub(crate) fn same_type<F: Float>(out: FloatSliceMut<'_>) -> &mut [MaybeUninit<F>] {
    let float = out.float_type();
    match F::from_slice_mut(out) {
        Some(out) => out,
        None => panic!(
            "the input is of type {}, the output of type {float}",
            F::TYPE
        ),
    }
}

/// `mask` is empty where there is none.
pub(crate) fn floats<F: Element, const MASK: bool>(
    x: &[F],
    params: &Params<'_>,
    out: &mut [MaybeUninit<F>],
    mask: &mut [MaybeUninit<u8>],
) -> Result<(), NoMemory> {
    let whole = Piece::whole(params, x, out, mask);
    if !params.values_fit::<F::Compute>() {
        let wide = Wide::<F>::new(params)?;
        whole.each(|piece| wide.fake_quantize(piece));
        return Ok(());
    }
    let mut lanes = Lanes::new();
    lanes.fill(params)?;
    let run = match params.kind(LONG) {
        DIVIDE_EXACT if const { is_f32::<F>() || !MASK } => run::<F, DIVIDE_EXACT, MASK>,
        DIVIDE_EXACT_LONG if const { is_f32::<F>() || !MASK } => run::<F, DIVIDE_EXACT_LONG, MASK>,
        DIVIDE_ROUNDED if const { is_f32::<F>() && !MASK } => run::<F, DIVIDE_ROUNDED, MASK>,
        DIVIDE_ROUNDED_LONG if const { is_f32::<F>() && !MASK } => {
            run::<F, DIVIDE_ROUNDED_LONG, MASK>
        }
        DIVIDE_AFTER if const { is_f32::<F>() && !MASK } => run::<F, DIVIDE_AFTER, MASK>,
        DIVIDE_AFTER_LONG if const { is_f32::<F>() && !MASK } => run::<F, DIVIDE_AFTER_LONG, MASK>,
        MULTIPLY_ROUNDED if const { is_f32::<F>() && !MASK } => run::<F, MULTIPLY_ROUNDED, MASK>,
        MULTIPLY_AFTER if const { is_f32::<F>() } => run::<F, MULTIPLY_AFTER, MASK>,
        FUSED if const { is_f32::<F>() && !MASK } => run::<F, FUSED, MASK>,
        _ => run::<F, ANY, MASK>,
    };
    whole.each(|piece| run(piece, params, &lanes));
    Ok(())
}

/// Whether a loop for each of the [`Steps`](crate::Steps) is worth its size, and one by blocks of vectors:
/// what is not is not compiled. With the mask, which training needs, only the steps that it mostly takes
/// are.
const fn is_f32<F: Element>() -> bool {
    matches!(F::TYPE, FloatType::F32)
}

fn run<F: Element, const KIND: u8, const MASK: bool>(
    piece: Piece<'_, F, F>,
    params: &Params<'_>,
    lanes: &Lanes<F::Compute>,
) {
    dispatch(FakeQuantize::<F, KIND, MASK> {
        piece,
        params,
        lanes,
    });
}

/// Writes the values of a piece, and the mask.
struct FakeQuantize<'a, F: Element, const KIND: u8, const MASK: bool> {
    piece: Piece<'a, F, F>,
    params: &'a Params<'a>,
    lanes: &'a Lanes<F::Compute>,
}

impl<F: Element, const KIND: u8, const MASK: bool> Loop for FakeQuantize<'_, F, KIND, MASK> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        match A::SPECIALIZED {
            true => values::<F, A, KIND, MASK>(arch, self.piece, self.params, self.lanes),
            false => any_values::<F, A, MASK>(arch, self.piece, self.params, self.lanes),
        }
    }
}

#[inline(always)]
fn values<F: Element, A: Arch, const KIND: u8, const MASK: bool>(
    arch: A,
    piece: Piece<'_, F, F>,
    params: &Params<'_>,
    lanes: &Lanes<F::Compute>,
) {
    let mut step = Values::<F, MASK>(std::marker::PhantomData);
    drive::<F::Vector<A>, _, KIND>(arch, &mut step, params, lanes, piece);
}

/// The one loop of an instruction set for which no others are compiled.
#[inline(never)]
fn any_values<F: Element, A: Arch, const MASK: bool>(
    arch: A,
    piece: Piece<'_, F, F>,
    params: &Params<'_>,
    lanes: &Lanes<F::Compute>,
) {
    values::<F, A, ANY, MASK>(arch, piece, params, lanes);
}

/// The step that writes values, and the mask.
struct Values<F, const MASK: bool>(std::marker::PhantomData<F>);

impl<F, V, const KIND: u8, const MASK: bool> Step<V, KIND> for Values<F, MASK>
where
    F: Element<Compute = V::Scalar, Vector<V::Arch> = V>,
    V: Vector,
{
    type In = F;
    type Out = F;
    const MASK: bool = MASK;
    const BY_BLOCKS: bool = is_f32::<F>();

    #[inline(always)]
    fn step<const NUMBERS: u8, const N: usize>(
        &mut self,
        run: &Run<'_, V>,
        i: usize,
        x: &[F],
        out: &mut [MaybeUninit<F>],
        mask: &mut [MaybeUninit<u8>],
    ) {
        let (arch, recipe) = (run.arch, &run.recipe);
        // One step of room on each side tells a code beyond a bound from one at it.
        let room = V::splat(arch, F::Compute::from_i32(MASK.into()));
        let mut block = [room; N];
        for (k, number) in block.iter_mut().enumerate() {
            *number = F::load(arch, &x[k * V::LANES..]);
            if matches!(KIND, MULTIPLY_AFTER | ANY) && recipe.nan_is_smallest {
                let smallest = V::splat(arch, num_traits::Float::neg_infinity());
                *number = V::select(number.is_nan(), smallest, *number);
            }
        }
        let mut in_range = [V::none(arch); N];
        let codes = run.codes::<F, KIND, NUMBERS, N>(block, i, room);
        for (k, mut code) in codes.into_iter().enumerate() {
            if MASK {
                (in_range[k], code) = inside(code, recipe);
            }
            let affine = run.affine::<KIND, NUMBERS>(i + k * V::LANES);
            let difference = affine.difference::<KIND>(code, recipe);
            let value = affine.value::<F, KIND>(difference, recipe);
            F::store::<V::Arch>(value, &mut out[k * V::LANES..]);
        }
        if MASK {
            V::store_all_masks(in_range, mask);
        }
    }
}
