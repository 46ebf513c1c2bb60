//! What quantization costs a training step in candle: forward, backward and Adam of a fully connected
//! 512–512–512–10 network (ReLU) at batch 256, weights and inputs of every layer quantized to 8 bits,
//! as a ratio to the same step in float.
//!
//! ```sh
//! RAYON_NUM_THREADS=1 cargo bench --bench training --features candle
//! ```
//!
//! The steps take turns, so that whatever else runs on the machine slows all of them down, and the
//! medians are compared. `training.py` beside this measures PyTorch's in the same way.

use std::time::{Duration, Instant};

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{ModuleT, VarBuilder, VarMap};
use chopi::Chopi;
use chopi::candle::nn::{Adam, AdamConfig, QatLinear};
use chopi::training::{FakeQuantizer, Learning, QatConfig, Quantizers, RangeObserver};

const BATCH: usize = 256;
const WIDTHS: [usize; 4] = [512, 512, 512, 10];
const ROUNDS: usize = 100;
const WARM_UP: usize = 10;

struct Training {
    name: &'static str,
    layers: Vec<QatLinear>,
    adam: Adam,
    times: Vec<Duration>,
}

impl Training {
    fn new(name: &'static str, config: &QatConfig) -> Result<Self> {
        let (variables, quantizers) = (VarMap::new(), Quantizers::new());
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let layer = |i: usize| {
            let vb = vb.pp(i.to_string());
            QatLinear::new(WIDTHS[i], WIDTHS[i + 1], config, vb, &quantizers)
        };
        Ok(Self {
            name,
            layers: (0..WIDTHS.len() - 1).map(layer).collect::<Result<_>>()?,
            adam: Adam::new(&variables, &quantizers, AdamConfig::default())?,
            times: Vec::new(),
        })
    }

    fn step(&mut self, x: &Tensor, y: &Tensor) -> Result<()> {
        let start = Instant::now();
        let mut x = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            if i > 0 {
                x = x.relu()?;
            }
            x = layer.forward_t(&x, true)?;
        }
        let loss = candle_nn::loss::cross_entropy(&x, y)?;
        self.adam.backward_step(&loss)?;
        self.times.push(start.elapsed());
        Ok(())
    }

    fn median(&self) -> f64 {
        let mut times = self.times[WARM_UP..].to_vec();
        times.sort();
        times[times.len() / 2].as_secs_f64()
    }
}

fn configs() -> anyhow::Result<[(&'static str, QatConfig); 4]> {
    let weights = Chopi::builder().num_bits(8).symmetric(true);
    let weights = FakeQuantizer::new(weights.per_channel(0).build()?);
    let weights = weights.observer(RangeObserver::Latest);
    let activations = FakeQuantizer::new(Chopi::new(8)?);
    let learned = |learning| {
        QatConfig::new()
            .weights(weights.clone().learning(learning))
            .activations(activations.clone().learning(learning))
    };
    let observed = QatConfig::new()
        .weights(weights.clone())
        .activations(activations.clone());
    Ok([
        ("float", QatConfig::new()),
        ("observers", observed),
        ("LSQ", learned(Learning::lsq())),
        ("LSQ+", learned(Learning::lsq_plus())),
    ])
}

fn main() -> anyhow::Result<()> {
    let mut trainings = Vec::new();
    for (name, config) in configs()? {
        trainings.push(Training::new(name, &config)?);
    }
    let x = Tensor::rand(0_f32, 1.0, (BATCH, WIDTHS[0]), &Device::Cpu)?;
    let labels: Vec<u32> = (0..BATCH as u32).map(|i| i % 10).collect();
    let y = Tensor::new(labels, &Device::Cpu)?;
    for _ in 0..WARM_UP + ROUNDS {
        for training in &mut trainings {
            training.step(&x, &y)?;
        }
    }
    let float = trainings[0].median();
    for training in &trainings {
        let median = training.median();
        println!(
            "{:9} {:6.2} ms, {:.2} x float",
            training.name,
            median * 1e3,
            median / float
        );
    }
    Ok(())
}
