//! How a range is chosen from what was observed.

use std::fmt;
use std::str::FromStr;

use crate::backend::{Backend, FloatTensor};
use crate::convention::Convention;
use crate::error::{Error, Result};
use crate::observer::Ranges;
use crate::observer::divergence;
use crate::observer::histograms::{Histograms, for_each_histogram};
use crate::observer::squared_error::range_of_least_error;
use crate::scheme::{Scheme, Symmetry};
use chopi_kernels::FloatType;
use chopi_kernels::Histogram;
use chopi_kernels::memory::with_room;

/// How the range that codes cover is chosen from the values of a group.
///
/// All but [`MinMax`](Self::MinMax) clip: they give up the outermost values for a finer step between
/// the others. They work on the [`Histogram`] of the group.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Calibration {
    /// The range from the smallest to the largest value: nothing is clipped. Right for 8-bit weights,
    /// and whenever outliers matter.
    #[default]
    MinMax,
    /// The range from the (100 − p)-th to the p-th percentile, 50 < p ≤ 100; for a symmetric scheme from
    /// −a to a, a the p-th percentile of |x|, but within the range of the values. It costs least of
    /// those that clip; p = 99.99 is usual for activations of 8 bits.
    Percentile(f64),
    /// The range with the least mean squared error for the bits of the scheme. It helps where all values matter
    /// alike, as the weights of 4 bits of a sentence encoder. It hurts where the largest matter most: a language
    /// model with a scale for each output gets worse than with [`MinMax`](Self::MinMax).
    MeanSquaredError,
    /// The symmetric range, within that of the values, whose histogram diverges least (Kullback and
    /// Leibler) from that of the values once it has as few levels as the scheme: the method of
    /// TensorRT (Migacz, GTC 2017). Made for activations of 8 bits; the levels are those on one
    /// side, 2^(b−1), or all of them for an asymmetric scheme of values of one sign. The bin of the
    /// zeros is left out, as in NVIDIA's pytorch-quantization. More than one in 10,000 of the other values
    /// are clipped only where that does not make the squared error larger.
    KullbackLeibler,
}

impl Calibration {
    /// The ranges of one tensor that is there as a whole, such as a weight, in the memory of one
    /// histogram.
    ///
    /// # Errors
    /// The errors of [`Ranges::observe`]; [`Error::Percentile`] for a percentile out of range.
    pub fn observe<B: Backend, T: FloatTensor<B> + ?Sized>(
        self,
        tensor: &T,
        scheme: &Scheme,
        convention: &Convention,
    ) -> Result<Ranges> {
        self.check()?;
        let granularity = convention.granularity_for(scheme.granularity, tensor.rank());
        if self == Self::MinMax {
            return Ranges::observe(tensor, granularity);
        }
        let (mut min, mut max) = (Vec::new(), Vec::new());
        let (of, float) = for_each_histogram(tensor, granularity, |of, histogram, float| {
            if min.is_empty() {
                (min, max) = (with_room(of.len())?, with_room(of.len())?);
            }
            let (low, high) = self.range(histogram, scheme, convention, float)?;
            min.push(low);
            max.push(high);
            Ok(())
        })?;
        let ranges = Ranges::new(granularity, float, of.shape, min, max);
        Ok(ranges.with_grouped_length(of.length))
    }

    /// The ranges of the groups that histograms have seen.
    ///
    /// # Errors
    /// [`Error::Percentile`] for a percentile out of range.
    pub fn ranges(
        self,
        histograms: &Histograms,
        scheme: &Scheme,
        convention: &Convention,
    ) -> Result<Ranges> {
        self.check()?;
        let float = histograms.float_type();
        let groups = histograms.groups();
        let (mut min, mut max) = (with_room(groups.len())?, with_room(groups.len())?);
        for histogram in groups {
            let (low, high) = self.range(histogram, scheme, convention, float)?;
            min.push(low);
            max.push(high);
        }
        let shape = histograms.shape().to_vec();
        let ranges = Ranges::new(histograms.granularity(), float, shape, min, max);
        Ok(ranges.with_grouped_length(histograms.grouped_length()))
    }

    fn range(
        self,
        histogram: &Histogram,
        scheme: &Scheme,
        convention: &Convention,
        float: FloatType,
    ) -> Result<(f64, f64)> {
        let (min, max) = (histogram.min(), histogram.max());
        let within = |a: f64| (min.max(-a).min(max), max.min(a).max(min));
        let symmetric = scheme.symmetry == Symmetry::Symmetric;
        Ok(match self {
            Self::MinMax => (min, max),
            Self::Percentile(p) if symmetric => within(histogram.percentile_of_magnitudes(p)?),
            Self::Percentile(p) => (histogram.percentile(100.0 - p), histogram.percentile(p)),
            Self::MeanSquaredError => range_of_least_error(histogram, scheme, convention, float)?,
            Self::KullbackLeibler => {
                let codes = (scheme.qmax - scheme.qmin) as usize + 1;
                let one_sign = min >= 0.0 || max <= 0.0;
                let levels = if one_sign && !symmetric {
                    codes
                } else {
                    codes / 2
                };
                let step = |threshold: f64| {
                    let (low, high) = within(threshold);
                    match symmetric {
                        true => low.abs().max(high.abs()) / scheme.qmax as f64,
                        false => (high - low) / (codes - 1) as f64,
                    }
                };
                let (counts, width) = histogram.magnitudes()?;
                let abs_max = histogram.abs_max();
                let threshold = divergence::threshold(counts, width, levels, abs_max, step)?;
                within(threshold)
            }
        })
    }

    pub(crate) fn check(self) -> Result<()> {
        match self {
            Self::Percentile(percentile) if !(percentile > 50.0 && percentile <= 100.0) => {
                Err(Error::Percentile { percentile })
            }
            _ => Ok(()),
        }
    }
}

/// `minmax`, `percentile:99.99`, `mse`, `kl`.
impl fmt::Display for Calibration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::MinMax => f.write_str("minmax"),
            Self::Percentile(percentile) => write!(f, "percentile:{percentile}"),
            Self::MeanSquaredError => f.write_str("mse"),
            Self::KullbackLeibler => f.write_str("kl"),
        }
    }
}

impl FromStr for Calibration {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let unknown = || Error::UnknownCalibration {
            name: text.to_owned(),
        };
        let calibration = match text {
            "minmax" => Self::MinMax,
            "mse" => Self::MeanSquaredError,
            "kl" => Self::KullbackLeibler,
            _ => {
                let percentile = text.strip_prefix("percentile:").ok_or_else(unknown)?;
                Self::Percentile(percentile.parse().map_err(|_| unknown())?)
            }
        };
        calibration.check()?;
        Ok(calibration)
    }
}
