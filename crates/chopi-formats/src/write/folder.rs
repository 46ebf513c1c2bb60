//! The folder that is written: a temporary one beside the target, which becomes it at the end.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use serde_json::Value;
use tempfile::TempDir;

use crate::error::{Error, Result};
use crate::json;
use crate::watch;
use crate::write::{Target, temporary};

/// A folder that is being written. Dropped, it vanishes. A program that is killed leaves it behind under a name
/// that no model has, `.chopi-*.tmp`, and a later one removes it.
#[derive(Debug)]
pub struct OutputFolder {
    temporary: TempDir,
    /// Where the temporary folder can be locked: kept open until it is in its place.
    _lock: Option<File>,
    target: PathBuf,
    force: bool,
    /// What is read, canonical.
    inputs: Vec<PathBuf>,
}

/// What the new folder takes the place of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Replaced {
    /// Nothing, or an empty folder.
    Nothing,
    /// A quantized model.
    Model,
}

impl OutputFolder {
    /// A folder for what is made of `inputs`.
    ///
    /// # Errors
    /// Where the target exists and is not to be replaced, or the folder cannot be created.
    pub fn create(output: &Path, inputs: &[PathBuf], force: bool) -> Result<Self> {
        // Without the separators at its end, which would make it the parent of the temporary one. What a link
        // leads to is replaced, not the link.
        let target: PathBuf = output.components().collect();
        let target = target.canonicalize().unwrap_or(target);
        let inputs = inputs.iter().filter_map(|path| path.canonicalize().ok());
        let inputs: Vec<PathBuf> = inputs.collect();
        check_replaceable(&target, force, &inputs)?;
        let created = temporary::folder(temporary::parent(&target)).and_then(|(folder, lock)| {
            if let Ok(replaced) = fs::metadata(&target) {
                fs::set_permissions(folder.path(), replaced.permissions())?;
            }
            Ok((folder, lock))
        });
        let (temporary, _lock) = created.map_err(|source| Error::Write {
            path: target.clone(),
            source: temporary::unnamed(source),
        })?;
        Ok(Self {
            temporary,
            _lock,
            target,
            force,
            inputs,
        })
    }

    /// Where its files are written.
    pub fn path(&self) -> &Path {
        self.temporary.path()
    }

    /// A file of its own, which does not exist yet.
    pub fn file(&self, name: &str) -> Target {
        Target::in_temporary(self.path().join(name), self.target.join(name))
    }

    /// What it will be.
    pub fn target(&self) -> &Path {
        &self.target
    }

    /// Writes a file of its own.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write_json(&self, name: &str, json: &Value) -> Result<()> {
        let path = self.path().join(name);
        let text = json::text(json).map_err(io::Error::from);
        let written = text.and_then(|text| fs::write(&path, text));
        written.map_err(|source| self.error(source))
    }

    /// Puts the folder in its place: whoever looks finds either what was there before or all of the new folder.
    ///
    /// # Errors
    /// The folder cannot be put on disk or renamed; something that has come into being at its place meanwhile.
    pub fn persist(self) -> Result<()> {
        // What is in the files must be on disk before the name is.
        sync(self.path()).map_err(|e| self.error(e))?;
        let replaced = check_replaceable(&self.target, self.force, &self.inputs)?;
        // The last look: from here on the output is in its place, or what the system says is the error.
        watch::check().map_err(|e| self.error(e))?;
        let (new, target) = (self.temporary.path(), &*self.target);
        let done = match replaced {
            // An empty folder gives way to it, and one that is not empty any more does not.
            Replaced::Nothing => fs::rename(new, target),
            Replaced::Model => exchange(new, target),
        };
        done.map_err(|e| self.error(e))?;
        temporary::sync_folder(temporary::parent(target));
        match replaced {
            Replaced::Nothing => {
                let _ = self.temporary.keep();
            }
            Replaced::Model => {
                // Under the temporary name is the old folder now.
                let old = self.temporary.path().to_owned();
                if let Err(error) = self.temporary.close()
                    && old.exists()
                {
                    watch::warn(&old, &format!("cannot remove the old folder: {error}"));
                }
            }
        }
        Ok(())
    }

    fn error(&self, source: io::Error) -> Error {
        Error::Write {
            path: self.target.clone(),
            source: temporary::unnamed(source),
        }
    }
}

/// Puts all files of a folder on disk.
fn sync(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        watch::check()?;
        match entry.file_type()?.is_dir() {
            true => sync(&entry.path())?,
            false => File::open(entry.path())?.sync_all()?,
        }
    }
    temporary::sync_folder(folder);
    Ok(())
}

/// Gives two folders each other's names, at once where the system can.
fn exchange(new: &Path, old: &Path) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android", target_vendor = "apple"))]
    {
        use rustix::fs::{CWD, RenameFlags, renameat_with};
        use rustix::io::Errno;
        // What a file system or a kernel says that cannot.
        let cannot = [Errno::INVAL, Errno::NOSYS, Errno::NOTSUP, Errno::OPNOTSUPP];
        match renameat_with(CWD, new, CWD, old, RenameFlags::EXCHANGE) {
            Err(errno) if cannot.contains(&errno) => {}
            done => return Ok(done?),
        }
    }
    exchange_in_steps(new, old)
}

/// Gives two folders each other's names in three steps. A program that is killed between them leaves the old
/// folder in one named [`temporary::OLD`], which a later run names.
fn exchange_in_steps(new: &Path, old: &Path) -> io::Result<()> {
    let aside = tempfile::Builder::new()
        .prefix(temporary::OLD)
        .suffix(".tmp")
        .tempdir_in(temporary::parent(old))?;
    let kept = aside.path().join(old.file_name().unwrap_or("old".as_ref()));
    fs::rename(old, &kept)?;
    if let Err(error) = fs::rename(new, old) {
        // Better the old one than none.
        if let Err(not_back) = fs::rename(&kept, old) {
            let aside = aside.keep();
            watch::warn(&aside, &format!("holds the old folder: {not_back}"));
        }
        return Err(error);
    }
    // Where that fails, the old one is removed with the folder that it is in.
    let _ = fs::rename(&kept, new);
    Ok(())
}

/// What a new folder takes the place of: only an empty folder, or with --force one that holds a quantized model,
/// and never one that something is read from.
fn check_replaceable(target: &Path, force: bool, inputs: &[PathBuf]) -> Result<Replaced> {
    // Not followed, so that a link that leads nowhere counts as existing.
    if fs::symlink_metadata(target).is_err() {
        return Ok(Replaced::Nothing);
    }
    let path = target.to_owned();
    if !fs::metadata(target).is_ok_and(|metadata| metadata.is_dir()) {
        return Err(Error::NotFolder { path });
    }
    let is_read = |canonical: PathBuf| inputs.iter().any(|input| input.starts_with(&canonical));
    let is_same = |input: &PathBuf| same_file::is_same_file(input, target).unwrap_or(false);
    if inputs.iter().any(is_same) || target.canonicalize().is_ok_and(is_read) {
        return Err(Error::OutputIsInput { path });
    }
    let entries = fs::read_dir(target).map(Iterator::count);
    if entries.is_ok_and(|count| count == 0) {
        return Ok(Replaced::Nothing);
    }
    if !force {
        return Err(Error::OutputExists { path });
    }
    let quantized = json::object(&target.join("config.json"));
    match quantized.is_ok_and(|config| config.contains_key("quantization_config")) {
        true => Ok(Replaced::Model),
        false => Err(Error::OutputNotQuantized { path }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_change_names_and_a_failure_changes_nothing() {
        for exchange in [exchange, exchange_in_steps] {
            let outer = tempfile::tempdir().unwrap();
            let path = |name: &str| outer.path().join(name);
            fs::create_dir(path("old")).unwrap();
            fs::write(path("old/config"), "old").unwrap();
            assert!(exchange(&path("new"), &path("old")).is_err());
            assert_eq!(fs::read(path("old/config")).unwrap(), b"old");
            assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 1);

            fs::create_dir(path("new")).unwrap();
            exchange(&path("new"), &path("old")).unwrap();
            assert_eq!(fs::read_dir(path("old")).unwrap().count(), 0);
            assert_eq!(fs::read(path("new/config")).unwrap(), b"old");
            assert_eq!(fs::read_dir(outer.path()).unwrap().count(), 2);
        }
    }
}
