//! `chopi report`: what quantizing has done to a model, as one page of HTML.
//!
//! The template is `templates/report.html`; it is compiled into the program. It is well-formed XML
//! too, and names no other file.

mod axis;
mod chart;
mod figures;
mod name;
mod overview;
mod say;

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
use figures::{Figures, Row};
use overview::{BytesPicture, SqnrPicture, Totals, Worst};

/// # Errors
/// A model that cannot be read or is not what the command line says; models that do not belong together; an
/// output that cannot be written.
pub fn run(args: &ReportArgs) -> Result<()> {
    let model = Model::open(&args.model)?;
    let opened: Result<Vec<Model>> = args
        .quantized
        .iter()
        .map(|path| Ok(Model::open(path)?))
        .collect();
    let quantized = opened?;
    let mut inputs = model.files().inputs();
    inputs.extend(quantized.iter().flat_map(|model| model.files().inputs()));
    interrupt::watch();
    let target = Target::new(&args.output, &inputs, args.force)?;
    check(&model, &quantized)?;
    let mut tensors: Vec<&StoredTensor> = model.tensors().collect();
    tensors.sort_by_key(|tensor| name::key(tensor.name()));
    let progress = workers::progress(
        tensors.iter().map(|tensor| tensor.bytes()).sum(),
        args.quiet,
    );
    let mut rows = Vec::new();
    for tensor in tensors {
        let mut row = Row::of(tensor);
        // One at a time, so that memory does not grow with their number.
        for quantized in &quantized {
            row.results
                .push(Figures::of(tensor, quantized_of(tensor, quantized)?)?);
        }
        rows.push(row);
        progress.inc(tensor.bytes() as u64);
    }
    progress.finish_and_clear();

    let page = Page::new(args, rows);
    target.write(page.render()?.as_bytes())?;
    match args.quiet {
        true => Ok(()),
        false => print(page.summary(&args.output)),
    }
}

/// Checks that one model is of floats, and that the others are quantized and have tensors of the same names,
/// dtypes and shapes.
fn check(model: &Model, quantized: &[Model]) -> Result<()> {
    if model.is_quantized() {
        model.files().config()?;
        let path = model.path().to_owned();
        return Err(Error::AlreadyQuantized { path });
    }
    for quantized in quantized {
        if !quantized.is_quantized() {
            let path = quantized.path().to_owned();
            return Err(Error::NoQuantizedModel { path });
        }
        for tensor in model.tensors() {
            quantized_of(tensor, quantized)?;
        }
        let mut tensors = quantized.tensors();
        if let Some(kept) = tensors.find(|kept| model.get(kept.name()).is_none()) {
            return Err(unpaired(kept, model));
        }
    }
    Ok(())
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
    version: &'static str,
    rows: Vec<Row>,
    parameters: usize,
    bytes: usize,
    /// One for each quantization.
    totals: Vec<Totals>,
    bytes_picture: BytesPicture,
    sqnr_picture: SqnrPicture,
    worst: Vec<Worst>,
}

impl Page {
    fn new(args: &ReportArgs, rows: Vec<Row>) -> Self {
        let shown = |path: &Path| printable(&path.display().to_string()).into_owned();
        let paths = args.quantized.iter().enumerate();
        let totals = paths.map(|(index, path)| Totals::new(shown(path), &rows, index));
        let totals: Vec<Totals> = totals.collect();
        let bytes = rows.iter().map(|row| row.bytes).sum();
        Self {
            model: shown(&args.model),
            version: env!("CARGO_PKG_VERSION"),
            parameters: rows.iter().map(|row| row.parameters).sum(),
            bytes,
            bytes_picture: BytesPicture::new(bytes, &totals),
            sqnr_picture: SqnrPicture::new(&rows),
            worst: overview::worst(&rows),
            totals,
            rows,
        }
    }

    /// Whether two quantizations stand beside each other.
    fn is_comparison(&self) -> bool {
        self.totals.len() > 1
    }

    /// The tensors that no quantization has quantized.
    fn copied(&self) -> Vec<&Row> {
        self.rows.iter().filter(|row| !row.is_quantized()).collect()
    }

    fn copied_bytes(&self) -> usize {
        self.copied().iter().map(|row| row.bytes).sum()
    }

    /// The lines that are printed, one for each quantization.
    fn summary(&self, output: &Path) -> String {
        let output = output.display().to_string();
        let line = |totals: &Totals| {
            let mut line = format!(
                "{}: {}{} of {} tensors quantized, {} bytes of {}",
                printable(&output),
                match self.is_comparison() {
                    true => format!("{}: ", totals.path),
                    false => String::new(),
                },
                totals.count,
                self.rows.len(),
                grouped(totals.bytes),
                grouped(self.bytes)
            );
            if let (Some(mean), Some((_, worst))) = (totals.mean_sqnr_db, totals.worst) {
                line += &format!(", SQNR {mean:.2} dB in the mean, {worst:.2} dB at worst");
            }
            line
        };
        self.totals.iter().map(line).collect::<Vec<_>>().join("\n")
    }
}
