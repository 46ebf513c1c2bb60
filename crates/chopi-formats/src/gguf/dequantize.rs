//! The values of blocks: the formulas of `dequantize_row_*` of ggml's `ggml-quants.c`, each operation rounded to f32
//! in the order in which they stand there and in `quants.py` of the Python package `gguf`.

use half::f16;

use super::k_quants;
use super::types::BlockType;

/// Writes the values of a block, of as many elements as `out` has.
pub(crate) fn block(block_type: BlockType, block: &[u8], out: &mut [f32]) {
    let d = number(block, 0);
    match block_type {
        BlockType::Q4_0 => halves(&block[2..], &[0; 4], |i, q| out[i] = d * (q - 8) as f32),
        BlockType::Q5_0 => {
            halves(&block[6..], &block[2..6], |i, q| {
                out[i] = d * (q - 16) as f32
            });
        }
        BlockType::Q4_1 => {
            let m = number(block, 2);
            halves(&block[4..], &[0; 4], |i, q| out[i] = d * q as f32 + m);
        }
        BlockType::Q5_1 => {
            let m = number(block, 2);
            halves(&block[8..], &block[4..8], |i, q| out[i] = d * q as f32 + m);
        }
        BlockType::Q8_0 => {
            for (out, &q) in out.iter_mut().zip(&block[2..]) {
                *out = d * f32::from(q as i8);
            }
        }
        BlockType::Q2_K => k_quants::q2(block, out),
        BlockType::Q3_K => k_quants::q3(block, out),
        BlockType::Q4_K => k_quants::q4(block, out),
        BlockType::Q5_K => k_quants::q5(block, out),
        BlockType::Q6_K => k_quants::q6(block, out),
        BlockType::Q8_K => k_quants::q8(block, out),
    }
}

/// The f16 at an offset of a block, as f32.
pub(super) fn number(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// Calls `f` with the index and the code of each of 32 elements: the low four bits of code i in half a byte of `low`,
/// the first 16 codes in the low halves, and its fifth bit as bit i of `high`.
fn halves(low: &[u8], high: &[u8], mut f: impl FnMut(usize, i32)) {
    let fifth = |i: usize| i32::from(high[i / 8] >> (i % 8) & 1) << 4;
    for (i, &byte) in low.iter().enumerate() {
        f(i, i32::from(byte & 0xf) | fifth(i));
        f(i + 16, i32::from(byte >> 4) | fifth(i + 16));
    }
}
