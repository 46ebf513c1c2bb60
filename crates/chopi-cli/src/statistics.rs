//! What the layers of a model take, from a file of statistics.

use std::path::Path;

use chopi::ptq::{Moments, StatisticsFile};
use serde_json::{Map, Value};

use crate::architecture::{Role, WEIGHT};
use crate::archive::Archive;
use crate::compressed_tensors::Weights;
use crate::error::{Error, Result};

/// The second moments of the inputs of layers; that of the layer NAME is for the tensor `NAME.weight`.
#[derive(Debug)]
pub struct LayerStatistics {
    file: StatisticsFile,
}

impl LayerStatistics {
    /// Opens a file, all layers of which a model has to have, with as many inputs.
    ///
    /// # Errors
    /// A file that does not hold statistics, or those of another model.
    pub fn open(
        path: &Path,
        model: &Path,
        archives: &[Archive],
        config: &Map<String, Value>,
    ) -> Result<Self> {
        let statistics = Self {
            file: StatisticsFile::open(path)?,
        };
        let weights = Weights::new(archives, config);
        for layer in statistics.file.names() {
            let checked = statistics.check(layer, model, &weights);
            checked.map_err(|reason| Error::Statistics {
                path: path.to_owned(),
                layer: layer.to_owned(),
                reason,
            })?;
        }
        Ok(statistics)
    }

    /// Checks that a model has a weight for the statistics of a layer, or says what is wrong.
    fn check(
        &self,
        layer: &str,
        model: &Path,
        weights: &Weights<'_>,
    ) -> std::result::Result<(), String> {
        let name = format!("{layer}{WEIGHT}");
        let Some(tensor) = weights.get(&name) else {
            return Err(format!(
                "there is no tensor {name:?} in {}",
                model.display()
            ));
        };
        let shape = &tensor.shape;
        if let Some(Role::Other(other)) = weights.role(tensor) {
            return Err(format!("{name:?} is no weight [outputs, inputs]: {other}"));
        }
        let channels = self.file.channels(layer).unwrap_or_default();
        match shape.len() >= 2 && shape[1..].iter().product::<usize>() == channels {
            true => Ok(()),
            false => Err(format!(
                "has {channels} inputs, but {name:?} is {shape:?}, expected [outputs, {channels}]"
            )),
        }
    }

    /// Whether there are statistics for a tensor.
    pub fn has(&self, tensor: &str) -> bool {
        let layer = tensor.strip_suffix(WEIGHT);
        layer.is_some_and(|layer| self.file.channels(layer).is_some())
    }

    /// The second moments of what multiplies a tensor, where there are any.
    ///
    /// # Errors
    /// What cannot be read, or cannot be the moments of anything.
    pub fn of(&self, tensor: &str) -> Result<Option<Moments>> {
        match tensor.strip_suffix(WEIGHT) {
            Some(layer) if self.has(tensor) => Ok(Some(self.file.read(layer)?)),
            _ => Ok(None),
        }
    }
}
