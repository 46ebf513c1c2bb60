//! Σ n·(x − x̂)² over values that occur n times.

use crate::isa::{Loop, dispatch};
use crate::vector::Arch;

/// A scale and a zero point with the integer range.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Grid {
    /// s.
    pub scale: f64,
    /// z.
    pub zero_point: f64,
    /// The smallest code.
    pub qmin: f64,
    /// The largest code.
    pub qmax: f64,
}

/// The error of quantizing, and the part of it that comes from clipping.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SquaredError {
    /// Of all values.
    pub total: f64,
    /// Of the values whose code was clamped.
    pub clipped: f64,
}

/// Independent sums, so that they may be kept in vectors; the order of additions is the same on
/// every CPU.
const LANES: usize = 8;

/// The error, in `f64`, of values that occur `counts` times; what one of the two has more than the other
/// is passed over.
pub fn squared_error(values: &[f64], counts: &[f64], grid: Grid) -> SquaredError {
    let n = values.len().min(counts.len());
    dispatch(SumOfSquares {
        values: &values[..n],
        counts: &counts[..n],
        grid,
    })
}

struct SumOfSquares<'a> {
    values: &'a [f64],
    counts: &'a [f64],
    grid: Grid,
}

impl Loop for SumOfSquares<'_> {
    type Output = SquaredError;
    const IS_PLAIN: bool = true;

    #[inline(always)]
    fn run<A: Arch>(self, _: A) -> SquaredError {
        let grid = self.grid;
        let (low, high) = (grid.qmin - grid.zero_point, grid.qmax - grid.zero_point);
        let inverse = 1.0 / grid.scale;
        let mut total = [0.0; LANES];
        let mut clipped = [0.0; LANES];
        let mut add = |x: &[f64; LANES], n: &[f64; LANES]| {
            for lane in 0..LANES {
                // With an integral zero point, rounding x/s + z and subtracting z again.
                let v = (x[lane] * inverse + grid.zero_point).round_ties_even() - grid.zero_point;
                let inside = v.max(low).min(high);
                let error = x[lane] - inside * grid.scale;
                let error = n[lane] * (error * error);
                total[lane] += error;
                clipped[lane] += if v == inside { 0.0 } else { error };
            }
        };
        let (values, values_rest) = self.values.as_chunks::<LANES>();
        let (counts, counts_rest) = self.counts.as_chunks::<LANES>();
        for (x, n) in values.iter().zip(counts) {
            add(x, n);
        }
        // Values that do not occur add nothing.
        let (mut x, mut n) = ([0.0; LANES], [0.0; LANES]);
        x[..values_rest.len()].copy_from_slice(values_rest);
        n[..counts_rest.len()].copy_from_slice(counts_rest);
        add(&x, &n);
        SquaredError {
            total: total.iter().sum(),
            clipped: clipped.iter().sum(),
        }
    }
}
