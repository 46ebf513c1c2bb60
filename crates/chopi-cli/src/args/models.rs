//! The commands that run models.

use std::num::NonZeroUsize;
use std::path::PathBuf;

use chopi::models::CacheFormat;
use clap::Args;

/// Write what follows a prompt, by a decoder like Llama.
///
/// The likeliest token each time, until the model ends the text. The text goes to standard output as it is
/// written, and at the end the tokens per second, the memory and the bytes of keys and values to standard error.
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

    /// Keep the keys and values of the tokens before as codes of so many bits, 8 or 4, with a range for each head of
    /// each token. Default: as 32-bit floats.
    #[arg(long, value_name = "8|4", value_parser = parse_cache)]
    pub cache_bits: Option<CacheFormat>,

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

    /// Keep the keys and values of the tokens before as codes of so many bits, 8 or 4, with a range for each head of
    /// each token. Default: as 32-bit floats.
    #[arg(long, value_name = "8|4", value_parser = parse_cache)]
    pub cache_bits: Option<CacheFormat>,

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

/// Write the statistics of the inputs of a model's linear layers on a text.
///
/// The file, one of safetensors, has the second moments of what each layer takes, the sums exact. `quantize
/// --statistics` chooses codes by them, and `sensitivity --statistics` measures errors by them. The text is used whole:
/// keep what models are compared on out of it.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chopi statistics SmolLM2-135M-Instruct -o statistics.safetensors --text book.txt
  chopi quantize SmolLM2-135M-Instruct -o SmolLM2-w4 --format compressed-tensors --bits 4 --symmetric \
      --group-size 64 --method gptq+weighted --statistics statistics.safetensors")]
pub struct StatisticsArgs {
    /// The model's folder: config.json, tokenizer.json and safetensors files.
    #[arg(value_name = "MODEL")]
    pub folder: PathBuf,

    /// The file of the text.
    #[arg(long, value_name = "FILE")]
    pub text: PathBuf,

    /// How many windows of 512 tokens of the text are taken, or how many lines where the model is an encoder.
    /// Default: 16 windows, 1000 lines.
    #[arg(long, value_name = "N")]
    pub windows: Option<usize>,

    /// The file to write. It appears, whole, only when all has gone well.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// Replace the output if it exists.
    #[arg(long)]
    pub force: bool,

    /// How many threads work, at most four for each core. Default: one for each core.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,

    /// Print nothing but errors.
    #[arg(long)]
    pub quiet: bool,
}

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

fn parse_cache(bits: &str) -> Result<CacheFormat, String> {
    match bits {
        "8" => Ok(CacheFormat::Bits8),
        "4" => Ok(CacheFormat::Bits4),
        _ => Err("expected 8 or 4".to_owned()),
    }
}
