//! `cargo xtask check-pychop`: `Convention::PYCHOP` against pychop 0.6.2's NumPy backend.
//!
//! Python draws arrays, runs pychop on them and writes what comes out, a safetensors record a case
//! (`python/pychop_cases.py`); here chopi does the same, and every code, scale, zero point and
//! dequantized value must be equal to the last bit.

mod compare;
mod record;

use std::collections::BTreeMap;
use std::io::{BufReader, IsTerminal};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

use crate::python::{self, Requirements};
use crate::records::Records;
use crate::table::{count, table};
use crate::{process, seed, workspace::Workspace};
use compare::Comparison;
use record::{Array, Case, Record};

/// What the checks compare with.
pub const PEERS: Requirements = Requirements(include_str!("../python/peers.txt"));

/// Different outcomes to show in full.
const SHOWN: usize = 10;

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Arrays of at least a million values, not a few thousand
    #[arg(long)]
    full: bool,
    /// The seed of the random arrays; a new one each time by default
    #[arg(long)]
    seed: Option<u64>,
}

impl Args {
    /// The form that CI runs.
    pub fn short() -> Self {
        Self {
            full: false,
            seed: None,
        }
    }
}

/// A row of the table: kind of data, float type, symmetry.
type DataKind = (String, &'static str, &'static str);

/// Compares, prints a row for each kind of data, and fails if anything differs.
pub fn run(args: &Args) -> Result<()> {
    let start = Instant::now();
    let seed = seed::or_new(args.seed)?;
    let size = if args.full { "full" } else { "short" };
    println!("pychop {}, random seed {seed}", PEERS.version("pychop")?);

    let script = Workspace::load()?.python("pychop_cases.py");
    let mut command = python::with_packages("peers", PEERS)?;
    command
        .arg(script)
        .args([size, &seed.to_string()])
        .stdout(Stdio::piped());
    let mut child = command
        .spawn()
        .with_context(|| process::cannot_run(&command))?;
    let stdout = child.stdout.take().context("the output is piped")?;

    let mut rows = BTreeMap::<DataKind, Comparison>::new();
    let mut order = Vec::new();
    let (mut array, mut shown) = (None, 0);
    let mut records = Records::new(BufReader::with_capacity(1 << 20, stdout));
    while let Some(record) = records.next()? {
        let record = Record::new(record)?;
        let case = record.case()?;
        if let Some(new) = record.array()? {
            array = Some(new);
        }
        let array = array.as_ref().context("the first record has no array")?;
        let comparison = match array {
            Array::F32(x) => compare::case(x, &case, &record)?,
            Array::F64(x) => compare::case(x, &case, &record)?,
        };
        if comparison.differs() && shown < SHOWN {
            shown += 1;
            println!("{}: {comparison}", case.described(array));
        }
        let row = row_of(&case, array);
        if !rows.contains_key(&row) {
            order.push(row.clone());
            if std::io::stderr().is_terminal() {
                eprint!("\r{:12}{:5}{:12}", row.0, row.1, row.2);
            }
        }
        rows.entry(row).or_default().add(comparison);
    }
    process::check(&command, child.wait()?)?;

    if std::io::stderr().is_terminal() {
        eprint!("\r");
    }
    print_table(&order, &rows, start);
    let total = total(&rows);
    ensure!(total.compared > 0, "nothing was compared");
    if total.differs() {
        bail!("chopi differs from pychop; to see the same arrays again: --seed {seed}");
    }
    Ok(())
}

fn row_of(case: &Case, array: &Array) -> DataKind {
    let symmetry = if case.symmetric {
        "symmetric"
    } else {
        "asymmetric"
    };
    (case.data.clone(), array.float(), symmetry)
}

fn total(rows: &BTreeMap<DataKind, Comparison>) -> Comparison {
    let mut total = Comparison::default();
    for row in rows.values() {
        total.add(row.clone());
    }
    total
}

fn print_table(order: &[DataKind], rows: &BTreeMap<DataKind, Comparison>, start: Instant) {
    let mut table = table(
        &[
            "data",
            "type",
            "scheme",
            "cases",
            "refused",
            "smallest",
            "values",
            "≠ codes",
            "≠ scales",
            "≠ zero points",
            "≠ dequantized",
            "≠ outcomes",
        ],
        3,
    );
    let all = ("all".to_owned(), "", "");
    let total = total(rows);
    let rows = order
        .iter()
        .map(|row| (row, &rows[row]))
        .chain([(&all, &total)]);
    for ((data, float, symmetry), c) in rows {
        let texts = [data.as_str(), float, symmetry].map(str::to_owned);
        let counts = [
            c.compared,
            c.refused,
            c.smallest.unwrap_or(0),
            c.values,
            c.codes,
            c.scales,
            c.zero_points,
            c.dequantized,
            c.outcomes,
        ];
        table.add_row(texts.into_iter().chain(counts.map(count)));
    }
    println!("{table}");
    println!(
        "A case is one array with one number of bits (2 to 16) and one granularity (per tensor or \
         per channel, in 1 to 4 dimensions). In the refused ones pychop warns that a number \
         overflows, and chopi gives an error. Smallest: the values of the smallest array compared. \
         The columns with ≠ count \
         differences. {:.0} seconds.",
        start.elapsed().as_secs_f64()
    );
}
