//! The program `chopi` as a library: its command line as a function, which `src/main.rs` calls and tests
//! call in their own process.
//!
//! Everything else of it is private; the library for programs is the crate `chopi`.

mod architecture;
mod args;
mod choice;
mod compare;
mod compressed_tensors;
mod dequantize;
mod error;
mod framework;
mod inspect;
mod interrupt;
#[cfg(feature = "models")]
mod layerwise;
mod manual;
#[cfg(feature = "models")]
mod models;
mod others;
mod page;
mod plan;
mod print;
mod quantize;
mod report;
#[cfg(feature = "models")]
mod resume;
mod selection;
mod sensitivity;
mod statistics;
mod table;
mod workers;

use std::ffi::OsString;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use chopi::formats::Watch;
use chopi::formats::{archive, chunks, element, file, files, header, json, write};

use args::{Cli, Command, Format};
use clap::Parser;

/// Does what a command line says, the name of the program first, and gives the exit status: 0, or 1 where an
/// input or an output is bad or files that are compared differ, or 2 where the command line is bad, or 128 and
/// the number of the signal that has stopped it.
///
/// Writes to standard output and standard error. An error is one line there.
pub fn run(args: impl IntoIterator<Item = impl Into<OsString> + Clone>) -> ExitCode {
    match CommandLine::new(args) {
        Ok(line) => line.run(),
        Err(status) => status,
    }
}

/// A command line that was read, which can be carried out more than once.
#[derive(Debug)]
pub struct CommandLine(Command);

impl CommandLine {
    /// Reads a command line, the name of the program first.
    ///
    /// # Errors
    /// The exit status where it is bad or asks for help; the help, or what is wrong, is printed.
    pub fn new(
        args: impl IntoIterator<Item = impl Into<OsString> + Clone>,
    ) -> Result<Self, ExitCode> {
        let cli = Cli::try_parse_from(args).map_err(printed)?;
        Ok(Self(cli.command))
    }

    /// Does what it says, as [`run`] does.
    pub fn run(&self) -> ExitCode {
        let (message, status) = match (command(&self.0), interrupt::signal()) {
            (Ok(status), _) => return status,
            (Err(Failure::Usage(usage)), _) => return printed(usage),
            // Whatever the error was that the signal has led to, or has come before.
            (Err(Failure::Error(_)), Some(signal)) => (
                format!("stopped by signal {signal}; the output is as it was before"),
                ExitCode::from(128 + signal),
            ),
            (Err(Failure::Error(error)), None) => (said(&error), ExitCode::FAILURE),
        };
        // Where nobody can be told, the exit status still tells.
        let _ = writeln!(io::stderr(), "chopi: {}", print::printable(&message));
        status
    }
}

/// Prints what is wrong with a command line, or the help that it asks for, and gives the exit status.
fn printed(usage: clap::Error) -> ExitCode {
    // An error may hold the name of a file, which a shell has put there for a pattern: without styles, so that each
    // character that moves a cursor is one of the name.
    let _ = match usage.use_stderr() {
        true => {
            let message = usage.render().to_string();
            write!(io::stderr(), "{}", print::printable_text(&message))
        }
        false => usage.print(),
    };
    u8::try_from(usage.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from)
}

/// Why a command was not carried out.
enum Failure {
    /// The command line is bad, or asks for help.
    Usage(clap::Error),
    /// An input or an output is bad.
    Error(error::Error),
}

impl From<clap::Error> for Failure {
    fn from(usage: clap::Error) -> Self {
        Self::Usage(usage)
    }
}

impl From<error::Error> for Failure {
    fn from(error: error::Error) -> Self {
        Self::Error(error)
    }
}

/// What an error says, with the option that helps.
fn said(error: &error::Error) -> String {
    match error {
        error::Error::Formats(chopi::formats::Error::OutputExists { .. }) => {
            format!("{error} (--force replaces it)")
        }
        _ => error.to_string(),
    }
}

/// Says on standard error what is no error.
fn warn(path: &Path, what: &str) {
    let line = format!("{}: {what}", path.display());
    let _ = writeln!(io::stderr(), "chopi: {}", print::printable(&line));
}

fn command(command: &Command) -> Result<ExitCode, Failure> {
    Watch {
        check: interrupt::check,
        warn,
    }
    .set();
    chopi::cpu::Isa::asked().map_err(error::Error::Isa)?;
    let (threads, quiet) = command.threads();
    workers::say_count(threads, quiet);
    match command {
        Command::Quantize(args) => {
            let choice = args.choice(args.settings()?)?;
            match args.format {
                Format::Chopi => quantize::run(args, &choice)?,
                Format::CompressedTensors => compressed_tensors::quantize(args, &choice)?,
            }
        }
        Command::Dequantize(args) => dequantize::run(args)?,
        Command::Inspect(args) => inspect::run(args)?,
        Command::Compare(args) => return Ok(compare::run(args)?),
        Command::Report(args) => page::run(args)?,
        Command::Sensitivity(args) => sensitivity::run(args, args.settings()?)?,
        #[cfg(feature = "models")]
        Command::Statistics(args) => models::statistics(args)?,
        #[cfg(feature = "models")]
        Command::Run(args) => models::run(args)?,
        #[cfg(feature = "models")]
        Command::Embed(args) => models::embed(args)?,
        #[cfg(feature = "models")]
        Command::Evaluate(args) => models::evaluate(args)?,
        Command::Backends => print::print(framework::FrameworkName::list())?,
        Command::Completions(args) => manual::completions(args.shell)?,
        Command::Man(args) => manual::pages(&args.folder)?,
    }
    Ok(ExitCode::SUCCESS)
}
