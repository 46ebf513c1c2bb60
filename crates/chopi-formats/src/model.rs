//! A model on disk, whatever its format, tensor by tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use chopi_core::backend::{FloatType, IntType};
use chopi_core::packing::Packing;
use chopi_core::{Convention, Granularity, QParams, Scheme};
use safetensors::Dtype;

use crate::archive::{Archive, Entry};
use crate::codes::Codes;
use crate::compressed_tensors::{CompressedSchemes, CompressedWeight};
use crate::error::{Error, Fault, Result};
use crate::files::Files;
use crate::record::{Record, Stored};
use crate::tensor::{Plain, Quantized, Tensor};

/// Opens a model: a safetensors file, a folder of one or of several with an index, a file that chopi has
/// written, a folder of compressed-tensors.
///
/// Only headers are read. Tensors are read when they are asked for, each by itself.
///
/// # Errors
/// Where there is nothing to read; where files are not valid, or do not hold what they say.
pub fn open(path: impl AsRef<Path>) -> Result<Model> {
    Model::open(path.as_ref())
}

/// A model on disk: its files are open, and its tensors are read when they are asked for.
#[derive(Debug)]
pub struct Model {
    files: Files,
    /// By the names that they have in the float model.
    tensors: BTreeMap<String, StoredTensor>,
    is_quantized: bool,
}

/// A tensor of a model on disk, by the name that it has in the float model.
#[derive(Debug)]
pub struct StoredTensor {
    name: String,
    path: PathBuf,
    form: Form,
}

#[derive(Debug)]
enum Form {
    /// A tensor that is not quantized.
    Plain(Entry),
    /// A tensor in chopi's layout.
    Chopi(Stored),
    /// A weight of compressed-tensors.
    Compressed(CompressedWeight),
}

/// How the elements of a tensor are kept in its file.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Storage<'a> {
    /// As they are.
    Plain(Dtype),
    /// As codes with parameters.
    Quantized {
        /// How they were quantized.
        scheme: &'a Scheme,
        /// The library whose arithmetic the parameters belong to.
        convention: Convention,
        /// The granularity on this tensor.
        granularity: Granularity,
        /// The original type, which the tensor has once it is dequantized.
        float: FloatType,
        /// The type of the codes once they are unpacked.
        int: IntType,
        /// How the codes are packed, if they are.
        packing: Option<Packing>,
    },
}

impl Model {
    /// Opens a model, as [`open`] does.
    ///
    /// # Errors
    /// Where there is nothing to read; where files are not valid, or do not hold what they say.
    pub fn open(path: &Path) -> Result<Self> {
        let files = Files::open(path)?;
        let schemes = match files.config_path() {
            Some(config) => CompressedSchemes::of(&config)?,
            None => None,
        };
        let mut model = Self {
            tensors: BTreeMap::new(),
            is_quantized: schemes.is_some(),
            files,
        };
        for archive in model.files.archives()? {
            model.add(&archive, schemes.as_ref())?;
        }
        Ok(model)
    }

    fn add(&mut self, archive: &Archive, schemes: Option<&CompressedSchemes>) -> Result<()> {
        let record = Record::of(archive)?;
        self.is_quantized |= record.is_some();
        let mut parts = BTreeSet::new();
        let mut forms = Vec::new();
        if let Some(record) = &record {
            for name in record.names() {
                let stored = Stored::find(archive, record, name)?;
                parts.extend(stored.parts().map(|part| part.name.clone()));
                forms.push((name.to_owned(), Form::Chopi(stored)));
            }
        } else if let Some(schemes) = schemes {
            for codes in archive.tensors.values() {
                if let Some(weight) = CompressedWeight::of(codes, archive, schemes)? {
                    parts.extend(weight.parts().map(|part| part.name.clone()));
                    forms.push((weight.name.clone(), Form::Compressed(weight)));
                }
            }
        }
        let plain = archive.tensors.values();
        let plain = plain.filter(|tensor| !parts.contains(&tensor.name));
        forms.extend(plain.map(|entry| (entry.name.clone(), Form::Plain(entry.clone()))));
        for (name, form) in forms {
            let path = archive.path.clone();
            let tensor = StoredTensor {
                name: name.clone(),
                path,
                form,
            };
            if let Some(earlier) = self.tensors.insert(name.clone(), tensor) {
                return Err(Error::TensorTwice {
                    path: archive.path.clone(),
                    tensor: name,
                    other: earlier.path,
                });
            }
        }
        Ok(())
    }

    /// The file or the folder that was opened.
    pub fn path(&self) -> &Path {
        &self.files.input
    }

    /// The files that it consists of.
    pub fn files(&self) -> &Files {
        &self.files
    }

    /// Whether it says of itself that it is quantized: in the metadata of a file of chopi, or in a `config.json`
    /// of compressed-tensors.
    pub fn is_quantized(&self) -> bool {
        self.is_quantized
    }

    /// The tensors, in the order of their names.
    pub fn tensors(&self) -> impl Iterator<Item = &StoredTensor> {
        self.tensors.values()
    }

    /// The tensor of a name, if there is one.
    pub fn get(&self, name: &str) -> Option<&StoredTensor> {
        self.tensors.get(name)
    }

    /// Reads the tensor of a name.
    ///
    /// # Errors
    /// [`Error::NoTensor`] where there is none; where it cannot be read, or its parameters are not ones that a
    /// calibration can give.
    pub fn read(&self, name: &str) -> Result<Tensor> {
        let tensor = self.get(name).ok_or_else(|| Error::NoTensor {
            path: self.path().to_owned(),
            tensor: name.to_owned(),
        })?;
        tensor.read()
    }
}

impl StoredTensor {
    /// The name in the float model.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The file that holds it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The lengths of the axes.
    pub fn shape(&self) -> &[usize] {
        match &self.form {
            Form::Plain(entry) => &entry.shape,
            Form::Chopi(stored) => &stored.codes.shape,
            Form::Compressed(weight) => &weight.shape,
        }
    }

    /// How the elements are kept.
    pub fn storage(&self) -> Storage<'_> {
        let (scheme, convention, float, packing) = match &self.form {
            Form::Plain(entry) => return Storage::Plain(entry.dtype),
            Form::Chopi(stored) => (&stored.scheme, stored.convention, stored.float, None),
            Form::Compressed(weight) => (
                &weight.scheme,
                Convention::COMPRESSED_TENSORS,
                weight.float,
                weight.packing(),
            ),
        };
        Storage::Quantized {
            scheme,
            convention,
            granularity: convention.granularity_for(scheme.granularity, self.shape().len()),
            float,
            int: IntType::smallest((scheme.qmin, scheme.qmax)),
            packing,
        }
    }

    /// The type of the elements once they are dequantized.
    pub fn dtype(&self) -> Dtype {
        match self.storage() {
            Storage::Plain(dtype) => dtype,
            Storage::Quantized { float, .. } => crate::record::float_dtype(float),
        }
    }

    /// The bytes that it takes in its file: elements, or codes and parameters.
    pub fn bytes(&self) -> usize {
        match &self.form {
            Form::Plain(entry) => entry.data.len(),
            Form::Chopi(stored) => stored.parts().map(|part| part.data.len()).sum(),
            Form::Compressed(weight) => weight.parts().map(|part| part.data.len()).sum(),
        }
    }

    /// The tensors of the file that it consists of, the codes first.
    pub fn parts(&self) -> Vec<&Entry> {
        match &self.form {
            Form::Plain(entry) => vec![entry],
            Form::Chopi(stored) => stored.parts().collect(),
            Form::Compressed(weight) => weight.parts().collect(),
        }
    }

    /// Reads the parameters, if it is quantized.
    ///
    /// # Errors
    /// Where they cannot be read, or are not ones that a calibration can give.
    pub fn params(&self) -> Result<Option<QParams>> {
        let params = match &self.form {
            Form::Plain(_) => return Ok(None),
            Form::Chopi(stored) => stored.params(),
            Form::Compressed(weight) => weight.params(),
        };
        params.map(Some).map_err(|fault| self.fault(fault))
    }

    /// Reads all of it.
    ///
    /// # Errors
    /// Where it cannot be read, or its parameters are not ones that a calibration can give.
    pub fn read(&self) -> Result<Tensor> {
        let quantized = |params: QParams, codes: Codes| {
            let quantized = Quantized::new(self.shape().to_vec(), params, codes)?;
            Ok(Tensor::Quantized(Box::new(quantized)))
        };
        let read = || -> std::result::Result<Tensor, Fault> {
            match &self.form {
                Form::Plain(entry) => Ok(Tensor::Plain(Plain {
                    dtype: entry.dtype,
                    shape: entry.shape.clone(),
                    bytes: entry.bytes()?,
                })),
                Form::Chopi(stored) => quantized(stored.params()?, stored.codes()?),
                Form::Compressed(weight) => quantized(weight.params()?, weight.codes()?),
            }
        };
        read().map_err(|fault| self.fault(fault))
    }

    /// The error that says what is wrong with it.
    pub fn fault(&self, fault: impl Into<Fault>) -> Error {
        Error::Tensor {
            path: self.path.clone(),
            tensor: self.name.clone(),
            fault: Box::new(fault.into()),
        }
    }
}
