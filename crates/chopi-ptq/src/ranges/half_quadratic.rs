//! Half-quadratic quantization.

use chopi_core::backend::{Backend, FloatTensor};
use chopi_core::observer::Ranges;
use chopi_core::{Convention, Scheme};
use chopi_kernels::memory::{collected, repeated, with_room};

use super::block::Block;
use crate::error::Result;
use crate::matrix::Matrix;

/// The exponent of the norm of the errors.
const P: f64 = 0.7;
/// β of the first step, and how it grows.
const BETA: f64 = 10.0;
const KAPPA: f64 = 1.01;
const STEPS: usize = 20;

/// The range of each group of a weight, \[outputs, inputs\], by half-quadratic quantization (Badri and Shaji 2023),
/// which needs no data: it lessens Σ|w − ŵ|^0.7, in which few large errors count for little.
///
/// Asymmetric: with s = (max − min)/(qmax − qmin) and at first z = qmin − min/s, up to 20 steps of
///
/// ```text
/// q = clamp(RNE(w/s + z));   d = w/s − (q − z)
/// e = sign(d)·max(|d| − |d|^(p − 1)/β, 0)
/// z = mean(q − (w/s − e));   β ← 1.01·β, at first 10
/// ```
///
/// as long as Σ|d|^p falls. (The original takes d in the unit of the weights, in which what β means depends on the size
/// of the weights; here it is in steps.) Symmetric: z stays 0, and s = Σ q·(w − e·s) / Σ q² instead. What comes out is
/// a range, so that scale and zero point are what the convention makes of it: an integer zero point where it has
/// such. A group keeps the range from the smallest to the largest weight where Σ|w − ŵ|^p, with the convention's ŵ,
/// is not less in the new one.
///
/// # Errors
/// [`Error::Shape`](crate::Error::Shape) for a tensor of fewer than two axes; [`Error::Core`](crate::Error::Core) for NaN
/// and infinities, and for an axis that does not exist.
pub fn half_quadratic_ranges<B: Backend, T: FloatTensor<B> + ?Sized>(
    weights: &T,
    scheme: &Scheme,
    convention: &Convention,
) -> Result<Ranges> {
    let matrix = Matrix::of(weights)?;
    let granularity = convention.granularity_for(scheme.granularity, matrix.shape.len());
    let observed = Ranges::observe(weights, granularity)?;
    half_quadratic(&matrix, &observed, scheme, convention)
}

pub(super) fn half_quadratic(
    matrix: &Matrix,
    observed: &Ranges,
    scheme: &Scheme,
    convention: &Convention,
) -> Result<Ranges> {
    Block::ranges_of_all(matrix, observed, scheme, convention, |block| {
        let before: Vec<(f64, f64)> =
            collected(block.min.iter().copied().zip(block.max.iter().copied()))?;
        let mut after = with_room(before.len())?;
        let members = members(block)?;
        for (ends, weights) in before.iter().zip(&members) {
            after.push(solve(weights, *ends, block));
        }
        let cost = |w: f64, value: f64, _| (w - value).abs().powf(P);
        let (old, new) = (block.costs(&before, cost)?, block.costs(&after, cost)?);
        let Some((old, new)) = old.zip(new) else {
            return Ok(before);
        };
        let better = old.iter().zip(&new).map(|(old, new)| new < old);
        let chosen = before.iter().zip(&after).zip(better);
        Ok(chosen
            .map(|((before, after), better)| if better { *after } else { *before })
            .collect())
    })
}

/// The weights of each group.
fn members(block: &Block<'_>) -> Result<Vec<Vec<f64>>> {
    let mut members = repeated(Vec::new(), block.min.len())?;
    let inputs = block.groups.by_input.len();
    for (row, a) in block
        .weights
        .chunks_exact(inputs)
        .zip(&block.groups.by_output)
    {
        for (w, b) in row.iter().zip(&block.groups.by_input) {
            members[a + b].push(*w);
        }
    }
    Ok(members)
}

/// The range of one group.
fn solve(weights: &[f64], (min, max): (f64, f64), block: &Block<'_>) -> (f64, f64) {
    let (qmin, qmax) = (block.scheme.qmin as f64, block.scheme.qmax as f64);
    let symmetric = block.is_symmetric();
    let first = match symmetric {
        true => min.abs().max(max.abs()) / qmax,
        false => max / (qmax - qmin) - min / (qmax - qmin),
    };
    if !(first > f64::MIN_POSITIVE && min < max) {
        return (min, max);
    }
    let (mut s, mut z) = (first, if symmetric { 0.0 } else { qmin - min / first });
    let (mut best, mut least, mut beta) = ((s, z), f64::INFINITY, BETA);
    for _ in 0..STEPS {
        let (mut error, mut zeros, mut products, mut squares) = (0.0, 0.0, 0.0, 0.0);
        for w in weights {
            let x = w / s;
            let q = (x + z).round_ties_even().clamp(qmin, qmax);
            let d = x - (q - z);
            error += d.abs().powf(P);
            let e = shrunken(d, beta);
            zeros += q - (x - e);
            products += q * (x - e);
            squares += q * q;
        }
        // In the unit of the weights, so that errors of different steps compare.
        error *= s.powf(P);
        if error >= least {
            break;
        }
        (best, least) = ((s, z), error);
        match symmetric {
            false => z = zeros / weights.len() as f64,
            true if products > 0.0 && squares > 0.0 => s *= products / squares,
            true => break,
        }
        beta *= KAPPA;
    }
    let (s, z) = best;
    match symmetric {
        true => (min * (s / first), max * (s / first)),
        false => ((qmin - z) * s, (qmax - z) * s),
    }
}

/// sign(d)·max(|d| − |d|^(p − 1)/β, 0).
fn shrunken(d: f64, beta: f64) -> f64 {
    let size = d.abs();
    match size > 0.0 {
        true => (size - size.powf(P - 1.0) / beta).max(0.0).copysign(d),
        false => 0.0,
    }
}
