//! The ranges of least squared error, each input channel weighted by its importance.

use chopi_core::backend::{Backend, FloatTensor};
use chopi_core::observer::Ranges;
use chopi_core::{Convention, Scheme};
use chopi_kernels::memory::{collected, repeated};

use super::block::Block;
use crate::error::{Error, Result};
use crate::matrix::Matrix;

/// The distance of the ranges that are tried at first.
const COARSE: i32 = 4;
/// The last of them, a quarter of the range from the smallest to the largest weight.
const LAST: i32 = 48;

/// The range of each group of a weight, \[outputs, inputs\], with the least Σ h_j·(w_j − ŵ_j)² of those that are
/// tried, ŵ by the formulas of the convention and h_j the importance of the input channel of the weight: E\[x_j²\],
/// [`Moments::mean_square`](crate::Moments::mean_square), as the error of a layer's output has it where channels are
/// uncorrelated.
///
/// The range from the smallest to the largest weight is tried, so that no group has a larger error than in it.
/// Others are, for i and j from 0 on:
///
/// - symmetric: \[max(min, −a), min(max, a)\] with a = max|w|·(1 − i/64);
/// - asymmetric: \[min + i·(max − min)/128, max − j·(max − min)/128\].
///
/// At first i = j = 0, 4, 8, … 48; then from the best of them steps of 4 (for asymmetric schemes), 2 and 1 along
/// each index, one after the other, as long as they are better.
///
/// # Errors
/// [`Error::Shape`] for a tensor of fewer than two axes; [`Error::Count`] and [`Error::Number`] where the importance is
/// not a finite number, at least 0, for each input channel; [`Error::Core`] for NaN and infinities, and for an axis that
/// does not exist.
pub fn weighted_ranges<B: Backend, T: FloatTensor<B> + ?Sized>(
    weights: &T,
    importance: &[f64],
    scheme: &Scheme,
    convention: &Convention,
) -> Result<Ranges> {
    let matrix = Matrix::of(weights)?;
    let granularity = convention.granularity_for(scheme.granularity, matrix.shape.len());
    let observed = Ranges::observe(weights, granularity)?;
    weighted(&matrix, &observed, importance, scheme, convention)
}

pub(super) fn weighted(
    matrix: &Matrix,
    observed: &Ranges,
    importance: &[f64],
    scheme: &Scheme,
    convention: &Convention,
) -> Result<Ranges> {
    if importance.len() != matrix.inputs() {
        return Err(Error::Count {
            what: "importances",
            count: importance.len(),
            channels: matrix.inputs(),
        });
    }
    if let Some(channel) = importance
        .iter()
        .position(|h| !(*h >= 0.0 && h.is_finite()))
    {
        return Err(Error::Number {
            what: "the importance",
            channel,
            value: importance[channel],
            expected: "a finite number, at least 0",
        });
    }
    Block::ranges_of_all(matrix, observed, scheme, convention, |block| {
        Search::new(block, importance)?.run()
    })
}

/// The search of the groups of a block, all at once.
struct Search<'a> {
    block: &'a Block<'a>,
    importance: &'a [f64],
    /// The indices of the best range of each group, and its error.
    best: Vec<[i32; 2]>,
    least: Vec<f64>,
}

impl<'a> Search<'a> {
    fn new(block: &'a Block<'a>, importance: &'a [f64]) -> Result<Self> {
        Ok(Self {
            block,
            importance,
            best: repeated([0, 0], block.min.len())?,
            least: repeated(f64::INFINITY, block.min.len())?,
        })
    }

    fn run(mut self) -> Result<Vec<(f64, f64)>> {
        for i in (0..=LAST).step_by(COARSE as usize) {
            self.consider(|_| [i, i])?;
        }
        let (both, ends): (_, &[[i32; 2]]) =
            ([[1, 1], [-1, -1]], &[[1, 0], [-1, 0], [0, 1], [0, -1]]);
        let (steps, directions) = match self.block.is_symmetric() {
            true => (&[2, 1][..], &both[..]),
            false => (&[4, 2, 1][..], ends),
        };
        for step in steps {
            for [i, j] in directions {
                self.consider(|best| [(best[0] + i * step).max(0), (best[1] + j * step).max(0)])?;
            }
        }
        let ends = self
            .best
            .iter()
            .enumerate()
            .map(|(group, at)| self.ends(group, *at));
        Ok(collected(ends)?)
    }

    /// Tries the range of each group that `next` makes of the best one so far.
    fn consider(&mut self, next: impl Fn([i32; 2]) -> [i32; 2]) -> Result<()> {
        let at: Vec<[i32; 2]> = collected(self.best.iter().map(|best| next(*best)))?;
        let ends = collected(
            at.iter()
                .enumerate()
                .map(|(group, at)| self.ends(group, *at)),
        )?;
        let costs = self.block.costs(&ends, |w, value, j| {
            let d = w - value;
            self.importance[j] * (d * d)
        })?;
        for (group, cost) in costs.into_iter().flatten().enumerate() {
            if cost < self.least[group] {
                (self.least[group], self.best[group]) = (cost, at[group]);
            }
        }
        Ok(())
    }

    fn ends(&self, group: usize, at: [i32; 2]) -> (f64, f64) {
        let (min, max) = (self.block.min[group], self.block.max[group]);
        let [i, j] = at.map(f64::from);
        if at == [0, 0] {
            return (min, max);
        }
        if self.block.is_symmetric() {
            let a = min.abs().max(max.abs()) * (1.0 - i / 64.0);
            return (min.max(-a).min(max), max.min(a).max(min));
        }
        // Halves, since the difference may be too large for a number.
        let span = max / 2.0 - min / 2.0;
        (min + i / 64.0 * span, max - j / 64.0 * span)
    }
}
