//! Training on candle.

use anyhow::Result;
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{ModuleT, VarBuilder, VarMap};
use chopi::candle::nn::{Adam, AdamConfig, load_checkpoint, save_checkpoint};
use chopi::training::{QatConfig, Quantizers};

use crate::digits::{self, Args, Digits, Initializer};

/// A network of quantized layers, for rows of 64 pixels.
pub trait Network: ModuleT + Sized {
    fn new(config: &QatConfig, vb: VarBuilder<'_>, quantizers: &Quantizers) -> Result<Self>;

    /// The weights and the biases, with the number of inputs that each of their sums has.
    fn weights(&self) -> Vec<(Option<&Tensor>, usize)>;
}

/// A network, its variables and its fake-quantizers.
pub struct Trainee<N> {
    pub network: N,
    variables: VarMap,
    quantizers: Quantizers,
}

impl<N: Network> Trainee<N> {
    /// With fresh weights.
    pub fn new(config: &QatConfig, seed: u64) -> Result<Self> {
        let (variables, quantizers) = (VarMap::new(), Quantizers::new());
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let network = N::new(config, vb, &quantizers)?;
        let mut initializer = Initializer::new(seed);
        for (tensor, inputs) in network.weights() {
            let tensor = tensor.expect("made with a bias");
            let values = initializer.uniform(tensor.elem_count(), inputs);
            let values = Tensor::from_vec(values, tensor.shape(), &Device::Cpu)?;
            Var::from_tensor(tensor)?.set(&values)?;
        }
        Ok(Self {
            network,
            variables,
            quantizers,
        })
    }

    pub fn accuracy(&self, digits: &Digits) -> Result<f64> {
        let (x, y) = tensors(digits)?;
        let predicted = self.network.forward_t(&x, false)?.argmax(D::Minus1)?;
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
            })?;
            let mut sum = 0.0;
            for batch in training.batches(args.seed, epoch) {
                let (x, y) = tensors(&batch)?;
                let logits = self.network.forward_t(&x, true)?;
                let loss = candle_nn::loss::cross_entropy(&logits, &y)?;
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

    /// Takes the values of another network's variables.
    fn take_variables(&mut self, other: &Self) -> Result<()> {
        let data = other.variables.data().lock().expect("nothing panicked");
        let values = data.iter().map(|(name, var)| (name, var.as_tensor()));
        Ok(self.variables.set(values)?)
    }
}

/// Trains a network in float and with quantization, quantizes the first one after its training too, and
/// prints what the three are worth.
#[allow(dead_code, reason = "not every example compares these three")]
pub fn compare<N: Network>(args: &Args) -> Result<()> {
    let data = digits::load()?;

    let mut float = Trainee::<N>::new(&QatConfig::new(), args.seed)?;
    float.train("float", &data, args)?;

    // Quantized after training: the fake-quantizers see the training digits once.
    let mut after = Trainee::<N>::new(&args.observed()?, args.seed)?;
    after.take_variables(&float)?;
    after.network.forward_t(&tensors(&data.0)?.0, true)?;

    let mut trained = Trainee::<N>::new(&args.config()?, args.seed)?;
    trained.train("qat", &data, args)?;

    let test = &data.1;
    digits::print_results(
        args,
        [
            float.accuracy(test)?,
            after.accuracy(test)?,
            trained.accuracy(test)?,
        ],
    );
    Ok(())
}

/// Images as rows, and labels.
pub fn tensors(digits: &Digits) -> Result<(Tensor, Tensor)> {
    let count = digits.labels.len();
    let x = Tensor::from_slice(&digits.images, (count, 64), &Device::Cpu)?;
    let y = Tensor::from_slice(&digits.labels, count, &Device::Cpu)?;
    Ok((x, y.to_dtype(DType::U32)?))
}
