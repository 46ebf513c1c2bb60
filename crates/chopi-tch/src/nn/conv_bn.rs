//! Convolution and batch normalization, folded while they are trained.

use chopi_core::Result;
use chopi_core::training::{QatConfig, Quantizers};
use tch::nn::{BatchNorm, BatchNormConfig, ModuleT, Path};
use tch::{TchError, Tensor};

use super::qat::{convert, quantized_input};
use super::{Converted, Convolution, IntQuantizedLayer, Qat, Weighted, expect};
use crate::framework;

/// A convolution and the batch normalization after it, quantized as the one convolution that they
/// become.
///
/// With γ, β, μ, σ² the normalization's weight, bias, running mean and variance, f = γ/√(σ² + ε) by
/// output channel and b the convolution's bias:
///
/// * forward: BN(conv(x̂, fake-quantize(w·f))/f + b), where BN normalizes by the batch in training
///   and by μ, σ² in evaluation: as PyTorch 2.13's `torch.ao.nn.intrinsic.qat.ConvBn2d` does it.
/// * [`convert`](Self::convert): the codes of w·f, and the bias (b − μ)·f + β.
///
/// γ must not be 0. After the first epochs [`freeze_statistics`](Self::freeze_statistics) normalizes
/// by μ and σ² in training too, so that training sees what will be deployed.
#[derive(Debug)]
pub struct QatConvBn<C> {
    conv: C,
    norm: BatchNorm,
    eps: f64,
    weights: Option<IntQuantizedLayer>,
    activations: Option<IntQuantizedLayer>,
    batch_statistics: bool,
}

/// [`QatConvBn`] of a convolution along one axis.
pub type QatConvBn1d = QatConvBn<Convolution<[i64; 1]>>;
/// [`QatConvBn`] of a convolution along two axes.
pub type QatConvBn2d = QatConvBn<Convolution<[i64; 2]>>;

impl<C: Weighted> QatConvBn<C> {
    /// Quantizes a convolution and the batch normalization after it, with the configuration that
    /// that was made with.
    ///
    /// # Errors
    /// The errors of [`Qat::from_layer`].
    pub fn from_layers(
        conv: C,
        (norm, norm_config): (BatchNorm, BatchNormConfig),
        config: &QatConfig,
        path: &Path<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        // The folded weight has the shape of the weight.
        let parts = Qat::from_layer(conv, config, path, quantizers)?;
        let (conv, weights, activations) = parts.into_parts();
        Ok(Self {
            conv,
            norm,
            eps: norm_config.eps,
            weights,
            activations,
            batch_statistics: true,
        })
    }

    /// From now on normalizes by the running statistics in training too, and leaves them as they
    /// are.
    pub fn freeze_statistics(&mut self) {
        self.batch_statistics = false;
    }

    /// The convolution.
    pub fn conv(&self) -> &C {
        &self.conv
    }

    /// The batch normalization.
    pub fn norm(&self) -> &BatchNorm {
        &self.norm
    }

    /// The fake-quantizer of the folded weight.
    pub fn weights(&self) -> Option<&IntQuantizedLayer> {
        self.weights.as_ref()
    }

    /// The fake-quantizer of the input.
    pub fn activations(&self) -> Option<&IntQuantizedLayer> {
        self.activations.as_ref()
    }

    /// f, a number for each output channel. The running variance carries no gradient.
    fn factor(&self) -> std::result::Result<Tensor, TchError> {
        let deviation = self.norm.running_var.detach().f_add_scalar(self.eps)?;
        let deviation = deviation.f_sqrt()?;
        match &self.norm.ws {
            Some(weight) => weight.f_div(&deviation),
            None => deviation.f_reciprocal(),
        }
    }

    /// w·f.
    fn folded_weight(&self, factor: &Tensor) -> std::result::Result<Tensor, TchError> {
        let weight = self.conv.weight();
        weight.f_mul(&factor.f_reshape(along(0, weight.dim()))?)
    }

    /// The output of the layer for `x`, in training or in evaluation.
    ///
    /// # Errors
    /// The errors of [`IntQuantizedLayer::f_forward_t`]; [`Framework`](chopi_core::Error::Framework) for
    /// an error of libtorch.
    pub fn f_forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = quantized_input(x, self.activations.as_ref(), train)?;
        let normalizes_batch = train && self.batch_statistics;
        let Some(weights) = &self.weights else {
            let (weight, bias) = (self.conv.weight(), self.conv.bias());
            let y = self.conv.f_forward_with(&x, weight, bias)?;
            return Ok(self.norm.forward_t(&y, normalizes_batch));
        };
        let factor = self.factor().map_err(framework)?;
        let folded = self.folded_weight(&factor).map_err(framework)?;
        let weight = weights.f_forward_t(&folded, train)?;
        let y = self.conv.f_forward_with(&x, &weight, None)?;
        let unfolded = || {
            let rank = self.conv.weight().dim();
            let y = y.f_div(&factor.f_reshape(along(1, rank))?)?;
            match self.conv.bias() {
                Some(bias) => y.f_add(&bias.f_reshape(along(1, rank))?),
                None => Ok(y),
            }
        };
        let y = unfolded().map_err(framework)?;
        Ok(self.norm.forward_t(&y, normalizes_batch))
    }

    /// The convolution that the two become, in integers, as it is evaluated.
    ///
    /// # Errors
    /// [`NotCalibrated`](chopi_core::Error::NotCalibrated) where it was never trained.
    pub fn convert(&self) -> Result<Converted> {
        let factor = self.factor().map_err(framework)?;
        let bias = || {
            let mean = self.norm.running_mean.detach();
            let bias = match self.conv.bias() {
                Some(bias) => bias.f_sub(&mean)?,
                None => mean.f_neg()?,
            };
            let bias = bias.f_mul(&factor)?;
            match &self.norm.bs {
                Some(beta) => bias.f_add(beta),
                None => Ok(bias),
            }
        };
        let bias = bias().map_err(framework)?;
        let weight = self.folded_weight(&factor).map_err(framework)?;
        convert(
            &weight,
            self.weights.as_ref(),
            self.activations.as_ref(),
            Some(&bias),
        )
    }
}

/// # Panics
/// On the errors of [`QatConvBn::f_forward_t`].
impl<C: Weighted> ModuleT for QatConvBn<C> {
    fn forward_t(&self, x: &Tensor, train: bool) -> Tensor {
        expect(self.f_forward_t(x, train))
    }
}

/// The shape in which one number a channel broadcasts, with the channels along `axis`.
fn along(axis: usize, rank: usize) -> Vec<i64> {
    let mut shape = vec![1; rank];
    shape[axis] = -1;
    shape
}
