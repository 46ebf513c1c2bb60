//! `chopi dequantize`: codes back to floats.

use std::time::Instant;

use chopi::QParams;
use chopi::backend::{FloatTensor, IntSlice};
use chopi::formats::{Model, Storage, StoredTensor, with_float};
use indicatif::ProgressBar;
use safetensors::Dtype;
use serde::Serialize;

use crate::args::DequantizeArgs;
use crate::chunks::Chunks;
use crate::element::{FloatElement, float_bytes};
use crate::error::{Error, Fault, Result};
use crate::framework::{Framework, with_framework};
use crate::header::{Header, Slot};
use crate::print::{as_text, printable};
use crate::report::{Report, ReportRow, grouped};
use crate::table::{Cell, Column};
use crate::workers;
use crate::write::{Output, Target};

/// # Errors
/// What is wrong with the input or the output.
pub fn run(args: &DequantizeArgs) -> Result<()> {
    let start = Instant::now();
    let model = Model::open(&args.files.input)?;
    let target = args.files.target(&model.files().inputs())?;
    let rows = with_framework!(args.work.backend, K => write::<K>(&model, args, target)?);
    Report::new(rows, start).print(&args.print, args.verbose)
}

/// Writes the file of floats.
fn write<K: Framework>(
    model: &Model,
    args: &DequantizeArgs,
    target: Target,
) -> Result<Vec<DequantizeRow>> {
    if !model.is_quantized() && model.gguf_metadata().is_none() {
        let path = model.path().to_owned();
        return Err(Error::NoQuantizedModel { path });
    }
    let mut header = Header::new(model.metadata().clone());
    let mut tasks = Vec::new();
    for tensor in model.tensors() {
        let (dtype, shape) = (tensor.dtype(), tensor.shape());
        // Codes of 2 bits and more: the product is no longer than 32 files.
        let len = (shape.iter().product::<usize>() * dtype.bitsize()).div_ceil(8);
        let slot = header.add(tensor.name(), dtype, shape, len);
        tasks.push(DequantizeTask {
            tensor,
            slot: slot.map_err(|fault| tensor.fault(fault))?,
            len,
        });
    }
    let output = target.create(&header)?;
    let progress = workers::progress(tasks.iter().map(|task| task.len).sum(), args.print.quiet);
    let rows = workers::run(
        &tasks,
        |task| task.len,
        args.work.threads,
        |task| task.run::<K>(&output, &progress),
    );
    progress.finish_and_clear();
    let rows = rows?;
    output.persist()?;
    Ok(rows)
}

/// What is to be done with one tensor, and where the result goes.
struct DequantizeTask<'a> {
    tensor: &'a StoredTensor,
    slot: Slot,
    /// The bytes of the result.
    len: usize,
}

impl DequantizeTask<'_> {
    fn run<K: Framework>(&self, output: &Output, progress: &ProgressBar) -> Result<DequantizeRow> {
        let codes = match self.tensor.params()? {
            Some(params) => {
                with_float!(params.float_type(), F => {
                    self.dequantize::<K, F>(&params, output, progress)?
                });
                self.tensor
                    .parts()
                    .first()
                    .map(|codes| codes.dtype.to_string())
            }
            None => {
                let fault = |fault: Fault| Error::from(self.tensor.fault(fault));
                let values = self.tensor.values()?;
                values.data.pieces(fault, |offset, piece| {
                    output.write(self.slot, offset, piece)?;
                    progress.inc(piece.len() as u64);
                    Ok(())
                })?;
                match self.tensor.storage() {
                    Storage::Blocks(block_type) => Some(block_type.to_string()),
                    _ => None,
                }
            }
        };
        Ok(DequantizeRow {
            name: self.tensor.name().to_owned(),
            shape: self.tensor.shape().to_vec(),
            dtype: self.tensor.dtype(),
            codes,
            bytes_in: self.tensor.bytes(),
            bytes_out: self.len,
        })
    }

    /// Dequantizes the tensor piece by piece.
    fn dequantize<K: Framework, F: FloatElement>(
        &self,
        params: &QParams,
        output: &Output,
        progress: &ProgressBar,
    ) -> Result<()> {
        let tensor = self.tensor;
        let convention = params.convention();
        let (shape, rank) = (tensor.shape(), tensor.shape().len());
        let granularity = convention.granularity_for(params.scheme().granularity, rank);
        let chunks = Chunks::of(shape, granularity, tensor.is_packed());
        let fault = |fault: Fault| Error::from(tensor.fault(fault));
        for chunk in chunks.iter() {
            let codes = tensor.codes_of(chunk.elements.clone()).map_err(fault)?;
            let codes: IntSlice<'_> = codes.as_slice();
            let mut written = Ok(());
            let mut piece = || {
                let codes = K::codes::<F>(codes, &chunks.shape(&chunk))?;
                let values = chunks.params(&chunk, params)?.dequantize(&codes)?;
                values.with_host(|host| {
                    let offset = chunk.elements.start * size_of::<F>();
                    written = output.write(self.slot, offset, &float_bytes(host.data()));
                    Ok(())
                })
            };
            piece().map_err(|error| fault(chunks.error(&chunk, error).into()))?;
            written?;
            progress.inc((chunk.elements.len() * size_of::<F>()) as u64);
        }
        Ok(())
    }
}

/// What became of a tensor.
#[derive(Debug, Serialize)]
struct DequantizeRow {
    name: String,
    shape: Vec<usize>,
    /// The dtype in the output.
    #[serde(serialize_with = "as_text")]
    dtype: Dtype,
    bytes_in: usize,
    bytes_out: usize,
    /// The dtype of the codes of one that was dequantized, or the type of its blocks.
    #[serde(skip)]
    codes: Option<String>,
}

impl ReportRow for DequantizeRow {
    const DONE: &'static str = "dequantized";

    fn columns() -> Vec<Column> {
        vec![
            Column::text("tensor"),
            Column::text("shape").goes(1),
            Column::text("dtype").goes(3),
            Column::number("bytes in").goes(2),
            Column::number("bytes out"),
        ]
    }

    fn is_done(&self) -> bool {
        self.codes.is_some()
    }

    fn bytes_in(&self) -> usize {
        self.bytes_in
    }

    fn bytes_out(&self) -> usize {
        self.bytes_out
    }

    fn cells(&self) -> Vec<Cell> {
        vec![
            printable(&self.name).into_owned().into(),
            format!("{:?}", self.shape).into(),
            match &self.codes {
                Some(codes) => format!("{codes} → {}", self.dtype),
                None => self.dtype.to_string(),
            }
            .into(),
            grouped(self.bytes_in).into(),
            grouped(self.bytes_out).into(),
        ]
    }
}
