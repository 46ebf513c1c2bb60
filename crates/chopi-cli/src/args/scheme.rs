//! The options that describe a scheme, and those that choose tensors.

use std::num::NonZeroUsize;

use chopi::{Builder, Calibration, Chopi, CodeRange, Convention, Granularity};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{ArgAction, Args};
use globset::Glob;

use crate::selection::{Ranks, Selection};

pub const SCHEME: &str = "Scheme";
const TENSORS: &str = "Tensors";

/// A scheme but for its bits.
#[derive(Debug, Args)]
pub struct SchemeArgs {
    /// Keep the zero point at 0: the code of 0.0 is 0.
    #[arg(long, help_heading = SCHEME)]
    pub symmetric: bool,

    /// A scale for each index along this axis; -1 is the last. Default: one for each tensor.
    #[arg(long, value_name = "AXIS", allow_negative_numbers = true,
          conflicts_with = "group_size", help_heading = SCHEME)]
    pub per_channel: Option<isize>,

    /// A scale for each N consecutive elements along an axis; the last group may be shorter.
    #[arg(long, value_name = "N", help_heading = SCHEME)]
    pub group_size: Option<NonZeroUsize>,

    /// The axis along which groups lie; -1, the default, is the last.
    #[arg(long, value_name = "AXIS", allow_negative_numbers = true, requires = "group_size",
          conflicts_with = "per_channel", help_heading = SCHEME)]
    pub axis: Option<isize>,

    /// Whose numbers to compute: chopi's own, or those of another library, to the bit.
    #[arg(long, value_name = "NAME", default_value = "chopi", value_parser = conventions(),
          help_heading = SCHEME)]
    pub convention: Convention,

    /// How the range of a group is chosen from its values: all of them (minmax), from the (100-P)-th
    /// to the P-th percentile (of |x| if symmetric), with the least mean squared error, or with the
    /// least Kullback-Leibler divergence.
    #[arg(long, value_name = "minmax|percentile:P|mse|kl", default_value_t = Calibration::MinMax,
          help_heading = SCHEME)]
    pub calibration: Calibration,
}

impl SchemeArgs {
    /// The scheme, in this convention.
    pub fn builder(&self, convention: Convention) -> Builder {
        let granularity = match (self.per_channel, self.group_size) {
            (Some(axis), _) => Granularity::PerChannel { axis },
            (None, Some(size)) => Granularity::PerGroup {
                axis: self.axis.unwrap_or(-1),
                size: size.get(),
            },
            (None, None) => Granularity::PerTensor,
        };
        Chopi::builder()
            .symmetric(self.symmetric)
            .granularity(granularity)
            .convention(convention)
    }
}

/// The integers to use; the scheme's bits have a default.
pub fn parse_range(text: &str) -> Result<CodeRange, String> {
    let expected = || "expected unsigned, signed, narrow or LO:HI, such as -8:7".to_owned();
    Ok(match text {
        "unsigned" => CodeRange::Unsigned,
        "signed" => CodeRange::Signed,
        "narrow" => CodeRange::Narrow,
        _ => {
            let (qmin, qmax) = text.split_once(':').ok_or_else(expected)?;
            CodeRange::Custom {
                qmin: qmin.parse().map_err(|_| expected())?,
                qmax: qmax.parse().map_err(|_| expected())?,
            }
        }
    })
}

/// The names of the conventions, which the help lists.
fn conventions() -> impl TypedValueParser<Value = Convention> {
    let all = Convention::ALL.iter().chain([&Convention::ONNX_SPEC]);
    let names = all.map(Convention::name);
    PossibleValuesParser::new(names).try_map(|name| Convention::from_name(&name))
}

/// Which tensors are taken.
#[derive(Debug, Args)]
pub struct TensorArgs {
    /// Take only tensors whose name matches this glob (`*`, `?`, `[a-z]`, `{a,b}`); may be repeated. With --format
    /// compressed-tensors '*' also takes untied output layers.
    #[arg(long, value_name = "GLOB", action = ArgAction::Append, value_parser = parse_glob,
          help_heading = TENSORS)]
    pub include: Vec<Glob>,

    /// Leave tensors whose name matches this glob as they are; may be repeated.
    #[arg(long, value_name = "GLOB", action = ArgAction::Append, value_parser = parse_glob,
          help_heading = TENSORS)]
    pub exclude: Vec<Glob>,

    /// Take float tensors of fewer than two dimensions too.
    #[arg(long, help_heading = TENSORS)]
    pub all: bool,
}

impl TensorArgs {
    /// # Errors
    /// A glob that is too large.
    pub fn selection(&self, ranks: Ranks) -> Result<Selection, globset::Error> {
        Selection::new(ranks, &self.include, &self.exclude)
    }
}

fn parse_glob(text: &str) -> Result<Glob, globset::Error> {
    Glob::new(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_have_names_or_bounds() {
        let custom = |qmin, qmax| Ok(CodeRange::Custom { qmin, qmax });
        assert_eq!(parse_range("narrow"), Ok(CodeRange::Narrow));
        assert_eq!(parse_range("-8:7"), custom(-8, 7));
        assert_eq!(parse_range("0:15"), custom(0, 15));
        for bad in ["", ":", "1", "1:", "a:b", "1:2:3", "1.5:2", "Signed"] {
            assert!(parse_range(bad).is_err(), "{bad:?}");
        }
    }
}
