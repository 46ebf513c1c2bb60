//! Floats to blocks: the formulas at [`Blocks::quantize`](super::Blocks::quantize), which are those of
//! `quantize_blocks` of `quants.py` of the Python package `gguf` 0.19 and of `quantize_row_*_ref` of ggml's
//! `ggml-quants.c`.

use half::f16;

use super::types::BlockType;

/// Writes the block of 32 finite elements.
///
/// # Errors
/// The scale or the minimum, where f16 does not hold it.
pub(crate) fn block(block_type: BlockType, x: &[f32], out: &mut [u8]) -> Result<(), f32> {
    match block_type {
        BlockType::Q8_0 => q8(x, out),
        BlockType::Q4_0 => symmetric(x, 8, out),
        BlockType::Q5_0 => symmetric(x, 16, out),
        BlockType::Q4_1 => affine(x, 15, out),
        _ => affine(x, 31, out),
    }
}

/// d = max|x|/127, q = x·(1/d) rounded half away from zero.
fn q8(x: &[f32], out: &mut [u8]) -> Result<(), f32> {
    let abs_max = x.iter().fold(0.0_f32, |max, x| max.max(x.abs()));
    let d = abs_max / 127.0;
    let id = reciprocal(d);
    write(d, &mut out[..2])?;
    for (out, x) in out[2..].iter_mut().zip(x) {
        *out = (x * id).round() as i8 as u8;
    }
    Ok(())
}

/// d = x_k/−half, q = min(2·half − 1, ⌊x·(1/d) + half + 0.5⌋): half is 8 for 4 bits, 16 for 5 bits.
fn symmetric(x: &[f32], half: u8, out: &mut [u8]) -> Result<(), f32> {
    let mut max = x[0];
    for &x in x {
        if x.abs() > max.abs() {
            max = x;
        }
    }
    let d = max / -f32::from(half);
    let id = reciprocal(d);
    write(d, &mut out[..2])?;
    let code = |x: &f32| code(x * id + (f32::from(half) + 0.5), 2 * half - 1);
    codes(x.iter().map(code), &mut out[2..], half);
    Ok(())
}

/// d = (max x − min x)/most, q = min(most, ⌊(x − min x)·(1/d) + 0.5⌋): most is 15 for 4 bits, 31 for 5 bits.
fn affine(x: &[f32], most: u8, out: &mut [u8]) -> Result<(), f32> {
    let (mut min, mut max) = (x[0], x[0]);
    for &x in x {
        if x < min {
            min = x;
        }
        if x > max {
            max = x;
        }
    }
    let d = (max - min) / f32::from(most);
    let id = reciprocal(d);
    write(d, &mut out[..2])?;
    write(min, &mut out[2..4])?;
    let code = |x: &f32| code((x - min) * id + 0.5, most);
    codes(x.iter().map(code), &mut out[4..], most.div_ceil(2));
    Ok(())
}

fn reciprocal(d: f32) -> f32 {
    match 1.0 / d {
        id if id.is_finite() => id,
        _ => 0.0,
    }
}

/// ⌊x⌋ up to `most`, for x that is not negative but for what rounding may have left of 0.
fn code(x: f32, most: u8) -> u8 {
    (x as u8).min(most)
}

/// Writes d or m.
///
/// # Errors
/// The number, where f16 does not hold it.
fn write(number: f32, out: &mut [u8]) -> Result<(), f32> {
    let half = f16::from_f32(number);
    match half.is_finite() {
        true => {
            out.copy_from_slice(&half.to_le_bytes());
            Ok(())
        }
        false => Err(number),
    }
}

/// Writes 32 codes of 4 bits, or of 5 bits where `half` is 16: their fifth bits first, code i's as bit i.
fn codes(codes: impl Iterator<Item = u8>, out: &mut [u8], half: u8) {
    let (fifth, low) = out.split_at_mut(if half == 16 { 4 } else { 0 });
    fifth.fill(0);
    low.fill(0);
    for (i, code) in codes.enumerate() {
        if let Some(byte) = fifth.get_mut(i / 8) {
            *byte |= (code >> 4) << (i % 8);
        }
        low[i % 16] |= (code & 0xf) << (4 * (i / 16));
    }
}
