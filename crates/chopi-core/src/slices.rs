//! The operations on the elements of a dense tensor: checks, kernels, and errors that say where.
//!
//! They are not generic, so that the kernels are compiled once, here, and not by every crate that
//! quantizes.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use crate::buffer::{FloatSlice, FloatSliceMut, IntSlice, IntSliceMut};
use crate::dtype::{Float, FloatType, Int};
use crate::error::{Error, Result};
use crate::kernel;
use crate::layout::Layout;
use crate::qparams::QParams;
use crate::ranges::first_index;
use crate::scheme::{NanPolicy, Rounding};
use crate::tiles::Tiles;
use crate::{match_float, match_int};

/// The elements in an order that the rounding can use: stochastic rounding goes by the row-major
/// index.
pub(crate) fn ordered<T: Copy>(
    data: &[T],
    layout: Layout,
    rounding: Rounding,
) -> (Cow<'_, [T]>, Layout) {
    match rounding {
        Rounding::Stochastic { .. } if layout.order().is_some() => {
            let data = layout.to_row_major(data);
            (data, Layout::row_major(layout.shape()))
        }
        _ => (Cow::Borrowed(data), layout),
    }
}

/// The groups of a tensor of this layout under these parameters.
///
/// # Errors
/// [`Error::ParamsShape`] where the parameters are for another shape.
pub(crate) fn tiles(params: &QParams, float: FloatType, layout: &Layout) -> Result<Tiles> {
    let granularity = params.granularity_for(float, layout.shape())?;
    Tiles::new(layout, granularity)
}

/// Writes the codes of `x`.
pub(crate) fn quantize(
    x: FloatSlice<'_>,
    layout: &Layout,
    params: &QParams,
    nan: NanPolicy,
    out: IntSliceMut<'_>,
) -> Result<()> {
    let tiles = tiles(params, x.float_type(), layout)?;
    match_float!(FloatSlice, x, x => {
        if kernel::quantize::quantize(x, params, &tiles, nan, out) {
            Ok(())
        } else {
            Err(nan_error(x, layout))
        }
    })
}

fn nan_error<F: Float>(x: &[F], layout: &Layout) -> Error {
    let is_nan = |v: &F| num_traits::Float::is_nan(v.widen());
    Error::NaN {
        index: first_index(x, layout, is_nan).map_or_else(Vec::new, |(index, _)| index),
        count: x.iter().filter(|v| is_nan(v)).count(),
    }
}

/// Writes the values of `codes`.
pub(crate) fn dequantize(
    codes: IntSlice<'_>,
    layout: &Layout,
    params: &QParams,
    out: FloatSliceMut<'_>,
) -> Result<()> {
    let tiles = tiles(params, out.float_type(), layout)?;
    match_int!(IntSlice, codes, codes => {
        check_codes(codes, layout, params)?;
        match_float!(FloatSliceMut, out, out => {
            kernel::dequantize::dequantize(codes, params, &tiles, out);
        });
    });
    Ok(())
}

fn check_codes<I: Int>(codes: &[I], layout: &Layout, params: &QParams) -> Result<()> {
    let (qmin, qmax) = params.bounds();
    if !kernel::dequantize::any_outside(codes, qmin, qmax) {
        return Ok(());
    }
    let outside = |q: &I| !(qmin..=qmax).contains(&q.to_i64());
    match first_index(codes, layout, outside) {
        None => Ok(()),
        Some((index, code)) => Err(Error::Code {
            index,
            code: code.to_i64(),
            qmin,
            qmax,
        }),
    }
}

/// Writes the dequantized codes of `x`.
pub(crate) fn fake_quantize(
    x: FloatSlice<'_>,
    layout: &Layout,
    params: &QParams,
    out: FloatSliceMut<'_>,
) -> Result<()> {
    let tiles = tiles(params, x.float_type(), layout)?;
    match_float!(FloatSlice, x, x => {
        kernel::fake_quantize::fake_quantize(x, params, &tiles, same_float(out)?);
    });
    Ok(())
}

/// The same, and writes the mask of the elements in range.
pub(crate) fn fake_quantize_with_mask(
    x: FloatSlice<'_>,
    layout: &Layout,
    params: &QParams,
    out: FloatSliceMut<'_>,
    mask: IntSliceMut<'_>,
) -> Result<()> {
    let tiles = tiles(params, x.float_type(), layout)?;
    let run = |mask: &mut [MaybeUninit<u8>]| -> Result<()> {
        match_float!(FloatSlice, x, x => {
            let out = same_float(out)?;
            kernel::fake_quantize::fake_quantize_with_mask(x, params, &tiles, out, mask);
        });
        Ok(())
    };
    match mask {
        IntSliceMut::U8(mask) => run(mask),
        // A framework without u8.
        wide => match_int!(IntSliceMut, wide, wide => {
            let mut mask = vec![MaybeUninit::new(0); wide.len()];
            run(&mut mask)?;
            for (wide, mask) in wide.iter_mut().zip(mask) {
                // SAFETY: the vector was made of initialized elements.
                wide.write(unsafe { mask.assume_init() } as _);
            }
            Ok(())
        }),
    }
}

/// What `float_like` made, which must be of the tensor's own type.
pub(crate) fn same_float<'a, F: Float>(out: FloatSliceMut<'a>) -> Result<&'a mut [MaybeUninit<F>]> {
    let float = out.float_type();
    F::from_slice_mut(out).ok_or_else(|| Error::Dtype {
        backend: "float_like",
        dtype: float.to_string(),
        expected: "the dtype of the tensor itself",
    })
}
