//! Decoders like Llama.

mod attention;
mod config;
mod layer;
mod memory;
mod rotary;
mod rotate;

use std::sync::Arc;

use candle_core::Tensor;
use candle_nn::ops::rms_norm;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::layerwise::{Before, Divide, Stage, Work, each};
use crate::linear::{Linear, Made, Table, made_floats};
use crate::observe::Observe;
use crate::scheme::{Inputs, Scheme};
use crate::weights::Weights;

use layer::Layer;
use memory::Memory;

pub(crate) use config::{DecoderConfig, MODEL_TYPES};
pub use memory::CacheFormat;

/// A decoder: from the tokens of a text to the logits of the token after each.
#[derive(Clone, Debug)]
pub struct Decoder {
    config: DecoderConfig,
    embedding: Table,
    layers: Vec<Layer>,
    norm: Norm,
    head: Linear,
    pub(crate) cache_format: CacheFormat,
}

/// The name of the head, which is quantized with the embeddings.
pub(crate) const HEAD: &str = "lm_head";
/// The name of the embedding.
const EMBEDDING: &str = "model.embed_tokens";

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

    /// The bytes of the keys and values of these tokens.
    pub fn bytes(&self) -> usize {
        self.layers.iter().map(Memory::bytes).sum()
    }
}

impl Decoder {
    pub(crate) fn load(config: &Config, model_type: &str, weights: &Weights) -> Result<Self> {
        let config = DecoderConfig::new(config, model_type)?;
        let (vocabulary, hidden) = (config.vocabulary, config.hidden);
        let embedding = weights.matrix(&format!("{EMBEDDING}.weight"), (vocabulary, hidden))?;
        let layer = |index| Layer::read(&config, index, weights);
        let layers = (0..config.layers).map(layer).collect::<Result<_>>()?;
        let norm = Norm::read(&config, "model.norm", hidden, weights)?;
        let head = match config.tied {
            true => Linear::new(HEAD, &embedding, None, weights.inputs(HEAD))?,
            false => Linear::read(weights, HEAD, (hidden, vocabulary), false)?,
        };
        Ok(Self {
            embedding: Table::new(EMBEDDING, &embedding)?,
            config,
            layers,
            norm,
            head,
            cache_format: CacheFormat::default(),
        })
    }

    /// Keys and values of no tokens, which are kept as [`Model::with_cache`](crate::Model::with_cache) says.
    pub fn cache(&self) -> Cache {
        Cache {
            layers: vec![Memory::new(self.cache_format); self.layers.len()],
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
        let first = cache.tokens;
        self.check(first, tokens)?;
        let mut x = self.embedding.lookup(tokens)?;
        let angles = self.config.rotary.angles(first, tokens.len())?;
        for (layer, memory) in self.layers.iter().zip(&mut cache.layers) {
            x = layer.forward(&x, first, &angles, memory, observer)?;
        }
        cache.tokens = first + tokens.len();
        self.norm.forward(&x)
    }

    /// Checks tokens that follow `first` others.
    fn check(&self, first: usize, tokens: &[u32]) -> Result<()> {
        let (tokens_now, limit) = (first + tokens.len(), self.config.positions);
        if tokens_now > limit {
            let tokens = tokens_now;
            return Err(Error::TooLong { tokens, limit });
        }
        let largest = self.config.vocabulary - 1;
        match tokens.iter().find(|&&token| token as usize > largest) {
            Some(&token) => Err(Error::Token { token, largest }),
            None => Ok(()),
        }
    }

    /// Whether the head has the weights of the embedding.
    pub fn is_tied(&self) -> bool {
        self.config.tied
    }

    /// Quantizes the layers one after the other, each on what texts have become before it.
    pub(crate) fn walk(&mut self, texts: &[Vec<u32>], work: &mut Work<'_>) -> Result<()> {
        let mut states = Vec::with_capacity(texts.len());
        let mut angles = Vec::with_capacity(texts.len());
        for tokens in texts {
            self.check(0, tokens)?;
            states.push(self.embedding.lookup(tokens)?);
            angles.push(self.config.rotary.angles(0, tokens.len())?);
        }
        for layer in &mut self.layers {
            let name = layer.parts()[0].name().to_owned();
            work.layer(&name, |try_out, act| match try_out {
                true => layer.stages(&mut states.clone(), &angles, act),
                false => layer.stages(&mut states, &angles, act),
            })?;
        }
        if self.config.tied {
            return Ok(());
        }
        let (norm, head) = (&self.norm, &mut self.head);
        let mut inputs = each(&states, |x| norm.forward(x))?;
        work.layer(HEAD, |_, act| {
            act(Stage {
                linears: vec![head],
                before: None,
                inputs: &mut inputs,
            })
        })
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

    /// The tensors that are not as in the model's files, by their names.
    pub(crate) fn changed(&self) -> Vec<(String, &Made)> {
        let norms = self
            .layers
            .iter()
            .flat_map(Layer::norms)
            .chain([&self.norm]);
        let norms = norms.filter_map(|norm| Some((norm.name.clone(), norm.made.as_ref()?)));
        let layers = self.layers.iter().flat_map(Layer::parts);
        // The head of the embedding's weights has no tensor of its own.
        let head = Some(&self.head).filter(|_| !self.config.tied);
        let linears = layers.chain(head).flat_map(Linear::changed);
        norms
            .chain(linears)
            .chain(self.embedding.changed())
            .collect()
    }

    /// All linear layers.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers
            .iter()
            .flat_map(Layer::parts)
            .chain([&self.head])
    }

    pub(crate) fn quantize_embeddings(&mut self, scheme: &Scheme) -> Result<()> {
        let scheme = scheme.of_embeddings();
        self.embedding.quantize(&scheme)?;
        match self.embedding.made().filter(|_| self.config.tied) {
            Some(made) => self.head.set_made(made.clone(), Inputs::Dynamic),
            None => self.head.quantize(&scheme),
        }
    }
}

/// Normalization by the root of the mean square: x·w/√(mean(x²) + ε).
#[derive(Clone, Debug)]
struct Norm {
    /// The name of the weight.
    name: String,
    weight: Tensor,
    epsilon: f32,
    made: Option<Made>,
}

impl Norm {
    fn read(config: &DecoderConfig, name: &str, size: usize, weights: &Weights) -> Result<Self> {
        let name = format!("{name}.weight");
        Ok(Self {
            weight: weights.get(&name, &[size])?,
            name,
            epsilon: config.epsilon as f32,
            made: None,
        })
    }

    /// Gives the weights, which become 1.
    fn take_gains(&mut self) -> Result<Tensor> {
        let ones = self.weight.ones_like()?;
        self.made = Some(made_floats(&ones)?);
        Ok(std::mem::replace(&mut self.weight, ones))
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(rms_norm(x, &self.weight, self.epsilon)?)
    }
}

impl Divide for Norm {
    fn kind(&self) -> Before {
        Before::Norm
    }

    fn divide(&mut self, by: &Tensor) -> Result<()> {
        self.weight = (&self.weight / by)?;
        self.made = Some(made_floats(&self.weight)?);
        Ok(())
    }
}
