//! Adam with a state that can be saved, for candle's variables.

use candle_core::backprop::GradStore;
use candle_core::{Result, Tensor, Var};
use candle_nn::{Optimizer, VarMap};
use chopi_core::training::{self, AdamConfig, Quantizers};

use super::chopi;
use crate::OnDevice;

/// Adam (Kingma and Ba 2015), whose state goes into a
/// [checkpoint](super::save_checkpoint): [`candle_nn::AdamW`] does not give its moments away, so a
/// training that uses it cannot go on where it stopped.
///
/// [`AdamConfig`] has the formulas. There is no weight decay: on scales it would do harm.
///
/// It is an [`Optimizer`] of candle too, for code that is generic over those. One that was made by that
/// trait's constructor knows no names: its variables are `0`, `1` and so on in the order that they were
/// given, and none of them counts as a learned scale.
#[derive(Debug)]
pub struct Adam(pub(super) training::Adam<OnDevice>);

impl Adam {
    /// An optimizer of all float variables that there are now, some of them learned by
    /// `quantizers`.
    ///
    /// # Errors
    /// The errors of [`AdamConfig::check`]; what candle says.
    pub fn new(variables: &VarMap, quantizers: &Quantizers, config: AdamConfig) -> Result<Self> {
        let variables = super::checkpoint::variables(variables).into_iter();
        let floats = variables.filter(|(_, variable)| variable.0.dtype().is_float());
        let adam = training::Adam::new(floats, quantizers, config);
        adam.map(Self).map_err(chopi)
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
    /// A gradient of another shape than its variable; what candle says. A step that fails is not counted,
    /// and where its numbers cannot be computed, nothing is changed.
    pub fn step(&mut self, gradients: &GradStore) -> Result<()> {
        let gradient = |variable: &OnDevice| gradients.get(&variable.0).map(OnDevice::from);
        let step = self.0.step(|_, variable| Ok(gradient(variable)));
        step.map_err(chopi)
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
        self.0.set_config(config).map_err(chopi)
    }

    /// How many steps there were.
    pub fn steps(&self) -> u32 {
        self.0.steps()
    }
}

/// `set_learning_rate` sets that of all but learned scales and zero points; a step fails where it is none.
impl Optimizer for Adam {
    type Config = AdamConfig;

    fn new(variables: Vec<Var>, config: AdamConfig) -> Result<Self> {
        let floats = variables.into_iter().filter(|v| v.dtype().is_float());
        let named = floats.enumerate();
        let named = named.map(|(i, v)| (i.to_string(), OnDevice(v.into_inner())));
        let adam = training::Adam::new(named, &Quantizers::new(), config);
        adam.map(Self).map_err(chopi)
    }

    fn step(&mut self, gradients: &GradStore) -> Result<()> {
        self.step(gradients)
    }

    fn learning_rate(&self) -> f64 {
        self.config().learning_rate
    }

    fn set_learning_rate(&mut self, learning_rate: f64) {
        self.0.set_learning_rate(learning_rate);
    }
}
