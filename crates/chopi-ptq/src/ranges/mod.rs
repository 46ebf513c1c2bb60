//! Ranges that are chosen by what the codes in them cost.

mod block;
mod half_quadratic;
mod weighted;

use chopi_core::backend::{Backend, FloatTensor};
use chopi_core::observer::Ranges;
use chopi_core::{Convention, Scheme};

use half_quadratic::half_quadratic;
use weighted::weighted;

pub use half_quadratic::half_quadratic_ranges;
pub use weighted::weighted_ranges;

use crate::error::Result;
use crate::matrix::Matrix;
use crate::method::RangeMethod;

/// The ranges of the groups of a weight, which is `matrix` too, by a method; `importance` is that of its input channels.
pub(crate) fn ranges_of<B: Backend, T: FloatTensor<B> + ?Sized>(
    method: RangeMethod,
    weights: &T,
    matrix: &Matrix,
    importance: &[f64],
    (scheme, convention): (&Scheme, &Convention),
) -> Result<Ranges> {
    if let RangeMethod::Calibration(calibration) = method {
        return Ok(calibration.observe(weights, scheme, convention)?);
    }
    let granularity = convention.granularity_for(scheme.granularity, matrix.shape.len());
    let observed = Ranges::observe(weights, granularity)?;
    match method {
        RangeMethod::Weighted => weighted(matrix, &observed, importance, scheme, convention),
        _ => half_quadratic(matrix, &observed, scheme, convention),
    }
}
