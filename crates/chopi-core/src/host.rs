//! The operations on the elements of a dense tensor in host memory: checks, kernels, and errors that
//! say where.
//!
//! None is generic, so that the kernels are compiled once, and not by every crate that quantizes.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use chopi_kernels::{
    Float, FloatSliceMut, Int, IntSliceMut, Layout, any_outside, match_float, match_int,
    memory::repeated,
};

use crate::backend::{HostFloats, HostInts};
use crate::error::{Error, Result};
use crate::qparams::QParams;
use crate::recipe::kernel_params;
use crate::scheme::{NanPolicy, Rounding};

/// The elements in an order that the rounding can use: stochastic rounding goes by the row-major
/// index.
pub(crate) fn ordered<'a, T: Copy>(
    data: &'a [T],
    layout: &Layout,
    rounding: Rounding,
) -> Result<(Cow<'a, [T]>, Layout)> {
    Ok(match rounding {
        Rounding::Stochastic { .. } if !layout.is_row_major() => {
            let data = layout.to_row_major(data)?;
            (data, Layout::row_major(layout.shape()))
        }
        _ => (Cow::Borrowed(data), layout.clone()),
    })
}

/// Writes the codes of `x`.
pub(crate) fn quantize(x: &HostFloats<'_>, params: &QParams, out: IntSliceMut<'_>) -> Result<()> {
    let kernel = kernel_params(params, x.float_type(), x.layout())?;
    let any_nan = chopi_kernels::quantize(x.data(), &kernel, out)?;
    match any_nan && params.nan_policy() == NanPolicy::Error {
        true => Err(nan_error(x)),
        false => Ok(()),
    }
}

fn nan_error(x: &HostFloats<'_>) -> Error {
    match_float!(FloatSlice, x.data(), data => {
        let is_nan = |v: &_| num_traits::Float::is_nan(Float::widen(*v));
        Error::NaN {
            index: first_index(data, x.layout(), is_nan).map_or_else(Vec::new, |(index, _)| index),
            count: data.iter().filter(|v| is_nan(v)).count(),
        }
    })
}

/// Writes the values of `codes`.
pub(crate) fn dequantize(
    codes: &HostInts<'_>,
    params: &QParams,
    out: FloatSliceMut<'_>,
) -> Result<()> {
    let kernel = kernel_params(params, out.float_type(), codes.layout())?;
    check_codes(codes, params.bounds())?;
    Ok(chopi_kernels::dequantize(codes.data(), &kernel, out)?)
}

fn check_codes(codes: &HostInts<'_>, (qmin, qmax): (i64, i64)) -> Result<()> {
    if !any_outside(codes.data(), qmin, qmax) {
        return Ok(());
    }
    match_int!(IntSlice, codes.data(), data => {
        let outside = |q: &_| !(qmin..=qmax).contains(&Int::to_i64(*q));
        match first_index(data, codes.layout(), outside) {
            None => Ok(()),
            Some((index, code)) => Err(Error::Code {
                index,
                code: code.to_i64(),
                qmin,
                qmax,
            }),
        }
    })
}

/// Writes the dequantized codes of `x`.
pub(crate) fn fake_quantize(
    x: &HostFloats<'_>,
    params: &QParams,
    out: FloatSliceMut<'_>,
) -> Result<()> {
    let kernel = kernel_params(params, x.float_type(), x.layout())?;
    check_type(x, &out)?;
    Ok(chopi_kernels::fake_quantize(x.data(), &kernel, out)?)
}

/// Writes the dequantized codes of `x`, and the mask of the elements in range.
pub(crate) fn fake_quantize_with_mask(
    x: &HostFloats<'_>,
    params: &QParams,
    out: FloatSliceMut<'_>,
    mask: IntSliceMut<'_>,
) -> Result<()> {
    let kernel = kernel_params(params, x.float_type(), x.layout())?;
    check_type(x, &out)?;
    let run = |mask: &mut [MaybeUninit<u8>]| {
        chopi_kernels::fake_quantize_with_mask(x.data(), &kernel, out, mask)
    };
    match mask {
        IntSliceMut::U8(mask) => run(mask)?,
        // A framework without u8.
        wide => match_int!(IntSliceMut, wide, wide => {
            let mut mask = repeated(MaybeUninit::new(0), wide.len())?;
            run(&mut mask)?;
            for (wide, mask) in wide.iter_mut().zip(mask) {
                // SAFETY: the vector was made of initialized elements.
                wide.write(unsafe { mask.assume_init() } as _);
            }
        }),
    }
    Ok(())
}

/// Checks that `float_like` made a tensor of the type of the tensor itself.
pub(crate) fn check_type(x: &HostFloats<'_>, out: &FloatSliceMut<'_>) -> Result<()> {
    match out.float_type() == x.float_type() {
        true => Ok(()),
        false => Err(Error::Dtype {
            backend: "float_like",
            dtype: out.float_type().to_string(),
            expected: "the dtype of the tensor itself",
        }),
    }
}

/// The error for data that hold NaN or an infinity.
pub(crate) fn non_finite(x: &HostFloats<'_>) -> Error {
    match_float!(FloatSlice, x.data(), data => {
        use chopi_kernels::Compute;
        let is_bad = |v: &_| !num_traits::Float::is_finite(Float::widen(*v));
        let first = first_index(data, x.layout(), is_bad);
        Error::NonFinite {
            value: first.as_ref().map_or(f64::NAN, |(_, v)| v.widen().as_f64()),
            index: first.map_or_else(Vec::new, |(index, _)| index),
            count: data.iter().filter(|v| is_bad(v)).count(),
        }
    })
}

/// The element that is first in row-major order among those that satisfy a predicate.
pub(crate) fn first_index<T: Copy>(
    data: &[T],
    layout: &Layout,
    predicate: impl Fn(&T) -> bool,
) -> Option<(Vec<usize>, T)> {
    let hits = data.iter().enumerate().filter(|(_, v)| predicate(v));
    match layout.is_row_major() {
        true => hits.map(|(offset, v)| (layout.index(offset), *v)).next(),
        false => hits
            .map(|(offset, v)| (layout.index(offset), *v))
            .min_by(|a, b| a.0.cmp(&b.0)),
    }
}
