//! Calibrating after training: a network on real handwritten digits, whose weights and activations are
//! quantized with each way to choose ranges.
//!
//! ```sh
//! cargo run --release --example calibration -- --weights 4 --activations 4
//! ```

#[allow(dead_code)] // The other examples train.
mod digits;

use anyhow::{Context, Result};
use chopi::model::{ObservationPoints, WeightQuantizer};
use chopi::{Calibration, Chopi, Convention, Observer};
use clap::Parser;
use comfy_table::{CellAlignment, Table, presets};
use digits::Digits;
use ndarray::{Array1, Array2, ArrayView2, Axis};
use safetensors::SafeTensors;

/// Quantizes a trained network's weights and activations, and says what that costs.
#[derive(Debug, Parser)]
struct Args {
    /// Bits of the weights: symmetric
    #[arg(long, default_value_t = 4)]
    weights: u32,
    /// Weights with a scale for each output channel, instead of one for each tensor
    #[arg(long)]
    per_channel: bool,
    /// Bits of the activations: asymmetric, per tensor
    #[arg(long, default_value_t = 4)]
    activations: u32,
}

/// A fully connected 64–64–10 network. It names its weights, and what its layers take.
#[derive(Clone, Debug)]
struct Network {
    layers: [Linear; 2],
}

#[derive(Clone, Debug)]
struct Linear {
    name: &'static str,
    weight: Array2<f32>,
    bias: Array1<f32>,
}

impl Network {
    fn load() -> Result<Self> {
        let path = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/examples/data/digits_mlp.safetensors"
        );
        let file = std::fs::read(path).with_context(|| path.to_owned())?;
        let tensors = SafeTensors::deserialize(&file)?;
        let layer = |name, inputs, outputs| -> Result<Linear> {
            let floats = |part: &str| -> Result<Vec<f32>> {
                let data = tensors.tensor(&format!("{name}.{part}"))?.data();
                let (numbers, _) = data.as_chunks();
                Ok(numbers.iter().map(|&b| f32::from_le_bytes(b)).collect())
            };
            Ok(Linear {
                name,
                weight: Array2::from_shape_vec((outputs, inputs), floats("weight")?)?,
                bias: floats("bias")?.into(),
            })
        };
        Ok(Self {
            layers: [layer("hidden", 64, 64)?, layer("output", 64, 10)?],
        })
    }

    /// The outputs for a batch. `input` sees, and may change, what each layer takes.
    fn forward(
        &self,
        x: &Array2<f32>,
        mut input: impl FnMut(&str, Array2<f32>) -> Result<Array2<f32>>,
    ) -> Result<Array2<f32>> {
        let mut x = x.clone();
        for (i, layer) in self.layers.iter().enumerate() {
            if i > 0 {
                x.mapv_inplace(|v| v.max(0.0));
            }
            x = input(&format!("{}.input", layer.name), x)?.dot(&layer.weight.t()) + &layer.bias;
        }
        Ok(x)
    }
}

fn batch(digits: &Digits) -> Result<Array2<f32>> {
    let count = digits.labels.len();
    Ok(ArrayView2::from_shape((count, 64), &digits.images)?.to_owned())
}

/// The share of digits whose largest output is that of their label.
fn accuracy(outputs: &Array2<f32>, digits: &Digits) -> f64 {
    let right = |(row, &label): (ndarray::ArrayView1<'_, f32>, &u8)| {
        let best = row
            .iter()
            .enumerate()
            .max_by(|(_, a), (_, b)| a.total_cmp(b));
        best.is_some_and(|(index, _)| index == usize::from(label))
    };
    let rows = outputs.axis_iter(Axis(0)).zip(&digits.labels);
    rows.map(right).filter(|&right| right).count() as f64 / digits.labels.len() as f64
}

/// The signal-to-noise ratio of the outputs in dB.
fn sqnr_db(float: &Array2<f32>, outputs: &Array2<f32>) -> Result<f64> {
    let metrics = chopi::metrics::compare(float, outputs, chopi::Granularity::PerTensor)?;
    Ok(metrics.iter().map(chopi::metrics::Metrics::sqnr_db).sum())
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (training, test) = digits::load()?;
    let (training, inputs) = (batch(&training)?, batch(&test)?);
    let network = Network::load()?;
    let float = network.forward(&inputs, |_, x| Ok(x))?;

    let mut table = Table::new();
    table.load_preset(presets::ASCII_MARKDOWN);
    table.set_header(["calibration", "test accuracy", "SQNR of the outputs, dB"]);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    let accuracy_of_float = format!("{:.3}", accuracy(&float, &test));
    table.add_row(["(float)", &accuracy_of_float, ""]);
    for calibration in [
        Calibration::MinMax,
        Calibration::Percentile(99.0),
        Calibration::Percentile(99.9),
        Calibration::Percentile(99.99),
        Calibration::MeanSquaredError,
        Calibration::KullbackLeibler,
    ] {
        let quantized = quantized(&network, calibration, &args)?;
        let points = observed(&quantized, calibration, &args, &training)?;
        let parameters = points.params()?;
        let outputs =
            quantized.forward(&inputs, |name, x| Ok(parameters[name].fake_quantize(&x)?))?;
        table.add_row([
            calibration.to_string(),
            format!("{:.3}", accuracy(&outputs, &test)),
            format!("{:.2}", sqnr_db(&float, &outputs)?),
        ]);
    }
    println!("{table}");
    Ok(())
}

/// The network with quantized weights.
fn quantized(network: &Network, calibration: Calibration, args: &Args) -> Result<Network> {
    let scheme = Chopi::builder().num_bits(args.weights).symmetric(true);
    let scheme = match args.per_channel {
        true => scheme.per_channel(0),
        false => scheme,
    };
    let weights = WeightQuantizer::new(scheme, calibration)?;
    let mut network = network.clone();
    for layer in &mut network.layers {
        layer.weight = weights.fake_quantize(&format!("{}.weight", layer.name), &layer.weight)?;
    }
    Ok(network)
}

/// What its layers take of the training digits, in batches.
fn observed(
    network: &Network,
    calibration: Calibration,
    args: &Args,
    training: &Array2<f32>,
) -> Result<ObservationPoints> {
    let scheme = Chopi::builder().num_bits(args.activations).scheme()?;
    let points = ObservationPoints::new(&Observer::new(scheme, Convention::CHOPI, calibration)?);
    for batch in training.axis_chunks_iter(Axis(0), digits::BATCH) {
        network.forward(&batch.to_owned(), |name, x| {
            points.observe(name, &x)?;
            Ok(x)
        })?;
    }
    Ok(points)
}
