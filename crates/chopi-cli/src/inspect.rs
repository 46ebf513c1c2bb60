//! `chopi inspect`: what a file holds.

use std::collections::BTreeMap;
use std::fmt::Display;

use chopi::{Granularity, Symmetry};
use safetensors::Dtype;
use serde::{Serialize, Serializer};

use crate::archive::Archive;
use crate::args::InspectArgs;
use crate::error::{Fault, Result};
use crate::print::{print, print_json, printable};
use crate::record::{KEY, Record, Stored, float_dtype};
use crate::report::{grouped, scheme_cell, table};

/// # Errors
/// What is wrong with the file.
pub fn run(args: &InspectArgs) -> Result<()> {
    let archive = Archive::open(&args.file)?;
    let report = Report::of(&archive)?;
    match args.json {
        true => print_json(&report),
        false => report.print_table(),
    }
}

#[derive(Serialize)]
struct Report<'a> {
    tensors: Vec<InspectRow<'a>>,
    /// The bytes of all tensors.
    bytes: usize,
    /// The bytes of the file, the header included.
    file_bytes: u64,
    /// All but chopi's own.
    metadata: BTreeMap<&'a str, &'a str>,
}

#[derive(Serialize)]
struct InspectRow<'a> {
    name: &'a str,
    shape: &'a [usize],
    #[serde(serialize_with = "as_text")]
    dtype: Dtype,
    bytes: usize,
    /// How it was quantized, if it was.
    quantized: Option<Box<Quantization>>,
}

/// A value as what it displays.
fn as_text<S: Serializer>(
    value: &impl Display,
    serializer: S,
) -> std::result::Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

#[derive(Serialize)]
struct Quantization {
    #[serde(serialize_with = "as_text")]
    dtype: Dtype,
    bits: u32,
    symmetric: bool,
    #[serde(serialize_with = "as_text")]
    granularity: Granularity,
    qmin: i64,
    qmax: i64,
    convention: &'static str,
    scale_min: f64,
    scale_max: f64,
    /// The scheme in words.
    #[serde(skip)]
    scheme: String,
}

impl<'a> Report<'a> {
    fn of(archive: &'a Archive) -> Result<Self> {
        let record = Record::of(archive)?;
        let mut tensors = Vec::with_capacity(archive.tensors.len());
        for tensor in archive.tensors.values() {
            let name = &*tensor.name;
            let quantized = match &record {
                Some(record) if record.get(name).is_some() => {
                    let how = Quantization::of(&Stored::find(archive, record, name)?);
                    Some(Box::new(how.map_err(|e| archive.fault(name, e))?))
                }
                _ => None,
            };
            tensors.push(InspectRow {
                name,
                shape: &tensor.shape,
                dtype: tensor.dtype,
                bytes: tensor.data.len(),
                quantized,
            });
        }
        if let Some(record) = &record {
            let missing = |name: &&str| !archive.tensors.contains_key(*name);
            for name in record.names().filter(missing) {
                Stored::find(archive, record, name)?;
            }
        }
        let metadata = archive.metadata.iter().filter(|(key, _)| *key != KEY);
        Ok(Self {
            bytes: tensors.iter().map(|row| row.bytes).sum(),
            tensors,
            file_bytes: archive.len,
            metadata: metadata.map(|(key, value)| (&**key, &**value)).collect(),
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
                printable(row.name).into_owned(),
                format!("{:?}", row.shape),
                row.dtype.to_string(),
            ];
            cells.extend(match &row.quantized {
                Some(q) => [
                    q.scheme.clone(),
                    q.convention.to_owned(),
                    q.dtype.to_string(),
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
    fn of(stored: &Stored) -> std::result::Result<Self, Fault> {
        let params = stored.params()?;
        let scales = params.scale().iter().copied();
        let scheme = &stored.scheme;
        Ok(Self {
            dtype: float_dtype(stored.float),
            bits: scheme.bits,
            symmetric: scheme.symmetry == Symmetry::Symmetric,
            granularity: stored.granularity,
            qmin: scheme.qmin,
            qmax: scheme.qmax,
            convention: stored.convention.name(),
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
