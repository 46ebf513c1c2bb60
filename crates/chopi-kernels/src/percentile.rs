//! The percentiles of a histogram.

use crate::histogram::{Bin, Histogram, edge};
use crate::memory::NoMemory;

impl Histogram {
    /// The p-th percentile of the values, 0 ≤ p ≤ 100, as NumPy's default method defines it: with n
    /// values in rising order, the one at position (n − 1)·p/100 from 0, interpolated between
    /// neighbours. NaN where there are no values.
    ///
    /// The values of a bin are taken to lie evenly in it, so the result is within one bin of the
    /// percentile of the values themselves.
    pub fn percentile(&self, p: f64) -> f64 {
        at(self.bins(), p, (self.min(), self.max()))
    }

    /// The [`percentile`](Self::percentile) of |x|.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for the counts of |x|.
    pub fn percentile_of_magnitudes(&self, p: f64) -> Result<f64, NoMemory> {
        let (counts, width) = self.magnitudes()?;
        let bins = counts.iter().enumerate().map(|(k, &count)| Bin {
            low: edge(k as i64, width),
            high: edge(k as i64 + 1, width),
            count,
        });
        let least = match self.min() <= 0.0 && self.max() >= 0.0 {
            true => 0.0,
            false => self.min().abs().min(self.max().abs()),
        };
        let bins = bins.filter(|bin| bin.count > 0);
        Ok(at(bins, p, (least, self.abs_max())))
    }
}

/// The percentile of the values of these bins, which lie within `bounds`.
fn at(bins: impl Iterator<Item = Bin> + Clone, p: f64, bounds: (f64, f64)) -> f64 {
    let count: u64 = bins.clone().map(|bin| bin.count).sum();
    if count == 0 {
        return f64::NAN;
    }
    let last = count - 1;
    let position = last as f64 * (p.clamp(0.0, 100.0) / 100.0);
    let below = (position.floor() as u64).min(last);
    let low = value(bins.clone(), below, last, bounds);
    let high = value(bins, (below + 1).min(last), last, bounds);
    let (span, fraction) = (high - low, position - below as f64);
    match span.is_finite() {
        true => low + span * fraction,
        false => low * (1.0 - fraction) + high * fraction,
    }
}

/// The value of this rank, from 0 on.
fn value(mut bins: impl Iterator<Item = Bin>, rank: u64, last: u64, (min, max): (f64, f64)) -> f64 {
    if rank == 0 {
        // The smallest magnitude is known only where all values have one sign.
        return bins.next().map_or(min, |bin| bin.low.max(min));
    }
    if rank == last {
        return max;
    }
    let mut before = 0;
    for bin in bins {
        if rank < before + bin.count {
            let fraction = ((rank - before) as f64 + 0.5) / bin.count as f64;
            return (bin.low + (bin.high - bin.low) * fraction).clamp(min, max);
        }
        before += bin.count;
    }
    max
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::slice::FloatSlice;

    /// NumPy's percentile with its default method.
    fn exact(values: &[f64], p: f64) -> f64 {
        let mut sorted = values.to_vec();
        sorted.sort_by(f64::total_cmp);
        let position = (sorted.len() - 1) as f64 * (p / 100.0);
        let below = position.floor() as usize;
        let above = (below + 1).min(sorted.len() - 1);
        sorted[below] + (sorted[above] - sorted[below]) * (position - below as f64)
    }

    proptest! {
        #[test]
        fn it_is_within_a_bin_of_the_exact_one(
            values in proptest::collection::vec(prop_oneof![-1.0..1.0, -9.0..50.0], 1..400),
            p in prop_oneof![0.0..=100.0, Just(0.0), Just(100.0), Just(99.99)],
        ) {
            let mut histogram = Histogram::new();
            assert_eq!(histogram.observe(FloatSlice::F64(&values)), Ok(true));
            let width = histogram.width();
            prop_assert!((histogram.percentile(p) - exact(&values, p)).abs() <= width);
            let magnitudes: Vec<f64> = values.iter().map(|x| x.abs()).collect();
            let expected = exact(&magnitudes, p);
            prop_assert!((histogram.percentile_of_magnitudes(p).unwrap() - expected).abs() <= width);
        }
    }

    #[test]
    fn the_ends_are_the_smallest_and_the_largest_value() {
        let mut histogram = Histogram::new();
        assert_eq!(
            histogram.observe(FloatSlice::F64(&[-3.25, 1.0, 7.125])),
            Ok(true)
        );
        assert_eq!(histogram.percentile(0.0), -3.25);
        assert_eq!(histogram.percentile(100.0), 7.125);
        assert_eq!(histogram.percentile_of_magnitudes(100.0), Ok(7.125));
        assert!(Histogram::new().percentile(50.0).is_nan());
    }
}
