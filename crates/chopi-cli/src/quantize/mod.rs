//! `chopi quantize`: floats to codes or blocks, in one file.

mod blocks;
pub mod calibrate;
pub mod chooser;
pub mod made;
pub mod piece;
pub mod row;
pub mod task;

use std::path::Path;
use std::time::Instant;

use chopi::formats::Format;
use chopi::formats::chopi::{Chopi, KEY};
use chopi::formats::gguf::{Gguf, GgufFile};

use crate::archive::{Archive, Entry};
use crate::args::QuantizeArgs;
use crate::choice::Choice;
use crate::compressed_tensors::check_floats_of;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::framework::{Framework, with_framework};
use crate::header::Header;
use crate::report::Report;
use crate::workers;
use crate::write::Target;
use chooser::Chooser;
use made::Made;
use row::QuantizeRow;
use task::{How, Shared, Task};

/// # Errors
/// What is wrong with the input or the output.
pub fn run(args: &QuantizeArgs, choice: &Choice) -> Result<()> {
    let start = Instant::now();
    let files = Files::open(&args.files.input)?;
    let config = files.config()?;
    let archives = files.archives()?;
    let mut inputs = files.inputs();
    inputs.extend(args.inputs());
    let target = args.files.target(&inputs)?;
    // Before a method works for hours.
    target.check()?;
    let model = Model {
        path: &files.input,
        archives: &archives,
    };
    let settings_of = |name: &str| {
        let tensor = archives.iter().find_map(|a| a.tensors.get(name))?;
        Some(choice.of(tensor)?.1)
    };
    let made = Made {
        chooser: Chooser::new(args, &archives, &config)?,
        ..make(args, &settings_of)?
    };
    let rows =
        with_framework!(args.work.backend, K => model.write::<K>(args, choice, &made, target)?);
    Report::new(rows, start)
        .held_out(made.held_out)
        .print(&args.print, args.verbose)
}

/// What the method of the command line makes of the model, if it sees data.
///
/// # Errors
/// What is wrong with the model or the text.
#[cfg(feature = "models")]
pub use crate::layerwise::make;

/// Nothing: methods that see data run the model.
#[cfg(not(feature = "models"))]
pub fn make<'a>(
    _: &QuantizeArgs,
    _: &dyn Fn(&str) -> Option<&'a crate::args::Settings>,
) -> Result<Made> {
    Ok(Made::default())
}

/// A model of floats.
#[derive(Clone, Copy)]
struct Model<'a> {
    path: &'a Path,
    archives: &'a [Archive],
}

impl<'a> Model<'a> {
    fn tensors(self) -> impl Iterator<Item = (&'a Archive, &'a Entry)> {
        let tensors = |archive: &'a Archive| archive.tensors.values().map(move |t| (archive, t));
        self.archives.iter().flat_map(tensors)
    }

    /// Writes the quantized file.
    fn write<K: Framework>(
        self,
        args: &QuantizeArgs,
        choice: &Choice,
        made: &Made,
        target: Target,
    ) -> Result<Vec<QuantizeRow>> {
        if let Some(archive) = self.archives.iter().find(|a| a.metadata.contains_key(KEY)) {
            let path = archive.path.clone();
            return Err(Error::AlreadyQuantized { path });
        }
        choice.check(self.path, self.archives)?;
        for archive in self.archives {
            check_floats_of(archive, |tensor| choice.of(tensor).is_some())?;
        }
        let format: &dyn Format = match args.gguf {
            None => &Chopi,
            Some(_) => &GgufFile,
        };
        let mut header = self.header(args)?;
        let (mut tasks, mut plans) = (Vec::new(), Vec::new());
        // What is copied comes first, so that it is the quantized tensor whose parts have no names left.
        let how = |tensor: &'a Entry| How::of(tensor, choice, made, args.gguf);
        let mut tensors: Vec<_> = self.tensors().collect();
        tensors.sort_by_key(|(_, tensor)| how(tensor).is_codes());
        for (archive, tensor) in tensors {
            let fault = |fault| archive.fault(&tensor.name, fault);
            let plan = task::plan::<K>(tensor, &how(tensor)).map_err(fault)?;
            let parts = format.plan(&plan, &mut header).map_err(fault)?;
            tasks.push(Task::new(&archive.path, tensor, how(tensor), parts));
            plans.push(plan);
        }
        tasks.sort_by_key(|task| task.name());
        if choice.is_explicit() && !tasks.iter().any(Task::is_quantized) {
            return Err(choice.nothing(self.path, self.tensors().map(|(_, tensor)| tensor)));
        }
        let described = format.describe(&plans, &mut header);
        described.map_err(|error| chopi::formats::Error::Write {
            path: args.files.output.clone(),
            source: error.into(),
        })?;
        let output = target.create(&header)?;
        let total = tasks.iter().map(Task::size).sum();
        let progress = workers::progress(total, args.print.quiet);
        let rows = workers::run(&tasks, Task::size, args.work.threads, |task| {
            task.run::<K>(Shared {
                made,
                output: &output,
                progress: &progress,
            })
        });
        progress.finish_and_clear();
        let rows = rows?;
        output.persist()?;
        Ok(rows)
    }

    /// The header of the output, with the metadata of the input; of those of several files with one key the first.
    fn header(self, args: &QuantizeArgs) -> Result<Header> {
        if args.gguf.is_none() {
            let metadata = self.archives.iter().rev().flat_map(|a| a.metadata.clone());
            return Ok(Header::new(metadata.collect()));
        }
        // What a safetensors file says is not what GGUF asks for.
        let [archive] = self.archives else {
            return Ok(GgufFile.header());
        };
        Ok(match archive.is_gguf {
            true => Header::gguf(Gguf::open(&archive.path)?.metadata),
            false => GgufFile.header(),
        })
    }
}
