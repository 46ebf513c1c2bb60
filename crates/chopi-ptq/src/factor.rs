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
    diagonal: Diagonal,
    /// λ over the mean of the diagonal of H, of the channels that are not dead.
    pub damping: f64,
}

/// The diagonal of H.
#[derive(Debug)]
struct Diagonal {
    values: Vec<f64>,
    /// Its mean, of the channels that are not dead.
    mean: f64,
}

impl Diagonal {
    /// The entry of H + λI of two channels, `second` being H's.
    fn damped(
        &self,
        second: impl Fn(usize, usize) -> f64,
        (i, j): (usize, usize),
        damping: f64,
    ) -> f64 {
        match self.values[i] > 0.0 {
            _ if i != j => second(i, j),
            true => self.values[i] + damping * self.mean,
            false => self.mean,
        }
    }
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
        let values: Vec<f64> = (0..n).map(|j| second(j, j)).collect();
        let mut order: Vec<usize> = (0..n).collect();
        if settings.order == Order::Activation {
            order.sort_by(|&a, &b| values[b].total_cmp(&values[a]));
        }
        let alive = values.iter().filter(|&&h| h > 0.0).count();
        let mean = match alive {
            0 => 1.0,
            _ => values.iter().sum::<f64>() / alive as f64,
        };
        let diagonal = Diagonal { values, mean };
        let mut damping = settings.damping;
        loop {
            // In reverse, since the Cholesky factor of the reversed matrix, reversed again, is an upper one: R with
            // H = R·Rᵀ, and R^−1 = U.
            let channel = |i: usize| order[n - 1 - i];
            let mut matrix = cholesky::matrix(n, |i, j| match i < j {
                true => 0.0,
                false => diagonal.damped(&second, (channel(i), channel(j)), damping),
            })?;
            if cholesky::factor(matrix.as_mut())? {
                let reversed = cholesky::inverse(matrix.as_ref())?;
                return Ok(Self {
                    order,
                    reversed,
                    diagonal,
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

    /// H + λI, of which U is the factor of the inverse, by positions in the order; `second(i, j)` is H_ij.
    pub fn damped(&self, second: impl Fn(usize, usize) -> f64 + Sync) -> Result<Mat<f64>> {
        cholesky::matrix(self.order.len(), |i, j| {
            let channels = (self.order[i], self.order[j]);
            self.diagonal.damped(&second, channels, self.damping)
        })
    }
}
