//! The file that is written: a temporary one beside the target, which replaces it at the end.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use same_file::is_same_file;
use tempfile::NamedTempFile;

use crate::error::{Error, Result};
use crate::header::{Header, Layout, Slot};
use crate::watch;
use crate::write::temporary;

/// Where a file may be written.
#[derive(Debug)]
pub struct Target {
    path: PathBuf,
    /// The name that errors have for it.
    shown: PathBuf,
    /// The permissions of the file that is replaced.
    replaces: Option<Permissions>,
}

impl Target {
    /// A place that is not one of the inputs; a file that is there is replaced only with `force`.
    ///
    /// # Errors
    /// Where the output is the input, exists and is not to be replaced, or cannot be.
    pub fn new(output: &Path, inputs: &[PathBuf], force: bool) -> Result<Self> {
        let path = output.to_owned();
        // Not followed, so that a link that leads nowhere counts as existing.
        if fs::symlink_metadata(&path).is_err() {
            return Ok(Self {
                shown: path.clone(),
                path,
                replaces: None,
            });
        }
        // What a link leads to is replaced, not the link.
        let found = fs::canonicalize(&path).and_then(|real| Ok((fs::metadata(&real)?, real)));
        let (metadata, real) = match found {
            Ok(found) => found,
            Err(_) if !force => return Err(Error::OutputExists { path }),
            Err(source) => return Err(Error::Write { path, source }),
        };
        // Asked before it is opened: opening a pipe would wait for its other end.
        if !metadata.is_file() {
            return Err(Error::NotRegular { path });
        }
        if inputs
            .iter()
            .any(|input| is_same_file(input, &real).unwrap_or(false))
        {
            return Err(Error::OutputIsInput { path });
        }
        if !force {
            return Err(Error::OutputExists { path });
        }
        if metadata.permissions().readonly() {
            return Err(Error::OutputReadOnly { path });
        }
        if let Err(source) = File::options().write(true).open(&real) {
            return Err(Error::Write { path, source });
        }
        Ok(Self {
            shown: real.clone(),
            path: real,
            replaces: Some(metadata.permissions()),
        })
    }

    /// A file that does not exist yet, in a temporary folder. Errors name it `shown`, as it will be called.
    pub(crate) fn in_temporary(path: PathBuf, shown: PathBuf) -> Self {
        Self {
            path,
            shown,
            replaces: None,
        }
    }

    /// The error of the system, under the name that the output will have.
    fn error(&self, source: io::Error) -> Error {
        Error::Write {
            path: self.shown.clone(),
            source: temporary::unnamed(source),
        }
    }

    /// Checks that the file can be created, for those who work for long before they write it.
    ///
    /// # Errors
    /// What the system says.
    pub fn check(&self) -> Result<()> {
        self.temporary().map(drop)
    }

    /// Creates the temporary file and writes the header.
    ///
    /// # Errors
    /// Where the file cannot be created or written, or the header is too long for the format.
    pub fn create(self, header: &Header) -> Result<Output> {
        let layout = header.layout().map_err(|e| self.error(e.into()))?;
        if layout.bytes.len() - 8 > Header::LIMIT {
            return Err(Error::HeaderTooLong {
                len: layout.bytes.len() - 8,
                limit: Header::LIMIT,
                path: self.shown,
            });
        }
        let output = Output {
            file: self.temporary()?,
            layout,
            target: self,
            #[cfg(not(unix))]
            position: std::sync::Mutex::new(()),
        };
        output.write_at(&output.layout.bytes, 0)?;
        Ok(output)
    }

    /// Writes a whole file that is not one of tensors, and puts it in its place.
    ///
    /// # Errors
    /// The errors of [`create`](Self::create) and [`Output::persist`].
    pub fn write(self, bytes: &[u8]) -> Result<()> {
        let mut file = self.temporary()?;
        file.write_all(bytes).map_err(|e| self.error(e))?;
        self.persist(file)
    }

    /// Creates the temporary file.
    fn temporary(&self) -> Result<NamedTempFile> {
        let permitted = temporary::file(temporary::parent(&self.path)).and_then(|file| {
            if let Some(permissions) = &self.replaces {
                file.as_file().set_permissions(permissions.clone())?;
            }
            Ok(file)
        });
        permitted.map_err(|e| self.error(e))
    }

    /// Gives the temporary file the target's name, once what is in it is on disk.
    fn persist(self, file: NamedTempFile) -> Result<()> {
        let synced = watch::check().and_then(|()| file.as_file().sync_all());
        // The last look: from here on the output is in its place, or what the system says is the error.
        synced
            .and_then(|()| watch::check())
            .map_err(|e| self.error(e))?;
        let persisted = match self.replaces {
            Some(_) => file.persist(&self.path),
            None => file.persist_noclobber(&self.path),
        };
        match persisted {
            Ok(_) => {
                temporary::sync_folder(temporary::parent(&self.path));
                Ok(())
            }
            Err(e) if e.error.kind() == io::ErrorKind::AlreadyExists => {
                Err(Error::OutputExists { path: self.shown })
            }
            Err(e) => Err(self.error(e.error)),
        }
    }
}

/// A file that is being written, by many threads at once. Dropped, it vanishes.
#[derive(Debug)]
pub struct Output {
    file: NamedTempFile,
    layout: Layout,
    target: Target,
    #[cfg(not(unix))]
    position: std::sync::Mutex<()>,
}

impl Output {
    /// How many bytes the data of a tensor are.
    pub fn len_of(&self, slot: Slot) -> usize {
        self.layout.len_of(slot)
    }

    /// Writes a part of the data of a tensor that begins `offset` bytes into them.
    ///
    /// # Errors
    /// The file cannot be written; bytes beyond the end of the data.
    pub fn write(&self, slot: Slot, offset: usize, bytes: &[u8]) -> Result<()> {
        let end = offset.checked_add(bytes.len());
        if end.is_none_or(|end| end > self.len_of(slot)) {
            let reason = format!(
                "{} bytes at byte {offset} of a tensor of {}",
                bytes.len(),
                self.len_of(slot)
            );
            let source = io::Error::new(io::ErrorKind::InvalidInput, reason);
            return Err(self.target.error(source));
        }
        self.write_at(bytes, self.layout.start(slot) + offset as u64)
    }

    fn write_at(&self, bytes: &[u8], position: u64) -> Result<()> {
        let write = || self.write_all_at(bytes, position);
        watch::check()
            .and_then(|()| write())
            .map_err(|e| self.target.error(e))
    }

    #[cfg(unix)]
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        std::os::unix::fs::FileExt::write_all_at(self.file.as_file(), bytes, position)
    }

    #[cfg(not(unix))]
    fn write_all_at(&self, bytes: &[u8], position: u64) -> io::Result<()> {
        use std::io::{Seek, SeekFrom};
        let _held = self.position.lock();
        let mut file = self.file.as_file();
        file.seek(SeekFrom::Start(position))?;
        file.write_all(bytes)
    }

    /// Puts the file in its place.
    ///
    /// # Errors
    /// The file cannot be put on disk or renamed; a target that has come into being meanwhile.
    pub fn persist(self) -> Result<()> {
        // The last tensor may be followed by bytes that nobody writes.
        let file = self.file.as_file();
        let lengthened = match file.metadata() {
            Ok(metadata) if metadata.len() < self.layout.len => file.set_len(self.layout.len),
            Ok(_) => Ok(()),
            Err(error) => Err(error),
        };
        lengthened.map_err(|e| self.target.error(e))?;
        self.target.persist(self.file)
    }
}
