//! The one type of linear layers, and tables.

use std::fmt;
use std::sync::Arc;

use candle_core::{Device, Tensor};
use chopi_candle::Candle;
use chopi_core::backend::{Backend, IntTensor};
use chopi_core::{Chopi, Convention, Observer, QParams};
use chopi_formats::{Plain, Quantized};
use chopi_matmul::{Activations, QuantizedEmbedding, QuantizedLinear};
use chopi_ptq::{LayerError, Method, RangeMethod, Rounding, Scaling};

use crate::error::{Error, Result};
use crate::layerwise::{Before, Divide};
use crate::observe::Observe;
use crate::rotation::Rotation;
use crate::scheme::{InputScheme, Inputs, Scheme};
use crate::weights::{Matrix, Weights};

/// A linear layer of a model, y = x·Wᵀ + b: in floats, or with integer weights.
#[derive(Clone)]
pub struct Linear {
    name: String,
    weight: Weight,
    bias: Option<Tensor>,
    inputs: Inputs,
    /// The weights, unless they are as in the model's files.
    made: Option<Made>,
    /// The bias, unless it is as in the model's files.
    made_bias: Option<Made>,
}

/// A tensor that was made of a model's floats, and is in no file yet.
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
            made_bias: None,
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

    /// The weights, unless they are as in the model's files.
    pub(crate) fn made(&self) -> Option<&Made> {
        self.made.as_ref()
    }

    /// The tensors that are not as in the model's files, by their names.
    pub(crate) fn changed(&self) -> impl Iterator<Item = (String, &Made)> {
        let both = [("weight", &self.made), ("bias", &self.made_bias)];
        both.into_iter()
            .filter_map(|(of, made)| Some((format!("{}.{of}", self.name), made.as_ref()?)))
    }

    /// Whether the weights are integers.
    pub fn is_quantized(&self) -> bool {
        self.weight().is_none()
    }

    /// Quantizes the weights as `scheme` says; a layer whose weights are integers stays as it is.
    ///
    /// # Errors
    /// What quantizing the weights says, as for NaN; an invalid scheme, or one that needs data; weights that the
    /// integer product does not take.
    pub fn quantize(&mut self, scheme: &Scheme) -> Result<()> {
        let Weight::Float(weight) = &self.weight else {
            return Ok(());
        };
        let inputs = match scheme.inputs {
            InputScheme::Float => Inputs::Float,
            InputScheme::Dynamic => Inputs::Dynamic,
            InputScheme::Dynamic4 => Inputs::Dynamic4,
            InputScheme::Static(_) => {
                return Err(Error::NeedsData {
                    what: "a range of inputs".to_owned(),
                });
            }
        };
        let codes = quantized(&self.name, weight, scheme)?;
        self.set_made(made(codes), inputs)
    }

    /// Quantizes weights in floats as `scheme` says, for these inputs, whose moments `seen` has.
    pub(crate) fn quantize_on(
        &mut self,
        scheme: &Scheme,
        seen: &chopi_ptq::Inputs<'_>,
        inputs: &[Tensor],
    ) -> Result<Option<LayerError>> {
        let Weight::Float(weight) = &self.weight else {
            return Ok(None);
        };
        let named = || Error::layer(&self.name);
        let quantizer = scheme.weights.clone().build().map_err(named())?;
        let (of_weights, convention) = (quantizer.scheme(), quantizer.convention());
        let quantization =
            seen.quantize::<Candle, _>(weight, of_weights, convention, &scheme.method);
        let quantization = quantization.map_err(Error::ptq(&self.name))?;
        let codes = Quantized::of(quantization.params, &quantization.codes).map_err(named())?;
        let inputs = match scheme.inputs {
            InputScheme::Float => Inputs::Float,
            InputScheme::Dynamic => Inputs::Dynamic,
            InputScheme::Dynamic4 => Inputs::Dynamic4,
            InputScheme::Static(calibration) => {
                let params = || {
                    let scheme = Chopi::builder().num_bits(8).scheme()?;
                    let mut observer = Observer::new(scheme, Convention::CHOPI, calibration)?;
                    inputs.iter().try_for_each(|x| observer.observe(x))?;
                    observer.params()
                };
                Inputs::Static(Box::new(params().map_err(named())?))
            }
        };
        self.set_made(made(codes), inputs)?;
        Ok(Some(quantization.error))
    }

    /// Multiplies the weights of each input by its number, \[inputs\]; integers stay as they are.
    pub(crate) fn multiply_inputs(&mut self, by: &Tensor) -> Result<()> {
        if let Weight::Float(weight) = &self.weight {
            self.set_floats(weight.broadcast_mul(by)?)?;
        }
        Ok(())
    }

    /// Rotates the inputs, in blocks of as many as the rotation has; integers stay as they are.
    pub(crate) fn rotate_inputs(&mut self, rotation: &Rotation) -> Result<()> {
        if let Weight::Float(weight) = &self.weight {
            self.set_floats(rotation.rows(weight)?)?;
        }
        Ok(())
    }

    /// Rotates the outputs, in blocks of as many as the rotation has; integers stay as they are.
    pub(crate) fn rotate_outputs(&mut self, rotation: &Rotation) -> Result<()> {
        if let Weight::Float(weight) = &self.weight {
            self.set_floats(rotation.columns(weight)?)?;
            if let Some(bias) = &self.bias {
                self.set_bias(rotation.rows(&bias.unsqueeze(0)?)?.squeeze(0)?)?;
            }
        }
        Ok(())
    }

    fn set_bias(&mut self, bias: Tensor) -> Result<()> {
        self.made_bias = Some(made_floats(&bias)?);
        self.bias = Some(bias);
        Ok(())
    }

    fn set_floats(&mut self, weight: Tensor) -> Result<()> {
        self.made = Some(made_floats(&weight)?);
        self.weight = Weight::Float(weight);
        Ok(())
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

impl Divide for Linear {
    fn kind(&self) -> Before {
        match self.is_quantized() {
            true => Before::Integers,
            false => Before::Floats,
        }
    }

    /// Divides the weights and the bias of each output by its number, \[outputs\].
    fn divide(&mut self, by: &Tensor) -> Result<()> {
        if let Weight::Float(weight) = &self.weight {
            self.set_floats(weight.broadcast_div(&by.unsqueeze(1)?)?)?;
            if let Some(bias) = &self.bias {
                self.set_bias((bias / by)?)?;
            }
        }
        Ok(())
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
            Inputs::Dynamic | Inputs::Dynamic4 | Inputs::Static(_) => {
                let activations = match inputs {
                    Inputs::Static(params) => Activations::Static((**params).clone()),
                    Inputs::Dynamic4 => {
                        Activations::Dynamic(Chopi::builder().num_bits(4).include_zero())
                    }
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

    /// Whether the rows are integers.
    pub(crate) fn is_quantized(&self) -> bool {
        matches!(self.rows, Rows::Integer(_))
    }

    /// Rotates the rows; integers stay as they are.
    pub(crate) fn rotate(&mut self, rotation: &Rotation) -> Result<()> {
        if let Rows::Float(rows) = &self.rows {
            let rows = rotation.rows(rows)?;
            self.made = Some(made_floats(&rows)?);
            self.rows = Rows::Float(rows);
        }
        Ok(())
    }

    /// The rows, unless they are those of the model's files.
    pub(crate) fn made(&self) -> Option<&Made> {
        self.made.as_ref()
    }

    /// The rows with the name of their tensor, unless they are those of the model's files.
    pub(crate) fn changed(&self) -> Option<(String, &Made)> {
        Some((format!("{}.weight", self.name), self.made.as_ref()?))
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

/// Floats as a file keeps them.
pub(crate) fn made_floats(x: &Tensor) -> Result<Made> {
    let plain = Plain::of::<Candle, _>(x).map_err(candle_core::Error::wrap)?;
    Ok(Arc::new(chopi_formats::Tensor::Plain(plain)))
}

/// The codes of a matrix and their parameters, by a method that needs no data.
fn quantized(name: &str, weight: &Tensor, scheme: &Scheme) -> Result<Quantized> {
    if needs_data(&scheme.method) {
        let what = scheme.method.to_string();
        return Err(Error::NeedsData { what });
    }
    let ranges = scheme.method.ranges;
    let named = || Error::layer(name);
    let quantizer = scheme.weights.clone().build().map_err(named())?;
    let (scheme, convention) = (quantizer.scheme(), quantizer.convention());
    let ranges = match ranges {
        RangeMethod::Calibration(calibration) => {
            let ranges = calibration.observe(weight, scheme, convention);
            ranges.map_err(named())?
        }
        _ => {
            let ranges = chopi_ptq::half_quadratic_ranges::<Candle, _>(weight, scheme, convention);
            ranges.map_err(Error::ptq(name))?
        }
    };
    let params = QParams::from_ranges(&ranges, scheme, convention).map_err(named())?;
    let codes = params.quantize(weight).map_err(named())?;
    // candle has no type of 8 signed bits; here they take no more.
    Quantized::of(params, &codes).map_err(named())
}

/// Whether a method asks for what layers take.
fn needs_data(method: &Method) -> bool {
    let Method {
        rotation: _,
        scaling,
        ranges,
        rounding,
    } = method;
    *scaling != Scaling::None || *ranges == RangeMethod::Weighted || *rounding != Rounding::Nearest
}
