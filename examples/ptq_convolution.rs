//! A convolutional network, trained in floats on real handwritten digits with candle, whose weights are then
//! quantized with calibration data: ranges equalized between layers, codes by GPTQ, biases corrected.
//!
//! ```sh
//! cargo run --release --example ptq_convolution --features candle,ptq
//! ```

#[allow(dead_code, reason = "the network is trained in floats alone")]
mod digits;

use anyhow::Result;
use candle_core::{D, DType, Device, Tensor, Var};
use candle_nn::{AdamW, Optimizer};
use chopi::ptq::{Method, Moments, Patches, bias_correction, equalization_scales, quantize};
use chopi::{Builder, Chopi, Convention};
use clap::Parser;
use comfy_table::Table;
use digits::{Digits, Initializer};

/// Compares methods on a small convolutional network.
#[derive(Debug, Parser)]
struct Args {
    /// Bits of the weights
    #[arg(long, value_delimiter = ',', default_values_t = [4, 3, 2])]
    bits: Vec<u32>,
    /// How often the training digits are gone through
    #[arg(long, default_value_t = 20)]
    epochs: u32,
}

/// Kernels of 3 × 3 with a column of zeros at each side, or a linear layer where the weight has two axes.
#[derive(Clone)]
struct Layer {
    weight: Tensor,
    bias: Tensor,
    stride: usize,
}

impl Layer {
    fn is_convolution(&self) -> bool {
        self.weight.rank() == 4
    }

    fn forward(&self, x: &Tensor) -> Result<Tensor> {
        Ok(match self.is_convolution() {
            true => x
                .conv2d(&self.weight, 1, self.stride, 1, 1)?
                .broadcast_add(&self.bias.reshape((1, (), 1, 1))?)?,
            false => x
                .flatten_from(1)?
                .matmul(&self.weight.t()?)?
                .broadcast_add(&self.bias)?,
        })
    }

    /// What the methods have to know of the layer's inputs.
    fn moments(&self, x: &Tensor) -> Result<Moments> {
        let mut moments = Moments::new(self.weight.elem_count() / self.weight.dim(0)?)?;
        if self.is_convolution() {
            let patches = Patches {
                stride: [self.stride; 2],
                padding: [1, 1],
                ..Patches::new([3, 3])
            };
            moments.observe_patches(x, &patches, 0..x.dim(1)?)?;
        } else {
            moments.observe(&x.flatten_from(1)?)?;
        }
        Ok(moments)
    }
}

/// Two convolutions and a linear layer, with ReLU between them, for images of 8 × 8 pixels.
#[derive(Clone)]
struct Network([Layer; 3]);

impl Network {
    /// With fresh weights.
    fn new(variable: &mut impl FnMut(&[usize], usize) -> Result<Tensor>) -> Result<Self> {
        let mut layer = |shape: &[usize], stride| {
            let inputs = shape[1..].iter().product();
            anyhow::Ok(Layer {
                weight: variable(shape, inputs)?,
                bias: variable(&shape[..1], inputs)?,
                stride,
            })
        };
        Ok(Self([
            layer(&[8, 1, 3, 3], 1)?,
            layer(&[16, 8, 3, 3], 2)?,
            layer(&[10, 256], 1)?,
        ]))
    }

    fn forward(&self, images: &Tensor) -> Result<Tensor> {
        let [first, second, output] = &self.0;
        let x = first.forward(images)?.relu()?;
        output.forward(&second.forward(&x)?.relu()?)
    }

    fn accuracy(&self, (images, labels): &(Tensor, Tensor)) -> Result<f64> {
        let predicted = self.forward(images)?.argmax(D::Minus1)?;
        let right = predicted.eq(labels)?.to_dtype(DType::F64)?;
        Ok(right.mean_all()?.to_scalar()?)
    }

    /// A network that computes nothing else, but whose layers have ranges that go together: an output of a layer
    /// is divided by a scale, and the next layer's weights for it are multiplied.
    fn equalized(&self) -> Result<Self> {
        let mut layers = self.0.clone();
        for i in 1..layers.len() {
            let [before, after] = &mut layers[i - 1..=i] else {
                unreachable!("the slice has two layers")
            };
            // The linear layer's inputs are pixels by channels.
            let channels = before.weight.dim(0)?;
            let weight = after
                .weight
                .reshape((after.weight.dim(0)?, channels, (), 1))?;
            let scales = equalization_scales(&before.weight, &weight)?;
            let scales = Tensor::new(scales, &Device::Cpu)?.to_dtype(DType::F32)?;
            let of_outputs = scales.reshape((channels, 1, 1, 1))?;
            before.weight = before.weight.broadcast_div(&of_outputs)?;
            before.bias = before.bias.div(&scales)?;
            let scaled = weight.broadcast_mul(&scales.reshape((1, channels, 1, 1))?)?;
            after.weight = scaled.reshape(after.weight.shape())?;
        }
        Ok(Self(layers))
    }

    /// The network with the weights that quantization leaves, each layer's codes chosen for what the quantized
    /// layers before it give.
    fn quantized(&self, images: &Tensor, weights: &Builder, method: &Method) -> Result<Self> {
        let mut layers = self.0.clone();
        let mut x = images.clone();
        for layer in &mut layers {
            let moments = layer.moments(&x)?;
            let scheme = weights.clone().scheme()?;
            let done = quantize(&layer.weight, &moments, &scheme, &Convention::CHOPI, method)?;
            let weight = done.params.dequantize(&done.codes)?;
            let correction = bias_correction(&layer.weight, &weight, &moments)?;
            let correction = Tensor::new(correction, &Device::Cpu)?.to_dtype(DType::F32)?;
            (layer.weight, layer.bias) = (weight, (&layer.bias + correction)?);
            x = layer.forward(&x)?.relu()?;
        }
        Ok(Self(layers))
    }
}

fn main() -> Result<()> {
    let args = Args::parse();
    let (training, test) = digits::load()?;
    let network = train(&training, args.epochs)?;
    let (training, test) = (tensors(&training)?, tensors(&test)?);
    println!("in floats: test accuracy {:.4}", network.accuracy(&test)?);

    let equalized = network.equalized()?;
    let methods = [
        "rtn",
        "rtn+weighted",
        "gptq+weighted",
        "gptq:sweeps=10+weighted",
    ];
    let mut table = Table::new();
    table.set_header(["bits", "scales", "network"].iter().chain(&methods));
    for bits in args.bits {
        let weights = Chopi::builder().num_bits(bits).symmetric(true);
        for (scales, weights) in [
            ("one", weights.clone().per_tensor()),
            ("of each output", weights.per_channel(0)),
        ] {
            for (name, network) in [("as trained", &network), ("equalized", &equalized)] {
                let mut row = vec![bits.to_string(), scales.to_owned(), name.to_owned()];
                for method in methods {
                    let quantized = network.quantized(&training.0, &weights, &method.parse()?)?;
                    row.push(format!("{:.4}", quantized.accuracy(&test)?));
                }
                table.add_row(row);
            }
        }
    }
    println!("{table}");
    Ok(())
}

/// A network trained with Adam.
fn train(digits: &Digits, epochs: u32) -> Result<Network> {
    let mut initializer = Initializer::new(0);
    let mut variables = Vec::new();
    let network = Network::new(&mut |shape, inputs| {
        let values = initializer.uniform(shape.iter().product(), inputs);
        let variable = Var::from_vec(values, shape, &Device::Cpu)?;
        variables.push(variable.clone());
        Ok(variable.as_tensor().clone())
    })?;
    let mut adam = AdamW::new_lr(variables, 3e-3)?;
    for epoch in 1..=epochs {
        for batch in digits.batches(0, epoch) {
            let (images, labels) = tensors(&batch)?;
            let loss = candle_nn::loss::cross_entropy(&network.forward(&images)?, &labels)?;
            adam.backward_step(&loss)?;
        }
    }
    Ok(network)
}

/// Images, \[count, 1, 8, 8\], and labels.
fn tensors(digits: &Digits) -> Result<(Tensor, Tensor)> {
    let count = digits.labels.len();
    let images = Tensor::from_slice(&digits.images, (count, 1, 8, 8), &Device::Cpu)?;
    let labels = Tensor::from_slice(&digits.labels, count, &Device::Cpu)?;
    Ok((images, labels.to_dtype(DType::U32)?))
}
