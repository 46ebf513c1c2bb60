//! `chopi report`: what quantizing has done to a model, as one page of HTML.
//!
//! The template is `templates/report.html`; it is compiled into the program. It is well-formed XML
//! too, and names no other file.

mod chart;
mod figures;

use std::path::Path;

use askama::Template;
use chopi::formats::{Model, StoredTensor};

use crate::args::ReportArgs;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::print::{print, printable};
use crate::report::grouped;
use crate::workers;
use crate::write::Target;
use figures::TensorFigures;

/// # Errors
/// What is wrong with the models or the output; models that do not belong together.
pub fn run(args: &ReportArgs) -> Result<()> {
    let (model, quantized) = (Model::open(&args.model)?, Model::open(&args.quantized)?);
    let mut inputs = model.files().inputs();
    inputs.extend(quantized.files().inputs());
    interrupt::watch();
    let target = Target::new(&args.output, &inputs, args.force)?;
    if model.is_quantized() {
        model.files().config()?;
        let path = args.model.clone();
        return Err(Error::AlreadyQuantized { path });
    }
    if !quantized.is_quantized() {
        let path = args.quantized.clone();
        return Err(Error::NoQuantizedModel { path });
    }
    let progress = workers::progress(model.tensors().map(StoredTensor::bytes).sum(), args.quiet);
    let mut tensors = Vec::new();
    for tensor in model.tensors() {
        let kept = quantized_of(tensor, &quantized)?;
        // One at a time, so that memory does not grow with their number.
        tensors.push(TensorFigures::of(tensor, kept)?);
        progress.inc(tensor.bytes() as u64);
    }
    progress.finish_and_clear();
    if let Some(kept) = quantized
        .tensors()
        .find(|kept| model.get(kept.name()).is_none())
    {
        return Err(unpaired(kept, &model));
    }

    let page = Page::new(args, tensors);
    target.write(page.render()?.as_bytes())?;
    match args.quiet {
        true => Ok(()),
        false => print(page.summary(&args.output)),
    }
}

/// The tensor of the quantized model that is made of this one.
///
/// # Errors
/// Where there is none, or it has another dtype or shape.
fn quantized_of<'a>(tensor: &StoredTensor, quantized: &'a Model) -> Result<&'a StoredTensor> {
    let kept = quantized
        .get(tensor.name())
        .ok_or_else(|| unpaired(tensor, quantized))?;
    let said = |tensor: &StoredTensor| format!("{} {:?}", tensor.dtype(), tensor.shape());
    if (kept.dtype(), kept.shape()) != (tensor.dtype(), tensor.shape()) {
        return Err(Error::OtherTensor {
            path: tensor.path().to_owned(),
            tensor: tensor.name().to_owned(),
            found: said(tensor),
            expected: said(kept),
            other: kept.path().to_owned(),
        });
    }
    Ok(kept)
}

fn unpaired(tensor: &StoredTensor, other: &Model) -> Error {
    Error::Unpaired {
        path: tensor.path().to_owned(),
        tensor: tensor.name().to_owned(),
        other: other.path().to_owned(),
    }
}

/// What the template shows.
#[derive(Template)]
#[template(path = "report.html")]
struct Page {
    model: String,
    quantized: String,
    version: &'static str,
    tensors: Vec<TensorFigures>,
    quantized_count: usize,
    parameters: usize,
    quantized_parameters: usize,
    bytes_in: usize,
    bytes_out: usize,
    /// The mean of the quantized tensors' SQNR, of those where it is finite.
    mean_sqnr_db: Option<f64>,
    /// The number and the SQNR of the tensor with the smallest one.
    worst: Option<(usize, f64)>,
}

impl Page {
    fn new(args: &ReportArgs, tensors: Vec<TensorFigures>) -> Self {
        let shown = |path: &Path| printable(&path.display().to_string()).into_owned();
        let quantized = || tensors.iter().filter(|t| t.is_quantized());
        let finite: Vec<f64> = quantized()
            .filter_map(|t| t.sqnr_db)
            .filter(|db| db.is_finite())
            .collect();
        let numbered = tensors.iter().enumerate().filter(|(_, t)| t.is_quantized());
        let worst = numbered
            .filter_map(|(i, t)| Some((i, t.sqnr_db?)))
            .min_by(|(_, a), (_, b)| a.total_cmp(b));
        Self {
            model: shown(&args.model),
            quantized: shown(&args.quantized),
            version: env!("CARGO_PKG_VERSION"),
            quantized_count: quantized().count(),
            parameters: tensors.iter().map(|t| t.parameters).sum(),
            quantized_parameters: quantized().map(|t| t.parameters).sum(),
            bytes_in: tensors.iter().map(|t| t.bytes_in).sum(),
            bytes_out: tensors.iter().map(|t| t.bytes_out).sum(),
            mean_sqnr_db: match finite.len() {
                0 => None,
                count => Some(finite.iter().sum::<f64>() / count as f64),
            },
            worst,
            tensors,
        }
    }

    /// The line that is printed.
    fn summary(&self, output: &Path) -> String {
        let mut line = format!(
            "{}: {} of {} tensors quantized, {} bytes of {}",
            printable(&output.display().to_string()),
            self.quantized_count,
            self.tensors.len(),
            grouped(self.bytes_out),
            grouped(self.bytes_in)
        );
        if let (Some(mean), Some((_, worst))) = (self.mean_sqnr_db, self.worst) {
            line += &format!(", SQNR {mean:.2} dB in the mean, {worst:.2} dB at worst");
        }
        line
    }

    /// The bytes after as a share of those before, in percent.
    fn percent(&self) -> String {
        let percent = 100.0 * self.bytes_out as f64 / self.bytes_in.max(1) as f64;
        format!("{percent:.1}")
    }
}

/// What the template says of a number.
mod say {
    /// Decibels: an exact result has infinitely many.
    pub fn db(db: &f64) -> String {
        match db {
            db if db.is_infinite() && *db > 0.0 => "exact".to_owned(),
            db => format!("{db:.2}"),
        }
    }

    /// An error.
    pub fn error(error: &f64) -> String {
        match error {
            0.0 => "0".to_owned(),
            error => format!("{error:.3e}"),
        }
    }

    pub fn grouped(number: &usize) -> String {
        super::grouped(*number)
    }

    /// The number that a column is sorted by, "" where there is none.
    pub fn key(number: &Option<f64>) -> String {
        match number {
            Some(number) if number.is_infinite() => "1e999".to_owned(),
            Some(number) => format!("{number:e}"),
            None => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_said_as_they_are_meant() {
        assert_eq!(say::db(&f64::INFINITY), "exact");
        assert_eq!(say::db(&-1.234), "-1.23");
        assert_eq!(say::error(&0.0), "0");
        assert_eq!(say::key(&Some(f64::INFINITY)), "1e999");
        assert_eq!(say::key(&None), "");
    }
}
