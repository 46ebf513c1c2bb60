//! The straight-through estimator on slices.

use chopi_kernels::{Float, FloatSliceMut, Layout};

use crate::backend::{Fill, HostFloats, check_len};
use crate::error::Result;
use crate::host::{self, ordered};
use crate::qparams::QParams;
use crate::recipe::kernel_params;

/// What stands in for the gradient of rounding and clamping, which is 0 almost everywhere: the
/// straight-through estimator (Bengio, Léonard, Courville 2013).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Ste {
    /// dx = dy where round(x/s + z) lies in [qmin, qmax] before it is clamped, else 0; 0 for NaN.
    /// What PyTorch's `fake_quantize` operations do.
    #[default]
    Clipped,
    /// dx = dy. What pychop's layers do.
    Identity,
}

/// The fake-quantized elements of a dense tensor, in memory order: the bits of
/// [`QParams::fake_quantize`].
///
/// # Errors
/// [`Error::Elements`](crate::Error::Elements) where `x` is not as long as the layout says;
/// [`Error::ParamsShape`](crate::Error::ParamsShape) where the parameters are for another shape.
pub fn fake_quantize<F: Float>(x: &[F], layout: &Layout, params: &QParams) -> Result<Vec<F>> {
    check_len(x.len(), layout)?;
    let (x, order) = ordered(x, layout, params.scheme().rounding)?;
    let host = HostFloats::new(F::slice(&x), order)?;
    let values = |out: FloatSliceMut<'_>| host::fake_quantize(&host, params, out);
    let values = Fill::new(x.len(), values).into_floats()?;
    in_order(values, host.layout(), layout)
}

/// dx of [`Ste::Clipped`] for the gradient `dy` of what [`fake_quantize`] gave for `x`.
///
/// # Errors
/// The errors of [`fake_quantize`], also for `dy`.
pub fn straight_through<F: Float>(
    x: &[F],
    dy: &[F],
    layout: &Layout,
    params: &QParams,
) -> Result<Vec<F>> {
    check_len(x.len(), layout)?;
    check_len(dy.len(), layout)?;
    let rounding = params.scheme().rounding;
    let (x, order) = ordered(x, layout, rounding)?;
    let (dy, _) = ordered(dy, layout, rounding)?;
    let kernel = kernel_params(params, F::TYPE, &order)?;
    let dx = |out: FloatSliceMut<'_>| {
        let (x, dy) = (F::slice(&x), F::slice(&dy));
        Ok(chopi_kernels::straight_through(x, dy, &kernel, out)?)
    };
    let dx = Fill::new(x.len(), dx).into_floats()?;
    in_order(dx, &order, layout)
}

/// Elements in the order of one layout, which is row-major or the other, put into the order of the
/// other.
pub(super) fn in_order<F: Float>(values: Vec<F>, from: &Layout, to: &Layout) -> Result<Vec<F>> {
    match from == to {
        true => Ok(values),
        false => Ok(to.into_memory_order(values)?),
    }
}
