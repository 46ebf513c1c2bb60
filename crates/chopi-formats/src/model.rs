//! A model on disk, whatever its format, tensor by tensor.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};

use chopi_core::backend::{FloatType, IntType};
use chopi_core::packing::Packing;
use chopi_core::{Convention, Granularity, QParams, Scheme};
use safetensors::Dtype;

use crate::archive::{Archive, Data, Entry};
use crate::chopi::{KEY, Record, Stored};
use crate::codes::{Codes, Ints};
use crate::compressed_tensors::{CompressedSchemes, CompressedWeight};
use crate::error::{Error, Fault, Result};
use crate::files::Files;
use crate::gguf::{BlockType, GgmlType, Gguf, GgufEntry, Value, is_gguf};
use crate::lazy::Dequantized;
use crate::tensor::{Plain, Quantized, Tensor};

/// Opens a model: a safetensors file, a folder with one safetensors file or with shards and their index, a file that chopi has
/// written, a folder of compressed-tensors, a GGUF file.
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
    /// The metadata of the safetensors files.
    metadata: BTreeMap<String, String>,
    /// The metadata of a GGUF file.
    gguf: Option<BTreeMap<String, Value>>,
}

/// A tensor of a model on disk, by the name that it has in the float model.
#[derive(Clone, Debug)]
pub struct StoredTensor {
    name: String,
    path: PathBuf,
    form: Form,
}

#[derive(Clone, Debug)]
enum Form {
    /// A tensor that is not quantized.
    Plain(Entry),
    /// A tensor in chopi's layout.
    Chopi(Stored),
    /// A weight of compressed-tensors.
    Compressed(CompressedWeight),
    /// A tensor of a GGUF file.
    Gguf(GgufEntry),
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
    /// As blocks of a GGUF file, which are values of f32 once they are dequantized.
    Blocks(BlockType),
}

impl Model {
    /// Opens a model, as [`open`] does.
    ///
    /// # Errors
    /// Where there is nothing to read; where files are not valid, or do not hold what they say.
    pub fn open(path: &Path) -> Result<Self> {
        let files = Files::open(path)?;
        if !files.is_folder() && is_gguf(path)? {
            return Self::of_gguf(files, Gguf::open(path)?);
        }
        let schemes = match files.config_path() {
            Some(config) => CompressedSchemes::of(&config)?,
            None => None,
        };
        let mut model = Self {
            tensors: BTreeMap::new(),
            is_quantized: schemes.is_some(),
            metadata: BTreeMap::new(),
            gguf: None,
            files,
        };
        for archive in model.files.archives()? {
            model.add(&archive, schemes.as_ref())?;
        }
        Ok(model)
    }

    fn of_gguf(files: Files, gguf: Gguf) -> Result<Self> {
        let is_block = |entry: &GgufEntry| matches!(entry.ggml_type, GgmlType::Block(_));
        let tensor = |entry: GgufEntry| StoredTensor {
            name: entry.name.clone(),
            path: gguf.path.clone(),
            form: Form::Gguf(entry),
        };
        Ok(Self {
            files,
            is_quantized: gguf.tensors.values().any(is_block),
            tensors: gguf
                .tensors
                .into_iter()
                .map(|(name, entry)| (name, tensor(entry)))
                .collect(),
            metadata: BTreeMap::new(),
            gguf: Some(gguf.metadata),
        })
    }

    fn add(&mut self, archive: &Archive, schemes: Option<&CompressedSchemes>) -> Result<()> {
        let record = Record::of(archive)?;
        for (key, value) in archive.metadata.iter().filter(|(key, _)| *key != KEY) {
            let known = self.metadata.entry(key.clone());
            known.or_insert_with(|| value.clone());
        }
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

    /// The metadata of its safetensors files but for chopi's own; of those with one key the first file's.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The metadata, where the model is a GGUF file.
    pub fn gguf_metadata(&self) -> Option<&BTreeMap<String, Value>> {
        self.gguf.as_ref()
    }

    /// Whether it is quantized: it says so in the metadata of a file of chopi or in a `config.json` of
    /// compressed-tensors, or it is a GGUF file that has tensors of blocks.
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
            Form::Chopi(stored) => &stored.shape,
            Form::Compressed(weight) => &weight.shape,
            Form::Gguf(entry) => &entry.shape,
        }
    }

    /// How the elements are kept.
    pub fn storage(&self) -> Storage<'_> {
        let (scheme, convention, float, packing) = match &self.form {
            Form::Plain(entry) => return Storage::Plain(entry.dtype),
            Form::Gguf(entry) => {
                return match entry.ggml_type {
                    GgmlType::Plain(dtype) => Storage::Plain(dtype),
                    GgmlType::Block(block_type) => Storage::Blocks(block_type),
                };
            }
            Form::Chopi(stored) => (
                &stored.scheme,
                stored.convention,
                stored.float,
                stored.packing(),
            ),
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
            Storage::Quantized { float, .. } => crate::dtype::float_dtype(float),
            Storage::Blocks(_) => Dtype::F32,
        }
    }

    /// The bytes that it takes in its file: elements, or codes and parameters.
    pub fn bytes(&self) -> usize {
        match &self.form {
            Form::Plain(entry) => entry.data.len(),
            Form::Chopi(stored) => stored.parts().map(|part| part.data.len()).sum(),
            Form::Compressed(weight) => weight.parts().map(|part| part.data.len()).sum(),
            Form::Gguf(entry) => entry.data.len(),
        }
    }

    /// The tensors of the safetensors file that it consists of, the codes first; none in a GGUF file.
    pub fn parts(&self) -> Vec<&Entry> {
        match &self.form {
            Form::Plain(entry) => vec![entry],
            Form::Chopi(stored) => stored.parts().collect(),
            Form::Compressed(weight) => weight.parts().collect(),
            Form::Gguf(_) => Vec::new(),
        }
    }

    /// Reads the parameters, if it is kept as codes.
    ///
    /// # Errors
    /// Where they cannot be read, or are not ones that a calibration can give.
    pub fn params(&self) -> Result<Option<QParams>> {
        let params = match &self.form {
            Form::Plain(_) | Form::Gguf(_) => return Ok(None),
            Form::Chopi(stored) => stored.params(),
            Form::Compressed(weight) => weight.params(),
        };
        params.map(Some).map_err(|fault| self.fault(fault))
    }

    /// Whether codes and blocks are read in whole rows only, each of what lies at one index of the first axis.
    pub fn is_packed(&self) -> bool {
        match self.storage() {
            Storage::Plain(_) => false,
            Storage::Quantized { packing, .. } => packing.is_some(),
            Storage::Blocks(_) => true,
        }
    }

    /// Reads some of the codes, row-major: whole rows of what [is packed](Self::is_packed), and of what is not
    /// codes none.
    ///
    /// # Errors
    /// Where they cannot be read.
    pub fn codes_of(&self, elements: Range<usize>) -> std::result::Result<Ints, Fault> {
        match &self.form {
            Form::Plain(_) | Form::Gguf(_) => Ok(Ints::I8(Vec::new())),
            Form::Chopi(stored) => stored.codes_of(elements),
            Form::Compressed(weight) => weight.codes_of(elements),
        }
    }

    /// Reads the values of some blocks, whole rows of them; of what is not blocks none.
    pub(crate) fn blocks_of(&self, elements: Range<usize>) -> std::result::Result<Plain, Fault> {
        match &self.form {
            Form::Gguf(entry) => entry.values_of(elements),
            Form::Plain(_) | Form::Chopi(_) | Form::Compressed(_) => {
                Plain::new(Dtype::F32, vec![0], Vec::new())
            }
        }
    }

    /// The tensor as one of plain elements: codes and blocks are dequantized as they are read, piece by piece.
    ///
    /// # Errors
    /// Where the parameters cannot be read, or are not ones that a calibration can give.
    pub fn values(&self) -> Result<Entry> {
        let data = match &self.form {
            Form::Plain(entry) => entry.data.clone(),
            Form::Gguf(entry) if matches!(entry.ggml_type, GgmlType::Plain(_)) => {
                entry.data.clone()
            }
            _ => Data::dequantized(Dequantized::new(self.clone(), self.params()?)),
        };
        Ok(Entry {
            name: self.name.clone(),
            dtype: self.dtype(),
            shape: self.shape().to_vec(),
            data,
        })
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
                Form::Gguf(entry) => entry.read(),
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
