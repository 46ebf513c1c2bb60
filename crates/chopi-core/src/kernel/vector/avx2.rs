//! AVX2, FMA and F16C.

// One argument serves every block: see "SAFETY" below.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::arch::x86_64::*;

use super::{Arch, BLOCK, Vector, Words};

/// The instruction set.
#[derive(Debug)]
pub struct Avx2;

impl Arch for Avx2 {
    type F32 = F32;
    type F64 = F64;
}

/// 8 lanes.
#[derive(Clone, Copy, Debug)]
pub struct F32(__m256);

/// 4 lanes.
#[derive(Clone, Copy, Debug)]
pub struct F64(__m256d);

/// 8 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Words8(__m256i);

/// 4 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Words4(__m128i);

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;

// SAFETY, of every block below: the caller of each function promises the instruction set and good
// pointers; the loads and stores need no alignment.

/// The low halves of the 32-bit lanes.
#[inline(always)]
unsafe fn low_halves(words: __m256i) -> __m128i {
    unsafe {
        let low = _mm256_and_si256(words, _mm256_set1_epi32(0xffff));
        _mm_packus_epi32(
            _mm256_castsi256_si128(low),
            _mm256_extracti128_si256::<1>(low),
        )
    }
}

/// The low 32 bits of the 64-bit lanes.
#[inline(always)]
unsafe fn low_words(lanes: __m256i) -> __m128i {
    unsafe {
        let even = _mm256_permutevar8x32_epi32(lanes, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
        _mm256_castsi256_si128(even)
    }
}

/// The low 8 bits of the lanes.
#[inline(always)]
unsafe fn low_byte(lanes: __m256) -> __m256i {
    unsafe { _mm256_and_si256(_mm256_castps_si256(lanes), _mm256_set1_epi32(0xff)) }
}

/// The highest bit of the lanes.
#[inline(always)]
unsafe fn high_bit(lanes: __m256) -> __m256i {
    unsafe { _mm256_srli_epi32::<31>(_mm256_castps_si256(lanes)) }
}

/// Writes the 32-bit lanes, which are bytes, one after the other.
#[inline(always)]
unsafe fn store_bytes([a, b, c, d]: [__m256i; BLOCK], to: *mut u8) {
    unsafe {
        // Both halves of a vector are packed apart, which leaves groups of 4 to be put in order.
        let words = (_mm256_packus_epi32(a, b), _mm256_packus_epi32(c, d));
        let bytes = _mm256_packus_epi16(words.0, words.1);
        let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
        _mm256_storeu_si256(to.cast(), _mm256_permutevar8x32_epi32(bytes, order))
    }
}

/// The 4 bytes at `from`.
#[inline(always)]
unsafe fn load_4(from: *const u8) -> __m128i {
    unsafe { _mm_cvtsi32_si128(from.cast::<i32>().read_unaligned()) }
}

#[rustfmt::skip]
impl Vector for F32 {
    type Scalar = f32;
    type Mask = __m256;
    type Words = Words8;
    const LANES: usize = 8;

    #[inline(always)] unsafe fn splat(x: f32) -> Self { unsafe { Self(_mm256_set1_ps(x)) } }
    #[inline(always)] unsafe fn load(from: *const f32) -> Self { unsafe { Self(_mm256_loadu_ps(from)) } }
    #[inline(always)] unsafe fn load_f16(from: *const u16) -> Self {
        unsafe { Self(_mm256_cvtph_ps(_mm_loadu_si128(from.cast()))) }
    }
    #[inline(always)] unsafe fn load_bf16(from: *const u16) -> Self {
        unsafe {
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(words)))
        }
    }
    #[inline(always)] unsafe fn store(self, to: *mut f32) { unsafe { _mm256_storeu_ps(to, self.0) } }
    #[inline(always)] unsafe fn store_f16(self, to: *mut u16) {
        unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<NEAREST>(self.0)) }
    }
    #[inline(always)] unsafe fn store_bf16(self, to: *mut u16) {
        unsafe {
            let words = _mm256_srli_epi32::<16>(_mm256_castps_si256(self.round_bf16().0));
            _mm_storeu_si128(to.cast(), low_halves(words))
        }
    }
    #[inline(always)] unsafe fn round_f16(self) -> Self {
        unsafe { Self(_mm256_cvtph_ps(_mm256_cvtps_ph::<NEAREST>(self.0))) }
    }
    #[inline(always)] unsafe fn round_bf16(self) -> Self {
        unsafe {
            // Half of the last place that is kept, and one more where that place is odd.
            let bits = _mm256_castps_si256(self.0);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let sum = _mm256_blendv_epi8(sum, quiet, _mm256_castps_si256(self.is_nan()));
            Self(_mm256_castsi256_ps(_mm256_and_si256(sum, _mm256_set1_epi32(0xffff_0000_u32 as i32))))
        }
    }
    #[inline(always)] unsafe fn load_i8(from: *const i8) -> Self {
        unsafe { Self(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())))) }
    }
    #[inline(always)] unsafe fn load_u8(from: *const u8) -> Self {
        unsafe { Self(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())))) }
    }
    #[inline(always)] unsafe fn load_i16(from: *const i16) -> Self {
        unsafe { Self(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(_mm_loadu_si128(from.cast())))) }
    }
    #[inline(always)] unsafe fn load_u16(from: *const u16) -> Self {
        unsafe { Self(_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())))) }
    }
    #[inline(always)] unsafe fn store_low_8(self, to: *mut u8) {
        unsafe {
            let bytes = low_byte(self.0);
            let halves = _mm_packus_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
            _mm_storel_epi64(to.cast(), _mm_packus_epi16(halves, halves))
        }
    }
    #[inline(always)] unsafe fn store_block_low_8([a, b, c, d]: [Self; BLOCK], to: *mut u8) {
        unsafe { store_bytes([low_byte(a.0), low_byte(b.0), low_byte(c.0), low_byte(d.0)], to) }
    }
    #[inline(always)] unsafe fn store_low_16(self, to: *mut u16) {
        unsafe { _mm_storeu_si128(to.cast(), low_halves(_mm256_castps_si256(self.0))) }
    }
    #[inline(always)] unsafe fn add(self, other: Self) -> Self { unsafe { Self(_mm256_add_ps(self.0, other.0)) } }
    #[inline(always)] unsafe fn sub(self, other: Self) -> Self { unsafe { Self(_mm256_sub_ps(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { unsafe { Self(_mm256_mul_ps(self.0, other.0)) } }
    #[inline(always)] unsafe fn div(self, other: Self) -> Self { unsafe { Self(_mm256_div_ps(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        unsafe { Self(_mm256_fmadd_ps(self.0, factor.0, summand.0)) }
    }
    #[inline(always)] unsafe fn max(self, other: Self) -> Self { unsafe { Self(_mm256_max_ps(self.0, other.0)) } }
    #[inline(always)] unsafe fn min(self, other: Self) -> Self { unsafe { Self(_mm256_min_ps(self.0, other.0)) } }
    #[inline(always)] unsafe fn floor(self) -> Self { unsafe { Self(_mm256_floor_ps(self.0)) } }
    #[inline(always)] unsafe fn ceil(self) -> Self { unsafe { Self(_mm256_ceil_ps(self.0)) } }
    #[inline(always)] unsafe fn gt(self, other: Self) -> __m256 { unsafe { _mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0) } }
    #[inline(always)] unsafe fn eq(self, other: Self) -> __m256 { unsafe { _mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0) } }
    #[inline(always)] unsafe fn is_nan(self) -> __m256 { unsafe { _mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, self.0) } }
    #[inline(always)] unsafe fn select(mask: __m256, yes: Self, no: Self) -> Self {
        unsafe { Self(_mm256_blendv_ps(no.0, yes.0, mask)) }
    }
    #[inline(always)] unsafe fn or(a: __m256, b: __m256) -> __m256 { unsafe { _mm256_or_ps(a, b) } }
    #[inline(always)] unsafe fn and(a: __m256, b: __m256) -> __m256 { unsafe { _mm256_and_ps(a, b) } }
    #[inline(always)] unsafe fn none() -> __m256 { unsafe { _mm256_setzero_ps() } }
    #[inline(always)] unsafe fn any(mask: __m256) -> bool { unsafe { _mm256_movemask_ps(mask) != 0 } }
    #[inline(always)] unsafe fn store_mask(mask: __m256, to: *mut u8) {
        unsafe { Self(_mm256_castsi256_ps(high_bit(mask))).store_low_8(to) }
    }
    #[inline(always)] unsafe fn store_block_mask([a, b, c, d]: [__m256; BLOCK], to: *mut u8) {
        unsafe { store_bytes([high_bit(a), high_bit(b), high_bit(c), high_bit(d)], to) }
    }
    #[inline(always)] unsafe fn from_words(words: Words8) -> Self { unsafe { Self(_mm256_cvtepi32_ps(words.0)) } }
}

#[rustfmt::skip]
impl Vector for F64 {
    type Scalar = f64;
    type Mask = __m256d;
    type Words = Words4;
    const LANES: usize = 4;

    #[inline(always)] unsafe fn splat(x: f64) -> Self { unsafe { Self(_mm256_set1_pd(x)) } }
    #[inline(always)] unsafe fn load(from: *const f64) -> Self { unsafe { Self(_mm256_loadu_pd(from)) } }
    #[inline(always)] unsafe fn store(self, to: *mut f64) { unsafe { _mm256_storeu_pd(to, self.0) } }
    #[inline(always)] unsafe fn load_i8(from: *const i8) -> Self {
        unsafe { Self(_mm256_cvtepi32_pd(_mm_cvtepi8_epi32(load_4(from.cast())))) }
    }
    #[inline(always)] unsafe fn load_u8(from: *const u8) -> Self {
        unsafe { Self(_mm256_cvtepi32_pd(_mm_cvtepu8_epi32(load_4(from)))) }
    }
    #[inline(always)] unsafe fn load_i16(from: *const i16) -> Self {
        unsafe { Self(_mm256_cvtepi32_pd(_mm_cvtepi16_epi32(_mm_loadl_epi64(from.cast())))) }
    }
    #[inline(always)] unsafe fn load_u16(from: *const u16) -> Self {
        unsafe { Self(_mm256_cvtepi32_pd(_mm_cvtepu16_epi32(_mm_loadl_epi64(from.cast())))) }
    }
    #[inline(always)] unsafe fn store_low_8(self, to: *mut u8) {
        unsafe {
            let words = low_words(_mm256_castpd_si256(self.0));
            let first = _mm_setr_epi8(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
            to.cast::<i32>().write_unaligned(_mm_cvtsi128_si32(_mm_shuffle_epi8(words, first)))
        }
    }
    #[inline(always)] unsafe fn store_low_16(self, to: *mut u16) {
        unsafe {
            let words = low_words(_mm256_castpd_si256(self.0));
            let low = _mm_and_si128(words, _mm_set1_epi32(0xffff));
            _mm_storel_epi64(to.cast(), _mm_packus_epi32(low, low))
        }
    }
    #[inline(always)] unsafe fn add(self, other: Self) -> Self { unsafe { Self(_mm256_add_pd(self.0, other.0)) } }
    #[inline(always)] unsafe fn sub(self, other: Self) -> Self { unsafe { Self(_mm256_sub_pd(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { unsafe { Self(_mm256_mul_pd(self.0, other.0)) } }
    #[inline(always)] unsafe fn div(self, other: Self) -> Self { unsafe { Self(_mm256_div_pd(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        unsafe { Self(_mm256_fmadd_pd(self.0, factor.0, summand.0)) }
    }
    #[inline(always)] unsafe fn max(self, other: Self) -> Self { unsafe { Self(_mm256_max_pd(self.0, other.0)) } }
    #[inline(always)] unsafe fn min(self, other: Self) -> Self { unsafe { Self(_mm256_min_pd(self.0, other.0)) } }
    #[inline(always)] unsafe fn floor(self) -> Self { unsafe { Self(_mm256_floor_pd(self.0)) } }
    #[inline(always)] unsafe fn ceil(self) -> Self { unsafe { Self(_mm256_ceil_pd(self.0)) } }
    #[inline(always)] unsafe fn gt(self, other: Self) -> __m256d { unsafe { _mm256_cmp_pd::<_CMP_GT_OQ>(self.0, other.0) } }
    #[inline(always)] unsafe fn eq(self, other: Self) -> __m256d { unsafe { _mm256_cmp_pd::<_CMP_EQ_OQ>(self.0, other.0) } }
    #[inline(always)] unsafe fn is_nan(self) -> __m256d { unsafe { _mm256_cmp_pd::<_CMP_UNORD_Q>(self.0, self.0) } }
    #[inline(always)] unsafe fn select(mask: __m256d, yes: Self, no: Self) -> Self {
        unsafe { Self(_mm256_blendv_pd(no.0, yes.0, mask)) }
    }
    #[inline(always)] unsafe fn or(a: __m256d, b: __m256d) -> __m256d { unsafe { _mm256_or_pd(a, b) } }
    #[inline(always)] unsafe fn and(a: __m256d, b: __m256d) -> __m256d { unsafe { _mm256_and_pd(a, b) } }
    #[inline(always)] unsafe fn none() -> __m256d { unsafe { _mm256_setzero_pd() } }
    #[inline(always)] unsafe fn any(mask: __m256d) -> bool { unsafe { _mm256_movemask_pd(mask) != 0 } }
    #[inline(always)] unsafe fn store_mask(mask: __m256d, to: *mut u8) {
        unsafe { Self(_mm256_castsi256_pd(_mm256_srli_epi64::<63>(_mm256_castpd_si256(mask)))).store_low_8(to) }
    }
    #[inline(always)] unsafe fn from_words(words: Words4) -> Self { unsafe { Self(_mm256_cvtepi32_pd(words.0)) } }
}

#[rustfmt::skip]
impl Words for Words8 {
    #[inline(always)] unsafe fn count_from(first: u32) -> Self {
        unsafe {
            let count = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            Self(_mm256_add_epi32(count, _mm256_set1_epi32(first as i32)))
        }
    }
    #[inline(always)] unsafe fn splat(x: u32) -> Self { unsafe { Self(_mm256_set1_epi32(x as i32)) } }
    #[inline(always)] unsafe fn xor(self, other: Self) -> Self { unsafe { Self(_mm256_xor_si256(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { unsafe { Self(_mm256_mullo_epi32(self.0, other.0)) } }
    #[inline(always)] unsafe fn shift_right<const N: i32>(self) -> Self {
        unsafe { Self(_mm256_srl_epi32(self.0, _mm_cvtsi32_si128(N))) }
    }
}

#[rustfmt::skip]
impl Words for Words4 {
    #[inline(always)] unsafe fn count_from(first: u32) -> Self {
        unsafe { Self(_mm_add_epi32(_mm_setr_epi32(0, 1, 2, 3), _mm_set1_epi32(first as i32))) }
    }
    #[inline(always)] unsafe fn splat(x: u32) -> Self { unsafe { Self(_mm_set1_epi32(x as i32)) } }
    #[inline(always)] unsafe fn xor(self, other: Self) -> Self { unsafe { Self(_mm_xor_si128(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { unsafe { Self(_mm_mullo_epi32(self.0, other.0)) } }
    #[inline(always)] unsafe fn shift_right<const N: i32>(self) -> Self {
        unsafe { Self(_mm_srl_epi32(self.0, _mm_cvtsi32_si128(N))) }
    }
}
