//! Where learned scales start.

use crate::backend::{Backend, FloatTensor, HostFloats};
use crate::convention::Convention;
use crate::device::DeviceTensor;
use crate::dtype::{Compute, Float};
use crate::error::Result;
use crate::layout::Layout;
use crate::match_float;
use crate::qparams::QParams;
use crate::ranges::Ranges;
use crate::scheme::Scheme;
use crate::slices;
use crate::training::straight_through::fake_quantize;

/// How many ranges [`least_squares`] tries.
const CANDIDATES: usize = 64;

/// The parameters with the smallest Σ(x − x̂)² in each group, among those of the observed range
/// shrunk to k/64 of it, k in 1..=64: towards 0 where it holds 0, else towards its middle. The
/// widest of equals.
///
/// # Errors
/// Those of [`Ranges::observe`] and [`QParams::from_ranges`].
pub fn least_squares<B: Backend, T: FloatTensor<B> + ?Sized>(
    x: &T,
    scheme: &Scheme,
    convention: &Convention,
) -> Result<QParams> {
    let granularity = convention.granularity_for(scheme.granularity, x.rank());
    let observed = Ranges::observe(x, granularity)?;
    on_host(x, |x, layout| {
        let mut best: Option<(QParams, Vec<f64>)> = None;
        for k in (1..=CANDIDATES).rev() {
            let ranges = shrunk(&observed, k as f64 / CANDIDATES as f64);
            let candidate = QParams::from_ranges(&ranges, scheme, convention)?;
            let errors = squared_errors(x, layout, &candidate)?;
            best = Some(match best {
                None => (candidate, errors),
                Some((params, least)) => better(params, least, &candidate, &errors)?,
            });
        }
        match best {
            Some((params, _)) => Ok(params),
            None => QParams::from_ranges(&observed, scheme, convention),
        }
    })
}

/// s = 2·mean|x|/√qmax of each group, as LSQ starts, and the zero point of the observed range with
/// its own scale. For zero means the observed scale.
///
/// # Errors
/// Those of [`Ranges::observe`] and [`QParams::from_ranges`].
pub fn mean_magnitude<B: Backend, T: FloatTensor<B> + ?Sized>(
    x: &T,
    scheme: &Scheme,
    convention: &Convention,
) -> Result<QParams> {
    let granularity = convention.granularity_for(scheme.granularity, x.rank());
    let observed = Ranges::observe(x, granularity)?;
    let params = QParams::from_ranges(&observed, scheme, convention)?;
    on_host(x, |x, layout| {
        let tiles = slices::tiles(&params, params.float_type(), layout)?;
        let mut sums = vec![(0.0, 0_usize); tiles.groups()];
        tiles.for_each_element(x.len(), |element, group| {
            sums[group].0 += x[element].abs();
            sums[group].1 += 1;
        });
        let sums = tiles.to_row_major(&sums);
        let root = (scheme.qmax.max(1) as f64).sqrt();
        let scales = sums.iter().zip(params.scale());
        let scales = scales.map(|(&(sum, count), &observed)| {
            let scale = 2.0 * (sum / count as f64) / root;
            if scale > 0.0 { scale } else { observed }
        });
        with_scales(&params, scales.collect(), params.zero_points().collect())
    })
}

/// Calls `f` with the elements in `f64` and their layout.
fn on_host<B: Backend, T: FloatTensor<B> + ?Sized, R>(
    x: &T,
    f: impl Fn(&[f64], &Layout) -> Result<R>,
) -> Result<R> {
    if let Some(x) = x.on_device() {
        return f(&x.to_host()?, &Layout::row_major(&x.shape()));
    }
    x.with_host(|HostFloats { data, layout }| {
        let wide: Vec<f64> = match_float!(FloatSlice, data, data => {
            data.iter().map(|x| x.widen().as_f64()).collect()
        });
        f(&wide, &layout)
    })
}

fn shrunk(ranges: &Ranges, part: f64) -> Ranges {
    let round = |x: f64| ranges.float_type().compute().round(x);
    let groups = ranges.min().iter().zip(ranges.max());
    let (min, max) = groups
        .map(|(&min, &max)| {
            if part == 1.0 {
                return (min, max);
            }
            let center = match min <= 0.0 && max >= 0.0 {
                true => 0.0,
                false => min / 2.0 + max / 2.0,
            };
            let end = |end: f64| round(center + (end - center) * part);
            (end(min), end(max))
        })
        .unzip();
    let shape = ranges.shape().to_vec();
    Ranges::new(ranges.granularity(), ranges.float_type(), shape, min, max)
}

/// Σ(x − x̂)² of each group, in row-major order.
fn squared_errors(x: &[f64], layout: &Layout, params: &QParams) -> Result<Vec<f64>> {
    let tiles = slices::tiles(params, params.float_type(), layout)?;
    let mut errors = vec![0.0; tiles.groups()];
    let values = match params.float_type().compute() {
        crate::FloatType::F64 => fake_quantize(x, layout, params)?,
        // The numbers are those of an f32, which narrowing gives back.
        _ => {
            let narrow: Vec<f32> = x.iter().map(|&x| x as f32).collect();
            let values = fake_quantize(&narrow, layout, params)?;
            values.into_iter().map(f64::from).collect()
        }
    };
    tiles.for_each_element(x.len(), |element, group| {
        let error = x[element] - values[element];
        errors[group] += error * error;
    });
    Ok(tiles.to_row_major(&errors).into_owned())
}

/// The parameters of each group from the one with the smaller error.
fn better(
    params: QParams,
    mut least: Vec<f64>,
    candidate: &QParams,
    errors: &[f64],
) -> Result<(QParams, Vec<f64>)> {
    let mut scale = params.scale().to_vec();
    let mut zero: Vec<f64> = params.zero_points().collect();
    let candidates = candidate.scale().iter().zip(candidate.zero_points());
    for (group, (&s, z)) in candidates.enumerate() {
        if errors[group] < least[group] {
            (scale[group], zero[group], least[group]) = (s, z, errors[group]);
        }
    }
    Ok((with_scales(&params, scale, zero)?, least))
}

fn with_scales(params: &QParams, scale: Vec<f64>, zero: Vec<f64>) -> Result<QParams> {
    let (scheme, shape) = (params.scheme().clone(), params.shape().to_vec());
    let (convention, float) = (*params.convention(), params.float_type());
    if params.has_real_zero_points() {
        QParams::with_real_zero_points(scheme, convention, float, shape, scale, zero)
    } else {
        let zero = zero.into_iter().map(|z| z as i64).collect();
        QParams::new(scheme, convention, float, shape, scale, zero)
    }
}
