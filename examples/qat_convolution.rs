//! Quantization-aware training of a small convolutional network with candle, on real handwritten
//! digits: two convolutions, the first of them folded with the batch normalization after it, and a
//! linear layer.
//!
//! ```sh
//! cargo run --release --example qat_convolution --features candle -- --epochs 15
//! ```

mod digits;
#[path = "digits/candle.rs"]
mod training;

use anyhow::Result;
use candle_core::Tensor;
use candle_nn::{Conv2dConfig, ModuleT, VarBuilder};
use chopi::candle::nn::{QatConv2d, QatConvBn2d, QatLinear};
use chopi::training::{QatConfig, Quantizers};
use clap::Parser;
use digits::Args;
use training::Network;

struct Convolutional {
    first: QatConvBn2d,
    second: QatConv2d,
    output: QatLinear,
}

impl Network for Convolutional {
    fn new(config: &QatConfig, vb: VarBuilder<'_>, quantizers: &Quantizers) -> Result<Self> {
        let padded = Conv2dConfig {
            padding: 1,
            ..Conv2dConfig::default()
        };
        let strided = Conv2dConfig {
            stride: 2,
            ..padded
        };
        let conv = candle_nn::conv2d_no_bias(1, 8, 3, padded, vb.pp("first.conv"))?;
        let norm = candle_nn::batch_norm(8, 1e-5, vb.pp("first.norm"))?;
        let first = QatConvBn2d::from_layers(conv, norm, config, vb.pp("first"), quantizers)?;
        let (sizes, vb_second) = ((8, 16, 3), vb.pp("second"));
        Ok(Self {
            first,
            second: QatConv2d::new(sizes, strided, config, vb_second, quantizers)?,
            output: QatLinear::new(256, 10, config, vb.pp("output"), quantizers)?,
        })
    }

    fn weights(&self) -> Vec<(Option<&Tensor>, usize)> {
        let (second, output) = (self.second.layer(), self.output.layer());
        vec![
            (Some(self.first.conv().weight()), 9),
            (Some(second.weight()), 72),
            (second.bias(), 72),
            (Some(output.weight()), 256),
            (output.bias(), 256),
        ]
    }
}

impl ModuleT for Convolutional {
    fn forward_t(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        let x = x.reshape(((), 1, 8, 8))?;
        let x = self.first.forward_t(&x, train)?.relu()?;
        let x = self.second.forward_t(&x, train)?.relu()?;
        self.output.forward_t(&x.flatten_from(1)?, train)
    }
}

fn main() -> Result<()> {
    training::compare::<Convolutional>(&Args::parse())
}
