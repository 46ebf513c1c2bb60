//! Records that a Python script writes: a length, 8 bytes, little-endian, then so many bytes.

use std::io::Read;

use anyhow::{Context, Result};

/// Reads records one by one.
#[derive(Debug)]
pub struct Records<R> {
    source: R,
    bytes: Vec<u8>,
}

impl<R: Read> Records<R> {
    pub fn new(source: R) -> Self {
        Self {
            source,
            bytes: Vec::new(),
        }
    }

    /// The next record, if there is one.
    pub fn next(&mut self) -> Result<Option<&[u8]>> {
        let mut length = [0; 8];
        let (first, rest) = length.split_at_mut(1);
        if self.source.read(first)? == 0 {
            return Ok(None);
        }
        self.source
            .read_exact(rest)
            .context("a record ends early")?;
        self.bytes
            .resize(usize::try_from(u64::from_le_bytes(length))?, 0);
        self.source
            .read_exact(&mut self.bytes)
            .context("a record ends early")?;
        Ok(Some(&self.bytes))
    }
}
