//! How a model is quantized.

use chopi_core::{Builder, Calibration, Chopi, QParams};
use chopi_ptq::Method;
use serde::{Deserialize, Serialize};

/// How the layers of a model are quantized.
///
/// ```
/// # mod chopi { pub use chopi_models as models; }
/// use chopi::models::{InputScheme, Scheme};
///
/// // 8-bit weights, a scale for each output, and inputs of 8 bits, each row by its own range.
/// let w8a8 = Scheme::new(8);
/// // 4-bit weights in groups of 32, and inputs of 8 bits.
/// let w4a8 = Scheme::new(4);
/// // 4-bit weights, which are dequantized as they multiply float inputs.
/// let w4 = Scheme { inputs: InputScheme::Float, ..Scheme::new(4) };
/// // 4-bit weights by GPTQ, for `Model::quantize_on`.
/// let gptq = Scheme { method: "gptq".parse()?, ..Scheme::new(4) };
/// # Ok::<(), chopi_ptq::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Scheme {
    /// The scheme of the weights of linear layers, \[outputs, inputs\]: at most 8 bits, per tensor, per channel
    /// of axis 0, or in groups along axis 1.
    pub weights: Builder,
    /// How codes and ranges are chosen. Methods that need data are for [`Model::quantize_on`](crate::Model::quantize_on).
    pub method: Method,
    /// What becomes of the inputs of linear layers.
    pub inputs: InputScheme,
    /// Whether the embeddings, and with them the head of a decoder, are quantized too: to 8 bits, with a scale
    /// for each row.
    pub embeddings: bool,
}

/// How the inputs of linear layers with integer weights are quantized.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum InputScheme {
    /// They stay floats, and multiply dequantized weights.
    Float,
    /// Each row is quantized to 8 bits by its own range, extended to hold 0, and the product is one of integers.
    #[default]
    Dynamic,
    /// Each row is quantized to 4 bits by its own range, extended to hold 0, and the product is one of integers.
    Dynamic4,
    /// All are quantized to 8 bits by one range, which is chosen so from data: for
    /// [`Model::quantize_on`](crate::Model::quantize_on).
    Static(Calibration),
}

/// What becomes of the inputs of a linear layer with integer weights.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Inputs {
    /// They stay floats, and multiply dequantized weights.
    Float,
    /// Each row is quantized to 8 bits by its own range, extended to hold 0, and the product is one of integers.
    #[default]
    Dynamic,
    /// Each row is quantized to 4 bits by its own range, extended to hold 0, and the product is one of integers.
    Dynamic4,
    /// All are quantized by these parameters, per tensor and of at most 8 bits, and the product is one of integers.
    Static(Box<QParams>),
}

impl Scheme {
    /// Symmetric weights of so many bits: with a scale for each output from 8 bits on, and with one for each group
    /// of 32 inputs for fewer; 8-bit inputs, each row by its own range; and 8-bit embeddings.
    pub fn new(bits: u32) -> Self {
        let weights = Chopi::builder().num_bits(bits).symmetric(true);
        Self {
            weights: match bits {
                8.. => weights.per_channel(0),
                _ => weights.per_group(32, 1),
            },
            method: Method::default(),
            inputs: InputScheme::default(),
            embeddings: true,
        }
    }

    /// The scheme of embeddings and heads, where linear layers have this one.
    pub(crate) fn of_embeddings(&self) -> Self {
        Self {
            weights: Chopi::builder().num_bits(8).symmetric(true).per_channel(0),
            method: Method::default(),
            inputs: match self.inputs {
                InputScheme::Static(_) | InputScheme::Dynamic4 => InputScheme::Dynamic,
                other => other,
            },
            ..self.clone()
        }
    }
}
