//! The command line of `chopi sensitivity`.

use std::path::PathBuf;
use std::str::FromStr;

use chopi::Builder;
use clap::Args;

use super::scheme::{SCHEME, SchemeArgs, TensorArgs};
use super::{PrintArgs, usage};
use crate::selection::{Ranks, Selection};

/// Say which tensors lose most by few bits, and propose bits for each under a budget.
///
/// Quantizes each tensor to each number of bits and prints the signal-to-quantization-noise ratio in
/// dB, the most sensitive tensor first. With --budget it proposes bits for each tensor: greedily, at
/// each step the one that adds the least loss for each byte that it saves, the loss being the share
/// of noise in the tensor, 10^(-SQNR/10). Sizes are those of packed codes, as `quantize` writes them for
/// 2 to 8 bits, with their scales and zero points. With -o it writes the
/// proposal to a file that `quantize --bits-from` takes: a JSON object from names to bits, without the
/// tensors that are to stay in float.
///
/// Takes the weights of linear layers, as `quantize --format compressed-tensors` does; --include names
/// others, --all takes every float tensor.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  chopi sensitivity model.safetensors --bits 3,4,8 --symmetric --group-size 128
  chopi sensitivity MODEL --symmetric --per-channel 0 --calibration mse --budget 20% -o plan.json")]
pub struct SensitivityArgs {
    /// The float model: a safetensors file, or a folder with one or with shards and their index.
    #[arg(value_name = "MODEL")]
    pub model: PathBuf,

    /// The numbers of bits to try, each 2 to 32.
    #[arg(long, value_name = "BITS,...", value_delimiter = ',', default_value = "2,3,4,6,8",
          value_parser = clap::value_parser!(u32).range(2..=32), help_heading = SCHEME)]
    pub bits: Vec<u32>,

    #[command(flatten)]
    pub scheme: SchemeArgs,

    #[command(flatten)]
    pub tensors: TensorArgs,

    /// The statistics of layers' inputs, a file that `chopi statistics` or the library has written: the loss of a
    /// tensor is then the share of noise in the output of its layer. Of tensors that the file does not have it is
    /// the share of noise in the tensor. It ranks layers; mixtures by it were worse than one width of the same size on
    /// the models that were measured.
    #[arg(long, value_name = "FILE")]
    pub statistics: Option<PathBuf>,

    /// The bytes that all tensors of the model may take together, or P% of those that they take now.
    #[arg(long, value_name = "BYTES|P%")]
    pub budget: Option<Budget>,

    /// Where to write the proposal, for `quantize --bits-from`. It appears, whole, only when all has gone
    /// well.
    #[arg(short, long, value_name = "PLAN.json", requires = "budget")]
    pub output: Option<PathBuf>,

    /// Replace the output if it exists.
    #[arg(long, requires = "output")]
    pub force: bool,

    #[command(flatten)]
    pub print: PrintArgs,
}

/// How large a model may be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Budget {
    Bytes(u64),
    Percent(f64),
}

impl Budget {
    /// The bytes, for a model that takes so many now.
    pub fn bytes(self, now: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => (now as f64 * percent / 100.0) as u64,
        }
    }
}

impl FromStr for Budget {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || "expected a number of bytes, or a percentage such as 20%".to_owned();
        match text.strip_suffix('%') {
            None => text.parse().map(Self::Bytes).map_err(|_| expected()),
            Some(percent) => match percent.parse() {
                Ok(percent) if (0.0..=100.0).contains(&percent) => Ok(Self::Percent(percent)),
                _ => Err(expected()),
            },
        }
    }
}

impl SensitivityArgs {
    /// The scheme but for its bits, each number of which goes with it; the bits, in order; the
    /// tensors.
    ///
    /// # Errors
    /// A usage error, where options do not go together.
    pub fn settings(&self) -> Result<(Builder, Vec<u32>, Selection), clap::Error> {
        let wrong = |message: String| usage("sensitivity", message);
        let builder = self.scheme.builder(self.scheme.convention);
        let mut bits = self.bits.clone();
        bits.sort_unstable();
        bits.dedup();
        for &bits in &bits {
            let scheme = builder.clone().num_bits(bits).scheme();
            scheme.map_err(|e| wrong(e.to_string()))?;
        }
        let ranks = match self.tensors.all {
            true => Ranks::All,
            false => Ranks::Linear,
        };
        let selection = self.tensors.selection(ranks);
        Ok((builder, bits, selection.map_err(|e| wrong(e.to_string()))?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_budget_is_bytes_or_a_percentage() {
        assert_eq!("1000".parse(), Ok(Budget::Bytes(1000)));
        assert_eq!("12.5%".parse(), Ok(Budget::Percent(12.5)));
        assert_eq!(Budget::Percent(12.5).bytes(80), 10);
        for bad in ["", "%", "-1", "1e3", "NaN%", "101%", "1 MB"] {
            assert!(bad.parse::<Budget>().is_err(), "{bad:?}");
        }
    }
}
