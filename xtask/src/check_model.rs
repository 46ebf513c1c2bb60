//! `cargo xtask check-model`: the program on the real model against NumPy's own evaluation of the
//! formulas (`python/check_model.py`), and what it costs.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;

use crate::check_pychop::PEERS;
use crate::measure::{Measured, measure};
use crate::table::{count, table};
use crate::workspace::Workspace;
use crate::{built, model, process, python};

/// What every two-dimensional tensor must reach with 8 bits, symmetric, per channel.
const SQNR_DB: f64 = 29.0;
/// The time that this may take.
const TIME: Duration = Duration::from_secs(1);
/// The memory that it may take besides the file.
const MEMORY: u64 = 100_000_000;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Every scheme, not the three that differ most
    #[arg(long)]
    full: bool,
    /// A program that is built already; by default one is built, with the release profile
    #[arg(long, value_name = "CHOPI")]
    program: Option<PathBuf>,
}

impl Args {
    /// The form that CI runs.
    pub fn short(program: PathBuf) -> Self {
        Self {
            full: false,
            program: Some(program),
        }
    }
}

/// How the model is quantized.
#[derive(Clone, Copy, Debug)]
struct ModelScheme {
    bits: u32,
    symmetric: bool,
    granularity: ModelGranularity,
}

#[derive(Clone, Copy, Debug)]
enum ModelGranularity {
    Tensor,
    Channel,
    Group,
}

/// Codes of the last case, which is checked for its cost too.
const MAIN: ModelScheme = ModelScheme {
    bits: 8,
    symmetric: true,
    granularity: ModelGranularity::Channel,
};

impl ModelScheme {
    fn all() -> Vec<Self> {
        let mut all = Vec::new();
        for bits in [4, 8] {
            for symmetric in [true, false] {
                for granularity in [
                    ModelGranularity::Tensor,
                    ModelGranularity::Channel,
                    ModelGranularity::Group,
                ] {
                    all.push(Self {
                        bits,
                        symmetric,
                        granularity,
                    });
                }
            }
        }
        all
    }

    fn few() -> Vec<Self> {
        let scheme = |bits, symmetric, granularity| Self {
            bits,
            symmetric,
            granularity,
        };
        vec![
            MAIN,
            scheme(8, false, ModelGranularity::Tensor),
            scheme(4, false, ModelGranularity::Group),
        ]
    }

    /// The program's options.
    fn of_program(self) -> Vec<String> {
        let mut options = vec!["--bits".to_owned(), self.bits.to_string()];
        options.extend(self.symmetric.then(|| "--symmetric".to_owned()));
        let granularity: &[&str] = match self.granularity {
            ModelGranularity::Tensor => &[],
            ModelGranularity::Channel => &["--per-channel", "0"],
            ModelGranularity::Group => &["--group-size", "128", "--axis=-1"],
        };
        options.extend(granularity.iter().map(|&option| option.to_owned()));
        options
    }

    /// The script's options.
    fn of_script(self) -> Vec<String> {
        let mut options = vec![format!("--bits={}", self.bits)];
        options.extend(self.symmetric.then(|| "--symmetric".to_owned()));
        options.push(format!("--granularity={}", self.granularity).to_lowercase());
        options
    }

    fn is_main(self) -> bool {
        self.of_program() == MAIN.of_program()
    }
}

impl fmt::Display for ModelScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let symmetry = if self.symmetric {
            "symmetric"
        } else {
            "asymmetric"
        };
        write!(
            f,
            "{} bits, {symmetry}, per {}",
            self.bits, self.granularity
        )
    }
}

impl fmt::Display for ModelGranularity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tensor => "tensor",
            Self::Channel => "channel",
            Self::Group => "group",
        })
    }
}

/// What the program says with `--json`.
#[derive(Debug, Deserialize)]
struct Report {
    tensors: Vec<TensorReport>,
}

#[derive(Debug, Deserialize)]
struct TensorReport {
    name: String,
    sqnr_db: Option<f64>,
}

/// What the script found.
#[derive(Debug, Deserialize)]
struct Comparison {
    values: u64,
    codes: u64,
    scales: u64,
    zero_points: u64,
    dequantized: u64,
    others: u64,
    sqnr_db: HashMap<String, f64>,
    notes: Vec<String>,
}

/// Quantizes and dequantizes the model by every scheme and compares; fails if anything differs.
pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let workspace = Workspace::load()?;
    let program = match &args.program {
        Some(program) => program.clone(),
        None => built::released()?,
    };
    let model = model::minilm()?.join("model.safetensors");
    let folder = tempfile::tempdir()?;
    let mut table = table(
        &[
            "scheme",
            "values",
            "≠ codes",
            "≠ scales",
            "≠ zero points",
            "≠ dequantized",
            "≠ others",
            "least SQNR, dB",
            "seconds",
            "peak MB",
        ],
        1,
    );
    let schemes = if args.full {
        ModelScheme::all()
    } else {
        ModelScheme::few()
    };
    let mut failures = Vec::new();
    for scheme in schemes {
        let files = Files::new(&model, folder.path());
        let measured = files.quantize(&program, scheme)?;
        process::output(files.dequantize(&program).arg("--quiet"))?;
        let comparison = compare(&workspace, &files, scheme)?;
        let report = read_report(&measured.stdout)?;
        let least = comparison
            .sqnr_db
            .values()
            .copied()
            .fold(f64::INFINITY, f64::min);
        table.add_row([
            scheme.to_string(),
            count(comparison.values),
            count(comparison.codes),
            count(comparison.scales),
            count(comparison.zero_points),
            count(comparison.dequantized),
            count(comparison.others),
            format!("{least:.2}"),
            format!("{:.2}", measured.time.as_secs_f64()),
            measured
                .peak
                .map_or_else(String::new, |peak| format!("{:.0}", peak as f64 / 1e6)),
        ]);
        let mut found = comparison.notes.clone();
        found.extend(sqnr_failures(&report, &comparison, scheme));
        if scheme.is_main() {
            found.extend(cost_failures(&files, &program, measured)?);
        }
        failures.extend(
            found
                .into_iter()
                .map(|failure| format!("{scheme}: {failure}")),
        );
    }
    println!("{table}");
    println!(
        "The columns with ≠ count differences from NumPy, to the last bit. {:.0} seconds.",
        start.elapsed().as_secs_f64()
    );
    if !failures.is_empty() {
        bail!("the real model:\n  {}", failures.join("\n  "));
    }
    Ok(())
}

/// The model, and where the program writes.
#[derive(Debug)]
struct Files {
    model: PathBuf,
    quantized: PathBuf,
    dequantized: PathBuf,
}

impl Files {
    fn new(model: &Path, folder: &Path) -> Self {
        Self {
            model: model.to_owned(),
            quantized: folder.join("quantized.safetensors"),
            dequantized: folder.join("dequantized.safetensors"),
        }
    }

    fn quantize(&self, program: &Path, scheme: ModelScheme) -> Result<Measured> {
        let mut command = Command::new(program);
        command
            .arg("quantize")
            .arg(&self.model)
            .arg("-o")
            .arg(&self.quantized);
        measure(
            command
                .args(["--json", "--force"])
                .args(scheme.of_program()),
        )
    }

    fn dequantize(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command
            .arg("dequantize")
            .arg(&self.quantized)
            .arg("-o")
            .arg(&self.dequantized);
        command.arg("--force").stdout(Stdio::null());
        command
    }
}

fn compare(workspace: &Workspace, files: &Files, scheme: ModelScheme) -> Result<Comparison> {
    let mut script = python::with_packages("peers", PEERS)?;
    script.arg(workspace.python("check_model.py"));
    script
        .args([&files.model, &files.quantized, &files.dequantized])
        .args(scheme.of_script());
    let output = process::output(&mut script)?;
    let comparison: Comparison =
        serde_json::from_str(&output).context("cannot read what the script says")?;
    ensure!(comparison.values > 0, "no values were compared");
    Ok(comparison)
}

fn read_report(json: &str) -> Result<Report> {
    serde_json::from_str(json).context("cannot read what `chopi quantize --json` says")
}

/// What is wrong with the SQNR that the program prints.
fn sqnr_failures(report: &Report, comparison: &Comparison, scheme: ModelScheme) -> Vec<String> {
    let mut failures = Vec::new();
    for (name, &expected) in &comparison.sqnr_db {
        let printed = report.tensors.iter().find(|tensor| tensor.name == *name);
        match printed.and_then(|tensor| tensor.sqnr_db) {
            Some(sqnr) if (sqnr - expected).abs() > 0.01 => {
                failures.push(format!(
                    "{name}: SQNR {sqnr} dB printed, NumPy's is {expected} dB"
                ));
            }
            Some(sqnr) if scheme.is_main() && sqnr <= SQNR_DB => {
                failures.push(format!(
                    "{name}: SQNR {sqnr} dB, expected more than {SQNR_DB} dB"
                ));
            }
            None if expected.is_finite() => failures.push(format!("{name}: no SQNR is printed")),
            _ => {}
        }
    }
    failures
}

/// What is wrong with the time and the memory; the time is the best of three runs.
fn cost_failures(files: &Files, program: &Path, first: Measured) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    let mut runs = vec![first];
    for _ in 0..2 {
        runs.push(files.quantize(program, MAIN)?);
    }
    let times: Vec<String> = runs
        .iter()
        .map(|run| format!("{:.2}", run.time.as_secs_f64()))
        .collect();
    println!("{MAIN}: {} seconds in three runs", times.join(", "));
    if runs.iter().all(|run| run.time >= TIME) {
        failures.push(format!(
            "it takes {} s, expected less than {TIME:?}",
            times.join(", ")
        ));
    }
    let limit = std::fs::metadata(&files.model)?.len() + MEMORY;
    let peak = runs.iter().filter_map(|run| run.peak).max();
    if let Some(peak) = peak.filter(|&peak| peak >= limit) {
        let (peak, limit) = (count(peak), count(limit));
        failures.push(format!(
            "it takes {peak} bytes of memory, expected less than {limit}"
        ));
    }
    Ok(failures)
}
