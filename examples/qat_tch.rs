//! Quantization-aware training with libtorch: a fully connected 64–64–10 network on real handwritten
//! digits; `qat_candle.rs` is the same program on candle.
//!
//! ```sh
//! cargo run --release --example qat_tch --features tch -- --weights 4 --activations 4
//! ```

mod digits;

use anyhow::Result;
use chopi::tch::nn::{Adam, AdamConfig, QatLinear, Weighted, load_checkpoint, save_checkpoint};
use chopi::training::{QatConfig, Quantizers};
use clap::Parser;
use digits::{Args, Digits, Initializer};
use tch::nn::VarStore;
use tch::{Device, Kind, Tensor, no_grad};

/// A network, its variables and its fake-quantizers.
struct Network {
    hidden: QatLinear,
    output: QatLinear,
    variables: VarStore,
    quantizers: Quantizers,
}

impl Network {
    fn new(config: &QatConfig, seed: u64) -> Result<Self> {
        let (variables, quantizers) = (VarStore::new(Device::Cpu), Quantizers::new());
        let root = variables.root();
        let hidden = QatLinear::new(64, 64, config, &(&root / "hidden"), &quantizers)?;
        let output = QatLinear::new(64, 10, config, &(&root / "output"), &quantizers)?;
        let mut initializer = Initializer::new(seed);
        for layer in [&hidden, &output] {
            for tensor in [Some(layer.layer().weight()), layer.layer().bias()] {
                let tensor = tensor.expect("made with a bias");
                let values = initializer.uniform(tensor.numel(), 64);
                let values = Tensor::from_slice(&values).reshape(tensor.size());
                no_grad(|| tensor.shallow_clone().f_copy_(&values))?;
            }
        }
        Ok(Self {
            hidden,
            output,
            variables,
            quantizers,
        })
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor> {
        let hidden = self.hidden.f_forward_t(x, train)?.f_relu()?;
        Ok(self.output.f_forward_t(&hidden, train)?)
    }

    /// Takes the values of another network's variables.
    fn take_variables(&mut self, other: &Self) -> Result<()> {
        Ok(self.variables.copy(&other.variables)?)
    }

    fn accuracy(&self, digits: &Digits) -> Result<f64> {
        let (x, y) = tensors(digits)?;
        let logits = no_grad(|| self.forward(&x, false))?;
        Ok(f64::try_from(logits.accuracy_for_logits(&y))?)
    }

    /// Trains, from a checkpoint on if there is one.
    fn train(&mut self, name: &str, data: &(Digits, Digits), args: &Args) -> Result<()> {
        let (training, test) = data;
        let mut adam = Adam::new(&self.variables, &self.quantizers, AdamConfig::default())?;
        let batches = training.labels.len().div_ceil(digits::BATCH) as u32;
        let checkpoint = args.checkpoint.as_ref().filter(|_| name == "qat");
        if let Some(path) = checkpoint.filter(|path| path.exists()) {
            load_checkpoint(path, &mut self.variables, &self.quantizers, Some(&mut adam))?;
        }
        for epoch in adam.steps() / batches + 1..=args.epochs {
            let (learning_rate, quantizer_learning_rate) = digits::learning_rates(epoch);
            adam.set_config(AdamConfig {
                learning_rate,
                quantizer_learning_rate,
                ..AdamConfig::default()
            })?;
            let mut sum = 0.0;
            for batch in training.batches(args.seed, epoch) {
                let (x, y) = tensors(&batch)?;
                let loss = self.forward(&x, true)?.cross_entropy_for_logits(&y);
                adam.backward_step(&loss)?;
                sum += f64::try_from(&loss)?;
            }
            let accuracy = self.accuracy(test)?;
            digits::print_epoch(name, epoch, sum / f64::from(batches), accuracy);
            if let Some(path) = checkpoint {
                save_checkpoint(path, &self.variables, &self.quantizers, Some(&adam))?;
            }
        }
        Ok(())
    }
}

fn tensors(digits: &Digits) -> Result<(Tensor, Tensor)> {
    let x = Tensor::f_from_slice(&digits.images)?.f_reshape([-1, 64])?;
    let y = Tensor::f_from_slice(&digits.labels)?.f_to_kind(Kind::Int64)?;
    Ok((x, y))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let data = digits::load()?;

    let mut float = Network::new(&QatConfig::new(), args.seed)?;
    float.train("float", &data, &args)?;

    // Quantized after training: the fake-quantizers see the training digits once.
    let mut after = Network::new(&args.observed()?, args.seed)?;
    after.take_variables(&float)?;
    let _ = after.forward(&tensors(&data.0)?.0, true)?;

    let mut trained = Network::new(&args.config()?, args.seed)?;
    trained.train("qat", &data, &args)?;

    let test = &data.1;
    digits::print_results(
        &args,
        [
            float.accuracy(test)?,
            after.accuracy(test)?,
            trained.accuracy(test)?,
        ],
    );
    Ok(())
}
