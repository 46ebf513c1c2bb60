//! `cargo xtask architectures`: the table of what is special in each architecture of transformers, made from
//! its own modules on the meta device (`python/architectures.py`); `cargo xtask check-architectures`: the
//! program's decisions on every model against these modules (`python/check_architectures.py`).

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::conformance::libraries;
use crate::table::count;
use crate::workspace::Workspace;
use crate::{built, process};

/// Where the table lies in the workspace.
const TABLE: &str = "crates/chopi-cli/src/architecture/architectures.json";

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A program that is built already
    #[arg(long, value_name = "CHOPI")]
    program: Option<PathBuf>,
    /// Only these model types
    #[arg(value_name = "TYPE")]
    types: Vec<String>,
}

/// What the script found.
#[derive(Debug, Deserialize)]
struct Found {
    types: u64,
    classes: u64,
    tensors: u64,
    quantized: u64,
    wrong: BTreeMap<String, Vec<String>>,
    refused: BTreeMap<String, String>,
    not_built: BTreeMap<String, String>,
}

/// Writes the table anew.
pub fn make() -> Result<()> {
    let workspace = Workspace::load()?;
    let mut script = libraries::models()?.command();
    script.arg(workspace.python("architectures.py"));
    script.arg(workspace.workspace_root.join(TABLE));
    process::run_as_progress(&mut script)
}

/// Prints what is refused and what cannot be built; fails if anything is wrong.
pub fn check(args: &Args) -> Result<()> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => built::released()?,
    };
    let output = tempfile::NamedTempFile::new()?;
    let mut script = libraries::models()?.command();
    script.arg(Workspace::load()?.python("check_architectures.py"));
    script.arg("--output").arg(output.path());
    script.arg(program).args(&args.types);
    process::run_as_progress(&mut script)?;
    let found = std::fs::read_to_string(output.path())?;
    let found: Found = serde_json::from_str(&found).context("cannot read what the script says")?;
    for (title, models) in [
        ("cannot be built here", &found.not_built),
        ("refused", &found.refused),
    ] {
        println!("{} {title}:", models.len());
        for (model, reason) in models {
            println!("  {model}: {reason}");
        }
    }
    println!(
        "{} model types, {} classes, {} of {} tensors quantized, {} wrong, {} refused",
        count(found.types),
        count(found.classes),
        count(found.quantized),
        count(found.tensors),
        found.wrong.len(),
        found.refused.len(),
    );
    if !found.wrong.is_empty() {
        let wrong = found.wrong.iter();
        let lines = wrong.map(|(model, why)| format!("{model}: {}", why.join("; ")));
        bail!("wrong:\n  {}", lines.collect::<Vec<_>>().join("\n  "));
    }
    Ok(())
}
