//! One tensor: where its results go, and the work.

use chopi::backend::{FloatType, IntType};
use chopi::formats::chopi::Spec;
use chopi::formats::{CodeParts, Keep, Parts, TensorPlan, with_float};
use chopi::metrics::Metrics;
use chopi::{Granularity, convention::ZeroPoints};
use indicatif::ProgressBar;

use super::calibrate::{calibrate, zero_point_type};
use super::piece;
use super::row::{Kept, QuantizeRow};
use crate::archive::{Archive, Entry, Reader};
use crate::args::Settings;
use crate::chunks::Chunks;
use crate::error::{Error, Fault, Result};
use crate::framework::Framework;
use crate::write::Output;

/// What is to be done with one tensor, and where the result goes.
#[derive(Debug)]
pub struct Task<'a> {
    tensor: &'a Entry,
    parts: Parts,
    /// How it is quantized, if it is.
    how: Option<(FloatType, &'a Settings)>,
    /// Why it is not, where there is more to say than that it is no float.
    reason: Option<String>,
}

/// What the tasks of a file share.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    pub archive: &'a Archive,
    pub output: &'a Output,
    pub progress: &'a ProgressBar,
}

/// How a tensor of the file is to be kept.
///
/// # Errors
/// Numbers that the convention cannot represent; a file that cannot be read.
pub fn plan<K: Framework>(
    tensor: &Entry,
    how: Option<(FloatType, &Settings)>,
) -> std::result::Result<TensorPlan, Fault> {
    let keep = match how {
        None => Keep::Plain(tensor.dtype),
        Some((float, settings)) => {
            let spec = Spec::new(settings.scheme.clone(), settings.convention, float);
            let zero_point = match settings.convention.zero_points(&settings.scheme) {
                ZeroPoints::Integers => {
                    // The granularity must fit the tensor.
                    let granularity = granularity(tensor, settings);
                    granularity.params_shape(&tensor.shape)?;
                    let chunks = Chunks::new(&tensor.shape, granularity);
                    zero_point_type::<K>(tensor, float, &chunks, settings)?
                }
                ZeroPoints::None | ZeroPoints::Real => IntType::I32,
            };
            Keep::Codes { spec, zero_point }
        }
    };
    Ok(TensorPlan {
        name: tensor.name.clone(),
        shape: tensor.shape.clone(),
        keep,
    })
}

/// The granularity on a tensor.
fn granularity(tensor: &Entry, settings: &Settings) -> Granularity {
    settings
        .convention
        .granularity_for(settings.scheme.granularity, tensor.shape.len())
}

impl<'a> Task<'a> {
    /// A tensor that is copied, or quantized to codes.
    pub fn new(tensor: &'a Entry, how: Option<(FloatType, &'a Settings)>, parts: Parts) -> Self {
        Self {
            tensor,
            parts,
            how,
            reason: None,
        }
    }

    /// A tensor that is copied for a reason.
    pub fn kept(tensor: &'a Entry, reason: String, parts: Parts) -> Self {
        Self {
            reason: Some(reason),
            ..Self::new(tensor, None, parts)
        }
    }

    pub fn name(&self) -> &'a str {
        &self.tensor.name
    }

    pub fn is_quantized(&self) -> bool {
        self.how.is_some()
    }

    /// The bytes to read.
    pub fn size(&self) -> usize {
        self.tensor.data.len()
    }

    /// # Errors
    /// What is wrong with the tensor or the output.
    pub fn run<K: Framework>(&self, shared: Shared<'_>) -> Result<QuantizeRow> {
        match (&self.parts, self.how) {
            (Parts::Codes(parts), Some((float, settings))) => {
                self.quantize::<K>(parts, float, settings, shared)
            }
            (Parts::Plain(slot) | Parts::Blocks(slot, _), _) => {
                let fault = |fault| self.fault(fault, shared);
                self.tensor.data.pieces(fault, |offset, piece| {
                    shared.output.write(*slot, offset, piece)?;
                    shared.progress.inc(piece.len() as u64);
                    Ok(())
                })?;
                Ok(match &self.reason {
                    Some(reason) => QuantizeRow::kept(self.tensor, reason.clone()),
                    None => QuantizeRow::copied(self.tensor),
                })
            }
            (Parts::Codes(_), None) => Ok(QuantizeRow::copied(self.tensor)),
        }
    }

    /// Quantizes the tensor piece by piece.
    fn quantize<K: Framework>(
        &self,
        parts: &CodeParts,
        float: FloatType,
        settings: &Settings,
        shared: Shared<'_>,
    ) -> Result<QuantizeRow> {
        let fault = |fault| self.fault(fault, shared);
        let granularity = granularity(self.tensor, settings);
        let chunks = match parts.is_packed() {
            true => Chunks::of_rows(&self.tensor.shape, granularity),
            false => Chunks::new(&self.tensor.shape, granularity),
        };
        let metrics = with_float!(float, F => {
            let mut elements = Reader::<F>::new(self.tensor);
            let (params, abs_max) =
                calibrate::<K, F>(&mut elements, &chunks, settings).map_err(fault)?;
            parts.write_params(&params, shared.output, |e| self.read_fault(e, shared))?;
            let mut metrics = Metrics::new(abs_max);
            for chunk in chunks.iter() {
                let data = elements.read(chunk.elements.clone()).map_err(fault)?;
                let mut written = Ok(());
                let done = chunks.params(&chunk, &params).and_then(|params| {
                    let shape = chunks.shape(&chunk);
                    piece::quantize::<K, F>(data, &shape, &params, &mut metrics, |codes| {
                        let start = chunk.elements.start;
                        let fault = |e| self.read_fault(e, shared);
                        written = parts.write_codes(start, codes, shared.output, fault);
                        Ok(())
                    })
                });
                done.map_err(|error| fault(error.into()))?;
                written?;
                shared.progress.inc(size_of_val(data) as u64);
            }
            metrics
        });
        let kept = Kept {
            dtype: parts.dtype(),
            granularity,
            len: parts.bytes(),
        };
        Ok(QuantizeRow::quantized(
            self.tensor,
            kept,
            settings,
            &metrics,
        ))
    }

    fn fault(&self, fault: Fault, shared: Shared<'_>) -> Error {
        self.read_fault(fault, shared).into()
    }

    fn read_fault(&self, fault: Fault, shared: Shared<'_>) -> chopi::formats::Error {
        shared.archive.fault(&self.tensor.name, fault)
    }
}
