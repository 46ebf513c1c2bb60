//! What `config.json` says of an encoder.

use crate::config::{Activation, Config};
use crate::error::{Error, Result};

/// The shape of an encoder, and what is special in its `model_type`.
#[derive(Clone, Debug)]
pub(crate) struct EncoderConfig {
    pub(crate) vocabulary: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    /// The rows of the table of positions.
    pub(crate) positions: usize,
    /// The row of a text's first token.
    pub(crate) first_position: usize,
    /// The rows of the table that tells the first of two texts from the second.
    pub(crate) kinds: usize,
    pub(crate) epsilon: f64,
    pub(crate) activation: Activation,
}

/// The `model_type`s of encoders.
pub(crate) const MODEL_TYPES: [&str; 3] = ["bert", "roberta", "xlm-roberta"];

impl EncoderConfig {
    /// Reads the configuration of a `model_type` among [`MODEL_TYPES`].
    pub(crate) fn new(config: &Config, model_type: &str) -> Result<Self> {
        let (hidden, heads) = (
            config.size("hidden_size")?,
            config.size("num_attention_heads")?,
        );
        if !hidden.is_multiple_of(heads) {
            let expected = format!("a divisor of hidden_size, {hidden}");
            return Err(Error::config("num_attention_heads", heads, expected));
        }
        let kind = "position_embedding_type";
        if let Some(found) = config.value(kind).filter(|&value| value != "absolute") {
            return Err(Error::config(kind, found, "absolute"));
        }
        if config.flag("is_decoder", false)? {
            return Err(Error::config("is_decoder", true, "false"));
        }
        let positions = config.size("max_position_embeddings")?;
        // RoBERTa counts from the token after the one that fills up.
        let first_position = match model_type {
            "bert" => 0,
            _ => config.optional("pad_token_id", "a token")?.unwrap_or(1_u32) as usize + 1,
        };
        if first_position >= positions {
            let expected = format!("more than pad_token_id and 1, {first_position}");
            return Err(Error::config(
                "max_position_embeddings",
                positions,
                expected,
            ));
        }
        Ok(Self {
            vocabulary: config.size("vocab_size")?,
            hidden,
            intermediate: config.size("intermediate_size")?,
            layers: config.size("num_hidden_layers")?,
            heads,
            positions,
            first_position,
            kinds: config.size("type_vocab_size")?,
            epsilon: config.epsilon("layer_norm_eps")?,
            activation: config.activation("hidden_act")?,
        })
    }
}
