//! `cargo xtask check-export`: the real model as compressed-tensors, opened by transformers
//! (`python/check_export.py`); with `--large`, a checkpoint of 8 GB, for what it costs; with
//! `--calibrations`, the table of docs/calibration.md; with `--zoo`, small models of many architectures.
//!
//! The Python packages are those of `cargo xtask conformance`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::conformance::libraries;
use crate::table::{count, table};
use crate::workspace::Workspace;
use crate::{built, large_model, model, process, zoo};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// A checkpoint of 8 GB instead: its time and memory, and what is left of it when it is killed
    #[arg(long)]
    large: bool,
    /// A table instead: the cosine by each way to choose ranges
    #[arg(long, conflicts_with = "large")]
    calibrations: bool,
    /// Small models of many architectures instead, opened by the base class and a class with a head
    #[arg(long, conflicts_with_all = ["large", "calibrations"])]
    zoo: bool,
    /// Write the table of all of them to docs/transformers.md, if none is wrong
    #[arg(long, requires = "zoo", conflicts_with = "types")]
    write: bool,
    /// Only these model types
    #[arg(value_name = "TYPE", requires = "zoo")]
    types: Vec<String>,
    /// A program that is built already
    #[arg(long, value_name = "CHOPI")]
    program: Option<PathBuf>,
    /// Where the large checkpoint is written, and deleted again; by default the folder for
    /// temporary files
    #[arg(long, value_name = "FOLDER", requires = "large")]
    folder: Option<PathBuf>,
}

/// The schemes: a name, the program's options, those of `chopi sensitivity` where it proposes the bits of each
/// tensor, and the least mean cosine where there is one.
type ExportCase = (
    &'static str,
    &'static str,
    Option<&'static str>,
    Option<f64>,
);
const SCHEMES: [ExportCase; 11] = [
    (
        "w8-channel",
        "--bits 8 --symmetric --per-channel 0",
        None,
        Some(0.999),
    ),
    (
        "w8-channel-asymmetric",
        "--bits 8 --per-channel 0",
        None,
        Some(0.999),
    ),
    (
        "w8-group",
        "--bits 8 --symmetric --group-size 64",
        None,
        Some(0.999),
    ),
    ("w8-tensor", "--bits 8", None, None),
    (
        "w4-group",
        "--bits 4 --symmetric --group-size 128",
        None,
        Some(0.94),
    ),
    (
        MSE,
        "--bits 4 --symmetric --group-size 128 --calibration mse",
        None,
        Some(0.94),
    ),
    (
        "w4-group-asymmetric",
        "--bits 4 --group-size 128",
        None,
        None,
    ),
    ("w4-tensor", "--bits 4", None, None),
    (
        "w5-group-asymmetric",
        "--bits 5 --group-size 32",
        None,
        None,
    ),
    // The budget is for all tensors, of which 53 % of the bytes stay in float; w4-group takes 59 %.
    (
        "w4-w8-group",
        "--symmetric --group-size 128",
        Some("--bits 4,8 --budget 61%"),
        Some(0.96),
    ),
    (
        "w2-to-w8-group",
        "--symmetric --group-size 128",
        Some("--bits 2,3,4,5,6,7,8 --budget 60%"),
        Some(0.96),
    ),
];
/// The one that must be better than that without `-mse`.
const MSE: &str = "w4-group-mse";

/// What the script found of one scheme.
#[derive(Debug, Deserialize)]
struct Found {
    tensors: u64,
    values: u64,
    differing: u64,
    /// How many weights have so many bits.
    bits: BTreeMap<u32, u64>,
    notes: Vec<String>,
    cosine: Option<f64>,
    least_cosine: Option<f64>,
}

/// Quantizes the real model by every scheme and compares; fails if a tensor differs or a cosine is
/// too small.
pub fn run(args: &Args) -> Result<()> {
    let program = match &args.program {
        Some(program) => program.clone(),
        None => built::released()?,
    };
    if args.large {
        return large_model::check(&program, args.folder.as_deref());
    }
    if args.zoo {
        return zoo::check(&program, &args.types, args.write);
    }
    if args.calibrations {
        return calibrations(&program);
    }
    let schemes = SCHEMES.map(|(name, options, proposal, _)| (name, options, proposal));
    let found = export(&program, schemes)?;

    let header = [
        "scheme",
        "weights",
        "bits",
        "values",
        "≠",
        "mean cosine",
        "least cosine",
    ];
    let mut table = table(&header, 1);
    let mut failures = Vec::new();
    let shown = |cosine: Option<f64>| cosine.map_or_else(String::new, |c| format!("{c:.4}"));
    for (name, _, _, least) in SCHEMES {
        let Some(found) = found.get(name) else {
            bail!("the script says nothing of {name}");
        };
        table.add_row([
            name.to_owned(),
            count(found.tensors),
            found
                .bits
                .keys()
                .map(u32::to_string)
                .collect::<Vec<_>>()
                .join(", "),
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

/// Quantizes the real model by each of these schemes and opens what comes out with transformers. A scheme is
/// a name, the program's options, and where each tensor has its own bits the options of their proposal.
fn export<S: AsRef<str>>(
    program: &Path,
    schemes: impl IntoIterator<Item = (S, S, Option<S>)>,
) -> Result<BTreeMap<String, Found>> {
    let (workspace, model) = (Workspace::load()?, model::minilm()?);
    let (folder, plans) = (tempfile::tempdir()?, tempfile::tempdir()?);
    for (name, options, proposal) in schemes {
        let (name, options) = (name.as_ref(), options.as_ref().split(' '));
        let mut command = Command::new(program);
        command.arg("quantize").arg(&model).arg("-o");
        command.arg(folder.path().join(name));
        command.args(["--format", "compressed-tensors", "--quiet"]);
        if let Some(proposal) = proposal {
            let plan = plans.path().join(format!("{name}.json"));
            let mut propose = Command::new(program);
            propose.arg("sensitivity").arg(&model).arg("-o").arg(&plan);
            propose.args(options.clone()).arg("--quiet");
            process::output(propose.args(proposal.as_ref().split(' ')))?;
            command.arg("--bits-from").arg(plan);
        }
        process::output(command.args(options))?;
    }
    let mut script = libraries::python()?.command();
    script.arg(workspace.python("check_export.py"));
    script.arg(&model).arg(folder.path());
    let output = process::output(&mut script)?;
    serde_json::from_str(&output).context("cannot read what the script says")
}

/// The symmetric schemes of the table.
const GRANULARITIES: [(&str, &str); 5] = [
    ("8 bits per channel", "--bits 8 --per-channel 0"),
    ("8 bits per tensor", "--bits 8"),
    ("4 bits, groups of 128", "--bits 4 --group-size 128"),
    ("4 bits per channel", "--bits 4 --per-channel 0"),
    ("4 bits per tensor", "--bits 4"),
];
const CALIBRATIONS: [&str; 6] = [
    "minmax",
    "percentile:99.9",
    "percentile:99.99",
    "percentile:99.999",
    "mse",
    "kl",
];

/// Prints the mean cosine of the embeddings by granularity and calibration, in Markdown.
fn calibrations(program: &Path) -> Result<()> {
    let name = |granularity: &str, calibration: &str| {
        format!("{granularity}, {calibration}").replace([' ', ':'], "-")
    };
    let schemes = GRANULARITIES.iter().flat_map(|(granularity, options)| {
        CALIBRATIONS.map(|calibration| {
            let options = format!("{options} --symmetric --calibration {calibration}");
            (name(granularity, calibration), options, None)
        })
    });
    let found = export(program, schemes)?;
    println!("| symmetric weights | {} |", CALIBRATIONS.join(" | "));
    println!("|---|{}", "---|".repeat(CALIBRATIONS.len()));
    for (granularity, _) in GRANULARITIES {
        let mut cells = Vec::new();
        for calibration in CALIBRATIONS {
            let found = found.get(&name(granularity, calibration));
            let cosine = found.and_then(|found| found.cosine);
            cells.push(format!("{:.4}", cosine.context("a scheme was not opened")?));
        }
        println!("| {granularity} | {} |", cells.join(" | "));
    }
    Ok(())
}
