//! Writing a model, tensor by tensor.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Map, Value};

use crate::error::{Error, Fault, Result};
use crate::files::{CONFIG, QUANTIZATION, SINGLE};
use crate::format::{Format, Keep, TensorPlan};
use crate::header::Header;
use crate::parts::Parts;
use crate::tensor::Tensor;
use crate::write::{Output, OutputFolder, Target};

/// Writes tensors to a file, or for [`CompressedTensors`](crate::compressed_tensors::CompressedTensors) to a folder,
/// which appears whole or not at all. What is there is not replaced; a [`Plan`] can do that, and writes tensors that
/// are not in memory all at once.
///
/// # Errors
/// A tensor that the format cannot keep; two of one name; what the system says.
pub fn save<'a>(
    path: impl AsRef<Path>,
    format: &dyn Format,
    tensors: impl IntoIterator<Item = (&'a str, &'a Tensor)>,
) -> Result<()> {
    let tensors: Vec<(&str, &Tensor)> = tensors.into_iter().collect();
    let mut plan = Plan::new(format);
    for (name, tensor) in &tensors {
        plan.add(TensorPlan::of(name, tensor));
    }
    let writer = plan.create(path.as_ref(), false)?;
    for (name, tensor) in tensors {
        writer.write(name, tensor)?;
    }
    writer.finish()
}

/// The tensors that are to be written, known by name, shape and how they are kept before the first is there.
#[derive(Debug)]
pub struct Plan<'a> {
    format: &'a dyn Format,
    header: Header,
    config: Map<String, Value>,
    tensors: Vec<TensorPlan>,
}

/// A model that is being written. Dropped before it is [finished](Self::finish), it vanishes.
#[derive(Debug)]
pub struct Writer<'a> {
    format: &'a dyn Format,
    path: &'a Path,
    parts: BTreeMap<String, Parts>,
    output: Output,
    folder: Option<OutputFolder>,
}

impl<'a> Plan<'a> {
    /// A plan of no tensors.
    pub fn new(format: &'a dyn Format) -> Self {
        Self {
            format,
            header: format.header(),
            config: Map::new(),
            tensors: Vec::new(),
        }
    }

    /// Writes into this header: one with metadata, of the kind that the format has.
    pub fn with_header(self, header: Header) -> Self {
        Self { header, ..self }
    }

    /// Puts what a `config.json` says into that of a folder.
    pub fn with_config(self, config: Map<String, Value>) -> Self {
        Self { config, ..self }
    }

    /// Adds a tensor.
    pub fn add(&mut self, tensor: TensorPlan) {
        self.tensors.push(tensor);
    }

    /// Begins to write. With `force` a file, or the folder of a quantized model, that is there is replaced at the end.
    ///
    /// # Errors
    /// A tensor that the format cannot keep; two of one name; what the system says.
    pub fn create(mut self, path: &'a Path, force: bool) -> Result<Writer<'a>> {
        let mut parts = BTreeMap::new();
        // What is kept as it is comes first, so that it is the quantized tensor whose parts have no names left.
        let is_codes = |tensor: &TensorPlan| matches!(tensor.keep, Keep::Codes { .. });
        self.tensors.sort_by_key(is_codes);
        for tensor in &self.tensors {
            if parts.contains_key(&tensor.name) {
                let name = tensor.name.clone();
                return Err(error(path, &tensor.name, Fault::NameTaken { name }));
            }
            let planned = self.format.plan(tensor, &mut self.header);
            let planned = planned.map_err(|fault| error(path, &tensor.name, fault))?;
            parts.insert(tensor.name.clone(), planned);
        }
        let described = self.format.describe(&self.tensors, &mut self.header);
        let quantization = described.map_err(|source| Error::Write {
            path: path.to_owned(),
            source: source.into(),
        })?;
        let (target, folder) = match quantization {
            None => (Target::new(path, &[], force)?, None),
            Some(quantization) => {
                let folder = OutputFolder::create(path, &[], force)?;
                self.config.insert(QUANTIZATION.to_owned(), quantization);
                folder.write_json(CONFIG, &self.config.into())?;
                (folder.file(SINGLE), Some(folder))
            }
        };
        Ok(Writer {
            format: self.format,
            path,
            parts,
            output: target.create(&self.header)?,
            folder,
        })
    }
}

impl Writer<'_> {
    /// Writes a tensor of the plan. Tensors may be written in any order and by several threads.
    ///
    /// # Errors
    /// [`Error::NoTensor`] for one that is not in the plan; [`Fault::Planned`] for one that was planned otherwise;
    /// what the system says.
    pub fn write(&self, name: &str, tensor: &Tensor) -> Result<()> {
        let Some(parts) = self.parts.get(name) else {
            return Err(Error::NoTensor {
                path: self.path.to_owned(),
                tensor: name.to_owned(),
            });
        };
        let fault = |fault| error(self.path, name, fault);
        self.format.write(parts, tensor, &self.output, &fault)
    }

    /// Puts the file or the folder in its place.
    ///
    /// # Errors
    /// The output cannot be put on disk or renamed; something that has come into being at its place meanwhile.
    pub fn finish(self) -> Result<()> {
        self.output.persist()?;
        match self.folder {
            Some(folder) => folder.persist(),
            None => Ok(()),
        }
    }
}

fn error(path: &Path, name: &str, fault: Fault) -> Error {
    Error::Tensor {
        path: path.to_owned(),
        tensor: name.to_owned(),
        fault: Box::new(fault),
    }
}
