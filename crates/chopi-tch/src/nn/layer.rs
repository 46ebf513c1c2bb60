//! The layer that fake-quantizes what flows through it.

use std::sync::{Mutex, PoisonError};

use chopi_core::backend::{FloatType, collected, copied, repeated};
use chopi_core::training::{FakeQuantizer, LearnedParams, Phase, Quantizers, SharedQuantizer};
use chopi_core::{Chopi, Error, QParams, Result, Symmetry};
use tch::nn::{Init, Module, ModuleT, Path};
use tch::{Device, Kind, Tensor};

use super::ops::lengths;
use super::{expect, fake_quantize, fake_quantize_learned};
use crate::framework;
use crate::tensor::float_type;

/// Fake-quantizes the tensors that flow through it.
///
/// In training it observes them and passes gradients by the straight-through estimator; in
/// evaluation its parameters stay as they are. Learned scales and zero points are variables of the
/// network, `scale` and `zero_point` in the place of the layer, that its optimizer sees. They start
/// where the fake-quantizer is calibrated already, or on the first batch that is quantized.
#[derive(Debug)]
pub struct IntQuantizedLayer {
    quantizer: SharedQuantizer,
    learned: Option<Learned>,
}

/// The variables of learned parameters, in the shape of the parameters.
#[derive(Debug)]
struct Learned {
    scale: Tensor,
    zero_point: Option<Tensor>,
    /// Held while the variables are initialized.
    starting: Mutex<()>,
}

impl IntQuantizedLayer {
    /// A layer for tensors of any shape, in the place that `path` is; its fake-quantizer goes into
    /// `quantizers` under that name. Learned parameters must be per tensor.
    ///
    /// # Errors
    /// A name that is taken; learned parameters that are not per tensor.
    pub fn new(quantizer: FakeQuantizer, path: &Path<'_>, quantizers: &Quantizers) -> Result<Self> {
        Self::for_shape(quantizer, &[], path, quantizers)
    }

    /// A layer for tensors of one shape, of which learned parameters follow.
    ///
    /// # Errors
    /// A name that is taken; an axis that the shape does not have.
    pub fn for_shape(
        quantizer: FakeQuantizer,
        shape: &[usize],
        path: &Path<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        let learned = match quantizer.learned() {
            None => None,
            Some(learning) => {
                let granularity = quantizer.scheme().granularity;
                let granularity = quantizer
                    .convention()
                    .granularity_for(granularity, shape.len());
                let shape = lengths(&granularity.params_shape(shape)?);
                let variable = |name, value| {
                    path.f_var(name, &shape, Init::Const(value))
                        .map_err(framework)
                };
                let asymmetric = quantizer.scheme().symmetry == Symmetry::Asymmetric;
                let zero_point = match learning.zero_point && asymmetric {
                    true => Some(variable("zero_point", 0.0)?),
                    false => None,
                };
                let scale = variable("scale", 1.0)?;
                let learned = Learned {
                    scale,
                    zero_point,
                    starting: Mutex::default(),
                };
                if let Some(params) = quantizer.params() {
                    learned.initialize(params)?;
                }
                Some(learned)
            }
        };
        let name = path.components().collect::<Vec<_>>().join(".");
        let quantizer = quantizers.insert(name, quantizer)?;
        Ok(Self { quantizer, learned })
    }

    /// The fake-quantizer.
    pub fn quantizer(&self) -> &SharedQuantizer {
        &self.quantizer
    }

    /// The variable of a learned scale.
    pub fn scale(&self) -> Option<&Tensor> {
        self.learned.as_ref().map(|learned| &learned.scale)
    }

    /// The variable of a learned zero point.
    pub fn zero_point(&self) -> Option<&Tensor> {
        self.learned.as_ref()?.zero_point.as_ref()
    }

    /// This layer in evaluation, as a [`Module`].
    pub fn evaluated(&self) -> Evaluated<'_, Self> {
        Evaluated(self)
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

    /// Fake-quantizes a tensor, in training or in evaluation.
    ///
    /// # Errors
    /// [`Error::NotCalibrated`] in evaluation where nothing was observed yet; an unsupported kind;
    /// NaN or infinities where they are observed; a shape that the parameters are not for.
    pub fn f_forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let phase = Phase::new(train);
        if let Some(learned) = &self.learned {
            learned.start(&self.quantizer, x, phase)?;
        }
        let Some(params) = self.quantizer.step(x, phase)? else {
            return Ok(x.shallow_clone());
        };
        let quantizer = self.quantizer.state();
        let Some(learned) = &self.learned else {
            return fake_quantize(x, &params, quantizer.estimator());
        };
        let params = learned.params(&quantizer, &params, float_type(x)?)?;
        if quantizer.is_observing() {
            fake_quantize_learned(x, &learned.scale, learned.zero_point.as_ref(), &params)
        } else {
            fake_quantize(x, params.params(), quantizer.estimator())
        }
    }
}

impl Learned {
    /// Starts learning where this is the tensor to start with.
    fn start(&self, quantizer: &SharedQuantizer, x: &Tensor, phase: Phase) -> Result<()> {
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
        let variables = [
            (Some(&self.scale), copied(params.scale())?),
            (self.zero_point.as_ref(), zero_points(params)?),
        ];
        for (variable, values) in variables {
            if let Some(variable) = variable {
                let set = || {
                    let values = Tensor::f_from_slice(&values)?.f_reshape(variable.size())?;
                    variable.shallow_clone().f_copy_(&values)
                };
                tch::no_grad(set).map_err(framework)?;
            }
        }
        Ok(())
    }

    /// The parameters that the variables stand for now, for tensors of type `float`; `initial` has the zero points that
    /// are not learned.
    fn params(
        &self,
        quantizer: &FakeQuantizer,
        initial: &QParams,
        float: FloatType,
    ) -> Result<LearnedParams> {
        let numbers = |variable: &Tensor| -> Result<Vec<f64>> {
            let host = || {
                let host = variable.detach().f_to_device(Device::Cpu)?;
                host.f_to_kind(Kind::Double)?.f_contiguous()
            };
            let host = host().map_err(framework)?;
            let mut values = repeated(0.0, host.numel())?;
            host.f_copy_data(&mut values, host.numel())
                .map_err(framework)?;
            Ok(values)
        };
        let scale = numbers(&self.scale)?;
        let zero_point = match &self.zero_point {
            Some(zero_point) => numbers(zero_point)?,
            None => zero_points(initial)?,
        };
        let factor = quantizer.learned().map(|learning| learning.factor);
        LearnedParams::new(
            quantizer.scheme(),
            quantizer.convention(),
            float,
            &super::ops::shape(&self.scale),
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

/// # Panics
/// On the errors of [`IntQuantizedLayer::f_forward_t`].
impl ModuleT for IntQuantizedLayer {
    fn forward_t(&self, x: &Tensor, train: bool) -> Tensor {
        expect(self.f_forward_t(x, train))
    }
}

/// A layer in evaluation.
#[derive(Debug)]
pub struct Evaluated<'a, M>(pub &'a M);

impl<M: ModuleT + Sync> Module for Evaluated<'_, M> {
    fn forward(&self, x: &Tensor) -> Tensor {
        self.0.forward_t(x, false)
    }
}
