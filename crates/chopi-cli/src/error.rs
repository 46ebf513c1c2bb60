//! What can be wrong with the files that the program is given.

use std::io;
use std::path::PathBuf;

use safetensors::{Dtype, SafeTensorError};

pub type Result<T> = std::result::Result<T, Error>;

/// What was wrong: each message names the file, and the tensor where it is one.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{path}: cannot read: {source}")]
    Read { path: PathBuf, source: io::Error },

    #[error("{path}: cannot write: {source}")]
    Write { path: PathBuf, source: io::Error },

    #[error("{path}: not a regular file")]
    NotRegular { path: PathBuf },

    #[error("{path}: is a folder, expected a safetensors file{hint}")]
    Folder { path: PathBuf, hint: &'static str },

    #[error("{path}: not a safetensors file: {reason}")]
    NoSafetensors { path: PathBuf, reason: String },

    #[error("{path}: not a safetensors file: it is empty")]
    Empty { path: PathBuf },

    #[error("{path}: not a valid safetensors file: {source}")]
    Header {
        path: PathBuf,
        source: SafeTensorError,
    },

    #[error("{path}: tensor {tensor:?}: {fault}")]
    Tensor {
        path: PathBuf,
        tensor: String,
        #[source]
        fault: Box<Fault>,
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
        "{path}: has no model.safetensors, no model.safetensors.index.json, and not one \
         safetensors file alone"
    )]
    NoModel { path: PathBuf },

    #[error(
        "{path}: is not a quantized model (it has no metadata under the key \"chopi\" and no \
         config.json with a \"quantization_config\")"
    )]
    NoQuantizedModel { path: PathBuf },

    #[error("{path}: bad \"quantization_config\": {reason}")]
    QuantizationConfig { path: PathBuf, reason: String },

    #[error("{path}: bad plan of bits: {reason}")]
    Plan { path: PathBuf, reason: String },

    #[error("{path}: bad JSON: {reason}")]
    Json { path: PathBuf, reason: String },

    #[error("{path}: the model is quantized already (its \"quantization_config\" says {method})")]
    AlreadyCompressed { path: PathBuf, method: String },

    #[error("{path}: exists and is not a folder")]
    NotFolder { path: PathBuf },

    #[error("{path}: exists and does not hold a quantized model, so that --force keeps it")]
    OutputNotQuantized { path: PathBuf },

    #[error("{path}: is quantized already (it has metadata under the key \"chopi\")")]
    AlreadyQuantized { path: PathBuf },

    #[error("{path}: was not quantized by chopi (it has no metadata under the key \"chopi\")")]
    NotQuantized { path: PathBuf },

    #[error("{path}: bad metadata under the key \"chopi\": {reason}")]
    Metadata { path: PathBuf, reason: String },

    #[error("{path}: the output is the input")]
    OutputIsInput { path: PathBuf },

    #[error("{path}: exists already (--force replaces it)")]
    OutputExists { path: PathBuf },

    #[error("{path}: is read-only")]
    OutputReadOnly { path: PathBuf },

    #[error("{path}: the header would be {len} bytes long, more than the {limit} of the format")]
    HeaderTooLong {
        path: PathBuf,
        len: usize,
        limit: usize,
    },

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

/// What was wrong with one tensor.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    #[error(transparent)]
    Quantizer(#[from] chopi::Error),

    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },

    #[error("holds NaN or infinity: the first of {count} is {value} at index {index:?}")]
    NonFinite {
        index: Vec<usize>,
        value: f64,
        count: usize,
    },

    #[error("to quantize it needs the name {name:?}, which another tensor has")]
    NameTaken { name: String },

    #[error(
        "has {rows} rows, of which compressed-tensors 0.20 cannot read packed zero points of 4 bits in groups; \
         it reads those of 9 rows and more"
    )]
    FewZeroPoints { rows: usize },

    #[error("the metadata say that it is quantized, but there is no tensor {name:?}")]
    Missing { name: String },

    #[error("there is no such tensor in {path}")]
    Unpaired { path: PathBuf },

    #[error("is {found}, but {expected} in {path}")]
    OtherTensor {
        found: String,
        expected: String,
        path: PathBuf,
    },

    #[error("no group of \"config_groups\" is for its module {module:?}")]
    NoGroup { module: String },

    #[error("has shape {shape:?}, expected a matrix")]
    NoMatrix { shape: Vec<usize> },

    #[error("is in the order of its activations ({name:?}), which is not supported")]
    ActivationOrder { name: String },

    #[error("the metadata say that it is quantized, but it has no elements")]
    NoElements,

    #[error("the metadata say that {name:?} belongs to it and is quantized itself")]
    QuantizedCompanion { name: String },

    #[error("dtype {found} does not agree with the metadata, expected {expected}")]
    Dtype { found: Dtype, expected: Dtype },

    #[error("{name:?} has dtype {found}, expected {expected}")]
    CompanionDtype {
        name: String,
        found: Dtype,
        expected: String,
    },

    #[error("{name:?} has shape {found:?}, expected {expected:?}")]
    CompanionShape {
        name: String,
        found: Vec<usize>,
        expected: Vec<usize>,
    },
}
