//! The fake-quantizer of a place in a network, with the variables that it learns.

use std::sync::{Arc, Mutex, PoisonError};

use super::{FakeQuantizer, LearnedParams, Phase, Quantizers, SharedQuantizer, Ste};
use crate::backend::{Backend, DeviceTensor, FloatTensor, FloatType};
use crate::error::{Error, Result};
use crate::qparams::QParams;
use crate::quantizer::Chopi;
use crate::scheme::Symmetry;
use chopi_kernels::memory::{collected, copied};

/// The fake-quantizer of a layer's weight or input, with the scale and the zero point that it learns, which
/// are variables of the network. A framework's layer calls [`step`](Self::step) with each tensor and does
/// what that says with the framework's operations.
///
/// Learned variables start where the fake-quantizer is calibrated already, or else on the first batch that
/// is quantized.
#[derive(Clone, Debug)]
pub struct LayerQuantizer<T> {
    quantizer: SharedQuantizer,
    learned: Option<Learned<T>>,
}

/// The variables of learned parameters, in the shape of the parameters.
#[derive(Clone, Debug)]
struct Learned<T> {
    scale: T,
    zero_point: Option<T>,
    /// Held while the variables are initialized.
    starting: Arc<Mutex<()>>,
}

/// What becomes of a tensor that flows through a layer.
#[derive(Clone, Debug)]
pub enum Step<'a, T> {
    /// It passes as it is: quantizing is off, or the delay is not over.
    Pass,
    /// It is fake-quantized with fixed parameters; the gradient passes by the estimator.
    Fixed(QParams, Ste),
    /// It is fake-quantized with learned parameters, and the variables get a gradient.
    Learned {
        /// What the variables stand for now.
        params: Box<LearnedParams>,
        /// The variable of the scale.
        scale: &'a T,
        /// The variable of the zero point, where that is learned.
        zero_point: Option<&'a T>,
    },
}

impl<T: DeviceTensor> LayerQuantizer<T> {
    /// Puts a fake-quantizer into `quantizers` under a name, its place in the network, with the variables
    /// that it learns for tensors of this shape.
    ///
    /// `variable` gives the variable of a name, `scale` or `zero_point` in that place, of a shape, filled
    /// with a number; where `loaded` says so the network had them before, and they keep their values.
    ///
    /// # Errors
    /// [`Error::QuantizerName`] for a name that is taken; [`Error::Axis`] for an axis that the shape does
    /// not have; the errors of `variable`.
    pub fn new(
        quantizer: FakeQuantizer,
        name: String,
        shape: &[usize],
        quantizers: &Quantizers,
        loaded: bool,
        variable: impl FnMut(&str, &[usize], f64) -> Result<T>,
    ) -> Result<Self> {
        let learned = Learned::new(&quantizer, shape, variable)?;
        if let (Some(learned), false, Some(params)) = (&learned, loaded, quantizer.params()) {
            learned.initialize(params)?;
        }
        let quantizer = quantizers.insert(name, quantizer)?;
        Ok(Self { quantizer, learned })
    }

    /// The fake-quantizer.
    pub fn quantizer(&self) -> &SharedQuantizer {
        &self.quantizer
    }

    /// The variable of a learned scale.
    pub fn scale(&self) -> Option<&T> {
        self.learned.as_ref().map(|learned| &learned.scale)
    }

    /// The variable of a learned zero point.
    pub fn zero_point(&self) -> Option<&T> {
        self.learned.as_ref()?.zero_point.as_ref()
    }

    /// The quantizer that the training ends with: the numbers of evaluation.
    ///
    /// # Errors
    /// [`Error::NotCalibrated`] where nothing was observed yet.
    pub fn to_chopi(&self) -> Result<Chopi> {
        let quantizer = self.quantizer.state();
        let params = quantizer.params().ok_or(Error::NotCalibrated)?;
        Ok(Chopi::from_params(match &self.learned {
            None => params.try_clone()?,
            Some(learned) => {
                let learned = learned.params(&quantizer, params, params.float_type())?;
                learned.params().try_clone()?
            }
        }))
    }

    /// Takes in a tensor, in training or in evaluation, and says what becomes of it.
    ///
    /// # Errors
    /// The errors of [`FakeQuantizer::step`]; [`Error::Scale`] and [`Error::ZeroPoint`] for learned numbers
    /// that are none.
    pub fn step<B>(&self, x: &T, train: bool) -> Result<Step<'_, T>>
    where
        B: Backend,
        T::Float: FloatTensor<B>,
    {
        let (tensor, phase) = (x.detach()?.into_float()?, Phase::new(train));
        if let Some(learned) = &self.learned {
            learned.start(&self.quantizer, &tensor, phase)?;
        }
        let Some(params) = self.quantizer.step(&tensor, phase)? else {
            return Ok(Step::Pass);
        };
        let quantizer = self.quantizer.state();
        let Some(learned) = &self.learned else {
            return Ok(Step::Fixed(params, quantizer.estimator()));
        };
        let params = learned.params(&quantizer, &params, x.float_type()?)?;
        Ok(match quantizer.is_observing() {
            true => Step::Learned {
                params: Box::new(params),
                scale: &learned.scale,
                zero_point: learned.zero_point.as_ref(),
            },
            false => Step::Fixed(params.params().try_clone()?, quantizer.estimator()),
        })
    }
}

impl<T: DeviceTensor> Learned<T> {
    /// The variables of what a fake-quantizer learns on tensors of this shape.
    fn new(
        quantizer: &FakeQuantizer,
        shape: &[usize],
        mut variable: impl FnMut(&str, &[usize], f64) -> Result<T>,
    ) -> Result<Option<Self>> {
        let Some(learning) = quantizer.learned() else {
            return Ok(None);
        };
        let scheme = quantizer.scheme();
        let granularity = quantizer
            .convention()
            .granularity_for(scheme.granularity, shape.len());
        let shape = granularity.params_shape(shape)?;
        let learns_zero_point = learning.zero_point && scheme.symmetry == Symmetry::Asymmetric;
        let zero_point = match learns_zero_point {
            true => Some(variable("zero_point", &shape, 0.0)?),
            false => None,
        };
        Ok(Some(Self {
            scale: variable("scale", &shape, 1.0)?,
            zero_point,
            starting: Arc::default(),
        }))
    }

    /// Starts learning where this is the tensor to start with.
    fn start<B: Backend, X: FloatTensor<B>>(
        &self,
        quantizer: &SharedQuantizer,
        x: &X,
        phase: Phase,
    ) -> Result<()> {
        // Without a lock, as it takes all threads.
        if let Some(initial) = quantizer.initial(x, phase)? {
            let _alone = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
            if quantizer.state().params().is_none() {
                self.initialize(&initial)?;
                quantizer.start(initial)?;
            }
        }
        Ok(())
    }

    /// Sets the variables to the parameters that learning begins with.
    fn initialize(&self, params: &QParams) -> Result<()> {
        let set = |variable: &T, values: &[f64]| {
            let float = variable.float_type()?;
            variable.assign(&variable.constant(values, &variable.shape(), float)?)
        };
        set(&self.scale, params.scale())?;
        match &self.zero_point {
            Some(variable) => set(variable, &zero_points(params)?),
            None => Ok(()),
        }
    }

    /// The parameters that the variables stand for now, for tensors of type `float`; `initial` has the zero points that
    /// are not learned.
    fn params(
        &self,
        quantizer: &FakeQuantizer,
        initial: &QParams,
        float: FloatType,
    ) -> Result<LearnedParams> {
        let scale = self.scale.detach()?.to_host()?;
        let zero_point = match &self.zero_point {
            Some(zero_point) => zero_point.detach()?.to_host()?,
            None => zero_points(initial)?,
        };
        let factor = quantizer.learned().map(|learning| learning.factor);
        LearnedParams::new(
            quantizer.scheme(),
            quantizer.convention(),
            float,
            &self.scale.shape(),
            (&scale, &zero_point),
            factor.unwrap_or_default(),
        )
    }
}

fn zero_points(params: &QParams) -> Result<Vec<f64>> {
    Ok(match params.real_zero_point() {
        Some(zero_point) => copied(zero_point)?,
        None => collected(params.zero_point().iter().map(|&z| z as f64))?,
    })
}
