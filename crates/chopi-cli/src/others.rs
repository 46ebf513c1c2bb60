//! The files of a folder that lie beside its weights.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use same_file::is_same_file;
use serde_json::Value;

use crate::file;
use crate::files::{CONFIG, Files, quantization};
use crate::interrupt;
use crate::json;
use crate::write::{OLD, is_temporary};
use chopi::formats::{Error, Result};

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

/// Files and folders that are not copied.
#[derive(Debug, Default)]
pub struct LeftOut {
    /// The names of weights in other forms.
    pub weights: Vec<String>,
    /// The names of others, with the reason.
    pub others: Vec<(String, String)>,
}

/// Copies to a temporary folder, which will be `target`, all files of a model's folder but those that are written
/// anew, other files of weights, folders of quantized models, folders whose names begin with a dot, and what cannot
/// be read. Gives the names of what it has left out.
///
/// # Errors
/// A folder that cannot be read, a file that cannot be written.
pub fn copy(model: &Files, to: &Path, target: &Path) -> Result<LeftOut> {
    if !model.is_folder() {
        return Ok(LeftOut::default());
    }
    let mut copy = Copy {
        model,
        parts: parts(&model.folder),
        target,
        linked: BTreeSet::new(),
        left: LeftOut::default(),
    };
    let entries = entries(&model.folder).map_err(|source| Error::Read {
        path: model.folder.clone(),
        source,
    })?;
    copy.folder("", &model.folder, entries, to)?;
    copy.left.weights.sort();
    Ok(copy.left)
}

/// The folders of a sentence-transformers model that are layers of it, with weights of their own.
fn parts(folder: &Path) -> BTreeSet<String> {
    let modules = file::read(&folder.join("modules.json")).ok();
    let modules: Option<Vec<Value>> = modules.and_then(|bytes| serde_json::from_slice(&bytes).ok());
    let modules = modules.unwrap_or_default();
    let paths = modules.iter().filter_map(|module| module["path"].as_str());
    let first = |path: &str| path.split('/').next().unwrap_or_default().to_owned();
    let mut parts: BTreeSet<String> = paths.map(first).collect();
    parts.remove("");
    parts
}

/// The names in a folder, in order.
fn entries(folder: &Path) -> io::Result<Vec<OsString>> {
    let names = fs::read_dir(folder)?.map(|entry| Ok(entry?.file_name()));
    let mut names = names.collect::<io::Result<Vec<_>>>()?;
    names.sort();
    Ok(names)
}

struct Copy<'a> {
    model: &'a Files,
    parts: BTreeSet<String>,
    /// Where the output will be, which may be in the folder that is copied.
    target: &'a Path,
    /// The folders that links have led to.
    linked: BTreeSet<PathBuf>,
    left: LeftOut,
}

impl Copy<'_> {
    /// Copies a folder with these entries, whose name in the model's folder is `inside`.
    fn folder(
        &mut self,
        inside: &str,
        folder: &Path,
        entries: Vec<OsString>,
        to: &Path,
    ) -> Result<()> {
        for name in entries {
            let (from, to) = (folder.join(&name), to.join(&name));
            let text = name.to_string_lossy();
            let path = match inside {
                "" => text.clone().into_owned(),
                _ => format!("{inside}/{text}"),
            };
            let is_written = inside.is_empty() && self.model.is_written(&text);
            if is_written || is_temporary(&text) || text.starts_with(OLD) {
                continue;
            }
            // Links are followed: model caches are full of them.
            match fs::metadata(&from) {
                Ok(metadata) if metadata.is_dir() => self.inner_folder(path, &text, &from, &to)?,
                _ if self.is_weights(&path) => self.left.weights.push(path),
                Ok(metadata) if metadata.is_file() => {
                    if let Err(reason) = copy_file(&from, &to)? {
                        self.leave(path, reason);
                    }
                }
                Ok(_) => self.leave(path, "neither a file nor a folder"),
                Err(_) if from.is_symlink() => self.leave(path, "a link that leads nowhere"),
                Err(error) => self.leave(path, format!("cannot be read: {error}")),
            }
        }
        Ok(())
    }

    /// Copies a folder in a folder, unless there is a reason not to.
    fn inner_folder(&mut self, path: String, name: &str, from: &Path, to: &Path) -> Result<()> {
        if path == ORIGINAL {
            self.left.weights.push(format!("{path}/"));
            return Ok(());
        }
        if name.starts_with('.') || is_same_file(from, self.target).unwrap_or(false) {
            return Ok(());
        }
        if from.is_symlink() && !self.follows(from) {
            self.leave(path, "a link to a folder that is copied elsewhere");
            return Ok(());
        }
        let part = path.split('/').next().unwrap_or_default();
        let config = json::object(&from.join(CONFIG)).unwrap_or_default();
        if !self.parts.contains(part) && quantization(&config).is_some() {
            self.leave(path, "the folder of a quantized model");
            return Ok(());
        }
        match entries(from) {
            Ok(entries) => {
                fs::create_dir(to).map_err(|source| Error::Write {
                    path: to.to_owned(),
                    source,
                })?;
                self.folder(&path, from, entries, to)
            }
            Err(error) => {
                self.leave(path, format!("cannot be read: {error}"));
                Ok(())
            }
        }
    }

    /// Whether a link to a folder is followed: each folder once, and none that holds the link or the model.
    fn follows(&mut self, link: &Path) -> bool {
        let Ok(folder) = link.canonicalize() else {
            return false;
        };
        let holds = |path: &Path| {
            path.canonicalize()
                .is_ok_and(|path| path.starts_with(&folder))
        };
        let loops = link.parent().is_some_and(holds) || holds(&self.model.folder);
        !loops && self.linked.insert(folder)
    }

    fn leave(&mut self, path: String, reason: impl Into<String>) {
        self.left.others.push((path, reason.into()));
    }

    /// Whether a file holds weights that belong to another form of the model.
    fn is_weights(&self, path: &str) -> bool {
        let part = path.split_once('/').map(|(first, _)| first);
        let lower = path.to_lowercase();
        WEIGHTS.iter().any(|end| lower.ends_with(end))
            && !part.is_some_and(|part| self.parts.contains(part))
    }
}

/// Copies a file, a piece after the other, or says why it cannot be read.
fn copy_file(from: &Path, to: &Path) -> Result<std::result::Result<(), String>> {
    let write = |source| Error::Write {
        path: to.to_owned(),
        source,
    };
    let (mut source, metadata) = match file::open(from) {
        Ok(opened) => opened,
        Err(Error::Read { source, .. }) => return Ok(Err(format!("cannot be read: {source}"))),
        Err(_) => return Ok(Err("not a regular file".to_owned())),
    };
    let mut copy = File::create_new(to).map_err(write)?;
    let mut buffer = vec![0; 1 << 18];
    loop {
        interrupt::check().map_err(write)?;
        match source.read(&mut buffer) {
            Ok(0) => break,
            Ok(len) => copy.write_all(&buffer[..len]).map_err(write)?,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => {
                fs::remove_file(to).map_err(write)?;
                return Ok(Err(format!("cannot be read: {error}")));
            }
        }
    }
    copy.set_permissions(metadata.permissions())
        .map_err(write)?;
    Ok(Ok(()))
}
