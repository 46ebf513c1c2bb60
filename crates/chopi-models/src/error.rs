//! What can be wrong with a model or with what it is asked.

use std::io;
use std::path::PathBuf;

/// An error of this crate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A file cannot be read or written.
    #[error("{}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file of the model is not what it should be.
    #[error("{}: {what}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The configuration of a model asks for what this crate does not have.
    #[error("config.json: {key} is {found}, expected {expected}")]
    Config {
        /// The key in the configuration.
        key: String,
        /// Its value.
        found: String,
        /// What it may be.
        expected: String,
    },
    /// A tensor that the configuration asks for is not there.
    #[error("there is no tensor {name}, of shape {shape:?} by config.json")]
    Missing {
        /// The name of the tensor.
        name: String,
        /// The shape that it should have.
        shape: Vec<usize>,
    },
    /// A tensor has another shape than the configuration asks for.
    #[error("the tensor {name} has the shape {found:?}, expected {expected:?} by config.json")]
    Shape {
        /// The name of the tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that it should have.
        expected: Vec<usize>,
    },
    /// A tensor has a type that is not read.
    #[error("the tensor {name} has the dtype {dtype}, expected {expected}")]
    Dtype {
        /// The name of the tensor.
        name: String,
        /// Its dtype.
        dtype: String,
        /// What it may be.
        expected: &'static str,
    },
    /// The values of a tensor cannot be computed.
    #[error("the tensor {name}: {fault}")]
    Values {
        /// The name of the tensor.
        name: String,
        /// What is wrong with it.
        fault: Box<chopi_formats::Fault>,
    },
    /// The files of a model cannot be read, or are not what they should be.
    #[error(transparent)]
    Formats(Box<chopi_formats::Error>),
    /// A model is asked for what only the other family does.
    #[error("{name} is {found}, expected {expected}")]
    Family {
        /// The model's `model_type`.
        name: String,
        /// What it is.
        found: &'static str,
        /// What is needed.
        expected: &'static str,
    },
    /// A head has codes of its own, but by `config.json` the weights of the embedding, whose codes are others.
    #[error(
        "lm_head has codes of its own, which tie_word_embeddings of config.json does not allow in files; quantize \
         the embeddings too"
    )]
    TiedHead,
    /// What the tokenizer says.
    #[error("the tokenizer: {0}")]
    Tokenizer(String),
    /// There are more tokens than the model has positions.
    #[error("there are {tokens} tokens, expected at most {limit}")]
    TooLong {
        /// The number of tokens.
        tokens: usize,
        /// The number of positions.
        limit: usize,
    },
    /// There are fewer tokens than the work needs.
    #[error("there are {tokens} tokens, expected at least {least}")]
    TooShort {
        /// The number of tokens.
        tokens: usize,
        /// The number that is needed.
        least: usize,
    },
    /// A token that the model does not have.
    #[error("the token {token} is not there, expected at most {largest}")]
    Token {
        /// The token.
        token: u32,
        /// The largest that there is.
        largest: usize,
    },
    /// A layer cannot be quantized or run.
    #[error("{name}: {source}")]
    Layer {
        /// The name of the layer.
        name: String,
        /// What is wrong.
        source: chopi_matmul::Error,
    },
    /// A layer cannot be quantized with data.
    #[error("{name}: {source}")]
    Ptq {
        /// The name of the layer.
        name: String,
        /// What is wrong.
        source: chopi_ptq::Error,
    },
    /// A model whose hidden states cannot be rotated.
    #[error("{name} cannot be rotated: {reason}")]
    Rotation {
        /// What cannot be rotated.
        name: String,
        /// Why not.
        reason: String,
    },
    /// A text from which nothing can be taken.
    #[error("there is no line with text, or none is to be taken")]
    NoText,
    /// A scheme needs data, and there are none.
    #[error("{what} needs data: quantize the model on a text")]
    NeedsData {
        /// What needs data.
        what: String,
    },
    /// What candle says, or a layer within candle's modules.
    #[error(transparent)]
    Candle(#[from] candle_core::Error),
}

/// The result of this crate's functions.
pub type Result<T, E = Error> = std::result::Result<T, E>;

impl From<chopi_formats::Error> for Error {
    fn from(error: chopi_formats::Error) -> Self {
        Self::Formats(Box::new(error))
    }
}

impl Error {
    /// An error of the configuration.
    pub(crate) fn config(
        key: impl Into<String>,
        found: impl ToString,
        expected: impl Into<String>,
    ) -> Self {
        Self::Config {
            key: key.into(),
            found: found.to_string(),
            expected: expected.into(),
        }
    }

    /// What turns an error of quantization with data into one that names the layer.
    pub(crate) fn ptq(name: &str) -> impl FnOnce(chopi_ptq::Error) -> Self {
        let name = name.to_owned();
        |source| Self::Ptq { name, source }
    }

    /// What turns an error of chopi into one that names the layer.
    pub(crate) fn layer<E: Into<chopi_matmul::Error>>(name: &str) -> impl FnOnce(E) -> Self {
        let name = name.to_owned();
        |source| Self::Layer {
            name,
            source: source.into(),
        }
    }
}
