//! Tensors that are dequantized as they are read.

use std::mem;
use std::ops::Range;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chopi_core::QParams;

use crate::chunks::Chunks;
use crate::error::Fault;
use crate::host::HostCodes;
use crate::model::{Storage, StoredTensor};
use crate::tensor::Plain;

/// The values of a tensor of codes or blocks, of which a piece is in memory.
#[derive(Debug)]
pub(crate) struct Dequantized {
    tensor: StoredTensor,
    params: Option<QParams>,
    /// The bytes of an element.
    width: usize,
    held: Mutex<Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// The elements in memory.
    elements: Range<usize>,
    bytes: Vec<u8>,
}

impl Dequantized {
    pub(crate) fn new(tensor: StoredTensor, params: Option<QParams>) -> Self {
        Self {
            width: tensor.dtype().bitsize() / 8,
            tensor,
            params,
            held: Mutex::default(),
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.tensor.shape().iter().product::<usize>() * self.width
    }

    /// Reads the bytes from `offset` on, as many as `out` has.
    pub(crate) fn read(&self, mut offset: usize, mut out: &mut [u8]) -> Result<(), Fault> {
        // Taken out, so that no lock is held while a piece is made on a pool of threads, one of which may come here
        // for another task: it finds nothing, and makes a piece of its own.
        let mut held = mem::take(&mut *self.held());
        while !out.is_empty() {
            let element = offset / self.width;
            if !held.elements.contains(&element) {
                held = self.piece(element)?;
            }
            let start = offset - held.elements.start * self.width;
            let len = out.len().min(held.bytes.len() - start);
            let (filled, rest) = out.split_at_mut(len);
            filled.copy_from_slice(&held.bytes[start..start + len]);
            (offset, out) = (offset + len, rest);
        }
        *self.held() = held;
        Ok(())
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The piece with an element, which there is.
    fn piece(&self, element: usize) -> Result<Held, Fault> {
        let granularity = match self.tensor.storage() {
            Storage::Quantized { granularity, .. } => granularity,
            Storage::Plain(_) | Storage::Blocks(_) => chopi_core::Granularity::PerTensor,
        };
        let chunks = Chunks::of(self.tensor.shape(), granularity, self.tensor.is_packed());
        let chunk = chunks.with(element);
        let elements = chunk.elements.clone();
        let values = match &self.params {
            None => self.tensor.blocks_of(elements.clone())?,
            Some(params) => {
                let (codes, shape) = (
                    self.tensor.codes_of(elements.clone())?,
                    chunks.shape(&chunk),
                );
                let params = chunks.params(&chunk, params)?;
                let codes = HostCodes::new(codes.as_slice(), &shape);
                params
                    .dequantize(&codes)
                    .map_err(|error| chunks.error(&chunk, error))?
            }
        };
        Ok(Held {
            elements,
            bytes: Plain::into_bytes(values),
        })
    }
}
