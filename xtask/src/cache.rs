//! The per-user cache folder: what was fetched or built once, by name and version.
//!
//! It is `$XDG_CACHE_HOME/chopi`, or else `~/.cache/chopi`; on Windows it lies in `%LOCALAPPDATA%`.
//! It survives `cargo clean`, and may be deleted at any time.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use etcetera::BaseStrategy;

/// The entry of this name, a folder, which `make` fills if it is not there yet.
///
/// The folder is made beside its place and then renamed, so that an entry is whole or absent; a
/// lock keeps two processes from making the same one.
pub fn entry(name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let root = etcetera::choose_base_strategy()
        .context("there is no home folder to keep a cache in")?
        .cache_dir()
        .join("chopi");
    entry_in(&root, name, make)
}

fn entry_in(root: &Path, name: &str, make: impl FnOnce(&Path) -> Result<()>) -> Result<PathBuf> {
    let entry = root.join(name);
    if entry.is_dir() {
        return Ok(entry);
    }
    fs::create_dir_all(root).with_context(|| format!("cannot create {}", root.display()))?;
    let lock_file = root.join(format!("{name}.lock"));
    let lock = File::create(&lock_file)
        .with_context(|| format!("cannot create {}", lock_file.display()))?;
    match lock.try_lock() {
        Err(TryLockError::WouldBlock) => {
            eprintln!("waiting for another process to make {}", entry.display());
            lock.lock()?;
        }
        other => other?,
    }
    if !entry.is_dir() {
        eprintln!("making {}", entry.display());
        let folder = tempfile::Builder::new()
            .prefix(".making-")
            .tempdir_in(root)
            .with_context(|| format!("cannot write to {}", root.display()))?;
        make(folder.path()).with_context(|| format!("cannot make {}", entry.display()))?;
        fs::rename(folder.keep(), &entry)
            .with_context(|| format!("cannot make {}", entry.display()))?;
    }
    Ok(entry)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_made_once_and_a_failed_one_is_absent() {
        let root = tempfile::tempdir().unwrap();
        let failed = entry_in(root.path(), "a-1.0", |folder| {
            fs::write(folder.join("half"), "")?;
            anyhow::bail!("no network")
        });
        assert!(format!("{:#}", failed.unwrap_err()).ends_with("no network"));
        assert!(!root.path().join("a-1.0").exists());

        let make = |folder: &Path| Ok(fs::write(folder.join("file"), "content")?);
        let made = entry_in(root.path(), "a-1.0", make).unwrap();
        assert_eq!(fs::read_to_string(made.join("file")).unwrap(), "content");
        let again = entry_in(root.path(), "a-1.0", |_| unreachable!("it is there"));
        assert_eq!(again.unwrap(), made);
    }

    #[test]
    fn processes_that_want_the_same_entry_make_it_once() {
        let root = tempfile::tempdir().unwrap();
        let made = std::sync::atomic::AtomicUsize::new(0);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    entry_in(root.path(), "b", |_| {
                        made.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                        std::thread::sleep(std::time::Duration::from_millis(20));
                        Ok(())
                    })
                    .unwrap();
                });
            }
        });
        assert_eq!(made.into_inner(), 1);
    }
}
