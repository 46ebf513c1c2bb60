//! What the page says of one tensor.

use chopi::formats::{Storage, StoredTensor, Tensor, with_float};
use chopi::ndarray::NdArray;
use chopi::{
    Granularity, QParams,
    metrics::{Metrics, compare},
    observer::Histograms,
};

use super::chart::Chart;
use crate::archive::{Data, Entry};
use crate::compare::elements::{self, Differences};
use crate::element::FloatElement;
use crate::error::{Fault, Result};
use crate::framework::Framework;
use crate::print::printable;
use crate::report::scheme_cell;

/// The numbers of a tensor, as they are shown.
#[derive(Debug)]
pub struct TensorFigures {
    pub name: String,
    pub shape: String,
    /// The dtype, and that of the codes.
    pub dtype: String,
    /// How it is quantized, if it is.
    pub scheme: Option<String>,
    pub parameters: usize,
    pub bytes_in: usize,
    pub bytes_out: usize,
    /// The SQNR as `chopi compare` gives it; none of a tensor that is not quantized and of no numbers.
    pub sqnr_db: Option<f64>,
    pub max_abs_error: Option<f64>,
    pub detail: Option<Detail>,
}

/// More of a quantized tensor.
#[derive(Debug)]
pub struct Detail {
    pub mse: f64,
    pub cosine: f64,
    /// The least and the largest scale.
    pub scales: (f64, f64),
    pub groups: usize,
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

impl TensorFigures {
    /// The figures of a tensor and what is kept of it, which must have the same dtype and shape.
    ///
    /// # Errors
    /// Bad parameters or codes; NaN and infinities where the tensor is quantized.
    pub fn of(tensor: &StoredTensor, kept: &StoredTensor) -> Result<Self> {
        let figures = Self {
            name: printable(tensor.name()).into_owned(),
            shape: format!("{:?}", tensor.shape()),
            dtype: tensor.dtype().to_string(),
            scheme: None,
            parameters: tensor.shape().iter().product(),
            bytes_in: tensor.bytes(),
            bytes_out: kept.bytes(),
            sqnr_db: None,
            max_abs_error: None,
            detail: None,
        };
        let fault = |fault: Fault| tensor.fault(fault);
        let (original, parts) = (tensor.parts(), kept.parts());
        let ([original], [codes, ..]) = (&*original, &*parts) else {
            return Ok(figures);
        };
        let Tensor::Quantized(quantized) = kept.read()? else {
            let found = elements::compare(original, codes).map_err(fault)?;
            return Ok(figures.compared(found));
        };
        let params = quantized.params();
        let values = quantized.dequantize().map_err(|e| fault(e.into()))?;
        let Storage::Quantized {
            scheme,
            granularity,
            ..
        } = kept.storage()
        else {
            return Ok(figures);
        };
        let detail = with_float!(params.float_type(), F => {
            let data = original.elements::<F>().map_err(fault)?;
            let values = values.elements::<F>().unwrap_or_default();
            Detail::of(&data, &values, tensor.shape(), params).map_err(fault)?
        });
        let back = Entry {
            data: Data::from(values.into_bytes()),
            ..(*original).clone()
        };
        Ok(Self {
            dtype: format!("{} → {}", figures.dtype, codes.dtype),
            scheme: Some(scheme_cell(scheme, granularity)),
            detail: Some(detail),
            ..figures.compared(elements::compare(original, &back).map_err(fault)?)
        })
    }

    fn compared(self, differences: Option<Differences>) -> Self {
        Self {
            sqnr_db: differences.as_ref().and_then(|found| found.sqnr_db),
            max_abs_error: differences.and_then(|found| Some(found.largest?.to_f64())),
            ..self
        }
    }

    pub fn is_quantized(&self) -> bool {
        self.detail.is_some()
    }
}

impl Detail {
    fn of<F: FloatElement>(
        data: &[F],
        values: &[F],
        shape: &[usize],
        params: &QParams,
    ) -> std::result::Result<Self, Fault> {
        let (x, y) = (
            NdArray::floats(data, shape)?,
            NdArray::floats(values, shape)?,
        );
        let whole = compare(&x, &y, Granularity::PerTensor)?;
        let axis = match params.scheme().granularity {
            Granularity::PerChannel { axis } if axis < 0 => shape.len().wrapping_add_signed(axis),
            Granularity::PerChannel { axis } => axis.unsigned_abs(),
            Granularity::PerTensor | Granularity::PerGroup { .. } => 0,
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
        let scales = params.scale().iter();
        Ok(Self {
            mse: whole.iter().map(Metrics::mse).sum(),
            cosine: whole.iter().map(Metrics::cosine).sum(),
            scales: (
                scales.clone().copied().fold(f64::INFINITY, f64::min),
                scales.copied().fold(0.0, f64::max),
            ),
            groups: params.scale().len(),
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
