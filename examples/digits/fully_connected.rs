//! The fully connected 64–64–10 network on candle.

use anyhow::Result;
use candle_core::Tensor;
use candle_nn::{ModuleT, VarBuilder};
use chopi::candle::nn::QatLinear;
use chopi::training::{QatConfig, Quantizers};

use crate::training::Network;

pub struct FullyConnected {
    pub hidden: QatLinear,
    pub output: QatLinear,
}

impl Network for FullyConnected {
    fn new(config: &QatConfig, vb: VarBuilder<'_>, quantizers: &Quantizers) -> Result<Self> {
        Ok(Self {
            hidden: QatLinear::new(64, 64, config, vb.pp("hidden"), quantizers)?,
            output: QatLinear::new(64, 10, config, vb.pp("output"), quantizers)?,
        })
    }

    fn weights(&self) -> Vec<(Option<&Tensor>, usize)> {
        let (hidden, output) = (self.hidden.layer(), self.output.layer());
        vec![
            (Some(hidden.weight()), 64),
            (hidden.bias(), 64),
            (Some(output.weight()), 64),
            (output.bias(), 64),
        ]
    }
}

impl ModuleT for FullyConnected {
    fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        let hidden = self.hidden.forward_t(x, train)?.relu()?;
        self.output.forward_t(&hidden, train)
    }
}
