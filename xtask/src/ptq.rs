//! `cargo xtask ptq`: what the methods of chopi-ptq make of a real decoder and a real encoder
//! (`crates/chopi-models/examples/methods.rs`), and what llmcompressor makes of the decoder
//! (`python/ptq_llmcompressor.py`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};
use serde::Deserialize;

use crate::conformance::libraries;
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
    #[arg(long, value_delimiter = ',', default_value = "4")]
    bits: Vec<u32>,
    /// Sizes of groups, 0 for a scale for each output
    #[arg(long, value_delimiter = ',', default_value = "64")]
    groups: Vec<usize>,
    /// Give weights zero points
    #[arg(long)]
    asymmetric: bool,
    /// What becomes of the inputs of layers: float, dynamic, dynamic4 or static
    #[arg(long, default_value = "float")]
    inputs: String,
    /// One model, smollm2 or minilm, instead of both
    #[arg(long)]
    model: Option<model::Name>,
    /// Methods of llmcompressor on the decoder, after chopi's, on as many threads: rtn, gptq, awq or
    /// awq+gptq, each with +mse if wanted; what it writes is run with --inputs dynamic
    #[arg(long, value_name = "METHODS", value_delimiter = ',')]
    llmcompressor: Vec<String>,
    /// Threads, instead of as many as there are cores
    #[arg(long)]
    threads: Option<usize>,
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
    if !args.llmcompressor.is_empty() && args.inputs != "dynamic" {
        bail!(
            "--llmcompressor: folders of quantized models are run with inputs of 8 bits, each row by its own range; \
             give --inputs dynamic, so that the methods of chopi are too"
        );
    }
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
    let comparison = Comparison {
        args,
        program: &program,
        folder: model::text()?,
    };
    if args.model != Some(model::Name::Minilm) {
        let smollm2 = model::smollm2()?;
        let mut found = comparison.methods(&smollm2, None)?;
        for &bits in &args.bits {
            for &group in &args.groups {
                for method in &args.llmcompressor {
                    found.push(comparison.llmcompressor(&smollm2, method, bits, group)?);
                }
            }
        }
        print("SmolLM2-135M-Instruct", "perplexity", found);
    }
    if args.model != Some(model::Name::Smollm2) {
        let found = comparison.methods(&model::minilm()?, Some(&Workspace::load()?))?;
        print("all-MiniLM-L6-v2", "mean cosine", found);
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

/// What is compared, by which program and on which texts.
struct Comparison<'a> {
    args: &'a Args,
    program: &'a Path,
    folder: PathBuf,
}

/// The windows of the decoder's text that methods see.
const WINDOWS: &str = "16";

impl Comparison<'_> {
    /// What chopi's methods make of the decoder; or of the encoder, which is made for sentences, of which the
    /// workspace has some.
    fn methods(&self, model: &Path, encoder: Option<&Workspace>) -> Result<Vec<Found>> {
        let args = self.args;
        let scratch = tempfile::tempdir()?;
        let mut command = self.command(model);
        match encoder {
            None => self.of_decoder(&mut command),
            Some(workspace) => {
                let whole = std::fs::read_to_string(self.folder.join("calibration.txt"))?;
                let lines = scratch.path().join("sentences.txt");
                std::fs::write(&lines, sentences(&whole).join("\n"))?;
                command.arg("--calibration").arg(lines);
                command
                    .arg("--evaluation")
                    .arg(workspace.python("sentences.txt"));
                command.args(["--windows", "1000"])
            }
        };
        command.args(["--methods", &args.methods, "--inputs", &args.inputs]);
        command.args(["--bits", &joined(&args.bits)]);
        command.args(["--groups", &joined(&args.groups)]);
        if args.asymmetric {
            command.arg("--asymmetric");
        }
        found(&mut command)
    }

    fn command(&self, model: &Path) -> Command {
        let mut command = Command::new(self.program);
        command.arg(model);
        if let Some(threads) = self.args.threads {
            command.env("RAYON_NUM_THREADS", threads.to_string());
        }
        command
    }

    fn of_decoder<'c>(&self, command: &'c mut Command) -> &'c mut Command {
        let (calibration, evaluation) = ("calibration.txt", "evaluation.txt");
        command
            .arg("--calibration")
            .arg(self.folder.join(calibration));
        command
            .arg("--evaluation")
            .arg(self.folder.join(evaluation));
        command.args(["--windows", WINDOWS])
    }

    /// What a method of llmcompressor makes of the decoder, by chopi's reading of the folder that it writes.
    fn llmcompressor(&self, model: &Path, method: &str, bits: u32, group: usize) -> Result<Found> {
        /// What the script says.
        #[derive(Deserialize)]
        struct Made {
            seconds: f64,
            peak_bytes: u64,
        }
        let args = self.args;
        let scratch = tempfile::tempdir()?;
        let folder = scratch.path().join("model");
        let mut script = libraries::llmcompressor()?.command();
        script.arg(Workspace::load()?.python("ptq_llmcompressor.py"));
        script
            .arg(model)
            .arg(self.folder.join("calibration.txt"))
            .arg(&folder);
        let mse = method.strip_suffix("+mse");
        script.args(["--method", mse.unwrap_or(method), "--windows", WINDOWS]);
        script.args(["--bits", &bits.to_string(), "--group", &group.to_string()]);
        let flags = [("--mse", mse.is_some()), ("--asymmetric", args.asymmetric)];
        script.args(
            flags
                .iter()
                .filter(|(_, given)| *given)
                .map(|(flag, _)| flag),
        );
        let threads = match args.threads {
            Some(threads) => threads,
            None => std::thread::available_parallelism()?.get(),
        };
        script.args(["--threads", &threads.to_string()]);
        // The library says things there too.
        let output = process::output(&mut script)?;
        let line = output.lines().last().unwrap_or_default();
        let made: Made =
            serde_json::from_str(line).with_context(|| format!("cannot read {line:?}"))?;
        let mut command = self.command(model);
        self.of_decoder(&mut command)
            .arg("--quantized")
            .arg(&folder);
        let judged = found(&mut command)?.pop();
        Ok(Found {
            method: format!("llmcompressor {method}"),
            bits,
            group,
            seconds: made.seconds,
            peak_bytes: Some(made.peak_bytes),
            value: judged.context("the example said nothing")?.value,
        })
    }
}

fn joined(numbers: &[impl ToString]) -> String {
    let numbers: Vec<String> = numbers.iter().map(ToString::to_string).collect();
    numbers.join(",")
}

/// What the example says.
fn found(command: &mut Command) -> Result<Vec<Found>> {
    let output = process::output(command)?;
    let lines = output
        .lines()
        .map(|line| serde_json::from_str(line).with_context(|| format!("cannot read {line:?}")));
    lines.collect()
}

fn print(name: &str, measure: &str, found: Vec<Found>) {
    let header = ["method", "bits", "groups", measure, "seconds", "MB at most"];
    let mut rows = table(&header, 3);
    for found in found {
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
}
