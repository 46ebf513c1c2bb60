//! The files of a folder that lie beside its weights.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::Model;
use crate::error::{Error, Result};

/// The ends of the names of files that hold weights, or say where weights lie.
const WEIGHTS: [&str; 14] = [
    ".safetensors",
    ".bin",
    ".pth",
    ".pt",
    ".ckpt",
    ".gguf",
    ".ggml",
    ".h5",
    ".msgpack",
    ".onnx",
    ".onnx_data",
    ".npz",
    ".bin.index.json",
    ".safetensors.index.json",
];
/// The folder in which model repositories keep the weights as they were made.
const ORIGINAL: &str = "original";

/// Copies what is neither written anew nor weights, and gives the names of the weights.
pub fn copy(model: &Model, target: &Path) -> Result<Vec<String>> {
    let mut copy = Copy {
        model,
        parts: parts(&model.folder),
        left: Vec::new(),
    };
    copy.folder("", &model.folder, target)?;
    copy.left.sort();
    Ok(copy.left)
}

/// The folders of a sentence-transformers model that are layers of it, with weights of their own.
fn parts(folder: &Path) -> BTreeSet<String> {
    let modules = fs::read(folder.join("modules.json")).ok();
    let modules: Option<Vec<Value>> = modules.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let modules = modules.unwrap_or_default();
    let paths = modules.iter().filter_map(|module| module["path"].as_str());
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let mut parts: BTreeSet<String> = paths.map(first).collect();
    parts.remove("");
    parts
}

struct Copy<'a> {
    model: &'a Model,
    parts: BTreeSet<String>,
    left: Vec<String>,
}

impl Copy<'_> {
    /// Copies a folder, whose name in the model's folder is `inside`.
    fn folder(&mut self, inside: &str, folder: &Path, target: &Path) -> Result<()> {
        let read = |source| Error::Read {
            path: folder.to_owned(),
            source,
        };
        for entry in fs::read_dir(folder).map_err(read)? {
            let name = entry.map_err(read)?.file_name();
            let (from, to) = (folder.join(&name), target.join(&name));
            let text = name.to_string_lossy();
            let path = match inside {
                "" => text.clone().into_owned(),
                _ => format!("{inside}/{text}"),
            };
            let read = |source| Error::Read {
                path: from.clone(),
                source,
            };
            let write = |source| Error::Write {
                path: to.clone(),
                source,
            };
            if inside.is_empty() && self.model.is_written(&text) {
                continue;
            }
            // Links are followed: model caches are full of them.
            let metadata = fs::metadata(&from).map_err(read)?;
            if metadata.is_dir() {
                if path == ORIGINAL {
                    self.left.push(format!("{path}/"));
                } else if !text.starts_with('.') {
                    fs::create_dir(&to).map_err(write)?;
                    self.folder(&path, &from, &to)?;
                }
            } else if self.is_weights(&path) {
                self.left.push(path);
            } else if metadata.is_file() {
                fs::copy(&from, &to).map_err(write)?;
            }
        }
        Ok(())
    }

    /// Whether a file holds weights that belong to another form of the model.
    fn is_weights(&self, path: &str) -> bool {
        let part = path.split_once('/').map(|(first, _)| first);
        let lower = path.to_lowercase();
        WEIGHTS.iter().any(|end| lower.ends_with(end))
            && !part.is_some_and(|part| self.parts.contains(part))
    }
}
