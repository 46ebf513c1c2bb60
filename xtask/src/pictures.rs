//! `cargo xtask pictures`: pictures of the documentation's front page, and of the program in terminals of 80 and of
//! 120 columns, by Chromium (`browser/pictures.mjs`).

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Result;

use crate::workspace::Workspace;
use crate::{built, check_docs, check_report, process};

/// The command that is shown.
const SHOWN: &str = "quantize all-MiniLM-L6-v2 -o MiniLM-w4 --format compressed-tensors --bits 4 --symmetric \
                     --group-size 128";
/// The widths of the terminals, in columns.
const COLUMNS: [u32; 2] = [80, 120];

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A program that is built already; by default one is built, with the release profile
    #[arg(long, value_name = "CHOPI")]
    program: Option<PathBuf>,
    /// Where the pictures go
    #[arg(value_name = "FOLDER")]
    folder: PathBuf,
}

/// Builds the documentation and the program, and takes the pictures.
pub fn run(args: &Args) -> Result<()> {
    let (browser, playwright) = (check_report::chromium()?, check_report::playwright()?);
    let workspace = Workspace::load()?;
    check_docs::build_all(&workspace)?;
    let program = match &args.program {
        Some(program) => program.canonicalize()?,
        None => built::released()?,
    };

    let scratch = tempfile::tempdir()?;
    check_report::float_model(scratch.path())?;
    let mut node = Command::new("node");
    node.arg(workspace.browser("pictures.mjs"));
    node.arg(playwright).arg(browser);
    node.arg(workspace.target_directory.join("doc/chopi/index.html"));
    node.arg(args.folder.join("front-page.png"));
    for columns in COLUMNS {
        // `script` gives the program a terminal, whose width `stty` sets.
        let line = format!("stty cols {columns} rows 50; {} {SHOWN}", program.display());
        let mut terminal = Command::new("script");
        terminal.args(["--quiet", "--return", "--command", &line, "/dev/null"]);
        terminal.env("TERM", "xterm-256color");
        let output = process::output(terminal.current_dir(scratch.path()))?;
        let output = format!("$ chopi {SHOWN}\n{output}");
        let file = scratch.path().join(format!("{columns}.txt"));
        fs::write(&file, output)?;
        fs::remove_dir_all(scratch.path().join("MiniLM-w4"))?;
        node.arg(columns.to_string()).arg(file);
        node.arg(args.folder.join(format!("terminal-{columns}.png")));
    }
    process::run(&mut node)
}
