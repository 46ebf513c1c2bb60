//! Which tensors of a model are weights that can be quantized, and why the others are none.

use std::collections::BTreeMap;
use std::fmt;

use chopi::backend::FloatType;
use safetensors::Dtype;
use serde_json::{Map, Value};

use crate::architecture::{Architecture, Matrix, Other, Role, WEIGHT};
use crate::archive::{Archive, Entry};
use crate::selection::Chosen;
use chopi::formats::dtype::float_type;

/// A weight of a linear layer.
#[derive(Clone, Copy, Debug)]
pub struct Linear {
    pub float: FloatType,
    pub loaded: Loaded,
}

/// How the model loads a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// By the layer that it belongs to, packed or not.
    Alone,
    /// By the layer that it belongs to, if it has its own name, which packed codes do not have.
    Named,
    /// Stacked with those of all experts of its layer, from packed codes.
    Stacked,
}

/// Why a tensor is copied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reason {
    Dtype(Dtype),
    Dimensions(usize),
    NoWeight,
    NoElements,
    Excluded,
    NotIncluded,
    NotPlanned,
    Edge,
    Other(Other),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Dtype(dtype) => write!(f, "{dtype}, no float that is quantized"),
            Self::Dimensions(1) => f.write_str("1 dimension, no matrix"),
            Self::Dimensions(rank) => write!(f, "{rank} dimensions, no matrix"),
            Self::NoWeight => f.write_str("a matrix that is not named *.weight"),
            Self::NoElements => f.write_str("no elements"),
            Self::Excluded => f.write_str("excluded"),
            Self::NotIncluded => f.write_str("not included"),
            Self::NotPlanned => f.write_str("not in the plan"),
            Self::Edge => f.write_str("at the input or the output, or unknown; --include takes it"),
            Self::Other(other) => other.fmt(f),
        }
    }
}

impl Reason {
    /// Whether what is kept for this reason may be the weight of a linear layer.
    pub fn may_be_linear(&self) -> bool {
        match self {
            Self::Dtype(_) | Self::Dimensions(_) | Self::NoWeight => false,
            Self::Other(Other::Module(_) | Other::Transposed) => false,
            Self::Other(_) | Self::NoElements => true,
            Self::Excluded | Self::NotIncluded | Self::NotPlanned | Self::Edge => true,
        }
    }
}

/// The tensors of all files of a model, and its architecture.
#[derive(Debug)]
pub struct Weights<'a> {
    tensors: BTreeMap<&'a str, &'a Entry>,
    architecture: Architecture,
}

impl<'a> Weights<'a> {
    pub fn new(archives: &'a [Archive], config: &Map<String, Value>) -> Self {
        let tensors = archives.iter().flat_map(|archive| archive.tensors.values());
        let tensors: BTreeMap<_, _> = tensors.map(|tensor| (&*tensor.name, tensor)).collect();
        Self {
            architecture: Architecture::of(config).with_names(tensors.keys().copied()),
            tensors,
        }
    }

    pub fn architecture(&self) -> &Architecture {
        &self.architecture
    }

    /// All tensors, in the order of their names.
    pub fn iter(&self) -> impl Iterator<Item = &'a Entry> {
        self.tensors.values().copied()
    }

    /// The tensor of this name.
    pub fn get(&self, name: &str) -> Option<&'a Entry> {
        self.tensors.get(name).copied()
    }

    /// What a matrix named `*.weight` is to the model.
    pub fn role(&self, tensor: &Entry) -> Option<Role> {
        let module = tensor.name.strip_suffix(WEIGHT)?;
        let &[out, width] = &*tensor.shape else {
            return None;
        };
        let bias = self.get(&format!("{module}.bias"));
        let bias = bias.and_then(|bias| match *bias.shape {
            [len] => Some(len),
            _ => None,
        });
        let shape = [out, width];
        let matrix = Matrix {
            module,
            shape,
            bias,
        };
        Some(self.architecture.role(matrix))
    }

    /// Whether a tensor is a weight to quantize, given what the user says of its name.
    ///
    /// # Errors
    /// Why it is none.
    pub fn linear(&self, tensor: &Entry, chosen: Chosen) -> Result<Linear, Reason> {
        let float = float_type(tensor.dtype).ok_or(Reason::Dtype(tensor.dtype))?;
        if tensor.shape.len() != 2 {
            return Err(Reason::Dimensions(tensor.shape.len()));
        }
        if tensor.data.is_empty() {
            return Err(Reason::NoElements);
        }
        let role = self.role(tensor).ok_or(Reason::NoWeight)?;
        if let Role::Other(other) = role {
            return Err(Reason::Other(other));
        }
        match chosen {
            Chosen::Excluded => Err(Reason::Excluded),
            Chosen::NotIncluded => Err(Reason::NotIncluded),
            Chosen::NotPlanned => Err(Reason::NotPlanned),
            Chosen::Taken if role == Role::Edge => Err(Reason::Edge),
            Chosen::Taken | Chosen::Named => {
                let module = tensor.name.strip_suffix(WEIGHT).unwrap_or_default();
                let loaded = match role {
                    Role::Expert => Loaded::Stacked,
                    _ if self.architecture.keeps_name(module) => Loaded::Named,
                    _ => Loaded::Alone,
                };
                Ok(Linear { float, loaded })
            }
        }
    }
}
