//! What a contributor to chopi or CI runs: `cargo xtask <command>`.
//!
//! Every command that needs something from the network keeps it in a per-user cache folder
//! ([`cache`]), so that it is fetched once per machine.

mod architectures;
mod built;
mod cache;
mod check_backends;
mod check_crates;
mod check_docs;
mod check_export;
mod check_gguf;
mod check_model;
mod check_models;
mod check_pychop;
mod check_report;
mod conformance;
mod direction;
mod emulated;
mod fuzz;
mod large_model;
mod libtorch;
mod measure;
mod model;
mod peers;
mod pictures;
mod process;
mod ptq;
mod python;
mod records;
mod sanitize;
mod seed;
mod table;
mod test;
mod wheel;
mod workspace;
mod zoo;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

use libtorch::Libtorch;

/// What a contributor to chopi or CI runs.
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Format, lint, test, document and check everything; stop at the first failure
    Test(test::Args),
    /// Test the crates with `unsafe` code under AddressSanitizer
    Sanitize(sanitize::Args),
    /// Fuzz the readers of files and the arithmetic, each target for some minutes
    Fuzz(fuzz::Args),
    /// Run the tests compiled for 64-bit ARM and for big-endian s390x, under emulation; needs root on a Debian-like
    /// machine
    TestEmulated(emulated::Args),
    /// Fetch a real model, or a real text, and print its folder
    Model {
        /// Which
        #[arg(default_value = "minilm")]
        name: model::Name,
    },
    /// Make libtorch, if it is not there, and print the exports that building with tch needs
    Libtorch,
    /// Check the program on the real model against NumPy's own evaluation of the formulas
    CheckModel(check_model::Args),
    /// Check that the program runs real models as transformers does
    CheckModels(check_models::Args),
    /// Check that transformers opens what the program exports, with compressed-tensors' own numbers
    CheckExport(check_export::Args),
    /// Check the blocks of GGUF that the program writes and reads against the Python package `gguf`
    CheckGguf(check_gguf::Args),
    /// Make the table of what is special in each architecture of transformers, which the program has built in
    Architectures,
    /// Check what the program would take of every model of transformers against the model's own modules
    CheckArchitectures(architectures::Args),
    /// Check the pages of `chopi report` in a browser, for which it fetches Playwright's core
    CheckReport(check_report::Args),
    /// Take pictures of the documentation's front page and of the program in a terminal
    Pictures(pictures::Args),
    /// Check that the program writes the same bytes with every backend
    CheckBackends(check_backends::Args),
    /// Build the documentation and check that no link is dead, there and in the pages of the repository
    CheckDocs,
    /// Check the dependencies, the oldest Rust, and the packages that a release would publish
    CheckCrates,
    /// Check the convention PYCHOP against pychop's NumPy backend
    CheckPychop(check_pychop::Args),
    /// Check the named conventions against the real libraries, which it fetches (1 GB)
    Conformance(conformance::Args),
    /// Compare methods that choose codes by data, on a real decoder and a real encoder
    Ptq(ptq::Args),
    /// Time chopi beside pychop, PyTorch and ONNX Runtime, which it fetches
    Peers(peers::Args),
    /// Time integer products beside the `gemm` crate and ONNX Runtime
    PeersMatmul(peers::matmul::Args),
}

fn main() -> ExitCode {
    match run(Cli::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Test(args) => test::run(&args),
        Command::Sanitize(args) => sanitize::run(&args),
        Command::Fuzz(args) => fuzz::run(&args),
        Command::TestEmulated(args) => emulated::run(&args),
        Command::Model { name } => {
            println!("{}", name.folder()?.display());
            Ok(())
        }
        Command::Libtorch => {
            println!("{}", Libtorch::find()?.exports()?.join("\n"));
            Ok(())
        }
        Command::CheckModel(args) => check_model::run(&args),
        Command::CheckModels(args) => check_models::run(&args),
        Command::CheckExport(args) => check_export::run(&args),
        Command::CheckGguf(args) => check_gguf::run(&args),
        Command::Architectures => architectures::make(),
        Command::CheckArchitectures(args) => architectures::check(&args),
        Command::CheckReport(args) => check_report::run(&args),
        Command::Pictures(args) => pictures::run(&args),
        Command::CheckBackends(args) => check_backends::run(&args),
        Command::CheckDocs => check_docs::run(),
        Command::CheckCrates => check_crates::run(),
        Command::CheckPychop(args) => check_pychop::run(&args),
        Command::Conformance(args) => conformance::run(&args),
        Command::Ptq(args) => ptq::run(&args),
        Command::Peers(args) => peers::run(&args),
        Command::PeersMatmul(args) => peers::matmul::run(&args),
    }
}
