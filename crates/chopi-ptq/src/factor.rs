//! The factor of the inverse of H that GPTQ works with.

use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::triangular_inverse::invert_lower_triangular;
use faer::{Mat, Par};

use crate::error::{Error, Result};
use crate::method::{Gptq, Order};

/// The order of the input channels, and the upper triangle U with (H + λI)^−1 = UᵀU of the channels in that order.
#[derive(Debug)]
pub(crate) struct Factor {
    /// The channel that comes first, second, and so on.
    pub order: Vec<usize>,
    /// U, by positions in the order.
    pub upper: Mat<f64>,
    /// λ over the mean of the diagonal of H, of the channels that are not dead.
    pub damping: f64,
}

/// The damping is not raised beyond this share of the mean diagonal.
const MOST: f64 = 1e6;

impl Factor {
    /// Factors second moments.
    ///
    /// A channel whose H_jj is 0 is dead: nothing that a weight of it does is seen. Its row and column of H, which
    /// are 0, get the diagonal mean, so that its weights are rounded to the nearest code and neither
    /// give nor take an error.
    ///
    /// # Errors
    /// [`Error::NotFactored`] where the damping would have to be more than 10^6 of the mean diagonal.
    pub fn new(second: &Mat<f64>, settings: &Gptq) -> Result<Self> {
        settings.check()?;
        let n = second.nrows();
        let mut order: Vec<usize> = (0..n).collect();
        if settings.order == Order::Activation {
            order.sort_by(|&a, &b| second[(b, b)].total_cmp(&second[(a, a)]));
        }
        let diagonal = (0..n).map(|j| second[(j, j)]);
        let alive = diagonal.clone().filter(|&h| h > 0.0).count();
        let mean = match alive {
            0 => 1.0,
            _ => diagonal.sum::<f64>() / alive as f64,
        };
        let mut damping = settings.damping;
        loop {
            // In reverse, since the Cholesky factor of the reversed matrix, reversed again, is an upper one.
            let channel = |i: usize| order[n - 1 - i];
            let mut matrix = Mat::from_fn(n, n, |i, j| {
                let (a, b) = (channel(i), channel(j));
                match a == b {
                    true if second[(a, a)] > 0.0 => second[(a, a)] + damping * mean,
                    true => mean,
                    false => second[(a, b)],
                }
            });
            if factor_in_place(&mut matrix) {
                let mut inverse = Mat::zeros(n, n);
                invert_lower_triangular(inverse.as_mut(), matrix.as_ref(), Par::Seq);
                let upper = inverse.reverse_rows_and_cols().to_owned();
                return Ok(Self {
                    order,
                    upper,
                    damping,
                });
            }
            damping = if damping == 0.0 { 1e-6 } else { damping * 10.0 };
            if damping > MOST {
                return Err(Error::NotFactored { damping });
            }
        }
    }
}

/// Puts L with A = LLᵀ in the place of the lower triangle of A, if A is positive definite.
fn factor_in_place(matrix: &mut Mat<f64>) -> bool {
    let n = matrix.nrows();
    let scratch = cholesky_in_place_scratch::<f64>(n, Par::Seq, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    cholesky_in_place(
        matrix.as_mut(),
        Default::default(),
        Par::Seq,
        stack,
        Default::default(),
    )
    .is_ok()
}
