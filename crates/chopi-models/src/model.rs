//! A model as its folder has it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use candle_core::Tensor;
use chopi_ptq::Rotation;
use tokenizers::Tokenizer;

use crate::config::Config;
use crate::decoder::{self, CacheFormat, Decoder, HEAD};
use crate::encoder::{self, Encoder, Pooling};
use crate::error::{Error, Result};
use crate::linear::Linear;
use crate::observe::Observe;
use crate::scheme::Scheme;
use crate::text::{end_tokens, tokenizer};
use crate::weights::Weights;

/// Loads a model from its folder: `config.json`, `tokenizer.json` and what [`chopi_formats::open`] reads, floats,
/// chopi's own layout or compressed-tensors. Floats become `f32`; integers run as [`Inputs`](crate::Inputs) says in a
/// folder that [`Model::save`] wrote, and in others with inputs of 8 bits, each row by its own range.
///
/// The path may be that of a file, of safetensors or GGUF, with the other files beside it. The blocks of a GGUF file
/// become `f32`, as ggml dequantizes them.
///
/// # Errors
/// A file that is absent or not what it should be; a `model_type` or a setting that is not supported, which the
/// error names with what is.
pub fn load(path: impl AsRef<Path>) -> Result<Model> {
    let path = path.as_ref();
    let folder = match path.is_file() {
        true => path.parent().unwrap_or(path),
        false => path,
    };
    let config = Config::read(folder.join("config.json"))?;
    let weights = Weights::open(path, &config)?;
    let model_type: String = config.needed("model_type", "the name of an architecture")?;
    Ok(Model {
        network: Network::load(&config, &model_type, &weights)?,
        tokenizer: tokenizer(folder)?,
        end_tokens: end_tokens(folder, &config)?,
        pooling: Pooling::read(folder)?,
        folder: folder.to_owned(),
        model_type,
        weights: Arc::new(weights),
        config: Arc::new(config),
    })
}

/// A model with its tokenizer: an encoder or a decoder.
#[derive(Clone, Debug)]
pub struct Model {
    pub(crate) network: Network,
    pub(crate) tokenizer: Tokenizer,
    pub(crate) end_tokens: Vec<u32>,
    pooling: Pooling,
    folder: PathBuf,
    model_type: String,
    pub(crate) weights: Arc<Weights>,
    pub(crate) config: Arc<Config>,
}

/// What computes.
#[derive(Clone, Debug)]
pub enum Network {
    /// From texts to embeddings.
    Encoder(Box<Encoder>),
    /// From a text to what follows.
    Decoder(Box<Decoder>),
}

impl Network {
    fn load(config: &Config, model_type: &str, weights: &Weights) -> Result<Self> {
        if decoder::MODEL_TYPES.contains(&model_type) {
            let decoder = Decoder::load(config, model_type, weights)?;
            return Ok(Self::Decoder(Box::new(decoder)));
        }
        if encoder::MODEL_TYPES.contains(&model_type) {
            let encoder = Encoder::load(config, model_type, weights)?;
            return Ok(Self::Encoder(Box::new(encoder)));
        }
        let known = [&encoder::MODEL_TYPES[..], &decoder::MODEL_TYPES].concat();
        let expected = format!("one of {}", known.join(", "));
        Err(Error::config("model_type", model_type, expected))
    }
}

impl Model {
    /// The folder that the model was loaded from.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The `model_type` of `config.json`.
    pub fn model_type(&self) -> &str {
        &self.model_type
    }

    /// What computes.
    pub fn network(&self) -> &Network {
        &self.network
    }

    /// What makes tokens of texts.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The tokens of a text, with those that the tokenizer adds at its start and end.
    ///
    /// # Errors
    /// [`Error::Tokenizer`].
    pub fn tokens(&self, text: &str) -> Result<Vec<u32>> {
        Ok(self.tokenizer.encode_fast(text, true)?.get_ids().to_vec())
    }

    /// The decoder with its hidden states, and the values of attention head by head, multiplied by fixed orthogonal
    /// matrices, Hadamard matrices with random signs, which are fused into its weights (QuaRot, Ashkboos et al. 2024):
    /// it computes the same, but for the rounding of floats, and no channel of hidden states is much larger than others.
    /// A head that had the weights of the embedding has its own then.
    ///
    /// # Errors
    /// [`Error::Family`] for an encoder; [`Error::Rotation`] for weights that are integers, and where there is no Hadamard
    /// matrix of the length of hidden states: that is a power of 2 times 1 or times q + 1, q a prime and 3 modulo 4.
    pub fn rotated(mut self) -> Result<Self> {
        self.decoder()?;
        if let Network::Decoder(decoder) = &mut self.network {
            decoder.rotate()?;
        }
        Ok(self)
    }

    /// The model with its linear layers, and its embeddings where the scheme says so, quantized.
    ///
    /// # Errors
    /// What quantizing a layer says, with the layer's name.
    pub fn quantize(mut self, scheme: &Scheme) -> Result<Self> {
        if scheme.method.rotation == Rotation::Hadamard {
            self = self.rotated()?;
        }
        self.for_each_linear(|linear| match linear.name() {
            HEAD => Ok(()),
            _ => linear.quantize(scheme),
        })?;
        if scheme.embeddings {
            self.quantize_embeddings(scheme)?;
        }
        Ok(self)
    }

    pub(crate) fn quantize_embeddings(&mut self, scheme: &Scheme) -> Result<()> {
        match &mut self.network {
            Network::Encoder(encoder) => encoder.quantize_embeddings(scheme),
            Network::Decoder(decoder) => decoder.quantize_embeddings(scheme),
        }
    }

    /// The linear layers, from the input to the output.
    pub fn linears(&self) -> Box<dyn Iterator<Item = &Linear> + '_> {
        match &self.network {
            Network::Encoder(encoder) => Box::new(encoder.linears()),
            Network::Decoder(decoder) => Box::new(decoder.linears()),
        }
    }

    /// Calls `change` with each linear layer, from the input to the output.
    ///
    /// # Errors
    /// The first error of `change`.
    pub fn for_each_linear(&mut self, change: impl FnMut(&mut Linear) -> Result<()>) -> Result<()> {
        match &mut self.network {
            Network::Encoder(encoder) => encoder.for_each_linear(change),
            Network::Decoder(decoder) => decoder.for_each_linear(change),
        }
    }

    /// Runs the model on the tokens of a text, so that `observer` sees the input of each linear layer.
    ///
    /// # Errors
    /// What the tokenizer, the model or `observer` says; [`Error::TooLong`].
    pub fn observe(&self, text: &str, observer: &mut dyn Observe) -> Result<()> {
        let tokens = self.tokens(text)?;
        match &self.network {
            Network::Encoder(encoder) => {
                encoder.hidden(&[&tokens], observer)?;
            }
            Network::Decoder(decoder) => {
                let hidden = decoder.hidden(&tokens, &mut decoder.cache(), observer)?;
                decoder.logits(&hidden, observer)?;
            }
        }
        Ok(())
    }

    /// The decoder with another form of the keys and values that it keeps while it runs, which files do not keep.
    ///
    /// # Errors
    /// [`Error::Family`] for an encoder.
    pub fn with_cache(mut self, format: CacheFormat) -> Result<Self> {
        self.decoder()?;
        if let Network::Decoder(decoder) = &mut self.network {
            decoder.cache_format = format;
        }
        Ok(self)
    }

    /// The embeddings of texts, each as `sentence-transformers` is configured to pool it in the model's folder:
    /// the mean of the last hidden states, most often, of length 1. A text of more tokens than that configuration
    /// or the model takes is cut.
    ///
    /// # Errors
    /// [`Error::Family`] for a decoder; what the tokenizer or a layer says.
    pub fn embed(&self, texts: &[impl AsRef<str>]) -> Result<Vec<Vec<f32>>> {
        let encoder = self.encoder()?;
        let limit = self.pooling.max_tokens.unwrap_or(usize::MAX);
        let limit = limit.min(encoder.positions());
        let mut embeddings = Vec::with_capacity(texts.len());
        for texts in texts.chunks(BATCH) {
            let tokens = texts.iter().map(|text| self.cut(text.as_ref(), limit));
            let tokens = tokens.collect::<Result<Vec<_>>>()?;
            let tokens: Vec<&[u32]> = tokens.iter().map(|tokens| &**tokens).collect();
            for hidden in encoder.hidden(&tokens, &mut ())? {
                let embedding: Tensor = self.pooling.apply(&hidden)?;
                embeddings.push(embedding.to_vec1()?);
            }
        }
        Ok(embeddings)
    }

    /// The tokens of a text, at most so many, those that the tokenizer adds at its end among them.
    pub(crate) fn cut(&self, text: &str, limit: usize) -> Result<Vec<u32>> {
        let mut encoding = self.tokenizer.encode(text, true)?;
        if encoding.len() > limit {
            let added = self.tokenizer.get_post_processor().map_or(0, |processor| {
                tokenizers::PostProcessor::added_tokens(processor, false)
            });
            encoding = self.tokenizer.encode(text, false)?;
            encoding.truncate(
                limit.saturating_sub(added),
                0,
                tokenizers::TruncationDirection::Right,
            );
            encoding = self.tokenizer.post_process(encoding, None, true)?;
        }
        Ok(encoding.get_ids().to_vec())
    }

    pub(crate) fn encoder(&self) -> Result<&Encoder> {
        match &self.network {
            Network::Encoder(encoder) => Ok(encoder),
            Network::Decoder(_) => Err(self.other_family("a decoder", "an encoder")),
        }
    }

    pub(crate) fn decoder(&self) -> Result<&Decoder> {
        match &self.network {
            Network::Decoder(decoder) => Ok(decoder),
            Network::Encoder(_) => Err(self.other_family("an encoder", "a decoder")),
        }
    }

    fn other_family(&self, found: &'static str, expected: &'static str) -> Error {
        Error::Family {
            name: self.model_type.clone(),
            found,
            expected,
        }
    }
}

/// How many texts are embedded at a time.
const BATCH: usize = 32;
