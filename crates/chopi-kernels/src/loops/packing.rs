//! Codes of 1 to 8 bits, from an integer each to dense bits and back.
//!
//! A code is packed as the field (code + offset) ^ flip of as many bits. Fields follow one another from
//! the lowest bit of the first byte on.

use std::mem::MaybeUninit;

use crate::element::unsigned;
use crate::int::Int;
use crate::isa::{Loop, dispatch};
use crate::loops::dequantize::any_outside;
use crate::match_int;
use crate::slice::{IntSlice, IntSliceMut};
use crate::vector::{Arch, Bytes, MAX_BYTES};

/// How a code becomes a field: (code + offset) ^ flip, modulo 256. The codes of b bits are
/// −offset..=2^b − 1 − offset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sign {
    /// The bits that are inverted, b of them at most.
    pub flip: u8,
    /// What is added: 0 for unsigned codes, 2^(b−1) for signed ones.
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

/// Packs codes into the ⌈len·bits/8⌉ bytes of `out`; the bits that are left over are 0. Returns whether
/// every code has as few bits; the bytes are written, but mean nothing, where one has more.
///
/// # Panics
/// Where `bits` is not in 1..=8, or `out` has another length.
pub fn pack(codes: IntSlice<'_>, bits: u32, sign: Sign, out: &mut [MaybeUninit<u8>]) -> bool {
    assert_eq!(out.len(), packed_len(codes.len(), bits), "packed bytes");
    match codes {
        IntSlice::U8(codes) if sign.offset == 0 => pack_bytes(codes, bits, sign, out),
        IntSlice::I8(codes) if sign.offset != 0 => pack_bytes(as_unsigned(codes), bits, sign, out),
        codes => match_int!(IntSlice, codes, codes => pack_wide(codes, bits, sign, out)),
    }
}

/// Unpacks `out.len()` codes, of type `i8` or `u8`, of the ⌈len·bits/8⌉ first bytes.
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

/// Packs codes that are signed or not as their type is.
fn pack_bytes(codes: &[u8], bits: u32, sign: Sign, out: &mut [MaybeUninit<u8>]) -> bool {
    with_bits!(bits, B => dispatch(Pack::<B> { codes, sign, out }))
}

/// Packs codes of any type, which are narrowed block by block.
fn pack_wide<I: Int>(codes: &[I], bits: u32, sign: Sign, out: &mut [MaybeUninit<u8>]) -> bool {
    /// Whole bytes of any number of bits.
    const BLOCK: usize = 1024;
    let qmin = -i64::from(sign.offset);
    let qmax = qmin + (1 << bits) - 1;
    let mut narrow = [0; BLOCK];
    let mut fit = true;
    let blocks = out.chunks_mut(packed_len(BLOCK, bits));
    for (codes, out) in codes.chunks(BLOCK).zip(blocks) {
        fit &= !any_outside(I::slice(codes), qmin, qmax);
        let narrow = &mut narrow[..codes.len()];
        for (narrow, code) in narrow.iter_mut().zip(codes) {
            *narrow = code.to_i64() as u8;
        }
        pack_bytes(narrow, bits, sign, out);
    }
    fit
}

/// Integers by their bits.
fn as_unsigned(codes: &[i8]) -> &[u8] {
    // SAFETY: i8 and u8 have one layout, and every bit pattern is a value of both.
    unsafe { &*(std::ptr::from_ref(codes) as *const [u8]) }
}

struct Pack<'a, const B: usize> {
    codes: &'a [u8],
    sign: Sign,
    out: &'a mut [MaybeUninit<u8>],
}

impl<const B: usize> Loop for Pack<'_, B> {
    type Output = bool;

    #[inline(always)]
    fn run<A: Arch>(self, arch: A) -> bool {
        let Self {
            mut codes,
            sign,
            mut out,
        } = self;
        let lanes = A::Bytes::LANES;
        let splat = |x| A::Bytes::splat(arch, x);
        let (offset, flip, mut all) = (splat(sign.offset), splat(sign.flip), splat(0));
        // A vector writes more bytes than the fields fill.
        while codes.len() >= lanes && out.len() >= lanes {
            let fields = A::Bytes::load(arch, codes).add(offset).xor(flip);
            fields.store_fields::<B>(out);
            all = all.or(fields);
            (codes, out) = (&codes[lanes..], &mut out[lanes / 8 * B..]);
        }
        let none = sign.flip.wrapping_sub(sign.offset);
        for (codes, out) in codes.chunks(lanes).zip(out.chunks_mut(lanes / 8 * B)) {
            let (mut whole, mut packed) = ([none; MAX_BYTES], [MaybeUninit::uninit(); MAX_BYTES]);
            whole[..codes.len()].copy_from_slice(codes);
            let fields = A::Bytes::load(arch, &whole).add(offset).xor(flip);
            fields.store_fields::<B>(&mut packed);
            all = all.or(fields);
            out.copy_from_slice(&packed[..out.len()]);
        }
        !all.and(splat(!(u8::MAX >> (8 - B)))).any()
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
    fn run<A: Arch>(self, arch: A) {
        let Self {
            mut bytes,
            sign,
            mut out,
        } = self;
        let lanes = A::Bytes::LANES;
        let splat = |x| A::Bytes::splat(arch, x);
        let (offset, flip) = (splat(sign.offset), splat(sign.flip));
        // A vector reads more bytes than the fields fill.
        while out.len() >= lanes && bytes.len() >= lanes {
            let fields = A::Bytes::load_fields::<B>(arch, bytes);
            fields.xor(flip).sub(offset).store(out);
            (bytes, out) = (&bytes[lanes / 8 * B..], &mut out[lanes..]);
        }
        for (bytes, out) in bytes.chunks(lanes / 8 * B).zip(out.chunks_mut(lanes)) {
            let (mut packed, mut whole) = ([0; MAX_BYTES], [MaybeUninit::uninit(); MAX_BYTES]);
            packed[..bytes.len()].copy_from_slice(bytes);
            let fields = A::Bytes::load_fields::<B>(arch, &packed);
            fields.xor(flip).sub(offset).store(&mut whole);
            out.copy_from_slice(&whole[..out.len()]);
        }
    }
}
