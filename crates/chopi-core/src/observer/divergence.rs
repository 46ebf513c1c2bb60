//! The clipping threshold of least Kullback–Leibler divergence.

/// The threshold on |x| that loses the least information, by the method of TensorRT (Migacz, "8-bit
/// Inference with TensorRT", GTC 2017). `counts` are those of |x| in bins of equal width from zero
/// on, `levels` the number of magnitudes that codes have: 2^(b−1).
///
/// For each i from `levels` to the number of bins:
///
/// 1. P is the first i bins, the last of which also gets all that lies beyond, divided by the sum.
/// 2. Q is the first i bins without that, merged into `levels` runs, run l from bin ⌊l·i/levels⌋ to
///    bin ⌊(l+1)·i/levels⌋; the sum of each run is spread evenly over those of its bins that are
///    not empty in P; then Q is divided by its sum.
/// 3. D(i) = Σ P·ln(P/Q).
///
/// The threshold is (i + ½)·width for the smallest D, the largest such i, and at most the largest
/// |x|. Where there are no more bins than levels, nothing is to be gained, and it is the largest |x|.
///
/// Sums over runs come from prefix sums, so that a candidate costs as much as there are levels.
pub(crate) fn threshold(counts: &[u64], width: f64, levels: usize, abs_max: f64) -> f64 {
    let bins = counts.len();
    let Some(least) = Sums::new(counts).least(levels).filter(|&i| i < bins) else {
        return abs_max;
    };
    ((least as f64 + 0.5) * width).min(abs_max)
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
    fn new(counts: &'a [u64]) -> Self {
        let (mut count, mut filled, mut entropy) = (vec![0], vec![0], vec![0.0]);
        for &n in counts {
            count.push(count[count.len() - 1] + n);
            filled.push(filled[filled.len() - 1] + u32::from(n > 0));
            entropy.push(entropy[entropy.len() - 1] + n_ln_n(n));
        }
        Self {
            counts,
            count,
            filled,
            entropy,
        }
    }

    /// The number of bins of the least divergence.
    fn least(&self, levels: usize) -> Option<usize> {
        let mut least = None;
        for i in levels..=self.counts.len() {
            let divergence = self.divergence(i, levels);
            if least.is_none_or(|(_, d)| divergence <= d) && divergence.is_finite() {
                least = Some((i, divergence));
            }
        }
        least.map(|(i, _)| i)
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
            let sums = Sums::new(&counts);
            for i in levels..=counts.len() {
                let (fast, slow) = (sums.divergence(i, levels), naive(&counts, i, levels));
                let same = !fast.is_finite() && !slow.is_finite();
                prop_assert!(same || (fast - slow).abs() < 1e-9, "{}: {} and {}", i, fast, slow);
            }
        }
    }

    #[test]
    fn what_quantizes_without_loss_is_not_clipped() {
        // Two bins a level with equal counts: Q = P.
        let counts: Vec<u64> = (0..256).map(|k| 10 + k / 2).collect();
        assert_eq!(threshold(&counts, 1.0, 128, 256.0), 256.0);
        assert_eq!(threshold(&counts[..100], 1.0, 128, 100.0), 100.0);
        assert_eq!(threshold(&[], 0.0, 128, 0.0), 0.0);
    }
}
