//! A layer of a decoder.

use candle_core::Tensor;

use super::attention::Attention;
use super::memory::{CacheFormat, Memory};
use super::{DecoderConfig, Norm};
use crate::config::Activation;
use crate::error::Result;
use crate::layerwise::{Stage, add, each};
use crate::linear::Linear;
use crate::observe::Observe;
use crate::rotation::Rotation;
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
        let mixed = self
            .attention
            .mixed(&attended, first, angles, memory, observer)?;
        let x = (x + self.attention.output.forward(&mixed, observer)?)?;
        let hidden = self.mlp.hidden(&self.mlp_norm.forward(&x)?, observer)?;
        Ok((x + self.mlp.down.forward(&hidden, observer)?)?)
    }

    /// Runs the layer on the hidden states of some texts, which become those after the layer, and calls `act` with
    /// each [`Stage`] before its linear layers are used.
    pub(super) fn stages(
        &mut self,
        texts: &mut [Tensor],
        angles: &[(Tensor, Tensor)],
        act: &mut dyn FnMut(Stage<'_>) -> Result<()>,
    ) -> Result<()> {
        let Self { attention, mlp, .. } = self;
        let mut inputs = each(texts, |x| self.attention_norm.forward(x))?;
        act(Stage {
            linears: vec![
                &mut attention.query,
                &mut attention.key,
                &mut attention.value,
            ],
            before: Some(&mut self.attention_norm),
            inputs: &mut inputs,
        })?;
        let mixed = inputs.iter().zip(angles).map(|(x, angles)| {
            let mut memory = Memory::new(CacheFormat::Float);
            attention.mixed(x, 0, angles, &mut memory, &mut ())
        });
        let mut inputs = mixed.collect::<Result<Vec<_>>>()?;
        let own_values = attention.has_own_values();
        act(Stage {
            linears: vec![&mut attention.output],
            before: match own_values {
                true => Some(&mut attention.value),
                false => None,
            },
            inputs: &mut inputs,
        })?;
        add(texts, &inputs, &attention.output)?;

        let mut inputs = each(texts, |x| self.mlp_norm.forward(x))?;
        act(Stage {
            linears: vec![&mut mlp.gate, &mut mlp.up],
            before: Some(&mut self.mlp_norm),
            inputs: &mut inputs,
        })?;
        let mut inputs = each(&inputs, |x| mlp.hidden(x, &mut ()))?;
        act(Stage {
            linears: vec![&mut mlp.down],
            before: Some(&mut mlp.up),
            inputs: &mut inputs,
        })?;
        add(texts, &inputs, &mlp.down)
    }

    /// Rotates the hidden states, and the values of attention where there is a rotation for heads: see
    /// [`Decoder::rotate`](super::Decoder::rotate).
    pub(super) fn rotate(&mut self, hidden: &Rotation, heads: Option<&Rotation>) -> Result<()> {
        let Self {
            attention_norm,
            attention,
            mlp_norm,
            mlp,
        } = self;
        let gains = attention_norm.take_gains()?;
        for linear in [
            &mut attention.query,
            &mut attention.key,
            &mut attention.value,
        ] {
            linear.multiply_inputs(&gains)?;
            linear.rotate_inputs(hidden)?;
        }
        if let Some(heads) = heads {
            attention.value.rotate_outputs(heads)?;
            attention.output.rotate_inputs(heads)?;
        }
        attention.output.rotate_outputs(hidden)?;
        let gains = mlp_norm.take_gains()?;
        for linear in [&mut mlp.gate, &mut mlp.up] {
            linear.multiply_inputs(&gains)?;
            linear.rotate_inputs(hidden)?;
        }
        mlp.down.rotate_outputs(hidden)
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

    /// The weights of the norms, if they are not as in the model's files.
    pub(super) fn norms(&self) -> [&Norm; 2] {
        [&self.attention_norm, &self.mlp_norm]
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

    /// What `down` takes.
    fn hidden(&self, x: &Tensor, observer: &mut dyn Observe) -> Result<Tensor> {
        let gate = self.activation.apply(&self.gate.forward(x, observer)?)?;
        Ok((gate * self.up.forward(x, observer)?)?)
    }
}
