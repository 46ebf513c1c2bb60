//! The command line.

mod method;
#[cfg(feature = "models")]
mod models;
mod scheme;
mod sensitivity;
mod settings;

pub use method::MethodArgs;
#[cfg(feature = "models")]
pub use models::{EmbedArgs, EvaluateArgs, ModelArgs, RunArgs, StatisticsArgs};
pub use sensitivity::SensitivityArgs;
pub use settings::{Parameters, Settings};

use std::num::NonZeroUsize;
use std::path::PathBuf;

use chopi::CodeRange;
use chopi::formats::gguf::BlockType;
use clap::error::ErrorKind;
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};
use clap_complete::Shell;

use crate::framework::FrameworkName;
use crate::interrupt;
use crate::write::Target;
use scheme::{SCHEME, SchemeArgs, TensorArgs, parse_range};

/// Quantize, inspect, compare and run models in safetensors, compressed-tensors and GGUF files.
#[derive(Debug, Parser)]
#[command(name = "chopi", version, propagate_version = true, after_help = EXAMPLES)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

const EXAMPLES: &str = "\
Examples:
  chopi quantize model.safetensors -o q.safetensors --symmetric --per-channel 0
  chopi inspect q.safetensors
  chopi dequantize q.safetensors -o back.safetensors
  chopi compare model.safetensors back.safetensors
  chopi report model.safetensors q.safetensors -o report.html

Exit status: 0; 1 where an input or an output is bad, or files that are compared differ; 2 where
the command line is bad; 128 + N where signal N has stopped it, which leaves the output as it was.";

#[derive(Debug, Subcommand)]
pub enum Command {
    Quantize(Box<QuantizeArgs>),
    Dequantize(DequantizeArgs),
    Inspect(InspectArgs),
    Compare(CompareArgs),
    Report(ReportArgs),
    Sensitivity(Box<SensitivityArgs>),
    #[cfg(feature = "models")]
    Statistics(StatisticsArgs),
    #[cfg(feature = "models")]
    Run(RunArgs),
    #[cfg(feature = "models")]
    Embed(EmbedArgs),
    #[cfg(feature = "models")]
    Evaluate(EvaluateArgs),
    /// List the tensor frameworks that this program can compute with.
    ///
    /// One line each: the name for --backend, and for one that was not built in the feature of
    /// chopi-cli that builds it in.
    Backends,
    Completions(CompletionsArgs),
    Man(ManArgs),
}

impl Command {
    /// The number of threads that it is asked to work on, and whether it is to be quiet.
    pub fn threads(&self) -> (Option<NonZeroUsize>, bool) {
        match self {
            Self::Quantize(args) => (args.work.threads, args.print.quiet),
            Self::Dequantize(args) => (args.work.threads, args.print.quiet),
            #[cfg(feature = "models")]
            Self::Statistics(args) => (args.threads, args.quiet),
            #[cfg(feature = "models")]
            Self::Run(args) => (args.model.threads, false),
            #[cfg(feature = "models")]
            Self::Embed(args) => (args.model.threads, false),
            #[cfg(feature = "models")]
            Self::Evaluate(args) => (args.model.threads, args.quiet),
            _ => (None, false),
        }
    }
}

/// Print the script that completes this program's command line in a shell.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chopi completions bash > ~/.local/share/bash-completion/completions/chopi
  chopi completions zsh > ~/.zfunc/_chopi
  chopi completions fish > ~/.config/fish/completions/chopi.fish")]
pub struct CompletionsArgs {
    /// The shell.
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: Shell,
}

/// Write the manual pages, chopi.1 and one for each command, into a folder.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chopi man ~/.local/share/man/man1 && man chopi-quantize")]
pub struct ManArgs {
    /// The folder, which is made if it is not there. Pages of the same names are replaced.
    #[arg(value_name = "FOLDER")]
    pub folder: PathBuf,
}

/// Quantize the float tensors of a model to integers.
///
/// Takes every F16, BF16, F32 and F64 tensor of two or more dimensions and copies the rest
/// unchanged. A quantized tensor NAME becomes NAME.codes, packed without gaps where its codes have 2 to 7
/// bits, NAME.scale and, unless the scheme is symmetric, NAME.zero_point. The file's metadata, under
/// the key `chopi`, keep what `dequantize` and `inspect` need.
///
/// With `--format compressed-tensors` the input is a model's folder, or a file, and the output a
/// folder: its safetensors files hold the quantized weights, config.json says how, and other files are
/// copied, but for weights in other forms. Only the weights of linear layers are taken: two-dimensional
/// tensors named `*.weight` that the architecture in config.json has as such, or where it says nothing the
/// name or the bias; weights at the input or the output are left out unless --include matches them (--include '*'
/// takes all). The folder appears
/// whole, when all has gone well; what cannot be done is said before anything is written.
///
/// Prints a table of what it did: the bytes before and after, the signal-to-quantization-noise
/// ratio (SQNR, 10·log10(Σx²/Σ(x−x̂)²), "inf" where every element comes back exactly) and the
/// largest error of each tensor.
#[derive(Debug, Args)]
#[command(after_help = QUANTIZE_EXAMPLES)]
pub struct QuantizeArgs {
    #[command(flatten)]
    pub files: FileArgs,

    /// The width of a code in bits, 2 to 32. A code takes so many bits in the file where they are at most 7, else
    /// one byte (8 bits), two (9 to 16) or four.
    #[arg(long, value_name = "BITS", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(2..=32), help_heading = SCHEME)]
    pub bits: u32,

    /// The bits of each tensor, from a file that `sensitivity` wrote or that looks so:
    /// {"layers.0.weight": 4, "layers.1.weight": 8}. The tensors that it names are quantized, and no
    /// others.
    #[arg(long, value_name = "PLAN.json", help_heading = SCHEME,
          conflicts_with_all = ["bits", "scale", "include", "exclude", "all"])]
    pub bits_from: Option<PathBuf>,

    #[command(flatten)]
    pub scheme: SchemeArgs,

    /// The integers to use: `unsigned` is [0, 2^b-1], `signed` [-2^(b-1), 2^(b-1)-1], `narrow`
    /// [-2^(b-1)+1, 2^(b-1)-1], LO:HI any range. Default: the convention's.
    #[arg(long, value_name = "unsigned|signed|narrow|LO:HI", allow_hyphen_values = true,
          value_parser = parse_range, help_heading = SCHEME)]
    pub range: Option<CodeRange>,

    /// Use this scale for every tensor instead of calibrating.
    #[arg(long, value_name = "S", allow_negative_numbers = true, value_parser = parse_scale,
          conflicts_with_all = ["per_channel", "group_size", "calibration"], help_heading = SCHEME)]
    pub scale: Option<f64>,

    /// The zero point that goes with --scale; needed unless the scheme is symmetric.
    #[arg(long, value_name = "Z", allow_negative_numbers = true, requires = "scale",
          help_heading = SCHEME)]
    pub zero_point: Option<i64>,

    #[command(flatten)]
    pub method: MethodArgs,

    #[command(flatten)]
    pub tensors: TensorArgs,

    /// How the output is laid out.
    #[arg(long, value_enum, value_name = "NAME", default_value_t = Format::Chopi)]
    pub format: Format,

    /// Write a GGUF file with blocks of this type, q4_0, q4_1, q5_0, q5_1 or q8_0, as ggml quantizes them. Tensors
    /// whose rows are no whole blocks of 32 stay as they are, unless --include names them. Its
    /// metadata are those of an input that is a GGUF file, and the type of the blocks: llama.cpp needs an input that
    /// its converter wrote.
    #[arg(long, value_name = "TYPE", value_parser = parse_block_type,
          conflicts_with_all = ["bits", "bits_from", "symmetric", "per_channel", "group_size", "axis", "range",
                                "convention", "calibration", "scale", "format", "dry_run", "backend"])]
    pub gguf: Option<BlockType>,

    /// Read the headers, print as one JSON object what would become of each tensor and what config.json
    /// would say, and write nothing; with --format compressed-tensors.
    #[arg(long)]
    pub dry_run: bool,

    #[command(flatten)]
    pub work: WorkArgs,

    #[command(flatten)]
    pub print: PrintArgs,

    /// List the tensors that are copied too.
    #[arg(long, conflicts_with = "quiet")]
    pub verbose: bool,
}

/// How quantized tensors are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// One file that `chopi dequantize` reads.
    Chopi,
    /// A folder that Hugging Face transformers opens: as compressed-tensors 0.20 defines it,
    /// `int-quantized` for 8 bits and `pack-quantized` for fewer, `mixed-precision` where a plan has
    /// both.
    CompressedTensors,
}

const QUANTIZE_EXAMPLES: &str = "\
Examples:
  8-bit weights, a scale for each output channel:
    chopi quantize model.safetensors -o q.safetensors --symmetric --per-channel 0
  4 bits in groups of 128 along the last axis, the embeddings left alone:
    chopi quantize model.safetensors -o q.safetensors --bits 4 --group-size 128 --exclude '*embed*'
  A model's folder for transformers, 4 bits in groups of 128:
    chopi quantize MODEL -o MODEL-w4 --format compressed-tensors --bits 4 --symmetric \
        --group-size 128 --calibration mse
  The same with more bits for the tensors that need them:
    chopi sensitivity MODEL --symmetric --group-size 128 --calibration mse --budget 20% -o plan.json
    chopi quantize MODEL -o MODEL-mixed --format compressed-tensors --bits-from plan.json \
        --symmetric --group-size 128 --calibration mse
  4 bits that make up for each other's errors on a text:
    chopi quantize MODEL -o MODEL-w4 --format compressed-tensors --bits 4 --symmetric \
        --group-size 128 --method gptq+weighted --calibration-text book.txt
  The same for any model, by statistics of its layers' inputs:
    chopi quantize model.safetensors -o q.safetensors --bits 4 --symmetric --group-size 128 \
        --method gptq+weighted --statistics statistics.safetensors
  A GGUF file, from one of floats:
    chopi quantize model-f16.gguf -o model-q4_0.gguf --gguf q4_0
  The numbers of pychop:
    chopi quantize model.safetensors -o q.safetensors --convention pychop
  Parameters from elsewhere, the report for a script:
    chopi quantize x.safetensors -o q.safetensors --scale 0.05 --zero-point 128 --json";

/// Turn a quantized model back into a safetensors file of floats.
///
/// Reads what `quantize` wrote, a folder of compressed-tensors or a GGUF file. Every quantized tensor gets
/// its original dtype and the values of its codes, (q - z)*s: the bits that fake-quantizing the
/// original tensor gives. The blocks of GGUF become F32, as ggml computes their values. Other tensors
/// stay, and the metadata of safetensors files.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chopi dequantize q.safetensors -o back.safetensors
  chopi dequantize MODEL-w4 -o back.safetensors
  chopi dequantize model.gguf -o back.safetensors")]
pub struct DequantizeArgs {
    #[command(flatten)]
    pub files: FileArgs,

    #[command(flatten)]
    pub work: WorkArgs,

    #[command(flatten)]
    pub print: PrintArgs,

    /// List the tensors that are copied too.
    #[arg(long, conflicts_with = "quiet")]
    pub verbose: bool,
}

/// List the tensors of a model, and how they are quantized.
///
/// Each by the name that it has in the float model, with the bytes of its elements, or of its codes and their
/// parameters. Reads what every command reads: a safetensors file, a folder with one or with shards and their
/// index, what `quantize` wrote, a folder of compressed-tensors, a GGUF file.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chopi inspect q.safetensors --json
  chopi inspect MODEL-w4
  chopi inspect model.gguf")]
pub struct InspectArgs {
    /// The file or the folder to read.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// Print one JSON object instead of the table.
    #[arg(long)]
    pub json: bool,
}

/// Say where the tensors of two models differ, and by how much.
///
/// Compares the tensors of the same name: how many elements differ, by how much at most, the index
/// of the first one, and the signal-to-quantization-noise ratio (SQNR) of B against A,
/// 10·log10(Σa²/Σ(a−b)²), "inf" where there is no difference. Integers are compared as integers.
/// Floats are compared bit for bit: a NaN equals the same NaN, and 0.0 differs from -0.0, by 0. The
/// difference from a NaN is NaN. Other dtypes have no difference that is a number: their elements
/// are the same or not.
///
/// A tensor differs too where only one model has it, or where its shape or its dtype is another. Of
/// two dtypes, the values are compared if both are integers or both are floats (a NaN then equals
/// any NaN). Tensors that both models keep as codes of one layout are compared code by code, and so are
/// their scales and zero points; of other quantized tensors the values are compared. The metadata of the
/// files are not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  What quantizing loses:
    chopi quantize model.safetensors -o q.safetensors
    chopi compare model.safetensors q.safetensors
  Whether two programs give the same codes:
    chopi compare --quiet q.safetensors theirs.safetensors && echo the same

Exit status: 0 where nothing differs; 1 where anything does, or, with a line on standard error,
where a file is bad; 2 where the command line is bad.")]
pub struct CompareArgs {
    /// The file or the folder to compare with.
    #[arg(value_name = "A")]
    pub a: PathBuf,

    /// The file or the folder to compare.
    #[arg(value_name = "B")]
    pub b: PathBuf,

    #[command(flatten)]
    pub print: PrintArgs,

    /// List the tensors that do not differ too.
    #[arg(long, conflicts_with = "quiet")]
    pub verbose: bool,
}

/// Show what quantizing a model has done to it, on a page for the browser.
///
/// One HTML file that needs nothing else, no network either: pictures of the bytes, the error of each layer and
/// the worst tensors, a table of the tensors that can be sorted, and for each quantized tensor a
/// histogram of its values with the values that codes stand for, and the channels that are worst off.
/// The numbers are those of `compare` on the model and what `dequantize` makes of the quantized one. Two
/// quantizations of one model stand beside each other.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chopi report model.safetensors q.safetensors -o report.html
  chopi report MODEL MODEL-w4 -o report.html
  chopi report MODEL MODEL-w8 MODEL-w4 -o report.html")]
pub struct ReportArgs {
    /// The float model: a safetensors file, or a folder with one or with shards and their index.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// What `quantize` made of it: a file, or with --format compressed-tensors a folder; one or two of them.
    #[arg(value_name = "QUANTIZED", num_args = 1..=2, required = true)]
    pub quantized: Vec<PathBuf>,

    /// The page to write. It appears, whole, only when all has gone well.
    #[arg(short, long, value_name = "REPORT.html")]
    pub output: PathBuf,

    /// Replace the output if it exists.
    #[arg(long)]
    pub force: bool,

    /// Print nothing but errors.
    #[arg(long)]
    pub quiet: bool,
}

#[derive(Debug, Args)]
pub struct FileArgs {
    /// The file or the folder to read.
    #[arg(value_name = "MODEL")]
    pub input: PathBuf,

    /// The file, or folder, to write. It appears, whole, only when all has gone well.
    #[arg(short, long, value_name = "OUT")]
    pub output: PathBuf,

    /// Replace the output if it exists.
    #[arg(long)]
    pub force: bool,
}

#[derive(Debug, Args)]
pub struct WorkArgs {
    /// The framework that computes; the numbers are the same with each.
    #[arg(long, value_name = "NAME", default_value = "ndarray", value_parser = FrameworkName::parse)]
    pub backend: FrameworkName,

    /// How many threads work, at most four for each core. Default: one for each core.
    #[arg(long, value_name = "N")]
    pub threads: Option<NonZeroUsize>,
}

#[derive(Debug, Args)]
pub struct PrintArgs {
    /// Print one JSON object instead of the table; numbers that are not finite, such as the SQNR of
    /// equal tensors, are null.
    #[arg(long, conflicts_with = "quiet")]
    pub json: bool,

    /// Print nothing but errors.
    #[arg(long)]
    pub quiet: bool,
}

impl FileArgs {
    /// Where the output of what is read may be written.
    ///
    /// # Errors
    /// The errors of [`Target::new`].
    pub fn target(&self, inputs: &[PathBuf]) -> Result<Target, crate::error::Error> {
        interrupt::watch();
        Ok(Target::new(&self.output, inputs, self.force)?)
    }
}

/// The error of a command for options that clap cannot check by itself.
fn usage(name: &str, message: impl ToString) -> clap::Error {
    let mut command = Cli::command();
    command.build();
    let message = message.to_string();
    match command.find_subcommand_mut(name) {
        Some(command) => command.error(ErrorKind::ValueValidation, message),
        None => command.error(ErrorKind::ValueValidation, message),
    }
}

fn parse_block_type(name: &str) -> Result<BlockType, String> {
    let found = BlockType::from_name(name).filter(|found| BlockType::QUANTIZED.contains(found));
    found.ok_or_else(|| "expected q4_0, q4_1, q5_0, q5_1 or q8_0".to_owned())
}

fn parse_scale(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(scale) if scale > 0.0 && f64::is_finite(scale) => Ok(scale),
        _ => Err("expected a positive finite number".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
