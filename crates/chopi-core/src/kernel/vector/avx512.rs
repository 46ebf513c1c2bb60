//! AVX-512: F, BW, DQ and VL.

// One argument serves every block: see "SAFETY" below.
#![allow(clippy::undocumented_unsafe_blocks)]

use std::arch::x86_64::*;

use super::{Arch, Vector, Words};

/// The instruction set.
#[derive(Debug)]
pub struct Avx512;

impl Arch for Avx512 {
    type F32 = F32;
    type F64 = F64;
}

/// 16 lanes.
#[derive(Clone, Copy, Debug)]
pub struct F32(__m512);

/// 8 lanes.
#[derive(Clone, Copy, Debug)]
pub struct F64(__m512d);

/// 16 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Words16(__m512i);

/// 8 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Words8(__m256i);

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
const UP: i32 = _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC;

// SAFETY, of every block below: the caller of each function promises the instruction set and good
// pointers; the loads and stores need no alignment.

#[rustfmt::skip]
impl Vector for F32 {
    type Scalar = f32;
    type Mask = __mmask16;
    type Words = Words16;
    const LANES: usize = 16;

    #[inline(always)] unsafe fn splat(x: f32) -> Self { unsafe { Self(_mm512_set1_ps(x)) } }
    #[inline(always)] unsafe fn load(from: *const f32) -> Self { unsafe { Self(_mm512_loadu_ps(from)) } }
    #[inline(always)] unsafe fn load_f16(from: *const u16) -> Self {
        unsafe { Self(_mm512_cvtph_ps(_mm256_loadu_si256(from.cast()))) }
    }
    #[inline(always)] unsafe fn load_bf16(from: *const u16) -> Self {
        unsafe {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)))
        }
    }
    #[inline(always)] unsafe fn store(self, to: *mut f32) { unsafe { _mm512_storeu_ps(to, self.0) } }
    #[inline(always)] unsafe fn store_f16(self, to: *mut u16) {
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<NEAREST>(self.0)) }
    }
    #[inline(always)] unsafe fn store_bf16(self, to: *mut u16) {
        unsafe {
            let words = _mm512_srli_epi32::<16>(_mm512_castps_si512(self.round_bf16().0));
            _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(words))
        }
    }
    #[inline(always)] unsafe fn round_f16(self) -> Self {
        unsafe { Self(_mm512_cvtph_ps(_mm512_cvtps_ph::<NEAREST>(self.0))) }
    }
    #[inline(always)] unsafe fn round_bf16(self) -> Self {
        unsafe {
            // Half of the last place that is kept, and one more where that place is odd.
            let bits = _mm512_castps_si512(self.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
            let sum = _mm512_mask_mov_epi32(sum, self.is_nan(), quiet);
            Self(_mm512_castsi512_ps(_mm512_and_si512(sum, _mm512_set1_epi32(0xffff_0000_u32 as i32))))
        }
    }
    #[inline(always)] unsafe fn load_i8(from: *const i8) -> Self {
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast())))) }
    }
    #[inline(always)] unsafe fn load_u8(from: *const u8) -> Self {
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(from.cast())))) }
    }
    #[inline(always)] unsafe fn load_i16(from: *const i16) -> Self {
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(_mm256_loadu_si256(from.cast())))) }
    }
    #[inline(always)] unsafe fn load_u16(from: *const u16) -> Self {
        unsafe { Self(_mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(_mm256_loadu_si256(from.cast())))) }
    }
    #[inline(always)] unsafe fn store_low_8(self, to: *mut u8) {
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi32_epi8(_mm512_castps_si512(self.0))) }
    }
    #[inline(always)] unsafe fn store_low_16(self, to: *mut u16) {
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtepi32_epi16(_mm512_castps_si512(self.0))) }
    }
    #[inline(always)] unsafe fn add(self, other: Self) -> Self { unsafe { Self(_mm512_add_ps(self.0, other.0)) } }
    #[inline(always)] unsafe fn sub(self, other: Self) -> Self { unsafe { Self(_mm512_sub_ps(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { unsafe { Self(_mm512_mul_ps(self.0, other.0)) } }
    #[inline(always)] unsafe fn div(self, other: Self) -> Self { unsafe { Self(_mm512_div_ps(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        unsafe { Self(_mm512_fmadd_ps(self.0, factor.0, summand.0)) }
    }
    #[inline(always)] unsafe fn max(self, other: Self) -> Self { unsafe { Self(_mm512_max_ps(self.0, other.0)) } }
    #[inline(always)] unsafe fn min(self, other: Self) -> Self { unsafe { Self(_mm512_min_ps(self.0, other.0)) } }
    #[inline(always)] unsafe fn floor(self) -> Self { unsafe { Self(_mm512_roundscale_ps::<DOWN>(self.0)) } }
    #[inline(always)] unsafe fn ceil(self) -> Self { unsafe { Self(_mm512_roundscale_ps::<UP>(self.0)) } }
    // Rounded up to a float, and that to an integer: together, the difference rounded up to an integer.
    #[inline(always)] unsafe fn ceil_difference(self, other: Self, unit: Self) -> Self {
        unsafe { Self(_mm512_fnmadd_round_ps::<UP>(other.0, unit.0, self.0)).ceil() }
    }
    #[inline(always)] unsafe fn gt(self, other: Self) -> __mmask16 { unsafe { _mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, other.0) } }
    #[inline(always)] unsafe fn eq(self, other: Self) -> __mmask16 { unsafe { _mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0) } }
    #[inline(always)] unsafe fn is_nan(self) -> __mmask16 { unsafe { _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, self.0) } }
    #[inline(always)] unsafe fn select(mask: __mmask16, yes: Self, no: Self) -> Self {
        unsafe { Self(_mm512_mask_blend_ps(mask, no.0, yes.0)) }
    }
    #[inline(always)] unsafe fn or(a: __mmask16, b: __mmask16) -> __mmask16 { a | b }
    #[inline(always)] unsafe fn and(a: __mmask16, b: __mmask16) -> __mmask16 { a & b }
    #[inline(always)] unsafe fn none() -> __mmask16 { 0 }
    #[inline(always)] unsafe fn any(mask: __mmask16) -> bool { mask != 0 }
    #[inline(always)] unsafe fn store_mask(mask: __mmask16, to: *mut u8) {
        unsafe { _mm_storeu_si128(to.cast(), _mm_maskz_set1_epi8(mask, 1)) }
    }
    #[inline(always)] unsafe fn from_words(words: Words16) -> Self { unsafe { Self(_mm512_cvtepi32_ps(words.0)) } }
}

#[rustfmt::skip]
impl Vector for F64 {
    type Scalar = f64;
    type Mask = __mmask8;
    type Words = Words8;
    const LANES: usize = 8;

    #[inline(always)] unsafe fn splat(x: f64) -> Self { unsafe { Self(_mm512_set1_pd(x)) } }
    #[inline(always)] unsafe fn load(from: *const f64) -> Self { unsafe { Self(_mm512_loadu_pd(from)) } }
    #[inline(always)] unsafe fn store(self, to: *mut f64) { unsafe { _mm512_storeu_pd(to, self.0) } }
    #[inline(always)] unsafe fn load_i8(from: *const i8) -> Self {
        unsafe { Self(_mm512_cvtepi32_pd(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast())))) }
    }
    #[inline(always)] unsafe fn load_u8(from: *const u8) -> Self {
        unsafe { Self(_mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(_mm_loadl_epi64(from.cast())))) }
    }
    #[inline(always)] unsafe fn load_i16(from: *const i16) -> Self {
        unsafe { Self(_mm512_cvtepi32_pd(_mm256_cvtepi16_epi32(_mm_loadu_si128(from.cast())))) }
    }
    #[inline(always)] unsafe fn load_u16(from: *const u16) -> Self {
        unsafe { Self(_mm512_cvtepi32_pd(_mm256_cvtepu16_epi32(_mm_loadu_si128(from.cast())))) }
    }
    #[inline(always)] unsafe fn store_low_8(self, to: *mut u8) {
        unsafe { _mm_storel_epi64(to.cast(), _mm512_cvtepi64_epi8(_mm512_castpd_si512(self.0))) }
    }
    #[inline(always)] unsafe fn store_low_16(self, to: *mut u16) {
        unsafe { _mm_storeu_si128(to.cast(), _mm512_cvtepi64_epi16(_mm512_castpd_si512(self.0))) }
    }
    #[inline(always)] unsafe fn add(self, other: Self) -> Self { unsafe { Self(_mm512_add_pd(self.0, other.0)) } }
    #[inline(always)] unsafe fn sub(self, other: Self) -> Self { unsafe { Self(_mm512_sub_pd(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { unsafe { Self(_mm512_mul_pd(self.0, other.0)) } }
    #[inline(always)] unsafe fn div(self, other: Self) -> Self { unsafe { Self(_mm512_div_pd(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul_add(self, factor: Self, summand: Self) -> Self {
        unsafe { Self(_mm512_fmadd_pd(self.0, factor.0, summand.0)) }
    }
    #[inline(always)] unsafe fn max(self, other: Self) -> Self { unsafe { Self(_mm512_max_pd(self.0, other.0)) } }
    #[inline(always)] unsafe fn min(self, other: Self) -> Self { unsafe { Self(_mm512_min_pd(self.0, other.0)) } }
    #[inline(always)] unsafe fn floor(self) -> Self { unsafe { Self(_mm512_roundscale_pd::<DOWN>(self.0)) } }
    #[inline(always)] unsafe fn ceil(self) -> Self { unsafe { Self(_mm512_roundscale_pd::<UP>(self.0)) } }
    // Rounded up to a float, and that to an integer: together, the difference rounded up to an integer.
    #[inline(always)] unsafe fn ceil_difference(self, other: Self, unit: Self) -> Self {
        unsafe { Self(_mm512_fnmadd_round_pd::<UP>(other.0, unit.0, self.0)).ceil() }
    }
    #[inline(always)] unsafe fn gt(self, other: Self) -> __mmask8 { unsafe { _mm512_cmp_pd_mask::<_CMP_GT_OQ>(self.0, other.0) } }
    #[inline(always)] unsafe fn eq(self, other: Self) -> __mmask8 { unsafe { _mm512_cmp_pd_mask::<_CMP_EQ_OQ>(self.0, other.0) } }
    #[inline(always)] unsafe fn is_nan(self) -> __mmask8 { unsafe { _mm512_cmp_pd_mask::<_CMP_UNORD_Q>(self.0, self.0) } }
    #[inline(always)] unsafe fn select(mask: __mmask8, yes: Self, no: Self) -> Self {
        unsafe { Self(_mm512_mask_blend_pd(mask, no.0, yes.0)) }
    }
    #[inline(always)] unsafe fn or(a: __mmask8, b: __mmask8) -> __mmask8 { a | b }
    #[inline(always)] unsafe fn and(a: __mmask8, b: __mmask8) -> __mmask8 { a & b }
    #[inline(always)] unsafe fn none() -> __mmask8 { 0 }
    #[inline(always)] unsafe fn any(mask: __mmask8) -> bool { mask != 0 }
    #[inline(always)] unsafe fn store_mask(mask: __mmask8, to: *mut u8) {
        unsafe { _mm_storel_epi64(to.cast(), _mm_maskz_set1_epi8(mask.into(), 1)) }
    }
    #[inline(always)] unsafe fn from_words(words: Words8) -> Self { unsafe { Self(_mm512_cvtepi32_pd(words.0)) } }
}

#[rustfmt::skip]
impl Words for Words16 {
    #[inline(always)] unsafe fn count_from(first: u32) -> Self {
        unsafe {
            let count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            Self(_mm512_add_epi32(count, _mm512_set1_epi32(first as i32)))
        }
    }
    #[inline(always)] unsafe fn splat(x: u32) -> Self { unsafe { Self(_mm512_set1_epi32(x as i32)) } }
    #[inline(always)] unsafe fn xor(self, other: Self) -> Self { unsafe { Self(_mm512_xor_si512(self.0, other.0)) } }
    #[inline(always)] unsafe fn mul(self, other: Self) -> Self { unsafe { Self(_mm512_mullo_epi32(self.0, other.0)) } }
    #[inline(always)] unsafe fn shift_right<const N: i32>(self) -> Self {
        unsafe { Self(_mm512_srl_epi32(self.0, _mm_cvtsi32_si128(N))) }
    }
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
