//! Adam with a state that can be saved.

use std::collections::BTreeMap;

use chopi_core::Result;
use chopi_core::training::{AdamConfig, Quantizers};
use tch::nn::VarStore;
use tch::{TchError, Tensor};

use crate::framework;

/// Adam (Kingma and Ba 2015), whose state goes into a
/// [checkpoint](super::save_checkpoint): tch's optimizers do not give their moments away, so a
/// training that uses them cannot go on where it stopped.
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
    variable: Tensor,
    mean: Tensor,
    square: Tensor,
    /// Whether it is a learned scale or zero point.
    is_learned_parameter: bool,
}

impl Adam {
    /// An optimizer of all trainable variables that there are now, some of them learned by
    /// `quantizers`.
    ///
    /// # Errors
    /// The errors of [`AdamConfig::check`]; what libtorch says.
    pub fn new(variables: &VarStore, quantizers: &Quantizers, config: AdamConfig) -> Result<Self> {
        config.check()?;
        let mut slots = BTreeMap::new();
        for (name, variable) in variables.variables() {
            if !variable.requires_grad() {
                continue;
            }
            let zeros = || variable.detach().f_zeros_like().map_err(framework);
            let slot = Slot {
                mean: zeros()?,
                square: zeros()?,
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

    /// The gradients of a loss, in place of earlier ones, and a step.
    ///
    /// # Errors
    /// What libtorch says.
    pub fn backward_step(&mut self, loss: &Tensor) -> Result<()> {
        for slot in self.slots.values_mut() {
            slot.variable.zero_grad();
        }
        loss.f_backward().map_err(framework)?;
        self.step()
    }

    /// Changes each variable that has a gradient.
    ///
    /// # Errors
    /// What libtorch says. A step that fails is not counted, and where its numbers cannot be computed,
    /// nothing is changed.
    pub fn step(&mut self) -> Result<()> {
        let step = self.step.saturating_add(1);
        let (slots, config) = (self.slots.values_mut(), &self.config);
        let change = || -> std::result::Result<_, TchError> {
            let mut changes = Vec::new();
            for slot in slots {
                if let Some(next) = slot.next(config, step)? {
                    changes.push((slot, next));
                }
            }
            for (slot, Next { variable, .. }) in &mut changes {
                slot.variable.f_copy_(variable)?;
            }
            Ok(changes)
        };
        let changes = tch::no_grad(change).map_err(framework)?;
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
        config.check()?;
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
    /// What this step makes of them, where the variable has a gradient.
    fn next(&self, config: &AdamConfig, step: u32) -> std::result::Result<Option<Next>, TchError> {
        let g = self.variable.f_grad()?;
        if !g.defined() {
            return Ok(None);
        }
        let AdamConfig { beta1, beta2, .. } = *config;
        let correction = |beta: f64| 1.0 / (1.0 - beta.powf(step.into()));
        let rate = match self.is_learned_parameter {
            true => config.quantizer_learning_rate,
            false => config.learning_rate,
        };
        let blend = |old: &Tensor, beta: f64, new: &Tensor| {
            old.f_mul_scalar(beta)?
                .f_add(&new.f_mul_scalar(1.0 - beta)?)
        };
        let mean = blend(&self.mean, beta1, &g)?;
        let square = blend(&self.square, beta2, &g.f_square()?)?;
        let deviation = square.f_mul_scalar(correction(beta2))?.f_sqrt()?;
        let deviation = deviation.f_add_scalar(config.eps)?;
        let change = mean.f_mul_scalar(correction(beta1))?.f_div(&deviation)?;
        let variable = self.variable.detach().f_sub(&change.f_mul_scalar(rate)?)?;
        Ok(Some(Next {
            mean,
            square,
            variable,
        }))
    }
}
