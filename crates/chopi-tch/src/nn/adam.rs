//! Adam with a state that can be saved, for libtorch's variables.

use std::collections::BTreeMap;

use chopi_core::Result;
use chopi_core::training::{self, AdamConfig, Quantizers};
use tch::nn::VarStore;
use tch::{TchError, Tensor};

use crate::{OnDevice, framework};

/// Adam (Kingma and Ba 2015), whose state goes into a
/// [checkpoint](super::save_checkpoint): tch's optimizers do not give their moments away, so a
/// training that uses them cannot go on where it stopped.
///
/// [`AdamConfig`] has the formulas. There is no weight decay: on scales it would do harm.
#[derive(Debug)]
pub struct Adam(pub(super) training::Adam<OnDevice>);

impl Adam {
    /// An optimizer of all trainable variables that there are now, some of them learned by
    /// `quantizers`.
    ///
    /// # Errors
    /// The errors of [`AdamConfig::check`]; what libtorch says.
    pub fn new(variables: &VarStore, quantizers: &Quantizers, config: AdamConfig) -> Result<Self> {
        let variables = super::checkpoint::variables(variables).into_iter();
        let trainable = variables.filter(|(_, variable)| variable.0.requires_grad());
        training::Adam::new(trainable, quantizers, config).map(Self)
    }

    /// The gradients of a loss, a single number, and a step of the variables that have one. `grad` of the
    /// variables stays as it was.
    ///
    /// # Errors
    /// A loss of more or less than one element; the errors of [`step`](Self::step).
    pub fn backward_step(&mut self, loss: &Tensor) -> Result<()> {
        if loss.numel() != 1 {
            let problem = format!("the loss has shape {:?}, expected one number", loss.size());
            return Err(framework(TchError::Torch(problem)));
        }
        let variables = self.0.variables();
        let (names, variables): (Vec<_>, Vec<_>) = variables
            .filter(|(_, variable)| variable.0.requires_grad())
            .map(|(name, variable)| (name.to_owned(), variable.0.shallow_clone()))
            .unzip();
        let gradients = Tensor::f_run_backward(&[loss], &variables, false, false);
        let gradients = gradients.map_err(framework)?;
        let gradients: BTreeMap<_, _> = names.into_iter().zip(gradients).collect();
        self.0.step(|name, _| Ok(defined(gradients.get(name))))
    }

    /// Changes each variable whose `grad` there is.
    ///
    /// # Errors
    /// A gradient of another shape than its variable had; what libtorch says. A step that fails is not
    /// counted, and where its numbers cannot be computed, nothing is changed.
    pub fn step(&mut self) -> Result<()> {
        self.0.step(|_, variable| {
            let gradient = variable.0.f_grad().map_err(framework)?;
            Ok(defined(Some(&gradient)))
        })
    }

    /// The numbers that it steps by.
    pub fn config(&self) -> &AdamConfig {
        self.0.config()
    }

    /// Sets them, for the steps to come.
    ///
    /// # Errors
    /// The errors of [`AdamConfig::check`]; they are as they were then.
    pub fn set_config(&mut self, config: AdamConfig) -> Result<()> {
        self.0.set_config(config)
    }

    /// How many steps there were.
    pub fn steps(&self) -> u32 {
        self.0.steps()
    }
}

fn defined(gradient: Option<&Tensor>) -> Option<OnDevice> {
    gradient.filter(|g| g.defined()).map(OnDevice::from)
}
