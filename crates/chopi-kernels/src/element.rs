//! Elements in vectors: what the loops do with each element type.

use std::mem::MaybeUninit;

use half::slice::HalfFloatSliceExt;
use half::{bf16, f16};

use crate::float::{Compute, Float};
use crate::int::Int;
use crate::match_float;
use crate::slice::FloatSlice;
use crate::vector::{Arch, Halves, Vector};

/// The length of the longest block that is widened at once.
pub(crate) const WIDE_BLOCK: usize = 512;

/// A buffer for widened elements.
pub(crate) type Wide<C> = [MaybeUninit<C>; WIDE_BLOCK];

/// A float type that loops are compiled for.
pub(crate) trait Element: Float {
    /// A vector of the compute type.
    type Vector<A: Arch>: Vector<Arch = A, Scalar = Self::Compute>;

    /// The first elements of a slice, widened.
    fn load<A: Arch>(arch: A, from: &[Self]) -> Self::Vector<A>;
    /// Writes numbers, narrowed.
    fn store<A: Arch>(numbers: Self::Vector<A>, to: &mut [MaybeUninit<Self>]);
    /// Numbers rounded to the element type.
    fn round<A: Arch>(numbers: Self::Vector<A>) -> Self::Vector<A>;

    /// At most [`WIDE_BLOCK`] elements in the compute type: themselves, or widened into `buffer`.
    fn widen_block<'a>(
        from: &'a [Self],
        buffer: &'a mut Wide<Self::Compute>,
    ) -> &'a [Self::Compute];
    /// Has `compute` write as many numbers as `out` has elements, at most [`WIDE_BLOCK`], and leaves them
    /// in `out`, narrowed.
    fn narrow_block(
        out: &mut [MaybeUninit<Self>],
        compute: impl FnOnce(&mut [MaybeUninit<Self::Compute>]),
    );
}

macro_rules! impl_element {
    ($($t:ident $vector:ident),*) => {$(
        impl Element for $t {
            type Vector<A: Arch> = A::$vector;

            #[inline(always)]
            fn load<A: Arch>(arch: A, from: &[Self]) -> A::$vector {
                Vector::load(arch, from)
            }
            #[inline(always)]
            fn store<A: Arch>(numbers: A::$vector, to: &mut [MaybeUninit<Self>]) {
                numbers.store(to);
            }
            #[inline(always)]
            fn round<A: Arch>(numbers: A::$vector) -> A::$vector {
                numbers
            }
            #[inline(always)]
            fn widen_block<'a>(from: &'a [Self], _: &'a mut Wide<Self>) -> &'a [Self] {
                from
            }
            #[inline(always)]
            fn narrow_block(
                out: &mut [MaybeUninit<Self>],
                compute: impl FnOnce(&mut [MaybeUninit<Self>]),
            ) {
                compute(out)
            }
        }
    )*};
}

impl_element!(f32 F32, f64 F64);

macro_rules! impl_half {
    ($($t:ident $load:ident $store:ident $round:ident),*) => {$(
        impl Element for $t {
            type Vector<A: Arch> = A::F32;

            #[inline(always)]
            fn load<A: Arch>(arch: A, from: &[Self]) -> A::F32 {
                Halves::$load(arch, from)
            }
            #[inline(always)]
            fn store<A: Arch>(numbers: A::F32, to: &mut [MaybeUninit<Self>]) {
                numbers.$store(to);
            }
            #[inline(always)]
            fn round<A: Arch>(numbers: A::F32) -> A::F32 {
                numbers.$round()
            }
            fn widen_block<'a>(from: &'a [Self], buffer: &'a mut Wide<f32>) -> &'a [f32] {
                let buffer = zeroed(&mut buffer[..from.len()], 0.0);
                from.convert_to_f32_slice(buffer);
                buffer
            }
            fn narrow_block(
                out: &mut [MaybeUninit<Self>],
                compute: impl FnOnce(&mut [MaybeUninit<f32>]),
            ) {
                let mut numbers = [MaybeUninit::new(0.0_f32); WIDE_BLOCK];
                let numbers = &mut numbers[..out.len()];
                compute(numbers);
                // SAFETY: the numbers were initialized when the array was made.
                let numbers = unsafe { assume_init(numbers) };
                zeroed(out, Self::ZERO).convert_from_f32_slice(numbers);
            }
        }
    )*};
}

impl_half!(f16 load_f16 store_f16 round_f16, bf16 load_bf16 store_bf16 round_bf16);

/// Writes the elements of `x` to `out`, exactly; what one of the two has more than the other is passed
/// over.
pub fn widen(x: FloatSlice<'_>, out: &mut [f64]) {
    match_float!(FloatSlice, x, x => {
        let mut buffer = [MaybeUninit::uninit(); WIDE_BLOCK];
        for (x, out) in x.chunks(WIDE_BLOCK).zip(out.chunks_mut(WIDE_BLOCK)) {
            for (out, &x) in out.iter_mut().zip(Element::widen_block(x, &mut buffer)) {
                *out = Compute::as_f64(x);
            }
        }
    });
}

/// Elements that are initialized.
///
/// # Safety
/// Each of the elements must have been written.
pub(crate) unsafe fn assume_init<T>(elements: &[MaybeUninit<T>]) -> &[T] {
    // SAFETY: the two slices have the same layout, and the caller has written each element.
    unsafe { &*(std::ptr::from_ref(elements) as *const [T]) }
}

/// Elements, initialized to `zero`.
fn zeroed<T: Copy>(elements: &mut [MaybeUninit<T>], zero: T) -> &mut [T] {
    elements.fill(MaybeUninit::new(zero));
    // SAFETY: the two slices have the same layout, and each element was written by the line above.
    unsafe { &mut *(std::ptr::from_mut(elements) as *mut [T]) }
}

/// Elements, to be overwritten.
pub(crate) fn as_uninit<T>(elements: &mut [T]) -> &mut [MaybeUninit<T>] {
    // SAFETY: the two slices have the same layout. The loops write initialized elements alone.
    unsafe { &mut *(std::ptr::from_mut(elements) as *mut [MaybeUninit<T>]) }
}

/// An integer type of at most 16 bits, which vectors of floats hold.
pub(crate) trait Stored: Int {
    /// The first integers of a slice.
    fn load<V: Vector>(arch: V::Arch, from: &[Self]) -> V;
}

macro_rules! impl_stored {
    ($($t:ident $load:ident),*) => {$(
        impl Stored for $t {
            #[inline(always)]
            fn load<V: Vector>(arch: V::Arch, from: &[Self]) -> V {
                V::$load(arch, from)
            }
        }
    )*};
}

impl_stored!(i8 load_i8, u8 load_u8, i16 load_i16, u16 load_u16);

/// The bits of an integer of 8 or 16 bits, signed or not.
pub(crate) trait Code: Copy + Default + Send + Sync + 'static {
    /// Whether loops by blocks of vectors are worth their size.
    const BY_BLOCKS: bool;

    /// Writes the low bits of the integers n, where the lanes hold MAGIC + n.
    fn store<V: Vector, const N: usize>(codes: [V; N], to: &mut [MaybeUninit<Self>]);
}

impl Code for u8 {
    const BY_BLOCKS: bool = true;

    #[inline(always)]
    fn store<V: Vector, const N: usize>(codes: [V; N], to: &mut [MaybeUninit<u8>]) {
        V::store_all_low_8(codes, to);
    }
}

impl Code for u16 {
    const BY_BLOCKS: bool = false;

    #[inline(always)]
    fn store<V: Vector, const N: usize>(codes: [V; N], to: &mut [MaybeUninit<u16>]) {
        for (k, codes) in codes.into_iter().enumerate() {
            codes.store_low_16(&mut to[k * V::LANES..]);
        }
    }
}

/// The integers of a slice by their bits.
///
/// # Safety
/// `U` must be the unsigned integer of the width of the signed integer `S`.
pub(crate) unsafe fn unsigned<S, U>(codes: &mut [MaybeUninit<S>]) -> &mut [MaybeUninit<U>] {
    const { assert!(size_of::<S>() == size_of::<U>() && align_of::<S>() == align_of::<U>()) };
    // SAFETY: the two have the same size and alignment, and every bit pattern is a value of both.
    unsafe { &mut *(std::ptr::from_mut(codes) as *mut [MaybeUninit<U>]) }
}
