//! Fields of 1 to 8 bits, from a byte each to dense bits and back.
//!
//! Bits go from the lowest of the first byte on. Eight fields fill as many bytes as they have bits:
//! they go through one `u64`, in which neighbours are brought together in three steps.

use std::mem::MaybeUninit;

use crate::kernel::isa::per_isa;

const BYTES: u64 = 0x00ff_00ff_00ff_00ff;
const PAIRS: u64 = 0x0000_ffff_0000_ffff;
const FOURS: u64 = 0x0000_0000_ffff_ffff;

/// How a field becomes a code.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sign {
    pub flip: u8,
    pub offset: u8,
}

/// Packs fields, a byte each, less than 2^B, into ⌈len·B/8⌉ bytes; the last bits are 0.
pub(crate) fn pack(fields: &[u8], bits: u32, out: &mut [u8]) {
    match bits {
        1 => pack_bits::<1>(fields, out),
        2 => pack_bits::<2>(fields, out),
        3 => pack_bits::<3>(fields, out),
        4 => pack_bits::<4>(fields, out),
        5 => pack_bits::<5>(fields, out),
        6 => pack_bits::<6>(fields, out),
        7 => pack_bits::<7>(fields, out),
        _ => pack_bits::<8>(fields, out),
    }
}

/// Unpacks `out.len()` fields, and turns each into the code (field ^ flip) − offset modulo 256.
pub(crate) fn unpack(bytes: &[u8], bits: u32, sign: Sign, out: &mut [MaybeUninit<u8>]) {
    match bits {
        1 => unpack_bits::<1>(bytes, sign, out),
        2 => unpack_bits::<2>(bytes, sign, out),
        3 => unpack_bits::<3>(bytes, sign, out),
        4 => unpack_bits::<4>(bytes, sign, out),
        5 => unpack_bits::<5>(bytes, sign, out),
        6 => unpack_bits::<6>(bytes, sign, out),
        7 => unpack_bits::<7>(bytes, sign, out),
        _ => unpack_bits::<8>(bytes, sign, out),
    }
}

per_isa! {
    fn pack_bits[const B: usize][B](fields: &[u8], out: &mut [u8]) -> () {
        let (fields, rest) = fields.as_chunks::<8>();
        let (whole, last) = out.split_at_mut(fields.len() * B);
        for (fields, out) in fields.iter().zip(whole.as_chunks_mut::<B>().0) {
            let packed = join::<B>(u64::from_le_bytes(*fields)).to_le_bytes();
            out.copy_from_slice(&packed[..B]);
        }
        let mut fields = [0; 8];
        fields[..rest.len()].copy_from_slice(rest);
        let packed = join::<B>(u64::from_le_bytes(fields)).to_le_bytes();
        last.copy_from_slice(&packed[..last.len()]);
    }
}

per_isa! {
    fn unpack_bits[const B: usize][B](bytes: &[u8], sign: Sign, out: &mut [MaybeUninit<u8>]) -> () {
        let (codes, rest) = out.as_chunks_mut::<8>();
        let (whole, last) = bytes.split_at(codes.len() * B);
        let unpack = |bytes: &[u8], out: &mut [MaybeUninit<u8>]| {
            let mut packed = [0; 8];
            packed[..bytes.len()].copy_from_slice(bytes);
            let fields = split::<B>(u64::from_le_bytes(packed)).to_le_bytes();
            for (out, field) in out.iter_mut().zip(fields) {
                out.write((field ^ sign.flip).wrapping_sub(sign.offset));
            }
        };
        for (bytes, codes) in whole.as_chunks::<B>().0.iter().zip(codes) {
            unpack(bytes, codes);
        }
        unpack(&last[..last.len().min(B)], rest);
    }
}

/// The fields of eight bytes side by side.
#[inline(always)]
fn join<const B: usize>(x: u64) -> u64 {
    let x = (x & BYTES) | ((x >> 8) & BYTES) << B;
    let x = (x & PAIRS) | ((x >> 16) & PAIRS) << (2 * B);
    (x & FOURS) | (x >> 32) << (4 * B)
}

/// The inverse of [`join`].
#[inline(always)]
fn split<const B: usize>(x: u64) -> u64 {
    let ones = |bits: usize| (1_u64 << bits) - 1;
    let x = (x & ones(4 * B)) | ((x >> (4 * B)) & ones(4 * B)) << 32;
    let pairs = ones(2 * B) * 0x1_0000_0001;
    let x = (x & pairs) | ((x >> (2 * B)) & pairs) << 16;
    let bytes = ones(B) * 0x0001_0001_0001_0001;
    (x & bytes) | ((x >> B) & bytes) << 8
}
