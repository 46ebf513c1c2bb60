//! The clipping threshold of least Kullback–Leibler divergence.

use chopi_kernels::memory::{NoMemory, repeated, with_room};

/// Whatever the squared error is, one in so many values may be clipped.
const VALUES_PER_CLIPPED: u64 = 10_000;

/// The threshold on |x| that loses the least information, by the method of TensorRT (Migacz, "8-bit
/// Inference with TensorRT", GTC 2017). `counts` are those of |x| in bins of equal width from zero
/// on, `levels` the number of magnitudes that codes have: 2^(b−1). `step` gives the scale that a
/// threshold leads to.
///
/// The first bin, which holds the zeros, counts as many values as the second: zero has a code whatever
/// the threshold is, and where a ReLU gives half of all values, they would outweigh the others. For each
/// i from `levels` to the number of bins, with the threshold t = (i + ½)·width, at most the largest |x|:
///
/// 1. P is the first i bins, the last of which also gets all that lies beyond, divided by the sum.
/// 2. Q is the first i bins without that, merged into `levels` runs, run l from bin ⌊l·i/levels⌋ to
///    bin ⌊(l+1)·i/levels⌋; the sum of each run is spread evenly over those of its bins that are
///    not empty in P; then Q is divided by its sum.
/// 3. D(i) = Σ P·ln(P/Q).
///
/// D does not see how far beyond the threshold values lie, and where those within crowd in few bins, it
/// is small though most are clipped. So t is a candidate only if at most one value in 10,000 lies
/// beyond the first i bins, or if clipping does not make the squared error larger. That is estimated as
/// Σ (k − i)²·width² over the values in bins k ≥ i, and step(t)²/12 for each of the others; without
/// clipping it is step(max |x|)²/12 for each value.
///
/// The threshold is t for the smallest D, the largest such i. Where there are no more bins than levels,
/// nothing is to be gained, and it is the largest |x|.
///
/// Sums over runs come from prefix sums, so that a candidate costs as much as there are levels.
pub(crate) fn threshold(
    mut counts: Vec<u64>,
    width: f64,
    levels: usize,
    abs_max: f64,
    step: impl Fn(f64) -> f64,
) -> Result<f64, NoMemory> {
    let bins = counts.len();
    if let [zeros, second, ..] = &mut counts[..] {
        *zeros = *second;
    }
    let sums = Sums::new(&counts)?;
    let clipped = clipped_errors(&counts)?;
    let threshold = |i: usize| match i < bins {
        true => ((i as f64 + 0.5) * width).min(abs_max),
        false => abs_max,
    };
    // The squared error of all values, in squares of the bins' width.
    let error = |i: usize| {
        let rounding = (step(threshold(i)) / width).powi(2) / 12.0;
        clipped[i] + sums.count[i] as f64 * rounding
    };
    let total = sums.count[bins];
    let mut least = (bins, f64::INFINITY);
    for i in levels..=bins {
        let beyond = total - sums.count[i];
        if beyond <= total / VALUES_PER_CLIPPED || error(i) <= error(bins) {
            let divergence = sums.divergence(i, levels);
            if divergence <= least.1 {
                least = (i, divergence);
            }
        }
    }
    Ok(threshold(least.0))
}

/// Σ (k − i)²·n over the bins k ≥ i, for each i up to the number of bins.
fn clipped_errors(counts: &[u64]) -> Result<Vec<f64>, NoMemory> {
    let (mut values, mut distances, mut squares) = (0.0, 0.0, 0.0);
    let mut errors = repeated(0.0, counts.len() + 1)?;
    for (i, &n) in counts.iter().enumerate().rev() {
        // One bin farther, (d + 1)² = d² + 2d + 1, for all that lay beyond.
        squares += 2.0 * distances + values;
        distances += values;
        values += n as f64;
        errors[i] = squares;
    }
    Ok(errors)
}

/// Sums over the bins before each bin.
struct Sums<'a> {
    counts: &'a [u64],
    /// Σ n.
    count: Vec<u64>,
    /// How many n are not 0.
    filled: Vec<u32>,
    /// Σ n·ln n.
    entropy: Vec<f64>,
}

impl<'a> Sums<'a> {
    fn new(counts: &'a [u64]) -> Result<Self, NoMemory> {
        let len = counts.len() + 1;
        let (mut count, mut filled, mut entropy) =
            (with_room(len)?, with_room(len)?, with_room(len)?);
        let mut sums = (0, 0, 0.0);
        for n in counts.iter().map(Some).chain([None]) {
            count.push(sums.0);
            filled.push(sums.1);
            entropy.push(sums.2);
            if let Some(&n) = n {
                sums = (sums.0 + n, sums.1 + u32::from(n > 0), sums.2 + n_ln_n(n));
            }
        }
        Ok(Self {
            counts,
            count,
            filled,
            entropy,
        })
    }

    /// D(i), infinite where Q is 0 and P is not.
    fn divergence(&self, i: usize, levels: usize) -> f64 {
        let total = self.count[self.counts.len()];
        let (inside, last) = (self.count[i], self.counts[i - 1]);
        let beyond = total - inside;
        if inside == 0 {
            return f64::INFINITY;
        }
        // Σ p·ln q over the runs, where p counts what lies beyond and q does not; both not yet
        // divided by their sums.
        let mut cross = 0.0;
        for level in 0..levels {
            let (start, end) = (level * i / levels, (level + 1) * i / levels);
            let n = self.count[end] - self.count[start];
            let mut filled = self.filled[end] - self.filled[start];
            let mut p = n;
            if end == i {
                p += beyond;
                filled += u32::from(last == 0 && beyond > 0);
            }
            if n > 0 {
                cross += p as f64 * (n as f64 / f64::from(filled)).ln();
            } else if p > 0 {
                return f64::INFINITY;
            }
        }
        let entropy = self.entropy[i - 1] + n_ln_n(last + beyond);
        let total = total as f64;
        (entropy - cross) / total - total.ln() + (inside as f64).ln()
    }
}

fn n_ln_n(n: u64) -> f64 {
    match n {
        0 => 0.0,
        n => n as f64 * (n as f64).ln(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// D(i) by the words above, bin by bin.
    fn naive(counts: &[u64], i: usize, levels: usize) -> f64 {
        let mut p: Vec<f64> = counts[..i].iter().map(|&n| n as f64).collect();
        p[i - 1] += counts[i..].iter().sum::<u64>() as f64;
        let mut q = vec![0.0; i];
        for level in 0..levels {
            let run = level * i / levels..(level + 1) * i / levels;
            let sum: u64 = counts[run.clone()].iter().sum();
            let filled = p[run.clone()].iter().filter(|&&p| p > 0.0).count();
            for bin in run {
                if p[bin] > 0.0 {
                    q[bin] = sum as f64 / filled as f64;
                }
            }
        }
        let (sum_p, sum_q) = (p.iter().sum::<f64>(), q.iter().sum::<f64>());
        let term = |(p, q): (&f64, &f64)| match *p {
            0.0 => 0.0,
            p => p / sum_p * ((p / sum_p) / (q / sum_q)).ln(),
        };
        p.iter().zip(&q).map(term).sum()
    }

    proptest! {
        #[test]
        fn prefix_sums_give_what_the_definition_says(
            counts in proptest::collection::vec(prop_oneof![2 => Just(0_u64), 3 => 1_u64..1000], 8..60),
            levels in 2_usize..8,
        ) {
            prop_assume!(counts.iter().any(|&n| n > 0));
            let sums = Sums::new(&counts).unwrap();
            for i in levels..=counts.len() {
                let (fast, slow) = (sums.divergence(i, levels), naive(&counts, i, levels));
                let same = !fast.is_finite() && !slow.is_finite();
                prop_assert!(same || (fast - slow).abs() < 1e-9, "{}: {} and {}", i, fast, slow);
            }
        }
    }

    /// The threshold where codes are `levels` magnitudes.
    fn threshold_of(counts: &[u64], levels: usize) -> f64 {
        let abs_max = counts.len() as f64;
        threshold(counts.to_vec(), 1.0, levels, abs_max, |t| t / levels as f64).unwrap()
    }

    #[test]
    fn what_quantizes_without_loss_is_not_clipped() {
        // Two bins a level with equal counts: Q = P.
        let counts: Vec<u64> = (0..256).map(|k| 10 + k / 2).collect();
        assert_eq!(threshold_of(&counts[..100], 128), 100.0);
        assert_eq!(threshold_of(&counts, 128), 256.0);
        assert_eq!(threshold_of(&[], 128), 0.0);
        assert_eq!(threshold_of(&[7], 128), 1.0);
    }

    #[test]
    fn zeros_have_no_say() {
        let counts: Vec<u64> = (0..2048).map(|k| 3000 - k).collect();
        let mut zeros = counts.clone();
        zeros[0] = 5_000_000;
        assert_eq!(threshold_of(&zeros, 128), threshold_of(&counts, 128));
    }

    #[test]
    fn only_what_few_values_or_a_smaller_error_pay_for_is_clipped() {
        // All values but one lie in the first eighth: more than 20,000 of them, then some 6,000.
        for (slope, clips) in [(6, true), (20, false)] {
            let mut counts: Vec<u64> = (0..500).map(|k| (500 - k) / slope).collect();
            counts.resize(3999, 0);
            counts.push(1);
            let threshold = threshold_of(&counts, 128);
            assert_eq!(threshold < 600.0, clips, "{slope}: {threshold}");
            // At 2 bits the finer step is worth more than the error of one value.
            let threshold = threshold_of(&counts, 2);
            assert!(threshold < 1000.0, "{slope}: {threshold}");
        }
    }

    #[test]
    fn clipped_errors_are_sums_of_squares() {
        let counts = [5, 0, 7, 1, 9];
        let naive = |i: usize| {
            let beyond = counts.iter().enumerate().skip(i);
            beyond
                .map(|(k, &n)| n as f64 * ((k - i) as f64).powi(2))
                .sum()
        };
        let expected: Vec<f64> = (0..=5).map(naive).collect();
        assert_eq!(clipped_errors(&counts), Ok(expected));
    }
}
