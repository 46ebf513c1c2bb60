//! `chopi completions` and `chopi man`: what shells and `man` know of the command line.

use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::args::Cli;
use crate::error::Result;
use crate::print::print;

/// Prints the script that completes the command line.
///
/// # Errors
/// Where standard output cannot be written.
pub fn completions(shell: Shell) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "chopi", &mut script);
    print(String::from_utf8_lossy(&script).trim_end())
}

/// Writes the manual pages.
///
/// # Errors
/// Where the folder or a page cannot be written.
pub fn pages(folder: &Path) -> Result<()> {
    let written = std::fs::create_dir_all(folder)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), folder));
    written.map_err(|source: io::Error| {
        let path = folder.to_owned();
        chopi::formats::Error::Write { path, source }.into()
    })
}
