//! Tensors of blocks, in memory.

use chopi_core::backend::repeated;

use super::types::{BlockType, GgmlType};
use super::{dequantize, quantize};
use crate::error::Fault;
use crate::tensor::Plain;

/// A tensor of blocks along the last axis, row after row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blocks {
    block_type: BlockType,
    shape: Vec<usize>,
    bytes: Vec<u8>,
}

/// The bytes of a tensor of blocks, where there can be one of this shape.
pub(crate) fn byte_len(ggml_type: GgmlType, shape: &[usize]) -> Option<usize> {
    let block = ggml_type.block_elements();
    let row = shape.last().copied().unwrap_or(1);
    let mut lens = shape.iter();
    let elements = lens.try_fold(1_usize, |n, &len| n.checked_mul(len))?;
    let whole = row.is_multiple_of(block);
    whole.then_some(())?;
    (elements / block).checked_mul(ggml_type.block_bytes())
}

impl Blocks {
    /// Blocks of a tensor of this shape.
    ///
    /// # Errors
    /// [`Fault::Rows`] where the last axis is not a whole number of blocks, [`Fault::BlockBytes`] where there are not
    /// as many bytes as the shape asks for.
    pub fn new(block_type: BlockType, shape: Vec<usize>, bytes: Vec<u8>) -> Result<Self, Fault> {
        match byte_len(GgmlType::Block(block_type), &shape) {
            None => Err(Fault::Rows { shape, block_type }),
            Some(len) if len != bytes.len() => Err(Fault::BlockBytes {
                bytes: bytes.len(),
                shape,
                block_type,
            }),
            Some(_) => Ok(Self {
                block_type,
                shape,
                bytes,
            }),
        }
    }

    /// The blocks of floats, row-major, as ggml quantizes them: to the bit as `quantize` of the Python package `gguf`
    /// 0.19, wherever that is defined. Numbers of f16, bf16 and f64 are taken as f32 first.
    ///
    /// A block is 32 elements x along the last axis. d and m are rounded to f16 in the file; the codes are computed
    /// with d as it was before, by way of its reciprocal, each operation rounded to f32:
    ///
    /// | type | parameters | codes |
    /// |---|---|---|
    /// | `Q8_0` | d = max\|x\|/127 | q = x·(1/d), rounded half away from zero |
    /// | `Q4_0` | d = x_k/−8, where x_k is the first of the largest \|x\| | q = min(15, ⌊x·(1/d) + 8.5⌋) |
    /// | `Q5_0` | d = x_k/−16 | q = min(31, ⌊x·(1/d) + 16.5⌋) |
    /// | `Q4_1` | d = (max x − min x)/15, m = min x | q = min(15, ⌊(x − m)·(1/d) + 0.5⌋) |
    /// | `Q5_1` | d = (max x − min x)/31, m = min x | q = min(31, ⌊(x − m)·(1/d) + 0.5⌋) |
    ///
    /// 1/d is 0 where d is 0, and where it would be infinite, where ggml converts numbers that its integers do not
    /// hold: such a d is 0 in f16, so that every value is 0, or m, either way.
    ///
    /// # Errors
    /// [`Fault::Rows`] where the last axis is not a whole number of blocks, [`Fault::NoBlocks`] for a type that is
    /// only read, [`Fault::NonFiniteBlock`] for NaN and infinities, [`Fault::BlockScale`] where f16 does not hold a scale.
    pub fn quantize(x: &[f32], shape: &[usize], block_type: BlockType) -> Result<Self, Fault> {
        if !BlockType::QUANTIZED.contains(&block_type) {
            return Err(Fault::NoBlocks { block_type });
        }
        let fit = byte_len(GgmlType::Block(block_type), shape);
        let elements = shape.iter().product::<usize>();
        let Some(len) = fit.filter(|_| elements == x.len()) else {
            let shape = shape.to_vec();
            return Err(Fault::Rows { shape, block_type });
        };
        let mut bytes = repeated(0, len)?;
        let out = bytes.chunks_exact_mut(block_type.bytes());
        for (index, (x, out)) in x.chunks_exact(block_type.elements()).zip(out).enumerate() {
            if let Some(value) = x.iter().find(|x| !x.is_finite()) {
                return Err(Fault::NonFiniteBlock {
                    index,
                    value: *value,
                });
            }
            quantize::block(block_type, x, out)
                .map_err(|scale| Fault::BlockScale { index, scale })?;
        }
        Self::new(block_type, shape.to_vec(), bytes)
    }

    /// The type of the blocks.
    pub fn block_type(&self) -> BlockType {
        self.block_type
    }

    /// The lengths of the axes of the tensor.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The blocks.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The values, of f32, to the bit as `dequantize` of the Python package `gguf` 0.19 and ggml give them, by the
    /// formula of the [`BlockType`].
    ///
    /// # Errors
    /// [`Error::Memory`](chopi_core::Error::Memory) where there is no memory for them.
    pub fn dequantize(&self) -> chopi_core::Result<Plain> {
        let elements = self.shape.iter().product();
        let mut values = repeated(0.0_f32, elements)?;
        let blocks = self.bytes.chunks_exact(self.block_type.bytes());
        for (out, block) in values
            .chunks_exact_mut(self.block_type.elements())
            .zip(blocks)
        {
            dequantize::block(self.block_type, block, out);
        }
        Plain::of_floats(&values, self.shape.clone())
    }
}
