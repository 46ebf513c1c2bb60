//! Regular files that are read, and nothing that only has the name of one: opening a pipe would wait for its
//! other end, and a device may never end.

use std::fs::{self, File, Metadata};
use std::io::{self, Read};
use std::path::Path;

use crate::error::{Error, Result};

/// The longest text that is read whole, in bytes: that of the header of a safetensors file.
const LIMIT: u64 = 100_000_000;

/// Opens a regular file for reading.
///
/// # Errors
/// Where there is none, or it cannot be read.
pub fn open(path: &Path) -> Result<(File, Metadata)> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    // Asked before it is opened, as opening alone does something to some devices, and asked again of what was
    // opened.
    let is_regular = |metadata: Metadata| match metadata.is_file() {
        true => Ok(metadata),
        false => Err(Error::NotRegular {
            path: path.to_owned(),
        }),
    };
    is_regular(fs::metadata(path).map_err(read)?)?;
    let mut options = File::options();
    options.read(true);
    #[cfg(unix)]
    {
        // A pipe that has taken its place meanwhile does not wait.
        let no_wait = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        std::os::unix::fs::OpenOptionsExt::custom_flags(&mut options, no_wait);
    }
    let file = options.open(path).map_err(read)?;
    let metadata = is_regular(file.metadata().map_err(read)?)?;
    Ok((file, metadata))
}

/// Reads a regular file that is a text, such as one of JSON.
///
/// # Errors
/// Where there is none, it cannot be read, or it is longer than any such text.
pub fn read(path: &Path) -> Result<Vec<u8>> {
    let read = |source| Error::Read {
        path: path.to_owned(),
        source,
    };
    let (file, _) = open(path)?;
    let mut bytes = Vec::new();
    file.take(LIMIT + 1).read_to_end(&mut bytes).map_err(read)?;
    match bytes.len() as u64 > LIMIT {
        true => Err(read(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!("it is longer than {LIMIT} bytes"),
        ))),
        false => Ok(bytes),
    }
}
