//! The folder that is written: a temporary one beside the target, which becomes it at the end.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::args::FileArgs;
use crate::error::{Error, Result};
use crate::interrupt;
use crate::json;

/// A folder that is being written. Dropped, it vanishes. A program that is killed leaves it behind
/// under a name that no model has, `.chopi-*.tmp`, and its `config.json` is written last.
#[derive(Debug)]
pub struct OutputFolder {
    temporary: TempDir,
    target: PathBuf,
    /// Whether there is a folder that is to be replaced.
    replaces: bool,
}

impl OutputFolder {
    /// # Errors
    /// Where the target exists and is not to be replaced, or the folder cannot be created.
    pub fn create(files: &FileArgs) -> Result<Self> {
        // Without the separators at its end, which would make it the parent of the temporary one.
        let target: PathBuf = files.output.components().collect();
        let exists = fs::symlink_metadata(&target).is_ok();
        if exists {
            check_replaceable(&target, files)?;
        }
        let parent = match target.parent() {
            Some(parent) if parent != Path::new("") => parent,
            _ => Path::new("."),
        };
        let create = || {
            let mut builder = tempfile::Builder::new();
            builder.prefix(".chopi-").suffix(".tmp");
            // What any new folder gets, rather than the 0700 of a temporary one.
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
            builder.tempdir_in(parent)
        };
        let temporary = interrupt::guarded(create, TempDir::path);
        Ok(Self {
            temporary: temporary.map_err(|source| Error::Write {
                path: target.clone(),
                source,
            })?,
            target,
            replaces: exists,
        })
    }

    /// Where its files are written.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// Writes a file of its own.
    ///
    /// # Errors
    /// What the system says.
    pub fn write_json(&self, name: &str, json: &Value) -> Result<()> {
        let path = self.path().join(name);
        let text = json::text(json).map_err(io::Error::from);
        let written = text.and_then(|text| fs::write(&path, text));
        written.map_err(|source| self.error(source))
    }

    /// Puts the folder in its place.
    ///
    /// # Errors
    /// What the system says.
    pub fn persist(self) -> Result<()> {
        // What is in the files must be on disk before the name is.
        for entry in fs::read_dir(self.path()).map_err(|e| self.error(e))? {
            let file = entry.and_then(|entry| File::open(entry.path()));
            file.and_then(|file| file.sync_all())
                .map_err(|e| self.error(e))?;
        }
        let old = match self.replaces {
            true => Some(self.set_aside().map_err(|e| self.error(e))?),
            false => None,
        };
        let renamed = fs::rename(self.temporary.path(), &self.target);
        if let (Err(_), Some((old, _))) = (&renamed, &old) {
            // Better the old one than none.
            let _ = fs::rename(old, &self.target);
        }
        renamed.map_err(|e| self.error(e))?;
        let path = self.temporary.keep();
        interrupt::forget(&path);
        Ok(())
    }

    /// Moves the old folder into one that vanishes when it is dropped.
    fn set_aside(&self) -> io::Result<(PathBuf, TempDir)> {
        let parent = self.temporary.path().parent().unwrap_or(Path::new("."));
        let mut builder = tempfile::Builder::new();
        let aside = builder
            .prefix(".chopi-old-")
            .suffix(".tmp")
            .tempdir_in(parent)?;
        let old = aside.path().join("old");
        fs::rename(&self.target, &old)?;
        Ok((old, aside))
    }

    fn error(&self, source: io::Error) -> Error {
        Error::Write {
            path: self.target.clone(),
            source,
        }
    }
}

/// Only an empty folder, or with --force one that holds a quantized model, is replaced.
fn check_replaceable(target: &Path, files: &FileArgs) -> Result<()> {
    let path = target.to_owned();
    let metadata = fs::metadata(target);
    if !metadata.is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::NotFolder { path });
    }
    let same = |a: &Path| same_file::is_same_file(a, target).unwrap_or(false);
    let inside = files
        .input
        .canonicalize()
        .ok()
        .zip(target.canonicalize().ok());
    if same(&files.input) || inside.is_some_and(|(input, target)| input.starts_with(target)) {
        return Err(Error::OutputIsInput { path });
    }
    let entries = fs::read_dir(target).map(Iterator::count);
    if entries.is_ok_and(|count| count == 0) {
        return Ok(());
    }
    if !files.force {
        return Err(Error::OutputExists { path });
    }
    let quantized = json::object(&target.join("config.json"));
    match quantized.is_ok_and(|config| config.contains_key("quantization_config")) {
        true => Ok(()),
        false => Err(Error::OutputNotQuantized { path }),
    }
}
