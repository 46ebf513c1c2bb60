//! Adam with a state that can be saved.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use candle_nn::VarMap;
use chopi_core::training::Quantizers;

/// Adam (Kingma and Ba 2015), whose state goes into a
/// [checkpoint](super::save_checkpoint): [`candle_nn::AdamW`] does not give its moments away, so a
/// training that uses it cannot go on where it stopped.
///
/// For each variable θ with gradient g, at step t: m = β₁·m + (1 − β₁)·g, v = β₂·v + (1 − β₂)·g²,
/// θ = θ − lr·(m/(1 − β₁ᵗ))/(√(v/(1 − β₂ᵗ)) + ε). There is no weight decay: on scales it would do
/// harm.
#[derive(Debug)]
pub struct Adam {
    slots: BTreeMap<String, Slot>,
    config: AdamConfig,
    step: u32,
}

/// The numbers of [`Adam`].
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AdamConfig {
    /// The learning rate lr.
    pub learning_rate: f64,
    /// The learning rate of learned scales and zero points. Adam's steps are as long as the learning
    /// rate, whatever the gradient, and scales are small numbers: theirs should be smaller.
    pub quantizer_learning_rate: f64,
    /// The decay β₁ of the mean of gradients.
    pub beta1: f64,
    /// The decay β₂ of the mean of their squares.
    pub beta2: f64,
    /// ε.
    pub eps: f64,
}

#[derive(Debug)]
struct Slot {
    variable: Var,
    mean: Tensor,
    square: Tensor,
    /// Whether it is a learned scale or zero point.
    is_learned_parameter: bool,
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

impl Adam {
    /// An optimizer of all float variables that there are now, some of them learned by
    /// `quantizers`.
    ///
    /// # Errors
    /// What candle says.
    pub fn new(variables: &VarMap, quantizers: &Quantizers, config: AdamConfig) -> Result<Self> {
        let variables = variables
            .data()
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut slots = BTreeMap::new();
        for (name, variable) in variables.iter().filter(|(_, v)| v.dtype().is_float()) {
            let slot = Slot {
                variable: variable.clone(),
                mean: variable.as_tensor().zeros_like()?,
                square: variable.as_tensor().zeros_like()?,
                is_learned_parameter: quantizers.learns(name),
            };
            slots.insert(name.clone(), slot);
        }
        Ok(Self {
            slots,
            config,
            step: 0,
        })
    }

    /// The gradients of a loss, and a step.
    ///
    /// # Errors
    /// What candle says.
    pub fn backward_step(&mut self, loss: &Tensor) -> Result<()> {
        self.step(&loss.backward()?)
    }

    /// Changes each variable that has a gradient.
    ///
    /// # Errors
    /// What candle says.
    pub fn step(&mut self, gradients: &GradStore) -> Result<()> {
        self.step += 1;
        let AdamConfig { beta1, beta2, .. } = self.config;
        let correction = |beta: f64| 1.0 / (1.0 - beta.powf(self.step.into()));
        let (mean, square) = (correction(beta1), correction(beta2));
        for slot in self.slots.values_mut() {
            let Some(g) = gradients.get(&slot.variable) else {
                continue;
            };
            let rate = match slot.is_learned_parameter {
                true => self.config.quantizer_learning_rate,
                false => self.config.learning_rate,
            };
            slot.mean = ((&slot.mean * beta1)? + (g * (1.0 - beta1))?)?.detach();
            slot.square = ((&slot.square * beta2)? + (g.sqr()? * (1.0 - beta2))?)?.detach();
            let deviation = ((&slot.square * square)?.sqrt()? + self.config.eps)?;
            let change = ((&slot.mean * mean)? / deviation)?;
            let variable = slot.variable.as_detached_tensor();
            slot.variable.set(&(variable - (change * rate)?)?)?;
        }
        Ok(())
    }

    /// The numbers that it steps by.
    pub fn config(&self) -> &AdamConfig {
        &self.config
    }

    /// Sets them, for the steps to come.
    pub fn set_config(&mut self, config: AdamConfig) {
        self.config = config;
    }

    /// How many steps there were.
    pub fn steps(&self) -> u32 {
        self.step
    }

    /// The moments of each variable, by name.
    pub(super) fn moments(&self) -> impl Iterator<Item = (&str, &Tensor, &Tensor)> {
        self.slots
            .iter()
            .map(|(name, slot)| (name.as_str(), &slot.mean, &slot.square))
    }

    /// Goes on from saved moments, in the order of [`moments`](Self::moments).
    pub(super) fn restore(&mut self, step: u32, moments: Vec<(Tensor, Tensor)>) {
        for (slot, (mean, square)) in self.slots.values_mut().zip(moments) {
            (slot.mean, slot.square) = (mean, square);
        }
        self.step = step;
    }
}
