//! One tensor: where its results go, and the work.

use std::path::Path;

use chopi::backend::{FloatType, IntType, collected, repeated};
use chopi::formats::chopi::Spec;
use chopi::formats::dtype::float_type;
use chopi::formats::gguf::BlockType;
use chopi::formats::{CodeParts, Keep, Parts, Tensor, TensorPlan, with_float};
use chopi::metrics::Metrics;
use chopi::{Granularity, convention::ZeroPoints};
use indicatif::ProgressBar;

use super::blocks;
use super::calibrate::{calibrate, zero_point_type};
use super::made::Made;
use super::piece;
use super::row::{Kept, QuantizeRow};
use crate::archive::{Entry, Reader};
use crate::args::Settings;
use crate::choice::Choice;
use crate::chunks::Chunks;
use crate::element::FloatElement;
use crate::error::{Error, Fault, Result};
use crate::framework::Framework;
use crate::write::Output;

/// What is to be done with one tensor, and where the result goes.
#[derive(Debug)]
pub struct Task<'a> {
    /// The file that holds the tensor.
    path: &'a Path,
    tensor: &'a Entry,
    how: How<'a>,
    parts: Parts,
}

/// How a tensor is kept.
#[derive(Clone, Debug)]
pub enum How<'a> {
    /// It is copied, and for this reason where there is more to say than that it is not asked for.
    Copy(Option<String>),
    /// It is quantized to codes.
    Codes(FloatType, &'a Settings),
    /// It is quantized to blocks of GGUF.
    Blocks(FloatType, BlockType),
    /// It becomes what a method has made of it: codes, by these settings, or other floats.
    Made(&'a Tensor, Option<&'a Settings>),
}

/// What the tasks of a file share.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    pub made: &'a Made,
    pub output: &'a Output,
    pub progress: &'a ProgressBar,
}

impl<'a> How<'a> {
    /// How a tensor is kept, in a GGUF file where there is a type of blocks.
    pub fn of(tensor: &Entry, choice: &'a Choice, made: &'a Made, gguf: Option<BlockType>) -> Self {
        if let Some(made) = made.get(&tensor.name) {
            return Self::Made(made, choice.settings_of(&tensor.name));
        }
        match (choice.of(tensor), gguf) {
            (None, _) => Self::Copy(None),
            (Some((float, settings)), None) => Self::Codes(float, settings),
            (Some((float, _)), Some(block_type)) => {
                let (block, row) = (block_type.elements(), tensor.shape.last().copied());
                let fits = row.is_some_and(|row| row.is_multiple_of(block));
                match fits || choice.is_explicit() {
                    true => Self::Blocks(float, block_type),
                    false => Self::Copy(Some(format!("rows of no whole blocks of {block}"))),
                }
            }
        }
    }

    pub fn is_codes(&self) -> bool {
        match self {
            Self::Codes(..) => true,
            Self::Made(tensor, _) => matches!(tensor, Tensor::Quantized(_)),
            Self::Copy(_) | Self::Blocks(..) => false,
        }
    }
}

/// How a tensor is to lie in the file.
///
/// # Errors
/// Numbers that the convention cannot represent; a file that cannot be read.
pub fn plan<K: Framework>(tensor: &Entry, how: &How<'_>) -> std::result::Result<TensorPlan, Fault> {
    let keep = match how {
        How::Made(made, _) => return Ok(TensorPlan::of(&tensor.name, made)),
        How::Copy(_) => Keep::Plain(tensor.dtype),
        How::Blocks(_, block_type) => Keep::Blocks(*block_type),
        How::Codes(float, settings) => {
            let spec = Spec::new(settings.scheme.clone(), settings.convention, *float);
            let zero_point = match settings.convention.zero_points(&settings.scheme) {
                ZeroPoints::Integers => {
                    // The granularity must fit the tensor.
                    let granularity = granularity(tensor, settings);
                    granularity.params_shape(&tensor.shape)?;
                    let chunks = Chunks::new(&tensor.shape, granularity);
                    zero_point_type::<K>(tensor, *float, &chunks, settings)?
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
    /// A tensor of the file at `path`.
    pub fn new(path: &'a Path, tensor: &'a Entry, how: How<'a>, parts: Parts) -> Self {
        Self {
            path,
            tensor,
            how,
            parts,
        }
    }

    pub fn name(&self) -> &'a str {
        &self.tensor.name
    }

    pub fn is_quantized(&self) -> bool {
        !matches!(self.how, How::Copy(_))
    }

    /// The bytes to read.
    pub fn size(&self) -> usize {
        self.tensor.data.len()
    }

    /// # Errors
    /// What is wrong with the tensor or the output.
    pub fn run<K: Framework>(&self, shared: Shared<'_>) -> Result<QuantizeRow> {
        match (&self.how, &self.parts) {
            (How::Made(made, settings), parts) => self.write(made, *settings, parts, shared),
            (How::Codes(float, settings), Parts::Codes(parts)) => {
                self.quantize::<K>(parts, *float, settings, shared)
            }
            (How::Blocks(float, block_type), Parts::Blocks(slot, _)) => {
                let row = with_float!(*float, F => {
                    blocks::quantize::<F>(self.tensor, *block_type, |offset, bytes| {
                        shared.output.write(*slot, offset, bytes)?;
                        let elements = bytes.len() / block_type.bytes() * block_type.elements();
                        shared.progress.inc((elements * size_of::<F>()) as u64);
                        Ok(())
                    }, |fault| self.fault(fault))?
                });
                Ok(row)
            }
            (how, Parts::Plain(slot) | Parts::Blocks(slot, _)) => {
                self.tensor.data.pieces(
                    |fault| self.fault(fault),
                    |offset, piece| {
                        shared.output.write(*slot, offset, piece)?;
                        shared.progress.inc(piece.len() as u64);
                        Ok(())
                    },
                )?;
                Ok(match how {
                    How::Copy(Some(reason)) => QuantizeRow::kept(self.tensor, reason.clone()),
                    _ => QuantizeRow::copied(self.tensor),
                })
            }
            (_, Parts::Codes(_)) => Ok(QuantizeRow::copied(self.tensor)),
        }
    }

    /// Writes what a method has made of the tensor.
    fn write(
        &self,
        made: &Tensor,
        settings: Option<&Settings>,
        parts: &Parts,
        shared: Shared<'_>,
    ) -> Result<QuantizeRow> {
        parts.write(made, shared.output, &|fault| self.format_fault(fault))?;
        shared.progress.inc(self.size() as u64);
        let (Some(settings), Parts::Codes(codes)) = (settings, parts) else {
            return Ok(QuantizeRow::kept(
                self.tensor,
                "changed by the method".to_owned(),
            ));
        };
        let kept = self.kept(codes, settings);
        let metrics = match shared.made.scaled {
            true => None,
            false => Some(self.metrics(made).map_err(|fault| self.fault(fault))?),
        };
        let row = QuantizeRow::quantized(self.tensor, kept, settings, metrics.as_ref());
        Ok(row.with_output_error(shared.made.errors.get(self.name()).copied()))
    }

    /// How far what a method has made of the tensor is from it.
    fn metrics(&self, made: &Tensor) -> std::result::Result<Metrics, Fault> {
        let values = made.clone().dequantize()?;
        let values = values.elements::<f32>().unwrap_or_default();
        let mut x = repeated(0.0, values.len())?;
        if let Some(float) = float_type(self.tensor.dtype) {
            with_float!(float, F => {
                let mut elements = Reader::<F>::new(self.tensor);
                F::widen_to_f64(elements.read(0..values.len())?, &mut x);
            });
        }
        let pairs = x.iter().zip(&*values);
        let errors = collected(pairs.map(|(x, &value)| x - f64::from(value)))?;
        let mut metrics = Metrics::new(x.iter().fold(0.0, |max, x| x.abs().max(max)));
        metrics.add_errors(&x, &errors);
        Ok(metrics)
    }

    /// Quantizes the tensor whole to codes chosen on the statistics of its layer's inputs; none where there are no
    /// statistics.
    fn choose<K: Framework>(
        &self,
        parts: &CodeParts,
        float: FloatType,
        settings: &Settings,
        shared: Shared<'_>,
    ) -> Result<Option<QuantizeRow>> {
        let chooser = shared.made.chooser.as_ref();
        let Some(chooser) = chooser.filter(|chooser| chooser.has(self.name())) else {
            return Ok(None);
        };
        let fault = |fault| self.fault(fault);
        let (error, metrics) = with_float!(float, F => {
            let data = self.tensor.elements::<F>().map_err(fault)?;
            let x = K::floats(&data, &self.tensor.shape).map_err(|error| fault(error.into()))?;
            let chosen = chooser.quantize::<K, _>(self.path, self.name(), &x, settings)?;
            let Some(chosen) = chosen else { return Ok(None) };
            parts.write_params(&chosen.params, shared.output, |e| self.format_fault(e))?;
            let mut values = repeated(0.0, data.len()).map_err(|error| fault(error.into()))?;
            F::widen_to_f64(&data, &mut values);
            let mut metrics = Metrics::new(values.iter().fold(0.0, |max, x| x.abs().max(max)));
            let mut written = Ok(());
            let done = piece::keep::<K, F, _>(&data, &chosen.codes, &chosen.params, &mut metrics, |codes| {
                written = parts.write_codes(0, codes, shared.output, |e| self.format_fault(e));
                Ok(())
            });
            done.map_err(|error| fault(error.into()))?;
            written?;
            (chosen.error, metrics)
        });
        shared.progress.inc(self.size() as u64);
        let row = QuantizeRow::quantized(
            self.tensor,
            self.kept(parts, settings),
            settings,
            Some(&metrics),
        );
        Ok(Some(row.with_output_error(Some(error))))
    }

    /// How codes are kept.
    fn kept(&self, parts: &CodeParts, settings: &Settings) -> Kept {
        Kept {
            dtype: parts.dtype(),
            granularity: granularity(self.tensor, settings),
            len: parts.bytes(),
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
        if let Some(row) = self.choose::<K>(parts, float, settings, shared)? {
            return Ok(row);
        }
        let fault = |fault| self.fault(fault);
        let granularity = granularity(self.tensor, settings);
        let chunks = Chunks::of(&self.tensor.shape, granularity, parts.is_packed());
        let metrics = with_float!(float, F => {
            let mut elements = Reader::<F>::new(self.tensor);
            let (params, abs_max) =
                calibrate::<K, F>(&mut elements, &chunks, settings).map_err(fault)?;
            parts.write_params(&params, shared.output, |e| self.format_fault(e))?;
            let mut metrics = Metrics::new(abs_max);
            for chunk in chunks.iter() {
                let data = elements.read(chunk.elements.clone()).map_err(fault)?;
                let mut written = Ok(());
                let done = chunks.params(&chunk, &params).and_then(|params| {
                    let shape = chunks.shape(&chunk);
                    piece::quantize::<K, F>(data, &shape, &params, &mut metrics, |codes| {
                        let start = chunk.elements.start;
                        let fault = |e| self.format_fault(e);
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
        let kept = self.kept(parts, settings);
        Ok(QuantizeRow::quantized(
            self.tensor,
            kept,
            settings,
            Some(&metrics),
        ))
    }

    fn fault(&self, fault: Fault) -> Error {
        self.format_fault(fault).into()
    }

    fn format_fault(&self, fault: Fault) -> chopi::formats::Error {
        chopi::formats::Error::Tensor {
            path: self.path.to_owned(),
            tensor: self.tensor.name.clone(),
            fault: Box::new(fault),
        }
    }
}
