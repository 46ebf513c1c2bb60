//! Plain Rust, for any CPU: arrays, which the compiler puts into what vectors there are.

use std::mem::MaybeUninit;

use half::{bf16, f16};

use super::{Arch, Bytes, Halves, Mask, Vector, Words, first, first_mut};
use crate::float::Compute;

/// No instruction set in particular.
#[derive(Clone, Copy, Debug)]
pub struct Portable;

impl Arch for Portable {
    type F32 = Array<f32>;
    type F64 = Array<f64>;
    type Bytes = Bytes16;
    const SPECIALIZED: bool = false;
}

/// 4 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Array<T>([T; LANES]);

const LANES: usize = 4;

/// 16 lanes, eight in an integer.
#[derive(Clone, Copy, Debug)]
pub struct Bytes16([u64; 2]);

impl<T: Copy> Array<T> {
    #[inline(always)]
    fn each<U>(self, f: impl Fn(T) -> U) -> [U; LANES] {
        std::array::from_fn(|i| f(self.0[i]))
    }

    #[inline(always)]
    fn both<U>(self, other: Self, f: impl Fn(T, T) -> U) -> [U; LANES] {
        std::array::from_fn(|i| f(self.0[i], other.0[i]))
    }
}

/// Writes a number for each lane.
#[inline(always)]
fn write<T: Copy>(lanes: [T; LANES], to: &mut [MaybeUninit<T>]) {
    *first_mut::<LANES, _>(to) = lanes.map(MaybeUninit::new);
}

#[rustfmt::skip]
impl<C: Compute> Vector for Array<C> {
    type Arch = Portable;
    type Scalar = C;
    type Mask = [bool; LANES];
    type Words = Array<u32>;
    const LANES: usize = LANES;

    #[inline(always)] fn arch(self) -> Portable { Portable }
    #[inline(always)] fn splat(_: Portable, x: C) -> Self { Self([x; LANES]) }
    #[inline(always)] fn load(_: Portable, from: &[C]) -> Self { Self(*first(from)) }
    #[inline(always)] fn load_i8(_: Portable, from: &[i8]) -> Self { Self(first(from).map(|q| C::from_i32(q.into()))) }
    #[inline(always)] fn load_u8(_: Portable, from: &[u8]) -> Self { Self(first(from).map(|q| C::from_i32(q.into()))) }
    #[inline(always)] fn load_i16(_: Portable, from: &[i16]) -> Self { Self(first(from).map(|q| C::from_i32(q.into()))) }
    #[inline(always)] fn load_u16(_: Portable, from: &[u16]) -> Self { Self(first(from).map(|q| C::from_i32(q.into()))) }
    #[inline(always)] fn store(self, to: &mut [MaybeUninit<C>]) { write(self.0, to) }
    #[inline(always)] fn store_low_8(self, to: &mut [MaybeUninit<u8>]) { write(self.each(|x| x.low_bits() as u8), to) }
    #[inline(always)] fn store_low_16(self, to: &mut [MaybeUninit<u16>]) { write(self.each(|x| x.low_bits() as u16), to) }
    #[inline(always)] fn add(self, other: Self) -> Self { Self(self.both(other, |a, b| a + b)) }
    #[inline(always)] fn sub(self, other: Self) -> Self { Self(self.both(other, |a, b| a - b)) }
    #[inline(always)] fn mul(self, other: Self) -> Self { Self(self.both(other, |a, b| a * b)) }
    #[inline(always)] fn div(self, other: Self) -> Self { Self(self.both(other, |a, b| a / b)) }
    #[inline(always)] fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(factor.0[i], summand.0[i])))
    }
    // Where there is no instruction for it, `mul_add` is a function.
    #[inline(always)] fn poison(self, sum: Self) -> Self { Self(self.both(sum, |x, sum| x * C::default() + sum)) }
    #[inline(always)] fn max(self, other: Self) -> Self { Self(self.both(other, |a, b| if a > b { a } else { b })) }
    #[inline(always)] fn min(self, other: Self) -> Self { Self(self.both(other, |a, b| if a < b { a } else { b })) }
    #[inline(always)] fn gt(self, other: Self) -> [bool; LANES] { self.both(other, |a, b| a > b) }
    #[inline(always)] fn eq(self, other: Self) -> [bool; LANES] { self.both(other, |a, b| a == b) }
    #[inline(always)] fn is_either_nan(self, other: Self) -> [bool; LANES] { self.both(other, |a, b| a.is_nan() | b.is_nan()) }
    #[inline(always)] fn none(_: Portable) -> [bool; LANES] { [false; LANES] }
    #[inline(always)] fn select(mask: [bool; LANES], yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|i| if mask[i] { yes.0[i] } else { no.0[i] }))
    }
    #[inline(always)] fn store_mask(mask: [bool; LANES], to: &mut [MaybeUninit<u8>]) { write(mask.map(u8::from), to) }
    #[inline(always)] fn from_words(words: Array<u32>) -> Self { Self(words.each(|x| C::from_i32(x as i32))) }
}

#[rustfmt::skip]
impl Halves for Array<f32> {
    #[inline(always)] fn load_f16(_: Portable, from: &[f16]) -> Self { Self(first(from).map(f16::to_f32)) }
    #[inline(always)] fn load_bf16(_: Portable, from: &[bf16]) -> Self { Self(first(from).map(bf16::to_f32)) }
    #[inline(always)] fn store_f16(self, to: &mut [MaybeUninit<f16>]) { write(self.each(f16::from_f32), to) }
    #[inline(always)] fn store_bf16(self, to: &mut [MaybeUninit<bf16>]) { write(self.each(bf16::from_f32), to) }
    #[inline(always)] fn round_f16(self) -> Self { Self(self.each(|x| f16::from_f32(x).to_f32())) }
    #[inline(always)] fn round_bf16(self) -> Self { Self(self.each(|x| bf16::from_f32(x).to_f32())) }
}

impl Mask for [bool; LANES] {
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        std::array::from_fn(|i| self[i] | other[i])
    }
    #[inline(always)]
    fn any(self) -> bool {
        self.iter().fold(false, |any, &lane| any | lane)
    }
}

#[rustfmt::skip]
impl Words for Array<u32> {
    type Arch = Portable;

    #[inline(always)] fn count_from(_: Portable, first: u32) -> Self { Self(std::array::from_fn(|i| first.wrapping_add(i as u32))) }
    #[inline(always)] fn splat(_: Portable, x: u32) -> Self { Self([x; LANES]) }
    #[inline(always)] fn xor(self, other: Self) -> Self { Self(self.both(other, |a, b| a ^ b)) }
    #[inline(always)] fn mul(self, other: Self) -> Self { Self(self.both(other, u32::wrapping_mul)) }
    #[inline(always)] fn shift_right<const N: i32>(self) -> Self { Self(self.each(|x| x >> N)) }
}

impl Bytes16 {
    #[inline(always)]
    fn each(self, f: impl Fn(u64) -> u64) -> Self {
        Self(self.0.map(f))
    }

    #[inline(always)]
    fn both(self, other: Self, f: impl Fn(u64, u64) -> u64) -> Self {
        Self([f(self.0[0], other.0[0]), f(self.0[1], other.0[1])])
    }

    /// Writes the second eight bytes so many after the first.
    #[inline(always)]
    fn store_apart(self, apart: usize, to: &mut [MaybeUninit<u8>]) {
        let to = first_mut::<16, _>(to);
        *first_mut(to) = self.0[0].to_le_bytes().map(MaybeUninit::new);
        *first_mut(&mut to[apart..]) = self.0[1].to_le_bytes().map(MaybeUninit::new);
    }
}

/// The highest bit of each byte.
const HIGH: u64 = 0x8080_8080_8080_8080;

#[rustfmt::skip]
impl Bytes for Bytes16 {
    type Arch = Portable;
    const LANES: usize = 16;

    #[inline(always)] fn splat(_: Portable, x: u8) -> Self { Self([u64::from_le_bytes([x; 8]); 2]) }
    #[inline(always)] fn load(_: Portable, from: &[u8]) -> Self {
        let from = first::<16, _>(from);
        Self([u64::from_le_bytes(*first(from)), u64::from_le_bytes(*first(&from[8..]))])
    }
    #[inline(always)] fn store(self, to: &mut [MaybeUninit<u8>]) { self.store_apart(8, to) }
    // Without the highest bits, of which none carries into the next byte.
    #[inline(always)] fn add(self, other: Self) -> Self { self.both(other, |a, b| ((a & !HIGH) + (b & !HIGH)) ^ ((a ^ b) & HIGH)) }
    #[inline(always)] fn sub(self, other: Self) -> Self { self.both(other, |a, b| ((a | HIGH) - (b & !HIGH)) ^ ((a ^ !b) & HIGH)) }
    #[inline(always)] fn and(self, other: Self) -> Self { self.both(other, |a, b| a & b) }
    #[inline(always)] fn or(self, other: Self) -> Self { self.both(other, |a, b| a | b) }
    #[inline(always)] fn xor(self, other: Self) -> Self { self.both(other, |a, b| a ^ b) }
    #[inline(always)] fn any(self) -> bool { (self.0[0] | self.0[1]) != 0 }
    #[inline(always)] fn load_fields<const B: usize>(_: Portable, from: &[u8]) -> Self {
        let from = first::<16, _>(from);
        Self([u64::from_le_bytes(*first(from)), u64::from_le_bytes(*first(&from[B..]))]).each(split::<B>)
    }
    #[inline(always)] fn store_fields<const B: usize>(self, to: &mut [MaybeUninit<u8>]) { self.each(join::<B>).store_apart(B, to) }
}

/// The fields of eight bytes side by side: two, then four, then eight, the odd ones as many bits above
/// the even ones.
#[inline(always)]
fn join<const B: usize>(x: u64) -> u64 {
    let (bytes, pairs, fours) = (0x00ff_00ff_00ff_00ff, 0x0000_ffff_0000_ffff, 0xffff_ffff);
    let x = (x & bytes) | (x & !bytes) >> (8 - B);
    let x = (x & pairs) | (x & !pairs) >> (16 - 2 * B);
    (x & fours) | (x & !fours) >> (32 - 4 * B)
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

impl crate::sealed::Sealed for Portable {}
impl<T> crate::sealed::Sealed for Array<T> {}
impl crate::sealed::Sealed for [bool; LANES] {}
impl crate::sealed::Sealed for Bytes16 {}
