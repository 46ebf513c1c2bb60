//! Inference in integers: a fully connected 64–64–10 network on real handwritten digits is trained with
//! weights and activations of 8 bits, and runs without a float operation between its first and its last
//! layer, on ndarray and on candle.
//!
//! ```sh
//! cargo run --release --example digits_integer --features candle,matmul
//! ```

mod digits;
#[path = "digits/fully_connected.rs"]
mod fully_connected;
#[path = "digits/candle.rs"]
mod training;

use anyhow::{Context, Result, ensure};
use candle_core::{D, Device, Tensor};
use candle_nn::ModuleT;
use chopi::candle::nn::Converted;
use chopi::matmul::IntegerOnlyLinear;
use chopi::matmul::requantize::OutputCodes;
use chopi::ndarray::IntArray;
use chopi::training::QatConfig;
use chopi::{Chopi, QParams};
use clap::Parser;
use digits::{Args, Digits};
use fully_connected::FullyConnected;
use ndarray::{Array2, Ix2};
use training::{Trainee, tensors};

/// Trains a network on real handwritten digits with 8 bits, and runs it in integers.
#[derive(Debug, Parser)]
struct Arguments {
    /// Of the first weights and the order of the batches
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How often the training digits are gone through
    #[arg(long, default_value_t = 60)]
    epochs: u32,
}

/// The trained network in integers.
struct IntegerNetwork {
    /// What makes codes of the images.
    input: Chopi,
    hidden: IntegerOnlyLinear,
    /// The codes between the two layers: those of a rectified linear unit.
    between: OutputCodes<u8>,
    /// Its results are compared only, so they stay integers, in a unit that all classes share.
    output: IntegerOnlyLinear,
}

/// A layer in integers, with its results in units of what `output_scale` says.
fn layer(
    layer: &Converted,
    output_scale: impl Fn(&QParams, &QParams) -> f64,
) -> Result<IntegerOnlyLinear> {
    let params = |quantizer: &Option<Chopi>| {
        let params = quantizer.as_ref().and_then(Chopi::params);
        params.cloned().context("it is quantized")
    };
    let (weights, input) = (params(&layer.weight)?, params(&layer.activations)?);
    let codes = layer.weight_codes.as_ref().context("it is quantized")?;
    let bias = layer.bias.as_ref().map(Tensor::to_vec1).transpose()?;
    let scale = output_scale(&weights, &input);
    Ok(IntegerOnlyLinear::new(
        codes,
        &weights,
        bias.as_deref(),
        &input,
        scale,
    )?)
}

impl IntegerNetwork {
    fn new(network: &FullyConnected) -> Result<Self> {
        let (hidden, output) = (network.hidden.convert()?, network.output.convert()?);
        let input = hidden.activations.clone().context("it is quantized")?;
        let between = output.activations.as_ref().and_then(Chopi::params);
        let between = between.context("it is quantized")?;
        let zero = u8::try_from(between.zero_point()[0])?;
        let finest = |weights: &QParams, input: &QParams| {
            let scales = weights.scale().iter().map(|scale| scale * input.scale()[0]);
            scales.fold(f64::INFINITY, f64::min)
        };
        Ok(Self {
            input,
            hidden: layer(&hidden, |_, _| between.scale()[0])?,
            between: OutputCodes::new(zero).clamped(zero, u8::MAX)?,
            output: layer(&output, finest)?,
        })
    }

    /// The scores of the ten classes of each image, on ndarray.
    fn on_ndarray(&self, digits: &Digits) -> Result<Vec<i32>> {
        let count = digits.labels.len();
        let images = Array2::from_shape_vec((count, 64), digits.images.clone())?;
        let codes = self.input.clone().quantize(&images)?;
        let hidden = self.hidden.forward(&codes, self.between)?;
        let hidden = Array2::from_shape_vec((count, self.hidden.outputs()), hidden)?;
        let hidden = IntArray::<f32, Ix2>::from(hidden);
        Ok(self.output.forward_wide(&hidden)?)
    }

    /// The same on candle.
    fn on_candle(&self, digits: &Digits) -> Result<Vec<i32>> {
        let (images, _) = tensors(digits)?;
        let codes = self.input.clone().quantize(&images)?;
        let hidden = self.hidden.forward(&codes, self.between)?;
        let shape = (digits.labels.len(), self.hidden.outputs());
        let hidden = Tensor::from_vec(hidden, shape, &Device::Cpu)?;
        Ok(self.output.forward_wide(&hidden)?)
    }
}

/// The class of the highest score of each image.
fn classes(scores: &[i32]) -> Vec<u8> {
    let class = |scores: &[i32]| {
        let highest = scores.iter().max();
        let class = scores.iter().position(|score| Some(score) == highest);
        class.unwrap_or(0) as u8
    };
    scores.chunks_exact(10).map(class).collect()
}

/// How many of two lists are equal.
fn share<T: PartialEq>(a: &[T], b: &[T]) -> f64 {
    let equal = a.iter().zip(b).filter(|(a, b)| a == b).count();
    equal as f64 / a.len() as f64
}

fn main() -> Result<()> {
    let Arguments { seed, epochs } = Arguments::parse();
    let args = Args {
        weights: 8,
        activations: 8,
        seed,
        epochs,
        checkpoint: None,
    };
    let data = digits::load()?;
    let test = &data.1;

    let mut float = Trainee::<FullyConnected>::new(&QatConfig::new(), seed)?;
    float.train("float", &data, &args)?;
    let mut quantized = Trainee::<FullyConnected>::new(&args.config()?, seed)?;
    quantized.train("qat", &data, &args)?;

    let integer = IntegerNetwork::new(&quantized.network)?;
    let scores = integer.on_ndarray(test)?;
    ensure!(
        scores == integer.on_candle(test)?,
        "ndarray and candle do not give the same integers"
    );
    let predicted = classes(&scores);
    let fake_quantized = quantized.network.forward_t(&tensors(test)?.0, false)?;
    let fake_quantized: Vec<u32> = fake_quantized.argmax(D::Minus1)?.to_vec1()?;
    let fake_quantized: Vec<u8> = fake_quantized
        .into_iter()
        .map(|class| class as u8)
        .collect();
    println!(
        "the integers of {} images are the same on ndarray and on candle",
        test.labels.len()
    );
    println!(
        "{}",
        serde_json::json!({
            "float_accuracy": float.accuracy(test)?,
            "integer_accuracy": share(&predicted, &test.labels),
            "agreement_with_fake_quantized": share(&predicted, &fake_quantized),
        })
    );
    Ok(())
}
