//! q = clamp(round(x/s + z)): floats to codes.

use std::mem::MaybeUninit;

use crate::element::{Code, Element, unsigned};
use crate::float::FloatType;
use crate::int::Int;
use crate::isa::{Loop, dispatch};
use crate::lanes::{Lanes, Params};
use crate::loops::affine::{
    ANY, DIVIDE_AFTER, DIVIDE_AFTER_LONG, DIVIDE_EXACT, DIVIDE_EXACT_LONG, DIVIDE_ROUNDED,
    DIVIDE_ROUNDED_LONG, FUSED, MULTIPLY_AFTER, MULTIPLY_ROUNDED, Run,
};
use crate::loops::driver::{Piece, Step, drive};
use crate::loops::wide::Wide;
use crate::memory::NoMemory;
use crate::slice::{FloatSlice, IntSliceMut};
use crate::vector::{Arch, Mask, Vector};
use crate::{match_float, match_int};

/// From how many elements on the reciprocal of their scale takes less time than their divisions.
const LONG: usize = 768;

/// Writes the code of every element of `x` to `out`, both in memory order. Returns whether `x` holds
/// NaN, whose code is that of the zero point: clamp(RNE(z), qmin, qmax).
///
/// `out` must be of a type that holds qmin..=qmax; the codes lose their high bits in any other.
///
/// # Errors
/// [`NoMemory`] where there is none for the numbers of the groups; `out` is as it was then.
///
/// # Panics
/// Where `x` or `out` is not as long as the tiles say.
pub fn quantize(
    x: FloatSlice<'_>,
    params: &Params<'_>,
    out: IntSliceMut<'_>,
) -> Result<bool, NoMemory> {
    match_float!(FloatSlice, x, x => quantize_floats(x, params, out))
}

fn quantize_floats<F: Element>(
    x: &[F],
    params: &Params<'_>,
    out: IntSliceMut<'_>,
) -> Result<bool, NoMemory> {
    if !params.fit::<F::Compute>() {
        return quantize_wide(x, params, out);
    }
    match out {
        IntSliceMut::U8(out) => quantize_codes(x, params, out),
        // SAFETY: i8 and u8 have one width.
        IntSliceMut::I8(out) => quantize_codes::<F, u8>(x, params, unsafe { unsigned(out) }),
        // Loops for 16-bit codes of `f64` data are not worth their size.
        out if F::TYPE == FloatType::F64 => quantize_wide(x, params, out),
        IntSliceMut::U16(out) => quantize_codes(x, params, out),
        // SAFETY: i16 and u16 have one width.
        IntSliceMut::I16(out) => quantize_codes::<F, u16>(x, params, unsafe { unsigned(out) }),
        out => quantize_wide(x, params, out),
    }
}

fn quantize_wide<F: Element>(
    x: &[F],
    params: &Params<'_>,
    out: IntSliceMut<'_>,
) -> Result<bool, NoMemory> {
    let wide = Wide::<F>::new(params)?;
    match_int!(IntSliceMut, out, out => {
        Ok(Piece::whole(params, x, out, &mut []).any(|piece| {
            wide.quantize(piece.x, piece.first, Int::slice_mut(piece.out))
        }))
    })
}

fn quantize_codes<F: Element, O: Code>(
    x: &[F],
    params: &Params<'_>,
    out: &mut [MaybeUninit<O>],
) -> Result<bool, NoMemory> {
    let mut lanes = Lanes::new();
    lanes.fill(params)?;
    let run = match params.kind(LONG) {
        DIVIDE_EXACT if O::BY_BLOCKS => run::<F, O, DIVIDE_EXACT>,
        DIVIDE_EXACT_LONG if O::BY_BLOCKS => run::<F, O, DIVIDE_EXACT_LONG>,
        DIVIDE_ROUNDED if const { is_usual::<F, O>() } => run::<F, O, DIVIDE_ROUNDED>,
        DIVIDE_ROUNDED_LONG if const { is_usual::<F, O>() } => run::<F, O, DIVIDE_ROUNDED_LONG>,
        DIVIDE_AFTER if const { is_usual::<F, O>() } => run::<F, O, DIVIDE_AFTER>,
        DIVIDE_AFTER_LONG if const { is_usual::<F, O>() } => run::<F, O, DIVIDE_AFTER_LONG>,
        MULTIPLY_ROUNDED if const { is_usual::<F, O>() } => run::<F, O, MULTIPLY_ROUNDED>,
        MULTIPLY_AFTER if const { is_usual::<F, O>() } => run::<F, O, MULTIPLY_AFTER>,
        FUSED if const { is_usual::<F, O>() } => run::<F, O, FUSED>,
        _ => run::<F, O, ANY>,
    };
    Ok(Piece::whole(params, x, out, &mut []).any(|mut piece| {
        // The loops for known steps notice NaN, and the loop for any steps gives it a code.
        run(piece.reborrow(), params, &lanes) && self::run::<F, O, ANY>(piece, params, &lanes)
    }))
}

/// Whether a loop for each of the [`Steps`](crate::Steps) is worth its size, and one by blocks of vectors:
/// what is not is not compiled.
const fn is_usual<F: Element, O: Code>() -> bool {
    O::BY_BLOCKS && matches!(F::TYPE, FloatType::F32)
}

fn run<F: Element, O: Code, const KIND: u8>(
    piece: Piece<'_, F, O>,
    params: &Params<'_>,
    lanes: &Lanes<F::Compute>,
) -> bool {
    dispatch(Quantize::<F, O, KIND> {
        piece,
        params,
        lanes,
    })
}

/// Writes the codes of a piece; gives whether it holds NaN, whose code has no meaning but in the loop
/// [`ANY`].
struct Quantize<'a, F: Element, O, const KIND: u8> {
    piece: Piece<'a, F, O>,
    params: &'a Params<'a>,
    lanes: &'a Lanes<F::Compute>,
}

impl<F: Element, O: Code, const KIND: u8> Loop for Quantize<'_, F, O, KIND> {
    type Output = bool;

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) -> bool {
        match A::SPECIALIZED {
            true => codes::<F, O, A, KIND>(arch, self.piece, self.params, self.lanes),
            false => any_codes(arch, self.piece, self.params, self.lanes),
        }
    }
}

#[inline(always)]
fn codes<F: Element, O: Code, A: Arch, const KIND: u8>(
    arch: A,
    piece: Piece<'_, F, O>,
    params: &Params<'_>,
    lanes: &Lanes<F::Compute>,
) -> bool {
    let mut step = NanSeen::<F, O, A>::new(arch);
    drive::<F::Vector<A>, _, KIND>(arch, &mut step, params, lanes, piece);
    step.any_nan.any()
}

/// The one loop of an instruction set for which no others are compiled.
#[inline(never)]
fn any_codes<F: Element, O: Code, A: Arch>(
    arch: A,
    piece: Piece<'_, F, O>,
    params: &Params<'_>,
    lanes: &Lanes<F::Compute>,
) -> bool {
    codes::<F, O, A, ANY>(arch, piece, params, lanes)
}

/// The step that writes codes, with what it has seen.
struct NanSeen<F: Element, O, A: Arch> {
    any_nan: <F::Vector<A> as Vector>::Mask,
    types: std::marker::PhantomData<(F, O)>,
}

impl<F: Element, O, A: Arch> NanSeen<F, O, A> {
    #[inline(always)]
    fn new(arch: A) -> Self {
        Self {
            any_nan: F::Vector::<A>::none(arch),
            types: std::marker::PhantomData,
        }
    }
}

impl<F: Element, O: Code, A: Arch, const KIND: u8> Step<F::Vector<A>, KIND> for NanSeen<F, O, A> {
    type In = F;
    type Out = O;
    const MASK: bool = false;
    const BY_BLOCKS: bool = is_usual::<F, O>();

    #[inline(always)]
    fn step<const NUMBERS: u8, const N: usize>(
        &mut self,
        run: &Run<'_, F::Vector<A>>,
        i: usize,
        x: &[F],
        out: &mut [MaybeUninit<O>],
        _: &mut [MaybeUninit<u8>],
    ) {
        let zero = F::Vector::splat(run.arch, F::Compute::default());
        let mut block = [zero; N];
        for (k, number) in block.iter_mut().enumerate() {
            *number = F::load(run.arch, &x[k * <F::Vector<A>>::LANES..]);
        }
        let mut is_nan = [F::Vector::none(run.arch); N];
        let mut any_nan = F::Vector::none(run.arch);
        if KIND == ANY {
            for k in 0..N {
                is_nan[k] = block[k].is_nan();
                any_nan = any_nan.or(is_nan[k]);
            }
        } else {
            // The loops for known steps look at two vectors at once, and say no more than whether.
            for k in (0..N).step_by(2) {
                any_nan = any_nan.or(block[k].is_either_nan(block[(k + 1) % N]));
            }
        }
        self.any_nan = self.any_nan.or(any_nan);
        let mut codes = run.codes::<F, KIND, NUMBERS, N>(block, i, zero);
        if KIND == ANY && any_nan.any() {
            for (k, code) in codes.iter_mut().enumerate() {
                let affine = run.affine::<KIND, NUMBERS>(i + k * <F::Vector<A>>::LANES);
                *code = Vector::select(is_nan[k], affine.zero_code(&run.recipe), *code);
            }
        }
        O::store(codes, out);
    }
}
