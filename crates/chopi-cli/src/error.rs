//! What can be wrong with the files that the program is given.

use std::io;
use std::path::PathBuf;

pub use chopi::formats::Fault;

pub type Result<T> = std::result::Result<T, Error>;

/// What was wrong: each message names the file, and the tensor where it is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Formats(#[from] chopi::formats::Error),

    #[error("{path}: tensor {tensor:?}: there is no such tensor in {other}")]
    Unpaired {
        path: PathBuf,
        tensor: String,
        other: PathBuf,
    },

    #[error("{path}: tensor {tensor:?}: is {found}, but {expected} in {other}")]
    OtherTensor {
        path: PathBuf,
        tensor: String,
        found: String,
        expected: String,
        other: PathBuf,
    },

    #[error(
        "{path}: no tensor that can be quantized{}: {found}",
        if *explicit { " matches --include" } else { "" }
    )]
    NothingQuantized {
        path: PathBuf,
        /// What there is, and why it is not quantized.
        found: String,
        /// Whether the command line names tensors to take.
        explicit: bool,
    },

    #[error(
        "{path}: nothing is written: transformers cannot open quantized weights of {model_type:?}, some of \
         whose weights it splits, merges or replaces on loading"
    )]
    Unopenable { path: PathBuf, model_type: String },

    #[error("{path}: nothing is written: {reasons}")]
    Refused { path: PathBuf, reasons: String },

    #[error(
        "{path}: weights are quantized already: {found}, the first of {count} tensors that belong to \
         quantized weights"
    )]
    QuantizedWeights {
        path: PathBuf,
        found: String,
        count: usize,
    },

    #[error(
        "{path}: is not a quantized model (it has no metadata under the key \"chopi\", no \
         config.json with a \"quantization_config\" and no blocks of GGUF)"
    )]
    NoQuantizedModel { path: PathBuf },

    #[error("{path}: bad plan of bits: {reason}")]
    Plan { path: PathBuf, reason: String },

    #[error("{path}: is quantized already (it has metadata under the key \"chopi\")")]
    AlreadyQuantized { path: PathBuf },

    #[error(transparent)]
    StatisticsFile(Box<chopi::ptq::Error>),

    #[error("{path}: layer {layer:?}: {reason}")]
    Statistics {
        path: PathBuf,
        layer: String,
        reason: String,
    },

    #[error("{path}: tensor {tensor:?}: {source}")]
    Method {
        path: PathBuf,
        tensor: String,
        source: Box<chopi::ptq::Error>,
    },

    #[cfg(feature = "models")]
    #[error("{path}: {source}")]
    Model {
        path: PathBuf,
        source: Box<chopi::models::Error>,
    },

    #[cfg(feature = "models")]
    #[error(transparent)]
    OfModelFile(Box<chopi::models::Error>),

    #[cfg(feature = "models")]
    #[error("{path}: {reason}")]
    Text { path: PathBuf, reason: String },

    #[cfg(feature = "models")]
    #[error(
        "{path}: --method finds no weight of a layer among the tensors that are quantized, such as {tensor:?} (the \
         tensors of GGUF files have names of their own)"
    )]
    NoLayer { path: PathBuf, tensor: String },

    #[cfg(feature = "models")]
    #[error("{path}: does not hold the layers of this run: {reason}")]
    OtherRun { path: PathBuf, reason: String },

    #[cfg(feature = "models")]
    #[error("{path}: is an encoder, which is evaluated --against a float model")]
    NothingToCompare { path: PathBuf },

    #[cfg(feature = "models")]
    #[error("{path}: its embeddings are not as long as those of {other}")]
    OtherEmbeddings { path: PathBuf, other: PathBuf },

    #[error("standard output: cannot write: {0}")]
    Print(io::Error),

    #[error("{path}: {source}")]
    Budget { path: PathBuf, source: chopi::Error },

    #[error("the page cannot be made: {0}")]
    Page(#[from] askama::Error),

    #[error("CHOPI_ISA: {0}")]
    Isa(#[source] chopi::cpu::IsaError),

    #[error("cannot start the threads: {0}")]
    Threads(#[from] rayon::ThreadPoolBuildError),
}

impl From<chopi::ptq::Error> for Error {
    fn from(source: chopi::ptq::Error) -> Self {
        Self::StatisticsFile(Box::new(source))
    }
}

#[cfg(feature = "models")]
impl Error {
    /// What is wrong with the model in a folder; errors of its files name them already.
    pub fn model(folder: &std::path::Path, source: chopi::models::Error) -> Self {
        use chopi::models::Error::{File, Formats, Malformed};
        match source {
            File { .. } | Malformed { .. } | Formats(_) => Self::OfModelFile(Box::new(source)),
            _ => Self::Model {
                path: folder.to_owned(),
                source: Box::new(source),
            },
        }
    }
}
