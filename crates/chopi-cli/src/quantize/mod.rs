//! `chopi quantize`: floats to codes.

pub mod calibrate;
pub mod piece;
pub mod row;
pub mod task;

use std::time::Instant;

use crate::archive::Archive;
use crate::args::QuantizeArgs;
use crate::choice::Choice;
use crate::compressed_tensors::check_floats_of;
use crate::error::{Error, Result};
use crate::framework::{Framework, with_framework};
use crate::header::Header;
use crate::report::Report;
use crate::workers;
use crate::write::Target;
use chopi::formats::Format;
use chopi::formats::chopi::{Chopi, KEY};
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
    let metadata = archive.metadata.clone();
    if metadata.contains_key(KEY) {
        return Err(Error::AlreadyQuantized {
            path: archive.path.clone(),
        });
    }
    choice.check(&archive.path, std::slice::from_ref(archive))?;
    check_floats_of(archive, |tensor| choice.of(tensor).is_some())?;
    let mut header = Header::new(metadata);
    let (mut tasks, mut plans) = (Vec::new(), Vec::new());
    // What is copied comes first, so that it is the quantized tensor whose parts have no names left.
    let mut tensors: Vec<_> = archive.tensors.values().collect();
    tensors.sort_by_key(|tensor| choice.of(tensor).is_some());
    for tensor in tensors {
        let how = choice.of(tensor);
        let fault = |fault| archive.fault(&tensor.name, fault);
        let plan = task::plan::<K>(tensor, how).map_err(fault)?;
        let parts = Chopi.plan(&plan, &mut header).map_err(fault)?;
        tasks.push(Task::new(tensor, how, parts));
        plans.push(plan);
    }
    tasks.sort_by_key(|task| task.name());
    if choice.is_explicit() && !tasks.iter().any(Task::is_quantized) {
        return Err(choice.nothing(archive));
    }
    let described = Chopi.describe(&plans, &mut header);
    described.map_err(|error| archive.bad_metadata(error))?;
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
