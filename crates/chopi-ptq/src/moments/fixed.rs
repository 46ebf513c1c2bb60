//! Sums of products in fixed point, exact but for one rounding of each product's factors.

use chopi_core::backend::{Compute, Float};
use chopi_kernels::memory::repeated;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use crate::error::Result;
use crate::parallel::{try_for_each, try_map};

/// The most rows of a piece: 2^11 products of 2^42 make at most 2^53, so that `f64` holds every partial sum.
pub(super) const ROWS: usize = 1 << 11;
/// A value is rounded to 2^(e − BITS), and is then at most 2^BITS such steps.
const BITS: i32 = 21;
/// The quantum of the sums is 2^−POINT.
pub(super) const POINT: i32 = 64;
/// Of smaller values than 2^LEAST no square reaches the quantum.
const LEAST: i32 = -POINT;
/// The rows of a piece that one task rounds.
const PART: usize = 64;
/// The rows of the triangle that one task works on.
const TASK: usize = 64;

/// Up to [`ROWS`] rows, their values rounded to integers of a step that each channel has of its own.
pub(super) struct Piece {
    /// Integers, rows × channels.
    values: Vec<f64>,
    /// The exponent of each channel: the least e ≥ [`LEAST`] with |x| < 2^e.
    exponents: Vec<i32>,
    /// The sums of the integers of each channel, and of their magnitudes.
    sums: Vec<f64>,
    magnitudes: Vec<f64>,
}

/// The largest |x| of each channel of some rows, or infinity where not all are finite.
pub(super) fn largest<F: Float>(rows: &[F], channels: usize) -> Result<Vec<f64>> {
    let parts = try_map(rows.chunks(PART * channels), |rows| {
        let mut largest = repeated(0.0_f64, channels)?;
        for row in rows.chunks_exact(channels) {
            for (largest, x) in largest.iter_mut().zip(row) {
                let x = x.widen().as_f64().abs();
                // Not `max`, which does not see NaN.
                *largest = if x <= *largest {
                    *largest
                } else {
                    x.min(f64::INFINITY)
                };
            }
        }
        Ok(largest)
    })?;
    merged(parts, channels, f64::max)
}

/// The numbers of each channel of all parts.
fn merged(
    parts: Vec<Vec<f64>>,
    channels: usize,
    merge: impl Fn(f64, f64) -> f64,
) -> Result<Vec<f64>> {
    let mut all = repeated(0.0, channels)?;
    for part in parts {
        for (a, b) in all.iter_mut().zip(part) {
            *a = merge(*a, b);
        }
    }
    Ok(all)
}

impl Piece {
    /// The integers RNE(x·2^(21 − e)) of rows of as many finite values as there are channels, whose largest
    /// magnitudes these are.
    pub fn new<F: Float>(rows: &[F], largest: &[f64]) -> Result<Self> {
        let channels = largest.len();
        let exponents: Vec<i32> = largest.iter().map(|&x| exponent(x)).collect();
        let factors: Vec<f64> = exponents.iter().map(|&e| power_of_two(BITS - e)).collect();
        let mut values = repeated(0.0, rows.len())?;
        let parts = rows
            .chunks(PART * channels)
            .zip(values.chunks_mut(PART * channels));
        let sums = try_map(parts, |(rows, values)| {
            let (mut sums, mut magnitudes) = (repeated(0.0, channels)?, repeated(0.0, channels)?);
            for (row, values) in rows
                .chunks_exact(channels)
                .zip(values.chunks_exact_mut(channels))
            {
                for (((value, x), factor), (sum, magnitude)) in (values.iter_mut().zip(row))
                    .zip(&factors)
                    .zip(sums.iter_mut().zip(&mut magnitudes))
                {
                    *value = rounded(x.widen().as_f64() * factor);
                    *sum += *value;
                    *magnitude += value.abs();
                }
            }
            Ok((sums, magnitudes))
        })?;
        let (sums, magnitudes) = sums.into_iter().unzip();
        let add = |a, b| a + b;
        Ok(Self {
            values,
            exponents,
            sums: merged(sums, channels, add)?,
            magnitudes: merged(magnitudes, channels, add)?,
        })
    }

    fn rows(&self) -> usize {
        self.values.len() / self.exponents.len()
    }

    /// Adds Σx and Σ|x| of each channel.
    pub fn add_sums(&self, sums: &mut [i128], magnitudes: &mut [i128]) {
        for (j, e) in self.exponents.iter().enumerate() {
            sums[j] += fixed(self.sums[j], e - BITS);
            magnitudes[j] += fixed(self.magnitudes[j], e - BITS);
        }
    }

    /// Adds Σx_i·x_j for each j ≤ i to the lower triangle, which is kept row by row.
    pub fn add_products(&self, triangle: &mut [i128]) -> Result<()> {
        let channels = self.exponents.len();
        let x = MatRef::from_row_major_slice(&self.values, self.rows(), channels);
        let mut tasks = Vec::new();
        let mut rest = triangle;
        for start in (0..channels).step_by(TASK) {
            let end = channels.min(start + TASK);
            let (rows, later) = rest.split_at_mut(offset(end) - offset(start));
            rest = later;
            tasks.push((start, end, rows));
        }
        // The longest rows first, so that no thread is left alone with them.
        try_for_each(tasks.into_iter().rev(), |(start, end, rows)| {
            let mut products = repeated(0.0, (end - start) * end)?;
            let dst = MatMut::from_row_major_slice_mut(&mut products, end - start, end);
            let lhs = x.subcols(start, end - start).transpose();
            matmul(dst, Accum::Replace, lhs, x.subcols(0, end), 1.0, Par::Seq);
            let mut first = 0;
            for (i, products) in (start..end).zip(products.chunks_exact(end)) {
                let row = &mut rows[first..=first + i];
                first += i + 1;
                let e = self.exponents[i] - 2 * BITS;
                for ((sum, product), of_j) in row.iter_mut().zip(products).zip(&self.exponents) {
                    *sum += fixed(*product, e + of_j);
                }
            }
            Ok(())
        })
    }
}

/// Where row i of a lower triangle begins that is kept row by row.
pub(super) fn offset(i: usize) -> usize {
    i * (i + 1) / 2
}

/// The least e ≥ [`LEAST`] with |x| < 2^e; |x| is finite.
fn exponent(x: f64) -> i32 {
    let biased = (x.abs().to_bits() >> 52) as i32;
    (biased - 1022).max(LEAST)
}

/// 2^e, for −1022 ≤ e ≤ 1023.
pub(super) fn power_of_two(e: i32) -> f64 {
    f64::from_bits(((1023 + e) as u64) << 52)
}

/// The nearest integer, the even one of two, of |x| ≤ 2^51.
fn rounded(x: f64) -> f64 {
    const MAGIC: f64 = 1.5 * (1_u64 << 52) as f64;
    (x + MAGIC) - MAGIC
}

/// The multiple of the quantum that is nearest to x·2^e, the even one of two, in quanta; x is an integer of
/// at most 2^53.
#[inline]
fn fixed(x: f64, e: i32) -> i128 {
    let (x, shift) = (x as i64, e + POINT);
    match shift {
        0.. => i128::from(x) << shift,
        -62..0 => {
            let (down, half) = (x >> -shift, 1_i64 << (-shift - 1));
            let rest = x - (down << -shift);
            (down + i64::from(rest > half || (rest == half && down & 1 == 1))).into()
        }
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_the_least_above_the_value() {
        for (x, e) in [
            (1.0, 1),
            (0.999, 0),
            (-2.0, 2),
            (0.5, 0),
            (0.0, LEAST),
            (1e-30, LEAST),
        ] {
            assert_eq!(exponent(x), e, "{x}");
        }
        assert_eq!(exponent(f64::MAX), 1024);
    }

    #[test]
    fn products_are_rounded_to_the_quantum_ties_to_even() {
        let quanta = |x: f64, e| fixed(x, e - POINT);
        assert_eq!(quanta(5.0, 3), 40);
        for (x, rounded) in [
            (5.0, 2),
            (6.0, 3),
            (7.0, 4),
            (-5.0, -2),
            (-7.0, -4),
            (1.0, 0),
            (3.0, 2),
        ] {
            assert_eq!(quanta(x, -1), rounded, "{x}/2");
        }
        assert_eq!(quanta((1_u64 << 53) as f64, -54), 0);
        assert_eq!(quanta(-((1_u64 << 53) as f64), -53), -1);
        assert_eq!(quanta((1_u64 << 53) as f64, -200), 0);
    }
}
