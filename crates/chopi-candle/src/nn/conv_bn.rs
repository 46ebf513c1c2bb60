//! Convolution and batch normalization, folded while they are trained.

use candle_core::{Result, Tensor};
use candle_nn::{BatchNorm, Conv1d, Conv2d, ModuleT, VarBuilder};
use chopi_core::training::{QatConfig, Quantizers};

use super::qat::{convert, quantized_input};
use super::{Converted, Evaluated, IntQuantizedLayer, Qat, Weighted};

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
#[derive(Clone, Debug)]
pub struct QatConvBn<C> {
    conv: C,
    norm: BatchNorm,
    weights: Option<IntQuantizedLayer>,
    activations: Option<IntQuantizedLayer>,
    batch_statistics: bool,
}

/// [`QatConvBn`] of a convolution along one axis.
pub type QatConvBn1d = QatConvBn<Conv1d>;
/// [`QatConvBn`] of a convolution along two axes.
pub type QatConvBn2d = QatConvBn<Conv2d>;

impl<C: Weighted> QatConvBn<C> {
    /// Quantizes a convolution and the batch normalization after it.
    ///
    /// # Errors
    /// The errors of [`Qat::from_layer`].
    pub fn from_layers(
        conv: C,
        norm: BatchNorm,
        config: &QatConfig,
        vb: VarBuilder<'_>,
        quantizers: &Quantizers,
    ) -> Result<Self> {
        // The folded weight has the shape of the weight, which is all that counts here.
        let conv_alone = conv.with(conv.weight().clone(), None);
        let parts = Qat::from_layer(conv_alone, config, vb, quantizers)?;
        Ok(Self {
            conv,
            norm,
            weights: parts.weights().cloned(),
            activations: parts.activations().cloned(),
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

    /// This layer in evaluation, as a [`Module`](candle_nn::Module).
    pub fn evaluated(&self) -> Evaluated<'_, Self> {
        Evaluated(self)
    }

    /// f, a number for each output channel. The running variance carries no gradient.
    fn factor(&self) -> Result<Tensor> {
        let deviation = (self.norm.running_var().detach() + self.norm.eps())?.sqrt()?;
        match self.norm.weight_and_bias() {
            Some((weight, _)) => weight / deviation,
            None => deviation.recip(),
        }
    }

    /// w·f.
    fn folded_weight(&self, factor: &Tensor) -> Result<Tensor> {
        let weight = self.conv.weight();
        weight.broadcast_mul(&factor.reshape(along(factor, 0, weight.rank()))?)
    }

    /// The convolution that the two become, in integers, as it is evaluated.
    ///
    /// # Errors
    /// [`NotCalibrated`](chopi_core::Error::NotCalibrated) where it was never trained.
    pub fn convert(&self) -> Result<Converted> {
        let factor = self.factor()?;
        let mean = self.norm.running_mean().detach();
        let bias = match self.conv.bias() {
            Some(bias) => (bias - mean)?,
            None => mean.neg()?,
        };
        let bias = (bias * &factor)?;
        let bias = match self.norm.weight_and_bias() {
            Some((_, beta)) => (bias + beta)?,
            None => bias,
        };
        convert(
            &self.folded_weight(&factor)?,
            self.weights.as_ref(),
            self.activations.as_ref(),
            Some(&bias),
        )
    }
}

impl<C: Weighted> ModuleT for QatConvBn<C> {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = quantized_input(x, self.activations.as_ref(), train)?;
        let Some(weights) = &self.weights else {
            let y = self.conv.forward(&x)?;
            return self.norm.forward_t(&y, train && self.batch_statistics);
        };
        let factor = self.factor()?;
        let weight = weights.forward_t(&self.folded_weight(&factor)?, train)?;
        let rank = self.conv.weight().rank();
        let y = self.conv.with(weight, None).forward(&x)?;
        let y = y.broadcast_div(&factor.reshape(along(&factor, 1, rank))?)?;
        let y = match self.conv.bias() {
            Some(bias) => y.broadcast_add(&bias.reshape(along(bias, 1, rank))?)?,
            None => y,
        };
        self.norm.forward_t(&y, train && self.batch_statistics)
    }
}

/// The shape in which one number a channel broadcasts, with the channels along `axis`.
fn along(channels: &Tensor, axis: usize, rank: usize) -> Vec<usize> {
    let mut shape = vec![1; rank];
    shape[axis] = channels.elem_count();
    shape
}
