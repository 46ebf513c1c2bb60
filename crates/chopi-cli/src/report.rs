//! What a command has done, as a table or as JSON.

use std::fmt::Display;
use std::io::{self, Write};
use std::time::Instant;

use chopi::{Granularity, Scheme, Symmetry};
use comfy_table::{CellAlignment, Table, presets};
use indicatif::HumanCount;
use serde::Serialize;

use crate::args::PrintArgs;
use crate::error::Result;
use crate::others::LeftOut;
use crate::print::{print, print_json, printable};

/// What became of the tensors of a file.
#[derive(Debug, Serialize)]
pub struct Report<R> {
    tensors: Vec<R>,
    bytes_in: usize,
    bytes_out: usize,
    seconds: f64,
    /// Files with weights that were not copied.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    left_out: Vec<String>,
}

/// What became of one tensor.
pub trait ReportRow: Serialize {
    /// The heads of the table's columns: texts, the bytes before and after, then numbers.
    const COLUMNS: &'static [&'static str];
    /// How many of them are texts.
    const TEXTS: usize;
    /// What the command does to a tensor.
    const DONE: &'static str;

    /// Whether it was done to this one, which otherwise was copied.
    fn is_done(&self) -> bool;
    fn bytes_in(&self) -> usize;
    fn bytes_out(&self) -> usize;
    fn cells(&self) -> Vec<String>;
}

impl<R: ReportRow> Report<R> {
    pub fn new(tensors: Vec<R>, start: Instant) -> Self {
        Self {
            bytes_in: tensors.iter().map(R::bytes_in).sum(),
            bytes_out: tensors.iter().map(R::bytes_out).sum(),
            tensors,
            seconds: start.elapsed().as_secs_f64(),
            left_out: Vec::new(),
        }
    }

    /// The report with the names of files with weights that were not copied. Other files that were not are
    /// named, with the reason, on standard error.
    pub fn left_out(self, left_out: LeftOut, args: &PrintArgs) -> Self {
        for (name, reason) in left_out.others.iter().filter(|_| !args.quiet) {
            let line = format!("{name}: not copied: {reason}");
            let _ = writeln!(io::stderr(), "chopi: {}", printable(&line));
        }
        let left_out = left_out.weights;
        Self { left_out, ..self }
    }

    /// # Errors
    /// Where standard output cannot be written.
    pub fn print(&self, args: &PrintArgs) -> Result<()> {
        match (args.quiet, args.json) {
            (true, _) => Ok(()),
            (false, true) => print_json(self),
            (false, false) => print(self.table()),
        }
    }

    fn table(&self) -> impl Display {
        let mut table = table(R::COLUMNS, R::TEXTS);
        for row in &self.tensors {
            table.add_row(row.cells());
        }
        let done = self.tensors.iter().filter(|row| row.is_done()).count();
        let mut totals = vec![String::new(); R::TEXTS - 1];
        totals[0] = format!("{} tensors", self.tensors.len());
        totals.push(format!("{done} {}", R::DONE));
        totals.push(grouped(self.bytes_in));
        totals.push(grouped(self.bytes_out));
        table.add_row(totals);
        let percent = 100.0 * self.bytes_out as f64 / self.bytes_in.max(1) as f64;
        let left_out: Vec<_> = self.left_out.iter().map(|name| printable(name)).collect();
        let left_out = match &left_out[..] {
            [] => String::new(),
            names => format!("\nother weights, not copied: {}", names.join(", ")),
        };
        format!(
            "{table}\n\n{percent:.1} % of the bytes, {:.2} s{left_out}",
            self.seconds
        )
    }
}

/// A table in Markdown, so that it can be pasted into one. The columns after the first `texts` ones
/// hold numbers.
pub fn table(columns: &[&str], texts: usize) -> Table {
    let mut table = Table::new();
    table
        .load_preset(presets::ASCII_MARKDOWN)
        .set_header(columns);
    for column in table.column_iter_mut().skip(texts) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// A number of bytes with separators: 90,868,376.
pub fn grouped(bytes: usize) -> String {
    HumanCount(bytes as u64).to_string()
}

/// A scheme in the words of a narrow cell; `granularity` is the one that it has on the tensor.
pub fn scheme_words(scheme: &Scheme, granularity: Granularity) -> String {
    let symmetry = match scheme.symmetry {
        Symmetry::Symmetric => "symmetric",
        Symmetry::Asymmetric => "asymmetric",
    };
    let per = match granularity {
        Granularity::PerTensor => "per tensor".to_owned(),
        Granularity::PerChannel { axis } => format!("per channel of axis {axis}"),
        Granularity::PerGroup { size, .. } => format!("groups of {size}"),
    };
    format!("{} bits, {symmetry}, {per}", scheme.bits)
}

/// A scheme in a cell; `granularity` is the one that it has on the tensor.
pub fn scheme_cell(scheme: &Scheme, granularity: Granularity) -> String {
    let (bits, qmin, qmax) = (scheme.bits, scheme.qmin, scheme.qmax);
    let symmetry = match scheme.symmetry {
        Symmetry::Symmetric => "symmetric",
        Symmetry::Asymmetric => "asymmetric",
    };
    format!("{bits} bits {symmetry} [{qmin}, {qmax}] {granularity}")
}
