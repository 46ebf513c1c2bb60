//! The model that is read: a folder of shards and other files, or a file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Component, Path, PathBuf};

use serde_json::{Map, Value};

use crate::archive::Archive;
use crate::error::{Error, Result};
use crate::json;

/// The files of a model on disk.
#[derive(Debug)]
pub struct Files {
    /// The file or the folder that was asked for.
    pub input: PathBuf,
    /// The folder that holds its files.
    pub folder: PathBuf,
    /// The names of its safetensors files.
    pub shards: Vec<String>,
    /// The name of the index of the shards, if it has one.
    pub index: Option<String>,
    /// Whether the input is a folder, with other files.
    is_folder: bool,
}

/// The name of the file that describes a model.
pub const CONFIG: &str = "config.json";
const INDEX: &str = "model.safetensors.index.json";
pub(crate) const SINGLE: &str = "model.safetensors";
const EXTENSION: &str = ".safetensors";
/// The key of `config.json` that says how a model is quantized.
pub const QUANTIZATION: &str = "quantization_config";
/// The key that compressed-tensors had for it before.
const OLD_QUANTIZATION: &str = "compression_config";

impl Files {
    /// Finds the files of a folder: `model.safetensors`, or the shards of its index, or its only safetensors file.
    /// A file is a model alone.
    ///
    /// # Errors
    /// Where there is nothing to read, or an index that names files that it should not.
    pub fn open(input: &Path) -> Result<Self> {
        let read = |source| Error::Read {
            path: input.to_owned(),
            source,
        };
        let input_owned = input.to_owned();
        if !fs::metadata(input).map_err(read)?.is_dir() {
            let Some(name) = input.file_name().and_then(|name| name.to_str()) else {
                return Err(Error::NotRegular { path: input_owned });
            };
            return Ok(Self {
                folder: input.parent().map(Path::to_owned).unwrap_or_default(),
                shards: vec![name.to_owned()],
                index: None,
                is_folder: false,
                input: input_owned,
            });
        }
        // Of a single file and an index transformers takes the single file.
        let (index, shards) = if input.join(SINGLE).is_file() {
            (None, vec![SINGLE.to_owned()])
        } else if input.join(INDEX).is_file() {
            (Some(INDEX.to_owned()), shards(&input.join(INDEX))?)
        } else {
            (None, vec![only_file(input)?])
        };
        Ok(Self {
            folder: input_owned.clone(),
            shards,
            index,
            is_folder: true,
            input: input_owned,
        })
    }

    /// The paths of its safetensors files.
    pub fn paths(&self) -> Vec<PathBuf> {
        let path = |shard| self.folder.join(shard);
        self.shards.iter().map(path).collect()
    }

    /// Opens its safetensors files and reads their headers.
    ///
    /// # Errors
    /// Where one cannot be read or is not valid; [`Error::TensorTwice`] where two have a tensor of one name.
    pub fn archives(&self) -> Result<Vec<Archive>> {
        let paths = self.paths();
        let archives = paths.iter().map(|path| Archive::open(path));
        let archives = archives.collect::<Result<Vec<_>>>()?;
        let mut found = BTreeMap::new();
        for archive in &archives {
            for tensor in archive.tensors.keys() {
                if let Some(other) = found.insert(tensor, &archive.path) {
                    return Err(Error::TensorTwice {
                        path: archive.path.clone(),
                        tensor: tensor.clone(),
                        other: other.clone(),
                    });
                }
            }
        }
        Ok(archives)
    }

    /// The path of its `config.json`, if it has one.
    pub fn config_path(&self) -> Option<PathBuf> {
        let path = self.folder.join(CONFIG);
        // A link that leads nowhere is there, and cannot be read.
        (self.is_folder && fs::symlink_metadata(&path).is_ok()).then_some(path)
    }

    /// The paths of all files that are read.
    pub fn inputs(&self) -> Vec<PathBuf> {
        let index = self.index.iter().map(|index| self.folder.join(index));
        let mut inputs = self.paths();
        inputs.extend(self.config_path().into_iter().chain(index));
        inputs
    }

    /// The bytes of the shards.
    ///
    /// # Errors
    /// Where one is missing.
    pub fn bytes(&self) -> Result<usize> {
        let len = |path: PathBuf| {
            let metadata = fs::metadata(&path).map_err(|source| Error::Read { path, source })?;
            Ok(metadata.len() as usize)
        };
        self.paths().into_iter().map(len).sum()
    }

    /// The object in `config.json`, empty where there is none.
    ///
    /// # Errors
    /// Where it is not a JSON object, or says that the model is quantized already.
    pub fn config(&self) -> Result<Map<String, Value>> {
        let Some(path) = self.config_path() else {
            return Ok(Map::new());
        };
        let mut config = json::object(&path)?;
        match quantization(&config) {
            Some(method) => Err(Error::AlreadyCompressed { path, method }),
            None => {
                // null says as much as nothing.
                config.remove(QUANTIZATION);
                Ok(config)
            }
        }
    }

    /// Whether they are the files of a folder, with others beside them.
    pub fn is_folder(&self) -> bool {
        self.is_folder
    }

    /// Whether a file of the folder is written anew, or is the index of shards that are not read.
    pub fn is_written(&self, name: &str) -> bool {
        name == CONFIG || name == INDEX || self.shards.iter().any(|shard| shard == name)
    }
}

/// How a model is quantized already, if its configuration or that of a model in it says so.
pub fn quantization(config: &Map<String, Value>) -> Option<String> {
    let keys = [QUANTIZATION, OLD_QUANTIZATION].into_iter();
    let mut found = keys.filter_map(|key| config.get(key).filter(|value| !value.is_null()));
    match found.next() {
        Some(found) => {
            let method = found.get("quant_method").and_then(Value::as_str);
            Some(method.unwrap_or("no \"quant_method\"").to_owned())
        }
        None => {
            let mut inner = config.values().filter_map(Value::as_object);
            inner.find_map(quantization)
        }
    }
}

/// The name of the only safetensors file in a folder.
fn only_file(folder: &Path) -> Result<String> {
    let read = |source| Error::Read {
        path: folder.to_owned(),
        source,
    };
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).map_err(read)? {
        let name = entry.map_err(read)?.file_name();
        found.extend(
            name.into_string()
                .ok()
                .filter(|name| name.ends_with(EXTENSION)),
        );
    }
    match <[String; 1]>::try_from(found) {
        Ok([name]) => Ok(name),
        Err(_) => Err(Error::NoModel {
            path: folder.to_owned(),
        }),
    }
}

/// The names of the files in an index, in order.
fn shards(index: &Path) -> Result<Vec<String>> {
    let invalid = |reason: &str| Error::Json {
        path: index.to_owned(),
        reason: reason.to_owned(),
    };
    let json = json::object(index)?;
    let weight_map = json.get("weight_map").and_then(Value::as_object);
    let weight_map = weight_map.ok_or_else(|| invalid("it has no object \"weight_map\""))?;
    let mut shards = BTreeSet::new();
    for shard in weight_map.values() {
        let name = shard.as_str().unwrap_or_default();
        let parts: Vec<_> = Path::new(name).components().collect();
        if !matches!(parts[..], [Component::Normal(_)]) {
            return Err(invalid(&format!(
                "{shard} is not the name of a file beside it"
            )));
        }
        shards.insert(name.to_owned());
    }
    match shards.is_empty() {
        true => Err(invalid("it names no file")),
        false => Ok(shards.into_iter().collect()),
    }
}
