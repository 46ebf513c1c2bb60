//! The program `chopi`, which quantizes, inspects, compares and runs models in safetensors, compressed-tensors and GGUF
//! files.
//!
//! `chopi --help` says how to use it. Exit status: 0, or 1 where an input or an output is bad or
//! files that are compared differ, or 2 where the command line is bad, or 128 and the number of the signal that
//! has stopped it.

use std::process::ExitCode;

fn main() -> ExitCode {
    chopi_cli::run(std::env::args_os())
}
