//! `chopi quantize`: floats to codes.

pub mod calibrate;
pub mod piece;
pub mod row;
mod task;

use std::time::Instant;

use crate::archive::Archive;
use crate::args::QuantizeArgs;
use crate::choice::Choice;
use crate::compressed_tensors::check_floats_of;
use crate::error::{Error, Result};
use crate::framework::{Framework, with_framework};
use crate::header::Header;
use crate::output::Target;
use crate::record::{KEY, Record, Spec};
use crate::report::Report;
use crate::workers;
use row::QuantizeRow;
use task::{Shared, Task};

/// # Errors
/// What is wrong with the input or the output.
pub fn run(args: &QuantizeArgs, choice: &Choice) -> Result<()> {
    let start = Instant::now();
    let archive = Archive::open(&args.files.input)?;
    let target = args.files.target(args.bits_from.as_ref())?;
    let rows = with_framework!(args.work.backend, K => {
        write::<K>(&archive, args, choice, target)?
    });
    Report::new(rows, start).print(&args.print)
}

/// Writes the quantized file.
fn write<K: Framework>(
    archive: &Archive,
    args: &QuantizeArgs,
    choice: &Choice,
    target: Target,
) -> Result<Vec<QuantizeRow>> {
    let mut metadata = archive.metadata.clone();
    if metadata.contains_key(KEY) {
        return Err(Error::AlreadyQuantized {
            path: archive.path.clone(),
        });
    }
    choice.check(&archive.path, std::slice::from_ref(archive))?;
    check_floats_of(archive, |tensor| choice.of(tensor).is_some())?;
    let record = record(archive, choice)?;
    let json = serde_json::to_string(&record).map_err(|e| archive.bad_metadata(e))?;
    metadata.insert(KEY.to_owned(), json);

    let mut header = Header::new(metadata);
    let mut tasks = Vec::with_capacity(archive.tensors.len());
    for tensor in archive.tensors.values() {
        tasks.push(match choice.of(tensor) {
            None => Task::copy(tensor, &mut header),
            Some(how) => Task::quantize::<K>(archive, tensor, how, &mut header)
                .map_err(|fault| archive.fault(&tensor.name, fault))?,
        });
    }
    let output = target.create(&header)?;
    let total = tasks.iter().map(Task::size).sum();
    let progress = workers::progress(total, args.print.quiet);
    let rows = workers::run(&tasks, Task::size, args.work.threads, |task| {
        task.run::<K>(Shared {
            archive,
            output: &output,
            progress: &progress,
        })
    });
    progress.finish_and_clear();
    let rows = rows?;
    output.persist()?;
    Ok(rows)
}

/// What the file will say about the tensors that are chosen.
fn record(archive: &Archive, choice: &Choice) -> Result<Record> {
    let quantized = archive.tensors.values().filter_map(|tensor| {
        let (dtype, settings) = choice.of(tensor)?;
        let spec = Spec {
            scheme: settings.scheme.clone(),
            convention: settings.convention.name().to_string(),
            dtype,
        };
        Some((tensor.name.clone(), spec))
    });
    let record = Record::new(quantized);
    if record.names().next().is_none() && choice.is_explicit() {
        return Err(choice.nothing(archive));
    }
    Ok(record)
}
