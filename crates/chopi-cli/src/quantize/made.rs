//! What a method that sees data has made of a model, before anything is written.

use std::collections::BTreeMap;
use std::sync::Arc;

use chopi::formats::Tensor;
use chopi::ptq::LayerError;
use serde::Serialize;

use super::chooser::Chooser;

/// The tensors that a method has made, by their names.
#[derive(Debug, Default)]
pub struct Made {
    pub tensors: BTreeMap<String, Arc<Tensor>>,
    /// The error of the outputs of each layer on the text, by the name of its weights.
    pub errors: BTreeMap<String, LayerError>,
    /// Whether scales were moved between tensors, so that their values are others.
    pub scaled: bool,
    /// How good the model is on text that the method has not seen.
    pub held_out: Option<HeldOut>,
    /// What chooses codes of tensors as they are written, on statistics.
    pub chooser: Option<Chooser>,
}

/// How good models are on text that the method has not seen.
#[derive(Clone, Debug, Serialize)]
pub struct HeldOut {
    pub measure: Measure,
    pub float: f64,
    /// With the nearest codes of the smallest and the largest value.
    pub nearest: f64,
    /// With the codes that were chosen.
    pub quantized: f64,
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
#[cfg_attr(
    not(feature = "models"),
    expect(dead_code, reason = "methods that see data run the model")
)]
pub enum Measure {
    /// Of a decoder: less is better.
    Perplexity,
    /// Of the embeddings of an encoder to those of the float model: more is better.
    Cosine,
}

impl Made {
    pub fn get(&self, name: &str) -> Option<&Tensor> {
        self.tensors.get(name).map(|tensor| &**tensor)
    }
}

impl HeldOut {
    /// What is said of it.
    pub fn said(&self) -> String {
        let (name, worse) = match self.measure {
            Measure::Perplexity => ("perplexity", self.quantized > self.nearest),
            Measure::Cosine => ("mean cosine", self.quantized < self.nearest),
        };
        let Self {
            float,
            nearest,
            quantized,
            ..
        } = self;
        let warning = match worse {
            true => "; nearest codes are better here",
            false => "",
        };
        format!(
            "{name} on text held out: {quantized:.4}, nearest codes {nearest:.4}, float {float:.4}{warning}"
        )
    }
}
