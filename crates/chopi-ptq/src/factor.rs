//! The factor of the inverse of H that GPTQ works with.

use faer::{Mat, MatRef};

use crate::cholesky;
use crate::error::{Error, Result};
use crate::method::{Gptq, Order};

/// The order of the input channels, and the upper triangle U with (H + λI)^−1 = UᵀU of the channels in that order.
#[derive(Debug)]
pub(crate) struct Factor {
    /// The channel that comes first, second, and so on.
    pub order: Vec<usize>,
    /// U with its rows and columns in reverse, a lower triangle.
    reversed: Mat<f64>,
    /// λ over the mean of the diagonal of H, of the channels that are not dead.
    pub damping: f64,
}

/// The damping is not raised beyond this share of the mean diagonal.
const MOST: f64 = 1e6;

impl Factor {
    /// Factors second moments of n channels; `second(i, j)` is H_ij.
    ///
    /// A channel whose H_jj is 0 is dead: nothing that a weight of it does is seen. Its row and column of H, which
    /// are 0, get the diagonal mean, so that its weights are rounded to the nearest code and neither
    /// give nor take an error.
    ///
    /// # Errors
    /// [`Error::NotFactored`] where the damping would have to be more than 10^6 of the mean diagonal.
    pub fn new(
        n: usize,
        second: impl Fn(usize, usize) -> f64 + Sync,
        settings: &Gptq,
    ) -> Result<Self> {
        settings.check()?;
        let diagonal: Vec<f64> = (0..n).map(|j| second(j, j)).collect();
        let mut order: Vec<usize> = (0..n).collect();
        if settings.order == Order::Activation {
            order.sort_by(|&a, &b| diagonal[b].total_cmp(&diagonal[a]));
        }
        let alive = diagonal.iter().filter(|&&h| h > 0.0).count();
        let mean = match alive {
            0 => 1.0,
            _ => diagonal.iter().sum::<f64>() / alive as f64,
        };
        let mut damping = settings.damping;
        loop {
            // In reverse, since the Cholesky factor of the reversed matrix, reversed again, is an upper one: R with
            // H = R·Rᵀ, and R^−1 = U.
            let channel = |i: usize| order[n - 1 - i];
            let mut matrix = cholesky::matrix(n, |i, j| match (channel(i), channel(j)) {
                _ if i < j => 0.0,
                (a, b) if a != b => second(a, b),
                (a, _) if diagonal[a] > 0.0 => diagonal[a] + damping * mean,
                _ => mean,
            })?;
            if cholesky::factor(matrix.as_mut())? {
                let reversed = cholesky::inverse(matrix.as_ref())?;
                return Ok(Self {
                    order,
                    reversed,
                    damping,
                });
            }
            damping = if damping == 0.0 { 1e-6 } else { damping * 10.0 };
            if damping > MOST {
                return Err(Error::NotFactored { damping });
            }
        }
    }

    /// U, by positions in the order.
    pub fn upper(&self) -> MatRef<'_, f64> {
        self.reversed.as_ref().reverse_rows_and_cols()
    }
}
