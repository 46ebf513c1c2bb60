//! Encoders like BERT.

mod config;
mod layer;
mod pooling;

use std::ops::Range;

use candle_core::{Device, Tensor};
use candle_nn::ops::layer_norm;

use crate::config::Config;
use crate::error::{Error, Result};
use crate::layerwise::Work;
use crate::linear::{Linear, Made, Table};
use crate::observe::Observe;
use crate::scheme::Scheme;
use crate::weights::Weights;

use layer::Layer;

pub(crate) use config::{EncoderConfig, MODEL_TYPES};
pub(crate) use pooling::Pooling;

/// An encoder: from the tokens of texts to a hidden state for each token.
#[derive(Clone, Debug)]
pub struct Encoder {
    config: EncoderConfig,
    words: Table,
    /// \[positions, hidden\].
    positions: Tensor,
    /// The embedding of the first text of two, which here is the only one; \[hidden\].
    kind: Tensor,
    norm: Norm,
    layers: Vec<Layer>,
}

impl Encoder {
    pub(crate) fn load(config: &Config, model_type: &str, weights: &Weights) -> Result<Self> {
        let config = EncoderConfig::new(config, model_type)?;
        // Models with a head on top have the encoder under its name.
        let names = ["", "bert.", "roberta."];
        let words = |prefix: &str| format!("{prefix}embeddings.word_embeddings");
        let has = |prefix: &&str| weights.has(&format!("{}.weight", words(prefix)));
        let prefix = names.into_iter().find(has).unwrap_or_default();
        let (at, hidden) = (format!("{prefix}embeddings"), config.hidden);
        let table =
            |name: &str, rows: usize| weights.get(&format!("{at}.{name}.weight"), &[rows, hidden]);
        let name = format!("{}.weight", words(prefix));
        let table_of_words = weights.matrix(&name, (config.vocabulary, hidden))?;
        let kinds = table("token_type_embeddings", config.kinds)?;
        let layer =
            |index| Layer::read(&config, &format!("{prefix}encoder.layer.{index}"), weights);
        Ok(Self {
            words: Table::new(&words(prefix), &table_of_words)?,
            positions: table("position_embeddings", config.positions)?,
            kind: kinds.get(0)?,
            norm: Norm::read(&config, &format!("{at}.LayerNorm"), weights)?,
            layers: (0..config.layers).map(layer).collect::<Result<_>>()?,
            config,
        })
    }

    /// The largest number of tokens of a text.
    pub fn positions(&self) -> usize {
        self.config.positions - self.config.first_position
    }

    /// The length of a hidden state.
    pub fn hidden_size(&self) -> usize {
        self.config.hidden
    }

    /// The hidden states of the tokens of each text, \[tokens, hidden\]. The linear layers run on all texts at
    /// once, without anything that fills up.
    ///
    /// # Errors
    /// [`Error::TooLong`], [`Error::TooShort`] and [`Error::Token`] for a text; what `observer` says; what a layer
    /// says.
    pub fn hidden(&self, texts: &[&[u32]], observer: &mut dyn Observe) -> Result<Vec<Tensor>> {
        if texts.is_empty() {
            return Ok(Vec::new());
        }
        let (mut x, places) = self.embedded(texts)?;
        for layer in &self.layers {
            x = layer.forward(&x, &places, observer)?;
        }
        let of_text = |place: &Range<usize>| Ok(x.narrow(0, place.start, place.len())?);
        places.iter().map(of_text).collect()
    }

    /// What the first layer takes for some texts, \[tokens, hidden\], and where each lies.
    fn embedded(&self, texts: &[&[u32]]) -> Result<(Tensor, Vec<Range<usize>>)> {
        let mut places: Vec<Range<usize>> = Vec::with_capacity(texts.len());
        for text in texts {
            self.check(text)?;
            let start = places.last().map_or(0, |place| place.end);
            places.push(start..start + text.len());
        }
        let tokens = texts.concat();
        let first = self.config.first_position as u32;
        let positions = texts
            .iter()
            .flat_map(|text| (0..text.len() as u32).map(|i| first + i));
        let positions = Tensor::from_iter(positions, &Device::Cpu)?;
        let x = self.words.lookup(&tokens)?;
        let x = (x + self.positions.index_select(&positions, 0)?)?;
        let x = self.norm.forward(&x.broadcast_add(&self.kind)?)?;
        Ok((x, places))
    }

    /// Quantizes the layers one after the other, each on what texts have become before it.
    pub(crate) fn walk(&mut self, texts: &[Vec<u32>], work: &mut Work<'_>) -> Result<()> {
        let texts: Vec<&[u32]> = texts.iter().map(|tokens| &**tokens).collect();
        let (mut x, places) = self.embedded(&texts)?;
        for layer in &mut self.layers {
            let name = layer.parts()[0].name().to_owned();
            work.layer(&name, |try_out, act| match try_out {
                true => layer.stages(&mut x.clone(), &places, act),
                false => layer.stages(&mut x, &places, act),
            })?;
        }
        Ok(())
    }

    fn check(&self, text: &[u32]) -> Result<()> {
        let (tokens, limit) = (text.len(), self.positions());
        if tokens > limit {
            return Err(Error::TooLong { tokens, limit });
        }
        if tokens == 0 {
            return Err(Error::TooShort { tokens, least: 1 });
        }
        let largest = self.config.vocabulary - 1;
        match text.iter().find(|&&token| token as usize > largest) {
            Some(&token) => Err(Error::Token { token, largest }),
            None => Ok(()),
        }
    }

    /// Calls `change` with each linear layer, from the input to the output.
    ///
    /// # Errors
    /// The first error of `change`.
    pub fn for_each_linear(
        &mut self,
        mut change: impl FnMut(&mut Linear) -> Result<()>,
    ) -> Result<()> {
        let layers = self.layers.iter_mut();
        layers
            .flat_map(|layer| layer.linears())
            .try_for_each(&mut change)
    }

    /// The tensors that are not as in the model's files, by their names.
    pub(crate) fn changed(&self) -> Vec<(String, &Made)> {
        let linears = self.linears().flat_map(Linear::changed);
        linears.chain(self.words.changed()).collect()
    }

    /// All linear layers.
    pub(crate) fn linears(&self) -> impl Iterator<Item = &Linear> {
        self.layers.iter().flat_map(Layer::parts)
    }

    pub(crate) fn quantize_embeddings(&mut self, scheme: &Scheme) -> Result<()> {
        self.words.quantize(&scheme.of_embeddings())
    }
}

/// Normalization to mean 0 and variance 1: (x − mean(x))/√(var(x) + ε)·w + b.
#[derive(Clone, Debug)]
struct Norm {
    weight: Tensor,
    bias: Tensor,
    epsilon: f32,
}

impl Norm {
    fn read(config: &EncoderConfig, name: &str, weights: &Weights) -> Result<Self> {
        let get = |of: &str| weights.get(&format!("{name}.{of}"), &[config.hidden]);
        Ok(Self {
            weight: get("weight")?,
            bias: get("bias")?,
            epsilon: config.epsilon as f32,
        })
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(layer_norm(x, &self.weight, &self.bias, self.epsilon)?)
    }
}
