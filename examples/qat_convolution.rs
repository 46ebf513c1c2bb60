//! Quantization-aware training of a small convolutional network with candle, on real handwritten
//! digits: two convolutions, the first of them folded with the batch normalization after it, and a
//! linear layer.
//!
//! ```sh
//! cargo run --release --example qat_convolution --features candle -- --epochs 15
//! ```

mod digits;

use anyhow::Result;
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{Conv2dConfig, ModuleT, VarBuilder, VarMap};
use chopi::candle::nn::{
    Adam, AdamConfig, QuantizedConv2d, QuantizedConvBn2d, QuantizedLinear, load_checkpoint,
    save_checkpoint,
};
use chopi::training::{QatConfig, Quantizers};
use clap::Parser;
use digits::{Args, Digits, Initializer};

/// A network, its variables and its fake-quantizers.
struct Network {
    first: QuantizedConvBn2d,
    second: QuantizedConv2d,
    output: QuantizedLinear,
    variables: VarMap,
    quantizers: Quantizers,
}

impl Network {
    fn new(config: &QatConfig, seed: u64) -> Result<Self> {
        let (variables, quantizers) = (VarMap::new(), Quantizers::new());
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
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
        let first =
            QuantizedConvBn2d::from_layers(conv, norm, config, vb.pp("first"), &quantizers)?;
        let (sizes, vb_second) = ((8, 16, 3), vb.pp("second"));
        let second = QuantizedConv2d::new(sizes, strided, config, vb_second, &quantizers)?;
        let output = QuantizedLinear::new(256, 10, config, vb.pp("output"), &quantizers)?;
        let mut initializer = Initializer::new(seed);
        for (tensor, inputs) in [
            (Some(first.conv().weight()), 9),
            (Some(second.layer().weight()), 72),
            (second.layer().bias(), 72),
            (Some(output.layer().weight()), 256),
            (output.layer().bias(), 256),
        ] {
            let tensor = tensor.expect("made with a bias");
            let values = initializer.uniform(tensor.elem_count(), inputs);
            let values = Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?;
            Var::from_tensor(tensor)?.set(&values)?;
        }
        Ok(Self {
            first,
            second,
            output,
            variables,
            quantizers,
        })
    }

    fn forward(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        let x = self.first.forward_t(x, train)?.relu()?;
        let x = self.second.forward_t(&x, train)?.relu()?;
        self.output.forward_t(&x.flatten_from(1)?, train)
    }

    /// Takes the values of another network's variables.
    fn take_variables(&mut self, other: &Self) -> Result<()> {
        let data = other.variables.data().lock().expect("nothing panicked");
        let values = data.iter().map(|(name, var)| (name, var.as_tensor()));
        Ok(self.variables.set(values)?)
    }

    fn accuracy(&self, digits: &Digits) -> Result<f64> {
        let (x, y) = tensors(digits)?;
        let predicted = self.forward(&x, false)?.argmax(D::Minus1)?;
        let right = predicted.eq(&y)?.to_dtype(DType::F64)?.mean_all()?;
        Ok(right.to_scalar()?)
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
            });
            let mut sum = 0.0;
            for batch in training.batches(args.seed, epoch) {
                let (x, y) = tensors(&batch)?;
                let loss = candle_nn::loss::cross_entropy(&self.forward(&x, true)?, &y)?;
                adam.backward_step(&loss)?;
                sum += f64::from(loss.to_scalar::<f32>()?);
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
    let count = digits.labels.len();
    let x = Tensor::from_slice(&digits.images, (count, 1, 8, 8), &Device::Cpu)?;
    let y = Tensor::from_slice(&digits.labels, count, &Device::Cpu)?;
    Ok((x, y.to_dtype(DType::U32)?))
}

fn main() -> Result<()> {
    let args = Args::parse();
    let data = digits::load()?;

    let mut float = Network::new(&QatConfig::new(), args.seed)?;
    float.train("float", &data, &args)?;

    // Quantized after training: the fake-quantizers see the training digits once.
    let mut after = Network::new(&args.observed()?, args.seed)?;
    after.take_variables(&float)?;
    after.forward(&tensors(&data.0)?.0, true)?;

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
