//! The numbers of the optimizer Adam, for the frameworks whose optimizers keep their state to themselves.

use crate::error::{Error, Result};

/// The numbers of Adam (Kingma and Ba 2015).
///
/// For each variable θ with gradient g, at step t: m = β₁·m + (1 − β₁)·g, v = β₂·v + (1 − β₂)·g²,
/// θ = θ − lr·(m/(1 − β₁ᵗ))/(√(v/(1 − β₂ᵗ)) + ε).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// The learning rate lr: a finite number that is not negative.
    pub learning_rate: f64,
    /// The learning rate of learned scales and zero points: a finite number that is not negative. Adam's
    /// steps are as long as the learning rate, whatever the gradient, and scales are small numbers: theirs
    /// should be smaller.
    pub quantizer_learning_rate: f64,
    /// The decay β₁ of the mean of gradients, in [0, 1).
    pub beta1: f64,
    /// The decay β₂ of the mean of their squares, in [0, 1).
    pub beta2: f64,
    /// ε: a finite number over 0.
    pub eps: f64,
}

/// Learning rates 10⁻³ and 10⁻⁴, β₁ = 0.9, β₂ = 0.999, ε = 10⁻⁸.
impl Default for AdamConfig {
    fn default() -> Self {
        Self {
            learning_rate: 1e-3,
            quantizer_learning_rate: 1e-4,
            beta1: 0.9,
            beta2: 0.999,
            eps: 1e-8,
        }
    }
}

impl AdamConfig {
    /// Checks that Adam can step by these numbers.
    ///
    /// # Errors
    /// [`Error::AdamConfig`] for the first one that is out of its range.
    pub fn check(&self) -> Result<()> {
        let refuse = |name, value, expected| {
            Err(Error::AdamConfig {
                name,
                value,
                expected,
            })
        };
        for (name, rate) in [
            ("learning_rate", self.learning_rate),
            ("quantizer_learning_rate", self.quantizer_learning_rate),
        ] {
            if !(rate >= 0.0 && rate.is_finite()) {
                return refuse(name, rate, "a finite number that is not negative");
            }
        }
        for (name, beta) in [("beta1", self.beta1), ("beta2", self.beta2)] {
            if !(0.0..1.0).contains(&beta) {
                return refuse(name, beta, "a number from 0 to less than 1");
            }
        }
        match self.eps > 0.0 && self.eps.is_finite() {
            true => Ok(()),
            false => refuse("eps", self.eps, "a finite number over 0"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_out_of_their_range_are_refused_by_name() {
        assert!(AdamConfig::default().check().is_ok());
        let (inf, nan) = (f64::INFINITY, f64::NAN);
        type Field = fn(&mut AdamConfig) -> &mut f64;
        let cases: [(&str, Field, &[f64], &[f64]); 5] = [
            (
                "learning_rate",
                |c| &mut c.learning_rate,
                &[0.0, 1.0],
                &[-1e-9, inf, nan],
            ),
            (
                "quantizer_learning_rate",
                |c| &mut c.quantizer_learning_rate,
                &[0.0],
                &[-1.0, nan],
            ),
            ("beta1", |c| &mut c.beta1, &[0.0, 0.5], &[-0.1, 1.0, nan]),
            (
                "beta2",
                |c| &mut c.beta2,
                &[0.0, 0.9999],
                &[-0.1, 1.0, inf, nan],
            ),
            (
                "eps",
                |c| &mut c.eps,
                &[1e-300, 1.0],
                &[0.0, -1e-8, inf, nan],
            ),
        ];
        for (name, field, good, bad) in cases {
            let with = |value: f64| {
                let mut config = AdamConfig::default();
                *field(&mut config) = value;
                config.check()
            };
            for &value in good {
                assert!(with(value).is_ok(), "{name} {value}");
            }
            for &value in bad {
                let error = with(value).unwrap_err().to_string();
                assert!(
                    error.starts_with(&format!("{name} is {value:?}, expected")),
                    "{error}"
                );
            }
        }
    }
}
