//! The straight-through estimator on slices.

use crate::buffer::{Fill, FloatSliceMut};
use crate::dtype::Float;
use crate::error::{Error, Result};
use crate::kernel;
use crate::layout::Layout;
use crate::qparams::QParams;
use crate::slices;

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
/// [`Chopi::fake_quantize`](crate::Chopi::fake_quantize).
///
/// # Errors
/// [`Error::Elements`] where `x` is not as long as the layout says; [`Error::ParamsShape`] where the
/// parameters are for another shape.
pub fn fake_quantize<F: Float>(x: &[F], layout: &Layout, params: &QParams) -> Result<Vec<F>> {
    check_len(x, layout)?;
    let (x, ordered) = slices::ordered(x, layout.clone(), params.scheme().rounding);
    let values =
        |out: FloatSliceMut<'_>| slices::fake_quantize(F::slice(&x), &ordered, params, out);
    let values = Fill::new(values).floats(layout.len())?;
    Ok(if ordered == *layout {
        values
    } else {
        layout.to_memory_order(&values).into_owned()
    })
}

/// dx of [`Ste::Clipped`] for the gradient `dy` of what [`fake_quantize`] gave for `x`.
///
/// # Errors
/// Those of [`fake_quantize`], also for `dy`.
pub fn straight_through<F: Float>(
    x: &[F],
    dy: &[F],
    layout: &Layout,
    params: &QParams,
) -> Result<Vec<F>> {
    check_len(x, layout)?;
    check_len(dy, layout)?;
    let rounding = params.scheme().rounding;
    let (x, ordered) = slices::ordered(x, layout.clone(), rounding);
    let (dy, _) = slices::ordered(dy, layout.clone(), rounding);
    let dx = |out: FloatSliceMut<'_>| {
        let (tiles, out) = (
            slices::tiles(params, F::TYPE, &ordered)?,
            slices::same_float(out)?,
        );
        kernel::gradient::straight_through(&x, &dy, params, &tiles, out);
        Ok(())
    };
    let dx = Fill::new(dx).floats(layout.len())?;
    Ok(if ordered == *layout {
        dx
    } else {
        layout.to_memory_order(&dx).into_owned()
    })
}

pub(super) fn check_len<T>(data: &[T], layout: &Layout) -> Result<()> {
    if data.len() == layout.len() {
        return Ok(());
    }
    Err(Error::Elements {
        elements: data.len(),
        shape: layout.shape().to_vec(),
    })
}
