//! Rotary positions.

use candle_core::{Device, Result, Tensor};
use candle_nn::rotary_emb::rope;

/// The rotation of queries and keys by their position p: the pair (x\[i\], x\[i + d/2\]) of a head of d
/// elements is rotated by the angle p·f\[i\], with f\[i\] = θ^(−2i/d), which scaling changes.
///
/// Computed in `f32` as transformers does, so that far positions have its angles.
#[derive(Clone, Debug)]
pub(crate) struct Rotary {
    frequencies: Vec<f32>,
}

/// How frequencies are changed for more positions than there were in training.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Scaling {
    None,
    /// f/factor.
    Linear {
        factor: f64,
    },
    /// f where its wavelength λ = 2π/f is below original/high, f/factor where it is above original/low,
    /// and between the two (1 − t)·f/factor + t·f with t = (original/λ − low)/(high − low).
    Llama3 {
        factor: f64,
        low: f64,
        high: f64,
        original: f64,
    },
}

impl Rotary {
    pub(crate) fn new(head: usize, theta: f64, scaling: Scaling) -> Self {
        let frequency = |i: usize| {
            let power = (2 * i) as f32 / head as f32;
            scaling.scaled(1.0 / (theta as f32).powf(power))
        };
        Self {
            frequencies: (0..head / 2).map(frequency).collect(),
        }
    }

    /// The cosines and the sines of the angles of these positions, both \[positions, d/2\].
    pub(crate) fn angles(&self, first: usize, count: usize) -> Result<(Tensor, Tensor)> {
        let angles_at = |position: usize| {
            let position = position as f32;
            self.frequencies.iter().map(move |f| position * f)
        };
        let angles: Vec<f32> = (first..first + count).flat_map(angles_at).collect();
        let shape = (count, self.frequencies.len());
        let of = |function: fn(f32) -> f32| {
            let values: Vec<f32> = angles.iter().copied().map(function).collect();
            Tensor::from_vec(values, shape, &Device::Cpu)
        };
        Ok((of(f32::cos)?, of(f32::sin)?))
    }
}

impl Scaling {
    fn scaled(self, frequency: f32) -> f32 {
        match self {
            Self::None => frequency,
            Self::Linear { factor } => frequency / factor as f32,
            Self::Llama3 {
                factor,
                low,
                high,
                original,
            } => {
                let turns = original as f32 * frequency / std::f32::consts::TAU;
                let (low, high, factor) = (low as f32, high as f32, factor as f32);
                if turns > high {
                    frequency
                } else if turns < low {
                    frequency / factor
                } else {
                    let smooth = (turns - low) / (high - low);
                    (1.0 - smooth) * frequency / factor + smooth * frequency
                }
            }
        }
    }
}

/// The heads of tokens, \[heads, tokens, d\], rotated.
pub(crate) fn rotated(x: &Tensor, (cos, sin): &(Tensor, Tensor)) -> Result<Tensor> {
    rope(&x.unsqueeze(0)?, cos, sin)?.squeeze(0)
}
