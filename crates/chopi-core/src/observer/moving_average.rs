//! The exponential moving average of the ranges of batches.

use crate::error::{Error, Result};
use crate::observer::Ranges;

/// The exponential moving average of each group's smallest and largest value, batch by batch.
///
/// The first batch sets it; a later one with the value m moves the average a to a + c·(m − a), each
/// operation rounded to the compute type of the data: to the bit what PyTorch 2.13's
/// `MovingAverageMinMaxObserver` and `MovingAveragePerChannelMinMaxObserver` compute. The order of
/// the batches matters, so two averages cannot be merged.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked"))]
pub struct MovingAverage {
    constant: f64,
    ranges: Option<Ranges>,
}

/// What a saved [`MovingAverage`] says, before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Unchecked {
    constant: f64,
    ranges: Option<Ranges>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for MovingAverage {
    type Error = Error;

    fn try_from(Unchecked { constant, ranges }: Unchecked) -> Result<Self> {
        Ok(Self {
            ranges,
            ..Self::new(constant)?
        })
    }
}

/// An average of nothing yet, with PyTorch's averaging constant, 0.01.
impl Default for MovingAverage {
    fn default() -> Self {
        Self {
            constant: 0.01,
            ranges: None,
        }
    }
}

impl MovingAverage {
    /// An average of nothing yet, with an averaging constant c in (0, 1].
    ///
    /// # Errors
    /// [`Error::AveragingConstant`] for any other number.
    pub fn new(constant: f64) -> Result<Self> {
        if constant > 0.0 && constant <= 1.0 {
            let ranges = None;
            Ok(Self { constant, ranges })
        } else {
            Err(Error::AveragingConstant { constant })
        }
    }

    /// The averaging constant.
    pub fn constant(&self) -> f64 {
        self.constant
    }

    /// The averages, once there was a batch.
    pub fn ranges(&self) -> Option<&Ranges> {
        self.ranges.as_ref()
    }

    /// Takes in the ranges of one batch.
    ///
    /// # Errors
    /// [`Error::Merge`] where they have another shape or granularity than those before; [`Error::Ends`]
    /// where the change is too large for the compute type. The averages are kept then.
    pub fn observe(&mut self, batch: Ranges) -> Result<()> {
        self.ranges = Some(match &self.ranges {
            Some(average) => self.moved(average, &batch)?,
            None => batch,
        });
        Ok(())
    }

    /// The average after one more batch.
    pub(crate) fn after(&self, batch: &Ranges) -> Result<Self> {
        let ranges = match &self.ranges {
            Some(average) => self.moved(average, batch)?,
            None => batch.try_clone()?,
        };
        Ok(Self {
            ranges: Some(ranges),
            ..*self
        })
    }

    fn moved(&self, average: &Ranges, batch: &Ranges) -> Result<Ranges> {
        let mut averages = average.try_clone()?;
        averages.take_groups(batch)?;
        let compute = averages.float_type().compute();
        let constant = compute.round(self.constant);
        averages.change(batch, |a, m| {
            let change = compute.round(constant * compute.round(m - a));
            compute.round(a + change)
        });
        averages.checked()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scheme::Granularity;
    use chopi_kernels::FloatType;

    fn ranges(min: f32, max: f32) -> Ranges {
        let (granularity, float) = (Granularity::PerTensor, FloatType::F32);
        Ranges::new(
            granularity,
            float,
            vec![1],
            vec![min.into()],
            vec![max.into()],
        )
    }

    #[test]
    fn the_average_is_that_of_pytorch() {
        // torch 2.13: MovingAverageMinMaxObserver over these four batches' ranges.
        let mut average = MovingAverage::default();
        for (min, max) in [(-1.1, 2.3), (-0.7, 2.9), (-3.3, 0.1), (-0.1, 7.7)] {
            average.observe(ranges(min, max)).unwrap();
        }
        let observed = average.ranges().unwrap();
        assert_eq!(observed.min(), [f64::from(-1.107_859_7_f32)]);
        assert_eq!(observed.max(), [f64::from(2.338_100_7_f32)]);
    }

    #[test]
    fn a_constant_of_one_follows_and_others_are_refused() {
        let mut average = MovingAverage::new(1.0).unwrap();
        average.observe(ranges(-1.0, 1.0)).unwrap();
        average.observe(ranges(-0.5, 4.0)).unwrap();
        assert_eq!(average.ranges().unwrap().max(), [4.0]);
        for constant in [0.0, -0.1, 1.5, f64::NAN] {
            let error = MovingAverage::new(constant).unwrap_err().to_string();
            assert!(error.contains("averaging constant"), "{error}");
        }
    }

    #[test]
    fn a_change_that_is_no_number_is_refused_and_changes_nothing() {
        let mut average = MovingAverage::default();
        average.observe(ranges(-3e38, -2e38)).unwrap();
        let before = average.clone();
        let error = average.observe(ranges(3e38, 3.1e38)).unwrap_err();
        assert!(matches!(error, Error::Ends { group: 0, .. }), "{error}");
        assert_eq!(average, before);
    }

    #[test]
    fn batches_of_another_shape_are_refused() {
        let mut average = MovingAverage::default();
        average.observe(ranges(-1.0, 1.0)).unwrap();
        let (granularity, float) = (Granularity::PerTensor, FloatType::F32);
        let two = Ranges::new(granularity, float, vec![2], vec![0.0; 2], vec![1.0; 2]);
        assert!(matches!(average.observe(two), Err(Error::Merge { .. })));
    }
}
