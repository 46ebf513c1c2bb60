//! What a command has done, as a table or as JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::time::Instant;

use chopi::{Granularity, Scheme, Symmetry};
use indicatif::HumanCount;
use serde::Serialize;

use crate::args::PrintArgs;
use crate::error::Result;
use crate::others::LeftOut;
use crate::print::{print, print_json, printable};
use crate::quantize::made::HeldOut;
use crate::table::{Cell, Column, Table};

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
    /// How good the model is on text that the method has not seen.
    #[serde(skip_serializing_if = "Option::is_none")]
    held_out: Option<HeldOut>,
}

/// What became of one tensor.
pub trait ReportRow: Serialize {
    /// What the command does to a tensor.
    const DONE: &'static str;

    fn columns() -> Vec<Column>;
    fn cells(&self) -> Vec<Cell>;
    /// Whether it was done to this one, which otherwise was copied.
    fn is_done(&self) -> bool;
    /// Why it was copied, where the command has a reason.
    fn reason(&self) -> Option<&str> {
        None
    }
    /// What is said of all of them below the table.
    fn summary(_: &[Self]) -> Option<String>
    where
        Self: Sized,
    {
        None
    }
    fn bytes_in(&self) -> usize;
    fn bytes_out(&self) -> usize;
}

impl<R: ReportRow> Report<R> {
    pub fn new(tensors: Vec<R>, start: Instant) -> Self {
        Self {
            bytes_in: tensors.iter().map(R::bytes_in).sum(),
            bytes_out: tensors.iter().map(R::bytes_out).sum(),
            tensors,
            seconds: start.elapsed().as_secs_f64(),
            left_out: Vec::new(),
            held_out: None,
        }
    }

    /// The report with what came out on text that the method has not seen.
    pub fn held_out(self, held_out: Option<HeldOut>) -> Self {
        Self { held_out, ..self }
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
    pub fn print(&self, args: &PrintArgs, verbose: bool) -> Result<()> {
        match (args.quiet, args.json) {
            (true, _) => Ok(()),
            (false, true) => print_json(self),
            (false, false) => print(self.text(verbose)),
        }
    }

    /// The table of what was done, with every tensor if it is to be verbose, and the totals below it.
    fn text(&self, verbose: bool) -> String {
        let mut table = Table::new(R::columns());
        let shown = |row: &&R| verbose || row.is_done();
        for row in self.tensors.iter().filter(shown) {
            table.row(row.cells());
        }
        let done = self.tensors.iter().filter(|row| row.is_done()).count();
        let mut text = match done == 0 && !verbose {
            true => String::new(),
            false => format!("{table}\n\n"),
        };
        if let Some(copied) = self.copied().filter(|_| !verbose) {
            text += &copied;
            text.push('\n');
        }
        let percent = 100.0 * self.bytes_out as f64 / self.bytes_in.max(1) as f64;
        text += &format!(
            "{} tensors, {done} {}: {} of {} bytes ({percent:.1} %), {:.2} s",
            self.tensors.len(),
            R::DONE,
            grouped(self.bytes_out),
            grouped(self.bytes_in),
            self.seconds
        );
        let left_out: Vec<_> = self.left_out.iter().map(|name| printable(name)).collect();
        if !left_out.is_empty() {
            text += &format!("\nother weights, not copied: {}", left_out.join(", "));
        }
        if let Some(summary) = R::summary(&self.tensors) {
            text += &format!("\n{summary}");
        }
        if let Some(held_out) = &self.held_out {
            text += &format!("\n{}", held_out.said());
        }
        text
    }

    /// How many tensors were copied, and why.
    fn copied(&self) -> Option<String> {
        let copied = self.tensors.iter().filter(|row| !row.is_done());
        let mut reasons = BTreeMap::new();
        for reason in copied.clone().filter_map(R::reason) {
            *reasons.entry(reason).or_insert(0) += 1;
        }
        let mut reasons: Vec<(&str, usize)> = reasons.into_iter().collect();
        reasons.sort_by_key(|&(_, count)| std::cmp::Reverse(count));
        let because: Vec<String> = reasons
            .iter()
            .map(|(reason, count)| format!("\n  {count}: {}", printable(reason)))
            .collect();
        let bytes: usize = copied.clone().map(R::bytes_out).sum();
        let line = |count| {
            let (s, bytes) = (if count == 1 { "" } else { "s" }, grouped(bytes));
            let because = because.concat();
            format!("{count} tensor{s} copied, {bytes} bytes (--verbose lists them){because}")
        };
        Some(copied.count()).filter(|count| *count > 0).map(line)
    }
}

/// A number of bytes with separators: 90,868,376.
pub fn grouped(bytes: usize) -> String {
    HumanCount(bytes as u64).to_string()
}

/// A scheme in the words of a narrow cell; `granularity` is the one that it has on the tensor.
pub fn scheme_words(scheme: &Scheme, granularity: Granularity) -> String {
    let per = match granularity {
        Granularity::PerTensor => "per tensor".to_owned(),
        Granularity::PerChannel { axis } => format!("per channel of axis {axis}"),
        Granularity::PerGroup { size, .. } => format!("groups of {size}"),
    };
    format!("{} bits, {}, {per}", scheme.bits, symmetry(scheme))
}

/// A scheme in a cell of a table; `granularity` is the one that it has on the tensor.
pub fn scheme_cell(scheme: &Scheme, granularity: Granularity) -> Cell {
    let per = match granularity {
        Granularity::PerTensor => String::new(),
        Granularity::PerChannel { axis } => format!(" c{axis}"),
        Granularity::PerGroup { size, .. } => format!(" g{size}"),
    };
    let symmetry = match scheme.symmetry {
        Symmetry::Symmetric => "sym",
        Symmetry::Asymmetric => "asym",
    };
    Cell::from(scheme_text(scheme, granularity)).or(format!("{} {symmetry}{per}", scheme.bits))
}

/// A scheme with its range; `granularity` is the one that it has on the tensor.
pub fn scheme_text(scheme: &Scheme, granularity: Granularity) -> String {
    let (bits, qmin, qmax) = (scheme.bits, scheme.qmin, scheme.qmax);
    format!(
        "{bits} bits {} [{qmin}, {qmax}] {granularity}",
        symmetry(scheme)
    )
}

fn symmetry(scheme: &Scheme) -> &'static str {
    match scheme.symmetry {
        Symmetry::Symmetric => "symmetric",
        Symmetry::Asymmetric => "asymmetric",
    }
}
