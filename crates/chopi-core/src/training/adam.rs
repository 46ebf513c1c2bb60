//! The optimizer Adam, with a state that can be saved.

use std::collections::BTreeMap;

use super::Quantizers;
use crate::backend::DeviceTensor;
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

/// Adam (Kingma and Ba 2015) on a framework's tensors, with moments that go into a checkpoint: the frameworks'
/// own optimizers do not give theirs away.
///
/// [`AdamConfig`] has the formulas. There is no weight decay: on scales it would do harm.
#[derive(Clone, Debug)]
pub struct Adam<T> {
    slots: BTreeMap<String, Slot<T>>,
    config: AdamConfig,
    step: u32,
}

/// A variable and the means of its gradients and of their squares.
#[derive(Clone, Debug)]
struct Slot<T> {
    variable: T,
    mean: T,
    square: T,
    /// Whether it is a learned scale or zero point.
    is_learned_parameter: bool,
}

impl<T: DeviceTensor> Adam<T> {
    /// An optimizer of these float variables by name, some of them learned by `quantizers`.
    ///
    /// # Errors
    /// The errors of [`AdamConfig::check`]; [`Error::Framework`] for an error of the framework.
    pub fn new(
        variables: impl IntoIterator<Item = (String, T)>,
        quantizers: &Quantizers,
        config: AdamConfig,
    ) -> Result<Self> {
        config.check()?;
        let mut slots = BTreeMap::new();
        for (name, variable) in variables {
            let slot = Slot {
                mean: variable.zeros_like()?,
                square: variable.zeros_like()?,
                is_learned_parameter: quantizers.learns(&name),
                variable,
            };
            slots.insert(name, slot);
        }
        Ok(Self {
            slots,
            config,
            step: 0,
        })
    }

    /// Changes each variable that has a gradient; `gradient` gives that of a variable and its name.
    ///
    /// # Errors
    /// [`Error::GradientShape`] for a gradient of another shape than its variable; the errors of
    /// [`AdamConfig::check`] and of `gradient`; [`Error::Framework`] for an error of the framework. A step
    /// that fails is not counted, and where its numbers cannot be computed, nothing is changed.
    pub fn step(&mut self, gradient: impl Fn(&str, &T) -> Result<Option<T>>) -> Result<()> {
        self.config.check()?;
        let step = self.step.saturating_add(1);
        let mut changes = Vec::new();
        for (name, slot) in &mut self.slots {
            if let Some(gradient) = gradient(name, &slot.variable)? {
                let (shape, expected) = (gradient.shape(), slot.mean.shape());
                if shape != expected {
                    let name = name.clone();
                    return Err(Error::GradientShape {
                        name,
                        shape,
                        expected,
                    });
                }
                let next = slot.next(&gradient.detach()?, &self.config, step)?;
                changes.push((slot, next));
            }
        }
        for (slot, Next { variable, .. }) in &changes {
            slot.variable.assign(variable)?;
        }
        for (slot, Next { mean, square, .. }) in changes {
            (slot.mean, slot.square) = (mean, square);
        }
        self.step = step;
        Ok(())
    }

    /// The variables, in the order of their names.
    pub fn variables(&self) -> impl Iterator<Item = (&str, &T)> {
        let slots = self.slots.iter();
        slots.map(|(name, slot)| (name.as_str(), &slot.variable))
    }

    /// The numbers that it steps by.
    pub fn config(&self) -> &AdamConfig {
        &self.config
    }

    /// Sets the learning rate of all but learned scales and zero points, for the steps to come, which fail
    /// where it is none.
    pub fn set_learning_rate(&mut self, learning_rate: f64) {
        self.config.learning_rate = learning_rate;
    }

    /// Sets the numbers, for the steps to come.
    ///
    /// # Errors
    /// The errors of [`AdamConfig::check`]; they are as they were then.
    pub fn set_config(&mut self, config: AdamConfig) -> Result<()> {
        config.check()?;
        self.config = config;
        Ok(())
    }

    /// How many steps there were.
    pub fn steps(&self) -> u32 {
        self.step
    }

    /// The means of the gradients and of their squares of each variable, by name.
    pub fn moments(&self) -> impl Iterator<Item = (&str, &T, &T)> {
        self.slots
            .iter()
            .map(|(name, slot)| (name.as_str(), &slot.mean, &slot.square))
    }

    /// Goes on from saved moments, in the order of [`moments`](Self::moments).
    #[cfg(feature = "checkpoints")]
    pub(super) fn restore(&mut self, step: u32, moments: Vec<(T, T)>) {
        for (slot, (mean, square)) in self.slots.values_mut().zip(moments) {
            (slot.mean, slot.square) = (mean, square);
        }
        self.step = step;
    }
}

/// What a variable and its moments become.
struct Next<T> {
    mean: T,
    square: T,
    variable: T,
}

impl<T: DeviceTensor> Slot<T> {
    /// What this step makes of them, for this gradient.
    fn next(&self, g: &T, config: &AdamConfig, step: u32) -> Result<Next<T>> {
        let AdamConfig { beta1, beta2, .. } = *config;
        let correction = |beta: f64| 1.0 / (1.0 - beta.powf(step.into()));
        let rate = match self.is_learned_parameter {
            true => config.quantizer_learning_rate,
            false => config.learning_rate,
        };
        let blend =
            |old: &T, beta: f64, new: &T| old.mul_scalar(beta)?.add(&new.mul_scalar(1.0 - beta)?);
        let mean = blend(&self.mean, beta1, g)?;
        let square = blend(&self.square, beta2, &g.mul(g)?)?;
        let deviation = square.mul_scalar(correction(beta2))?.sqrt()?;
        let deviation = deviation.add_scalar(config.eps)?;
        let change = mean.mul_scalar(correction(beta1))?.div(&deviation)?;
        let variable = self.variable.detach()?.sub(&change.mul_scalar(rate)?)?;
        Ok(Next {
            mean,
            square,
            variable,
        })
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
