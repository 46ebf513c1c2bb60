//! `cargo xtask check-export`: the real model as compressed-tensors, opened by transformers
//! (`python/check_export.py`); with `--large`, a checkpoint of 8 GB, for what it costs.
//!
//! The Python packages are those of `cargo xtask conformance`.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::check_model::build_program;
use crate::conformance::libraries;
use crate::table::{count, table};
use crate::workspace::Workspace;
use crate::{large_model, model, process};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A checkpoint of 8 GB instead: its time and memory, and what is left of it when it is killed
    #[arg(long)]
    large: bool,
    /// A program that is built already
    #[arg(long, value_name = "CHOPI")]
    program: Option<PathBuf>,
    /// Where the large checkpoint is written, and deleted again; by default the folder for
    /// temporary files
    #[arg(long, value_name = "FOLDER", requires = "large")]
    folder: Option<PathBuf>,
}

/// The schemes: a name, the program's options, and the least mean cosine where there is one.
const SCHEMES: [(&str, &str, Option<f64>); 9] = [
    (
        "w8-channel",
        "--bits 8 --symmetric --per-channel 0",
        Some(0.999),
    ),
    (
        "w8-channel-asymmetric",
        "--bits 8 --per-channel 0",
        Some(0.999),
    ),
    (
        "w8-group",
        "--bits 8 --symmetric --group-size 64",
        Some(0.999),
    ),
    ("w8-tensor", "--bits 8", None),
    (
        "w4-group",
        "--bits 4 --symmetric --group-size 128",
        Some(0.94),
    ),
    (
        MSE,
        "--bits 4 --symmetric --group-size 128 --calibration mse",
        Some(0.94),
    ),
    ("w4-group-asymmetric", "--bits 4 --group-size 128", None),
    ("w4-tensor", "--bits 4", None),
    ("w5-group-asymmetric", "--bits 5 --group-size 32", None),
];
/// The one that must be better than that without `-mse`.
const MSE: &str = "w4-group-mse";

/// What the script found of one scheme.
#[derive(Debug, Deserialize)]
struct Found {
    tensors: u64,
    values: u64,
    differing: u64,
    notes: Vec<String>,
    cosine: Option<f64>,
    least_cosine: Option<f64>,
}

/// Quantizes the real model by every scheme and compares; fails if a tensor differs or a cosine is
/// too small.
pub fn run(args: &Args) -> Result<()> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => build_program()?,
    };
    if args.large {
        return large_model::check(&program, args.folder.as_deref());
    }
    let (workspace, model) = (Workspace::load()?, model::folder()?);
    let folder = tempfile::tempdir()?;
    for (name, options, _) in SCHEMES {
        let mut command = Command::new(&program);
        command.arg("quantize").arg(&model).arg("-o");
        command.arg(folder.path().join(name));
        command.args(["--format", "compressed-tensors", "--quiet"]);
        process::output(command.args(options.split(' ')))?;
    }
    let mut script = libraries::python()?.command();
    script.arg(workspace.python("check_export.py"));
    script.arg(&model).arg(folder.path());
    let output = process::output(&mut script)?;
    let found: BTreeMap<String, Found> =
        serde_json::from_str(&output).context("cannot read what the script says")?;

    let header = [
        "scheme",
        "weights",
        "values",
        "≠",
        "mean cosine",
        "least cosine",
    ];
    let mut table = table(&header, 1);
    let mut failures = Vec::new();
    let shown = |cosine: Option<f64>| cosine.map_or_else(String::new, |c| format!("{c:.4}"));
    for (name, _, least) in SCHEMES {
        let Some(found) = found.get(name) else {
            bail!("the script says nothing of {name}");
        };
        table.add_row([
            name.to_owned(),
            count(found.tensors),
            count(found.values),
            count(found.differing),
            shown(found.cosine),
            shown(found.least_cosine),
        ]);
        failures.extend(found.notes.iter().map(|note| format!("{name}: {note}")));
        if let Some(least) = least
            && found.cosine.is_none_or(|cosine| cosine < least)
        {
            failures.push(format!("{name}: a cosine of at least {least} is expected"));
        }
    }
    println!("{table}");
    let cosine = |name: &str| found.get(name).and_then(|found| found.cosine);
    if cosine(MSE) <= cosine(MSE.trim_end_matches("-mse")) {
        failures.push("mse is not better than min/max".to_owned());
    }
    if !failures.is_empty() {
        bail!("the exported model:\n  {}", failures.join("\n  "));
    }
    Ok(())
}
