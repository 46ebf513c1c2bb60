//! Removes what is temporary when the user stops the program.

use std::io;
use std::path::{Path, PathBuf};
use std::process;
use std::sync::Mutex;

static TEMPORARY: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());

/// Creates a temporary file or folder, which lies at `path`. Until [`forget`] is called, a program
/// that is interrupted or terminated removes it and exits with status 130.
///
/// # Errors
/// The errors of `create`.
pub fn guarded<T>(
    create: impl FnOnce() -> io::Result<T>,
    path: impl FnOnce(&T) -> &Path,
) -> io::Result<T> {
    // Without a handler the program works as well. There is none where a signal is ignored already,
    // as under nohup.
    let _ = ctrlc::try_set_handler(|| {
        for path in TEMPORARY.lock().as_deref().into_iter().flatten() {
            let _ = match path.is_dir() {
                true => std::fs::remove_dir_all(path),
                false => std::fs::remove_file(path),
            };
        }
        process::exit(130);
    });
    // Locked meanwhile, so that there is no moment at which it exists unknown.
    let mut temporary = TEMPORARY.lock().unwrap_or_else(|e| e.into_inner());
    let created = create()?;
    temporary.push(path(&created).to_owned());
    Ok(created)
}

/// What lay at this path is not there any more.
pub fn forget(path: &Path) {
    let mut temporary = TEMPORARY.lock().unwrap_or_else(|e| e.into_inner());
    temporary.retain(|other| other != path);
}
