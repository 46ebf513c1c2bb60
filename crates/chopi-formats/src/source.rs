//! An open file that is read where it is asked for.
//!
//! Files are read, not mapped into memory: where another program cuts a mapped file short, reading its memory
//! ends the program.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use crate::error::{Error, Result};
use crate::file;

/// An open file, of which pieces are read when they are used, and not before.
#[derive(Debug)]
pub(crate) struct Source {
    pub path: PathBuf,
    file: File,
    pub len: u64,
    #[cfg(not(unix))]
    position: std::sync::Mutex<()>,
}

impl Source {
    /// # Errors
    /// Where there is no regular file with at least one byte that can be read.
    pub fn open(path: &Path) -> Result<Self> {
        let path = path.to_owned();
        let (file, metadata) = file::open(&path)?;
        match metadata.len() {
            0 => Err(Error::Empty { path }),
            len => Ok(Self {
                path,
                file,
                len,
                #[cfg(not(unix))]
                position: std::sync::Mutex::new(()),
            }),
        }
    }

    /// Reads as many bytes as `out` has from `position` on.
    ///
    /// # Errors
    /// The file cannot be read, or has become shorter since it was opened.
    pub fn read_at(&self, position: u64, out: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(position, out)
            .map_err(|e| match e.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::new(
                    e.kind(),
                    format!(
                        "it has become shorter than the {} bytes that it had",
                        self.len
                    ),
                ),
                _ => e,
            })
    }

    #[cfg(unix)]
    fn read_exact_at(&self, position: u64, out: &mut [u8]) -> io::Result<()> {
        std::os::unix::fs::FileExt::read_exact_at(&self.file, out, position)
    }

    #[cfg(not(unix))]
    fn read_exact_at(&self, position: u64, out: &mut [u8]) -> io::Result<()> {
        use std::io::{Read, Seek, SeekFrom};
        let _held = self.position.lock();
        let mut file = &self.file;
        file.seek(SeekFrom::Start(position))?;
        file.read_exact(out)
    }
}
