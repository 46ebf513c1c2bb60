//! `chopi dequantize`: codes back to floats.

use std::collections::BTreeSet;
use std::time::Instant;

use chopi::{
    QParams,
    backend::{FloatTensor, Int},
};
use indicatif::ProgressBar;
use safetensors::Dtype;
use serde::Serialize;

use crate::archive::{Archive, Entry, Reader};
use crate::args::DequantizeArgs;
use crate::chunks::{Chunk, Chunks};
use crate::element::{FloatElement, IntElement, float_bytes};
use crate::error::{Error, Fault, Result};
use crate::framework::{Framework, with_framework};
use crate::header::{Header, Slot};
use crate::output::{Output, Target};
use crate::print::printable;
use crate::record::{KEY, Record, Stored, float_dtype};
use crate::report::{Report, ReportRow, grouped};
use crate::workers;
use chopi::formats::with_float;
use chopi::formats::with_int;

/// # Errors
/// What is wrong with the input or the output.
pub fn run(args: &DequantizeArgs) -> Result<()> {
    let start = Instant::now();
    let archive = Archive::open(&args.files.input)?;
    let target = args.files.target(None)?;
    let rows = with_framework!(args.work.backend, K => write::<K>(&archive, args, target)?);
    Report::new(rows, start).print(&args.print)
}

/// Writes the file of floats.
fn write<K: Framework>(
    archive: &Archive,
    args: &DequantizeArgs,
    target: Target,
) -> Result<Vec<DequantizeRow>> {
    let record = Record::of(archive)?.ok_or_else(|| Error::NotQuantized {
        path: archive.path.to_owned(),
    })?;
    let mut metadata = archive.metadata.clone();
    metadata.remove(KEY);
    let mut header = Header::new(metadata);

    let mut tasks = Vec::new();
    let mut companions = BTreeSet::new();
    for name in record.names() {
        let stored = Stored::find(archive, &record, name)?;
        companions.extend(stored.parts().map(|part| part.name.clone()));
        let dtype = float_dtype(stored.float);
        let shape = &stored.codes.shape;
        let size = dtype.bitsize() / 8;
        // The file holds at least a byte for each element, so the product is no longer than 8
        // files.
        let len = shape.iter().product::<usize>() * size;
        tasks.push(DequantizeTask {
            slot: header.add(name, dtype, shape, len),
            tensor: stored.codes.clone(),
            dtype,
            len,
            stored: Some(stored),
        });
    }
    for tensor in archive.tensors.values() {
        if record.get(&tensor.name).is_none() && !companions.contains(&tensor.name) {
            let len = tensor.data.len();
            tasks.push(DequantizeTask {
                slot: header.add(&tensor.name, tensor.dtype, &tensor.shape, len),
                tensor: tensor.clone(),
                dtype: tensor.dtype,
                len,
                stored: None,
            });
        }
    }
    tasks.sort_by(|a, b| a.tensor.name.cmp(&b.tensor.name));

    let output = target.create(&header)?;
    let progress = workers::progress(tasks.iter().map(|task| task.len).sum(), args.print.quiet);
    let rows = workers::run(
        &tasks,
        |task| task.len,
        args.work.threads,
        |task| task.run::<K>(archive, &output, &progress),
    );
    progress.finish_and_clear();
    let rows = rows?;
    output.persist()?;
    Ok(rows)
}

/// What is to be done with one tensor, and where the result goes.
struct DequantizeTask {
    tensor: Entry,
    slot: Slot,
    /// The dtype and the bytes of the result.
    dtype: Dtype,
    len: usize,
    stored: Option<Stored>,
}

impl DequantizeTask {
    fn run<K: Framework>(
        &self,
        archive: &Archive,
        output: &Output,
        progress: &ProgressBar,
    ) -> Result<DequantizeRow> {
        let fault = |fault: Fault| Error::from(archive.fault(&self.tensor.name, fault));
        match &self.stored {
            Some(stored) => {
                let params = stored.params().map_err(fault)?;
                with_float!(params.float_type(), F => with_int!(params.int_type(), I => {
                    self.dequantize::<K, F, I>(stored, &params, archive, output, progress)?
                }))
            }
            None => self.tensor.data.pieces(fault, |offset, piece| {
                output.write(self.slot, offset, piece)?;
                progress.inc(piece.len() as u64);
                Ok(())
            })?,
        }
        let bytes_in = match &self.stored {
            Some(stored) => stored.parts().map(|part| part.data.len()).sum(),
            None => self.len,
        };
        Ok(DequantizeRow {
            name: self.tensor.name.clone(),
            shape: self.tensor.shape.clone(),
            dtype: self.dtype.to_string(),
            codes: self.stored.as_ref().map(|stored| stored.codes.dtype),
            bytes_in,
            bytes_out: self.len,
        })
    }

    /// Dequantizes the tensor piece by piece.
    fn dequantize<K: Framework, F: FloatElement, I: IntElement>(
        &self,
        stored: &Stored,
        params: &QParams,
        archive: &Archive,
        output: &Output,
        progress: &ProgressBar,
    ) -> Result<()> {
        let fault = |fault: Fault| Error::from(archive.fault(&self.tensor.name, fault));
        let chunks = Chunks::new(&self.tensor.shape, stored.granularity);
        let mut elements = Reader::<I>::new(&self.tensor);
        for chunk in chunks.iter() {
            let codes = elements.read(chunk.elements.clone());
            let codes = codes.map_err(fault)?;
            let mut written = Ok(());
            let mut piece = || {
                let codes = K::codes::<F>(Int::slice(codes), &chunks.shape(&chunk))?;
                let values = chunks.params(&chunk, params)?.dequantize(&codes)?;
                values.with_host(|host| {
                    let offset = chunk.elements.start * size_of::<F>();
                    written = output.write(self.slot, offset, &float_bytes(host.data()));
                    Ok(())
                })
            };
            piece().map_err(|error| fault(error_in_tensor(error, &chunks, &chunk).into()))?;
            written?;
            progress.inc((chunk.elements.len() * size_of::<F>()) as u64);
        }
        Ok(())
    }
}

/// The error in a piece of a tensor, with the index in the tensor.
fn error_in_tensor(error: chopi::Error, chunks: &Chunks<'_>, chunk: &Chunk) -> chopi::Error {
    match error {
        chopi::Error::Code {
            index,
            code,
            qmin,
            qmax,
        } => chopi::Error::Code {
            index: chunks.index(chunk, index),
            code,
            qmin,
            qmax,
        },
        other => other,
    }
}

/// What became of a tensor.
#[derive(Debug, Serialize)]
struct DequantizeRow {
    name: String,
    shape: Vec<usize>,
    /// The dtype in the output.
    dtype: String,
    bytes_in: usize,
    bytes_out: usize,
    /// The dtype of the codes of one that was dequantized.
    #[serde(skip)]
    codes: Option<Dtype>,
}

impl ReportRow for DequantizeRow {
    const COLUMNS: &'static [&'static str] = &["tensor", "shape", "dtype", "bytes in", "bytes out"];
    const TEXTS: usize = 3;
    const DONE: &'static str = "dequantized";

    fn is_done(&self) -> bool {
        self.codes.is_some()
    }

    fn bytes_in(&self) -> usize {
        self.bytes_in
    }

    fn bytes_out(&self) -> usize {
        self.bytes_out
    }

    fn cells(&self) -> Vec<String> {
        vec![
            printable(&self.name).into_owned(),
            format!("{:?}", self.shape),
            match self.codes {
                Some(codes) => format!("{codes} → {}", self.dtype),
                None => self.dtype.clone(),
            },
            grouped(self.bytes_in),
            grouped(self.bytes_out),
        ]
    }
}
