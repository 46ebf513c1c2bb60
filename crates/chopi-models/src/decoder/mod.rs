//! Decoders like Llama.

mod attention;
mod config;
mod layer;
mod rotary;

use std::sync::Arc;

use candle_core::Tensor;
use candle_nn::ops::rms_norm;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::linear::{Linear, Table};
use crate::observe::Observe;
use crate::scheme::Scheme;
use crate::weights::Weights;

use attention::Memory;
use layer::Layer;

pub(crate) use config::{DecoderConfig, MODEL_TYPES};

/// A decoder: from the tokens of a text to the logits of the token after each.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: DecoderConfig,
    embedding: Table,
    layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
}

/// The keys and values of the tokens that a decoder has seen.
#[derive(Clone, Debug)]
pub struct Cache {
    layers: Vec<Memory>,
    tokens: usize,
}

impl Cache {
    /// The number of tokens that the decoder has seen.
    pub fn tokens(&self) -> usize {
        self.tokens
    }
}

impl Decoder {
    pub(crate) fn load(config: &Config, model_type: &str, weights: &Weights) -> Result<Self> {
        let config = DecoderConfig::new(config, model_type)?;
        let (vocabulary, hidden) = (config.vocabulary, config.hidden);
        let name = "model.embed_tokens";
        let embedding = weights.matrix(&format!("{name}.weight"), (vocabulary, hidden))?;
        let layer = |index| Layer::read(&config, index, weights);
        let layers = (0..config.layers).map(layer).collect::<Result<_>>()?;
        let norm = Norm::read(&config, "model.norm", hidden, weights)?;
        let head = match config.tied {
            true => Linear::new("lm_head", &embedding, None, weights.inputs("lm_head"))?,
            false => Linear::read(weights, "lm_head", (hidden, vocabulary), false)?,
        };
        Ok(Self {
            embedding: Table::new(name, &embedding)?,
            config,
            layers,
            norm,
            head,
        })
    }

    /// Keys and values of no tokens.
    pub fn cache(&self) -> Cache {
        Cache {
            layers: vec![Memory::default(); self.layers.len()],
            tokens: 0,
        }
    }

    /// The number of tokens that there can be.
    pub fn positions(&self) -> usize {
        self.config.positions
    }

    /// The number of different tokens.
    pub fn vocabulary(&self) -> usize {
        self.config.vocabulary
    }

    /// The hidden states of tokens that follow those of the cache, \[tokens, hidden\], normalized as the head takes
    /// them; the cache then has the tokens too.
    ///
    /// # Errors
    /// [`Error::TooLong`] and [`Error::Token`]; what `observer` says; what a layer says. Then the cache is of no
    /// further use.
    pub fn hidden(
        &self,
        tokens: &[u32],
        cache: &mut Cache,
        observer: &mut dyn Observe,
    ) -> Result<Tensor> {
        let (first, limit) = (cache.tokens, self.config.positions);
        let total = first + tokens.len();
        if total > limit {
            let tokens = total;
            return Err(Error::TooLong { tokens, limit });
        }
        let largest = self.config.vocabulary - 1;
        if let Some(&token) = tokens.iter().find(|&&token| token as usize > largest) {
            return Err(Error::Token { token, largest });
        }
        let mut x = self.embedding.lookup(tokens)?;
        let angles = self.config.rotary.angles(first, tokens.len())?;
        for (layer, memory) in self.layers.iter().zip(&mut cache.layers) {
            x = layer.forward(&x, first, &angles, memory, observer)?;
        }
        cache.tokens = total;
        self.norm.forward(&x)
    }

    /// The logits of the token after each of these hidden states: \[tokens, vocabulary\] of \[tokens, hidden\].
    ///
    /// # Errors
    /// What `observer` or the head says.
    pub fn logits(&self, hidden: &Tensor, observer: &mut dyn Observe) -> Result<Tensor> {
        self.head.forward(hidden, observer)
    }

    /// Calls `change` with each linear layer, from the input to the head.
    ///
    /// # Errors
    /// The first error of `change`.
    pub fn for_each_linear(
        &mut self,
        mut change: impl FnMut(&mut Linear) -> Result<()>,
    ) -> Result<()> {
        for layer in &mut self.layers {
            layer.linears().into_iter().try_for_each(&mut change)?;
        }
        change(&mut self.head)
    }

    /// The layer that gives logits.
    pub(crate) fn head(&self) -> &Linear {
        &self.head
    }

    /// Whether the head, where it has the weights of the embedding, has its codes too.
    pub(crate) fn check_head(&self) -> Result<()> {
        let own = match (self.head.made(), self.embedding.made()) {
            (Some(head), Some(embedding)) => !Arc::ptr_eq(head, embedding),
            (None, None) => false,
            _ => true,
        };
        match own && self.config.tied {
            true => Err(Error::TiedHead),
            false => Ok(()),
        }
    }

    /// The linear layers that have a tensor, and the embedding.
    pub(crate) fn parts(&self) -> (Vec<&Linear>, &Table) {
        let mut linears: Vec<&Linear> = self.layers.iter().flat_map(Layer::parts).collect();
        // The head of the embedding's weights has no tensor of its own.
        if !self.config.tied {
            linears.push(&self.head);
        }
        (linears, &self.embedding)
    }

    pub(crate) fn quantize(&mut self, scheme: &Scheme) -> Result<()> {
        for layer in &mut self.layers {
            let mut linears = layer.linears().into_iter();
            linears.try_for_each(|linear| linear.quantize(scheme))?;
        }
        if scheme.embeddings {
            let scheme = scheme.of_embeddings();
            self.embedding.quantize(&scheme)?;
            match self.embedding.made().filter(|_| self.config.tied) {
                Some(made) => self.head.set_made(made.clone(), scheme.inputs)?,
                None => self.head.quantize(&scheme)?,
            }
        }
        Ok(())
    }
}

/// Normalization by the root of the mean square: x·w/√(mean(x²) + ε).
#[derive(Clone, Debug)]
struct Norm {
    weight: Tensor,
    epsilon: f32,
}

impl Norm {
    fn read(config: &DecoderConfig, name: &str, size: usize, weights: &Weights) -> Result<Self> {
        Ok(Self {
            weight: weights.get(&format!("{name}.weight"), &[size])?,
            epsilon: config.epsilon as f32,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(rms_norm(x, &self.weight, self.epsilon)?)
    }
}
