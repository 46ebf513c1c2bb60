//! What the options of `chopi quantize` come to.

use std::path::PathBuf;

use chopi::{Calibration, CodeRange, Convention, QParams, Scheme, backend::FloatType};

use super::{Format, QuantizeArgs, usage};
use crate::choice::Choice;
use crate::error;
use crate::plan::Plan;
use crate::selection::{Ranks, Selection};

/// How a tensor is quantized, checked as far as that is possible without one.
#[derive(Clone, Debug)]
pub struct Settings {
    pub scheme: Scheme,
    pub convention: Convention,
    pub parameters: Parameters,
}

/// Where scales and zero points come from.
#[derive(Clone, Copy, Debug)]
pub enum Parameters {
    /// From the calibration of each tensor.
    Calibrated(Calibration),
    /// From the command line.
    Given { scale: f64, zero_point: i64 },
}

impl Settings {
    /// How ranges are chosen; where parameters are given, none is.
    pub fn observer(&self) -> Calibration {
        match self.parameters {
            Parameters::Calibrated(calibration) => calibration,
            Parameters::Given { .. } => Calibration::MinMax,
        }
    }
}

impl QuantizeArgs {
    /// Which tensors may be quantized, and how at the bits of the command line.
    ///
    /// # Errors
    /// A usage error, where options do not go together.
    pub fn settings(&self) -> Result<(Selection, Settings), clap::Error> {
        let planned = self.bits_from.is_some();
        if self.dry_run && self.format == Format::Chopi {
            return Err(wrong("--dry-run goes with --format compressed-tensors"));
        }
        let (convention, ranks) = match self.format {
            Format::Chopi if self.tensors.all || planned => (self.scheme.convention, Ranks::All),
            Format::Chopi => (self.scheme.convention, Ranks::TwoOrMore),
            Format::CompressedTensors => (self.compressed_tensors()?, Ranks::Linear),
        };
        if planned && matches!(self.range, Some(CodeRange::Custom { .. })) {
            return Err(wrong(
                "--bits-from goes with --range unsigned, signed or narrow, not LO:HI",
            ));
        }
        let method = self.method.method;
        if self.method.statistics.is_some() && method.changes_weights() {
            return Err(wrong(format!(
                "--method {method} changes layers together, for which the model has to run: it goes with \
                 --calibration-text, not --statistics"
            )));
        }
        #[cfg(feature = "models")]
        if self.method.resume.is_some() && method.changes_weights() {
            return Err(wrong(format!(
                "--method {method} changes more than codes, which --resume does not keep"
            )));
        }
        let scheme = self.scheme(convention, self.bits).map_err(wrong)?;
        let parameters = match (self.scale, self.zero_point) {
            (None, _) => Parameters::Calibrated(self.scheme.calibration),
            (Some(_), None) if !self.scheme.symmetric => {
                return Err(wrong(
                    "--scale needs --zero-point, unless the scheme is --symmetric",
                ));
            }
            (Some(scale), zero_point) => {
                let zero_point = zero_point.unwrap_or(0);
                QParams::new(
                    scheme.clone(),
                    convention,
                    FloatType::F64,
                    vec![1],
                    vec![scale],
                    vec![zero_point],
                )
                .map_err(wrong)?;
                Parameters::Given { scale, zero_point }
            }
        };
        let settings = Settings {
            scheme,
            convention,
            parameters,
        };
        let selection = self.tensors.selection(ranks).map_err(wrong)?;
        Ok((selection, settings))
    }

    /// Which tensors are quantized, and how each of them: what [`settings`](Self::settings) gives, and
    /// the plan.
    ///
    /// # Errors
    /// What is wrong with the plan.
    pub fn choice(&self, (selection, settings): (Selection, Settings)) -> error::Result<Choice> {
        let Some(path) = &self.bits_from else {
            return Ok(Choice::alike(selection, settings));
        };
        Choice::planned(selection, Plan::read(path)?, |bits| {
            Ok(Settings {
                scheme: self.scheme(settings.convention, bits)?,
                ..settings.clone()
            })
        })
    }

    /// The files that are read beside the model, which the output must not replace.
    pub fn inputs(&self) -> impl Iterator<Item = PathBuf> {
        #[cfg(feature = "models")]
        let text = &self.method.calibration_text;
        #[cfg(not(feature = "models"))]
        let text = &None;
        let files = [&self.bits_from, &self.method.statistics, text];
        let files = files.into_iter().flatten().cloned();
        #[cfg(feature = "models")]
        let files = files.chain(
            text.iter()
                .flat_map(|_| crate::models::beside(&self.files.input)),
        );
        files
    }

    /// The scheme of these settings, as a builder.
    #[cfg(feature = "models")]
    pub fn builder(&self, settings: &Settings) -> chopi::Builder {
        let builder = self
            .scheme
            .builder(settings.convention)
            .num_bits(settings.scheme.bits);
        builder.range(self.range.unwrap_or_default())
    }

    /// The scheme at so many bits.
    fn scheme(&self, convention: Convention, bits: u32) -> chopi::Result<Scheme> {
        let builder = self.scheme.builder(convention).num_bits(bits);
        builder.range(self.range.unwrap_or_default()).scheme()
    }

    /// The convention of the format compressed-tensors.
    ///
    /// # Errors
    /// A usage error for what the format does not have.
    fn compressed_tensors(&self) -> Result<Convention, clap::Error> {
        let given = self.scheme.convention.name();
        let convention = Convention::COMPRESSED_TENSORS;
        if ![Convention::CHOPI.name(), convention.name()].contains(&given) {
            return Err(wrong(format!(
                "--format compressed-tensors has a convention of its own, not {given}"
            )));
        }
        if self.scale.is_some() || self.tensors.all || self.range.is_some() {
            return Err(wrong(
                "--format compressed-tensors goes without --scale, --all and --range",
            ));
        }
        if ![None, Some(0)].contains(&self.scheme.per_channel) {
            return Err(wrong(
                "--format compressed-tensors has channels along axis 0 only",
            ));
        }
        if ![None, Some(-1), Some(1)].contains(&self.scheme.axis) {
            return Err(wrong(
                "--format compressed-tensors has groups along the last axis only",
            ));
        }
        Ok(convention)
    }
}

/// The error of `chopi quantize` for options that clap cannot check by itself.
fn wrong(message: impl ToString) -> clap::Error {
    usage("quantize", message)
}
