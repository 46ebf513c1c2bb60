//! The operations on the elements of a dense tensor: checks, kernels, and errors that say where.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use crate::buffer::{FloatSliceMut, IntSliceMut};
use crate::dtype::{Float, FloatType, Int};
use crate::error::{Error, Result};
use crate::kernel;
use crate::layout::Layout;
use crate::match_int;
use crate::qparams::QParams;
use crate::ranges::first_index;
use crate::scheme::{NanPolicy, Rounding};
use crate::tiles::Tiles;

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

pub(crate) fn quantize<F: Float>(
    x: &[F],
    layout: &Layout,
    params: &QParams,
    nan: NanPolicy,
    out: IntSliceMut<'_>,
) -> Result<()> {
    let tiles = tiles(params, F::TYPE, layout)?;
    if kernel::quantize::quantize(x, params, &tiles, nan, out) {
        return Ok(());
    }
    let is_nan = |v: &F| num_traits::Float::is_nan(v.widen());
    Err(Error::NaN {
        index: first_index(x, layout, is_nan).map_or_else(Vec::new, |(index, _)| index),
        count: x.iter().filter(|v| is_nan(v)).count(),
    })
}

pub(crate) fn dequantize<I: Int, F: Float>(
    codes: &[I],
    layout: &Layout,
    params: &QParams,
    out: &mut [MaybeUninit<F>],
) -> Result<()> {
    let tiles = tiles(params, F::TYPE, layout)?;
    let (qmin, qmax) = (params.scheme().qmin, params.scheme().qmax);
    if kernel::dequantize::any_outside(codes, qmin, qmax) {
        let outside = |q: &I| !(qmin..=qmax).contains(&q.to_i64());
        if let Some((index, code)) = first_index(codes, layout, outside) {
            return Err(Error::Code {
                index,
                code: code.to_i64(),
                qmin,
                qmax,
            });
        }
    }
    kernel::dequantize::dequantize(codes, params, &tiles, out);
    Ok(())
}

pub(crate) fn fake_quantize<F: Float>(
    x: &[F],
    layout: &Layout,
    params: &QParams,
    out: FloatSliceMut<'_>,
) -> Result<()> {
    let tiles = tiles(params, F::TYPE, layout)?;
    kernel::fake_quantize::fake_quantize(x, params, &tiles, same_float(out)?);
    Ok(())
}

pub(crate) fn fake_quantize_with_mask<F: Float>(
    x: &[F],
    layout: &Layout,
    params: &QParams,
    out: FloatSliceMut<'_>,
    mask: IntSliceMut<'_>,
) -> Result<()> {
    let (tiles, out) = (tiles(params, F::TYPE, layout)?, same_float(out)?);
    let mut run = |mask: &mut [MaybeUninit<u8>]| {
        kernel::fake_quantize::fake_quantize_with_mask(x, params, &tiles, out, mask);
    };
    match mask {
        IntSliceMut::U8(mask) => run(mask),
        // A framework without u8.
        wide => match_int!(IntSliceMut, wide, wide => {
            let mut mask = vec![MaybeUninit::new(0); wide.len()];
            run(&mut mask);
            for (wide, mask) in wide.iter_mut().zip(mask) {
                // SAFETY: the vector was made of initialized elements.
                wide.write(unsafe { mask.assume_init() } as _);
            }
        }),
    }
    Ok(())
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
