//! Layers that multiply their input with a weight.

use std::fmt::Debug;

use chopi_core::Result;
use tch::nn::{self, ConvConfigND, EmbeddingConfig, PaddingMode};
use tch::{TchError, Tensor};

use crate::framework;

/// A layer that multiplies its input with a weight, or looks its rows up: what
/// [`Qat`](super::Qat) needs to know to quantize both. Implement it for layers that are
/// not in the list.
pub trait Weighted: Debug + Send {
    /// The weight; its first axis is that of the output channels.
    fn weight(&self) -> &Tensor;

    /// The bias, which is added to the product, if there is one.
    fn bias(&self) -> Option<&Tensor> {
        None
    }

    /// What the layer gives for `x` with another weight, of the same shape, and another bias.
    ///
    /// # Errors
    /// What libtorch says.
    fn f_forward_with(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor>;
}

impl Weighted for nn::Linear {
    fn weight(&self) -> &Tensor {
        &self.ws
    }

    fn bias(&self) -> Option<&Tensor> {
        self.bs.as_ref()
    }

    fn f_forward_with(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Result<Tensor> {
        x.f_linear(weight, bias).map_err(framework)
    }
}

/// A convolution of tch with its configuration, which tch's own type keeps to itself.
#[derive(Debug)]
pub struct Convolution<ND> {
    weight: Tensor,
    bias: Option<Tensor>,
    config: ConvConfigND<ND>,
}

impl<ND> Convolution<ND> {
    /// A layer with the configuration that it was made with.
    pub fn new(layer: nn::Conv<ND>, config: ConvConfigND<ND>) -> Self {
        Self {
            weight: layer.ws,
            bias: layer.bs,
            config,
        }
    }
}

impl<const N: usize> Convolution<[i64; N]> {
    /// The configuration that it was made with.
    pub fn config(&self) -> &ConvConfigND<[i64; N]> {
        &self.config
    }

    /// The input, padded where libtorch's convolution does not do that itself, and the padding that
    /// it does.
    fn padded(&self, x: &Tensor) -> std::result::Result<(Tensor, [i64; N]), TchError> {
        match self.config.padding_mode {
            PaddingMode::Zeros => Ok((x.shallow_clone(), self.config.padding)),
            mode => {
                let twice = self.config.padding.iter().rev().flat_map(|&n| [n, n]);
                Ok((mode.f_pad(x, &twice.collect::<Vec<_>>())?, [0; N]))
            }
        }
    }
}

macro_rules! impl_convolution {
    ($n:literal, $operation:ident) => {
        impl Weighted for Convolution<[i64; $n]> {
            fn weight(&self) -> &Tensor {
                &self.weight
            }

            fn bias(&self) -> Option<&Tensor> {
                self.bias.as_ref()
            }

            fn f_forward_with(
                &self,
                x: &Tensor,
                weight: &Tensor,
                bias: Option<&Tensor>,
            ) -> Result<Tensor> {
                let ConvConfigND {
                    stride,
                    dilation,
                    groups,
                    ..
                } = self.config;
                self.padded(x)
                    .and_then(|(x, padding)| {
                        x.$operation(weight, bias, stride, padding, dilation, groups)
                    })
                    .map_err(framework)
            }
        }
    };
}

impl_convolution!(1, f_conv1d);
impl_convolution!(2, f_conv2d);

/// An embedding of tch with its configuration, which tch's own type keeps to itself.
#[derive(Debug)]
pub struct Embedding {
    weight: Tensor,
    config: EmbeddingConfig,
}

impl Embedding {
    /// A layer with the configuration that it was made with.
    pub fn new(layer: nn::Embedding, config: EmbeddingConfig) -> Self {
        Self {
            weight: layer.ws,
            config,
        }
    }
}

impl Weighted for Embedding {
    fn weight(&self) -> &Tensor {
        &self.weight
    }

    fn f_forward_with(&self, x: &Tensor, weight: &Tensor, _: Option<&Tensor>) -> Result<Tensor> {
        let EmbeddingConfig {
            padding_idx,
            scale_grad_by_freq,
            sparse,
            ..
        } = self.config;
        Tensor::f_embedding(weight, x, padding_idx, scale_grad_by_freq, sparse).map_err(framework)
    }
}
