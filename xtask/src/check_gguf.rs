//! `cargo xtask check-gguf`: what the program writes and reads of GGUF against the Python package `gguf`
//! (`python/check_gguf.py`), with the real language model among the files.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;

use crate::python::{self, Requirements};
use crate::table::{count, table};
use crate::workspace::Workspace;
use crate::{built, model, process};

const PACKAGES: Requirements = Requirements(include_str!("../python/gguf.txt"));

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A program that is built already; by default one is built, with the release profile
    #[arg(long, value_name = "CHOPI")]
    program: Option<PathBuf>,
    /// Write the vectors of the tests of chopi-formats anew instead
    #[arg(long, conflicts_with = "program")]
    vectors: bool,
}

/// What the script says: how much was compared and how many bytes differ, by the type of the tensors.
#[derive(Debug, Deserialize)]
struct Compared {
    blocks: BTreeMap<String, (u64, u64)>,
    values: BTreeMap<String, (u64, u64)>,
    notes: Vec<String>,
}

/// Compares, or writes the vectors.
pub fn run(args: &Args) -> Result<()> {
    let workspace = Workspace::load()?;
    let python = || python::with_packages("gguf", PACKAGES);
    if args.vectors {
        let vectors = "crates/chopi-formats/tests/vectors/gguf.json";
        let mut script = python()?;
        script.arg(workspace.python("gguf_vectors.py"));
        return process::run(script.arg(workspace.workspace_root.join(vectors)));
    }
    let program = match &args.program {
        Some(program) => program.clone(),
        None => built::released()?,
    };
    let real = model::smollm2()?.join(model::SMOLLM2_GGUF);
    let mut check = python()?;
    check.arg(workspace.python("check_gguf.py"));
    let said = process::output(check.arg(program).arg(real))?;
    let compared: Compared = serde_json::from_str(&said).context("what the script says")?;
    let mut table = table(&["", "type", "elements", "bytes that differ"], 2);
    for (what, counts) in [
        ("quantized", &compared.blocks),
        ("dequantized", &compared.values),
    ] {
        for (name, &(elements, wrong)) in counts {
            table.add_row([what, name, &count(elements), &count(wrong)]);
        }
    }
    println!("{table}");
    ensure!(compared.notes.is_empty(), "{}", compared.notes.join("; "));
    Ok(())
}
