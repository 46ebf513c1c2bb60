//! The commands that run models.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use chopi::ptq::Method;
use clap::Args;

/// Write what follows a prompt, by a decoder like Llama.
///
/// The likeliest token each time, until the model ends the text. The text goes to standard output as it is
/// written, and at the end the tokens per second and the memory to standard error.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chopi run SmolLM2-135M-Instruct --prompt 'The capital of France is'
  chopi run SmolLM2-135M-Instruct --bits 4 --prompt 'Once upon a time' --max-tokens 50 --json")]
pub struct RunArgs {
    #[command(flatten)]
    pub model: ModelArgs,

    /// What the text starts with.
    #[arg(long, value_name = "TEXT")]
    pub prompt: String,

    /// The most tokens that are written.
    #[arg(long, value_name = "N", default_value_t = 128)]
    pub max_tokens: usize,

    /// Print one JSON object at the end instead: the text, its tokens, the time and the memory.
    #[arg(long)]
    pub json: bool,
}

/// Embed each line of a file, by an encoder like BERT.
///
/// Prints a JSON object for each line that is not empty: {"text": ..., "embedding": [...]}. The embedding is
/// pooled as `sentence-transformers` is configured to do it in the model's folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chopi embed all-MiniLM-L6-v2 sentences.txt > embeddings.jsonl
  echo 'A cat sat by the window.' | chopi embed all-MiniLM-L6-v2 -")]
pub struct EmbedArgs {
    #[command(flatten)]
    pub model: ModelArgs,

    /// The file of texts, or - for standard input.
    #[arg(value_name = "FILE|-")]
    pub texts: PathBuf,
}

/// Say how good a model is on a text: a decoder by its perplexity, an encoder by how near its embeddings are to
/// those of the float model.
///
/// The perplexity is exp(-mean ln p), with p the probability of each token after those before it, in windows that
/// are seen alone. The embeddings are those of the lines of the text; the cosine is 1 where they point the same
/// way.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chopi evaluate SmolLM2-W8 --text book.txt --against SmolLM2-135M-Instruct
  chopi evaluate all-MiniLM-L6-v2 --bits 8 --text sentences.txt --against all-MiniLM-L6-v2")]
pub struct EvaluateArgs {
    #[command(flatten)]
    pub model: ModelArgs,

    /// The file of the text.
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,

    /// The folder of the model to compare with; needed for encoders.
    #[arg(long, value_name = "FLOAT_MODEL")]
    pub against: Option<PathBuf>,

    /// The tokens of a window, for decoders.
    #[arg(long, value_name = "N", default_value_t = 512)]
    pub window: usize,

    /// How many windows, or lines, from the start of the text. Default: all.
    #[arg(long, value_name = "N")]
    pub limit: Option<usize>,

    /// Print one JSON object instead of the table.
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,

    /// Print nothing but errors.
    #[arg(long)]
    pub quiet: bool,
}

/// How codes are chosen by what they do to a model's outputs.
#[derive(Debug, Args)]
pub struct MethodArgs {
    /// How codes are chosen, for models that `run` and `embed` take: parts joined by +, at most one of each line.
    /// rtn (the nearest) or gptq;
    /// weighted or hqq, or a name of --calibration, for the ranges;
    /// awq or smoothquant, which move scales of a layer's inputs into what comes before.
    #[arg(long, value_name = "NAME", default_value = "rtn", requires = "calibration_text",
          conflicts_with_all = ["calibration", "scale", "gguf"], help_heading = METHOD, verbatim_doc_comment)]
    pub method: Method,

    /// The text that --method sees; of which the last eighth is held out, and the models are compared on it.
    #[arg(long, value_name = "FILE", conflicts_with = "dry_run", help_heading = METHOD)]
    pub calibration_text: Option<PathBuf>,

    /// How many windows of 512 tokens of the text --method sees, or how many lines where the model is an encoder.
    /// Default: 16 windows, 1000 lines.
    #[arg(long, value_name = "N", requires = "calibration_text", help_heading = METHOD)]
    pub calibration_windows: Option<usize>,
}

const METHOD: &str = "Method";

#[derive(Debug, Args)]
pub struct ModelArgs {
    /// The model's folder: config.json, tokenizer.json and safetensors files, quantized or not.
    #[arg(value_name = "MODEL")]
    pub folder: PathBuf,

    /// Quantize weights that are floats first, to so many bits: from 8 on with a scale for each output, for fewer
    /// in groups of 32 inputs. The inputs of linear layers are quantized to 8 bits, row by row.
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u32).range(2..=8))]
    pub bits: Option<u32>,

    /// How many threads work, at most four for each core. Default: one for each core.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}
