//! Plain Rust, for any CPU: arrays, which the compiler puts into what vectors there are.

// One argument serves every block: see "SAFETY" below.
#![allow(clippy::undocumented_unsafe_blocks)]

use half::{bf16, f16};

use super::{Arch, Vector, Words};
use crate::dtype::Compute;

/// No instruction set in particular.
#[derive(Debug)]
pub struct Portable;

impl Arch for Portable {
    type F32 = Array<f32>;
    type F64 = Array<f64>;
}

/// 4 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Array<T>([T; LANES]);

const LANES: usize = 4;

#[inline(always)]
fn each<T: Copy, U: Copy>(a: [T; LANES], f: impl Fn(T) -> U) -> [U; LANES] {
    std::array::from_fn(|i| f(a[i]))
}

#[inline(always)]
fn both<T: Copy, U: Copy>(a: [T; LANES], b: [T; LANES], f: impl Fn(T, T) -> U) -> [U; LANES] {
    std::array::from_fn(|i| f(a[i], b[i]))
}

/// # Safety
/// `from` must be good for `LANES` elements.
#[inline(always)]
unsafe fn read<T: Copy, U: Copy>(from: *const T, f: impl Fn(T) -> U) -> [U; LANES] {
    // SAFETY: the caller's; an array needs the alignment of its elements.
    each(unsafe { *from.cast::<[T; LANES]>() }, f)
}

/// # Safety
/// As [`read`].
#[inline(always)]
unsafe fn write<T: Copy>(to: *mut T, lanes: [T; LANES]) {
    // SAFETY: as above.
    unsafe { *to.cast::<[T; LANES]>() = lanes }
}

#[rustfmt::skip]
impl<C: Compute> Vector for Array<C> {
    type Scalar = C;
    type Mask = [bool; LANES];
    type Words = Array<u32>;
    const LANES: usize = LANES;
    const IN_BLOCKS: bool = false;

    #[inline(always)] unsafe fn splat(x: C) -> Self { Self([x; LANES]) }
    // SAFETY, of every block below: the caller of each function promises good pointers.
    #[inline(always)] unsafe fn load(from: *const C) -> Self { Self(unsafe { read(from, |x| x) }) }
    #[inline(always)] unsafe fn load_f16(from: *const u16) -> Self {
        Self(unsafe { read(from, |x| C::from_f64(f16::from_bits(x).to_f64())) })
    }
    #[inline(always)] unsafe fn load_bf16(from: *const u16) -> Self {
        Self(unsafe { read(from, |x| C::from_f64(bf16::from_bits(x).to_f64())) })
    }
    #[inline(always)] unsafe fn store(self, to: *mut C) { unsafe { write(to, self.0) } }
    #[inline(always)] unsafe fn store_f16(self, to: *mut u16) {
        unsafe { write(to, each(self.0, |x| f16::from_f32(x.as_f64() as f32).to_bits())) }
    }
    #[inline(always)] unsafe fn store_bf16(self, to: *mut u16) {
        unsafe { write(to, each(self.0, |x| bf16::from_f32(x.as_f64() as f32).to_bits())) }
    }
    #[inline(always)] unsafe fn round_f16(self) -> Self {
        Self(each(self.0, |x| C::from_f64(f16::from_f32(x.as_f64() as f32).to_f64())))
    }
    #[inline(always)] unsafe fn round_bf16(self) -> Self {
        Self(each(self.0, |x| C::from_f64(bf16::from_f32(x.as_f64() as f32).to_f64())))
    }
    #[inline(always)] unsafe fn load_i8(from: *const i8) -> Self { Self(unsafe { read(from, |q| C::from_i32(q.into())) }) }
    #[inline(always)] unsafe fn load_u8(from: *const u8) -> Self { Self(unsafe { read(from, |q| C::from_i32(q.into())) }) }
    #[inline(always)] unsafe fn load_i16(from: *const i16) -> Self { Self(unsafe { read(from, |q| C::from_i32(q.into())) }) }
    #[inline(always)] unsafe fn load_u16(from: *const u16) -> Self { Self(unsafe { read(from, |q| C::from_i32(q.into())) }) }
    #[inline(always)] unsafe fn store_low_8(self, to: *mut u8) { unsafe { write(to, each(self.0, |x| x.low_bits() as u8)) } }
    #[inline(always)] unsafe fn store_low_16(self, to: *mut u16) { unsafe { write(to, each(self.0, |x| x.low_bits() as u16)) } }
    #[inline(always)] unsafe fn add(self, other: Self) -> Self { Self(both(self.0, other.0, |a, b| a + b)) }
    #[inline(always)] unsafe fn sub(self, other: Self) -> Self { Self(both(self.0, other.0, |a, b| a - b)) }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { Self(both(self.0, other.0, |a, b| a * b)) }
    #[inline(always)] unsafe fn div(self, other: Self) -> Self { Self(both(self.0, other.0, |a, b| a / b)) }
    #[inline(always)] unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(factor.0[i], summand.0[i])))
    }
    // Where there is no instruction for it, `mul_add` is a function.
    #[inline(always)] unsafe fn poison(self, sum: Self) -> Self { Self(both(self.0, sum.0, |x, sum| x * C::default() + sum)) }
    #[inline(always)] unsafe fn max(self, other: Self) -> Self { Self(both(self.0, other.0, |a, b| if a > b { a } else { b })) }
    #[inline(always)] unsafe fn min(self, other: Self) -> Self { Self(both(self.0, other.0, |a, b| if a < b { a } else { b })) }
    #[inline(always)] unsafe fn gt(self, other: Self) -> [bool; LANES] { both(self.0, other.0, |a, b| a > b) }
    #[inline(always)] unsafe fn eq(self, other: Self) -> [bool; LANES] { both(self.0, other.0, |a, b| a == b) }
    #[inline(always)] unsafe fn is_nan(self) -> [bool; LANES] { each(self.0, |x| x.is_nan()) }
    #[inline(always)] unsafe fn select(mask: [bool; LANES], yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|i| if mask[i] { yes.0[i] } else { no.0[i] }))
    }
    #[inline(always)] unsafe fn or(a: [bool; LANES], b: [bool; LANES]) -> [bool; LANES] { both(a, b, |a, b| a | b) }
    #[inline(always)] unsafe fn and(a: [bool; LANES], b: [bool; LANES]) -> [bool; LANES] { both(a, b, |a, b| a & b) }
    #[inline(always)] unsafe fn none() -> [bool; LANES] { [false; LANES] }
    #[inline(always)] unsafe fn any(mask: [bool; LANES]) -> bool { mask.iter().fold(false, |a, &b| a | b) }
    #[inline(always)] unsafe fn store_mask(mask: [bool; LANES], to: *mut u8) { unsafe { write(to, each(mask, u8::from)) } }
    #[inline(always)] unsafe fn from_words(words: Array<u32>) -> Self { Self(each(words.0, |x| C::from_i32(x as i32))) }
}

#[rustfmt::skip]
impl Words for Array<u32> {
    #[inline(always)] unsafe fn count_from(first: u32) -> Self { Self(std::array::from_fn(|i| first.wrapping_add(i as u32))) }
    #[inline(always)] unsafe fn splat(x: u32) -> Self { Self([x; LANES]) }
    #[inline(always)] unsafe fn xor(self, other: Self) -> Self { Self(both(self.0, other.0, |a, b| a ^ b)) }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { Self(both(self.0, other.0, u32::wrapping_mul)) }
    #[inline(always)] unsafe fn shift_right<const N: i32>(self) -> Self { Self(each(self.0, |x| x >> N)) }
}
