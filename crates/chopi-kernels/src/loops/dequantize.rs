//! x̂ = (q − z)·s: codes to floats.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::element::{Element, Stored, WIDE_BLOCK};
use crate::float::FloatType;
use crate::int::Int;
use crate::isa::{Loop, dispatch};
use crate::lanes::{Lanes, Params};
use crate::loops::affine::{ANY, Run};
use crate::loops::driver::{Piece, Step, drive};
use crate::loops::wide::Wide;
use crate::memory::NoMemory;
use crate::parallel::{self, piece_len};
use crate::slice::{FloatSliceMut, IntSlice};
use crate::vector::{Arch, Vector};
use crate::{match_float, match_int};

/// Writes the value of every code, both in memory order.
///
/// The codes must lie in qmin..=qmax; the values of others have no meaning.
///
/// # Errors
/// [`NoMemory`] where there is none for the numbers of the groups; `out` is as it was then.
///
/// # Panics
/// Where `codes` or `out` is not as long as the tiles say.
pub fn dequantize(
    codes: IntSlice<'_>,
    params: &Params<'_>,
    out: FloatSliceMut<'_>,
) -> Result<(), NoMemory> {
    match_float!(FloatSliceMut, out, out => dequantize_floats(codes, params, out))
}

fn dequantize_floats<F: Element>(
    codes: IntSlice<'_>,
    params: &Params<'_>,
    out: &mut [MaybeUninit<F>],
) -> Result<(), NoMemory> {
    if params.values_fit::<F::Compute>() {
        match codes {
            IntSlice::I8(codes) => return dequantize_stored(codes, params, out),
            IntSlice::U8(codes) => return dequantize_stored(codes, params, out),
            // Loops for 16-bit codes of `f64` data are not worth their size.
            _ if F::TYPE == FloatType::F64 => {}
            IntSlice::I16(codes) => return dequantize_stored(codes, params, out),
            IntSlice::U16(codes) => return dequantize_stored(codes, params, out),
            IntSlice::I32(_) | IntSlice::U32(_) | IntSlice::I64(_) => {}
        }
    }
    let wide = Wide::<F>::new(params)?;
    match_int!(IntSlice, codes, codes => {
        Piece::whole(params, codes, out, &mut []).each(|piece| {
            wide.dequantize(Int::slice(piece.x), piece.first, piece.out);
        });
    });
    Ok(())
}

fn dequantize_stored<I: Stored, F: Element>(
    codes: &[I],
    params: &Params<'_>,
    out: &mut [MaybeUninit<F>],
) -> Result<(), NoMemory> {
    let mut lanes = Lanes::new();
    lanes.fill(params)?;
    let lanes = &lanes;
    Piece::whole(params, codes, out, &mut []).each(|piece| {
        dispatch(Dequantize {
            piece,
            params,
            lanes,
        });
    });
    Ok(())
}

/// Writes the values of the codes of a piece.
struct Dequantize<'a, I, F: Element> {
    piece: Piece<'a, I, F>,
    params: &'a Params<'a>,
    lanes: &'a Lanes<F::Compute>,
}

impl<I: Stored, F: Element> Loop for Dequantize<'_, I, F> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) {
        let mut step = Values::<I, F>(std::marker::PhantomData);
        drive::<F::Vector<A>, _, ANY>(arch, &mut step, self.params, self.lanes, self.piece);
    }
}

/// The step that writes values.
struct Values<I, F>(std::marker::PhantomData<(I, F)>);

impl<I, F, V> Step<V, ANY> for Values<I, F>
where
    I: Stored,
    F: Element<Compute = V::Scalar, Vector<V::Arch> = V>,
    V: Vector,
{
    type In = I;
    type Out = F;
    const MASK: bool = false;
    const BY_BLOCKS: bool = matches!(F::TYPE, FloatType::F32);

    #[inline(always)]
    fn step<const NUMBERS: u8, const N: usize>(
        &mut self,
        run: &Run<'_, V>,
        i: usize,
        codes: &[I],
        out: &mut [MaybeUninit<F>],
        _: &mut [MaybeUninit<u8>],
    ) {
        for k in 0..N {
            let affine = run.affine::<ANY, NUMBERS>(i + k * V::LANES);
            let code = I::load::<V>(run.arch, &codes[k * V::LANES..]);
            let value = affine.value::<F, ANY>(code.sub(affine.zero), &run.recipe);
            F::store::<V::Arch>(value, &mut out[k * V::LANES..]);
        }
    }
}

/// Whether a code lies outside of `qmin..=qmax`.
pub fn any_outside(codes: IntSlice<'_>, qmin: i64, qmax: i64) -> bool {
    let (least, most) = codes.int_type().bounds();
    if least >= qmin && most <= qmax {
        return false;
    }
    match_int!(IntSlice, codes, codes => {
        let size = piece_len(codes.len());
        if codes.len() <= size {
            return dispatch(Outside { codes, qmin, qmax });
        }
        let any = AtomicBool::new(false);
        let mut pieces = codes.chunks(size);
        parallel::run_all(pieces.len(), &mut || {
            let (codes, any) = (pieces.next()?, &any);
            Some(Box::new(move || {
                if dispatch(Outside { codes, qmin, qmax }) {
                    any.store(true, Ordering::Relaxed);
                }
            }))
        });
        any.into_inner()
    })
}

struct Outside<'a, I> {
    codes: &'a [I],
    qmin: i64,
    qmax: i64,
}

impl<I: Int> Loop for Outside<'_, I> {
    type Output = bool;
    const IS_PLAIN: bool = true;

    #[inline(always)]
    fn run<A: Arch>(self, _: A) -> bool {
        self.codes.chunks(WIDE_BLOCK).any(|block| {
            // In their own type, of which a vector holds the most.
            let Some(&first) = block.first() else {
                return false;
            };
            let (low, high) = block
                .iter()
                .fold((first, first), |(low, high), &q| (low.min(q), high.max(q)));
            low.to_i64() < self.qmin || high.to_i64() > self.qmax
        })
    }
}
