//! What the training examples share: the data, the batches, the fresh weights, what is quantized and
//! how, and what is printed.

use anyhow::{Context, Result};
use chopi::Chopi;
use chopi::training::{FakeQuantizer, Initialization, Learning, QatConfig, RangeObserver};
use clap::Parser;
use comfy_table::Table;
use rand::rngs::StdRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};
use safetensors::SafeTensors;

/// How many of the digits are for training; the others are for testing.
const TRAINING: usize = 1297;
pub const BATCH: usize = 64;
/// The learning rate of weights and biases, at first.
const LEARNING_RATE: f64 = 3e-3;
/// That of learned scales is so much of it: scales are smaller numbers.
const OF_SCALES: f64 = 1.0 / 3.0;
/// After this epoch both are a tenth, so that the training ends where it stands and not where the
/// last batches took it.
const DECAYED_AFTER: u32 = 48;
/// From this number of bits up the parameters come from observers; below, scales are learned.
const OBSERVED_BITS: u32 = 4;

/// Trains a network on real handwritten digits: in float, quantized after training, and trained with
/// quantization.
#[derive(Debug, Parser)]
pub struct Args {
    /// Bits of the weights: symmetric, per output channel
    #[arg(long, default_value_t = 4)]
    pub weights: u32,
    /// Bits of the activations: asymmetric, per tensor
    #[arg(long, default_value_t = 4)]
    pub activations: u32,
    /// Of the first weights and the order of the batches
    #[arg(long, default_value_t = 0)]
    pub seed: u64,
    /// How often the training digits are gone through
    #[arg(long, default_value_t = 60)]
    pub epochs: u32,
    /// The training with quantization saves itself here after each epoch, and goes on from there
    #[arg(long)]
    pub checkpoint: Option<std::path::PathBuf>,
}

impl Args {
    /// What the layers quantize after training: by the range of the data.
    pub fn observed(&self) -> Result<QatConfig> {
        let weights = Chopi::builder()
            .num_bits(self.weights)
            .symmetric(true)
            .per_channel(0)
            .build()?;
        let activations = Chopi::new(self.activations)?;
        Ok(QatConfig::new()
            .weights(FakeQuantizer::new(weights).observer(RangeObserver::Latest))
            .activations(FakeQuantizer::new(activations)))
    }

    /// What they quantize in training: likewise, or where there are few bits with learned scales.
    pub fn config(&self) -> Result<QatConfig> {
        let observed = self.observed()?;
        let learning = Learning {
            initialization: Initialization::MeanMagnitude,
            ..Learning::lsq()
        };
        let learned = |quantizer: Option<&FakeQuantizer>, bits: u32| {
            let quantizer = quantizer.cloned().context("it is quantized")?;
            anyhow::Ok(match bits {
                OBSERVED_BITS.. => quantizer,
                _ => quantizer.learning(learning),
            })
        };
        Ok(QatConfig::new()
            .weights(learned(observed.weight_quantizer(), self.weights)?)
            .activations(learned(observed.activation_quantizer(), self.activations)?))
    }
}

/// Digits as rows of 64 numbers in 0..=1, and their labels.
#[derive(Debug, Default)]
pub struct Digits {
    pub images: Vec<f32>,
    pub labels: Vec<u8>,
}

/// The digits for training and for testing.
pub fn load() -> Result<(Digits, Digits)> {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/examples/data/digits.safetensors"
    );
    let file = std::fs::read(path).with_context(|| path.to_owned())?;
    let tensors = SafeTensors::deserialize(&file)?;
    let images: Vec<f32> = tensors
        .tensor("images")?
        .data()
        .iter()
        .map(|&pixel| f32::from(pixel) / 16.0)
        .collect();
    let labels = tensors.tensor("labels")?.data().to_vec();
    let (first, last) = images.split_at(64 * TRAINING);
    let digits = |images: &[f32], labels: &[u8]| Digits {
        images: images.to_vec(),
        labels: labels.to_vec(),
    };
    let (training, test) = labels.split_at(TRAINING);
    Ok((digits(first, training), digits(last, test)))
}

impl Digits {
    /// The batches of an epoch, in an order that depends on the seed and the epoch alone.
    pub fn batches(&self, seed: u64, epoch: u32) -> Vec<Digits> {
        let mut order: Vec<usize> = (0..self.labels.len()).collect();
        order.shuffle(&mut StdRng::seed_from_u64(
            (seed << 32) + u64::from(epoch) + 1,
        ));
        let batch = |indices: &[usize]| Digits {
            images: indices
                .iter()
                .flat_map(|&i| self.images[64 * i..64 * (i + 1)].iter().copied())
                .collect(),
            labels: indices.iter().map(|&i| self.labels[i]).collect(),
        };
        order.chunks(BATCH).map(batch).collect()
    }
}

/// The learning rates of an epoch: of weights and biases, and of learned scales.
pub fn learning_rates(epoch: u32) -> (f64, f64) {
    let rate = match epoch {
        ..=DECAYED_AFTER => LEARNING_RATE,
        _ => LEARNING_RATE / 10.0,
    };
    (rate, rate * OF_SCALES)
}

/// The fresh weights of a network, the same in every framework.
#[derive(Debug)]
pub struct Initializer(StdRng);

impl Initializer {
    pub fn new(seed: u64) -> Self {
        Self(StdRng::seed_from_u64(seed << 32))
    }

    /// Uniform in ±1/√`inputs`: PyTorch's layers start so.
    pub fn uniform(&mut self, count: usize, inputs: usize) -> Vec<f32> {
        let bound = 1.0 / (inputs as f32).sqrt();
        (0..count)
            .map(|_| self.0.random_range(-bound..bound))
            .collect()
    }
}

/// One line of the learning curve.
pub fn print_epoch(training: &str, epoch: u32, loss: f64, accuracy: f64) {
    println!("{training:5} epoch {epoch:3}: loss {loss:.4}, test accuracy {accuracy:.4}");
}

/// The table, and the last line.
#[allow(dead_code, reason = "not every example compares these three")]
pub fn print_results(args: &Args, [float, ptq, qat]: [f64; 3]) {
    let mut table = Table::new();
    table.set_header(["network", "test accuracy", "to float"]);
    let bits = format!("W{}A{}", args.weights, args.activations);
    for (network, accuracy) in [
        ("float".to_owned(), float),
        (format!("{bits}, quantized after training"), ptq),
        (format!("{bits}, trained with quantization"), qat),
    ] {
        let difference = format!("{:+.4}", accuracy - float);
        table.add_row([network, format!("{accuracy:.4}"), difference]);
    }
    println!("{table}");
    println!(
        "{}",
        serde_json::json!({"float": float, "ptq": ptq, "qat": qat})
    );
}
