//! The layer that fake-quantizes what flows through it.

use chopi_core::training::{FakeQuantizer, LayerQuantizer, Quantizers, SharedQuantizer, Step};
use chopi_core::{Chopi, Result};
use tch::Tensor;
use tch::nn::{Init, Module, ModuleT, Path};

use super::{expect, fake_quantize, fake_quantize_learned};
use crate::device::lengths;
use crate::{OnDevice, framework};

/// Fake-quantizes the tensors that flow through it.
///
/// In training it observes them and passes gradients by the straight-through estimator; in
/// evaluation its parameters stay as they are. Learned scales and zero points are variables of the
/// network, `scale` and `zero_point` in the place of the layer, that its optimizer sees. They keep the
/// values that the network has for them already; else they start where the fake-quantizer is calibrated,
/// or on the first batch that is quantized.
#[derive(Clone, Debug)]
pub struct IntQuantizedLayer(pub(super) LayerQuantizer<OnDevice>);

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
        let variable = |name: &str, shape: &[usize], value| {
            let variable = match path.get(name) {
                Some(variable) => Ok(variable),
                None => path.f_var(name, &lengths(shape), Init::Const(value)),
            };
            variable.map(OnDevice).map_err(framework)
        };
        let name = path.components().collect::<Vec<_>>().join(".");
        let loaded = path.get("scale").is_some();
        LayerQuantizer::new(quantizer, name, shape, quantizers, loaded, variable).map(Self)
    }

    /// The fake-quantizer.
    pub fn quantizer(&self) -> &SharedQuantizer {
        self.0.quantizer()
    }

    /// The variable of a learned scale.
    pub fn scale(&self) -> Option<&Tensor> {
        self.0.scale().map(|scale| &scale.0)
    }

    /// The variable of a learned zero point.
    pub fn zero_point(&self) -> Option<&Tensor> {
        self.0.zero_point().map(|zero_point| &zero_point.0)
    }

    /// This layer in evaluation, as a [`Module`].
    pub fn evaluated(&self) -> Evaluated<'_, Self> {
        Evaluated(self)
    }

    /// The quantizer that the training ends with: the numbers of evaluation.
    ///
    /// # Errors
    /// [`NotCalibrated`](chopi_core::Error::NotCalibrated) where nothing was observed yet.
    pub fn to_chopi(&self) -> Result<Chopi> {
        self.0.to_chopi()
    }

    /// Fake-quantizes a tensor, in training or in evaluation.
    ///
    /// # Errors
    /// [`NotCalibrated`](chopi_core::Error::NotCalibrated) in evaluation where nothing was observed yet; an
    /// unsupported kind; NaN or infinities where they are observed; a shape that the parameters are not for.
    pub fn f_forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match self.0.step(&x.into(), train)? {
            Step::Pass => Ok(x.shallow_clone()),
            Step::Fixed(params, ste) => fake_quantize(x, &params, ste),
            Step::Learned {
                params,
                scale,
                zero_point,
            } => fake_quantize_learned(x, &scale.0, zero_point.map(|z| &z.0), &params),
        }
    }
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
