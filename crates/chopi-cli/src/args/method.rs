//! The options that choose codes by what they do to a model's outputs.

use std::path::PathBuf;

use chopi::ptq::Method;
use clap::Args;

/// How codes are chosen by what they do to a model's outputs.
#[derive(Debug, Args)]
pub struct MethodArgs {
    /// How codes are chosen, on a text or on statistics: parts joined by +, at most one of each line.
    /// rtn (the nearest) or gptq;
    /// weighted or hqq, or a name of --calibration, for the ranges;
    /// awq or smoothquant, which move scales of a layer's inputs into what comes before, with a text only;
    /// rotation, which multiplies the hidden states of a decoder by a Hadamard matrix, with a text only.
    #[arg(long, value_name = "NAME", default_value = "rtn", requires = "data",
          conflicts_with_all = ["calibration", "scale", "gguf"], help_heading = METHOD, verbatim_doc_comment)]
    pub method: Method,

    /// The text that --method sees, of which the last eighth is held out, and the models are compared on it; for
    /// models that `run` and `embed` take. Layers are quantized in the order of their use, each on what the
    /// quantized ones before it give.
    #[cfg(feature = "models")]
    #[arg(long, value_name = "FILE", group = "data", help_heading = METHOD,
          conflicts_with_all = ["dry_run", "calibration", "scale", "gguf"])]
    pub calibration_text: Option<PathBuf>,

    /// How many windows of 512 tokens of the text --method sees, or how many lines where the model is an encoder.
    /// Default: 16 windows, 1000 lines.
    #[cfg(feature = "models")]
    #[arg(long, value_name = "N", requires = "calibration_text", help_heading = METHOD)]
    pub calibration_windows: Option<usize>,

    /// Keep each layer in this folder once it is done, and take from it those that a run with the same options has kept
    /// before it was stopped; for methods that change nothing but codes. The folder is not removed.
    #[cfg(feature = "models")]
    #[arg(long, value_name = "FOLDER", requires = "calibration_text", help_heading = METHOD)]
    pub resume: Option<PathBuf>,

    /// The statistics of layers' inputs that --method goes by, for any model: a file that `chopi statistics` or the
    /// library has written. Each tensor is quantized by itself, on the inputs that the float model gives its
    /// layer. Tensors that the file does not have get the nearest codes, which the report says.
    #[arg(long, value_name = "FILE", group = "data", help_heading = METHOD,
          conflicts_with_all = ["dry_run", "calibration", "scale", "gguf"])]
    pub statistics: Option<PathBuf>,
}

const METHOD: &str = "Method";
