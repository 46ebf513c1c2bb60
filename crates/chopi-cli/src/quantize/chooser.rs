//! Codes chosen by a method, tensor by tensor, on the statistics of a file.

use std::path::Path;

use chopi::backend::{Backend, FloatTensor};
use chopi::ptq::{self, Method, Quantization};
use serde_json::{Map, Value};

use crate::archive::Archive;
use crate::args::{QuantizeArgs, Settings};
use crate::error::{Error, Result};
use crate::statistics::LayerStatistics;

/// Chooses codes by what they do to the outputs of layers, whose inputs are those of the float model.
#[derive(Debug)]
pub struct Chooser {
    statistics: LayerStatistics,
    method: Method,
}

impl Chooser {
    /// By the statistics of the command line, if there are any.
    ///
    /// # Errors
    /// A file that does not hold statistics, or those of another model.
    pub fn new(
        args: &QuantizeArgs,
        archives: &[Archive],
        config: &Map<String, Value>,
    ) -> Result<Option<Self>> {
        let Some(path) = &args.method.statistics else {
            return Ok(None);
        };
        let model = &args.files.input;
        Ok(Some(Self {
            statistics: LayerStatistics::open(path, model, archives, config)?,
            method: args.method.method,
        }))
    }

    /// The codes of a tensor of the file at `path`; none where the statistics do not have its layer.
    ///
    /// # Errors
    /// What is wrong with the tensor or its statistics.
    pub fn quantize<B: Backend, T: FloatTensor<B>>(
        &self,
        path: &Path,
        name: &str,
        x: &T,
        settings: &Settings,
    ) -> Result<Option<Quantization<T::Int>>> {
        let Some(moments) = self.statistics.of(name)? else {
            return Ok(None);
        };
        let (scheme, convention) = (&settings.scheme, &settings.convention);
        let chosen = ptq::quantize(x, &moments, scheme, convention, &self.method);
        chosen.map(Some).map_err(|source| Error::Method {
            path: path.to_owned(),
            tensor: name.to_owned(),
            source: Box::new(source),
        })
    }

    /// Whether the statistics have the layer of a tensor.
    pub fn has(&self, tensor: &str) -> bool {
        self.statistics.has(tensor)
    }
}
