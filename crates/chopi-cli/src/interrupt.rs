//! Removes the temporary file when the user stops the program.

use std::io;
use std::path::PathBuf;
use std::process;
use std::sync::Mutex;

use tempfile::NamedTempFile;

static TEMPORARY: Mutex<Option<PathBuf>> = Mutex::new(None);

/// Creates the temporary file. Until [`forget`] is called, a program that is interrupted or
/// terminated removes it and exits with status 130.
///
/// # Errors
/// Those of `create`.
pub fn guarded(create: impl FnOnce() -> io::Result<NamedTempFile>) -> io::Result<NamedTempFile> {
    // Without a handler the program works as well. There is none where a signal is ignored already,
    // as under nohup.
    let _ = ctrlc::try_set_handler(|| {
        if let Ok(Some(path)) = TEMPORARY.lock().as_deref() {
            let _ = std::fs::remove_file(path);
        }
        process::exit(130);
    });
    // Locked meanwhile, so that there is no moment at which the file exists unknown.
    let mut temporary = TEMPORARY.lock().unwrap_or_else(|e| e.into_inner());
    let file = create()?;
    *temporary = Some(file.path().to_owned());
    Ok(file)
}

/// There is no temporary file any more.
pub fn forget() {
    *TEMPORARY.lock().unwrap_or_else(|e| e.into_inner()) = None;
}
