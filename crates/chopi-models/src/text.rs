//! From texts to tokens and back.

use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use crate::config::Config;
use crate::error::{Error, Result};

impl From<tokenizers::Error> for Error {
    fn from(error: tokenizers::Error) -> Self {
        Self::Tokenizer(error.to_string())
    }
}

/// Reads `tokenizer.json` of a model's folder, to give all tokens of a text and no others.
pub(crate) fn tokenizer(folder: &Path) -> Result<Tokenizer> {
    let path = folder.join("tokenizer.json");
    let text = chopi_formats::file::read(&path)?;
    let mut tokenizer = Tokenizer::from_bytes(text).map_err(|error| Error::Malformed {
        path,
        what: error.to_string(),
    })?;
    tokenizer.with_padding(None);
    tokenizer.with_truncation(None)?;
    Ok(tokenizer)
}

/// The tokens that end a text, from `generation_config.json` or else `config.json`.
pub(crate) fn end_tokens(folder: &Path, config: &Config) -> Result<Vec<u32>> {
    let generation = Config::read_optional(folder.join("generation_config.json"))?;
    for config in generation.iter().chain([config]) {
        let expected = "a token, or a list of tokens";
        if let Some(Value::Array(_)) = config.value(KEY) {
            return config.needed(KEY, expected);
        }
        if let Some(token) = config.optional(KEY, expected)? {
            return Ok(vec![token]);
        }
    }
    Ok(Vec::new())
}

const KEY: &str = "eos_token_id";
