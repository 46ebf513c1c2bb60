//! A layer of a decoder.

use candle_core::Tensor;

use super::attention::{Attention, Memory};
use super::{DecoderConfig, Norm};
use crate::config::Activation;
use crate::error::Result;
use crate::linear::Linear;
use crate::observe::Observe;
use crate::weights::Weights;

/// y = x + attention(norm(x)), and then y + mlp(norm(y)).
#[derive(Clone, Debug)]
pub(super) struct Layer {
    attention_norm: Norm,
    attention: Attention,
    mlp_norm: Norm,
    mlp: Mlp,
}

impl Layer {
    pub(super) fn read(config: &DecoderConfig, index: usize, weights: &Weights) -> Result<Self> {
        let name = format!("model.layers.{index}");
        let norm = |of: &str| Norm::read(config, &format!("{name}.{of}"), config.hidden, weights);
        Ok(Self {
            attention_norm: norm("input_layernorm")?,
            attention: Attention::read(config, index, &format!("{name}.self_attn"), weights)?,
            mlp_norm: norm("post_attention_layernorm")?,
            mlp: Mlp::read(config, &format!("{name}.mlp"), weights)?,
        })
    }

    pub(super) fn forward(
        &self,
        x: &Tensor,
        first: usize,
        angles: &(Tensor, Tensor),
        memory: &mut Memory,
        observer: &mut dyn Observe,
    ) -> Result<Tensor> {
        let attended = self.attention_norm.forward(x)?;
        let attended = self
            .attention
            .forward(&attended, first, angles, memory, observer)?;
        let x = (x + attended)?;
        let mixed = self.mlp.forward(&self.mlp_norm.forward(&x)?, observer)?;
        Ok((x + mixed)?)
    }

    /// The linear layers.
    pub(super) fn parts(&self) -> [&Linear; 7] {
        let (attention, mlp) = (&self.attention, &self.mlp);
        [
            &attention.query,
            &attention.key,
            &attention.value,
            &attention.output,
            &mlp.gate,
            &mlp.up,
            &mlp.down,
        ]
    }

    /// The linear layers, in the order of their use.
    pub(super) fn linears(&mut self) -> [&mut Linear; 7] {
        let Attention {
            query,
            key,
            value,
            output,
            ..
        } = &mut self.attention;
        let Mlp { gate, up, down, .. } = &mut self.mlp;
        [query, key, value, output, gate, up, down]
    }
}

/// down(activation(gate(x)) · up(x)).
#[derive(Clone, Debug)]
struct Mlp {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
}

impl Mlp {
    fn read(config: &DecoderConfig, name: &str, weights: &Weights) -> Result<Self> {
        let (small, large) = (config.hidden, config.intermediate);
        let linear = |of: &str, shape| {
            Linear::read(weights, &format!("{name}.{of}"), shape, config.mlp_bias)
        };
        Ok(Self {
            gate: linear("gate_proj", (small, large))?,
            up: linear("up_proj", (small, large))?,
            down: linear("down_proj", (large, small))?,
            activation: config.activation,
        })
    }

    fn forward(&self, x: &Tensor, observer: &mut dyn Observe) -> Result<Tensor> {
        let gate = self.activation.apply(&self.gate.forward(x, observer)?)?;
        let hidden = (gate * self.up.forward(x, observer)?)?;
        self.down.forward(&hidden, observer)
    }
}
