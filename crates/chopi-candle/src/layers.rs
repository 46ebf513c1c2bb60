//! Layers with integer weights, written to a file and read by name.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Embedding, Linear};
use chopi_core::{Chopi, QParams};
use chopi_formats::chopi::Chopi as Layout;
use chopi_formats::header::Header;
use chopi_formats::{Dtype, Model, Plain, Plan, Quantized, TensorPlan};
use chopi_matmul::Activations;

use crate::integer::{
    QuantizedConv, QuantizedEmbedding, QuantizedLinear, conv1d_params, conv2d_params, quantized,
    wrap,
};

/// The key of the parameters of inputs in a file's metadata.
const INPUTS: &str = "chopi_inputs";

/// Quantizes the layers of a model, and writes them to a file in chopi's own layout, which a [`LayerReader`] reads.
///
/// ```
/// use candle_core::{Device, Tensor};
/// use candle_nn::{Linear, Module};
/// use chopi_candle::{LayerReader, LayerWriter};
/// use chopi_core::Chopi;
///
/// let weight = Tensor::randn(0_f32, 1.0, (16, 32), &Device::Cpu)?;
/// let layer = Linear::new(weight, None);
/// let weights = Chopi::builder().num_bits(8).symmetric(true).per_channel(0).build()?;
///
/// let mut writer = LayerWriter::new();
/// writer.linear("output", &layer, weights, None)?;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("layers.safetensors");
/// writer.save(&path)?;
///
/// let layer = LayerReader::open(&path)?.linear("output")?;
/// let x = Tensor::randn(0_f32, 1.0, (4, 32), &Device::Cpu)?;
/// assert_eq!(layer.forward(&x)?.dims(), [4, 16]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct LayerWriter {
    tensors: Vec<(String, chopi_formats::Tensor)>,
    inputs: BTreeMap<String, QParams>,
}

impl LayerWriter {
    /// A file of no layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a linear layer, as `name.weight` and `name.bias`, with its weights quantized by `weights`. By the
    /// parameters `input` its input will be quantized, or without them each row by its own range.
    ///
    /// # Errors
    /// What quantizing the weights says.
    pub fn linear(
        &mut self,
        name: &str,
        layer: &Linear,
        weights: Chopi,
        input: Option<QParams>,
    ) -> Result<()> {
        self.layer(name, (layer.weight(), layer.bias()), weights, input)
    }

    /// Adds a convolution along one axis, as [`linear`](Self::linear) adds a linear layer; without `input`, each
    /// image is quantized by its own range.
    ///
    /// # Errors
    /// What quantizing the weights says.
    pub fn conv1d(
        &mut self,
        name: &str,
        layer: &Conv1d,
        weights: Chopi,
        input: Option<QParams>,
    ) -> Result<()> {
        self.layer(name, (layer.weight(), layer.bias()), weights, input)
    }

    /// Adds a convolution along two axes, as [`linear`](Self::linear) adds a linear layer; without `input`, each
    /// image is quantized by its own range.
    ///
    /// # Errors
    /// What quantizing the weights says.
    pub fn conv2d(
        &mut self,
        name: &str,
        layer: &Conv2d,
        weights: Chopi,
        input: Option<QParams>,
    ) -> Result<()> {
        self.layer(name, (layer.weight(), layer.bias()), weights, input)
    }

    /// Adds an embedding, as `name.weight`, with its rows quantized by `rows`.
    ///
    /// # Errors
    /// What quantizing the rows says.
    pub fn embedding(&mut self, name: &str, layer: &Embedding, rows: Chopi) -> Result<()> {
        self.layer(name, (layer.embeddings(), None), rows, None)
    }

    /// Adds a tensor of floats as it is.
    ///
    /// # Errors
    /// A dtype that is none of floats.
    pub fn tensor(&mut self, name: &str, tensor: &Tensor) -> Result<()> {
        let plain = Plain::of(tensor).map_err(wrap)?;
        self.tensors
            .push((name.to_owned(), chopi_formats::Tensor::Plain(plain)));
        Ok(())
    }

    fn layer(
        &mut self,
        name: &str,
        (weight, bias): (&Tensor, Option<&Tensor>),
        weights: Chopi,
        input: Option<QParams>,
    ) -> Result<()> {
        let (codes, params) = quantized(weight, weights)?;
        let codes = Quantized::of(params, &codes).map_err(wrap)?;
        let codes = chopi_formats::Tensor::Quantized(Box::new(codes));
        self.tensors.push((format!("{name}.weight"), codes));
        if let Some(bias) = bias {
            self.tensor(&format!("{name}.bias"), bias)?;
        }
        if let Some(input) = input {
            self.inputs.insert(name.to_owned(), input);
        }
        Ok(())
    }

    /// Writes the file, which appears whole or not at all.
    ///
    /// # Errors
    /// Two tensors of one name; a file that is there already; what the system says.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let inputs = serde_json::to_string(&self.inputs).map_err(wrap)?;
        let header = Header::new([(INPUTS.to_owned(), inputs)].into());
        let mut plan = Plan::new(&Layout).with_header(header);
        for (name, tensor) in &self.tensors {
            plan.add(TensorPlan::of(name, tensor));
        }
        let writer = plan.create(path.as_ref(), false).map_err(wrap)?;
        for (name, tensor) in &self.tensors {
            writer.write(name, tensor).map_err(wrap)?;
        }
        writer.finish().map_err(wrap)
    }
}

/// Reads layers with integer weights by name, as a `VarBuilder` reads layers of floats: from a file that a
/// [`LayerWriter`] wrote, or any that [`chopi_formats::open`] opens.
#[derive(Debug)]
pub struct LayerReader {
    model: Model,
    inputs: BTreeMap<String, QParams>,
}

impl LayerReader {
    /// Opens a file or a folder; only headers are read.
    ///
    /// # Errors
    /// What is wrong with the file.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let model = chopi_formats::open(path).map_err(wrap)?;
        let inputs = match model.metadata().get(INPUTS) {
            Some(inputs) => serde_json::from_str(inputs).map_err(wrap)?,
            None => BTreeMap::new(),
        };
        Ok(Self { model, inputs })
    }

    /// The linear layer of a name. Where the file has no parameters for its input, each row is quantized to 8 bits by
    /// its own range.
    ///
    /// # Errors
    /// Weights that are not there or not quantized; the errors of [`chopi_matmul::QuantizedLinear::new`].
    pub fn linear(&self, name: &str) -> Result<QuantizedLinear> {
        let (codes, bias) = self.layer(name)?;
        QuantizedLinear::new(&codes, codes.params(), self.input(name), bias.as_ref())
    }

    /// The convolution along one axis of a name.
    ///
    /// # Errors
    /// Weights that are not there or not quantized; the errors of [`chopi_matmul::conv::QuantizedConv::new`].
    pub fn conv1d(&self, name: &str, config: &Conv1dConfig) -> Result<QuantizedConv> {
        let (codes, bias) = self.layer(name)?;
        let (params, input) = (conv1d_params(config), self.input(name));
        QuantizedConv::new(&codes, codes.params(), params, input, bias.as_ref())
    }

    /// The convolution along two axes of a name.
    ///
    /// # Errors
    /// Weights that are not there or not quantized; the errors of [`chopi_matmul::conv::QuantizedConv::new`].
    pub fn conv2d(&self, name: &str, config: &Conv2dConfig) -> Result<QuantizedConv> {
        let (codes, bias) = self.layer(name)?;
        let (params, input) = (conv2d_params(config), self.input(name));
        QuantizedConv::new(&codes, codes.params(), params, input, bias.as_ref())
    }

    /// The embedding of a name.
    ///
    /// # Errors
    /// Rows that are not there or not quantized; the errors of [`chopi_matmul::QuantizedEmbedding::new`].
    pub fn embedding(&self, name: &str) -> Result<QuantizedEmbedding> {
        let codes = self.codes(name)?;
        QuantizedEmbedding::new(&codes, codes.params())
    }

    /// The floats of a tensor.
    ///
    /// # Errors
    /// A tensor that is not there, or of a dtype that is none of floats.
    pub fn tensor(&self, name: &str) -> Result<Tensor> {
        let plain = self.model.read(name).map_err(wrap)?;
        let plain = plain.dequantize().map_err(wrap)?;
        let dtype = match plain.dtype() {
            Dtype::F16 => DType::F16,
            Dtype::BF16 => DType::BF16,
            Dtype::F32 => DType::F32,
            Dtype::F64 => DType::F64,
            other => candle_core::bail!("{name} has the dtype {other}, expected floats"),
        };
        Tensor::from_raw_buffer(plain.bytes(), dtype, plain.shape(), &Device::Cpu)
    }

    fn layer(&self, name: &str) -> Result<(Quantized, Option<Tensor>)> {
        let bias = format!("{name}.bias");
        let bias = match self.model.get(&bias) {
            Some(_) => Some(self.tensor(&bias)?),
            None => None,
        };
        Ok((self.codes(name)?, bias))
    }

    fn codes(&self, name: &str) -> Result<Quantized> {
        match self.model.read(&format!("{name}.weight")).map_err(wrap)? {
            chopi_formats::Tensor::Quantized(codes) => Ok(*codes),
            _ => candle_core::bail!("{name}.weight is not quantized"),
        }
    }

    fn input(&self, name: &str) -> Activations {
        let params = self.inputs.get(name).cloned();
        params.map_or_else(Activations::default, Activations::Static)
    }
}
