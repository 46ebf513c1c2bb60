//! What the program that uses the library is asked and told between two pieces of the work.

use std::io;
use std::path::Path;
use std::sync::OnceLock;

/// What a program has to say while files are read and written, and wants to hear.
#[derive(Clone, Copy, Debug)]
pub struct Watch {
    /// Asked before every piece of a file that is read or written. An error of it is an error of the reading or the
    /// writing: a program that has noted a signal stops so.
    pub check: fn() -> io::Result<()>,
    /// Told of what is no error: a folder that another run has left beside an output.
    pub warn: fn(&Path, &str),
}

static WATCH: OnceLock<Watch> = OnceLock::new();

impl Watch {
    /// Asks and tells from here on, in all of the process. Only the first call has an effect; without one nothing is
    /// asked or told.
    pub fn set(self) {
        let _ = WATCH.set(self);
    }
}

/// To be called between the pieces of the work.
///
/// # Errors
/// What the program says.
pub(crate) fn check() -> io::Result<()> {
    WATCH.get().map_or(Ok(()), |watch| (watch.check)())
}

pub(crate) fn warn(path: &Path, what: &str) {
    if let Some(watch) = WATCH.get() {
        (watch.warn)(path, what);
    }
}
