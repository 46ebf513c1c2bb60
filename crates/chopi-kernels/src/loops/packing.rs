//! Fields of 1 to 8 bits, from a byte each to dense bits and back.
//!
//! Bits go from the lowest of the first byte on. Eight fields fill as many bytes as they have bits:
//! they go through one `u64`, in which neighbours are brought together in three steps.

use std::mem::MaybeUninit;

use crate::element::unsigned;
use crate::isa::{Loop, dispatch};
use crate::slice::IntSliceMut;
use crate::vector::Arch;

const BYTES: u64 = 0x00ff_00ff_00ff_00ff;
const PAIRS: u64 = 0x0000_ffff_0000_ffff;
const FOURS: u64 = 0x0000_0000_ffff_ffff;

/// How a field becomes a code: (field ^ flip) − offset modulo 256.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// The bits that are inverted.
    pub flip: u8,
    /// What is subtracted.
    pub offset: u8,
}

/// Calls a function with the number of bits as a constant.
macro_rules! with_bits {
    ($bits:expr, $B:ident => $call:expr) => {
        match $bits {
            1 => with_bits!(@ 1, $B, $call),
            2 => with_bits!(@ 2, $B, $call),
            3 => with_bits!(@ 3, $B, $call),
            4 => with_bits!(@ 4, $B, $call),
            5 => with_bits!(@ 5, $B, $call),
            6 => with_bits!(@ 6, $B, $call),
            7 => with_bits!(@ 7, $B, $call),
            8 => with_bits!(@ 8, $B, $call),
            bits => panic!("fields of {bits} bits"),
        }
    };
    (@ $bits:literal, $B:ident, $call:expr) => {{
        const $B: usize = $bits;
        $call
    }};
}

/// Packs fields, a byte each, less than 2^bits, into the ⌈len·bits/8⌉ bytes of `out`; the bits that are
/// left over are 0.
///
/// # Panics
/// Where `bits` is not in 1..=8, or `out` has another length.
pub fn pack(fields: &[u8], bits: u32, out: &mut [u8]) {
    assert_eq!(out.len(), packed_len(fields.len(), bits), "packed bytes");
    with_bits!(bits, B => dispatch(Pack::<B> { fields, out }));
}

/// Unpacks `out.len()` fields of the ⌈len·bits/8⌉ first bytes, and turns each into a code, of type `i8` or
/// `u8`.
///
/// # Panics
/// Where `bits` is not in 1..=8, there are fewer bytes, or `out` is of another type.
pub fn unpack(bytes: &[u8], bits: u32, sign: Sign, out: IntSliceMut<'_>) {
    let out: &mut [MaybeUninit<u8>] = match out {
        IntSliceMut::U8(out) => out,
        // SAFETY: i8 and u8 have one width.
        IntSliceMut::I8(out) => unsafe { unsigned(out) },
        out => panic!("packed codes of type {}", out.int_type()),
    };
    let bytes = &bytes[..packed_len(out.len(), bits)];
    with_bits!(bits, B => dispatch(Unpack::<B> { bytes, sign, out }));
}

/// The bytes that fields fill.
fn packed_len(fields: usize, bits: u32) -> usize {
    // Without overflow for any number of fields that memory holds.
    fields / 8 * bits as usize + (fields % 8 * bits as usize).div_ceil(8)
}

struct Pack<'a, const B: usize> {
    fields: &'a [u8],
    out: &'a mut [u8],
}

impl<const B: usize> Loop for Pack<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, _: A) {
        let (fields, rest) = self.fields.as_chunks::<8>();
        let (whole, last) = self.out.split_at_mut(fields.len() * B);
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

struct Unpack<'a, const B: usize> {
    bytes: &'a [u8],
    sign: Sign,
    out: &'a mut [MaybeUninit<u8>],
}

impl<const B: usize> Loop for Unpack<'_, B> {
    type Output = ();

    #[inline(always)]
    fn run<A: Arch>(self, _: A) {
        let sign = self.sign;
        let (codes, rest) = self.out.as_chunks_mut::<8>();
        let (whole, last) = self.bytes.split_at(codes.len() * B);
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
