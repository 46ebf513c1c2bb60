//! The weights of a model, quantized and dequantized as the model takes them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::{is_linear_weight, named};
use crate::backend::{Backend, FloatTensor};
use crate::builder::Builder;
use crate::error::Result;
use crate::metrics::{Metrics, quantization_metrics};
use crate::observer::Calibration;
use crate::qparams::QParams;

/// Which tensors are taken, by their name and shape.
type Select = dyn Fn(&str, &[usize]) -> bool + Send + Sync;

/// Gives a model weights that are quantized and dequantized: the numbers that it would compute with
/// if it were quantized, in float.
///
/// A handle: clones share what was quantized. The frameworks' crates put one between a model and
/// where its variables come from: `chopi::candle::quantized_var_builder`,
/// `chopi::tch::quantize_variables`.
///
/// ```
/// # use chopi_core as chopi;
/// use chopi::model::WeightQuantizer;
/// use chopi::{Calibration, Chopi};
///
/// let scheme = Chopi::builder().num_bits(4).symmetric(true).per_group(32, -1);
/// let weights = WeightQuantizer::new(scheme, Calibration::MeanSquaredError)?;
/// assert!(weights.selects("layers.0.attention.q_proj.weight", &[64, 64]));
/// assert!(!weights.selects("layers.0.norm.weight", &[64]));
/// assert!(weights.quantized().is_empty()); // until a model takes its weights
/// # Ok::<(), chopi_core::Error>(())
/// ```
#[doc(alias("weight_fake_quant"))]
#[derive(Clone)]
pub struct WeightQuantizer {
    builder: Builder,
    calibration: Calibration,
    bits: BTreeMap<String, u32>,
    select: Arc<Select>,
    done: Arc<Mutex<BTreeMap<String, QuantizedWeight>>>,
}

/// What became of a weight.
#[derive(Clone, Debug)]
pub struct QuantizedWeight {
    /// The parameters that it was quantized with.
    pub params: QParams,
    /// The error, over all of its elements.
    pub metrics: Metrics,
}

impl WeightQuantizer {
    /// Quantizes the weights that [`is_linear_weight`] knows, by this scheme and convention, each to
    /// ranges of its own.
    ///
    /// # Errors
    /// The errors of [`Builder::scheme`]; [`Error::Percentile`](crate::Error::Percentile) for a
    /// percentile out of range.
    pub fn new(builder: Builder, calibration: Calibration) -> Result<Self> {
        builder.scheme()?;
        calibration.check()?;
        Ok(Self {
            builder,
            calibration,
            bits: BTreeMap::new(),
            select: Arc::new(is_linear_weight),
            done: Arc::default(),
        })
    }

    /// Quantizes other tensors: those for whose name and shape this is true.
    #[must_use]
    pub fn select(
        mut self,
        select: impl Fn(&str, &[usize]) -> bool + Send + Sync + 'static,
    ) -> Self {
        self.select = Arc::new(select);
        self
    }

    /// Quantizes these tensors, and no others, each to its own number of bits: an
    /// [`Allocation`](super::Allocation).
    ///
    /// # Errors
    /// The errors of [`Builder::scheme`] for such bits.
    pub fn bits(mut self, bits: BTreeMap<String, u32>) -> Result<Self> {
        for (name, &bits) in &bits {
            named(name, self.builder.clone().num_bits(bits).scheme())?;
        }
        let names: Vec<String> = bits.keys().cloned().collect();
        self.bits = bits;
        Ok(self.select(move |name, _| names.binary_search_by(|n| n.as_str().cmp(name)).is_ok()))
    }

    /// Whether a tensor is quantized.
    pub fn selects(&self, name: &str, shape: &[usize]) -> bool {
        (self.select)(name, shape)
    }

    /// Quantizes and dequantizes a tensor, whether it is selected or not, and notes what became of
    /// it.
    ///
    /// # Errors
    /// [`Error::Tensor`](crate::Error::Tensor) with the errors of
    /// [`Calibration::observe`] and [`QParams::from_ranges`].
    pub fn fake_quantize<B: Backend, T: FloatTensor<B> + ?Sized>(
        &self,
        name: &str,
        weight: &T,
    ) -> Result<T::Owned> {
        let builder = self.builder.clone();
        let builder = match self.bits.get(name) {
            Some(&bits) => builder.num_bits(bits),
            None => builder,
        };
        let (weight, quantized) = named(name, quantize(&builder, self.calibration, weight))?;
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.insert(name.to_owned(), quantized);
        Ok(weight)
    }

    /// What was quantized until now, by name.
    pub fn quantized(&self) -> BTreeMap<String, QuantizedWeight> {
        let done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.clone()
    }
}

/// A tensor quantized and dequantized, and what became of it.
pub(crate) fn quantize<B: Backend, T: FloatTensor<B> + ?Sized>(
    builder: &Builder,
    calibration: Calibration,
    tensor: &T,
) -> Result<(T::Owned, QuantizedWeight)> {
    let (scheme, convention) = (builder.scheme()?, builder.convention);
    let ranges = calibration.observe(tensor, &scheme, &convention)?;
    let params = QParams::from_ranges(&ranges, &scheme, &convention)?;
    let mut groups = quantization_metrics(tensor, &params)?.into_iter();
    // A tensor that could be calibrated has at least one group.
    let mut metrics = groups.next().unwrap_or_else(|| Metrics::new(0.0));
    groups.for_each(|group| metrics.merge(&group));
    let values = params.fake_quantize(tensor)?;
    Ok((values, QuantizedWeight { params, metrics }))
}

impl fmt::Debug for WeightQuantizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WeightQuantizer")
            .field("builder", &self.builder)
            .field("calibration", &self.calibration)
            .field("bits", &self.bits)
            .field("done", &self.done)
            .finish_non_exhaustive()
    }
}
