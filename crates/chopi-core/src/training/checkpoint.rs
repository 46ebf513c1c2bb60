//! One safetensors file from which a training goes on to the bit.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fs::{self, File};
use std::io;
use std::path::Path;

pub use safetensors::Dtype;
use safetensors::{SafeTensors, View, tensor::TensorView};

use super::{Adam, Quantizers};
use crate::backend::DeviceTensor;
use crate::error::{Error, Result};

/// The entry of the metadata that holds the states of the fake-quantizers, in JSON.
const QUANTIZERS: &str = "chopi.quantizers";
/// The entry of the metadata that holds the number of the optimizer's steps.
const STEPS: &str = "chopi.adam.step";
/// The prefix of a variable's name under which the mean of its gradients stands.
const MEAN: &str = "adam.mean.";
/// The prefix of a variable's name under which the mean of its squared gradients stands.
const SQUARE: &str = "adam.square.";

/// A tensor whose elements go into a file and come back to the bit.
pub trait CheckpointTensor: DeviceTensor {
    /// The type of its elements.
    ///
    /// # Errors
    /// [`Error::Dtype`] for a type that safetensors does not have.
    fn dtype(&self) -> Result<Dtype>;

    /// The bytes of its elements, in row-major order, as they stand in a safetensors file.
    ///
    /// # Errors
    /// [`Error::Framework`] for an error of the framework; [`Error::Memory`] where there is none for them.
    fn to_bytes(&self) -> Result<Vec<u8>>;

    /// The tensor of such bytes, on the device of this one.
    ///
    /// # Errors
    /// [`Error::Dtype`] for a type that the framework does not have; [`Error::Framework`] for an error of
    /// the framework.
    fn with_view(&self, saved: &TensorView<'_>) -> Result<Self>;
}

/// Saves a network in training to one safetensors file: its variables, learned scales among them, by
/// their names; the states of its fake-quantizers, in the file's metadata; and the moments of the
/// optimizer. The file is written as `PATH.partial` and takes the place of an earlier one once it is whole and on
/// disk; where it cannot be written, nothing is left of it.
///
/// # Errors
/// [`Error::Checkpoint`] for what cannot be written; the errors of the tensors.
pub fn save_checkpoint<T: CheckpointTensor + Clone>(
    path: &Path,
    variables: BTreeMap<String, T>,
    quantizers: &Quantizers,
    optimizer: Option<&Adam<T>>,
) -> Result<()> {
    let states =
        serde_json::to_string(&quantizers.states()).map_err(|error| failed(path, error))?;
    let mut metadata = HashMap::from([(QUANTIZERS.to_owned(), states)]);
    let mut tensors = variables;
    if let Some(optimizer) = optimizer {
        metadata.insert(STEPS.to_owned(), optimizer.steps().to_string());
        for (name, mean, square) in optimizer.moments() {
            tensors.insert(format!("{MEAN}{name}"), mean.clone());
            tensors.insert(format!("{SQUARE}{name}"), square.clone());
        }
    }
    let error = RefCell::new(None);
    let views = tensors.iter().map(|(name, tensor)| {
        let view = Written {
            tensor,
            dtype: tensor.dtype()?,
            shape: tensor.shape(),
            error: &error,
        };
        Ok((name, view))
    });
    let views = views.collect::<Result<Vec<_>>>()?;
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = Path::new(&partial);
    let written = safetensors::serialize_to_file(views, Some(metadata), partial)
        .map_err(|error| failed(path, error))
        .and_then(|()| error.take().map_or(Ok(()), Err))
        .and_then(|()| replace(path, partial).map_err(|error| failed(path, error)));
    if written.is_err() {
        // The error says more than whether this can be deleted.
        let _ = fs::remove_file(partial);
    }
    written
}

/// Gives a file the name of another, which it replaces, once its content is on disk.
fn replace(path: &Path, partial: &Path) -> io::Result<()> {
    // Some systems put on disk only what is open for writing.
    File::options().write(true).open(partial)?.sync_all()?;
    fs::rename(partial, path)?;
    // Then the new name. Where a folder cannot be put on disk by itself nothing can be done about it.
    #[cfg(unix)]
    if let Some(folder) = path.parent() {
        let folder = match folder.as_os_str().is_empty() {
            true => Path::new("."),
            false => folder,
        };
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
    }
    Ok(())
}

/// A tensor whose bytes are read when they are written, one tensor after the other.
struct Written<'a, T> {
    tensor: &'a T,
    dtype: Dtype,
    shape: Vec<usize>,
    /// The first error of any tensor: `data` can give none.
    error: &'a RefCell<Option<Error>>,
}

impl<T: CheckpointTensor> View for Written<'_, T> {
    fn dtype(&self) -> Dtype {
        self.dtype
    }

    fn shape(&self) -> &[usize] {
        &self.shape
    }

    fn data(&self) -> Cow<'_, [u8]> {
        let bytes = self.tensor.to_bytes().unwrap_or_else(|error| {
            self.error.borrow_mut().get_or_insert(error);
            Vec::new()
        });
        Cow::Owned(bytes)
    }

    fn data_len(&self) -> usize {
        let elements = self.shape.iter().product::<usize>();
        elements.saturating_mul(self.dtype.bitsize()) / 8
    }
}

/// Brings the variables of a network, made like the one that was saved, its fake-quantizers and its
/// optimizer into the saved state.
///
/// # Errors
/// [`Error::Checkpoint`] for a file that cannot be read, or that has no such variable or moment, or one of
/// another shape or type; [`Error::QuantizerName`] where the fake-quantizers are others. Then nothing is
/// changed.
pub fn load_checkpoint<T: CheckpointTensor>(
    path: &Path,
    variables: &BTreeMap<String, T>,
    quantizers: &Quantizers,
    optimizer: Option<&mut Adam<T>>,
) -> Result<()> {
    let data = fs::read(path).map_err(|error| failed(path, error))?;
    let file = Saved::new(path, &data)?;
    let states =
        serde_json::from_str(file.entry(QUANTIZERS)?).map_err(|error| file.failed(error))?;
    let saved = |name: &str, like: &T| {
        let saved = file.tensor(name)?;
        let (dtype, shape) = (saved.dtype(), saved.shape());
        let expected = (like.dtype()?, like.shape());
        if (dtype, shape) != (expected.0, &*expected.1) {
            let (expected, of) = expected;
            let problem = format!("{name} is {dtype:?} {shape:?}, expected {expected:?} {of:?}");
            return Err(file.failed(problem));
        }
        like.with_view(&saved)
    };
    // All of it is there before anything changes.
    let values = variables
        .iter()
        .map(|(name, variable)| Ok((variable, saved(name, variable)?)))
        .collect::<Result<Vec<_>>>()?;
    let moments = match &optimizer {
        None => None,
        Some(optimizer) => {
            let steps = file
                .entry(STEPS)?
                .parse()
                .map_err(|error| file.failed(error))?;
            let moments = optimizer.moments().map(|(name, mean, square)| {
                let mean = saved(&format!("{MEAN}{name}"), mean)?;
                Ok((mean, saved(&format!("{SQUARE}{name}"), square)?))
            });
            Some((steps, moments.collect::<Result<Vec<_>>>()?))
        }
    };
    quantizers.set_states(states)?;
    for (variable, value) in values {
        variable.assign(&value)?;
    }
    if let (Some(optimizer), Some((steps, moments))) = (optimizer, moments) {
        optimizer.restore(steps, moments);
    }
    Ok(())
}

/// Gives a network in training the weights of one in floats: every variable but learned scales and zero
/// points, which start on the first batch, comes by its name from a safetensors file, converted to its type
/// if the file has another float one. The file may hold more.
///
/// # Errors
/// [`Error::Checkpoint`] for a file that cannot be read, or that has no tensor of a variable's name, or one
/// of another shape or of integers; then nothing is changed.
pub fn load_float<T: CheckpointTensor>(
    path: &Path,
    variables: &BTreeMap<String, T>,
    quantizers: &Quantizers,
) -> Result<()> {
    let data = fs::read(path).map_err(|error| failed(path, error))?;
    let file = Saved::new(path, &data)?;
    let learned = quantizers.learned_variables();
    let of_floats = variables.iter().filter(|(name, _)| !learned.contains(name));
    let values = of_floats
        .map(|(name, variable)| {
            let (saved, expected) = (file.tensor(name)?, variable.shape());
            let (dtype, shape) = (saved.dtype(), saved.shape());
            let is_float = matches!(dtype, Dtype::F16 | Dtype::BF16 | Dtype::F32 | Dtype::F64);
            if shape != expected || !is_float {
                return Err(file.failed(format!(
                    "{name} is {dtype:?} {shape:?}, expected floats of shape {expected:?}"
                )));
            }
            let value = variable.with_view(&saved)?;
            Ok((variable, value.cast(variable.float_type()?)?))
        })
        .collect::<Result<Vec<_>>>()?;
    for (variable, value) in values {
        variable.assign(&value)?;
    }
    Ok(())
}

/// A file that was read.
struct Saved<'a> {
    path: &'a Path,
    tensors: SafeTensors<'a>,
    metadata: HashMap<String, String>,
}

impl<'a> Saved<'a> {
    fn new(path: &'a Path, data: &'a [u8]) -> Result<Self> {
        let header = SafeTensors::read_metadata(data);
        let (_, metadata) = header.map_err(|error| failed(path, error))?;
        let metadata = metadata.metadata().clone().unwrap_or_default();
        let tensors = SafeTensors::deserialize(data).map_err(|error| failed(path, error))?;
        Ok(Self {
            path,
            tensors,
            metadata,
        })
    }

    fn failed(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
        failed(self.path, source)
    }

    /// An entry of the metadata.
    fn entry(&self, name: &str) -> Result<&str> {
        let entry = self.metadata.get(name).map(String::as_str);
        entry.ok_or_else(|| self.failed(format!("it has no {name}: is it a checkpoint?")))
    }

    fn tensor(&self, name: &str) -> Result<TensorView<'a>> {
        let tensor = self.tensors.tensor(name);
        tensor.map_err(|_| self.failed(format!("it has no tensor {name}")))
    }
}

/// What went wrong with a file.
fn failed(path: &Path, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::Checkpoint {
        path: path.to_owned(),
        source: source.into(),
    }
}
