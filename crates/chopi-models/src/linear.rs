//! The one type of linear layers, and tables.

use std::fmt;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use chopi_candle::Candle;
use chopi_core::QParams;
use chopi_core::backend::{Backend, IntTensor};
use chopi_formats::Quantized;
use chopi_matmul::{Activations, QuantizedEmbedding, QuantizedLinear};

use crate::error::{Error, Result};
use crate::observe::Observe;
use crate::scheme::{Inputs, Scheme};
use crate::weights::{Matrix, Weights};

/// A linear layer of a model, y = x·Wᵀ + b: in floats, or with integer weights.
#[derive(Clone)]
pub struct Linear {
    name: String,
    weight: Weight,
    bias: Option<Tensor>,
    inputs: Inputs,
    made: Option<Made>,
}

/// Codes that were made of a model's floats, and are in no file yet.
pub(crate) type Made = Arc<chopi_formats::Tensor>;

/// The weights of a layer, \[outputs, inputs\].
#[derive(Clone)]
enum Weight {
    Float(Tensor),
    /// Inputs are quantized, and the product is one of integers; the bias is the layer's own.
    Integer(Box<QuantizedLinear>),
    /// Weights are dequantized, some outputs at a time, and multiply floats.
    Dequantized(Box<QuantizedEmbedding>),
}

/// How many outputs of a layer with float inputs are dequantized at a time.
const BLOCK: usize = 256;

impl Linear {
    /// The layer of this name, with the weights `name.weight` and, where there should be one, the bias
    /// `name.bias`.
    pub(crate) fn read(
        weights: &Weights,
        name: &str,
        (inputs, outputs): (usize, usize),
        bias: bool,
    ) -> Result<Self> {
        let matrix = weights.matrix(&format!("{name}.weight"), (outputs, inputs))?;
        let bias = match bias {
            true => Some(weights.get(&format!("{name}.bias"), &[outputs])?),
            false => None,
        };
        Self::new(name, &matrix, bias, weights.inputs(name))
    }

    /// A layer of these weights.
    pub(crate) fn new(
        name: &str,
        matrix: &Matrix,
        bias: Option<Tensor>,
        inputs: Inputs,
    ) -> Result<Self> {
        let name = name.to_owned();
        let weight = match matrix {
            Matrix::Float(weight) => Weight::Float(weight.clone()),
            Matrix::Codes(codes) => Weight::integer(&name, codes, bias.as_ref(), &inputs)?,
        };
        Ok(Self {
            name,
            weight,
            bias,
            inputs,
            made: None,
        })
    }

    /// The name that Hugging Face gives the layer, as `model.layers.0.self_attn.q_proj`.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The weights, \[outputs, inputs\], unless they are integers.
    pub fn weight(&self) -> Option<&Tensor> {
        match &self.weight {
            Weight::Float(weight) => Some(weight),
            _ => None,
        }
    }

    /// The bias, \[outputs\].
    pub fn bias(&self) -> Option<&Tensor> {
        self.bias.as_ref()
    }

    /// What becomes of the inputs, if the weights are integers.
    pub fn inputs(&self) -> &Inputs {
        &self.inputs
    }

    /// The codes, unless they are those of the model's files.
    pub(crate) fn made(&self) -> Option<&Made> {
        self.made.as_ref()
    }

    /// Whether the weights are integers.
    pub fn is_quantized(&self) -> bool {
        self.weight().is_none()
    }

    /// Quantizes the weights as `scheme` says; a layer whose weights are integers stays as it is.
    ///
    /// # Errors
    /// What quantizing the weights says, as for NaN; an invalid scheme; weights that the integer product does
    /// not take.
    pub fn quantize(&mut self, scheme: &Scheme) -> Result<()> {
        let Weight::Float(weight) = &self.weight else {
            return Ok(());
        };
        let codes = quantized(&self.name, weight, scheme)?;
        self.set_made(made(codes), scheme.inputs.clone())
    }

    /// Gives the layer integer weights, \[outputs, inputs\], with parameters per tensor, per channel of axis 0
    /// or in groups along axis 1.
    ///
    /// # Errors
    /// Weights of another shape, or that the integer product does not take.
    pub fn set_codes<B: Backend, Q: IntTensor<B> + ?Sized>(
        &mut self,
        codes: &Q,
        params: &QParams,
        inputs: Inputs,
    ) -> Result<()> {
        let codes = Quantized::of(params.clone(), codes).map_err(Error::layer(&self.name))?;
        self.set_made(made(codes), inputs)
    }

    /// Gives the layer codes, which another may have too.
    pub(crate) fn set_made(&mut self, made: Made, inputs: Inputs) -> Result<()> {
        if let chopi_formats::Tensor::Quantized(codes) = &*made {
            self.weight = Weight::integer(&self.name, codes, self.bias.as_ref(), &inputs)?;
            self.made = Some(made);
            self.inputs = inputs;
        }
        Ok(())
    }

    /// The output for an input of shape \[rows, inputs\], which `observer` sees before.
    ///
    /// # Errors
    /// What `observer` says; an input of another shape; an input that cannot be quantized, as with NaN.
    pub fn forward(&self, x: &Tensor, observer: &mut dyn Observe) -> Result<Tensor> {
        observer.observe(&self.name, x)?;
        let y = match &self.weight {
            Weight::Float(weight) => x.matmul(&weight.t()?)?,
            Weight::Integer(layer) => {
                let y = layer.forward::<Candle, _>(x);
                return y.map_err(Error::layer(&self.name));
            }
            Weight::Dequantized(table) => {
                let rows = table.rows() as u32;
                let block = |first: u32| {
                    let indices: Vec<u32> = (first..rows.min(first + BLOCK as u32)).collect();
                    let weight = lookup(table, &indices).map_err(Error::layer(&self.name))?;
                    Ok(x.matmul(&weight.t()?)?)
                };
                let blocks = (0..rows).step_by(BLOCK).map(block);
                Tensor::cat(&blocks.collect::<Result<Vec<_>>>()?, 1)?
            }
        };
        match &self.bias {
            Some(bias) => Ok(y.broadcast_add(bias)?),
            None => Ok(y),
        }
    }
}

impl Weight {
    /// Integer weights of the layer of this name.
    fn integer(
        name: &str,
        codes: &Quantized,
        bias: Option<&Tensor>,
        inputs: &Inputs,
    ) -> Result<Self> {
        let (named, params) = (|| Error::layer(name), codes.params());
        match inputs {
            Inputs::Float => {
                let table = QuantizedEmbedding::new(codes, params).map_err(named())?;
                Ok(Self::Dequantized(Box::new(table)))
            }
            Inputs::Dynamic | Inputs::Static(_) => {
                let activations = match inputs {
                    Inputs::Static(params) => Activations::Static((**params).clone()),
                    _ => Activations::default(),
                };
                let layer = QuantizedLinear::new(codes, params, activations);
                let mut layer = layer.map_err(named())?;
                if let Some(bias) = bias {
                    layer = layer.with_bias(bias.to_vec1()?).map_err(named())?;
                }
                Ok(Self::Integer(Box::new(layer)))
            }
        }
    }
}

impl fmt::Debug for Linear {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match &self.weight {
            Weight::Float(_) => "float",
            Weight::Integer(_) => "integer",
            Weight::Dequantized(_) => "integer weights",
        };
        f.debug_struct("Linear")
            .field("name", &self.name)
            .field("weight", &kind)
            .finish_non_exhaustive()
    }
}

/// A table of rows: an embedding.
#[derive(Clone, Debug)]
pub(crate) struct Table {
    name: String,
    rows: Rows,
    made: Option<Made>,
}

#[derive(Clone, Debug)]
enum Rows {
    Float(Tensor),
    Integer(Box<QuantizedEmbedding>),
}

impl Table {
    /// The table of this name.
    pub(crate) fn new(name: &str, matrix: &Matrix) -> Result<Self> {
        let name = name.to_owned();
        let rows = match matrix {
            Matrix::Float(rows) => Rows::Float(rows.clone()),
            Matrix::Codes(codes) => Rows::integer(&name, codes)?,
        };
        Ok(Self {
            name,
            rows,
            made: None,
        })
    }

    /// Quantizes the rows; a table of integers stays as it is.
    pub(crate) fn quantize(&mut self, scheme: &Scheme) -> Result<()> {
        let Rows::Float(rows) = &self.rows else {
            return Ok(());
        };
        let codes = quantized(&self.name, rows, scheme)?;
        self.rows = Rows::integer(&self.name, &codes)?;
        self.made = Some(made(codes));
        Ok(())
    }

    /// The name that Hugging Face gives the table.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// The codes, unless they are those of the model's files.
    pub(crate) fn made(&self) -> Option<&Made> {
        self.made.as_ref()
    }

    /// The rows of these indices, \[indices, columns\].
    pub(crate) fn lookup(&self, indices: &[u32]) -> Result<Tensor> {
        match &self.rows {
            Rows::Float(rows) => {
                let indices = Tensor::new(indices, rows.device())?;
                Ok(rows.index_select(&indices, 0)?)
            }
            Rows::Integer(table) => lookup(table, indices).map_err(Error::layer(&self.name)),
        }
    }
}

impl Rows {
    fn integer(name: &str, codes: &Quantized) -> Result<Self> {
        let table = QuantizedEmbedding::new(codes, codes.params()).map_err(Error::layer(name))?;
        Ok(Self::Integer(Box::new(table)))
    }
}

/// Rows of a table of integers.
fn lookup(table: &QuantizedEmbedding, indices: &[u32]) -> chopi_matmul::Result<Tensor> {
    let mut values = vec![0.0; indices.len() * table.columns()];
    table.lookup(indices, &mut values)?;
    let tensor = Tensor::from_vec(values, (indices.len(), table.columns()), &Device::Cpu);
    tensor.map_err(|error| {
        chopi_matmul::Error::Quantization(chopi_core::Error::Framework {
            backend: <Candle as Backend>::NAME,
            source: error.into(),
        })
    })
}

/// Codes as a file keeps them.
fn made(codes: Quantized) -> Made {
    Arc::new(chopi_formats::Tensor::Quantized(Box::new(codes)))
}

/// The codes of a matrix and their parameters.
fn quantized(name: &str, weight: &Tensor, scheme: &Scheme) -> Result<Quantized> {
    let quantize = || {
        let quantizer = scheme.weights.clone().build()?;
        let (scheme_of, convention) = (quantizer.scheme(), quantizer.convention());
        let ranges = scheme.calibration.observe(weight, scheme_of, convention)?;
        let params = QParams::from_ranges(&ranges, scheme_of, convention)?;
        let codes = params.quantize(weight)?;
        // candle has no type of 8 signed bits; here they take no more.
        Quantized::of(params, &codes)
    };
    quantize().map_err(Error::layer(name))
}
