//! Observers, which see data and give the ranges that parameters follow from.
//!
//! An [`Observer`] sees one place of a model, batch after batch in memory that does not grow, and
//! calibrates it as its [`Calibration`] says. It keeps one of two statistics of each group of elements:
//! [`Ranges`], the exact min and max, or [`Histograms`]. Both merge: to the same bits however the data were
//! split and in whatever order the parts are merged. [`MovingAverage`], for quantization-aware training,
//! depends on the order of the batches.

mod calibration;
mod divergence;
mod histograms;
mod moving_average;
mod ranges;
mod squared_error;

pub use calibration::Calibration;
pub use chopi_kernels::{Bin, Histogram};
pub use histograms::Histograms;
pub use moving_average::MovingAverage;
pub use ranges::Ranges;

use crate::backend::{Backend, FloatTensor};
use crate::convention::Convention;
use crate::error::{Error, Result};
use crate::qparams::QParams;
use crate::scheme::Scheme;

/// What a point of a model has seen, for one scheme: fed with tensors of any framework, it gives the
/// parameters to quantize with.
///
/// Its memory does not grow with the data. Observers of parts of the data merge into that of all of
/// them: in whatever way the data are split, and in whatever order the parts are merged, the result
/// has the same bits. With the feature `serde` an observer can be saved and go on later.
///
/// ```
/// # use chopi_core::{Calibration, Chopi, Convention, Observer};
/// let scheme = Chopi::builder().num_bits(8).scheme()?;
/// let mut observer = Observer::new(scheme, Convention::CHOPI, Calibration::Percentile(99.99))?;
/// // observer.observe(&batch)? for each batch
/// assert!(observer.params().is_err());
/// # Ok::<(), chopi_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked"))]
pub struct Observer {
    scheme: Scheme,
    convention: Convention,
    calibration: Calibration,
    seen: Option<Statistics>,
}

/// What a saved [`Observer`] says, before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Unchecked {
    scheme: Scheme,
    convention: Convention,
    calibration: Calibration,
    seen: Option<Statistics>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for Observer {
    type Error = Error;

    fn try_from(saved: Unchecked) -> Result<Self> {
        let mut observer = Self::new(saved.scheme, saved.convention, saved.calibration)?;
        let Some(seen) = saved.seen else {
            return Ok(observer);
        };
        let has_ranges = observer.calibration == Calibration::MinMax;
        let (is_ranges, granularity, shape) = match &seen {
            Statistics::Ranges(ranges) => (true, ranges.granularity(), ranges.shape()),
            Statistics::Histograms(histograms) => {
                (false, histograms.granularity(), histograms.shape())
            }
        };
        // A scheme may have another granularity on tensors of few axes.
        let expected = observer.scheme.granularity;
        let of_few_axes = observer.convention.granularity_for(expected, 0);
        let fits = [expected, of_few_axes].contains(&granularity);
        if is_ranges != has_ranges || !fits || shape.is_empty() {
            let what = "the statistics of an observer";
            return Err(Error::Settings { what });
        }
        observer.seen = Some(seen);
        Ok(observer)
    }
}

/// What is kept of the data.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
enum Statistics {
    Ranges(Ranges),
    Histograms(Histograms),
}

impl Statistics {
    fn merge(&mut self, new: &Self) -> Result<()> {
        match (self, new) {
            (Self::Ranges(seen), Self::Ranges(new)) => seen.merge(new),
            (Self::Histograms(seen), Self::Histograms(new)) => seen.merge(new),
            _ => Err(Error::MergeSettings),
        }
    }

    fn try_clone(&self) -> Result<Self> {
        Ok(match self {
            Self::Ranges(ranges) => Self::Ranges(ranges.try_clone()?),
            Self::Histograms(histograms) => Self::Histograms(histograms.try_clone()?),
        })
    }
}

impl Observer {
    /// An observer that has seen nothing.
    ///
    /// # Errors
    /// The errors of [`Convention::check_scheme`]; [`Error::Percentile`] for a percentile out of range.
    pub fn new(scheme: Scheme, convention: Convention, calibration: Calibration) -> Result<Self> {
        convention.check_scheme(&scheme)?;
        calibration.check()?;
        Ok(Self {
            scheme,
            convention,
            calibration,
            seen: None,
        })
    }

    /// An observer like this one that has seen nothing.
    pub fn without_data(&self) -> Self {
        Self {
            scheme: self.scheme.clone(),
            seen: None,
            ..*self
        }
    }

    /// Takes in a tensor.
    ///
    /// # Errors
    /// The errors of [`Ranges::observe`]; [`Error::Merge`] where the tensor has other groups than those
    /// before; [`Error::Memory`] where there is none for what was seen. What was seen before is kept then.
    pub fn observe<B: Backend, T: FloatTensor<B> + ?Sized>(&mut self, tensor: &T) -> Result<()> {
        let rank = tensor.rank();
        let granularity = self
            .convention
            .granularity_for(self.scheme.granularity, rank);
        let seen = match self.calibration {
            Calibration::MinMax => Statistics::Ranges(Ranges::observe(tensor, granularity)?),
            _ => Statistics::Histograms(Histograms::observe(tensor, granularity)?),
        };
        match &mut self.seen {
            None => self.seen = Some(seen),
            Some(before) => before.merge(&seen)?,
        }
        Ok(())
    }

    /// Takes in what another observer has seen.
    ///
    /// # Errors
    /// [`Error::Merge`] where the two have seen tensors with other groups, [`Error::MergeSettings`]
    /// where they have another scheme, convention or calibration.
    pub fn merge(&mut self, other: &Self) -> Result<()> {
        let settings = |o: &Self| (o.scheme.clone(), o.convention, o.calibration);
        if settings(self) != settings(other) {
            return Err(Error::MergeSettings);
        }
        match (&mut self.seen, &other.seen) {
            (_, None) => Ok(()),
            (seen @ None, Some(new)) => {
                *seen = Some(new.try_clone()?);
                Ok(())
            }
            (Some(seen), Some(new)) => seen.merge(new),
        }
    }

    /// The ranges that the calibration chooses.
    ///
    /// # Errors
    /// [`Error::NotCalibrated`] where nothing was observed.
    pub fn ranges(&self) -> Result<Ranges> {
        match &self.seen {
            None => Err(Error::NotCalibrated),
            Some(Statistics::Ranges(ranges)) => ranges.try_clone(),
            Some(Statistics::Histograms(histograms)) => {
                self.calibration
                    .ranges(histograms, &self.scheme, &self.convention)
            }
        }
    }

    /// The parameters for those ranges.
    ///
    /// # Errors
    /// [`Error::NotCalibrated`] where nothing was observed; the errors of [`QParams::from_ranges`].
    pub fn params(&self) -> Result<QParams> {
        QParams::from_ranges(&self.ranges()?, &self.scheme, &self.convention)
    }

    /// The scheme that the parameters are for.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The convention of the parameters.
    pub fn convention(&self) -> &Convention {
        &self.convention
    }

    /// How the ranges are chosen.
    pub fn calibration(&self) -> Calibration {
        self.calibration
    }
}
