//! `chopi compare`: where two models differ.

pub mod elements;
mod number;
mod row;

use std::collections::BTreeSet;
use std::process::ExitCode;

use chopi::formats::{Model, StoredTensor};

use crate::archive::Entry;
use crate::args::CompareArgs;
use crate::error::{Fault, Result};
use crate::workers;
use row::{CompareRow, Report};

/// Prints the differences, and tells by the exit status whether there are any.
///
/// # Errors
/// What is wrong with one of the models.
pub fn run(args: &CompareArgs) -> Result<ExitCode> {
    let (a, b) = (Model::open(&args.a)?, Model::open(&args.b)?);
    let tasks = tasks(&a, &b)?;
    let progress = workers::progress(tasks.iter().map(CompareTask::size).sum(), args.print.quiet);
    let rows = workers::run(&tasks, CompareTask::size, None, |task| {
        let row = task.run();
        progress.inc(task.size() as u64);
        row.map_err(|fault| {
            chopi::formats::Error::Tensor {
                path: args.a.clone(),
                tensor: task.name().to_owned(),
                fault: Box::new(fault),
            }
            .into()
        })
    });
    progress.finish_and_clear();
    let report = Report::new(rows?);
    report.print(&args.print, args.verbose)?;
    Ok(match report.differs() {
        true => ExitCode::FAILURE,
        false => ExitCode::SUCCESS,
    })
}

/// The tensors of one name.
#[derive(Clone, Debug)]
enum CompareTask {
    Both(Entry, Entry),
    OnlyA(Entry),
    OnlyB(Entry),
}

/// The tensors of both models, in the order of their names.
///
/// # Errors
/// Parameters that cannot be read.
fn tasks(a: &Model, b: &Model) -> Result<Vec<CompareTask>> {
    let names: BTreeSet<&str> = a
        .tensors()
        .chain(b.tensors())
        .map(StoredTensor::name)
        .collect();
    let mut tasks = Vec::new();
    for name in names {
        match (a.get(name), b.get(name)) {
            (Some(x), Some(y)) => tasks.extend(both(x, y)?),
            (Some(x), None) => tasks.push(CompareTask::OnlyA(x.values()?)),
            (None, Some(y)) => tasks.push(CompareTask::OnlyB(y.values()?)),
            (None, None) => {}
        }
    }
    tasks.sort_by(|a, b| a.name().cmp(b.name()));
    Ok(tasks)
}

/// Of two tensors that are quantized in the same layout the codes and the parameters, of others the values.
///
/// # Errors
/// Parameters that cannot be read.
fn both(x: &StoredTensor, y: &StoredTensor) -> Result<Vec<CompareTask>> {
    let layout = |tensor: &StoredTensor| {
        let parts = tensor.parts().into_iter();
        parts
            .map(|part| (part.name.clone(), part.dtype))
            .collect::<Vec<_>>()
    };
    let (parts, others) = (x.parts(), y.parts());
    if parts.len() > 1 && layout(x) == layout(y) {
        let pairs = parts.into_iter().zip(others);
        return Ok(pairs
            .map(|(x, y)| CompareTask::Both(x.clone(), y.clone()))
            .collect());
    }
    Ok(vec![CompareTask::Both(x.values()?, y.values()?)])
}

impl CompareTask {
    fn name(&self) -> &str {
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

    fn run(&self) -> std::result::Result<CompareRow, Fault> {
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
