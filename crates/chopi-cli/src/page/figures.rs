//! What the page says of one tensor.

use chopi::ndarray::NdArray;
use chopi::{
    Granularity, QParams,
    metrics::{Metrics, compare},
    observer::Histograms,
};

use super::chart::Chart;
use super::quantized::Kept;
use crate::archive::{Data, Tensor};
use crate::compare::elements::{self, Differences};
use crate::element::{FloatElement, bytes, with_float};
use crate::error::Fault;
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
    pub fn of(tensor: &Tensor<'_>, kept: &Kept<'_>) -> Result<Self, Fault> {
        let figures = Self {
            name: printable(&tensor.name).into_owned(),
            shape: format!("{:?}", tensor.shape),
            dtype: tensor.dtype.to_string(),
            scheme: None,
            parameters: tensor.shape.iter().product(),
            bytes_in: tensor.data.len(),
            bytes_out: kept.len(),
            sqnr_db: None,
            max_abs_error: None,
            detail: None,
        };
        match (kept.params()?, kept.scheme()) {
            (Some((params, float)), Some((scheme, codes))) => {
                with_float!(float, F => {
                    let values = kept.dequantized::<F>(&params)?;
                    let bytes = bytes(&values);
                    let back = Tensor { data: Data::Held(&bytes), ..tensor.clone() };
                    let rank = tensor.shape.len();
                    let granularity =
                        params.convention().granularity_for(scheme.granularity, rank);
                    let data = tensor.elements::<F>()?;
                    Ok(Self {
                        dtype: format!("{} → {codes}", figures.dtype),
                        scheme: Some(scheme_cell(scheme, granularity)),
                        detail: Some(Detail::of(&data, &values, &tensor.shape, &params)?),
                        ..figures.compared(elements::compare(tensor, &back)?)
                    })
                })
            }
            _ => {
                let same = kept.plain().map(|plain| elements::compare(tensor, plain));
                Ok(figures.compared(same.transpose()?.flatten()))
            }
        }
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
    ) -> Result<Self, Fault> {
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
