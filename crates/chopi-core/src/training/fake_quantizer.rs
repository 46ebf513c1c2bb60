//! The state of a fake-quantizer.

use crate::backend::{Backend, FloatTensor};
use crate::convention::Convention;
use crate::error::{Error, Result};
use crate::observer::MovingAverage;
use crate::observer::Ranges;
use crate::qparams::QParams;
use crate::quantizer::Chopi;
use crate::scheme::{Granularity, Scheme};
use crate::training::initialization::{least_squares, mean_magnitude};
use crate::training::{GradientFactor, Ste};

/// Quantizes and dequantizes what flows through a network while it is trained: which parameters it
/// does that with, and when.
///
/// It belongs to no framework: a layer calls [`step`](Self::step) with each tensor and fake-quantizes
/// it with the parameters that it gets. With the feature `serde` all of it can be saved and loaded,
/// so that training goes on as if it had not stopped.
///
/// ```
/// # use chopi_core as chopi;
/// use chopi::{Chopi, training::{FakeQuantizer, Learning, RangeObserver}};
///
/// // Activations: asymmetric, a moving average, quantized from the 101st batch on.
/// let activations = FakeQuantizer::new(Chopi::new(8)?)
///     .observer(RangeObserver::moving_average(0.01)?)
///     .delay(100);
/// // Weights of 3 bits: symmetric, a learned scale for each output channel.
/// let weights = Chopi::builder().num_bits(3).symmetric(true).per_channel(0).build()?;
/// let weights = FakeQuantizer::new(weights).learning(Learning::lsq());
/// # assert!(activations.params().is_none() && weights.params().is_none());
/// # Ok::<(), chopi_core::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked"))]
pub struct FakeQuantizer {
    scheme: Scheme,
    convention: Convention,
    observer: RangeObserver,
    learning: Option<Learning>,
    ste: Ste,
    delay: u64,
    batches: u64,
    observing: bool,
    quantizing: bool,
    params: Option<QParams>,
}

/// What a saved [`FakeQuantizer`] says, before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Unchecked {
    scheme: Scheme,
    convention: Convention,
    observer: RangeObserver,
    learning: Option<Learning>,
    ste: Ste,
    delay: u64,
    batches: u64,
    observing: bool,
    quantizing: bool,
    params: Option<QParams>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for FakeQuantizer {
    type Error = Error;

    fn try_from(saved: Unchecked) -> Result<Self> {
        saved.convention.check_scheme(&saved.scheme)?;
        let mut quantizer = Self {
            scheme: saved.scheme,
            convention: saved.convention,
            observer: saved.observer,
            learning: saved.learning,
            ste: saved.ste,
            delay: saved.delay,
            batches: saved.batches,
            observing: saved.observing,
            quantizing: saved.quantizing,
            params: None,
        };
        saved
            .params
            .map_or(Ok(()), |params| quantizer.start(params))?;
        Ok(quantizer)
    }
}

/// The range that follows from the batches of a training.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum RangeObserver {
    /// The range of the last batch: for weights, which are seen whole each time.
    Latest,
    /// The smallest and largest value of all batches, as PyTorch's `MinMaxObserver`.
    MinMax(Option<Ranges>),
    /// The exponential moving average of the batches' smallest and largest values.
    MovingAverage(MovingAverage),
}

/// Parameters that the optimizer learns with the weights, instead of the observer's.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Learning {
    /// Whether the zero point of an asymmetric scheme is learned too (LSQ+), or keeps its
    /// initial value (LSQ).
    pub zero_point: bool,
    /// How the scale is initialized.
    pub initialization: Initialization,
    /// What the gradients are multiplied with.
    pub factor: GradientFactor,
}

/// How a learned scale is initialized, on the first batch that is quantized, unless the fake-quantizer
/// is calibrated before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum Initialization {
    /// The scale with the smallest squared error on the batch, as [`least_squares`] finds it.
    #[default]
    LeastSquares,
    /// s = 2·mean|x|/√qmax, as [`mean_magnitude`] computes it and the LSQ paper proposes.
    MeanMagnitude,
}

/// Whether the network is trained or used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Batches are observed and counted.
    Training,
    /// Nothing changes.
    Evaluation,
}

impl Phase {
    /// Training where `train` says so.
    pub fn new(train: bool) -> Self {
        if train {
            Self::Training
        } else {
            Self::Evaluation
        }
    }
}

/// What a step has to know of its tensor.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Wanted {
    Nothing,
    /// The ranges with this granularity.
    Ranges(Granularity),
    /// The parameters that learning starts with.
    Initial(Initialization, Scheme, Convention),
}

/// What a step knows of its tensor.
#[derive(Debug)]
pub(super) enum Seen {
    Nothing,
    Ranges(Ranges),
    Initial(QParams),
}

impl Wanted {
    /// Looks at the tensor, on all threads that there are.
    pub(super) fn see<B: Backend, T: FloatTensor<B> + ?Sized>(&self, x: &T) -> Result<Seen> {
        Ok(match self {
            Self::Nothing => Seen::Nothing,
            Self::Ranges(granularity) => Seen::Ranges(Ranges::observe(x, *granularity)?),
            Self::Initial(Initialization::LeastSquares, scheme, convention) => {
                Seen::Initial(least_squares(x, scheme, convention)?)
            }
            Self::Initial(Initialization::MeanMagnitude, scheme, convention) => {
                Seen::Initial(mean_magnitude(x, scheme, convention)?)
            }
        })
    }
}

impl RangeObserver {
    /// A [`RangeObserver::MovingAverage`] of nothing yet, with this [averaging
    /// constant](MovingAverage::new).
    ///
    /// # Errors
    /// [`Error::AveragingConstant`] for a constant outside (0, 1].
    pub fn moving_average(constant: f64) -> Result<Self> {
        MovingAverage::new(constant).map(Self::MovingAverage)
    }

    /// [`RangeObserver::MinMax`] of nothing yet.
    pub fn min_max() -> Self {
        Self::MinMax(None)
    }

    /// The observer after one more batch.
    fn after(&self, batch: &Ranges) -> Result<Self> {
        Ok(match self {
            Self::Latest => Self::Latest,
            Self::MinMax(None) => Self::MinMax(Some(batch.try_clone()?)),
            Self::MinMax(Some(ranges)) => {
                let mut ranges = ranges.try_clone()?;
                ranges.merge(batch)?;
                Self::MinMax(Some(ranges))
            }
            Self::MovingAverage(average) => Self::MovingAverage(average.after(batch)?),
        })
    }

    /// The range that follows from the batches, of which this is the last.
    fn ranges<'a>(&'a self, batch: &'a Ranges) -> &'a Ranges {
        let seen = match self {
            Self::Latest => None,
            Self::MinMax(ranges) => ranges.as_ref(),
            Self::MovingAverage(average) => average.ranges(),
        };
        seen.unwrap_or(batch)
    }
}

impl Learning {
    /// The scale is learned (LSQ).
    pub fn lsq() -> Self {
        Self {
            zero_point: false,
            initialization: Initialization::default(),
            factor: GradientFactor::default(),
        }
    }

    /// The scale and the zero point are learned (LSQ+).
    pub fn lsq_plus() -> Self {
        Self {
            zero_point: true,
            ..Self::lsq()
        }
    }
}

impl FakeQuantizer {
    /// A fake-quantizer with the scheme and the convention of a quantizer, and its parameters if it
    /// is calibrated. It observes and quantizes from the first batch on, by a
    /// [`MovingAverage`] with PyTorch's constant, and passes gradients by [`Ste::Clipped`].
    pub fn new(chopi: Chopi) -> Self {
        Self {
            scheme: chopi.scheme().clone(),
            convention: *chopi.convention(),
            observer: RangeObserver::MovingAverage(MovingAverage::default()),
            learning: None,
            ste: Ste::default(),
            delay: 0,
            batches: 0,
            observing: true,
            quantizing: true,
            params: chopi.params().cloned(),
        }
    }

    /// Sets what is seen of the batches. Learned parameters do without.
    #[must_use]
    pub fn observer(mut self, observer: RangeObserver) -> Self {
        self.observer = observer;
        self
    }

    /// Makes the parameters learned.
    #[must_use]
    pub fn learning(mut self, learning: Learning) -> Self {
        self.learning = Some(learning);
        self
    }

    /// Sets how gradients pass. Learned parameters have a rule of their own, that of
    /// [`LearnedParams`](crate::training::LearnedParams), which clips.
    #[must_use]
    pub fn ste(mut self, ste: Ste) -> Self {
        self.ste = ste;
        self
    }

    /// Lets the first `batches` training batches through as they are; they are observed.
    #[must_use]
    pub fn delay(mut self, batches: u64) -> Self {
        self.delay = batches;
        self
    }

    /// Takes in a tensor: in training it is counted, observed if observing is on, and on the first
    /// batch to be quantized learned parameters get their start.
    ///
    /// Gives the parameters to fake-quantize this tensor with (learned ones: where they started), or
    /// `None` where it passes as it is: quantizing is off, or the delay is not over.
    ///
    /// # Errors
    /// [`Error::NotCalibrated`] where there are no parameters, as nothing was observed yet;
    /// those of [`Ranges::observe`] and [`QParams::from_ranges`]. Nothing is changed then.
    pub fn step<B: Backend, T: FloatTensor<B> + ?Sized>(
        &mut self,
        x: &T,
        phase: Phase,
    ) -> Result<Option<&QParams>> {
        let seen = self.wanted(x.rank(), phase).see(x)?;
        let given = self.take_in(seen, phase, |_| Ok(()))?;
        Ok(self.params.as_ref().filter(|_| given.is_some()))
    }

    /// What a step has to know of a tensor of this rank.
    pub(super) fn wanted(&self, rank: usize, phase: Phase) -> Wanted {
        match (phase, self.learning) {
            (Phase::Training, None) if self.observing => Wanted::Ranges(
                self.convention
                    .granularity_for(self.scheme.granularity, rank),
            ),
            (Phase::Training, Some(learning)) if self.is_active() && self.params.is_none() => {
                Wanted::Initial(
                    learning.initialization,
                    self.scheme.clone(),
                    self.convention,
                )
            }
            _ => Wanted::Nothing,
        }
    }

    /// The step with what was [`wanted`](Self::wanted): quick, whatever the size of the tensor. Gives what
    /// `give` makes of the parameters; nothing is changed where it or that fails.
    pub(super) fn take_in<R>(
        &mut self,
        seen: Seen,
        phase: Phase,
        give: impl FnOnce(&QParams) -> Result<R>,
    ) -> Result<Option<R>> {
        let active = self.is_active();
        let (observer, params) = match seen {
            Seen::Nothing => (None, None),
            Seen::Ranges(batch) => {
                let observer = self.observer.after(&batch)?;
                let ranges = observer.ranges(&batch);
                let params = QParams::from_ranges(ranges, &self.scheme, &self.convention)?;
                (Some(observer), Some(params))
            }
            Seen::Initial(params) => (None, Some(params)),
        };
        let now = params.as_ref().or(self.params.as_ref());
        // The delay is over, and the first batch that learning starts from is yet to come.
        let waits = self.learning.is_some() && (phase == Phase::Training || self.batches > 0);
        if active && now.is_none() && !waits {
            return Err(Error::NotCalibrated);
        }
        let given = now.filter(|_| active).map(give).transpose()?;
        if let Some(observer) = observer {
            self.observer = observer;
        }
        if params.is_some() {
            self.params = params;
        }
        if phase == Phase::Training {
            self.batches = self.batches.saturating_add(1);
        }
        Ok(given)
    }

    /// Starts learning with these parameters, unless it has started already.
    ///
    /// # Errors
    /// [`Error::Settings`] where they are of another scheme or convention.
    pub(super) fn start(&mut self, params: QParams) -> Result<()> {
        if (params.scheme(), params.convention()) != (&self.scheme, &self.convention) {
            let what = "the parameters of a fake-quantizer";
            return Err(Error::Settings { what });
        }
        self.params.get_or_insert(params);
        Ok(())
    }

    fn is_active(&self) -> bool {
        self.quantizing && self.batches >= self.delay
    }

    /// Switches observing on or off. While it is off the parameters do not change; learned ones get
    /// no gradient.
    pub fn set_observing(&mut self, observing: bool) {
        self.observing = observing;
    }

    /// Switches quantizing on or off. While it is off tensors pass as they are.
    pub fn set_quantizing(&mut self, quantizing: bool) {
        self.quantizing = quantizing;
    }

    /// Fixes the parameters for the rest of the training: switches observing off.
    pub fn freeze(&mut self) {
        self.observing = false;
    }

    /// Whether observing is on.
    pub fn is_observing(&self) -> bool {
        self.observing
    }

    /// Whether quantizing is on.
    pub fn is_quantizing(&self) -> bool {
        self.quantizing
    }

    /// Which parameters are learned, if any are.
    pub fn learned(&self) -> Option<Learning> {
        self.learning
    }

    /// How gradients pass.
    pub fn estimator(&self) -> Ste {
        self.ste
    }

    /// How many training batches there were.
    pub fn batches(&self) -> u64 {
        self.batches
    }

    /// The parameters that follow from what was observed, or where learned ones started.
    pub fn params(&self) -> Option<&QParams> {
        self.params.as_ref()
    }

    /// The scheme.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The convention.
    pub fn convention(&self) -> &Convention {
        &self.convention
    }

    /// The quantizer that the training ends with.
    ///
    /// # Errors
    /// [`Error::NotCalibrated`] where nothing was observed.
    pub fn to_chopi(&self) -> Result<Chopi> {
        let params = self.params.as_ref().ok_or(Error::NotCalibrated)?;
        Ok(Chopi::from_params(params.try_clone()?))
    }
}
