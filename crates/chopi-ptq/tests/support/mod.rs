//! What the tests share: matrices like those of real layers, and definitions that are read naively.

#![allow(dead_code)]

use chopi_core::{Builder, Chopi, Scheme};
use ndarray::{Array1, Array2, Axis};

/// Uniform numbers in −1..1, by a linear congruential generator.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub fn uniform(&mut self) -> f64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1_u64 << 52) as f64 - 1.0
    }

    /// About normal, of variance 1.
    pub fn normal(&mut self) -> f64 {
        (0..6).map(|_| self.uniform()).sum::<f64>() / 2.0_f64.sqrt()
    }
}

/// Inputs with correlated channels of different sizes, a few of them large, as those of transformers are.
pub fn inputs(rows: usize, channels: usize, seed: u64) -> Array2<f32> {
    let mut random = Random::new(seed);
    let hidden = Array2::from_shape_fn((rows, 8), |_| random.normal());
    let mixing = Array2::from_shape_fn((8, channels), |_| random.normal());
    let sizes = Array1::from_shape_fn(channels, |j| match j % 29 {
        3 => 12.0,
        _ => 0.3 + random.uniform().abs(),
    });
    let noise = Array2::from_shape_fn((rows, channels), |_| random.normal());
    ((hidden.dot(&mixing) + noise * 1.5) * &sizes.insert_axis(Axis(0))).mapv(|x| x as f32)
}

/// Weights of about normal distribution.
pub fn weights(outputs: usize, inputs: usize, seed: u64) -> Array2<f32> {
    let mut random = Random::new(seed);
    Array2::from_shape_fn((outputs, inputs), |_| (random.normal() * 0.04) as f32)
}

pub fn scheme(builder: Builder) -> Scheme {
    builder.scheme().unwrap()
}

/// 4 bits, symmetric, in groups of 32.
pub fn grouped() -> Scheme {
    scheme(
        Chopi::builder()
            .num_bits(4)
            .symmetric(true)
            .per_group(32, 1),
    )
}

/// Tr(D·H·Dᵀ), term by term.
pub fn trace(d: &Array2<f64>, h: &Array2<f64>) -> f64 {
    (d.dot(h) * d).sum()
}

pub fn second(moments: &chopi_ptq::Moments) -> Array2<f64> {
    let h = moments.second();
    Array2::from_shape_fn((h.nrows(), h.ncols()), |(i, j)| h[(i, j)])
}
