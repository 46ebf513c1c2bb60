//! The layer that fake-quantizes what flows through it.

use std::sync::{Arc, Mutex, PoisonError};

use candle_core::{DType, Device, Result, Tensor, Var};
use candle_nn::{Init, Module, ModuleT, VarBuilder};
use chopi_core::backend::{FloatType, NoMemory, collected, copied};
use chopi_core::training::{FakeQuantizer, LearnedParams, Phase, Quantizers, SharedQuantizer};
use chopi_core::{Chopi, Error, QParams, Symmetry};

use super::{chopi, fake_quantize, fake_quantize_learned};

/// Fake-quantizes the tensors that flow through it.
///
/// In training it observes them and passes gradients by the straight-through estimator; in
/// evaluation its parameters stay as they are. Learned scales and zero points are variables of the
/// network, `scale` and `zero_point` in the place of the layer, that its optimizer sees. They start
/// where the fake-quantizer is calibrated already, or on the first batch that is quantized.
#[derive(Clone, Debug)]
pub struct IntQuantizedLayer {
    quantizer: SharedQuantizer,
    learned: Option<Learned>,
}

/// The variables of learned parameters, in the shape of the parameters.
#[derive(Clone, Debug)]
struct Learned {
    scale: Tensor,
    zero_point: Option<Tensor>,
    /// Held while the variables are initialized.
    starting: Arc<Mutex<()>>,
}

impl IntQuantizedLayer {
    /// A layer for tensors of any shape, in the place that `vb` points to; its fake-quantizer goes
    /// into `quantizers` under that name. Learned parameters must be per tensor.
    ///
    /// # Errors
    /// A name that is taken; learned parameters that are not per tensor.
    pub fn new(
        quantizer: FakeQuantizer,
        vb: VarBuilder<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        Self::for_shape(quantizer, &[], vb, quantizers)
    }

    /// A layer for tensors of one shape, of which learned parameters follow.
    ///
    /// # Errors
    /// A name that is taken; an axis that the shape does not have.
    pub fn for_shape(
        quantizer: FakeQuantizer,
        shape: &[usize],
        vb: VarBuilder<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        let learned = match quantizer.learned() {
            None => None,
            Some(learning) => {
                let granularity = quantizer.scheme().granularity;
                let granularity = quantizer
                    .convention()
                    .granularity_for(granularity, shape.len());
                let shape = granularity.params_shape(shape).map_err(chopi)?;
                let dtype = match vb.dtype() {
                    DType::F64 => DType::F64,
                    _ => DType::F32,
                };
                let variable = |name, value| {
                    vb.get_with_hints_dtype(shape.as_slice(), name, Init::Const(value), dtype)
                };
                // Variables that were loaded before stay as they are.
                let loaded = vb.contains_tensor("scale");
                let asymmetric = quantizer.scheme().symmetry == Symmetry::Asymmetric;
                let zero_point = match learning.zero_point && asymmetric {
                    true => Some(variable("zero_point", 0.0)?),
                    false => None,
                };
                let scale = variable("scale", 1.0)?;
                let learned = Learned {
                    scale,
                    zero_point,
                    starting: Arc::default(),
                };
                if let (false, Some(params)) = (loaded, quantizer.params()) {
                    learned.initialize(params)?;
                }
                Some(learned)
            }
        };
        let quantizer = quantizers.insert(vb.prefix(), quantizer).map_err(chopi)?;
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
        let params = quantizer.params().ok_or(Error::NotCalibrated);
        let params = params.map_err(chopi)?;
        Ok(Chopi::from_params(match &self.learned {
            None => params.try_clone().map_err(chopi)?,
            Some(learned) => {
                let learned = learned.params(&quantizer, params, params.float_type())?;
                learned.params().try_clone().map_err(chopi)?
            }
        }))
    }
}

impl Learned {
    /// Starts learning where this is the tensor to start with.
    fn start(&self, quantizer: &SharedQuantizer, x: &Tensor, phase: Phase) -> Result<()> {
        // Without a lock, as it takes all threads.
        if let Some(initial) = quantizer.initial(x, phase).map_err(chopi)? {
            let _alone = self.starting.lock().unwrap_or_else(PoisonError::into_inner);
            if quantizer.state().params().is_none() {
                self.initialize(&initial)?;
                quantizer.start(initial).map_err(chopi)?;
            }
        }
        Ok(())
    }

    /// Sets the variables to the parameters that learning begins with.
    fn initialize(&self, params: &QParams) -> Result<()> {
        let variables = [
            (Some(&self.scale), copied(params.scale()).map_err(room)?),
            (self.zero_point.as_ref(), zero_points(params)?),
        ];
        for (variable, values) in variables {
            if let Some(variable) = variable {
                let values = Tensor::from_vec(values, variable.shape(), &Device::Cpu)?;
                let values = values.to_dtype(variable.dtype())?;
                Var::from_tensor(variable)?.set(&values.to_device(variable.device())?)?;
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
        let numbers = |variable: &Tensor| {
            let host = variable.to_device(&Device::Cpu)?;
            host.to_dtype(DType::F64)?.flatten_all()?.to_vec1::<f64>()
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
            self.scale.dims(),
            (&scale, &zero_point),
            factor.unwrap_or_default(),
        )
        .map_err(chopi)
    }
}

fn zero_points(params: &QParams) -> Result<Vec<f64>> {
    match params.real_zero_point() {
        Some(zero_point) => copied(zero_point),
        None => collected(params.zero_point().iter().map(|&z| z as f64)),
    }
    .map_err(room)
}

fn room(error: NoMemory) -> candle_core::Error {
    chopi(error.into())
}

impl ModuleT for IntQuantizedLayer {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let phase = Phase::new(train);
        if let Some(learned) = &self.learned {
            learned.start(&self.quantizer, x, phase)?;
        }
        let Some(params) = self.quantizer.step(x, phase).map_err(chopi)? else {
            return Ok(x.clone());
        };
        let quantizer = self.quantizer.state();
        let Some(learned) = &self.learned else {
            return fake_quantize(x, &params, quantizer.estimator());
        };
        let float = crate::tensor::float_type(x.dtype()).map_err(chopi)?;
        let params = learned.params(&quantizer, &params, float)?;
        if quantizer.is_observing() {
            fake_quantize_learned(x, &learned.scale, learned.zero_point.as_ref(), &params)
        } else {
            fake_quantize(x, params.params(), quantizer.estimator())
        }
    }
}

/// A layer in evaluation.
#[derive(Clone, Copy, Debug)]
pub struct Evaluated<'a, M>(pub &'a M);

impl<M: ModuleT> Module for Evaluated<'_, M> {
    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        self.0.forward_t(x, false)
    }
}
