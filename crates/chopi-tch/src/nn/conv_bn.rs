//! Convolution and batch normalization, folded while they are trained.

use chopi_core::Result;
use chopi_core::training::{FoldedBatchNorm, QatConfig, Quantizers};
use tch::Tensor;
use tch::nn::{BatchNorm, BatchNormConfig, ModuleT, Path};

use super::{Converted, Convolution, IntQuantizedLayer, Qat, Weighted, expect};
use crate::OnDevice;

/// A convolution and the batch normalization after it, quantized as the one convolution that they
/// become.
///
/// [`FoldedBatchNorm`] has the formulas: a weight w is quantized as w·f, and what comes out is divided by f
/// again, before it is normalized by the batch in training and by the running statistics in evaluation.
///
/// γ must not be 0. After the first epochs [`freeze_statistics`](Self::freeze_statistics) normalizes
/// by μ and σ² in training too, so that training sees what will be deployed.
#[derive(Debug)]
pub struct QatConvBn<C> {
    conv: Qat<C>,
    norm: BatchNorm,
    eps: f64,
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
        Ok(Self {
            // The folded weight has the shape of the weight.
            conv: Qat::from_layer(conv, config, path, quantizers)?,
            norm,
            eps: norm_config.eps,
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

    /// The two as they are now, folded.
    fn folded(&self) -> Result<FoldedBatchNorm<OnDevice>> {
        let (conv, norm) = (self.conv(), &self.norm);
        let conv = (conv.weight().into(), conv.bias().map(OnDevice::from));
        let [gamma, beta] = [&norm.ws, &norm.bs].map(|tensor| tensor.as_ref().map(OnDevice::from));
        let statistics = ((&norm.running_mean).into(), (&norm.running_var).into());
        FoldedBatchNorm::new(conv, (gamma, beta), statistics, self.eps)
    }

    /// The output of the layer for `x`, in training or in evaluation.
    ///
    /// # Errors
    /// The errors of [`IntQuantizedLayer::f_forward_t`]; [`Framework`](chopi_core::Error::Framework) for
    /// an error of libtorch.
    pub fn f_forward_t(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let x = self.conv.quantized_input(x, train)?;
        let conv = self.conv();
        let y = match self.weights() {
            None => conv.f_forward_with(&x, conv.weight(), conv.bias())?,
            Some(weights) => {
                let folded = self.folded()?;
                let weight = weights.f_forward_t(&folded.weight().0, train)?;
                let y = conv.f_forward_with(&x, &weight, None)?;
                folded.unfolded(&y.into())?.0
            }
        };
        Ok(self.norm.forward_t(&y, train && self.batch_statistics))
    }

    /// The convolution that the two become, in integers, as it is evaluated.
    ///
    /// # Errors
    /// [`NotCalibrated`](chopi_core::Error::NotCalibrated) where it was never trained.
    pub fn convert(&self) -> Result<Converted> {
        let folded = self.folded()?;
        self.conv
            .convert_with(folded.weight(), Some(&folded.bias()?))
    }
}

/// # Panics
/// On the errors of [`QatConvBn::f_forward_t`].
impl<C: Weighted> ModuleT for QatConvBn<C> {
    fn forward_t(&self, x: &Tensor, train: bool) -> Tensor {
        expect(self.f_forward_t(x, train))
    }
}
