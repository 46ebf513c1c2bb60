//! `chopi inspect`: what a file holds.

use std::collections::BTreeMap;

use chopi::Symmetry;
use serde::Serialize;

use crate::archive::{Archive, Source};
use crate::args::InspectArgs;
use crate::error::{Fault, Result};
use crate::format::{KEY, Record, Stored, float_dtype};
use crate::print::{print, print_json, printable};
use crate::report::{grouped, scheme_cell, table};

/// # Errors
/// What is wrong with the file.
pub fn run(args: &InspectArgs) -> Result<()> {
    let source = Source::open(&args.file)?;
    let report = Report::of(&source.parse()?)?;
    match args.json {
        true => print_json(&report),
        false => report.print_table(),
    }
}

#[derive(Serialize)]
struct Report {
    tensors: Vec<InspectRow>,
    /// The bytes of all tensors.
    bytes: usize,
    /// The bytes of the file, the header included.
    file_bytes: u64,
    /// All but chopi's own.
    metadata: BTreeMap<String, String>,
}

#[derive(Serialize)]
struct InspectRow {
    name: String,
    shape: Vec<usize>,
    dtype: String,
    bytes: usize,
    /// How it was quantized, if it was.
    quantized: Option<Quantization>,
}

#[derive(Serialize)]
struct Quantization {
    dtype: String,
    bits: u32,
    symmetric: bool,
    granularity: String,
    qmin: i64,
    qmax: i64,
    convention: String,
    scale_min: f64,
    scale_max: f64,
    /// The scheme in words.
    #[serde(skip)]
    scheme: String,
}

impl Report {
    fn of(archive: &Archive<'_>) -> Result<Self> {
        let mut quantized = BTreeMap::new();
        if let Some(record) = Record::of(archive)? {
            for name in record.names() {
                let stored = Stored::find(archive, &record, name)?;
                let how = Quantization::of(&stored);
                quantized.insert(name.to_owned(), how.map_err(|e| archive.fault(name, e))?);
            }
        }
        let tensors: Vec<InspectRow> = archive
            .tensors
            .values()
            .map(|tensor| InspectRow {
                name: tensor.name.clone(),
                shape: tensor.shape.clone(),
                dtype: tensor.dtype.to_string(),
                bytes: tensor.data.len(),
                quantized: quantized.remove(&tensor.name),
            })
            .collect();
        let mut metadata = archive.metadata.clone();
        metadata.remove(KEY);
        Ok(Self {
            bytes: tensors.iter().map(|row| row.bytes).sum(),
            tensors,
            file_bytes: archive.len,
            metadata,
        })
    }

    fn print_table(&self) -> Result<()> {
        let columns = [
            "tensor",
            "shape",
            "dtype",
            "scheme",
            "convention",
            "original",
            "scale",
            "bytes",
        ];
        let mut table = table(&columns, 7);
        for row in &self.tensors {
            let mut cells = vec![
                printable(&row.name).into_owned(),
                format!("{:?}", row.shape),
                row.dtype.clone(),
            ];
            cells.extend(match &row.quantized {
                Some(q) => [
                    q.scheme.clone(),
                    q.convention.clone(),
                    q.dtype.clone(),
                    q.scales(),
                ],
                None => Default::default(),
            });
            cells.push(grouped(row.bytes));
            table.add_row(cells);
        }
        let quantized = self.tensors.iter().filter(|row| row.quantized.is_some());
        table.add_row([
            format!("{} tensors", self.tensors.len()),
            String::new(),
            String::new(),
            format!("{} quantized", quantized.count()),
            String::new(),
            String::new(),
            String::new(),
            grouped(self.bytes),
        ]);
        print(&table)?;
        for (key, value) in &self.metadata {
            let (key, value) = (printable(key), printable(value));
            print(format_args!("{key}: {value}"))?;
        }
        Ok(())
    }
}

impl Quantization {
    fn of(stored: &Stored<'_>) -> std::result::Result<Self, Fault> {
        let params = stored.params()?;
        let scales = params.scale().iter().copied();
        let scheme = stored.scheme;
        Ok(Self {
            dtype: float_dtype(stored.float).to_string(),
            bits: scheme.bits,
            symmetric: scheme.symmetry == Symmetry::Symmetric,
            granularity: stored.granularity.to_string(),
            qmin: scheme.qmin,
            qmax: scheme.qmax,
            convention: stored.convention.name().to_string(),
            scale_min: scales.clone().fold(f64::INFINITY, f64::min),
            scale_max: scales.fold(0.0, f64::max),
            scheme: scheme_cell(scheme, stored.granularity),
        })
    }

    fn scales(&self) -> String {
        match (self.scale_min, self.scale_max) {
            (min, max) if min == max => format!("{min:.4e}"),
            (min, max) => format!("{min:.4e} to {max:.4e}"),
        }
    }
}
