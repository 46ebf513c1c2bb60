//! Temporary files and folders, beside what they are to become. Their writer holds them locked, so that a later
//! run can tell and remove those that a killed one has left.

use std::fs::{self, File};
use std::io;
use std::path::Path;

use same_file::Handle;
use tempfile::{Builder, NamedTempFile, TempDir};

use crate::watch;

const PREFIX: &str = ".chopi-";
const SUFFIX: &str = ".tmp";
/// Between them stand letters and digits at random.
const RANDOM: usize = 6;
/// What stands before the name of a folder that is kept while another takes its place.
pub const OLD: &str = ".chopi-old-";

/// A file in a folder.
///
/// # Errors
/// A file cannot be created in the folder.
pub fn file(folder: &Path) -> io::Result<NamedTempFile> {
    let create = || {
        let mut builder = builder();
        // What any new file gets, rather than the 0600 of a temporary one.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
        builder.tempfile_in(folder)
    };
    let (file, _) = locked(folder, create, |file| {
        Ok((file.path().to_owned(), file.as_file().try_clone()?))
    })?;
    Ok(file)
}

/// A folder in a folder, and the lock on it where there can be one.
///
/// # Errors
/// A folder cannot be created in the outer folder.
pub fn folder(parent: &Path) -> io::Result<(TempDir, Option<File>)> {
    let create = || {
        let mut builder = builder();
        // What any new folder gets, rather than the 0700 of a temporary one.
        #[cfg(unix)]
        builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o777));
        builder.tempdir_in(parent)
    };
    locked(parent, create, |folder| {
        Ok((folder.path().to_owned(), File::open(folder.path())?))
    })
}

/// An error of the system without the name of a temporary file, which the crate `tempfile` adds at its end.
pub fn unnamed(error: io::Error) -> io::Error {
    match error.to_string().split_once(" at path \"") {
        Some((said, _)) => io::Error::new(error.kind(), said),
        None => error,
    }
}

fn builder() -> Builder<'static, 'static> {
    let mut builder = Builder::new();
    builder.prefix(PREFIX).suffix(SUFFIX).rand_bytes(RANDOM);
    builder
}

/// Removes what killed runs have left in a folder, and creates something new that is locked.
fn locked<T>(
    folder: &Path,
    create: impl Fn() -> io::Result<T>,
    open: impl Fn(&T) -> io::Result<(std::path::PathBuf, File)>,
) -> io::Result<(T, Option<File>)> {
    clean(folder);
    loop {
        let created = create()?;
        let (path, file) = match open(&created) {
            Ok(opened) => opened,
            // Another run has removed it before it could be locked.
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(_) => return Ok((created, None)),
        };
        match file.try_lock() {
            Ok(()) if is_at(&file, &path) => return Ok((created, Some(file))),
            // Before it was locked another run took it for one that nobody holds.
            Ok(()) | Err(fs::TryLockError::WouldBlock) => {}
            // A file system without locks, where no run removes what another has left.
            Err(fs::TryLockError::Error(_)) => return Ok((created, None)),
        }
    }
}

/// Whether a file or folder still has this name.
fn is_at(file: &File, path: &Path) -> bool {
    let opened = file.try_clone().and_then(Handle::from_file);
    opened
        .and_then(|opened| Ok(opened == Handle::from_path(path)?))
        .unwrap_or(false)
}

/// Whether this is the name of a temporary file or folder.
pub fn is_temporary(name: &str) -> bool {
    let random = name
        .strip_prefix(PREFIX)
        .and_then(|name| name.strip_suffix(SUFFIX));
    random.is_some_and(|random| {
        random.len() == RANDOM && random.bytes().all(|byte| byte.is_ascii_alphanumeric())
    })
}

/// Removes the temporary files and folders that nobody holds, and names the folders that are being replaced.
fn clean(folder: &Path) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let (name, Ok(kind)) = (name.to_string_lossy(), entry.file_type()) else {
            continue;
        };
        if name.starts_with(OLD) && kind.is_dir() {
            watch::warn(
                &path,
                "holds a folder that another run is replacing, or was when it was killed",
            );
        }
        if !is_temporary(&name) || !(kind.is_dir() || kind.is_file()) {
            continue;
        }
        // Some file systems lock only what is open for writing, and no folder can be.
        let opened = File::options().read(true).write(kind.is_file()).open(&path);
        let Ok(opened) = opened else { continue };
        if opened.try_lock().is_ok() && is_at(&opened, &path) {
            // What cannot be removed is no hindrance.
            let _ = match kind.is_dir() {
                true => fs::remove_dir_all(&path),
                false => fs::remove_file(&path),
            };
        }
    }
}

/// Puts the names in a folder on disk: those of files that were renamed. Where a folder cannot be put on disk
/// by itself nothing can be done about it, and the renaming is not undone.
pub fn sync_folder(folder: &Path) {
    #[cfg(unix)]
    let _ = File::open(folder).and_then(|folder| folder.sync_all());
    #[cfg(not(unix))]
    let _ = folder;
}

/// The folder that a file or folder of this path lies in.
pub fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_nobody_holds_is_removed_and_nothing_else() {
        let outer = tempfile::tempdir().unwrap();
        let path = |name: &str| outer.path().join(name);
        let held = file(outer.path()).unwrap();
        let (held_folder, lock) = folder(outer.path()).unwrap();
        for name in [".chopi-aB3dEf.tmp", ".chopi-notes.tmp", ".chopi-notes1"] {
            fs::write(path(name), "").unwrap();
        }
        fs::create_dir_all(path(".chopi-000000.tmp/model/deep")).unwrap();
        fs::create_dir(path(".chopi-old-000000.tmp")).unwrap();

        drop(file(outer.path()).unwrap());
        let left = |name: &str| path(name).exists();
        assert!(!left(".chopi-aB3dEf.tmp") && !left(".chopi-000000.tmp"));
        assert!(left(".chopi-notes.tmp") && left(".chopi-notes1"));
        assert!(left(".chopi-old-000000.tmp"));
        assert!(held.path().exists() && held_folder.path().exists());
        drop(lock);
    }
}
