//! The layer that fake-quantizes what flows through it.

use candle_core::{DType, Result, Tensor};
use candle_nn::{Init, Module, ModuleT, VarBuilder};
use chopi_core::Chopi;
use chopi_core::training::{FakeQuantizer, LayerQuantizer, Quantizers, SharedQuantizer, Step};

use super::{chopi, fake_quantize, fake_quantize_learned};
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
        let dtype = match vb.dtype() {
            DType::F64 => DType::F64,
            _ => DType::F32,
        };
        let variable = |name: &str, shape: &[usize], value| {
            let variable = vb.get_with_hints_dtype(shape, name, Init::Const(value), dtype);
            variable.map(OnDevice).map_err(framework)
        };
        let (name, loaded) = (vb.prefix(), vb.contains_tensor("scale"));
        LayerQuantizer::new(quantizer, name, shape, quantizers, loaded, variable)
            .map(Self)
            .map_err(chopi)
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
        self.0.to_chopi().map_err(chopi)
    }
}

impl ModuleT for IntQuantizedLayer {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        match self.0.step(&x.into(), train).map_err(chopi)? {
            Step::Pass => Ok(x.clone()),
            Step::Fixed(params, ste) => fake_quantize(x, &params, ste),
            Step::Learned {
                params,
                scale,
                zero_point,
            } => fake_quantize_learned(x, &scale.0, zero_point.map(|z| &z.0), &params),
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
