//! What the page says of one tensor.

use chopi::formats::{Plain, Storage, StoredTensor, with_float};
use chopi::ndarray::NdArray;
use chopi::{
    Granularity, QParams,
    backend::FloatType,
    metrics::{Metrics, compare},
    observer::Histograms,
};

use super::chart::Chart;
use crate::archive::{Data, Entry};
use crate::compare::elements;
use crate::element::FloatElement;
use crate::error::{Fault, Result};
use crate::framework::Framework;
use crate::print::printable;
use crate::report::{scheme_text, scheme_words};

/// A tensor of the float model, and what each quantization has made of it.
#[derive(Debug)]
pub struct Row {
    pub name: String,
    pub shape: String,
    pub dtype: String,
    pub parameters: usize,
    pub bytes: usize,
    pub results: Vec<Figures>,
}

/// What one quantization has made of a tensor.
#[derive(Debug)]
pub struct Figures {
    /// The type of the codes or of the blocks, or that of the elements.
    pub dtype: String,
    /// How it is quantized, if it is.
    pub quantized: Option<How>,
    pub bytes: usize,
    /// The SQNR as `chopi compare` gives it; none of a tensor that is not quantized and of no numbers.
    pub sqnr_db: Option<f64>,
    pub max_abs_error: Option<f64>,
}

/// How a tensor is quantized.
#[derive(Debug)]
pub struct How {
    pub bits: u32,
    /// The scheme for a narrow cell, and with all that belongs to it.
    pub words: String,
    pub scheme: String,
    pub detail: Detail,
}

/// More of a quantized tensor.
#[derive(Debug)]
pub struct Detail {
    pub mse: f64,
    pub cosine: f64,
    /// How many scales there are, the least and the largest; none of blocks, which have their own.
    pub scales: Option<(usize, f64, f64)>,
    pub chart: Chart,
    /// The axis of the channels.
    pub axis: usize,
    /// The channels with the smallest SQNR, the worst first.
    pub worst: Vec<Channel>,
}

/// One index along the axis of the channels.
#[derive(Debug)]
pub struct Channel {
    pub index: usize,
    pub sqnr_db: f64,
    pub mse: f64,
    pub max_abs_error: f64,
}

/// How many channels are shown.
const WORST: usize = 8;

impl Row {
    pub fn of(tensor: &StoredTensor) -> Self {
        Self {
            name: printable(tensor.name()).into_owned(),
            shape: format!("{:?}", tensor.shape()),
            dtype: tensor.dtype().to_string(),
            parameters: tensor.shape().iter().product(),
            bytes: tensor.bytes(),
            results: Vec::new(),
        }
    }

    /// Whether any of the quantizations has quantized it.
    pub fn is_quantized(&self) -> bool {
        self.results
            .iter()
            .any(|figures| figures.quantized.is_some())
    }

    /// How much the second quantization's SQNR is above the first one's, where both have a finite one.
    pub fn gain(&self) -> Option<f64> {
        match self.results.as_slice() {
            [a, b] => Some(b.sqnr_db? - a.sqnr_db?).filter(|gain| gain.is_finite()),
            _ => None,
        }
    }
}

impl Figures {
    /// The figures of a tensor and what is kept of it, which must have the same dtype and shape.
    ///
    /// # Errors
    /// Bad parameters or codes; NaN and infinities where the tensor is quantized.
    pub fn of(tensor: &StoredTensor, kept: &StoredTensor) -> Result<Self> {
        let fault = |fault: Fault| tensor.fault(fault);
        let original = tensor.values()?;
        let (dtype, bits, words, scheme) = match kept.storage() {
            Storage::Quantized {
                scheme,
                granularity,
                ..
            } => {
                let codes = kept.parts().first().map(|codes| codes.dtype.to_string());
                (
                    codes.unwrap_or_default(),
                    scheme.bits,
                    scheme_words(scheme, granularity),
                    scheme_text(scheme, granularity),
                )
            }
            Storage::Blocks(block_type) => {
                let words = format!(
                    "{} bits, blocks of {}",
                    block_type.bits(),
                    block_type.elements()
                );
                (
                    block_type.to_string(),
                    block_type.bits(),
                    words.clone(),
                    words,
                )
            }
            _ => {
                let found = elements::compare(&original, &kept.values()?).map_err(fault)?;
                return Ok(Self {
                    dtype: kept.dtype().to_string(),
                    quantized: None,
                    bytes: kept.bytes(),
                    sqnr_db: found.as_ref().and_then(|found| found.sqnr_db),
                    max_abs_error: found.and_then(|found| Some(found.largest?.to_f64())),
                });
            }
        };
        let params = kept.params()?;
        let values = kept.read()?.dequantize().map_err(fault)?;
        let detail = detail(&original, &values, params.as_ref()).map_err(fault)?;
        let back = Entry {
            data: Data::from(values.into_bytes()),
            ..original.clone()
        };
        let found = elements::compare(&original, &back).map_err(fault)?;
        Ok(Self {
            dtype,
            quantized: Some(How {
                bits,
                words,
                scheme,
                detail,
            }),
            bytes: kept.bytes(),
            sqnr_db: found.as_ref().and_then(|found| found.sqnr_db),
            max_abs_error: found.and_then(|found| Some(found.largest?.to_f64())),
        })
    }

    /// The class of the page's colours: that of the bits, or of what was copied.
    pub fn class(&self) -> String {
        class(self.quantized.as_ref().map(|how| how.bits))
    }
}

/// The class of the page's colours for tensors of so many bits, or for those that were copied.
pub fn class(bits: Option<u32>) -> String {
    match bits {
        None => "copied".to_owned(),
        Some(bits @ 2..=8) => format!("bits-{bits}"),
        Some(_) => "bits-more".to_owned(),
    }
}

/// What the detail of a tensor says, from its elements and their values after quantizing.
fn detail(
    original: &Entry,
    values: &Plain,
    params: Option<&QParams>,
) -> std::result::Result<Detail, Fault> {
    // Blocks have values of f32.
    with_float!(params.map_or(FloatType::F32, QParams::float_type), F => {
        let data = original.elements::<F>()?;
        let values = values.elements::<F>().unwrap_or_default();
        Detail::of(&data, &values, &original.shape, params)
    })
}

impl Detail {
    fn of<F: FloatElement>(
        data: &[F],
        values: &[F],
        shape: &[usize],
        params: Option<&QParams>,
    ) -> std::result::Result<Self, Fault> {
        let (x, y) = (
            NdArray::floats(data, shape)?,
            NdArray::floats(values, shape)?,
        );
        let whole = compare(&x, &y, Granularity::PerTensor)?;
        let axis = match params.map(|params| params.scheme().granularity) {
            Some(Granularity::PerChannel { axis }) if axis < 0 => {
                shape.len().wrapping_add_signed(axis)
            }
            Some(Granularity::PerChannel { axis }) => axis.unsigned_abs(),
            Some(Granularity::PerTensor | Granularity::PerGroup { .. }) | None => 0,
        };
        let worst = match shape.len() {
            // Each element would be a channel.
            0 | 1 => Vec::new(),
            _ => {
                let axis = axis as isize;
                worst(&compare(&x, &y, Granularity::PerChannel { axis })?)
            }
        };
        let histogram = Histograms::observe(&x, Granularity::PerTensor)?;
        Ok(Self {
            mse: whole.iter().map(Metrics::mse).sum(),
            cosine: whole.iter().map(Metrics::cosine).sum(),
            scales: params.map(|params| {
                let scales = params.scale().iter().copied();
                (
                    params.scale().len(),
                    scales.clone().fold(f64::INFINITY, f64::min),
                    scales.fold(0.0, f64::max),
                )
            }),
            chart: Chart::new(&histogram.groups()[0], params),
            axis,
            worst,
        })
    }
}

/// The channels with the smallest SQNR; of equals the first ones.
fn worst(channels: &[Metrics]) -> Vec<Channel> {
    let mut order: Vec<(usize, f64)> = channels.iter().map(Metrics::sqnr_db).enumerate().collect();
    order.sort_by(|(_, a), (_, b)| a.total_cmp(b));
    order.truncate(WORST);
    let channel = |(index, sqnr_db)| Channel {
        index,
        sqnr_db,
        mse: channels[index].mse(),
        max_abs_error: channels[index].max_abs_error(),
    };
    order.into_iter().map(channel).collect()
}
