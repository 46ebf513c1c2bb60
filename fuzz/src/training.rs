//! A small training with candle, whose checkpoints are read.

use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{ModuleT, VarBuilder, VarMap};
use chopi::Chopi;
use chopi::candle::nn::{Adam, AdamConfig, QatLinear, load_checkpoint, save_checkpoint};
use chopi::training::{FakeQuantizer, Learning, QatConfig, Quantizers, RangeObserver};

/// A layer of two outputs, what it learns, and its optimizer.
pub struct Training {
    layer: QatLinear,
    inputs: usize,
    pub variables: VarMap,
    pub quantizers: Quantizers,
    pub adam: Adam,
}

impl Training {
    /// A layer of so many inputs, whose scale is learned or observed. Its variables are not random.
    pub fn new(inputs: usize, learned: bool) -> Self {
        let weights = Chopi::builder().num_bits(4).symmetric(true).per_channel(0);
        let weights = FakeQuantizer::new(weights.build().expect("a scheme"));
        let activations = FakeQuantizer::new(Chopi::new(8).expect("a scheme"));
        let activations = match learned {
            true => activations.learning(Learning::lsq()),
            false => activations,
        };
        let config = QatConfig::new()
            .weights(weights.observer(RangeObserver::Latest))
            .activations(activations);
        let (variables, quantizers) = (VarMap::new(), Quantizers::new());
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let layer = QatLinear::new(inputs, 2, &config, vb.pp("fc"), &quantizers).expect("a layer");
        for (_, variable) in variables.data().lock().expect("one thread").iter() {
            let value = variable.ones_like().expect("a tensor");
            variable.set(&value).expect("of its shape");
        }
        let adam = Adam::new(&variables, &quantizers, AdamConfig::default()).expect("Adam");
        Self {
            layer,
            inputs,
            variables,
            quantizers,
            adam,
        }
    }

    /// One step.
    pub fn step(&mut self) -> Result<()> {
        let x = Tensor::ones((2, self.inputs), DType::F32, &Device::Cpu)?;
        let y = self.layer.forward_t(&x, true)?;
        self.adam.backward_step(&y.sum_all()?)
    }

    /// Reads a checkpoint, with the moments of the optimizer or without.
    pub fn load(&mut self, path: &Path, moments: bool) -> Result<()> {
        let adam = moments.then_some(&mut self.adam);
        load_checkpoint(path, &mut self.variables, &self.quantizers, adam)
    }

    /// Writes a checkpoint, with the moments of the optimizer or without.
    pub fn save(&self, path: &Path, moments: bool) -> Result<()> {
        let adam = moments.then_some(&self.adam);
        save_checkpoint(path, &self.variables, &self.quantizers, adam)
    }
}
