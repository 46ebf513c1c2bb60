//! The program `chopi`: quantizes, dequantizes, inspects, compares and reports on safetensors model
//! files.
//!
//! `chopi --help` says how to use it. Exit status: 0, or 1 where an input or an output is bad or
//! files that are compared differ, or 2 where the command line is bad, or 128 and the number of the signal that
//! has stopped it.

mod architecture;
mod archive;
mod args;
mod choice;
mod chunks;
mod compare;
mod compressed_tensors;
mod dequantize;
mod element;
mod error;
mod file;
mod format;
mod framework;
mod header;
mod inspect;
mod interrupt;
mod json;
mod model;
mod output;
mod page;
mod plan;
mod print;
mod quantize;
mod report;
mod selection;
mod sensitivity;
mod temporary;
mod workers;

use std::io::{self, Write};
use std::process::ExitCode;

use args::{Cli, Command, Format};
use clap::Parser;

fn main() -> ExitCode {
    let done = run(Cli::parse().command);
    let (message, status) = match (done, interrupt::signal()) {
        // Whatever the error was that the signal has led to, or has come before.
        (Err(_), Some(signal)) => (
            format!("stopped by signal {signal}; the output is as it was before"),
            ExitCode::from(128 + signal),
        ),
        (Err(error), None) => (error.to_string(), ExitCode::FAILURE),
        (Ok(status), _) => return status,
    };
    // Where nobody can be told, the exit status still tells.
    let _ = writeln!(io::stderr(), "chopi: {}", print::printable(&message));
    status
}

fn run(command: Command) -> error::Result<ExitCode> {
    chopi::cpu::Isa::asked().map_err(error::Error::Isa)?;
    match command {
        Command::Quantize(args) => {
            let settings = args.settings().unwrap_or_else(|usage| usage.exit());
            let choice = args.choice(settings)?;
            match args.format {
                Format::Chopi => quantize::run(&args, &choice)?,
                Format::CompressedTensors => compressed_tensors::quantize(&args, &choice)?,
            }
        }
        Command::Dequantize(args) => dequantize::run(&args)?,
        Command::Inspect(args) => inspect::run(&args)?,
        Command::Compare(args) => return compare::run(&args),
        Command::Report(args) => page::run(&args)?,
        Command::Sensitivity(args) => {
            let settings = args.settings().unwrap_or_else(|usage| usage.exit());
            sensitivity::run(&args, settings)?;
        }
        Command::Backends => print::print(framework::FrameworkName::list())?,
    }
    Ok(ExitCode::SUCCESS)
}
