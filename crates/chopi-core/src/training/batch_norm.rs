//! Batch normalization folded into the convolution before it.

use crate::backend::DeviceTensor;
use crate::error::{Error, Result};

/// A convolution and the batch normalization after it, folded into one convolution while both are trained: as
/// PyTorch 2.13's `torch.ao.nn.intrinsic.qat.ConvBn2d` does it.
///
/// With γ, β, μ, σ² the normalization's weight, bias, running mean and variance, f = γ/√(σ² + ε) by output
/// channel, and w, b the convolution's weight and bias:
///
/// * in training: BN(conv(x̂, fake-quantize(w·f))/f + b);
/// * at the end: the weight w·f and the bias (b − μ)·f + β.
///
/// The running mean and variance carry no gradient.
#[derive(Clone, Debug)]
pub struct FoldedBatchNorm<T> {
    factor: T,
    weight: T,
    bias: Option<T>,
    mean: T,
    beta: Option<T>,
}

impl<T: DeviceTensor> FoldedBatchNorm<T> {
    /// The folding of a convolution's (w, b), whose first axis is that of the output channels, with a
    /// normalization's (γ, β), where it has them, and (μ, σ²), a number for each channel.
    ///
    /// # Errors
    /// [`Error::Axis`] for a weight without axes; [`Error::Framework`] for an error of the framework.
    pub fn new(
        (weight, bias): (T, Option<T>),
        (gamma, beta): (Option<T>, Option<T>),
        (mean, variance): (T, T),
        eps: f64,
    ) -> Result<Self> {
        let deviation = variance.detach()?.add_scalar(eps)?.sqrt()?;
        let factor = match gamma {
            Some(gamma) => gamma.div(&deviation)?,
            None => number(&deviation, 1.0)?.div(&deviation)?,
        };
        Ok(Self {
            weight: weight.mul(&along(&factor, 0, weight.shape().len())?)?,
            factor,
            bias,
            mean: mean.detach()?,
            beta,
        })
    }

    /// w·f.
    pub fn weight(&self) -> &T {
        &self.weight
    }

    /// The bias of the convolution that the two become, (b − μ)·f + β.
    ///
    /// # Errors
    /// [`Error::Framework`] for an error of the framework.
    pub fn bias(&self) -> Result<T> {
        let bias = match &self.bias {
            Some(bias) => bias.sub(&self.mean)?,
            None => self.mean.mul(&number(&self.mean, -1.0)?)?,
        };
        let bias = bias.mul(&self.factor)?;
        match &self.beta {
            Some(beta) => bias.add(beta),
            None => Ok(bias),
        }
    }

    /// y/f + b, with the channels along the second axis: what the convolution with its own weight and bias
    /// would give, of what the one with the folded weight and no bias gave.
    ///
    /// # Errors
    /// [`Error::Axis`] where `y` has less than two axes; [`Error::Framework`] for an error of the framework.
    pub fn unfolded(&self, y: &T) -> Result<T> {
        let rank = y.shape().len();
        let y = y.div(&along(&self.factor, 1, rank)?)?;
        match &self.bias {
            Some(bias) => y.add(&along(bias, 1, rank)?),
            None => Ok(y),
        }
    }
}

fn number<T: DeviceTensor>(like: &T, number: f64) -> Result<T> {
    like.constant(&[number], &[1], like.float_type()?)
}

/// One number a channel, so that it broadcasts to a tensor of this rank with the channels along `axis`.
fn along<T: DeviceTensor>(channels: &T, axis: usize, rank: usize) -> Result<T> {
    let mut shape = vec![1; rank];
    let Some(length) = shape.get_mut(axis) else {
        let axis = axis as isize;
        return Err(Error::Axis { axis, shape });
    };
    *length = channels.shape().iter().product();
    channels.reshape(&shape)
}
