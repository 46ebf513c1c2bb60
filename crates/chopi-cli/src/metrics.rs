//! How far quantized numbers are from the original ones.

use crate::element::FloatElement;

/// Sums over the elements x of a tensor and their quantized values x̂, in `f64`, in the order of the
/// elements: the same for any number of threads.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// A power of two that the numbers are multiplied by, exactly, before they are squared, so
    /// that the squares of very large and very small `f64` do not overflow or vanish.
    unit: f64,
    count: usize,
    signal: [f64; LANES],
    noise: [f64; LANES],
    max_error: [f64; LANES],
}

/// Independent sums, so that the processor need not wait for one addition to begin the next.
const LANES: usize = 8;
const BLOCK: usize = 512;

impl Metrics {
    /// `abs_max` is the largest |x|.
    pub fn new(abs_max: f64) -> Self {
        let exponent = match abs_max.log2() {
            exponent if exponent.is_finite() => exponent.floor().clamp(-1000.0, 1000.0),
            _ => 0.0,
        };
        Self {
            unit: (-exponent).exp2(),
            count: 0,
            signal: [0.0; LANES],
            noise: [0.0; LANES],
            max_error: [0.0; LANES],
        }
    }

    /// Adds elements and their quantized values.
    pub fn add<F: FloatElement>(&mut self, x: &[F], quantized: &[F]) {
        let (mut a, mut b) = ([0.0; BLOCK], [0.0; BLOCK]);
        for (x, y) in x.chunks(BLOCK).zip(quantized.chunks(BLOCK)) {
            F::widen_to_f64(x, &mut a[..x.len()]);
            F::widen_to_f64(y, &mut b[..x.len()]);
            for (y, x) in b.iter_mut().zip(&a[..x.len()]) {
                *y = (x - *y).abs();
            }
            self.add_errors(&a[..x.len()], &b[..x.len()]);
        }
    }

    /// Adds elements and their errors |x − x̂|.
    pub fn add_errors(&mut self, x: &[f64], errors: &[f64]) {
        self.count += x.len();
        let (x, x_rest) = x.as_chunks();
        let (errors, errors_rest) = errors.as_chunks();
        for (x, errors) in x.iter().zip(errors) {
            self.add_lanes(x, errors);
        }
        // Zeros add nothing.
        let (mut x, mut errors) = ([0.0; LANES], [0.0; LANES]);
        x[..x_rest.len()].copy_from_slice(x_rest);
        errors[..errors_rest.len()].copy_from_slice(errors_rest);
        self.add_lanes(&x, &errors);
    }

    #[inline(always)]
    fn add_lanes(&mut self, x: &[f64; LANES], errors: &[f64; LANES]) {
        for lane in 0..LANES {
            let (signal, noise) = (x[lane] * self.unit, errors[lane] * self.unit);
            self.signal[lane] += signal * signal;
            self.noise[lane] += noise * noise;
            if errors[lane] > self.max_error[lane] {
                self.max_error[lane] = errors[lane];
            }
        }
    }

    /// The signal-to-quantization-noise ratio in decibels, 10·log10(Σx² / Σ(x − x̂)²); infinite
    /// where every element comes back exactly.
    pub fn sqnr_db(&self) -> f64 {
        match self.noise.iter().sum() {
            0.0 => f64::INFINITY,
            noise => 10.0 * (self.signal.iter().sum::<f64>() / noise).log10(),
        }
    }

    /// The mean of (x − x̂)².
    pub fn mse(&self) -> f64 {
        self.noise.iter().sum::<f64>() / self.count as f64 / self.unit / self.unit
    }

    /// The largest |x − x̂|.
    pub fn max_abs_error(&self) -> f64 {
        self.max_error.iter().copied().fold(0.0, f64::max)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn metrics(x: &[f64], y: &[f64]) -> Metrics {
        let abs_max = x.iter().fold(0.0, |m: f64, x| m.max(x.abs()));
        let mut metrics = Metrics::new(abs_max);
        metrics.add(x, y);
        metrics
    }

    #[test]
    fn they_are_what_their_formulas_say() {
        let x: Vec<f64> = (0..1003).map(|i| f64::from(i).sin()).collect();
        let y: Vec<f64> = x.iter().map(|x| (x * 16.0).round() / 16.0).collect();
        let error = |(x, y): (&f64, &f64)| x - y;
        let noise: f64 = x.iter().zip(&y).map(error).map(|e| e * e).sum();
        let signal: f64 = x.iter().map(|x| x * x).sum();
        let m = metrics(&x, &y);
        assert!((m.sqnr_db() - 10.0 * (signal / noise).log10()).abs() < 1e-9);
        assert!((m.mse() - noise / 1003.0).abs() < 1e-15);
        let max = x.iter().zip(&y).map(error).fold(0.0, |m, e| e.abs().max(m));
        assert_eq!(m.max_abs_error(), max);
    }

    #[test]
    fn they_do_not_depend_on_the_magnitude() {
        let at = |scale: f64| metrics(&[scale, -3.0 * scale], &[scale, -2.5 * scale]).sqnr_db();
        for scale in [1e-300, 1e-200, 1e200, 1e300] {
            assert!((at(scale) - at(1.0)).abs() < 1e-9, "{scale}");
        }
    }

    #[test]
    fn exact_numbers_have_an_infinite_ratio() {
        assert_eq!(metrics(&[1.0, 2.0], &[1.0, 2.0]).sqnr_db(), f64::INFINITY);
        assert_eq!(metrics(&[0.0], &[0.0]).sqnr_db(), f64::INFINITY);
    }
}
