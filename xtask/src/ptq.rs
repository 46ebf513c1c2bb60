//! `cargo xtask ptq`: what the methods of chopi-ptq make of a real decoder and a real encoder
//! (`crates/chopi-models/examples/methods.rs`).

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};
use serde::Deserialize;

use crate::table::table;
use crate::workspace::Workspace;
use crate::{built, model, process};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Methods to compare
    #[arg(
        long,
        default_value = "rtn,rtn+mse,hqq,rtn+weighted,awq,gptq,gptq+weighted,awq+gptq+weighted"
    )]
    methods: String,
    /// Bits of the weights
    #[arg(long, default_value = "4")]
    bits: String,
    /// Sizes of groups, 0 for a scale for each output
    #[arg(long, default_value = "64")]
    groups: String,
    /// Give weights zero points
    #[arg(long)]
    asymmetric: bool,
    /// What becomes of the inputs of layers: float, dynamic, dynamic4 or static
    #[arg(long, default_value = "float")]
    inputs: String,
    /// One model, smollm2 or minilm, instead of both
    #[arg(long)]
    model: Option<model::Name>,
}

/// What the example says of a method.
#[derive(Debug, Deserialize)]
struct Found {
    method: String,
    bits: u32,
    group: usize,
    value: f64,
    seconds: f64,
    peak_bytes: Option<u64>,
}

/// Prints a table for each model.
pub fn run(args: &Args) -> Result<()> {
    let build = [
        "build",
        "--release",
        "--package=chopi-models",
        "--example=methods",
        "--features=rayon",
    ];
    let mut programs = built::programs(&mut process::cargo(build))?;
    let program = programs
        .remove("methods")
        .context("Cargo says of no example `methods` that it has built it")?;
    let text = model::text()?;
    let calibration = text.join("calibration.txt");
    if args.model != Some(model::Name::Minilm) {
        let mut command = compare(args, &program, &model::smollm2()?, &calibration, 16);
        command.arg("--evaluation").arg(text.join("evaluation.txt"));
        print("SmolLM2-135M-Instruct", "perplexity", &mut command)?;
    }
    if args.model != Some(model::Name::Smollm2) {
        // The encoder is made for sentences.
        let whole = std::fs::read_to_string(&calibration)?;
        let folder = tempfile::tempdir()?;
        let lines = folder.path().join("sentences.txt");
        std::fs::write(&lines, sentences(&whole).join("\n"))?;
        let mut command = compare(args, &program, &model::minilm()?, &lines, 1000);
        command
            .arg("--evaluation")
            .arg(Workspace::load()?.python("sentences.txt"));
        print("all-MiniLM-L6-v2", "mean cosine", &mut command)?;
    }
    Ok(())
}

/// The sentences of a text, of more than a few words.
fn sentences(text: &str) -> Vec<String> {
    let words = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let sentences = words.split_inclusive(['.', '!', '?', ';']).map(str::trim);
    sentences
        .filter(|sentence| sentence.len() > 20)
        .map(str::to_owned)
        .collect()
}

fn compare(
    args: &Args,
    program: &Path,
    model: &Path,
    calibration: &Path,
    windows: usize,
) -> Command {
    let mut command = Command::new(program);
    command.arg(model).arg("--calibration").arg(calibration);
    command.args([
        "--methods",
        &args.methods,
        "--bits",
        &args.bits,
        "--groups",
        &args.groups,
    ]);
    command.args(["--inputs", &args.inputs, "--windows", &windows.to_string()]);
    if args.asymmetric {
        command.arg("--asymmetric");
    }
    command
}

fn print(name: &str, measure: &str, command: &mut Command) -> Result<()> {
    let output = process::output(command)?;
    let mut rows = table(
        &["method", "bits", "groups", measure, "seconds", "MB at most"],
        3,
    );
    for line in output.lines() {
        let found: Found =
            serde_json::from_str(line).with_context(|| format!("cannot read {line:?}"))?;
        rows.add_row([
            found.method,
            found.bits.to_string(),
            match found.group {
                0 => "per channel".to_owned(),
                group => group.to_string(),
            },
            format!("{:.4}", found.value),
            format!("{:.1}", found.seconds),
            found
                .peak_bytes
                .map_or_else(String::new, |bytes| format!("{:.0}", bytes as f64 / 1e6)),
        ]);
    }
    println!("{name}\n\n{rows}\n");
    Ok(())
}
