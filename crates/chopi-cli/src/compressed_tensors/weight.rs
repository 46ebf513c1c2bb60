//! One tensor: where its results go, and the work.

use chopi::{
    Granularity, QParams, Symmetry,
    backend::{Float, FloatType, IntSlice, IntType},
    metrics::Metrics,
    packing::Packing,
};
use indicatif::ProgressBar;
use safetensors::Dtype;

use super::linear::{Loaded, Reason};
use super::plan::How;
use crate::archive::{Archive, Entry, Reader};
use crate::args::Settings;
use crate::chunks::Chunks;
use crate::element::{FloatElement, bytes, code_bytes};
use crate::error::{Error, Fault, Result};
use crate::framework::Framework;
use crate::header::{Header, Slot};
use crate::output::Output;
use crate::quantize::calibrate::calibrate;
use crate::quantize::piece;
use crate::quantize::row::{Kept, QuantizeRow};
use crate::record::float_dtype;
use chopi::formats::compressed_tensors::{pack_columns, params_shape};
use chopi::formats::with_float;

/// How the format keeps the codes of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CodeFormat {
    /// Each in a byte of its own.
    IntQuantized,
    /// Without gaps, in words of 32 bits.
    PackQuantized,
}

impl CodeFormat {
    /// That of codes of so many bits. Of weights that are stacked on loading transformers reads packed codes
    /// only.
    pub fn of(bits: u32, loaded: Loaded) -> Self {
        match (bits, loaded) {
            (_, Loaded::Stacked) => Self::PackQuantized,
            (8, _) | (_, Loaded::Named) => Self::IntQuantized,
            _ => Self::PackQuantized,
        }
    }

    /// The format's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::IntQuantized => "int-quantized",
            Self::PackQuantized => "pack-quantized",
        }
    }

    /// What stands after the weight's name in those of its parts.
    pub fn suffixes(self, symmetry: Symmetry) -> impl Iterator<Item = &'static str> {
        let codes: &[&str] = match self {
            Self::IntQuantized => &["_scale"],
            Self::PackQuantized => &["_packed", "_shape", "_scale"],
        };
        let zero_point = (symmetry == Symmetry::Asymmetric).then_some("_zero_point");
        codes.iter().copied().chain(zero_point)
    }
}

/// What is to be done with one tensor, and where the result goes.
#[derive(Debug)]
pub struct Task<'a> {
    tensor: &'a Entry,
    work: Work<'a>,
}

/// What the tasks of a file share.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    pub archive: &'a Archive,
    pub output: &'a Output,
    pub progress: &'a ProgressBar,
}

#[derive(Debug)]
enum Work<'a> {
    Copy(Slot, &'a Reason),
    Quantize(Quantize<'a>),
}

#[derive(Debug)]
struct Quantize<'a> {
    float: FloatType,
    settings: &'a Settings,
    granularity: Granularity,
    codes: Slot,
    /// How codes of fewer than 8 bits are packed.
    packing: Option<Packing>,
    shape: Option<Slot>,
    scale: Slot,
    zero_point: Option<Slot>,
    kept: Kept,
}

impl<'a> Task<'a> {
    /// A tensor that is copied, for a reason.
    pub fn copy(tensor: &'a Entry, reason: &'a Reason, header: &mut Header) -> Self {
        let len = tensor.data.len();
        let slot = header.add(&tensor.name, tensor.dtype, &tensor.shape, len);
        Self {
            tensor,
            work: Work::Copy(slot, reason),
        }
    }

    /// A tensor that a [`FolderPlan`](super::plan::FolderPlan) has found to fit its scheme.
    ///
    /// # Errors
    /// Bits that cannot be packed.
    pub fn quantize(
        tensor: &'a Entry,
        &How {
            float,
            settings,
            format,
            ..
        }: &How<'a>,
        header: &mut Header,
    ) -> std::result::Result<Self, Fault> {
        let scheme = &settings.scheme;
        let (out, width) = (tensor.shape[0], tensor.shape[1]);
        let groups = params_shape(scheme.granularity, [out, width]);
        let mut len = 0;
        let mut add = |suffix: &str, dtype: Dtype, shape: &[usize]| {
            let name = format!("{}{suffix}", tensor.name);
            let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
            len += bytes;
            header.add(&name, dtype, shape, bytes)
        };
        let packing = match format {
            CodeFormat::IntQuantized => None,
            CodeFormat::PackQuantized => Some(Packing::compressed_tensors(scheme.bits)?),
        };
        let (codes, shape, dtype) = match packing {
            None => (add("", Dtype::I8, &tensor.shape), None, Dtype::I8),
            Some(packing) => {
                let words = packing.row_bytes(width) / 4;
                let codes = add("_packed", Dtype::I32, &[out, words]);
                let shape = add("_shape", Dtype::I64, &[2]);
                (codes, Some(shape), Dtype::I32)
            }
        };
        let scale = add("_scale", float_dtype(float), &groups);
        let zero_point = match (scheme.symmetry, packing) {
            (Symmetry::Symmetric, _) => None,
            (_, Some(packing)) if groups.len() == 2 => {
                let words = packing.row_bytes(out) / 4;
                Some(add("_zero_point", Dtype::I32, &[words, groups[1]]))
            }
            _ => Some(add("_zero_point", Dtype::I8, &groups)),
        };
        let granularity = settings
            .convention
            .granularity_for(scheme.granularity, tensor.shape.len());
        let kept = Kept {
            dtype,
            granularity,
            len,
        };
        Ok(Self {
            tensor,
            work: Work::Quantize(Quantize {
                float,
                settings,
                granularity,
                codes,
                packing,
                shape,
                scale,
                zero_point,
                kept,
            }),
        })
    }

    /// The bytes to read.
    pub fn size(&self) -> usize {
        self.tensor.data.len()
    }

    /// # Errors
    /// What is wrong with the tensor or the output.
    pub fn run<K: Framework>(&self, shared: Shared<'_>) -> Result<QuantizeRow> {
        let fault = |fault: Fault| Error::from(shared.archive.fault(&self.tensor.name, fault));
        let quantize = match &self.work {
            Work::Copy(slot, reason) => {
                self.tensor.data.pieces(fault, |offset, piece| {
                    shared.output.write(*slot, offset, piece)?;
                    shared.progress.inc(piece.len() as u64);
                    Ok(())
                })?;
                return Ok(QuantizeRow::kept(self.tensor, reason.to_string()));
            }
            Work::Quantize(quantize) => quantize,
        };
        let settings = quantize.settings;
        let metrics = with_float!(quantize.float, F => {
            let chunks = Chunks::of_rows(&self.tensor.shape, quantize.granularity);
            let mut elements = Reader::<F>::new(self.tensor);
            let (params, abs_max) =
                calibrate::<K, F>(&mut elements, &chunks, settings).map_err(fault)?;
            quantize.write_params::<F>(&params, self.tensor, shared)?;
            let mut metrics = Metrics::new(abs_max);
            self.write_codes::<K, F>(&mut elements, &chunks, quantize, &params, &mut metrics, shared)?;
            metrics
        });
        Ok(QuantizeRow::quantized(
            self.tensor,
            quantize.kept,
            settings,
            &metrics,
        ))
    }

    /// Quantizes the tensor some rows at a time, and adds each piece to the metrics.
    fn write_codes<K: Framework, F: FloatElement>(
        &self,
        elements: &mut Reader<'_, F>,
        chunks: &Chunks<'_>,
        quantize: &Quantize<'_>,
        params: &QParams,
        metrics: &mut Metrics,
        shared: Shared<'_>,
    ) -> Result<()> {
        let width = self.tensor.shape[1];
        let fault = |fault: Fault| Error::from(shared.archive.fault(&self.tensor.name, fault));
        for chunk in chunks.iter() {
            let data = elements.read(chunk.elements.clone());
            let data = data.map_err(fault)?;
            let mut written = Ok(());
            let done = chunks.params(&chunk, params).and_then(|params| {
                let shape = chunks.shape(&chunk);
                piece::quantize::<K, F>(data, &shape, &params, metrics, |codes| {
                    let packed;
                    let (bytes, row) = match quantize.packing {
                        None => (code_bytes(codes, IntType::I8), width),
                        Some(packing) => {
                            packed = pack(packing, codes, width)?;
                            ((&packed[..]).into(), packing.row_bytes(width))
                        }
                    };
                    let offset = chunk.rows.start * row;
                    written = shared.output.write(quantize.codes, offset, &bytes);
                    Ok(())
                })
            });
            done.map_err(|error| fault(error.into()))?;
            written?;
            shared.progress.inc(size_of_val(data) as u64);
        }
        Ok(())
    }
}

fn pack(packing: Packing, codes: IntSlice<'_>, row: usize) -> chopi::Result<Vec<u8>> {
    chopi::backend::match_int!(IntSlice, codes, codes => packing.pack(codes, row))
}

impl Quantize<'_> {
    fn write_params<F: FloatElement>(
        &self,
        params: &QParams,
        tensor: &Entry,
        shared: Shared<'_>,
    ) -> Result<()> {
        // Numbers of the element type already.
        let scale: Vec<F> = params.scale().iter().map(|&s| narrow(s)).collect();
        shared.output.write(self.scale, 0, &bytes(&scale))?;
        if let Some(slot) = self.shape {
            let shape: Vec<i64> = tensor.shape.iter().map(|&len| len as i64).collect();
            shared.output.write(slot, 0, &bytes(&shape))?;
        }
        let Some(slot) = self.zero_point else {
            return Ok(());
        };
        let zero_point = params.zero_point();
        match self.packing {
            Some(packing) if self.granularity != Granularity::PerTensor => {
                let packed = pack_columns(packing, zero_point, tensor.shape[0]);
                let packed = packed.map_err(|e| shared.archive.fault(&tensor.name, e))?;
                shared.output.write(slot, 0, &packed)
            }
            _ => {
                let codes = code_bytes(IntSlice::I64(zero_point), IntType::I8);
                shared.output.write(slot, 0, &codes)
            }
        }
    }
}

fn narrow<F: Float>(value: f64) -> F {
    use chopi::backend::Compute;
    F::narrow(F::Compute::from_f64(value))
}
