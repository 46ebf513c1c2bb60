//! `cargo xtask check-models`: the program runs a real decoder and a real encoder, and says what transformers says
//! (`python/check_models.py`).

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::conformance::libraries;
use crate::table::table;
use crate::workspace::Workspace;
use crate::{built, model, process};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Write the small models of the tests of chopi-models instead
    #[arg(long)]
    write: bool,
    /// A program that is built already
    #[arg(long, value_name = "CHOPI")]
    program: Option<PathBuf>,
}

/// Windows of the text, of 512 tokens each.
const WINDOWS: &str = "6";
/// How much larger the perplexity may be than transformers', in floats and in 8 bits.
const FLOAT: f64 = 1e-3;
const INTEGER: f64 = 1e-2;
/// The least cosine to the embeddings of transformers.
const COSINE: f64 = 0.99999;

/// What the script says.
#[derive(Debug, Deserialize)]
struct Reference {
    perplexity: f64,
    continuations: Vec<Continuation>,
    embeddings: Vec<Embedding>,
}

#[derive(Debug, Deserialize)]
struct Continuation {
    prompt: String,
    tokens: Vec<u32>,
}

#[derive(Debug, Deserialize)]
struct Embedding {
    text: String,
    embedding: Vec<f64>,
}

/// What `chopi run --json` says.
#[derive(Debug, Deserialize)]
struct Run {
    tokens: Vec<u32>,
    tokens_per_second: Option<f64>,
    peak_bytes: Option<u64>,
}

/// What `chopi evaluate --json` says.
#[derive(Debug, Deserialize)]
struct Evaluation {
    model: Evaluated,
}

#[derive(Debug, Deserialize)]
struct Evaluated {
    perplexity: f64,
}

/// Compares; fails where anything is too far off.
pub fn run(args: &Args) -> Result<()> {
    let script = Workspace::load()?.python("check_models.py");
    if args.write {
        let mut python = libraries::models()?.command();
        let folder = Workspace::load()?
            .workspace_root
            .join("crates/chopi-models/tests/data");
        return process::run(python.arg(script).arg("vectors").arg(folder));
    }
    let program = match &args.program {
        Some(program) => program.clone(),
        None => built::released()?,
    };
    let (decoder, encoder) = (model::smollm2()?, model::minilm()?);
    let text = model::text()?.join("evaluation.txt");
    let mut python = libraries::models()?.command();
    let files = [&decoder, &text, &encoder];
    python.arg(script).arg("reference").args(files);
    let reference: Reference = serde_json::from_str(&process::output(&mut python)?)
        .context("cannot read what the script says")?;

    let mut failures = check_perplexity(&program, &decoder, &text, reference.perplexity)?;
    failures.extend(check_continuations(
        &program,
        &decoder,
        &reference.continuations,
    )?);
    failures.extend(check_embeddings(&program, &encoder, &reference.embeddings)?);
    speed(&program, &decoder)?;
    match failures.is_empty() {
        true => Ok(()),
        false => bail!("the models:\n  {}", failures.join("\n  ")),
    }
}

/// What the program says as JSON.
fn said<T: DeserializeOwned>(command: &mut Command) -> Result<T> {
    let output = process::output(command)?;
    serde_json::from_str(&output)
        .with_context(|| format!("cannot read what `{}` says", process::shown(command)))
}

fn check_perplexity(
    program: &Path,
    decoder: &Path,
    text: &Path,
    reference: f64,
) -> Result<Vec<String>> {
    println!("perplexity by transformers: {reference:.4}");
    let mut failures = Vec::new();
    for (name, options, limit) in [
        ("in floats", &[][..], FLOAT),
        ("in 8 bits", &["--bits", "8"], INTEGER),
    ] {
        let mut command = Command::new(program);
        command.arg("evaluate").arg(decoder).args(options);
        command.arg("--text").arg(text).args(["--limit", WINDOWS]);
        let found: Evaluation = said(command.arg("--json"))?;
        let found = found.model.perplexity;
        println!("perplexity {name}: {found:.4}");
        let over = found / reference - 1.0;
        if over > limit || over < -FLOAT.max(limit) {
            let percent = 100.0 * over;
            failures.push(format!(
                "the perplexity {name} is {percent:.3} % from {reference}"
            ));
        }
    }
    Ok(failures)
}

fn check_continuations(
    program: &Path,
    decoder: &Path,
    continuations: &[Continuation],
) -> Result<Vec<String>> {
    ensure!(!continuations.is_empty(), "there are no prompts");
    let mut failures = Vec::new();
    for Continuation { prompt, tokens } in continuations {
        let mut command = Command::new(program);
        command
            .arg("run")
            .arg(decoder)
            .arg(format!("--prompt={prompt}"));
        let found: Run = said(command.args(["--max-tokens", "32", "--json"]))?;
        if found.tokens != *tokens {
            failures.push(format!("{prompt:?}: {:?}, not {tokens:?}", found.tokens));
        }
    }
    println!("{} continuations are compared", continuations.len());
    Ok(failures)
}

fn check_embeddings(
    program: &Path,
    encoder: &Path,
    embeddings: &[Embedding],
) -> Result<Vec<String>> {
    let texts = tempfile::NamedTempFile::new()?;
    let lines: Vec<&str> = embeddings.iter().map(|e| e.text.trim_end()).collect();
    std::fs::write(texts.path(), lines.join("\n"))?;
    let mut command = Command::new(program);
    command.arg("embed").arg(encoder).arg(texts.path());
    let output = process::output(&mut command)?;
    let found: Vec<Embedding> = output
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(
        found.len() == embeddings.len() && !found.is_empty(),
        "the program embeds {} of {} texts",
        found.len(),
        embeddings.len()
    );
    let mut failures = Vec::new();
    let mut least = f64::INFINITY;
    for (found, expected) in found.iter().zip(embeddings) {
        let cosine = cosine(&found.embedding, &expected.embedding);
        least = least.min(cosine);
        if cosine.is_nan() || cosine < COSINE {
            failures.push(format!("{:?}: the cosine is {cosine}", found.text));
        }
    }
    println!("least cosine of {} embeddings: {least:.8}", found.len());
    Ok(failures)
}

fn cosine(a: &[f64], b: &[f64]) -> f64 {
    let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f64>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
}

/// Prints the speed on one thread in floats, in 8 and in 4 bits.
fn speed(program: &Path, decoder: &Path) -> Result<()> {
    let mut table = table(&["weights", "tokens/s", "MB at most"], 1);
    for (name, options) in [
        ("floats", &[][..]),
        ("8 bits", &["--bits", "8"]),
        ("4 bits", &["--bits", "4"]),
    ] {
        let mut command = Command::new(program);
        command.arg("run").arg(decoder).args(options);
        command.args(["--prompt", "Once upon a time", "--max-tokens", "64"]);
        let run: Run = said(command.args(["--threads", "1", "--json"]))?;
        table.add_row([
            name.to_owned(),
            run.tokens_per_second
                .map_or_else(String::new, |speed| format!("{speed:.1}")),
            run.peak_bytes
                .map_or_else(String::new, |peak| format!("{:.0}", peak as f64 / 1e6)),
        ]);
    }
    println!("{table}");
    Ok(())
}
