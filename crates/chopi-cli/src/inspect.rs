//! `chopi inspect`: what a model holds.

use std::collections::BTreeMap;

use chopi::formats::gguf::BlockType;
use chopi::formats::{Model, Storage, StoredTensor};
use chopi::{Granularity, Symmetry};
use safetensors::Dtype;
use serde::Serialize;

use crate::args::InspectArgs;
use crate::error::Result;
use crate::print::{as_text, print, print_json, printable};
use crate::report::{grouped, scheme_cell};
use crate::table::{Cell, Column, Table};

/// # Errors
/// What is wrong with the model.
pub fn run(args: &InspectArgs) -> Result<()> {
    let model = Model::open(&args.model)?;
    let report = Report::of(&model)?;
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
    /// The bytes of the files, the headers included.
    file_bytes: usize,
    /// All but chopi's own.
    metadata: BTreeMap<&'a str, String>,
}

#[derive(Serialize)]
struct InspectRow<'a> {
    name: &'a str,
    shape: &'a [usize],
    /// The dtype of the elements or the codes in the file, or the type of the blocks.
    dtype: String,
    /// The bytes of the elements, or of the codes and the parameters.
    bytes: usize,
    /// How it was quantized, if it was.
    quantized: Option<Box<Quantization>>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Quantization {
    Codes(Codes),
    Blocks(Blocks),
}

/// Codes with their parameters.
#[derive(Serialize)]
struct Codes {
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
    /// The scheme in a table.
    #[serde(skip)]
    scheme: Cell,
}

/// Blocks of a GGUF file.
#[derive(Serialize)]
struct Blocks {
    #[serde(serialize_with = "as_text")]
    dtype: Dtype,
    bits: u32,
    #[serde(serialize_with = "as_text")]
    block_type: BlockType,
    block_elements: usize,
}

impl<'a> Report<'a> {
    fn of(model: &'a Model) -> Result<Self> {
        let tensors = model
            .tensors()
            .map(InspectRow::of)
            .collect::<Result<Vec<_>>>()?;
        let texts = model.metadata().iter();
        let texts = texts.map(|(key, value)| (&**key, value.clone()));
        let values = model.gguf_metadata().into_iter().flatten();
        let values = values.map(|(key, value)| (&**key, value.to_string()));
        Ok(Self {
            bytes: tensors.iter().map(|row| row.bytes).sum(),
            tensors,
            file_bytes: model.files().bytes()?,
            metadata: texts.chain(values).collect(),
        })
    }

    fn print_table(&self) -> Result<()> {
        let mut table = Table::new(vec![
            Column::text("tensor"),
            Column::text("shape").goes(5),
            Column::text("dtype").goes(3),
            Column::text("scheme").goes(6),
            Column::text("convention").goes(2),
            Column::text("original").goes(1),
            Column::text("scale").goes(4),
            Column::number("bytes"),
        ]);
        for row in &self.tensors {
            let mut cells: Vec<Cell> = vec![
                printable(row.name).into_owned().into(),
                format!("{:?}", row.shape).into(),
                row.dtype.clone().into(),
            ];
            cells.extend(match &row.quantized {
                Some(quantization) => quantization.cells(),
                None => Default::default(),
            });
            cells.push(grouped(row.bytes).into());
            table.row(cells);
        }
        let quantized = self.tensors.iter().filter(|row| row.quantized.is_some());
        let totals = format!(
            "{} tensors, {} quantized, {} bytes",
            self.tensors.len(),
            quantized.count(),
            grouped(self.bytes)
        );
        match self.tensors.is_empty() {
            true => print(totals)?,
            false => print(format_args!("{table}\n\n{totals}"))?,
        }
        for (key, value) in &self.metadata {
            let (key, value) = (printable(key), printable(value));
            print(format_args!("{key}: {value}"))?;
        }
        Ok(())
    }
}

impl<'a> InspectRow<'a> {
    fn of(tensor: &'a StoredTensor) -> Result<Self> {
        let codes = || tensor.parts().first().map(|codes| codes.dtype.to_string());
        let (dtype, quantized) = match tensor.storage() {
            Storage::Blocks(block_type) => {
                let blocks = Blocks {
                    dtype: tensor.dtype(),
                    bits: block_type.bits(),
                    block_type,
                    block_elements: block_type.elements(),
                };
                (block_type.to_string(), Some(Quantization::Blocks(blocks)))
            }
            storage @ Storage::Quantized { .. } => (
                codes().unwrap_or_default(),
                Codes::of(tensor, storage)?.map(Quantization::Codes),
            ),
            _ => (tensor.dtype().to_string(), None),
        };
        Ok(Self {
            name: tensor.name(),
            shape: tensor.shape(),
            dtype,
            bytes: tensor.bytes(),
            quantized: quantized.map(Box::new),
        })
    }
}

impl Codes {
    fn of(tensor: &StoredTensor, storage: Storage<'_>) -> Result<Option<Self>> {
        let Storage::Quantized {
            scheme,
            convention,
            granularity,
            ..
        } = storage
        else {
            return Ok(None);
        };
        let params = tensor.params()?;
        let scales = params
            .iter()
            .flat_map(|params| params.scale().iter().copied());
        Ok(Some(Self {
            dtype: tensor.dtype(),
            bits: scheme.bits,
            symmetric: scheme.symmetry == Symmetry::Symmetric,
            granularity,
            qmin: scheme.qmin,
            qmax: scheme.qmax,
            convention: convention.name(),
            scale_min: scales.clone().fold(f64::INFINITY, f64::min),
            scale_max: scales.fold(0.0, f64::max),
            scheme: scheme_cell(scheme, granularity),
        }))
    }

    fn scales(&self) -> String {
        match (self.scale_min, self.scale_max) {
            (min, max) if min == max => format!("{min:.4e}"),
            (min, max) => format!("{min:.4e} to {max:.4e}"),
        }
    }
}

impl Quantization {
    /// The scheme, the convention, the original dtype and the scales.
    fn cells(&self) -> [Cell; 4] {
        match self {
            Self::Codes(codes) => [
                codes.scheme.clone(),
                codes.convention.into(),
                codes.dtype.to_string().into(),
                codes.scales().into(),
            ],
            Self::Blocks(blocks) => [
                format!("{} bits, blocks of {}", blocks.bits, blocks.block_elements).into(),
                "ggml".into(),
                blocks.dtype.to_string().into(),
                Cell::default(),
            ],
        }
    }
}
