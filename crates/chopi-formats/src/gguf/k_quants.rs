//! The values of blocks of 256 elements.

use super::dequantize::number;

/// x̂ = (d·s)·q − (dmin·m): scales s and m of 4 bits for each 16 elements, codes of 2 bits.
pub(super) fn q2(block: &[u8], out: &mut [f32]) {
    let (scales, qs) = (&block[..16], &block[16..80]);
    let (d, dmin) = (number(block, 80), number(block, 82));
    for (i, out) in out.iter_mut().enumerate() {
        let q = two_bits(qs, i);
        let scale = scales[i / 16];
        let (dl, ml) = (d * f32::from(scale & 0xf), dmin * f32::from(scale >> 4));
        *out = dl * f32::from(q) - ml;
    }
}

/// x̂ = (d·(s − 32))·(q − 4): scales s of 6 bits for each 16 elements, codes of 3 bits.
pub(super) fn q3(block: &[u8], out: &mut [f32]) {
    let (high, qs, scales) = (&block[..32], &block[32..96], &block[96..108]);
    let d = number(block, 108);
    for (i, out) in out.iter_mut().enumerate() {
        let group = i / 16;
        let low = scales[group % 8] >> (4 * (group / 8)) & 0xf;
        let top = scales[8 + group % 4] >> (2 * (group / 4)) & 3;
        let scale = i32::from(low | top << 4) - 32;
        let third = high[i % 32] >> (i / 32) & 1;
        let q = i32::from(two_bits(qs, i) | third << 2) - 4;
        *out = (d * scale as f32) * q as f32;
    }
}

/// x̂ = (d·s)·q − (dmin·m): scales s and m of 6 bits for each 32 elements, codes of 4 bits.
pub(super) fn q4(block: &[u8], out: &mut [f32]) {
    affine(block, out, |i| four_bits(&block[16..144], i));
}

/// x̂ = (d·s)·q − (dmin·m): scales s and m of 6 bits for each 32 elements, codes of 5 bits.
pub(super) fn q5(block: &[u8], out: &mut [f32]) {
    let high = &block[16..48];
    affine(block, out, |i| {
        four_bits(&block[48..176], i) | (high[i % 32] >> (i / 32) & 1) << 4
    });
}

/// x̂ = (d·s)·(q − 32): scales s of 8 bits for each 16 elements, codes of 6 bits.
pub(super) fn q6(block: &[u8], out: &mut [f32]) {
    let (low, high, scales) = (&block[..128], &block[128..192], &block[192..208]);
    let d = number(block, 208);
    for (i, out) in out.iter_mut().enumerate() {
        // Each 128 elements lie in 64 bytes of low halves and 32 bytes of pairs.
        let (half, at) = (i / 128, i % 128);
        let nibble = low[64 * half + at % 64] >> (4 * (at / 64)) & 0xf;
        let top = high[32 * half + at % 32] >> (2 * (at / 32)) & 3;
        let q = i32::from(nibble | top << 4) - 32;
        *out = (d * f32::from(scales[i / 16] as i8)) * q as f32;
    }
}

/// x̂ = d·q: d is an f32, codes of 8 bits.
pub(super) fn q8(block: &[u8], out: &mut [f32]) {
    let d = f32::from_le_bytes([block[0], block[1], block[2], block[3]]);
    for (out, &q) in out.iter_mut().zip(&block[4..260]) {
        *out = d * f32::from(q as i8);
    }
}

/// x̂ = (d·s)·q − (dmin·m), with the scales as `get_scale_min_k4` reads them.
fn affine(block: &[u8], out: &mut [f32], code: impl Fn(usize) -> u8) {
    let (d, dmin) = (number(block, 0), number(block, 2));
    for (i, out) in out.iter_mut().enumerate() {
        let (scale, min) = scale_and_min(&block[4..16], i / 32);
        let (d, m) = (d * f32::from(scale), dmin * f32::from(min));
        *out = d * f32::from(code(i)) - m;
    }
}

/// The scale and the minimum of 6 bits of a group, of eight in 12 bytes.
fn scale_and_min(bytes: &[u8], group: usize) -> (u8, u8) {
    match group {
        0..4 => (bytes[group] & 63, bytes[group + 4] & 63),
        _ => (
            bytes[group + 4] & 0xf | bytes[group - 4] >> 6 << 4,
            bytes[group + 4] >> 4 | bytes[group] >> 6 << 4,
        ),
    }
}

/// A code of 2 bits: each 128 of them lie in 32 bytes, the first 32 in the lowest bits.
fn two_bits(bytes: &[u8], i: usize) -> u8 {
    let (half, at) = (i / 128, i % 128);
    bytes[32 * half + at % 32] >> (2 * (at / 32)) & 3
}

/// A code of 4 bits: each 64 of them lie in 32 bytes, the first 32 in the low halves.
fn four_bits(bytes: &[u8], i: usize) -> u8 {
    let (quarter, at) = (i / 64, i % 64);
    bytes[32 * quarter + at % 32] >> (4 * (at / 32)) & 0xf
}
