//! Floats to the blocks of GGUF.

use chopi::formats::gguf::{BlockType, Blocks};
use chopi::metrics::Metrics;

use super::row::QuantizeRow;
use crate::archive::{Entry, Reader};
use crate::chunks::Chunks;
use crate::element::FloatElement;
use crate::error::{Error, Fault, Result};

/// Quantizes a tensor some rows at a time, and hands the bytes of each piece with where it begins to `write`.
///
/// # Errors
/// The errors of `write`; by `fault` NaN and infinities, scales that f16 does not hold, a file that cannot be read.
pub fn quantize<F: FloatElement>(
    tensor: &Entry,
    block_type: BlockType,
    mut write: impl FnMut(usize, &[u8]) -> Result<()>,
    fault: impl Fn(Fault) -> Error,
) -> Result<QuantizeRow> {
    let chunks = Chunks::of(&tensor.shape, chopi::Granularity::PerTensor, true);
    let mut elements = Reader::<F>::new(tensor);
    let mut abs_max = 0.0_f64;
    for chunk in chunks.iter() {
        let x = singles(elements.read(chunk.elements).map_err(&fault)?);
        abs_max = x
            .iter()
            .fold(abs_max, |max, &x| max.max(f64::from(x).abs()));
    }
    let mut metrics = Metrics::new(abs_max);
    let mut written = 0;
    for chunk in chunks.iter() {
        let x = singles(elements.read(chunk.elements.clone()).map_err(&fault)?);
        let blocks = Blocks::quantize(&x, &[x.len()], block_type);
        let blocks =
            blocks.map_err(|error| fault(in_tensor(error, &chunk.elements, block_type)))?;
        let values = blocks.dequantize().map_err(|error| fault(error.into()))?;
        metrics.add(&x, &values.elements::<f32>().unwrap_or_default());
        write(written, blocks.bytes())?;
        written += blocks.bytes().len();
    }
    Ok(QuantizeRow::blocks(tensor, block_type, written, &metrics))
}

/// Numbers as f32, as ggml takes them.
fn singles<F: FloatElement>(data: &[F]) -> Vec<f32> {
    let mut wide = vec![0.0; data.len()];
    F::widen_to_f64(data, &mut wide);
    wide.into_iter().map(|x| x as f32).collect()
}

/// What is wrong with a piece, with the number of the block in the tensor.
fn in_tensor(fault: Fault, elements: &std::ops::Range<usize>, block_type: BlockType) -> Fault {
    let before = elements.start / block_type.elements();
    match fault {
        Fault::NonFiniteBlock { index, value } => Fault::NonFiniteBlock {
            index: before + index,
            value,
        },
        Fault::BlockScale { index, scale } => Fault::BlockScale {
            index: before + index,
            scale,
        },
        other => other,
    }
}
