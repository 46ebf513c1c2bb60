//! Vectors of numbers: the few operations that the loops are written with, one type for each
//! instruction set and compute type.
//!
//! The files of the instruction sets hold the same names: the instruction set itself, `F32` and `F64`,
//! their masks, and the 32-bit integers of as many lanes.
//!
//! Everything here is safe to call. A value of an [`Arch`] exists only on a CPU that has the
//! instruction set, every vector is made from one, and loads and stores take slices, whose lengths they
//! check. Nobody else makes such a value:
//!
//! ```compile_fail,E0423
//! let forged = chopi_kernels::vector::avx2::Avx2(());
//! ```
//!
//! ```compile_fail,E0624
//! let forged = unsafe { chopi_kernels::vector::avx2::Avx2::assume() };
//! ```
//!
//! Nor does anybody else implement the traits:
//!
//! ```compile_fail,E0277
//! #[derive(Clone, Copy)]
//! struct Mine;
//! impl chopi_kernels::vector::Mask for Mine {
//!     fn or(self, _: Self) -> Self {
//!         self
//!     }
//!     fn any(self) -> bool {
//!         false
//!     }
//! }
//! ```

#[cfg(target_arch = "x86_64")]
pub mod avx2;
#[cfg(target_arch = "x86_64")]
pub mod avx512;
#[cfg(target_arch = "aarch64")]
pub mod neon;
pub mod portable;

#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
mod fields;

use std::fmt::Debug;
use std::mem::MaybeUninit;

use half::{bf16, f16};

use crate::float::Compute;
use crate::sealed::Sealed;

/// An instruction set. A value of it is the proof that the CPU has the instructions.
pub trait Arch: Sealed + Copy + Debug {
    /// Vectors of `f32`.
    type F32: Vector<Arch = Self, Scalar = f32> + Halves;
    /// Vectors of `f64`.
    type F64: Vector<Arch = Self, Scalar = f64>;
    /// Vectors of bytes.
    type Bytes: Bytes<Arch = Self>;
    /// Whether a loop for each kind of [`Steps`](crate::Steps), and one by blocks of vectors, are worth
    /// their size. They are not for plain Rust, which old CPUs alone run.
    const SPECIALIZED: bool;
}

/// The most lanes that a vector has.
pub const MAX_LANES: usize = 16;

/// The most bytes that a vector has.
pub const MAX_BYTES: usize = 64;

/// How many vectors the loops take at a time: as many as fill one with bytes where a vector has 8
/// lanes.
pub const BLOCK: usize = 4;

/// A vector of floats. Arithmetic rounds each lane once, to nearest even.
///
/// The functions are `#[inline(always)]`, so that they are compiled for the instruction set of the
/// [`Loop`](crate::isa::Loop) that calls them.
///
/// # Panics
/// Loads and stores panic where a slice is shorter than the vector.
pub trait Vector: Sealed + Copy {
    /// The instruction set.
    type Arch: Arch;
    /// What a lane holds.
    type Scalar: Compute;
    /// A truth value for each lane.
    type Mask: Mask;
    /// 32 bits for each lane.
    type Words: Words<Arch = Self::Arch>;
    /// The number of lanes.
    const LANES: usize;

    /// The instruction set, of which a vector is a proof too.
    fn arch(self) -> Self::Arch;
    /// `x` in every lane.
    fn splat(arch: Self::Arch, x: Self::Scalar) -> Self;
    /// The first numbers of a slice.
    fn load(arch: Self::Arch, from: &[Self::Scalar]) -> Self;
    /// The first numbers of a slice, converted.
    fn load_i8(arch: Self::Arch, from: &[i8]) -> Self;
    /// The first numbers of a slice, converted.
    fn load_u8(arch: Self::Arch, from: &[u8]) -> Self;
    /// The first numbers of a slice, converted.
    fn load_i16(arch: Self::Arch, from: &[i16]) -> Self;
    /// The first numbers of a slice, converted.
    fn load_u16(arch: Self::Arch, from: &[u16]) -> Self;
    /// Writes the numbers.
    fn store(self, to: &mut [MaybeUninit<Self::Scalar>]);
    /// Writes the low 8 bits of the integers n, where the lanes hold MAGIC + n.
    fn store_low_8(self, to: &mut [MaybeUninit<u8>]);
    /// Writes the low 16 bits of the integers n, where the lanes hold MAGIC + n.
    fn store_low_16(self, to: &mut [MaybeUninit<u16>]);
    /// [`store_low_8`](Self::store_low_8) of several vectors, one after the other.
    #[inline(always)]
    fn store_all_low_8<const N: usize>(vectors: [Self; N], to: &mut [MaybeUninit<u8>]) {
        for (k, vector) in vectors.into_iter().enumerate() {
            vector.store_low_8(&mut to[k * Self::LANES..]);
        }
    }
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self − other`.
    fn sub(self, other: Self) -> Self;
    /// `self · other`.
    fn mul(self, other: Self) -> Self;
    /// `self / other`.
    fn div(self, other: Self) -> Self;
    /// `self · factor + summand`, rounded once.
    fn mul_add(self, factor: Self, summand: Self) -> Self;
    /// `sum` + `self`·0: NaN from the first number on that is not finite.
    #[inline(always)]
    fn poison(self, sum: Self) -> Self {
        self.mul_add(Self::splat(self.arch(), Self::Scalar::default()), sum)
    }
    /// The larger one of two; where `other` is NaN, `other`.
    fn max(self, other: Self) -> Self;
    /// The smaller one of two; where `other` is NaN, `other`.
    fn min(self, other: Self) -> Self;
    /// The nearest integer, half to even, of numbers as small as [`MAGIC`](Compute::MAGIC) asks for.
    #[inline(always)]
    fn round_even(self) -> Self {
        let magic = Self::splat(self.arch(), Self::Scalar::MAGIC);
        self.add(magic).sub(magic)
    }
    /// The largest integer that is not larger, of numbers as small as [`MAGIC`](Compute::MAGIC) asks
    /// for.
    #[inline(always)]
    fn floor(self) -> Self {
        let nearest = self.round_even();
        nearest.sub(self.one_if(nearest.gt(self)))
    }
    /// The smallest integer that is not smaller, of numbers as small as [`MAGIC`](Compute::MAGIC) asks
    /// for.
    #[inline(always)]
    fn ceil(self) -> Self {
        let nearest = self.round_even();
        nearest.add(self.one_if(self.gt(nearest)))
    }
    /// ⌈`self` − `other`·`unit`⌉, of the exact difference; the product one of 2^−24 and an integer,
    /// in [0, 1), `self` as small as [`MAGIC`](Compute::MAGIC) asks for.
    #[inline(always)]
    fn ceil_difference(self, other: Self, unit: Self) -> Self {
        // It is ⌊self⌋, and one more where the fraction exceeds the product. The fraction is what is
        // left, or that and 1, a sum that need not be exact: 1 is taken from the product.
        let nearest = self.round_even();
        let left = self.sub(nearest);
        let none = Self::splat(self.arch(), Self::Scalar::default());
        let down = self.one_if(none.gt(left));
        let up = self.one_if(left.gt(other.mul(unit).sub(down)));
        nearest.add(up).sub(down)
    }
    /// `self > other`, false for NaN.
    fn gt(self, other: Self) -> Self::Mask;
    /// `self == other`, false for NaN.
    fn eq(self, other: Self) -> Self::Mask;
    /// Whether the lane of either vector is NaN.
    fn is_either_nan(self, other: Self) -> Self::Mask;
    /// Whether the lane is NaN.
    #[inline(always)]
    fn is_nan(self) -> Self::Mask {
        self.is_either_nan(self)
    }
    /// The mask that holds nowhere.
    fn none(arch: Self::Arch) -> Self::Mask;
    /// `yes` where the mask holds, else `no`.
    fn select(mask: Self::Mask, yes: Self, no: Self) -> Self;
    /// 1 where the mask holds, else 0.
    #[inline(always)]
    fn one_if(self, mask: Self::Mask) -> Self {
        let number = |x| Self::splat(self.arch(), x);
        Self::select(
            mask,
            number(Self::Scalar::from_i32(1)),
            number(Self::Scalar::default()),
        )
    }
    /// Writes 1 where the mask holds, else 0.
    fn store_mask(mask: Self::Mask, to: &mut [MaybeUninit<u8>]);
    /// [`store_mask`](Self::store_mask) of several masks, one after the other.
    #[inline(always)]
    fn store_all_masks<const N: usize>(masks: [Self::Mask; N], to: &mut [MaybeUninit<u8>]) {
        for (k, mask) in masks.into_iter().enumerate() {
            Self::store_mask(mask, &mut to[k * Self::LANES..]);
        }
    }
    /// Integers below 2^24.
    fn from_words(words: Self::Words) -> Self;
}

/// A truth value for each lane of a vector.
pub trait Mask: Sealed + Copy {
    /// Whether either mask holds.
    fn or(self, other: Self) -> Self;
    /// Whether the mask holds anywhere.
    fn any(self) -> bool;
}

/// What vectors of `f32` do with the halves, which are computed in `f32`.
pub trait Halves: Vector<Scalar = f32> {
    /// The first `f16` numbers of a slice, widened.
    fn load_f16(arch: Self::Arch, from: &[f16]) -> Self;
    /// The first `bf16` numbers of a slice, widened.
    fn load_bf16(arch: Self::Arch, from: &[bf16]) -> Self;
    /// Writes the numbers rounded to `f16`.
    fn store_f16(self, to: &mut [MaybeUninit<f16>]);
    /// Writes the numbers rounded to `bf16`.
    fn store_bf16(self, to: &mut [MaybeUninit<bf16>]);
    /// The numbers rounded to `f16`.
    fn round_f16(self) -> Self;
    /// The numbers rounded to `bf16`.
    fn round_bf16(self) -> Self;
}

/// 32-bit integers, with wrapping arithmetic.
pub trait Words: Sealed + Copy {
    /// The instruction set.
    type Arch: Arch;
    /// `first`, `first + 1`, ….
    fn count_from(arch: Self::Arch, first: u32) -> Self;
    /// `x` in every lane.
    fn splat(arch: Self::Arch, x: u32) -> Self;
    /// The bits of which one of the two has one.
    fn xor(self, other: Self) -> Self;
    /// The low 32 bits of the product.
    fn mul(self, other: Self) -> Self;
    /// The bits, `N` lower.
    fn shift_right<const N: i32>(self) -> Self;
}

/// Bytes, with wrapping arithmetic: codes of at most 8 bits, or the fields that they are packed as.
///
/// # Panics
/// Loads and stores panic where a slice is shorter than the vector.
pub trait Bytes: Sealed + Copy {
    /// The instruction set.
    type Arch: Arch;
    /// The number of lanes, a multiple of 8.
    const LANES: usize;

    /// `x` in every lane.
    fn splat(arch: Self::Arch, x: u8) -> Self;
    /// The first bytes of a slice.
    fn load(arch: Self::Arch, from: &[u8]) -> Self;
    /// Writes the bytes.
    fn store(self, to: &mut [MaybeUninit<u8>]);
    /// `self + other`.
    fn add(self, other: Self) -> Self;
    /// `self − other`.
    fn sub(self, other: Self) -> Self;
    /// The bits that both have.
    fn and(self, other: Self) -> Self;
    /// The bits that either has.
    fn or(self, other: Self) -> Self;
    /// The bits of which one of the two has one.
    fn xor(self, other: Self) -> Self;
    /// Whether any bit is 1.
    fn any(self) -> bool;
    /// The first `LANES` fields of `B` bits, 1 to 8, which lie densely in the slice, from the lowest bit of
    /// its first byte on. The slice must be as long as the vector all the same.
    fn load_fields<const B: usize>(arch: Self::Arch, from: &[u8]) -> Self;
    /// Writes fields of `B` bits, 1 to 8, densely: the inverse of [`load_fields`](Self::load_fields). What
    /// is written means nothing where a field has more bits. Bytes after the fields, up to the length of
    /// the vector, may be overwritten with anything.
    fn store_fields<const B: usize>(self, to: &mut [MaybeUninit<u8>]);
}

/// The first `N` elements of a slice.
#[inline(always)]
fn first<const N: usize, T>(from: &[T]) -> &[T; N] {
    match from.first_chunk() {
        Some(first) => first,
        None => shorter_than_a_vector(),
    }
}

/// The first `N` elements of a slice, to be written.
#[inline(always)]
fn first_mut<const N: usize, T>(to: &mut [T]) -> &mut [T; N] {
    match to.first_chunk_mut() {
        Some(first) => first,
        None => shorter_than_a_vector(),
    }
}

#[cold]
#[inline(never)]
fn shorter_than_a_vector() -> ! {
    panic!("a slice that is shorter than the vector")
}

/// Functions that consist of intrinsics.
///
/// Their bodies stand in one `unsafe` block each, by one argument, which has two parts:
///
/// 1. *The instructions exist.* Each function takes a vector, a mask or the instruction set itself. All of
///    them have private fields, and come from [`Isa`](crate::Isa) alone, which looks at the CPU.
/// 2. *The memory is there.* The bodies take pointers from nothing but the arrays that [`first`] and
///    [`first_mut`] give, or a type that says their length, which are as long as what is read or written; the
///    instructions need no alignment but that of the elements. Written memory may be uninitialized.
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
macro_rules! intrinsics {
    ($(fn $name:ident $([$($generic:tt)*])? ($($argument:tt)*) $(-> $result:ty)? { $($body:tt)* })*) => {$(
        #[inline(always)]
        fn $name $(<$($generic)*>)? ($($argument)*) $(-> $result)? {
            // SAFETY: by the two parts of the argument at `intrinsics!`.
            unsafe { $($body)* }
        }
    )*};
}
#[cfg(any(target_arch = "x86_64", target_arch = "aarch64"))]
use intrinsics;

/// How far ahead of a loop memory is asked for, in bytes: a page, at whose end the CPU's own
/// prefetching stops.
const AHEAD: usize = 4096;

/// Asks for the memory that a loop which is at the beginning of `from` will read in a while, as much as
/// `from` is long. No memory need be there.
#[inline(always)]
pub fn prefetch<T>(from: &[T]) {
    const LINE: usize = 64;
    for line in 0..size_of_val(from).div_ceil(LINE) {
        let address = from.as_ptr().cast::<i8>().wrapping_add(AHEAD + line * LINE);
        #[cfg(target_arch = "x86_64")]
        // SAFETY: every x86-64 CPU has SSE; prefetching any address has no effect but on time.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            _mm_prefetch::<_MM_HINT_T0>(address);
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = address;
    }
}
