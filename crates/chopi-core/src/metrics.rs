//! How far quantized numbers are from the original ones: signal-to-quantization-noise ratio, mean squared
//! error, cosine, largest error, and the share of saturated values.
//!
//! [`quantization_metrics`] gives the [`Metrics`] of a tensor under parameters, [`compare`] those of two
//! tensors, each by group; [`Metrics`] itself sums over slices, and merges:
//!
//! ```
//! # use chopi_core as chopi;
//! use chopi::metrics::Metrics;
//!
//! let (x, quantized) = ([0.1_f32, -0.2, 0.3, 0.4], [0.1012_f32, -0.2, 0.2988, 0.4]);
//! let mut metrics = Metrics::new(0.4); // about the largest |x|
//! metrics.add(&x, &quantized);
//! assert!(metrics.sqnr_db() > 50.0);
//! assert!(metrics.max_abs_error() < 0.00121);
//! ```

use std::borrow::Cow;

use crate::backend::{Backend, Fill, FloatTensor, HostFloats};
use crate::error::{Error, Result};
use crate::groups::{Groups, on_host};
use crate::host::{self, ordered};
use crate::qparams::QParams;
use crate::scheme::Granularity;
use chopi_kernels::memory::{collected, with_room};
use chopi_kernels::{Compute, Float, FloatSliceMut, Layout, match_float};

/// Sums over elements x and their quantized values x̂, in `f64`, always in the order of the
/// elements.
///
/// They do not depend on the magnitude of the numbers: squares of very large and very small ones
/// neither overflow nor vanish.
#[derive(Clone, Debug)]
pub struct Metrics {
    /// A power of two that the numbers are multiplied by, exactly, before they are squared.
    unit: f64,
    count: u64,
    saturated: u64,
    /// Σx².
    signal: [f64; LANES],
    /// Σ(x − x̂)².
    noise: [f64; LANES],
    /// Σx̂².
    quantized: [f64; LANES],
    /// Σx·x̂.
    product: [f64; LANES],
    max_error: [f64; LANES],
}

/// Independent sums, so that the processor need not wait for one addition to begin the next.
const LANES: usize = 8;
const BLOCK: usize = 512;

impl Metrics {
    /// The metrics of no elements yet; `abs_max` is about the largest |x| to come.
    pub fn new(abs_max: f64) -> Self {
        let exponent = match abs_max.log2() {
            exponent if exponent.is_finite() => exponent.floor().clamp(-1000.0, 1000.0),
            _ => 0.0,
        };
        Self {
            unit: (-exponent).exp2(),
            count: 0,
            saturated: 0,
            signal: [0.0; LANES],
            noise: [0.0; LANES],
            quantized: [0.0; LANES],
            product: [0.0; LANES],
            max_error: [0.0; LANES],
        }
    }

    /// Adds elements and their quantized values, as many of each.
    pub fn add<F: Float>(&mut self, x: &[F], quantized: &[F]) {
        let (mut a, mut b, mut errors) = ([0.0; BLOCK], [0.0; BLOCK], [0.0; BLOCK]);
        for (x, y) in x.chunks(BLOCK).zip(quantized.chunks(BLOCK)) {
            let (a, b) = (&mut a[..x.len()], &mut b[..x.len()]);
            chopi_kernels::widen(F::slice(x), a);
            chopi_kernels::widen(F::slice(y), b);
            let errors = &mut errors[..x.len()];
            for ((error, x), y) in errors.iter_mut().zip(&*a).zip(&*b) {
                *error = (x - y).abs();
            }
            self.add_all(a, b, errors);
        }
    }

    /// Adds elements and their errors |x − x̂|, where these are not differences of `f64`. The cosine
    /// takes x̂ for x less the error.
    pub fn add_errors(&mut self, x: &[f64], errors: &[f64]) {
        let mut quantized = [0.0; BLOCK];
        for (x, errors) in x.chunks(BLOCK).zip(errors.chunks(BLOCK)) {
            let quantized = &mut quantized[..x.len()];
            for ((quantized, x), error) in quantized.iter_mut().zip(x).zip(errors) {
                *quantized = x - error;
            }
            self.add_all(x, quantized, errors);
        }
    }

    fn add_all(&mut self, x: &[f64], quantized: &[f64], errors: &[f64]) {
        self.count += x.len() as u64;
        let (x, x_rest) = x.as_chunks();
        let (y, y_rest) = quantized.as_chunks();
        let (errors, errors_rest) = errors.as_chunks();
        for ((x, y), errors) in x.iter().zip(y).zip(errors) {
            self.add_lanes(x, y, errors);
        }
        // Zeros add nothing.
        let padded = |rest: &[f64]| {
            let mut lanes = [0.0; LANES];
            lanes[..rest.len()].copy_from_slice(rest);
            lanes
        };
        self.add_lanes(&padded(x_rest), &padded(y_rest), &padded(errors_rest));
    }

    #[inline(always)]
    fn add_lanes(&mut self, x: &[f64; LANES], y: &[f64; LANES], errors: &[f64; LANES]) {
        for lane in 0..LANES {
            let (x, y) = (x[lane] * self.unit, y[lane] * self.unit);
            let noise = errors[lane] * self.unit;
            self.signal[lane] += x * x;
            self.quantized[lane] += y * y;
            self.product[lane] += x * y;
            self.noise[lane] += noise * noise;
            if errors[lane] > self.max_error[lane] {
                self.max_error[lane] = errors[lane];
            }
        }
    }

    /// Counts elements, added already, as saturated.
    pub fn add_saturated(&mut self, count: u64) {
        self.saturated = self.saturated.saturating_add(count);
    }

    /// The metrics of these elements and those of `other`.
    pub fn merge(&mut self, other: &Self) {
        // Powers of two: exact, but for sums that vanish beside the others.
        let unit = self.unit.min(other.unit);
        let (ours, theirs) = (unit / self.unit, unit / other.unit);
        let add = |a: &mut [f64; LANES], b: &[f64; LANES]| {
            for (a, b) in a.iter_mut().zip(b) {
                *a = *a * ours * ours + b * theirs * theirs;
            }
        };
        add(&mut self.signal, &other.signal);
        add(&mut self.noise, &other.noise);
        add(&mut self.quantized, &other.quantized);
        add(&mut self.product, &other.product);
        for (a, b) in self.max_error.iter_mut().zip(other.max_error) {
            *a = a.max(b);
        }
        self.unit = unit;
        self.count = self.count.saturating_add(other.count);
        self.saturated = self.saturated.saturating_add(other.saturated);
    }

    /// The number of elements.
    pub fn count(&self) -> u64 {
        self.count
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

    /// The cosine of the angle between x and x̂ as vectors, Σx·x̂ / √(Σx²·Σx̂²); 1 where both are
    /// zero, 0 where one is.
    pub fn cosine(&self) -> f64 {
        let sum = |lanes: &[f64; LANES]| lanes.iter().sum::<f64>();
        let (x, y) = (sum(&self.signal), sum(&self.quantized));
        match (x == 0.0, y == 0.0) {
            (true, true) => 1.0,
            (true, false) | (false, true) => 0.0,
            (false, false) => sum(&self.product) / (x.sqrt() * y.sqrt()),
        }
    }

    /// The largest |x − x̂|.
    pub fn max_abs_error(&self) -> f64 {
        self.max_error.iter().copied().fold(0.0, f64::max)
    }

    /// The share of elements that are saturated: more than half a step beyond the smallest or the
    /// largest value that a code has. Only [`quantization_metrics`] counts them.
    pub fn saturated_share(&self) -> f64 {
        self.saturated as f64 / self.count as f64
    }
}

/// The metrics of each group of a tensor x and another of the same shape and element type, x̂, in
/// the row-major order of the groups.
///
/// # Errors
/// [`Error::Empty`] where there are no elements; [`Error::Axis`] where there is no such axis;
/// [`Error::Compared`] where the shapes or the types differ.
pub fn compare<B, T, C, U>(x: &T, quantized: &U, granularity: Granularity) -> Result<Vec<Metrics>>
where
    B: Backend,
    T: FloatTensor<B> + ?Sized,
    C: Backend,
    U: FloatTensor<C> + ?Sized,
{
    on_host(x, |x| {
        on_host(quantized, |y| {
            let (left, right) = (x.layout().shape(), y.layout().shape());
            let (left_type, right_type) = (x.float_type(), y.float_type());
            if left != right || left_type != right_type {
                return Err(Error::Compared {
                    left: left.to_vec(),
                    left_type,
                    right: right.to_vec(),
                    right_type,
                });
            }
            match_float!(FloatSlice, x.data(), x_data => {
                let groups = Groups::new(x.layout(), granularity)?;
                let y = in_order_of(x.layout(), &y, x_data)?;
                of_groups(x_data, &y, &groups, |_, _| 0)
            })
        })
    })
}

/// The elements of a tensor in the memory order of another one of the same type.
fn in_order_of<'a, F: Float>(
    layout: &Layout,
    tensor: &HostFloats<'a>,
    _: &[F],
) -> Result<Cow<'a, [F]>> {
    match F::from_slice(tensor.data()) {
        Some(data) => Ok(tensor.layout().reordered(data, layout)?),
        None => Ok(Cow::Borrowed(&[])),
    }
}

/// The metrics of a tensor that is quantized with these parameters, for each of their groups in
/// row-major order. [`Metrics::merge`] sums them up.
///
/// # Errors
/// [`Error::Empty`] where there are no elements; [`Error::ParamsShape`] where the parameters are for
/// another shape.
pub fn quantization_metrics<B: Backend, T: FloatTensor<B> + ?Sized>(
    x: &T,
    params: &QParams,
) -> Result<Vec<Metrics>> {
    on_host(
        x,
        |x| match_float!(FloatSlice, x.data(), data => quantization_metrics_of(data, x.layout(), params)),
    )
}

fn quantization_metrics_of<F: Float>(
    x: &[F],
    layout: &Layout,
    params: &QParams,
) -> Result<Vec<Metrics>> {
    let granularity = params.granularity_for(F::TYPE, layout.shape())?;
    let (x, layout) = ordered(x, layout, params.scheme().rounding)?;
    let groups = Groups::new(&layout, granularity)?;
    let host = HostFloats::new(F::slice(&x), layout)?;
    let quantized = |out: FloatSliceMut<'_>| host::fake_quantize(&host, params, out);
    let quantized: Vec<F> = Fill::new(x.len(), quantized).into_floats()?;
    let (qmin, qmax) = (params.scheme().qmin as f64, params.scheme().qmax as f64);
    let ends = params.scale().iter().enumerate().map(|(group, s)| {
        let z = params.zero_point_of(group);
        ((qmin - z - 0.5) * s, (qmax - z + 0.5) * s)
    });
    let ends: Vec<(f64, f64)> = collected(ends)?;
    let saturated = |group: usize, x: &[F]| saturated(x, ends[group]);
    of_groups(&x, &quantized, &groups, saturated)
}

/// The metrics of each group; `saturated` counts those elements.
fn of_groups<F: Float>(
    x: &[F],
    quantized: &[F],
    groups: &Groups,
    saturated: impl Fn(usize, &[F]) -> u64,
) -> Result<Vec<Metrics>> {
    // One unit for all, so that they can be merged without rounding.
    let abs_max = |abs_max: f64, x: &F| abs_max.max(x.widen().as_f64().abs());
    let unit = x.iter().fold(0.0, abs_max);
    let (mut xs, mut ys) = (Vec::new(), Vec::new());
    let mut all = with_room(groups.len())?;
    for (group, runs) in groups.iter().enumerate() {
        let (x, y) = (runs.gather(x, &mut xs)?, runs.gather(quantized, &mut ys)?);
        let mut metrics = Metrics::new(unit);
        metrics.add(x, y);
        metrics.add_saturated(saturated(group, x));
        all.push(metrics);
    }
    Ok(all)
}

/// How many elements lie outside.
fn saturated<F: Float>(x: &[F], (low, high): (f64, f64)) -> u64 {
    let outside = |x: &F| {
        let x = x.widen().as_f64();
        u64::from(x < low || x > high)
    };
    x.iter().map(outside).sum()
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
        let quantized: f64 = y.iter().map(|y| y * y).sum();
        let product: f64 = x.iter().zip(&y).map(|(x, y)| x * y).sum();
        let m = metrics(&x, &y);
        assert_eq!(m.count(), 1003);
        assert!((m.sqnr_db() - 10.0 * (signal / noise).log10()).abs() < 1e-9);
        assert!((m.mse() - noise / 1003.0).abs() < 1e-15);
        assert!((m.cosine() - product / (signal * quantized).sqrt()).abs() < 1e-12);
        let max = x.iter().zip(&y).map(error).fold(0.0, |m, e| e.abs().max(m));
        assert_eq!(m.max_abs_error(), max);
    }

    #[test]
    fn they_do_not_depend_on_the_magnitude() {
        let at = |scale: f64| metrics(&[scale, -3.0 * scale], &[scale, -2.5 * scale]);
        for scale in [1e-300, 1e-200, 1e200, 1e300] {
            assert!(
                (at(scale).sqnr_db() - at(1.0).sqnr_db()).abs() < 1e-9,
                "{scale}"
            );
            assert!(
                (at(scale).cosine() - at(1.0).cosine()).abs() < 1e-12,
                "{scale}"
            );
        }
    }

    #[test]
    fn exact_numbers_have_an_infinite_ratio() {
        for x in [&[1.0, 2.0][..], &[0.0]] {
            assert_eq!(metrics(x, x).sqnr_db(), f64::INFINITY);
            assert!((metrics(x, x).cosine() - 1.0).abs() < 1e-15);
        }
        assert_eq!(metrics(&[0.0], &[1.0]).cosine(), 0.0);
    }

    #[test]
    fn merged_metrics_are_those_of_all_elements() {
        let x: Vec<f64> = (0..64).map(|i| f64::from(i).sin() * 10.0).collect();
        let y: Vec<f64> = x.iter().map(|x| x.round()).collect();
        let mut merged = metrics(&x[..16], &y[..16]);
        merged.merge(&metrics(&[1e-3], &[2e-3]));
        merged.merge(&metrics(&x[16..], &y[16..]));
        let (mut a, mut b) = (x, y);
        a.push(1e-3);
        b.push(2e-3);
        let whole = metrics(&a, &b);
        assert_eq!(merged.count(), 65);
        assert!((merged.sqnr_db() - whole.sqnr_db()).abs() < 1e-9);
        assert!((merged.mse() - whole.mse()).abs() < 1e-12);
        assert_eq!(merged.max_abs_error(), whole.max_abs_error());
    }
}
