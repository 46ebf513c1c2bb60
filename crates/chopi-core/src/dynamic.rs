//! Range and codes of the same data in one pass over memory.
//!
//! Where each group lies in one piece, a few groups at a time are observed, calibrated and quantized
//! while they are still in cache. The numbers are those of `calibrate` and then `quantize`.

use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::buffer::{FloatSlice, IntSliceMut};
use crate::convention::Convention;
use crate::dtype::{Float, Int};
use crate::error::Result;
use crate::layout::Layout;
use crate::parallel;
use crate::qparams::QParams;
use crate::ranges::Ranges;
use crate::scheme::{Granularity, NanPolicy, Rounding, Scheme};
use crate::tiles::Tiles;
use crate::{match_float, match_int, slices};

/// How many elements to take at a time: 256 KiB of `f32`, which a core's own cache holds.
const IN_CACHE: usize = 64 * 1024;

/// What to calibrate and quantize by.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setting<'a> {
    pub scheme: &'a Scheme,
    pub convention: &'a Convention,
    pub nan: NanPolicy,
}

/// Writes the codes of `x` and returns the parameters that they are by.
///
/// # Errors
/// Those of [`Chopi::calibrate`](crate::Chopi::calibrate) and
/// [`Chopi::quantize`](crate::Chopi::quantize).
pub(crate) fn quantize(
    x: FloatSlice<'_>,
    layout: &Layout,
    setting: Setting<'_>,
    mut out: IntSliceMut<'_>,
) -> Result<QParams> {
    let Setting {
        scheme,
        convention,
        nan,
    } = setting;
    let rank = layout.shape().len();
    let granularity = convention.granularity_for(scheme.granularity, rank);
    if let Some(params) = by_groups(x, layout, granularity, setting, &mut out) {
        return Ok(params);
    }
    let ranges = Ranges::observe_slice(x, layout, granularity)?;
    let params = QParams::from_ranges(&ranges, scheme, convention)?;
    slices::quantize(x, layout, &params, nan, out)?;
    Ok(params)
}

/// The same a few groups at a time; nothing where that cannot be done, an error in the data among the
/// reasons.
fn by_groups(
    x: FloatSlice<'_>,
    layout: &Layout,
    granularity: Granularity,
    setting: Setting<'_>,
    out: &mut IntSliceMut<'_>,
) -> Option<QParams> {
    let tiles = Tiles::new(layout, granularity).ok()?;
    let size = tiles.size_of_consecutive_groups(layout.len())?;
    // Stochastic rounding goes by the index in the whole tensor.
    let stochastic = matches!(setting.scheme.rounding, Rounding::Stochastic { .. });
    if stochastic || layout.len() <= IN_CACHE || size > 16 * IN_CACHE {
        return None;
    }
    // A few groups at a time are a tensor of their own, a group a row.
    let of_rows = match granularity {
        Granularity::PerTensor => return None,
        Granularity::PerChannel { .. } => Granularity::PerChannel { axis: 0 },
        Granularity::PerGroup { .. } => Granularity::PerGroup { axis: 1, size },
    };
    let scheme = Scheme {
        granularity: of_rows,
        ..setting.scheme.clone()
    };
    let rows = Rows {
        size,
        count: (IN_CACHE / size).max(1),
        setting: Setting {
            scheme: &scheme,
            ..setting
        },
    };
    let (mut scale, mut zero_point) = (vec![0.0; tiles.groups()], vec![0.0; tiles.groups()]);
    match_float!(FloatSlice, x, x => match_int!(IntSliceMut, out, out => {
        rows.quantize(x, out, &mut scale, &mut zero_point)?;
    }));
    let row_major = |values: &[f64]| tiles.to_row_major(values).into_owned();
    let params = QParams::from_values(
        setting.scheme,
        setting.convention,
        x.float_type(),
        granularity.params_shape(layout.shape()).ok()?,
        row_major(&scale),
        row_major(&zero_point),
    );
    params.ok()
}

/// How a tensor is taken: `count` rows of `size` elements at a time.
struct Rows<'a> {
    size: usize,
    count: usize,
    setting: Setting<'a>,
}

impl Rows<'_> {
    /// Writes the codes, the scales and the zero points, if nothing is wrong.
    fn quantize<F: Float, I: Int>(
        &self,
        x: &[F],
        out: &mut [MaybeUninit<I>],
        scale: &mut [f64],
        zero_point: &mut [f64],
    ) -> Option<()> {
        let Setting {
            scheme,
            convention,
            nan,
        } = self.setting;
        let few = |x: &[F], out: &mut [MaybeUninit<I>], scale: &mut [f64], zero: &mut [f64]| {
            let (x, layout) = (F::slice(x), Layout::row_major(&[scale.len(), self.size]));
            let ranges = Ranges::observe_slice(x, &layout, scheme.granularity)?;
            let params = QParams::from_ranges(&ranges, scheme, convention)?;
            scale.copy_from_slice(params.scale());
            for (zero, value) in zero.iter_mut().zip(params.zero_points()) {
                *zero = value;
            }
            slices::quantize(x, &layout, &params, nan, I::slice_mut(out))
        };
        let failed = AtomicBool::new(false);
        let elements = x
            .chunks(self.count * self.size)
            .zip(out.chunks_mut(self.count * self.size));
        let params = scale
            .chunks_mut(self.count)
            .zip(zero_point.chunks_mut(self.count));
        let work =
            |(): &mut (), ((x, out), (scale, zero)): ((&[F], &mut [_]), (&mut [_], &mut [_]))| {
                if few(x, out, scale, zero).is_err() {
                    failed.store(true, Ordering::Relaxed);
                }
            };
        parallel::for_each(elements.zip(params), || (), work, |()| ());
        (!failed.into_inner()).then_some(())
    }
}
