//! `cargo xtask conformance`: the named conventions against the libraries that they are named for.
//!
//! Python draws inputs, runs the real libraries on them and writes what comes out, a safetensors
//! record a case (`tests/conformance/make_vectors.py --live`); here chopi does the same, and every
//! code, scale, zero point, dequantized and fake-quantized value must be equal to the last bit.

pub mod libraries;
mod report;

use std::collections::VecDeque;
use std::io::{BufReader, IsTerminal};
use std::process::Stdio;
use std::sync::Mutex;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, bail, ensure};
use chopi::{
    Convention,
    backend::{Compute, Float, FloatType, bf16, f16},
};
use chopi_conformance::data::to;
use chopi_conformance::vectors::{self, Case, Differences, Tensors, Values};
use ndarray::ArrayD;

use crate::records::Records;
use crate::workspace::Workspace;
use crate::{process, seed};
use report::Report;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// At least 10 million values of each scheme, not a few thousand
    #[arg(long)]
    full: bool,
    /// The seed of the random inputs; a new one each time by default
    #[arg(long)]
    seed: Option<u64>,
    /// The conventions to check; all by default
    conventions: Vec<String>,
}

/// Values of each scheme: convention, element type, bits, symmetry and granularity.
const SHORT: u64 = 4096;
const FULL: u64 = 10_000_000;

/// Compares, prints a row for each scheme, and fails if anything differs.
pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let seed = seed::or_new(args.seed)?;
    let conventions = chosen(&args.conventions)?;
    let python = libraries::python()?;
    println!("random seed {seed}");

    // One process and one thread that compares for each core; the longest go first.
    let workers = std::thread::available_parallelism()?.get();
    let waiting = Mutex::new(VecDeque::from(conventions.clone()));
    let report = Mutex::new(Report::new(&conventions));
    let work = || -> Result<()> {
        loop {
            let next = waiting
                .lock()
                .map_err(|_| anyhow!("a thread panicked"))?
                .pop_front();
            let Some(convention) = next else {
                return Ok(());
            };
            let values = if args.full { FULL } else { SHORT };
            let result = check(convention, &python, seed, values, &report);
            result.with_context(|| format!("cannot check {}", convention.name()))?;
            let report = report.lock().map_err(|_| anyhow!("a thread panicked"))?;
            eprintln!("{}", report.line(convention));
        }
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let mut joined = threads.into_iter().map(|thread| thread.join());
        joined.try_for_each(|result| result.map_err(|_| anyhow!("a thread panicked"))?)
    })?;

    let report = report.into_inner()?;
    report.print();
    println!("{:.0} seconds.", start.elapsed().as_secs_f64());
    ensure!(report.all_compared(), "not every convention was compared");
    if report.any_differences() {
        bail!("chopi differs; to see the same inputs again: --seed {seed}");
    }
    Ok(())
}

/// The conventions of these names; all but chopi's own where there are none.
fn chosen(names: &[String]) -> Result<Vec<Convention>> {
    const LONGEST_FIRST: [&str; 9] = [
        "pychop-torch",
        "compressed-tensors",
        "pychop-jax",
        "aqt",
        "pychop",
        "torch-fake",
        "onnx",
        "torch",
        "tflite",
    ];
    let all = LONGEST_FIRST.map(str::to_owned);
    let names = if names.is_empty() { &all[..] } else { names };
    let convention = |name: &String| {
        let convention = Convention::from_name(name)?;
        ensure!(convention != Convention::CHOPI, "chopi is its own library");
        Ok(convention)
    };
    names.iter().map(convention).collect()
}

/// Runs the library of a convention and compares each case with chopi's.
fn check(
    convention: Convention,
    python: &libraries::Python,
    seed: u64,
    values: u64,
    report: &Mutex<Report>,
) -> Result<()> {
    let script = Workspace::load()?
        .workspace_root
        .join("tests/conformance/make_vectors.py");
    let mut command = python.command();
    command
        .arg(script)
        .args([
            "--seed",
            &seed.to_string(),
            "--live",
            &values.to_string(),
            convention.name(),
        ])
        .stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| process::cannot_run(&command))?;
    let stdout = child.stdout.take().context("the output is piped")?;
    let mut records = Records::new(BufReader::with_capacity(1 << 20, stdout));
    while let Some(record) = records.next()? {
        let (libraries, cases) =
            vectors::read(record).map_err(|error| anyhow!("a record cannot be read: {error}"))?;
        for case in cases {
            let compare = match case.float {
                FloatType::F16 => compare::<f16>,
                FloatType::BF16 => compare::<bf16>,
                FloatType::F32 => compare::<f32>,
                FloatType::F64 => compare::<f64>,
            };
            let differences = compare(&case, convention);
            let mut report = report.lock().map_err(|_| anyhow!("a thread panicked"))?;
            if report.add(convention, &libraries, &case.settings, differences)
                && std::io::stderr().is_terminal()
            {
                eprint!("\r{:20}{:3} rows", convention.name(), report.rows());
            }
        }
    }
    process::check(&command, child.wait()?)
}

fn compare<F: Float>(case: &Case, convention: Convention) -> Differences {
    let tensors = Tensors {
        make: |values: &Values| {
            let data = values.data.iter().map(|&x| to::<F>(x)).collect();
            ArrayD::from_shape_vec(values.shape.as_slice(), data).unwrap_or_default()
        },
        codes: |q: &chopi::ndarray::IntArray<F, _>| {
            q.to_i64().into_iter().map(|q| q as f64).collect()
        },
        floats: |y: &ArrayD<F>| y.iter().map(|y| y.widen().as_f64()).collect(),
    };
    let at = format!("{} {:?}", convention.name(), case.settings);
    case.compare(convention, tensors, &at)
}
