//! A layer of an encoder.

use std::ops::Range;

use candle_core::Tensor;
use candle_nn::ops::softmax_last_dim;

use super::{EncoderConfig, Norm};
use crate::config::Activation;
use crate::error::Result;
use crate::layerwise::Stage;
use crate::linear::Linear;
use crate::observe::Observe;
use crate::weights::Weights;

/// y = norm(x + attention(x)), and then norm(y + mlp(y)).
#[derive(Clone, Debug)]
pub(super) struct Layer {
    query: Linear,
    key: Linear,
    value: Linear,
    attention_output: Linear,
    attention_norm: Norm,
    intermediate: Linear,
    output: Linear,
    norm: Norm,
    activation: Activation,
    heads: usize,
}

impl Layer {
    pub(super) fn read(config: &EncoderConfig, name: &str, weights: &Weights) -> Result<Self> {
        let (small, large) = (config.hidden, config.intermediate);
        let linear = |of: &str, shape| Linear::read(weights, &format!("{name}.{of}"), shape, true);
        let norm = |of: &str| Norm::read(config, &format!("{name}.{of}.LayerNorm"), weights);
        Ok(Self {
            query: linear("attention.self.query", (small, small))?,
            key: linear("attention.self.key", (small, small))?,
            value: linear("attention.self.value", (small, small))?,
            attention_output: linear("attention.output.dense", (small, small))?,
            attention_norm: norm("attention.output")?,
            intermediate: linear("intermediate.dense", (small, large))?,
            output: linear("output.dense", (large, small))?,
            norm: norm("output")?,
            activation: config.activation,
            heads: config.heads,
        })
    }

    /// The texts of x, \[tokens, hidden\], lie at `places`.
    pub(super) fn forward(
        &self,
        x: &Tensor,
        places: &[Range<usize>],
        observer: &mut dyn Observe,
    ) -> Result<Tensor> {
        let mixed = self.mixed(x, places, observer)?;
        let mixed = self.attention_output.forward(&mixed, observer)?;
        let x = self.attention_norm.forward(&(mixed + x)?)?;
        let hidden = self.hidden(&x, observer)?;
        let hidden = self.output.forward(&hidden, observer)?;
        self.norm.forward(&(hidden + x)?)
    }

    /// What attention gives to the projection of its output.
    fn mixed(
        &self,
        x: &Tensor,
        places: &[Range<usize>],
        observer: &mut dyn Observe,
    ) -> Result<Tensor> {
        let query = self.query.forward(x, observer)?;
        let key = self.key.forward(x, observer)?;
        let value = self.value.forward(x, observer)?;
        let attend = |place: &Range<usize>| self.attend(&query, &key, &value, place);
        let mixed = places.iter().map(attend);
        let mixed = mixed.collect::<candle_core::Result<Vec<_>>>()?;
        Ok(Tensor::cat(&mixed, 0)?)
    }

    /// What the layer of the output takes.
    fn hidden(&self, x: &Tensor, observer: &mut dyn Observe) -> Result<Tensor> {
        let hidden = self.intermediate.forward(x, observer)?;
        Ok(self.activation.apply(&hidden)?)
    }

    /// Runs the layer on the hidden states of texts, which become those after the layer, and calls `act` with each
    /// [`Stage`] before its linear layers are used.
    pub(super) fn stages(
        &mut self,
        x: &mut Tensor,
        places: &[Range<usize>],
        act: &mut dyn FnMut(Stage<'_>) -> Result<()>,
    ) -> Result<()> {
        let mut input = [x.clone()];
        // The normalized states go by the layers too, so that there is nothing that scales can be moved to.
        act(Stage {
            linears: vec![&mut self.query, &mut self.key, &mut self.value],
            before: None,
            inputs: &mut input,
        })?;
        input[0] = self.mixed(&input[0], places, &mut ())?;
        act(Stage {
            linears: vec![&mut self.attention_output],
            before: Some(&mut self.value),
            inputs: &mut input,
        })?;
        let mixed = self.attention_output.forward(&input[0], &mut ())?;
        *x = self.attention_norm.forward(&(mixed + &*x)?)?;
        input[0] = x.clone();
        act(Stage {
            linears: vec![&mut self.intermediate],
            before: None,
            inputs: &mut input,
        })?;
        input[0] = self.hidden(x, &mut ())?;
        // The activation between the two layers does not keep scales.
        act(Stage {
            linears: vec![&mut self.output],
            before: None,
            inputs: &mut input,
        })?;
        let hidden = self.output.forward(&input[0], &mut ())?;
        *x = self.norm.forward(&(hidden + &*x)?)?;
        Ok(())
    }

    /// softmax(q·kᵀ/√d)·v for each head of one text.
    fn attend(
        &self,
        query: &Tensor,
        key: &Tensor,
        value: &Tensor,
        place: &Range<usize>,
    ) -> candle_core::Result<Tensor> {
        let (tokens, size) = (place.len(), query.dim(1)?);
        let head = size / self.heads;
        let split = |x: &Tensor| {
            let x = x.narrow(0, place.start, tokens)?;
            x.reshape((tokens, self.heads, head))?
                .transpose(0, 1)?
                .contiguous()
        };
        let scale = 1.0 / (head as f64).sqrt();
        let scores = (split(query)?.matmul(&split(key)?.t()?)? * scale)?;
        let mixed = softmax_last_dim(&scores)?.matmul(&split(value)?)?;
        mixed.transpose(0, 1)?.reshape((tokens, size))
    }

    /// The linear layers.
    pub(super) fn parts(&self) -> [&Linear; 6] {
        [
            &self.query,
            &self.key,
            &self.value,
            &self.attention_output,
            &self.intermediate,
            &self.output,
        ]
    }

    /// The linear layers, in the order of their use.
    pub(super) fn linears(&mut self) -> [&mut Linear; 6] {
        [
            &mut self.query,
            &mut self.key,
            &mut self.value,
            &mut self.attention_output,
            &mut self.intermediate,
            &mut self.output,
        ]
    }
}
