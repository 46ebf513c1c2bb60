//! Layers with integer weights, written to a file and read by name.

use std::collections::BTreeMap;
use std::path::Path;

use chopi_core::backend::{Backend, Compute, Float, FloatTensor, FloatType, collected};
use chopi_core::{Chopi, QParams};
use chopi_matmul::conv::{ConvParams, QuantizedConv};
use chopi_matmul::{Activations, QuantizedEmbedding, QuantizedLinear};

use crate::chopi::Chopi as Layout;
use crate::error::{Error, Fault, Result};
use crate::header::Header;
use crate::with_float;
use crate::{Model, Plain, Plan, Quantized, Tensor, TensorPlan};

/// The key of the parameters of inputs in a file's metadata.
const INPUTS: &str = "chopi_inputs";

/// Quantizes the layers of a model, of tensors of any framework, and writes them to a file in chopi's own layout,
/// which a [`LayerReader`] reads.
///
/// ```
/// # mod chopi { pub use chopi_core::*; pub use chopi_formats as formats; }
/// # use chopi_ndarray as _;
/// use chopi::Chopi;
/// use chopi::formats::{LayerReader, LayerWriter};
/// use ndarray::{Array1, Array2};
///
/// let (weight, bias) = (Array2::<f32>::ones((16, 32)), Array1::<f32>::zeros(16));
/// let weights = Chopi::builder().num_bits(8).symmetric(true).per_channel(0).build()?;
///
/// let mut writer = LayerWriter::new();
/// writer.layer("output", &weight, weights)?.bias(Some(&bias))?;
/// # let folder = tempfile::tempdir()?;
/// # let path = folder.path().join("layers.safetensors");
/// writer.save(&path)?;
///
/// let layer = LayerReader::open(&path)?.linear("output")?;
/// let y = layer.forward(&Array2::<f32>::ones((4, 32)))?;
/// assert_eq!(y.dim(), (4, 16));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Default)]
pub struct LayerWriter {
    tensors: Vec<(String, Tensor)>,
    inputs: BTreeMap<String, QParams>,
}

/// A layer that was added to a [`LayerWriter`], to which a bias and the parameters of its input can be added.
#[derive(Debug)]
pub struct LayerEntry<'a> {
    writer: &'a mut LayerWriter,
    name: String,
}

impl LayerWriter {
    /// A file of no layers.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a linear layer, a convolution or an embedding, as `name.weight`, quantized by `weights`, which takes
    /// its parameters from the weight where it is not calibrated.
    ///
    /// # Errors
    /// The errors of [`Chopi::quantize`].
    pub fn layer<B: Backend, T: FloatTensor<B> + ?Sized>(
        &mut self,
        name: &str,
        weight: &T,
        mut weights: Chopi,
    ) -> chopi_core::Result<LayerEntry<'_>> {
        let codes = weights.quantize(weight)?;
        let params = weights.into_params();
        let params = params.ok_or(chopi_core::Error::NotCalibrated)?;
        let codes = Tensor::Quantized(Box::new(Quantized::of(params, &codes)?));
        self.tensors.push((format!("{name}.weight"), codes));
        let name = name.to_owned();
        Ok(LayerEntry { writer: self, name })
    }

    /// Adds a tensor of floats as it is.
    ///
    /// # Errors
    /// [`chopi_core::Error::Dtype`] for a dtype that is none of floats; [`chopi_core::Error::Memory`].
    pub fn tensor<B: Backend, T: FloatTensor<B> + ?Sized>(
        &mut self,
        name: &str,
        tensor: &T,
    ) -> chopi_core::Result<()> {
        let plain = Tensor::Plain(Plain::of(tensor)?);
        self.tensors.push((name.to_owned(), plain));
        Ok(())
    }

    /// Writes the file, which appears whole or not at all.
    ///
    /// # Errors
    /// Two tensors of one name; a file that is there already, or one that cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let inputs = serde_json::to_string(&self.inputs).map_err(|error| inputs(path, &error))?;
        let header = Header::new([(INPUTS.to_owned(), inputs)].into());
        let mut plan = Plan::new(&Layout).with_header(header);
        for (name, tensor) in &self.tensors {
            plan.add(TensorPlan::of(name, tensor));
        }
        let writer = plan.create(path, false)?;
        for (name, tensor) in &self.tensors {
            writer.write(name, tensor)?;
        }
        writer.finish()
    }
}

impl LayerEntry<'_> {
    /// Adds the layer's bias, as `name.bias`, if there is one.
    ///
    /// # Errors
    /// The errors of [`LayerWriter::tensor`].
    pub fn bias<B: Backend, T: FloatTensor<B> + ?Sized>(
        self,
        bias: Option<&T>,
    ) -> chopi_core::Result<Self> {
        if let Some(bias) = bias {
            self.writer.tensor(&format!("{}.bias", self.name), bias)?;
        }
        Ok(self)
    }

    /// Sets the parameters by which the layer's input will be quantized. Without them each row is, and of a
    /// convolution each image, by its own range.
    pub fn input(self, params: QParams) -> Self {
        self.writer.inputs.insert(self.name.clone(), params);
        self
    }
}

/// Reads layers with integer weights by name: from a file that a [`LayerWriter`] wrote, or any that
/// [`open`](crate::open) opens. The layers take tensors of any framework.
#[derive(Debug)]
pub struct LayerReader {
    model: Model,
    inputs: BTreeMap<String, QParams>,
}

impl LayerReader {
    /// Opens a file or a folder; only headers are read.
    ///
    /// # Errors
    /// The errors of [`open`](crate::open); [`Error::LayerInputs`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let model = crate::open(path)?;
        let inputs = match model.metadata().get(INPUTS) {
            None => BTreeMap::new(),
            Some(text) => {
                let read = serde_json::from_str(text);
                read.map_err(|error| inputs(model.path(), &error))?
            }
        };
        Ok(Self { model, inputs })
    }

    /// The linear layer of a name. Where the file has no parameters for its input, each row is quantized to 8 bits by
    /// its own range.
    ///
    /// # Errors
    /// [`Error::NoTensor`] for weights that are not there, [`Error::Tensor`] for some that are not quantized;
    /// [`Error::Layer`] for the errors of [`QuantizedLinear::new`].
    pub fn linear(&self, name: &str) -> Result<QuantizedLinear> {
        let (codes, bias) = (self.codes(name)?, self.bias(name)?);
        let layer = QuantizedLinear::new(&codes, codes.params(), self.input(name));
        let layer = layer.and_then(|layer| match bias {
            None => Ok(layer),
            Some(bias) => layer.with_bias(bias),
        });
        layer.map_err(|source| self.failed(name, source))
    }

    /// The convolution of a name, along as many axes as its weights have. Where the file has no parameters for its
    /// input, each image is quantized to 8 bits by its own range.
    ///
    /// # Errors
    /// [`Error::NoTensor`] for weights that are not there, [`Error::Tensor`] for some that are not quantized;
    /// [`Error::Layer`] for the errors of [`QuantizedConv::new`].
    pub fn conv(&self, name: &str, convolution: ConvParams) -> Result<QuantizedConv> {
        let (codes, bias) = (self.codes(name)?, self.bias(name)?);
        let layer = QuantizedConv::new(&codes, codes.params(), convolution, self.input(name));
        let layer = layer.and_then(|layer| match bias {
            None => Ok(layer),
            Some(bias) => layer.with_bias(bias),
        });
        layer.map_err(|source| self.failed(name, source))
    }

    /// The embedding of a name.
    ///
    /// # Errors
    /// [`Error::NoTensor`] for rows that are not there, [`Error::Tensor`] for some that are not quantized;
    /// [`Error::Layer`] for the errors of [`QuantizedEmbedding::new`].
    pub fn embedding(&self, name: &str) -> Result<QuantizedEmbedding> {
        let codes = self.codes(name)?;
        let layer = QuantizedEmbedding::new(&codes, codes.params());
        layer.map_err(|source| self.failed(name, source))
    }

    /// The floats of a tensor; codes are dequantized.
    ///
    /// # Errors
    /// [`Error::NoTensor`]; [`Error::Tensor`] for one of a dtype that is none of floats.
    pub fn tensor(&self, name: &str) -> Result<Plain> {
        let plain = self.model.read(name)?.dequantize();
        let plain = plain.map_err(|fault| self.fault(name, fault))?;
        match plain.float_type() {
            Some(_) => Ok(plain),
            None => {
                let found = plain.dtype();
                Err(self.fault(name, Fault::NotFloats { found }))
            }
        }
    }

    /// The model that the layers are read from.
    pub fn model(&self) -> &Model {
        &self.model
    }

    fn codes(&self, name: &str) -> Result<Quantized> {
        let name = format!("{name}.weight");
        match self.model.read(&name)? {
            Tensor::Quantized(codes) => Ok(*codes),
            _ => Err(self.fault(&name, Fault::NotQuantized)),
        }
    }

    fn bias(&self, layer: &str) -> Result<Option<Vec<f32>>> {
        let name = format!("{layer}.bias");
        if self.model.get(&name).is_none() {
            return Ok(None);
        }
        let bias = self.tensor(&name)?;
        let float = bias.float_type().unwrap_or(FloatType::F32);
        let narrow = with_float!(float, F => {
            let elements = bias.elements::<F>().unwrap_or_default();
            collected(elements.iter().map(|x| x.widen().as_f64() as f32))
        });
        let bias = narrow.map_err(|error| self.fault(&name, error.into()))?;
        Ok(Some(bias))
    }

    fn input(&self, name: &str) -> Activations {
        let params = self.inputs.get(name).cloned();
        params.map_or_else(Activations::default, Activations::Static)
    }

    fn fault(&self, name: &str, fault: Fault) -> Error {
        Error::Tensor {
            path: self.model.path().to_owned(),
            tensor: name.to_owned(),
            fault: Box::new(fault),
        }
    }

    fn failed(&self, layer: &str, source: chopi_matmul::Error) -> Error {
        Error::Layer {
            path: self.model.path().to_owned(),
            layer: layer.to_owned(),
            source: Box::new(source),
        }
    }
}

fn inputs(path: &Path, error: &serde_json::Error) -> Error {
    Error::LayerInputs {
        path: path.to_owned(),
        reason: error.to_string(),
    }
}
