//! Attention with grouped heads.

use candle_core::{Device, Tensor};
use candle_nn::ops::softmax_last_dim;

use super::memory::Memory;
use super::rotary::rotated;
use super::{DecoderConfig, Norm};
use crate::error::Result;
use crate::linear::Linear;
use crate::observe::Observe;
use crate::weights::Weights;

/// softmax(q·kᵀ/√d)·v for each head, in which a token attends to itself and those before it. Some heads of
/// queries share a head of keys and values.
#[derive(Clone, Debug)]
pub(super) struct Attention {
    pub(super) query: Linear,
    pub(super) key: Linear,
    pub(super) value: Linear,
    pub(super) output: Linear,
    norms: Option<(Norm, Norm)>,
    heads: usize,
    kv_heads: usize,
    /// The elements of a head.
    head: usize,
    window: Option<usize>,
}

impl Attention {
    pub(super) fn read(
        config: &DecoderConfig,
        layer: usize,
        name: &str,
        weights: &Weights,
    ) -> Result<Self> {
        let (hidden, head) = (config.hidden, config.head);
        let input = |of: &str, heads: usize| {
            let shape = (hidden, heads * head);
            Linear::read(weights, &format!("{name}.{of}"), shape, config.qkv_bias)
        };
        let norm = |of: &str| Norm::read(config, &format!("{name}.{of}"), head, weights);
        let norms = match config.qk_norm {
            true => Some((norm("q_norm")?, norm("k_norm")?)),
            false => None,
        };
        let output = format!("{name}.o_proj");
        let shape = (config.heads * head, hidden);
        Ok(Self {
            query: input("q_proj", config.heads)?,
            key: input("k_proj", config.kv_heads)?,
            value: input("v_proj", config.kv_heads)?,
            output: Linear::read(weights, &output, shape, config.output_bias)?,
            norms,
            heads: config.heads,
            kv_heads: config.kv_heads,
            head,
            window: config.windows.get(layer).copied().flatten(),
        })
    }

    /// What the projection of the output takes, \[tokens, heads·head\]. The tokens of x, \[tokens, hidden\], follow
    /// `first` others.
    pub(super) fn mixed(
        &self,
        x: &Tensor,
        first: usize,
        angles: &(Tensor, Tensor),
        memory: &mut Memory,
        observer: &mut dyn Observe,
    ) -> Result<Tensor> {
        let tokens = x.dim(0)?;
        let split = |x: Tensor, heads: usize| {
            let x = x.reshape((tokens, heads, self.head))?;
            x.transpose(0, 1)?.contiguous()
        };
        let mut query = split(self.query.forward(x, observer)?, self.heads)?;
        let mut key = split(self.key.forward(x, observer)?, self.kv_heads)?;
        let value = split(self.value.forward(x, observer)?, self.kv_heads)?;
        if let Some((of_query, of_key)) = &self.norms {
            (query, key) = (of_query.forward(&query)?, of_key.forward(&key)?);
        }
        let (query, key) = (rotated(&query, angles)?, rotated(&key, angles)?);
        let (key, value) = ((&key, self.key.name()), (&value, self.value.name()));
        let (keys, values) = memory.append(key, value)?;

        let group = self.heads / self.kv_heads;
        let total = first + tokens;
        let query = query.reshape((self.kv_heads, group * tokens, self.head))?;
        let scale = 1.0 / (self.head as f64).sqrt();
        let mut scores = (query.matmul(&keys.t()?)? * scale)?;
        if let Some(bias) = self.bias(first, tokens)? {
            let shape = (self.heads, tokens, total);
            scores = scores.reshape(shape)?.broadcast_add(&bias)?;
            scores = scores.reshape((self.kv_heads, group * tokens, total))?;
        }
        let mixed = softmax_last_dim(&scores)?.matmul(&values)?;
        let mixed = mixed.reshape((self.heads, tokens, self.head))?;
        let mixed = mixed.transpose(0, 1)?;
        Ok(mixed.reshape((tokens, self.heads * self.head))?)
    }

    /// Whether each head of queries has its own head of values.
    pub(super) fn has_own_values(&self) -> bool {
        self.heads == self.kv_heads
    }

    /// 0 where a token attends to another, −∞ where not, \[tokens, all tokens\]; none where all attend to all.
    fn bias(&self, first: usize, tokens: usize) -> candle_core::Result<Option<Tensor>> {
        let total = first + tokens;
        let window = self.window.unwrap_or(usize::MAX);
        if tokens == 1 && total <= window {
            return Ok(None);
        }
        let bias = |query: usize| {
            let query = first + query;
            let attends = move |key: usize| key <= query && query - key < window;
            (0..total).map(move |key| if attends(key) { 0.0 } else { f32::NEG_INFINITY })
        };
        let bias: Vec<f32> = (0..tokens).flat_map(bias).collect();
        Tensor::from_vec(bias, (tokens, total), &Device::Cpu).map(Some)
    }
}
