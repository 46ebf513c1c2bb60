//! Training of single numbers, as the definitions of learned scales and of Adam say it, in `f32`.

use chopi_core::Scheme;
use chopi_core::training::AdamConfig;

use super::Trainee;
use crate::oracle;

/// A number that Adam trains.
#[derive(Clone, Copy, Debug, Default)]
pub struct Variable {
    pub value: f32,
    mean: f32,
    square: f32,
}

impl Variable {
    pub fn new(value: f64) -> Self {
        Self {
            value: value as f32,
            ..Self::default()
        }
    }

    /// The step with this number, from 1 on.
    pub fn step<T: Trainee>(&mut self, gradient: f32, config: &AdamConfig, rate: f64, step: i32) {
        let correction = |beta: f64| (1.0 / (1.0 - beta.powi(step))) as f32;
        let blend = |old: f32, beta: f64, new: f32| old * beta as f32 + new * (1.0 - beta) as f32;
        self.mean = blend(self.mean, config.beta1, gradient);
        self.square = blend(self.square, config.beta2, gradient * gradient);
        let deviation = T::sqrt(&[self.square * correction(config.beta2)])[0] + config.eps as f32;
        self.value -= self.mean * correction(config.beta1) / deviation * rate as f32;
    }
}

/// A number that was fake-quantized, and the derivatives of that.
#[derive(Clone, Copy, Debug)]
pub struct Quantized {
    pub value: f32,
    is_inside: bool,
    /// ∂x̂/∂s.
    derivative: f32,
    scale: f32,
    /// The factor of the gradients of scale and zero point.
    factor: f64,
}

/// x, fake-quantized with a learned scale and zero point.
pub fn fake_quantize(x: f32, scale: f32, zero_point: f32, scheme: &Scheme) -> Quantized {
    let scale = scale.max(f32::MIN_POSITIVE);
    let zero = zero_point.round_ties_even() as i64;
    let zero = zero.clamp(scheme.qmin, scheme.qmax);
    let unclamped = oracle::unclamped_code(x, scale.into(), zero, scheme, 0).unwrap();
    let code = unclamped.clamp(scheme.qmin, scheme.qmax);
    let (difference, is_inside) = ((code - zero) as f32, code == unclamped);
    Quantized {
        value: oracle::value(code, scale.into(), zero),
        is_inside,
        derivative: if is_inside {
            difference - x / scale
        } else {
            difference
        },
        scale,
        factor: 1.0 / (scheme.qmax as f64).sqrt(),
    }
}

impl Quantized {
    /// The gradient of x, for the gradient `dy` of its fake-quantized value.
    pub fn dx(&self, dy: f32) -> f32 {
        if self.is_inside { dy } else { 0.0 }
    }

    /// The gradient of the scale.
    pub fn ds(&self, dy: f32) -> f32 {
        (f64::from(dy) * f64::from(self.derivative) * self.factor) as f32
    }

    /// The gradient of the zero point.
    pub fn dz(&self, dy: f32) -> f32 {
        let outside = if self.is_inside { 0.0 } else { f64::from(dy) };
        (outside * (-self.factor * f64::from(self.scale))) as f32
    }
}
