//! One tensor: where its results go, and the work.

use chopi::{
    Granularity, QParams,
    backend::{FloatType, IntSlice, IntType},
    convention::ZeroPoints,
    metrics::Metrics,
};
use indicatif::ProgressBar;
use safetensors::Dtype;

use super::calibrate::{calibrate, zero_point_type};
use super::piece;
use super::row::{Kept, QuantizeRow};
use crate::archive::{Archive, Entry, Reader};
use crate::args::Settings;
use crate::chunks::Chunks;
use crate::element::{bytes, code_bytes};
use crate::error::{Error, Fault, Result};
use crate::framework::Framework;
use crate::header::{Header, Slot};
use crate::output::Output;
use crate::record::{int_dtype, scale_dtype, scale_name, zero_point_name};
use chopi::formats::with_float;

/// What is to be done with one tensor, and where the result goes.
#[derive(Debug)]
pub struct Task<'a> {
    tensor: &'a Entry,
    slot: Slot,
    quantize: Option<Quantize<'a>>,
}

/// What the tasks of a file share.
#[derive(Clone, Copy, Debug)]
pub struct Shared<'a> {
    pub archive: &'a Archive,
    pub output: &'a Output,
    pub progress: &'a ProgressBar,
}

/// How a tensor is quantized that is not just copied.
#[derive(Debug)]
pub struct Quantize<'a> {
    float: FloatType,
    settings: &'a Settings,
    /// The type of the codes.
    pub int: IntType,
    /// The granularity on this tensor.
    pub granularity: Granularity,
    scale: Slot,
    zero_point: Option<(Slot, Dtype)>,
    /// The bytes of the codes and the parameters.
    pub len: usize,
}

impl<'a> Task<'a> {
    pub fn copy(tensor: &'a Entry, header: &mut Header) -> Self {
        let len = tensor.data.len();
        Self {
            tensor,
            slot: header.add(&tensor.name, tensor.dtype, &tensor.shape, len),
            quantize: None,
        }
    }

    /// # Errors
    /// Where the granularity does not fit the tensor, or the name of a tensor of parameters is
    /// taken.
    pub fn quantize<K: Framework>(
        archive: &Archive,
        tensor: &'a Entry,
        (float, settings): (FloatType, &'a Settings),
        header: &mut Header,
    ) -> std::result::Result<Self, Fault> {
        let scheme = &settings.scheme;
        let rank = tensor.shape.len();
        let granularity = settings
            .convention
            .granularity_for(scheme.granularity, rank);
        let shape = granularity.params_shape(&tensor.shape)?;
        let groups: usize = shape.iter().product();
        let count: usize = tensor.shape.iter().product();

        let int = IntType::smallest((scheme.qmin, scheme.qmax));
        let mut len = count * int.size();
        let slot = header.add(&tensor.name, int_dtype(int), &tensor.shape, len);
        let mut companion = |name: String, dtype: Dtype| {
            if archive.tensors.contains_key(&name) {
                return Err(Fault::NameTaken { name });
            }
            let bytes = groups * dtype.bitsize() / 8;
            len += bytes;
            Ok(header.add(&name, dtype, &shape, bytes))
        };
        let scale = companion(scale_name(&tensor.name), scale_dtype(float))?;
        let mut zero_point = |dtype| {
            let slot = companion(zero_point_name(&tensor.name), dtype)?;
            Ok::<_, Fault>(Some((slot, dtype)))
        };
        let zero_point = match settings.convention.zero_points(scheme) {
            ZeroPoints::None => None,
            ZeroPoints::Integers => {
                let chunks = Chunks::new(&tensor.shape, granularity);
                let int = zero_point_type::<K>(tensor, float, &chunks, settings)?;
                zero_point(int_dtype(int))?
            }
            ZeroPoints::Real => zero_point(scale_dtype(float))?,
        };
        Ok(Self {
            tensor,
            slot,
            quantize: Some(Quantize {
                float,
                settings,
                int,
                granularity,
                scale,
                zero_point,
                len,
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
        let Some(quantize) = &self.quantize else {
            self.tensor.data.pieces(fault, |offset, piece| {
                shared.output.write(self.slot, offset, piece)?;
                shared.progress.inc(piece.len() as u64);
                Ok(())
            })?;
            return Ok(QuantizeRow::copied(self.tensor));
        };
        let settings = quantize.settings;
        let chunks = Chunks::new(&self.tensor.shape, quantize.granularity);
        let metrics = with_float!(quantize.float, F => {
            let mut elements = Reader::<F>::new(self.tensor);
            let (params, abs_max) =
                calibrate::<K, F>(&mut elements, &chunks, settings).map_err(fault)?;
            quantize.write_params(&params, shared.output)?;
            let mut metrics = Metrics::new(abs_max);
            for chunk in chunks.iter() {
                let data = elements.read(chunk.elements.clone());
                let data = data.map_err(fault)?;
                let mut written = Ok(());
                let done = chunks.params(&chunk, &params).and_then(|params| {
                    let shape = chunks.shape(&chunk);
                    piece::quantize::<K, F>(data, &shape, &params, &mut metrics, |codes| {
                        let bytes = code_bytes(codes, quantize.int);
                        let offset = chunk.elements.start * quantize.int.size();
                        written = shared.output.write(self.slot, offset, &bytes);
                        Ok(())
                    })
                });
                done.map_err(|error| fault(error.into()))?;
                written?;
                shared.progress.inc(size_of_val(data) as u64);
            }
            metrics
        });
        Ok(QuantizeRow::quantized(
            self.tensor,
            Kept {
                dtype: int_dtype(quantize.int),
                granularity: quantize.granularity,
                len: quantize.len,
            },
            settings,
            &metrics,
        ))
    }
}

impl Quantize<'_> {
    fn write_params(&self, params: &QParams, output: &Output) -> Result<()> {
        let floats = |slot, numbers: &[f64]| {
            if self.float.compute() == FloatType::F64 {
                return output.write(slot, 0, &bytes(numbers));
            }
            let numbers: Vec<f32> = numbers.iter().map(|&number| number as f32).collect();
            output.write(slot, 0, &bytes(&numbers))
        };
        floats(self.scale, params.scale())?;
        match (self.zero_point, params.real_zero_point()) {
            (Some((slot, _)), Some(reals)) => floats(slot, reals)?,
            (Some((slot, dtype)), None) => {
                let int = if dtype == Dtype::I64 {
                    IntType::I64
                } else {
                    IntType::I32
                };
                let zero_point = IntSlice::I64(params.zero_point());
                output.write(slot, 0, &code_bytes(zero_point, int))?;
            }
            (None, _) => {}
        }
        Ok(())
    }
}
