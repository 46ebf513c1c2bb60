//! The encoder of BERT and, on top of it, sentence embeddings: the mean over the tokens, of length 1.

use candle_core::{D, DType, Result, Tensor};
use candle_nn::ops::softmax_last_dim;
use candle_nn::{Embedding, LayerNorm, Linear, Module, VarBuilder, embedding, layer_norm, linear};
use serde::Deserialize;

/// What `config.json` says about the model.
#[derive(Clone, Debug, Deserialize)]
pub struct Config {
    hidden_size: usize,
    intermediate_size: usize,
    layer_norm_eps: f64,
    max_position_embeddings: usize,
    num_attention_heads: usize,
    num_hidden_layers: usize,
    type_vocab_size: usize,
    vocab_size: usize,
}

/// Makes what multiplies of a linear layer.
pub type Dense = fn(Linear) -> Result<Box<dyn Module>>;

struct Attention {
    query: Box<dyn Module>,
    key: Box<dyn Module>,
    value: Box<dyn Module>,
    output: Box<dyn Module>,
    norm: LayerNorm,
    heads: usize,
}

struct Layer {
    attention: Attention,
    intermediate: Box<dyn Module>,
    output: Box<dyn Module>,
    norm: LayerNorm,
}

pub struct Bert {
    words: Embedding,
    positions: Embedding,
    /// The embedding of the first sentence of two, which here is the only one.
    kind: Tensor,
    norm: LayerNorm,
    layers: Vec<Layer>,
}

impl Attention {
    fn load(config: &Config, dense: Dense, vb: VarBuilder<'_>) -> Result<Self> {
        let size = config.hidden_size;
        let square = |name: &str| dense(linear(size, size, vb.pp(name))?);
        Ok(Self {
            query: square("self.query")?,
            key: square("self.key")?,
            value: square("self.value")?,
            output: square("output.dense")?,
            norm: layer_norm(size, config.layer_norm_eps, vb.pp("output.LayerNorm"))?,
            heads: config.num_attention_heads,
        })
    }

    /// `bias` is added to the scores, [sentences, 1, 1, tokens].
    fn forward(&self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let (batch, tokens, size) = x.dims3()?;
        let heads = |x: Tensor| {
            let x = x.reshape((batch, tokens, self.heads, size / self.heads))?;
            x.transpose(1, 2)?.contiguous()
        };
        let query = heads(self.query.forward(x)?)?;
        let key = heads(self.key.forward(x)?)?;
        let value = heads(self.value.forward(x)?)?;
        let scale = 1.0 / ((size / self.heads) as f64).sqrt();
        let scores = (query.matmul(&key.t()?)? * scale)?.broadcast_add(bias)?;
        let mixed = softmax_last_dim(&scores)?.matmul(&value)?;
        let mixed = mixed.transpose(1, 2)?.reshape((batch, tokens, size))?;
        self.norm.forward(&(self.output.forward(&mixed)? + x)?)
    }
}

impl Layer {
    fn load(config: &Config, dense: Dense, vb: VarBuilder<'_>) -> Result<Self> {
        let (small, large) = (config.hidden_size, config.intermediate_size);
        Ok(Self {
            attention: Attention::load(config, dense, vb.pp("attention"))?,
            intermediate: dense(linear(small, large, vb.pp("intermediate.dense"))?)?,
            output: dense(linear(large, small, vb.pp("output.dense"))?)?,
            norm: layer_norm(small, config.layer_norm_eps, vb.pp("output.LayerNorm"))?,
        })
    }

    fn forward(&self, x: &Tensor, bias: &Tensor) -> Result<Tensor> {
        let x = self.attention.forward(x, bias)?;
        let hidden = self.intermediate.forward(&x)?.gelu_erf()?;
        self.norm.forward(&(self.output.forward(&hidden)? + &x)?)
    }
}

impl Bert {
    /// The model, with what `dense` makes in the place of the encoder's linear layers.
    pub fn load(config: &Config, dense: Dense, vb: VarBuilder<'_>) -> Result<Self> {
        let (size, at) = (config.hidden_size, vb.pp("embeddings"));
        let table = |rows, name| embedding(rows, size, at.pp(name));
        let kinds = table(config.type_vocab_size, "token_type_embeddings")?;
        let layer = |i| Layer::load(config, dense, vb.pp(format!("encoder.layer.{i}")));
        Ok(Self {
            words: table(config.vocab_size, "word_embeddings")?,
            positions: table(config.max_position_embeddings, "position_embeddings")?,
            kind: kinds.embeddings().get(0)?,
            norm: layer_norm(size, config.layer_norm_eps, at.pp("LayerNorm"))?,
            layers: (0..config.num_hidden_layers)
                .map(layer)
                .collect::<Result<_>>()?,
        })
    }

    /// The embeddings of sentences, [sentences, size], from the tokens and from which of them are
    /// there, both [sentences, tokens].
    pub fn embed(&self, ids: &Tensor, mask: &Tensor) -> Result<Tensor> {
        let tokens = ids.dim(1)?;
        let positions = Tensor::arange(0, tokens as u32, ids.device())?;
        let x = self.words.forward(ids)?;
        let x = x.broadcast_add(&self.positions.forward(&positions)?)?;
        let mut x = self.norm.forward(&x.broadcast_add(&self.kind)?)?;

        let mask = mask.to_dtype(DType::F32)?;
        // 0 for tokens that are there; the others get no attention.
        let bias = ((&mask - 1.0)? * 1e9)?.unsqueeze(1)?.unsqueeze(1)?;
        for layer in &self.layers {
            x = layer.forward(&x, &bias)?;
        }
        let sum = x.broadcast_mul(&mask.unsqueeze(2)?)?.sum(1)?;
        // The length becomes 1 whatever the number of tokens is.
        sum.broadcast_div(&sum.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?)
    }
}
