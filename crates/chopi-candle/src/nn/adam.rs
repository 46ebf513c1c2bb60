//! Adam with a state that can be saved.

use std::collections::BTreeMap;

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use candle_nn::VarMap;
use chopi_core::training::{AdamConfig, Quantizers};

use super::chopi;

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

#[derive(Debug)]
struct Slot {
    variable: Var,
    mean: Tensor,
    square: Tensor,
    /// Whether it is a learned scale or zero point.
    is_learned_parameter: bool,
}

impl Adam {
    /// An optimizer of all float variables that there are now, some of them learned by
    /// `quantizers`.
    ///
    /// # Errors
    /// The errors of [`AdamConfig::check`]; what candle says.
    pub fn new(variables: &VarMap, quantizers: &Quantizers, config: AdamConfig) -> Result<Self> {
        config.check().map_err(chopi)?;
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
    /// What candle says. A step that fails is not counted, and where its numbers cannot be computed, nothing
    /// is changed.
    pub fn step(&mut self, gradients: &GradStore) -> Result<()> {
        let step = self.step.saturating_add(1);
        let mut changes = Vec::new();
        for slot in self.slots.values_mut() {
            if let Some(g) = gradients.get(&slot.variable) {
                let next = slot.next(g, &self.config, step)?;
                changes.push((slot, next));
            }
        }
        for (slot, Next { variable, .. }) in &changes {
            slot.variable.set(variable)?;
        }
        for (slot, Next { mean, square, .. }) in changes {
            (slot.mean, slot.square) = (mean, square);
        }
        self.step = step;
        Ok(())
    }

    /// The numbers that it steps by.
    pub fn config(&self) -> &AdamConfig {
        &self.config
    }

    /// Sets them, for the steps to come.
    ///
    /// # Errors
    /// The errors of [`AdamConfig::check`]; they are as they were then.
    pub fn set_config(&mut self, config: AdamConfig) -> Result<()> {
        config.check().map_err(chopi)?;
        self.config = config;
        Ok(())
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

/// What a variable and its moments become.
struct Next {
    mean: Tensor,
    square: Tensor,
    variable: Tensor,
}

impl Slot {
    /// What this step makes of them, for this gradient.
    fn next(&self, g: &Tensor, config: &AdamConfig, step: u32) -> Result<Next> {
        let AdamConfig { beta1, beta2, .. } = *config;
        let correction = |beta: f64| 1.0 / (1.0 - beta.powf(step.into()));
        let rate = match self.is_learned_parameter {
            true => config.quantizer_learning_rate,
            false => config.learning_rate,
        };
        let mean = ((&self.mean * beta1)? + (g * (1.0 - beta1))?)?.detach();
        let square = ((&self.square * beta2)? + (g.sqr()? * (1.0 - beta2))?)?.detach();
        let deviation = ((&square * correction(beta2))?.sqrt()? + config.eps)?;
        let change = ((&mean * correction(beta1))? / deviation)?;
        Ok(Next {
            variable: (self.variable.as_detached_tensor() - (change * rate)?)?,
            mean,
            square,
        })
    }
}
