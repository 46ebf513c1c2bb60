//! The question, between two pieces of the work, whether to stop it.

use std::io;
use std::sync::OnceLock;

static CHECK: OnceLock<fn() -> io::Result<()>> = OnceLock::new();

/// Asks `check` before every piece of a file that is read or written from here on, in all of the process. An
/// error of it is an error of the reading or the writing: a program that has noted a signal stops so.
///
/// Only the first call has an effect.
pub fn check_with(check: fn() -> io::Result<()>) {
    let _ = CHECK.set(check);
}

/// To be called between the pieces of the work.
///
/// # Errors
/// What the program says.
pub(crate) fn check() -> io::Result<()> {
    CHECK.get().map_or(Ok(()), |check| check())
}
