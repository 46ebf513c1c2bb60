//! `chopi compare`: where two files differ.

pub mod elements;
mod number;
mod row;

use std::process::ExitCode;

use crate::archive::{Archive, Entry};
use crate::args::CompareArgs;
use crate::error::{Fault, Result};
use crate::workers;
use row::{CompareRow, Report};

/// Prints the differences, and tells by the exit status whether there are any.
///
/// # Errors
/// What is wrong with one of the files.
pub fn run(args: &CompareArgs) -> Result<ExitCode> {
    let (a, b) = (Archive::open(&args.a)?, Archive::open(&args.b)?);
    let tasks = tasks(&a, &b);
    let progress = workers::progress(tasks.iter().map(CompareTask::size).sum(), args.print.quiet);
    let rows = workers::run(&tasks, CompareTask::size, None, |task| {
        let row = task
            .run()
            .map_err(|fault| a.fault(task.name(), fault).into());
        progress.inc(task.size() as u64);
        row
    });
    progress.finish_and_clear();
    let report = Report::new(rows?);
    report.print(&args.print)?;
    Ok(match report.differs() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// The tensors of one name.
#[derive(Clone, Copy, Debug)]
enum CompareTask<'a> {
    Both(&'a Entry, &'a Entry),
    OnlyA(&'a Entry),
    OnlyB(&'a Entry),
}

/// The tensors of both files, in the order of their names.
fn tasks<'a>(a: &'a Archive, b: &'a Archive) -> Vec<CompareTask<'a>> {
    let in_a = a.tensors.values().map(|x| match b.tensors.get(&x.name) {
        Some(y) => CompareTask::Both(x, y),
        None => CompareTask::OnlyA(x),
    });
    let not_in_a = |y: &&Entry| !a.tensors.contains_key(&y.name);
    let only_b = b.tensors.values().filter(not_in_a).map(CompareTask::OnlyB);
    let mut tasks: Vec<_> = in_a.chain(only_b).collect();
    tasks.sort_by_key(|task| task.name());
    tasks
}

impl<'a> CompareTask<'a> {
    fn name(self) -> &'a str {
        let (Self::Both(tensor, _) | Self::OnlyA(tensor) | Self::OnlyB(tensor)) = self;
        &tensor.name
    }

    /// The bytes to read.
    fn size(&self) -> usize {
        match self {
            Self::Both(a, b) => a.data.len() + b.data.len(),
            Self::OnlyA(_) | Self::OnlyB(_) => 0,
        }
    }

    fn run(self) -> std::result::Result<CompareRow, Fault> {
        Ok(match self {
            Self::Both(a, b) if a.shape == b.shape => {
                CompareRow::compared(a, b, elements::compare(a, b)?)
            }
            Self::Both(a, b) => CompareRow::reshaped(a, b),
            Self::OnlyA(a) => CompareRow::only_in_a(a),
            Self::OnlyB(b) => CompareRow::only_in_b(b),
        })
    }
}
