//! `chopi statistics`: what the layers of a model take.

use chopi::models::{self, Model};
use chopi::ptq::{Moments, Statistics};
use rayon::ThreadPoolBuilder;

use super::{beside, read};
use crate::args::StatisticsArgs;
use crate::error::{Error, Result};
use crate::files::Files;
use crate::interrupt;
use crate::layerwise::windows_of;
use crate::print::print;
use crate::report::grouped;
use crate::workers;
use crate::write::Target;

/// # Errors
/// What is wrong with the model, the text or the output.
pub fn run(args: &StatisticsArgs) -> Result<()> {
    // What cannot be written is said before the work.
    let mut inputs = Files::open(&args.folder)?.inputs();
    inputs.extend(beside(&args.folder));
    inputs.push(args.text.clone());
    Target::new(&args.output, &inputs, args.force)?.check()?;
    let text = read(&args.text)?;
    let pool = ThreadPoolBuilder::new().num_threads(workers::count(args.threads));
    let statistics = pool.build()?.install(|| {
        let collected = models::load(&args.folder).and_then(|model| collect(args, &model, &text));
        collected.map_err(|error| Error::model(&args.folder, error))
    })?;
    interrupt::watch();
    statistics.save(&args.output)?;
    if args.quiet {
        return Ok(());
    }
    let rows = statistics.0.values().map(Moments::rows).max();
    print(format_args!(
        "{} layers, {} rows at most",
        statistics.0.len(),
        grouped(rows.unwrap_or_default() as usize)
    ))
}

fn collect(args: &StatisticsArgs, model: &Model, text: &str) -> models::Result<Statistics> {
    let bar = workers::steps("windows", args.quiet);
    let statistics = model.statistics(text, windows_of(model, args.windows), |done, of| {
        bar.set_length(of as u64);
        bar.set_position(done as u64);
    });
    bar.finish_and_clear();
    statistics
}
