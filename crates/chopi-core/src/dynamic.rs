//! Range and codes of the same data in one pass over memory.
//!
//! Where each group lies in one piece, a few groups at a time are observed, calibrated and quantized
//! while they are still in cache. The numbers are those of `calibrate` and then `quantize`.

use std::sync::atomic::{AtomicBool, Ordering};

use crate::backend::HostFloats;
use crate::convention::Convention;
use crate::error::Result;
use crate::host;
use crate::observer::Ranges;
use crate::qparams::QParams;
use crate::scheme::{Granularity, NanPolicy, Rounding, Scheme, SchemeFields};
use chopi_kernels::{FloatSlice, IntSliceMut, Layout, memory::repeated, parallel};

/// How many elements to take at a time: 256 KiB of `f32`, which a core's own cache holds.
const IN_CACHE: usize = 64 * 1024;

/// Writes the codes of `x` and returns the parameters that they are by.
///
/// # Errors
/// The errors of [`Chopi::calibrate`](crate::Chopi::calibrate) and
/// [`QParams::quantize`](crate::QParams::quantize).
pub(crate) fn quantize(
    x: &HostFloats<'_>,
    scheme: &Scheme,
    convention: &Convention,
    nan: NanPolicy,
    mut out: IntSliceMut<'_>,
) -> Result<QParams> {
    let granularity = convention.granularity_for(scheme.granularity, x.layout().shape().len());
    if let Some(params) = by_groups(x, granularity, scheme, convention, &mut out) {
        return Ok(params.with_nan_policy(nan));
    }
    let ranges = Ranges::observe_host(x, granularity)?;
    let params = QParams::from_ranges(&ranges, scheme, convention)?.with_nan_policy(nan);
    host::quantize(x, &params, out)?;
    Ok(params)
}

/// [`quantize`], a few groups at a time; nothing where that cannot be done, an error in the data among
/// the reasons.
fn by_groups(
    x: &HostFloats<'_>,
    granularity: Granularity,
    scheme: &Scheme,
    convention: &Convention,
    out: &mut IntSliceMut<'_>,
) -> Option<QParams> {
    let layout = x.layout();
    // Stochastic rounding goes by the index in the whole tensor.
    let stochastic = matches!(scheme.rounding, Rounding::Stochastic { .. });
    if stochastic || layout.len() <= IN_CACHE || granularity == Granularity::PerTensor {
        return None;
    }
    let tiles = granularity.tiles(layout).ok()?;
    let size = tiles.size_of_consecutive_groups()?;
    if size > 16 * IN_CACHE {
        return None;
    }
    // A few groups at a time are a tensor of their own, a group a row.
    let of_rows = match granularity {
        Granularity::PerTensor | Granularity::PerChannel { .. } => {
            Granularity::PerChannel { axis: 0 }
        }
        Granularity::PerGroup { .. } => Granularity::PerGroup { axis: 1, size },
    };
    let rows = Rows {
        size,
        count: (IN_CACHE / size).max(1),
        scheme: &Scheme::new(SchemeFields {
            granularity: of_rows,
            ..**scheme
        })
        .ok()?,
        convention,
    };
    let list = || repeated(0.0, tiles.groups()).ok();
    let (mut scale, mut zero_point) = (list()?, list()?);
    rows.quantize(x.data(), out.reborrow(), &mut scale, &mut zero_point)?;
    let params = QParams::from_values(
        scheme,
        convention,
        x.float_type(),
        granularity.params_shape(layout.shape()).ok()?,
        tiles.into_row_major(scale).ok()?,
        tiles.into_row_major(zero_point).ok()?,
    );
    let length = granularity.grouped_length(layout.shape());
    Some(params.ok()?.with_grouped_length(length))
}

/// How a tensor is taken: `count` rows of `size` elements at a time.
struct Rows<'a> {
    size: usize,
    count: usize,
    scheme: &'a Scheme,
    convention: &'a Convention,
}

impl Rows<'_> {
    /// Writes the codes, the scales and the zero points, if nothing is wrong.
    fn quantize(
        &self,
        x: FloatSlice<'_>,
        out: IntSliceMut<'_>,
        scale: &mut [f64],
        zero_point: &mut [f64],
    ) -> Option<()> {
        let failed = AtomicBool::new(false);
        let (mut x, mut out) = (Some(x), Some(out));
        let params = scale
            .chunks_mut(self.count)
            .zip(zero_point.chunks_mut(self.count));
        let pieces = params.map(|(scale, zero_point)| {
            let len = scale.len() * self.size;
            let (x_piece, x_rest) = x.take()?.split_at(len);
            let (out_piece, out_rest) = out.take()?.split_at_mut(len);
            (x, out) = (Some(x_rest), Some(out_rest));
            Some((x_piece, out_piece, scale, zero_point))
        });
        type Piece<'a> = (
            FloatSlice<'a>,
            IntSliceMut<'a>,
            &'a mut [f64],
            &'a mut [f64],
        );
        let work = |(): &mut (), piece: Option<Piece<'_>>| {
            let done = piece.is_some_and(|(x, out, scale, zero_point)| {
                self.few(x, out, scale, zero_point).is_ok()
            });
            if !done {
                failed.store(true, Ordering::Relaxed);
            }
        };
        parallel::for_each(pieces, || (), work, |()| ());
        (!failed.into_inner()).then_some(())
    }

    /// Writes the codes, the scales and the zero points of a few rows.
    fn few(
        &self,
        x: FloatSlice<'_>,
        out: IntSliceMut<'_>,
        scale: &mut [f64],
        zero_point: &mut [f64],
    ) -> Result<()> {
        let x = HostFloats::new(x, Layout::row_major(&[scale.len(), self.size]))?;
        let ranges = Ranges::observe_host(&x, self.scheme.granularity)?;
        let params = QParams::from_ranges(&ranges, self.scheme, self.convention)?;
        scale.copy_from_slice(params.scale());
        for (group, zero_point) in zero_point.iter_mut().enumerate() {
            *zero_point = params.zero_point_of(group);
        }
        // NaN is no error here: there is none, or the ranges would have said so.
        host::quantize(&x, &params, out)
    }
}
