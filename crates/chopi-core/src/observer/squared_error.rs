//! The range of least mean squared error.

use crate::convention::Convention;
use crate::scheme::{Scheme, Symmetry};
use chopi_kernels::FloatType;
use chopi_kernels::Histogram;
use chopi_kernels::memory::{NoMemory, with_room};
use chopi_kernels::{Grid, SquaredError, squared_error};

/// Searches the range whose scale and zero point, by the formulas of the convention, give the least
/// Σ(x − x̂)² over the values of a histogram, each taken to lie in the middle of its bin.
///
/// Symmetric: [max(min, −a), min(max, a)] with a = max|x|·2^(−i/128), or the end that is closest to zero
/// where all values are of one sign and farther from it than a. Asymmetric: the ends are
/// m + (min − m)·2^(−i/128) and m + (max − m)·2^(−j/128), m the median. At first all i (and j) that
/// are multiples of 32 are tried, as long as what they clip is less than the least error so far;
/// from the best of them the search goes on to better neighbours, at half the distance whenever
/// there is none, down to 1.
pub(crate) fn range_of_least_error(
    histogram: &Histogram,
    scheme: &Scheme,
    convention: &Convention,
    float: FloatType,
) -> Result<(f64, f64), NoMemory> {
    let (min, max) = (histogram.min(), histogram.max());
    if min == max {
        return Ok((min, max));
    }
    let search = Search::new(histogram, scheme, convention, float)?;
    if scheme.symmetry == Symmetry::Symmetric {
        let abs_max = histogram.abs_max();
        let range = |[i, _]: [i32; 2]| {
            let a = abs_max * factor(i);
            (min.max(-a).min(max), max.min(a).max(min))
        };
        return Ok(range(search.best(range, 0)));
    }
    let median = histogram.percentile(50.0);
    // The end itself where nothing is clipped, without the rounding of the formula.
    let closer = |end: f64, i: i32| match i {
        0 => end,
        i => median + (end - median) * factor(i),
    };
    let range = |[i, j]: [i32; 2]| (closer(min, i), closer(max, j));
    Ok(range(search.best(range, LAST)))
}

/// How much an end comes closer.
fn factor(i: i32) -> f64 {
    (-f64::from(i) / 128.0).exp2()
}

/// The distance of the factors that are tried at first.
const COARSE: i32 = 32;
/// The last of them: 2^−12.
const LAST: i32 = 12 * 128;

struct Search<'a> {
    values: Vec<f64>,
    counts: Vec<f64>,
    scheme: &'a Scheme,
    convention: &'a Convention,
    float: FloatType,
}

impl<'a> Search<'a> {
    fn new(
        histogram: &Histogram,
        scheme: &'a Scheme,
        convention: &'a Convention,
        float: FloatType,
    ) -> Result<Self, NoMemory> {
        let (min, max) = (histogram.min(), histogram.max());
        let middle = |low: f64, high: f64| (low / 2.0 + high / 2.0).clamp(min, max);
        let bins = histogram.bins().count();
        let (mut values, mut counts) = (with_room(bins)?, with_room(bins)?);
        values.extend(histogram.bins().map(|b| middle(b.low, b.high)));
        counts.extend(histogram.bins().map(|b| b.count as f64));
        Ok(Self {
            values,
            counts,
            scheme,
            convention,
            float,
        })
    }

    /// The indices of the best range; the second one goes up to `last`.
    fn best(&self, range: impl Fn([i32; 2]) -> (f64, f64), last: i32) -> [i32; 2] {
        let (mut best, mut least) = ([0, 0], f64::INFINITY);
        let mut consider = |at: [i32; 2], best: &mut [i32; 2]| {
            let error = self.error(range(at));
            if error.total < least {
                (*best, least) = (at, error.total);
            }
            // More than the least error is clipped: a smaller range cannot be better.
            error.clipped > least
        };
        'low: for i in (0..=LAST).step_by(COARSE as usize) {
            for j in (0..=last).step_by(COARSE as usize) {
                match (consider([i, j], &mut best), j) {
                    (true, 0) => break 'low,
                    (true, _) => break,
                    (false, _) => {}
                }
            }
        }
        let mut distance = COARSE / 2;
        while distance > 0 {
            let center = best;
            for i in [-distance, 0, distance] {
                for j in [-distance, 0, distance] {
                    let at = [center[0] + i, center[1] + j];
                    if (i, j) != (0, 0) && at[0] >= 0 && (0..=last).contains(&at[1]) {
                        consider(at, &mut best);
                    }
                }
            }
            if best == center {
                distance /= 2;
            }
        }
        best
    }

    fn error(&self, range: (f64, f64)) -> SquaredError {
        let worst = SquaredError {
            total: f64::INFINITY,
            clipped: 0.0,
        };
        // What the convention refuses is no candidate.
        (self.convention)
            .scale_and_zero_point(range, self.scheme, self.float, 0)
            .map_or(worst, |params| {
                let grid = Grid {
                    scale: params.scale,
                    zero_point: params.zero_point,
                    qmin: self.scheme.qmin as f64,
                    qmax: self.scheme.qmax as f64,
                };
                squared_error(&self.values, &self.counts, grid)
            })
    }
}
