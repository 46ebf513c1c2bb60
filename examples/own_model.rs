//! A small convolutional network of one's own: trained in floats on real handwritten digits, quantized with the
//! ranges of calibration data, saved, loaded by the names of its layers, and run in integers.
//!
//! ```sh
//! cargo run --release --example own_model --features candle,formats,matmul
//! ```

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use candle_core::{D, DType, Device, Module, Tensor};
use candle_nn::{AdamW, Conv2d, Conv2dConfig, Linear, Optimizer, VarBuilder, VarMap};
use chopi::candle::{QuantizedConv, QuantizedLinear, conv2d_params};
use chopi::formats::{LayerReader, LayerWriter};
use chopi::{Calibration, Chopi, Convention, Observer, QParams};

const STRIDED: Conv2dConfig = Conv2dConfig {
    padding: 1,
    stride: 2,
    dilation: 1,
    groups: 1,
    cudnn_fwd_algo: None,
};

/// The network, in floats or in integers.
struct Network<C, L> {
    first: C,
    second: C,
    output: L,
}

impl<C: Module, L: Module> Network<C, L> {
    /// The scores of ten classes; `observe` sees the input of each layer.
    fn forward(
        &self,
        x: &Tensor,
        mut observe: impl FnMut(&'static str, &Tensor) -> Result<()>,
    ) -> Result<Tensor> {
        observe("first", x)?;
        let x = self.first.forward(x)?.relu()?;
        observe("second", &x)?;
        let x = self.second.forward(&x)?.relu()?.flatten_from(1)?;
        observe("output", &x)?;
        Ok(self.output.forward(&x)?)
    }

    fn accuracy(&self, (x, y): &(Tensor, Tensor)) -> Result<f64> {
        let classes = self.forward(x, |_, _| Ok(()))?.argmax(D::Minus1)?;
        let right = classes.eq(y)?.to_dtype(DType::F64)?.mean_all()?;
        Ok(right.to_scalar()?)
    }
}

/// The network in floats, trained.
fn trained((x, y): &(Tensor, Tensor)) -> Result<Network<Conv2d, Linear>> {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let network = Network {
        first: candle_nn::conv2d(1, 8, 3, STRIDED, vb.pp("first"))?,
        second: candle_nn::conv2d(8, 16, 3, STRIDED, vb.pp("second"))?,
        output: candle_nn::linear(64, 10, vb.pp("output"))?,
    };
    let mut optimizer = AdamW::new_lr(variables.all_vars(), 3e-3)?;
    for _ in 0..40 {
        for start in (0..x.dim(0)?).step_by(64) {
            let count = (x.dim(0)? - start).min(64);
            let scores = network.forward(&x.narrow(0, start, count)?, |_, _| Ok(()))?;
            let loss = candle_nn::loss::cross_entropy(&scores, &y.narrow(0, start, count)?)?;
            optimizer.backward_step(&loss)?;
        }
    }
    Ok(network)
}

/// The parameters of the inputs of layers, by the ranges that they have on these images.
fn calibrated(
    network: &Network<Conv2d, Linear>,
    x: &Tensor,
) -> Result<BTreeMap<&'static str, QParams>> {
    let mut observers = BTreeMap::new();
    network.forward(x, |name, input| {
        let scheme = Chopi::builder().num_bits(8).include_zero().scheme()?;
        let mut observer = Observer::new(scheme, Convention::CHOPI, Calibration::MinMax)?;
        observer.observe(input)?;
        observers.insert(name, observer.params()?);
        Ok(())
    })?;
    Ok(observers)
}

fn main() -> Result<()> {
    let file = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/data/digits.safetensors"
    );
    let tensors = candle_core::safetensors::load(file, &Device::Cpu)?;
    let images = (tensors["images"].to_dtype(DType::F32)? / 16.0)?.unsqueeze(1)?;
    let labels = tensors["labels"].to_dtype(DType::U32)?;
    let part = |start, len| {
        let part = |x: &Tensor| x.narrow(0, start, len);
        Ok::<_, candle_core::Error>((part(&images)?, part(&labels)?))
    };
    let (training, test) = (part(0, 1297)?, part(1297, 500)?);

    let network = trained(&training)?;
    let inputs = calibrated(&network, &training.0)?;
    let weights = Chopi::builder()
        .num_bits(8)
        .symmetric(true)
        .per_channel(0)
        .build()?;
    let mut writer = LayerWriter::new();
    for (name, weight, bias) in [
        ("first", network.first.weight(), network.first.bias()),
        ("second", network.second.weight(), network.second.bias()),
        ("output", network.output.weight(), network.output.bias()),
    ] {
        let input = inputs.get(name).cloned().context("it is calibrated")?;
        writer
            .layer(name, weight, weights.clone())?
            .bias(bias)?
            .input(input);
    }
    let path = std::env::temp_dir().join(format!("digits-{}.safetensors", std::process::id()));
    writer.save(&path)?;

    let reader = LayerReader::open(&path)?;
    let integer: Network<QuantizedConv, QuantizedLinear> = Network {
        first: reader.conv("first", conv2d_params(&STRIDED))?.into(),
        second: reader.conv("second", conv2d_params(&STRIDED))?.into(),
        output: reader.linear("output")?.into(),
    };
    println!("accuracy in floats:   {:.4}", network.accuracy(&test)?);
    println!("accuracy in integers: {:.4}", integer.accuracy(&test)?);
    println!("{} bytes on disk", std::fs::metadata(&path)?.len());
    Ok(std::fs::remove_file(&path)?)
}
