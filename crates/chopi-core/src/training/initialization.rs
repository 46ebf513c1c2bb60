//! The initialization of learned scales.

use crate::backend::{Backend, FloatTensor};
use crate::convention::{Convention, ScaleZero};
use crate::error::Result;
use crate::groups::{Groups, on_host};
use crate::observer::Ranges;
use crate::qparams::QParams;
use crate::scheme::Scheme;
use chopi_kernels::match_float;
use chopi_kernels::memory::{collected, repeated, with_room};
use chopi_kernels::{Compute, Float};
use chopi_kernels::{Grid, squared_error};

/// How many ranges [`least_squares`] tries.
const CANDIDATES: usize = 64;

/// The parameters with the smallest Σ(x − x̂)² in each group, computed in `f64`, among those of the
/// observed range shrunk to k/64 of it, k in 1..=64: towards 0 where it holds 0, else towards its
/// middle. The widest of equals.
///
/// # Errors
/// The errors of [`Ranges::observe`] and [`QParams::from_ranges`].
pub fn least_squares<B: Backend, T: FloatTensor<B> + ?Sized>(
    x: &T,
    scheme: &Scheme,
    convention: &Convention,
) -> Result<QParams> {
    of_groups(x, scheme, convention, |x, range, params| {
        let once = repeated(1.0, x.len())?;
        let (mut best, mut least) = (params(range)?, f64::INFINITY);
        for k in (1..=CANDIDATES).rev() {
            // What the convention refuses is no candidate.
            let Ok(candidate) = params(shrunk(range, k as f64 / CANDIDATES as f64)) else {
                continue;
            };
            let grid = Grid {
                scale: candidate.scale,
                zero_point: candidate.zero_point,
                qmin: scheme.qmin as f64,
                qmax: scheme.qmax as f64,
            };
            let error = squared_error(x, &once, grid).total;
            if error < least {
                (best, least) = (candidate, error);
            }
        }
        Ok(best)
    })
}

/// s = 2·mean|x|/√qmax of each group, as LSQ starts, and the zero point of the observed range with
/// its own scale. For zero means the observed scale.
///
/// # Errors
/// The errors of [`Ranges::observe`] and [`QParams::from_ranges`].
pub fn mean_magnitude<B: Backend, T: FloatTensor<B> + ?Sized>(
    x: &T,
    scheme: &Scheme,
    convention: &Convention,
) -> Result<QParams> {
    let root = (scheme.qmax.max(1) as f64).sqrt();
    of_groups(x, scheme, convention, |x, range, params| {
        let observed = params(range)?;
        let mean = x.iter().map(|x| x.abs()).sum::<f64>() / x.len() as f64;
        Ok(match 2.0 * mean / root {
            scale if scale > 0.0 => ScaleZero { scale, ..observed },
            _ => observed,
        })
    })
}

/// The smallest and the largest value of a group.
type Range = (f64, f64);

/// The parameters that `initialize(elements, range, params)` gives for each group, where `params` are
/// those of a range by the formulas of the convention.
fn of_groups<B: Backend, T: FloatTensor<B> + ?Sized>(
    x: &T,
    scheme: &Scheme,
    convention: &Convention,
    initialize: impl Fn(&[f64], Range, &dyn Fn(Range) -> Result<ScaleZero>) -> Result<ScaleZero>,
) -> Result<QParams> {
    let granularity = convention.granularity_for(scheme.granularity, x.rank());
    let observed = Ranges::observe(x, granularity)?;
    let float = observed.float_type();
    // What the convention refuses is refused before the search.
    QParams::from_ranges(&observed, scheme, convention)?;
    let count = observed.min().len();
    let (mut scale, mut zero_point) = (with_room(count)?, with_room(count)?);
    on_host(x, |host| {
        let groups = Groups::new(host.layout(), granularity)?;
        let ranges = observed.min().iter().zip(observed.max());
        match_float!(FloatSlice, host.data(), data => {
            let mut buffer = Vec::new();
            for ((group, elements), (&min, &max)) in groups.iter().enumerate().zip(ranges) {
                let elements = elements.gather(data, &mut buffer)?.iter();
                let wide: Vec<f64> = collected(elements.map(|x| x.widen().as_f64()))?;
                let params = |range| convention.scale_and_zero_point(range, scheme, float, group);
                let initialized = initialize(&wide, (min, max), &|range: Range| {
                    let round = |end| float.compute().round(end);
                    params((round(range.0), round(range.1)))
                })?;
                scale.push(initialized.scale.max(float.compute().min_positive()));
                zero_point.push(initialized.zero_point);
            }
        });
        Ok(())
    })?;
    let shape = observed.shape().to_vec();
    let params = QParams::from_values(scheme, convention, float, shape, scale, zero_point)?;
    Ok(params.with_grouped_length(observed.grouped_length()))
}

fn shrunk((min, max): Range, part: f64) -> Range {
    if part == 1.0 {
        return (min, max);
    }
    let center = match min <= 0.0 && max >= 0.0 {
        true => 0.0,
        false => min / 2.0 + max / 2.0,
    };
    let end = |end: f64| center + (end - center) * part;
    (end(min), end(max))
}
