//! Convolution and batch normalization, folded while they are trained.

use candle_core::{Result, Tensor};
use candle_nn::{BatchNorm, Conv1d, Conv2d, ModuleT, VarBuilder};
use chopi_core::training::{FoldedBatchNorm, QatConfig, Quantizers};

use super::{Converted, Evaluated, IntQuantizedLayer, Qat, Weighted, chopi};
use crate::OnDevice;

/// A convolution and the batch normalization after it, quantized as the one convolution that they
/// become.
///
/// [`FoldedBatchNorm`] has the formulas: a weight w is quantized as w·f, and what comes out is divided by f
/// again, before it is normalized by the batch in training and by the running statistics in evaluation.
///
/// γ must not be 0. After the first epochs [`freeze_statistics`](Self::freeze_statistics) normalizes
/// by μ and σ² in training too, so that training sees what will be deployed.
#[derive(Clone, Debug)]
pub struct QatConvBn<C> {
    conv: Qat<C>,
    norm: BatchNorm,
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
        Ok(Self {
            // The folded weight has the shape of the weight.
            conv: Qat::from_layer(conv, config, vb, quantizers)?,
            norm,
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
        self.conv.layer()
    }

    /// The batch normalization.
    pub fn norm(&self) -> &BatchNorm {
        &self.norm
    }

    /// The fake-quantizer of the folded weight.
    pub fn weights(&self) -> Option<&IntQuantizedLayer> {
        self.conv.weights()
    }

    /// The fake-quantizer of the input.
    pub fn activations(&self) -> Option<&IntQuantizedLayer> {
        self.conv.activations()
    }

    /// This layer in evaluation, as a [`Module`](candle_nn::Module).
    pub fn evaluated(&self) -> Evaluated<'_, Self> {
        Evaluated(self)
    }

    /// The two as they are now, folded.
    fn folded(&self) -> Result<FoldedBatchNorm<OnDevice>> {
        let (conv, norm) = (self.conv(), &self.norm);
        let conv = (conv.weight().into(), conv.bias().map(OnDevice::from));
        let (gamma, beta) = norm.weight_and_bias().unzip();
        let affine = (gamma.map(OnDevice::from), beta.map(OnDevice::from));
        let statistics = (norm.running_mean().into(), norm.running_var().into());
        FoldedBatchNorm::new(conv, affine, statistics, norm.eps()).map_err(chopi)
    }

    /// The convolution that the two become, in integers, as it is evaluated.
    ///
    /// # Errors
    /// [`NotCalibrated`](chopi_core::Error::NotCalibrated) where it was never trained.
    pub fn convert(&self) -> Result<Converted> {
        let folded = self.folded()?;
        let bias = folded.bias().map_err(chopi)?;
        self.conv.convert_with(folded.weight(), Some(&bias))
    }
}

impl<C: Weighted> ModuleT for QatConvBn<C> {
    fn forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.conv.quantized_input(x, train)?;
        let y = match self.weights() {
            None => self.conv().forward(&x)?,
            Some(weights) => {
                let folded = self.folded()?;
                let weight = weights.forward_t(&folded.weight().0, train)?;
                let y = self.conv().with(weight, None).forward(&x)?;
                folded.unfolded(&y.into()).map_err(chopi)?.0
            }
        };
        self.norm.forward_t(&y, train && self.batch_statistics)
    }
}
