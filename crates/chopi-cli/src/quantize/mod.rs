//! `chopi quantize`: floats to codes.

pub mod calibrate;
pub mod piece;
pub mod row;
mod task;

use std::collections::BTreeMap;
use std::time::Instant;

use crate::archive::{Archive, Mapped};
use crate::args::{QuantizeArgs, Settings};
use crate::error::{Error, Result};
use crate::format::{KEY, Quantized, Record};
use crate::framework::{Framework, with_framework};
use crate::header::Header;
use crate::output::Target;
use crate::report::Report;
use crate::workers;
use row::QuantizeRow;
use task::{Shared, Task};

/// # Errors
/// What is wrong with the input or the output.
pub fn run(args: &QuantizeArgs, settings: &Settings) -> Result<()> {
    let start = Instant::now();
    let mapped = Mapped::open(&args.files.input)?;
    let archive = mapped.parse()?;
    let target = args.files.target()?;
    let rows = with_framework!(args.work.backend, K => {
        write::<K>(&archive, args, settings, target)?
    });
    Report::new(rows, start).print(&args.print)
}

/// Writes the quantized file.
fn write<K: Framework>(
    archive: &Archive<'_>,
    args: &QuantizeArgs,
    settings: &Settings,
    target: Target,
) -> Result<Vec<QuantizeRow>> {
    let mut metadata = archive.metadata.clone();
    if metadata.contains_key(KEY) {
        return Err(Error::AlreadyQuantized {
            path: archive.path.to_owned(),
        });
    }
    let record = record(archive, settings)?;
    let json = serde_json::to_string(&record).map_err(|e| archive.bad_metadata(e))?;
    metadata.insert(KEY.to_owned(), json);

    let mut header = Header::new(metadata);
    let mut tasks = Vec::with_capacity(archive.tensors.len());
    for tensor in archive.tensors.values() {
        tasks.push(match record.tensors.get(&tensor.name) {
            None => Task::copy(tensor, &mut header),
            Some(Quantized { dtype, .. }) => {
                Task::quantize::<K>(archive, tensor, *dtype, settings, &mut header)
                    .map_err(|fault| archive.fault(&tensor.name, fault))?
            }
        });
    }
    let output = target.create(&header)?;
    let total = tasks.iter().map(Task::size).sum();
    let progress = workers::progress(total, args.print.quiet);
    let rows = workers::run(&tasks, Task::size, args.work.threads, |task| {
        task.run::<K>(Shared {
            archive,
            settings,
            output: &output,
            progress: &progress,
        })
    });
    progress.finish_and_clear();
    let rows = rows?;
    output.persist()?;
    Ok(rows)
}

/// What the file will say about the tensors that the command line selects.
fn record(archive: &Archive<'_>, settings: &Settings) -> Result<Record> {
    let mut tensors = BTreeMap::new();
    for tensor in archive.tensors.values() {
        if let Some(dtype) = settings.selection.float_type_of(tensor) {
            let quantized = Quantized {
                scheme: settings.scheme.clone(),
                convention: settings.convention.name.to_string(),
                dtype,
            };
            tensors.insert(tensor.name.clone(), quantized);
        }
    }
    if tensors.is_empty() && settings.selection.is_explicit() {
        return Err(Error::NothingIncluded {
            path: archive.path.to_owned(),
        });
    }
    Ok(Record::new(tensors))
}
