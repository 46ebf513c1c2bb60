//! Vectors of numbers: the few operations that the kernels are written with, one type for each
//! instruction set and compute type.
//!
//! The files of the instruction sets hold the same names: `F32` and `F64`, and `Words`, the 32-bit
//! integers of as many lanes.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(target_arch = "x86_64")]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
pub(crate) mod portable;

use std::marker::PhantomData;

use super::code::{Code, Width};
use crate::dtype::{Compute, Float, FloatType, Int};

/// The vectors of an instruction set.
pub trait Arch {
    /// Vectors of `f32`.
    type F32: Vector<Scalar = f32>;
    /// Vectors of `f64`.
    type F64: Vector<Scalar = f64>;
}

/// The most lanes that a vector has.
pub(crate) const MAX_LANES: usize = 16;

/// How many vectors the loops take at a time: as many as fill one with bytes where a vector has 8
/// lanes.
pub(crate) const BLOCK: usize = 4;

/// A vector of floats. Arithmetic rounds each lane once, to nearest even.
///
/// # Safety
/// Every function must be called on a CPU that has the instruction set; pointers must be good for
/// as many elements as there are lanes. The functions are `#[inline(always)]`, so that they are
/// compiled for the instruction set of the kernel that calls them.
pub trait Vector: Copy {
    /// What a lane holds.
    type Scalar: Compute;
    /// A truth value for each lane.
    type Mask: Copy;
    /// 32 bits for each lane.
    type Words: Words;
    /// The number of lanes.
    const LANES: usize;
    /// Whether loops that take [`BLOCK`] vectors at a time are worth their size.
    const IN_BLOCKS: bool = true;

    /// `x` in every lane.
    unsafe fn splat(x: Self::Scalar) -> Self;
    /// The numbers at `from`.
    unsafe fn load(from: *const Self::Scalar) -> Self;
    /// The `f16` numbers at `from`, widened.
    #[inline(always)]
    unsafe fn load_f16(_: *const u16) -> Self {
        no_halves()
    }
    /// The `bf16` numbers at `from`, widened.
    #[inline(always)]
    unsafe fn load_bf16(_: *const u16) -> Self {
        no_halves()
    }
    /// Writes the numbers.
    unsafe fn store(self, to: *mut Self::Scalar);
    /// Writes the numbers rounded to `f16`.
    #[inline(always)]
    unsafe fn store_f16(self, _: *mut u16) {
        no_halves()
    }
    /// Writes the numbers rounded to `bf16`.
    #[inline(always)]
    unsafe fn store_bf16(self, _: *mut u16) {
        no_halves()
    }
    /// The numbers rounded to `f16`.
    #[inline(always)]
    unsafe fn round_f16(self) -> Self {
        no_halves()
    }
    /// The numbers rounded to `bf16`.
    #[inline(always)]
    unsafe fn round_bf16(self) -> Self {
        no_halves()
    }
    /// The `i8` numbers at `from`.
    unsafe fn load_i8(from: *const i8) -> Self;
    /// The `u8` numbers at `from`.
    unsafe fn load_u8(from: *const u8) -> Self;
    /// The `i16` numbers at `from`.
    unsafe fn load_i16(from: *const i16) -> Self;
    /// The `u16` numbers at `from`.
    unsafe fn load_u16(from: *const u16) -> Self;
    /// Writes the low 8 bits of the integers n, where the lanes hold MAGIC + n.
    unsafe fn store_low_8(self, to: *mut u8);
    /// Writes those of several vectors, one after the other.
    #[inline(always)]
    unsafe fn store_block_low_8(block: [Self; BLOCK], to: *mut u8) {
        for (k, vector) in block.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { vector.store_low_8(to.add(k * Self::LANES)) }
        }
    }
    /// Writes their low 16 bits.
    unsafe fn store_low_16(self, to: *mut u16);
    /// `self + other`.
    unsafe fn add(self, other: Self) -> Self;
    /// `self − other`.
    unsafe fn sub(self, other: Self) -> Self;
    /// `self · other`.
    unsafe fn mul(self, other: Self) -> Self;
    /// `self / other`.
    unsafe fn div(self, other: Self) -> Self;
    /// `self · factor + summand`, rounded once.
    unsafe fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// `sum` + `self`·0: NaN from the first number on that is not finite.
    #[inline(always)]
    unsafe fn poison(self, sum: Self) -> Self {
        // SAFETY: the caller's.
        unsafe { self.mul_add(Self::splat(Self::Scalar::default()), sum) }
    }
    /// The larger one of two; where `other` is NaN, `other`.
    unsafe fn max(self, other: Self) -> Self;
    /// The smaller one of two; where `other` is NaN, `other`.
    unsafe fn min(self, other: Self) -> Self;
    /// The largest integer that is not larger, of numbers as small as [`MAGIC`](Compute::MAGIC) asks
    /// for.
    #[inline(always)]
    unsafe fn floor(self) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let nearest = self.round_even();
            nearest.sub(one_if(nearest.gt(self)))
        }
    }
    /// The smallest integer that is not smaller, of as small numbers.
    #[inline(always)]
    unsafe fn ceil(self) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let nearest = self.round_even();
            nearest.add(one_if(self.gt(nearest)))
        }
    }
    /// ⌈`self` − `other`·`unit`⌉, of the exact difference; the product one of 2^−24 and an integer,
    /// in [0, 1), `self` as small as above.
    #[inline(always)]
    unsafe fn ceil_difference(self, other: Self, unit: Self) -> Self {
        // SAFETY: the caller's.
        unsafe {
            // It is ⌊self⌋, and one more where the fraction exceeds the product. The fraction is what
            // is left, or that and 1, a sum that need not be exact: 1 is taken from the product.
            let nearest = self.round_even();
            let left = self.sub(nearest);
            let down = one_if(Self::splat(Self::Scalar::default()).gt(left));
            let up = one_if(left.gt(other.mul(unit).sub(down)));
            nearest.add(up).sub(down)
        }
    }
    /// `self > other`, false for NaN.
    unsafe fn gt(self, other: Self) -> Self::Mask;
    /// `self == other`, false for NaN.
    unsafe fn eq(self, other: Self) -> Self::Mask;
    /// Whether the lane is NaN.
    unsafe fn is_nan(self) -> Self::Mask;
    /// `yes` where the mask holds, else `no`.
    unsafe fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// Whether either mask holds.
    unsafe fn or(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// Whether both hold.
    unsafe fn and(a: Self::Mask, b: Self::Mask) -> Self::Mask;
    /// The mask that holds nowhere.
    unsafe fn none() -> Self::Mask;
    /// Whether the mask holds anywhere.
    unsafe fn any(mask: Self::Mask) -> bool;
    /// Writes 1 where the mask holds, else 0.
    unsafe fn store_mask(mask: Self::Mask, to: *mut u8);
    /// Writes those of several vectors, one after the other.
    #[inline(always)]
    unsafe fn store_block_mask(block: [Self::Mask; BLOCK], to: *mut u8) {
        for (k, mask) in block.into_iter().enumerate() {
            // SAFETY: the caller's.
            unsafe { Self::store_mask(mask, to.add(k * Self::LANES)) }
        }
    }
    /// The integers below 2^24.
    unsafe fn from_words(words: Self::Words) -> Self;
}

/// Halves are computed in `f32`, so the vectors of `f64` do not have their functions.
fn no_halves() -> ! {
    unreachable!("halves are computed in f32")
}

/// 32-bit integers, with wrapping arithmetic; see [`Vector`] for the safety.
pub trait Words: Copy {
    /// `first`, `first + 1`, ….
    unsafe fn count_from(first: u32) -> Self;
    /// `x` in every lane.
    unsafe fn splat(x: u32) -> Self;
    /// The bits of which one of the two has one.
    unsafe fn xor(self, other: Self) -> Self;
    /// The low 32 bits of the product.
    unsafe fn mul(self, other: Self) -> Self;
    /// The bits, `N` lower.
    unsafe fn shift_right<const N: i32>(self) -> Self;
}

/// 1 where the mask holds, else 0.
#[inline(always)]
pub(crate) unsafe fn one_if<V: Vector>(mask: V::Mask) -> V {
    // SAFETY: the caller's.
    unsafe {
        V::select(
            mask,
            V::splat(V::Scalar::from_i32(1)),
            V::splat(V::Scalar::default()),
        )
    }
}

/// What any vector can do by the functions of [`Vector`].
pub(crate) trait VectorExt: Vector {
    /// The nearest integer, half to even, of numbers as small as [`MAGIC`](Compute::MAGIC) asks for.
    #[inline(always)]
    unsafe fn round_even(self) -> Self {
        // SAFETY: the caller's.
        unsafe {
            let magic = Self::splat(Self::Scalar::MAGIC);
            self.add(magic).sub(magic)
        }
    }

    /// The elements at `from`, widened.
    #[inline(always)]
    unsafe fn load_elements<F: Float<Compute = Self::Scalar>>(from: *const F) -> Self {
        // SAFETY: the caller's; the casts keep the type that `F::TYPE` names.
        unsafe {
            match F::TYPE {
                FloatType::F16 => Self::load_f16(from.cast()),
                FloatType::BF16 => Self::load_bf16(from.cast()),
                FloatType::F32 | FloatType::F64 => Self::load(from.cast()),
            }
        }
    }

    /// Writes elements, narrowed.
    #[inline(always)]
    unsafe fn store_elements<F: Float<Compute = Self::Scalar>>(self, to: *mut F) {
        // SAFETY: as above.
        unsafe {
            match F::TYPE {
                FloatType::F16 => self.store_f16(to.cast()),
                FloatType::BF16 => self.store_bf16(to.cast()),
                FloatType::F32 | FloatType::F64 => self.store(to.cast()),
            }
        }
    }

    /// The numbers rounded to `F`.
    #[inline(always)]
    unsafe fn round_to<F: Float<Compute = Self::Scalar>>(self) -> Self {
        // SAFETY: the caller's.
        unsafe {
            match F::TYPE {
                FloatType::F16 => self.round_f16(),
                FloatType::BF16 => self.round_bf16(),
                FloatType::F32 | FloatType::F64 => self,
            }
        }
    }

    /// The integers at `from`, which the compute type holds.
    #[inline(always)]
    unsafe fn load_codes<I: Int>(from: *const I) -> Self {
        use crate::dtype::IntType;
        // SAFETY: the caller's; the casts keep the type that `I::TYPE` names.
        unsafe {
            match I::TYPE {
                IntType::I8 => Self::load_i8(from.cast()),
                IntType::U8 => Self::load_u8(from.cast()),
                IntType::I16 => Self::load_i16(from.cast()),
                IntType::U16 => Self::load_u16(from.cast()),
                IntType::I32 | IntType::U32 | IntType::I64 => {
                    let mut lanes = [Self::Scalar::default(); MAX_LANES];
                    for (i, lane) in lanes[..Self::LANES].iter_mut().enumerate() {
                        *lane = Self::Scalar::from_i64((*from.add(i)).to_i64());
                    }
                    Self::load(lanes.as_ptr())
                }
            }
        }
    }

    /// Writes the codes n, where the lanes hold MAGIC + n.
    #[inline(always)]
    unsafe fn store_codes<O: Code>(self, to: *mut O) {
        // SAFETY: the caller's; the casts keep the width that `O::WIDTH` names.
        unsafe {
            match O::WIDTH {
                Width::W8 => self.store_low_8(to.cast()),
                Width::W16 => self.store_low_16(to.cast()),
                Width::Wider => {
                    let mut lanes = [Self::Scalar::default(); MAX_LANES];
                    self.store(lanes.as_mut_ptr());
                    for (i, lane) in lanes[..Self::LANES].iter().enumerate() {
                        *to.add(i) = O::from_low_bits(lane.low_bits());
                    }
                }
            }
        }
    }
}

impl<V: Vector> VectorExt for V {}

/// How far ahead of a loop memory is asked for, in bytes: a page, at whose end the CPU's own
/// prefetching stops.
const AHEAD: usize = 4096;

/// Asks for the memory that a loop which is at `from` will read in a while, as many elements as it
/// takes in a turn. No memory need be there.
#[inline(always)]
pub(crate) fn prefetch<T>(from: *const T, count: usize) {
    const LINE: usize = 64;
    for line in 0..(count * size_of::<T>()).div_ceil(LINE) {
        let address = from.cast::<i8>().wrapping_add(AHEAD + line * LINE);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 CPU has SSE; prefetching has no effect but on time.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(address);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }
}

/// The offset of each vector of the elements from `first` to `n`, which is at least a vector's
/// elements: the last one overlaps the one before where they are not a multiple.
///
/// An iterator, not a function that takes a closure: closures are not compiled for the instruction
/// set of the kernel that they stand in.
#[inline(always)]
pub(crate) fn offsets<V: Vector>(first: usize, n: usize) -> Offsets<V> {
    Offsets {
        next: first,
        n,
        vector: PhantomData,
    }
}

/// See [`offsets`].
pub(crate) struct Offsets<V> {
    next: usize,
    n: usize,
    vector: PhantomData<V>,
}

impl<V: Vector> Iterator for Offsets<V> {
    type Item = usize;

    #[inline(always)]
    fn next(&mut self) -> Option<usize> {
        let offset = self.next;
        if offset + V::LANES <= self.n {
            self.next = offset + V::LANES;
            return Some(offset);
        }
        if offset < self.n {
            self.next = self.n;
            return Some(self.n - V::LANES);
        }
        None
    }
}
