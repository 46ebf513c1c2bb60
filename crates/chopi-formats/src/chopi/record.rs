//! What a file says of its quantized tensors.

use std::collections::BTreeMap;

use chopi_core::{Convention, Scheme, backend::FloatType};
use serde::{Deserialize, Serialize};

use crate::archive::Archive;
use crate::error::Result;

/// The key of the [`Record`] in the metadata of a file.
pub const KEY: &str = "chopi";
/// The version that is written.
const VERSION: u32 = 3;

/// What a file says about its quantized tensors.
#[derive(Debug, Deserialize, Serialize)]
pub struct Record {
    version: u32,
    /// How tensors were quantized, each way once.
    schemes: Vec<Spec>,
    /// The index of each tensor's scheme.
    tensors: BTreeMap<String, usize>,
    /// The shapes of the tensors whose codes are packed.
    #[serde(default)]
    shapes: BTreeMap<String, Vec<usize>>,
}

/// How a tensor was quantized.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Spec {
    /// The scheme.
    pub scheme: Scheme,
    /// The library whose arithmetic the parameters belong to.
    pub convention: Convention,
    /// The original dtype.
    pub dtype: FloatType,
    /// Whether the codes are packed.
    #[serde(default)]
    pub packed: bool,
}

impl Record {
    /// The record of tensors, with their names and shapes.
    pub fn new(quantized: impl Iterator<Item = (String, Vec<usize>, Spec)>) -> Self {
        let mut record = Self {
            version: VERSION,
            schemes: Vec::new(),
            tensors: BTreeMap::new(),
            shapes: BTreeMap::new(),
        };
        for (name, shape, spec) in quantized {
            if spec.packed {
                record.shapes.insert(name.clone(), shape);
            }
            let schemes = &mut record.schemes;
            let known = schemes.iter().position(|scheme| *scheme == spec);
            let index = known.unwrap_or_else(|| {
                schemes.push(spec);
                schemes.len() - 1
            });
            record.tensors.insert(name, index);
        }
        record
    }

    /// The names of the quantized tensors, in order.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.tensors.keys().map(String::as_str)
    }

    /// How a tensor was quantized, if it was.
    pub fn get(&self, name: &str) -> Option<&Spec> {
        self.schemes.get(*self.tensors.get(name)?)
    }

    /// The shape of a tensor whose codes are packed.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.shapes.get(name).map(Vec::as_slice)
    }

    /// Whether codes lie under the name of their tensor, and the names of parameters are `NAME_scale` and
    /// `NAME_zero_point`, as in version 2.
    pub fn has_old_names(&self) -> bool {
        self.version < 3
    }

    /// The record of a file, if it has one.
    ///
    /// # Errors
    /// Where it is not a record of version 2 or 3.
    pub fn of(archive: &Archive) -> Result<Option<Self>> {
        #[derive(Deserialize)]
        struct Version {
            version: u32,
        }
        let Some(json) = archive.metadata.get(KEY) else {
            return Ok(None);
        };
        let invalid = |error| archive.bad_metadata(error);
        let unknown = |version| {
            archive.bad_metadata(format!(
                "version {version} is unknown, expected 2 or {VERSION}"
            ))
        };
        let is_known = |version| (2..=VERSION).contains(&version);
        match serde_json::from_str::<Self>(json) {
            Ok(record) if !is_known(record.version) => Err(unknown(record.version)),
            Ok(record) => match record
                .tensors
                .iter()
                .find(|(name, _)| record.get(name).is_none())
            {
                Some((name, scheme)) => {
                    let schemes = record.schemes.len();
                    Err(archive.bad_metadata(format!(
                        "{name:?} has the scheme of index {scheme}, but there are {schemes}"
                    )))
                }
                None => Ok(Some(record)),
            },
            // Another version may look otherwise.
            Err(error) => match serde_json::from_str(json) {
                Ok(Version { version }) if !is_known(version) => Err(unknown(version)),
                _ => Err(invalid(error)),
            },
        }
    }
}
