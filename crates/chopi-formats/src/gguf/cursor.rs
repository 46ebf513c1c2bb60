//! The header of a GGUF file, read from its beginning on.

use std::io;

use crate::source::Source;

/// The longest header that is read, in bytes.
const LIMIT: u64 = 1 << 28;
/// The bytes that are read at once.
const PIECE: usize = 1 << 16;

/// Where the header is read, and what of it has been.
pub(super) struct Cursor<'a> {
    source: &'a Source,
    /// The bytes of the file from `start` on.
    buffer: Vec<u8>,
    start: u64,
    position: u64,
}

/// Why reading stops.
pub(super) enum Stop {
    /// The system cannot read the file.
    Io(io::Error),
    /// The file is not valid.
    Wrong(String),
}

impl<'a> Cursor<'a> {
    pub(super) fn new(source: &'a Source) -> Self {
        Self {
            source,
            buffer: Vec::new(),
            start: 0,
            position: 0,
        }
    }

    pub(super) fn position(&self) -> u64 {
        self.position
    }

    /// What is wrong with the bytes before the position.
    pub(super) fn wrong(&self, what: impl Into<String>) -> Stop {
        Stop::Wrong(format!("{}, before byte {}", what.into(), self.position))
    }

    /// How many values there are, of which each takes at least `len` bytes: no more than fit into the file.
    pub(super) fn count(&self, count: u64, len: usize) -> Result<usize, Stop> {
        let left = self.source.len.min(LIMIT).saturating_sub(self.position);
        match usize::try_from(count) {
            Ok(fits) if count <= left / len as u64 => Ok(fits),
            _ => Err(self.wrong(format!(
                "{count} values are announced, of which no more than {} fit into the file or the {LIMIT} bytes that \
                 a header may have",
                left / len as u64
            ))),
        }
    }

    /// The next bytes, as many as the array has.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Stop> {
        let mut out = [0; N];
        let offset = (self.position - self.start) as usize;
        if offset + N > self.buffer.len() {
            self.fill(N)?;
        }
        let offset = (self.position - self.start) as usize;
        out.copy_from_slice(&self.buffer[offset..offset + N]);
        self.position += N as u64;
        Ok(out)
    }

    /// The next `len` bytes.
    pub(super) fn bytes(&mut self, len: u64) -> Result<Vec<u8>, Stop> {
        let len = self.count(len, 1)?;
        let mut out = vec![0; len];
        let offset = (self.position - self.start) as usize;
        match self.buffer.get(offset..offset + len) {
            Some(bytes) => out.copy_from_slice(bytes),
            None => self
                .source
                .read_at(self.position, &mut out)
                .map_err(Stop::Io)?,
        }
        self.position += len as u64;
        Ok(out)
    }

    /// Reads a piece that begins at the position and has at least `len` bytes.
    fn fill(&mut self, len: usize) -> Result<(), Stop> {
        let left = self.source.len.saturating_sub(self.position);
        if left < len as u64 {
            return Err(Stop::Wrong(format!(
                "it ends at byte {}, within its header",
                self.source.len
            )));
        }
        if self.position > LIMIT {
            return Err(self.wrong(format!("its header is longer than {LIMIT} bytes")));
        }
        self.buffer.resize((PIECE as u64).min(left) as usize, 0);
        self.start = self.position;
        self.source
            .read_at(self.start, &mut self.buffer)
            .map_err(Stop::Io)
    }
}
