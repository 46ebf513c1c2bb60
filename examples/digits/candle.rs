//! The fully connected 64–64–10 network on candle.

use anyhow::Result;
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{ModuleT, VarBuilder, VarMap};
use chopi::candle::nn::{Adam, AdamConfig, QuantizedLinear, load_checkpoint, save_checkpoint};
use chopi::training::{QatConfig, Quantizers};

use crate::digits::{self, Args, Digits, Initializer};

/// A network, its variables and its fake-quantizers.
pub struct Network {
    pub hidden: QuantizedLinear,
    pub output: QuantizedLinear,
    pub variables: VarMap,
    quantizers: Quantizers,
}

impl Network {
    /// With fresh weights.
    pub fn new(config: &QatConfig, seed: u64) -> Result<Self> {
        let (variables, quantizers) = (VarMap::new(), Quantizers::new());
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let network = Self {
            hidden: QuantizedLinear::new(64, 64, config, vb.pp("hidden"), &quantizers)?,
            output: QuantizedLinear::new(64, 10, config, vb.pp("output"), &quantizers)?,
            variables,
            quantizers,
        };
        let mut initializer = Initializer::new(seed);
        for layer in [&network.hidden, &network.output] {
            for tensor in [Some(layer.layer().weight()), layer.layer().bias()] {
                let tensor = tensor.expect("made with a bias");
                let values = initializer.uniform(tensor.elem_count(), 64);
                let values = Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?;
                Var::from_tensor(tensor)?.set(&values)?;
            }
        }
        Ok(network)
    }

    pub fn forward(&self, x: &Tensor, train: bool) -> candle_core::Result<Tensor> {
        let hidden = self.hidden.forward_t(x, train)?.relu()?;
        self.output.forward_t(&hidden, train)
    }

    pub fn accuracy(&self, digits: &Digits) -> Result<f64> {
        let (x, y) = tensors(digits)?;
        let predicted = self.forward(&x, false)?.argmax(D::Minus1)?;
        let right = predicted.eq(&y)?.to_dtype(DType::F64)?.mean_all()?;
        Ok(right.to_scalar()?)
    }

    /// Trains, from a checkpoint on if there is one.
    pub fn train(&mut self, name: &str, data: &(Digits, Digits), args: &Args) -> Result<()> {
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

/// Images as rows, and labels.
pub fn tensors(digits: &Digits) -> Result<(Tensor, Tensor)> {
    let count = digits.labels.len();
    let x = Tensor::from_slice(&digits.images, (count, 64), &Device::Cpu)?;
    let y = Tensor::from_slice(&digits.labels, count, &Device::Cpu)?;
    Ok((x, y.to_dtype(DType::U32)?))
}
