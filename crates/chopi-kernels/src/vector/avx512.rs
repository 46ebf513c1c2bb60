//! AVX-512: F, BW, DQ and VL.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use half::{bf16, f16};

use super::fields::Fields;
use super::{Arch, Bytes, Halves, Mask, Vector, Words, first, first_mut, intrinsics};

/// The instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Avx512(());

impl Avx512 {
    /// The instruction set, without a look at the CPU.
    ///
    /// # Safety
    /// The CPU must have AVX-512 F, BW, DQ and VL, AVX2, FMA and F16C.
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

impl Arch for Avx512 {
    type F32 = F32;
    type F64 = F64;
    type Bytes = Bytes64;
    const SPECIALIZED: bool = true;
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

/// 64 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Bytes64(__m512i);

/// 16 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Mask16(__mmask16);

/// 8 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Mask8(__mmask8);

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;
const DOWN: i32 = _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC;
const UP: i32 = _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC;

impl F32 {
    intrinsics! {
        // The low 8 bits of the lanes of both, in 16 bits each.
        fn low_bytes(self, other: Self) -> __m512i {
            let even = _mm512_set_epi16(
                62, 60, 58, 56, 54, 52, 50, 48, 46, 44, 42, 40, 38, 36, 34, 32,
                30, 28, 26, 24, 22, 20, 18, 16, 14, 12, 10, 8, 6, 4, 2, 0,
            );
            let (low, high) = (_mm512_castps_si512(self.0), _mm512_castps_si512(other.0));
            let words = _mm512_permutex2var_epi16(low, even, high);
            _mm512_and_si512(words, _mm512_set1_epi16(0xff))
        }
    }
}

impl Vector for F32 {
    type Arch = Avx512;
    type Scalar = f32;
    type Mask = Mask16;
    type Words = Words16;
    const LANES: usize = 16;

    #[inline(always)]
    fn arch(self) -> Avx512 {
        Avx512(())
    }

    intrinsics! {
        fn splat(_: Avx512, x: f32) -> Self { Self(_mm512_set1_ps(x)) }
        fn load(_: Avx512, from: &[f32]) -> Self { Self(_mm512_loadu_ps(first::<16, _>(from).as_ptr())) }
        fn load_i8(_: Avx512, from: &[i8]) -> Self {
            let codes = _mm_loadu_si128(first::<16, _>(from).as_ptr().cast());
            Self(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(codes)))
        }
        fn load_u8(_: Avx512, from: &[u8]) -> Self {
            let codes = _mm_loadu_si128(first::<16, _>(from).as_ptr().cast());
            Self(_mm512_cvtepi32_ps(_mm512_cvtepu8_epi32(codes)))
        }
        fn load_i16(_: Avx512, from: &[i16]) -> Self {
            let codes = _mm256_loadu_si256(first::<16, _>(from).as_ptr().cast());
            Self(_mm512_cvtepi32_ps(_mm512_cvtepi16_epi32(codes)))
        }
        fn load_u16(_: Avx512, from: &[u16]) -> Self {
            let codes = _mm256_loadu_si256(first::<16, _>(from).as_ptr().cast());
            Self(_mm512_cvtepi32_ps(_mm512_cvtepu16_epi32(codes)))
        }
        fn store(self, to: &mut [MaybeUninit<f32>]) {
            _mm512_storeu_ps(first_mut::<16, _>(to).as_mut_ptr().cast(), self.0)
        }
        fn store_low_8(self, to: &mut [MaybeUninit<u8>]) {
            let codes = _mm512_cvtepi32_epi8(_mm512_castps_si512(self.0));
            _mm_storeu_si128(first_mut::<16, _>(to).as_mut_ptr().cast(), codes)
        }
        fn store_all_low_8[const N: usize](vectors: [Self; N], to: &mut [MaybeUninit<u8>]) {
            let to = &mut to[..N * Self::LANES];
            let (blocks, rest) = vectors.as_chunks::<4>();
            for (k, &[a, b, c, d]) in blocks.iter().enumerate() {
                // The bytes of two pairs, in turn by the 128 bits that an instruction packs.
                let codes = _mm512_packus_epi16(a.low_bytes(b), c.low_bytes(d));
                let order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
                let codes = _mm512_permutexvar_epi64(order, codes);
                _mm512_storeu_si512(first_mut::<64, _>(&mut to[64 * k..]).as_mut_ptr().cast(), codes);
            }
            for (k, vector) in rest.iter().enumerate() {
                vector.store_low_8(&mut to[64 * blocks.len() + Self::LANES * k..]);
            }
        }
        fn store_low_16(self, to: &mut [MaybeUninit<u16>]) {
            let codes = _mm512_cvtepi32_epi16(_mm512_castps_si512(self.0));
            _mm256_storeu_si256(first_mut::<16, _>(to).as_mut_ptr().cast(), codes)
        }
        fn add(self, other: Self) -> Self { Self(_mm512_add_ps(self.0, other.0)) }
        fn sub(self, other: Self) -> Self { Self(_mm512_sub_ps(self.0, other.0)) }
        fn mul(self, other: Self) -> Self { Self(_mm512_mul_ps(self.0, other.0)) }
        fn div(self, other: Self) -> Self { Self(_mm512_div_ps(self.0, other.0)) }
        fn mul_add(self, factor: Self, summand: Self) -> Self { Self(_mm512_fmadd_ps(self.0, factor.0, summand.0)) }
        fn max(self, other: Self) -> Self { Self(_mm512_max_ps(self.0, other.0)) }
        fn min(self, other: Self) -> Self { Self(_mm512_min_ps(self.0, other.0)) }
        fn floor(self) -> Self { Self(_mm512_roundscale_ps::<DOWN>(self.0)) }
        fn ceil(self) -> Self { Self(_mm512_roundscale_ps::<UP>(self.0)) }
        // Rounded up to a float, and that to an integer: together, the difference rounded up to an
        // integer.
        fn ceil_difference(self, other: Self, unit: Self) -> Self {
            Self(_mm512_fnmadd_round_ps::<UP>(other.0, unit.0, self.0)).ceil()
        }
        fn gt(self, other: Self) -> Mask16 { Mask16(_mm512_cmp_ps_mask::<_CMP_GT_OQ>(self.0, other.0)) }
        fn eq(self, other: Self) -> Mask16 { Mask16(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(self.0, other.0)) }
        fn is_either_nan(self, other: Self) -> Mask16 { Mask16(_mm512_cmp_ps_mask::<_CMP_UNORD_Q>(self.0, other.0)) }
        fn select(mask: Mask16, yes: Self, no: Self) -> Self { Self(_mm512_mask_blend_ps(mask.0, no.0, yes.0)) }
        fn store_mask(mask: Mask16, to: &mut [MaybeUninit<u8>]) {
            _mm_storeu_si128(first_mut::<16, _>(to).as_mut_ptr().cast(), _mm_maskz_set1_epi8(mask.0, 1))
        }
        fn from_words(words: Words16) -> Self { Self(_mm512_cvtepi32_ps(words.0)) }
    }

    #[inline(always)]
    fn none(_: Avx512) -> Mask16 {
        Mask16(0)
    }
}

impl Halves for F32 {
    intrinsics! {
        fn load_f16(_: Avx512, from: &[f16]) -> Self {
            Self(_mm512_cvtph_ps(_mm256_loadu_si256(first::<16, _>(from).as_ptr().cast())))
        }
        fn load_bf16(_: Avx512, from: &[bf16]) -> Self {
            let words = _mm512_cvtepu16_epi32(_mm256_loadu_si256(first::<16, _>(from).as_ptr().cast()));
            Self(_mm512_castsi512_ps(_mm512_slli_epi32::<16>(words)))
        }
        fn store_f16(self, to: &mut [MaybeUninit<f16>]) {
            let halves = _mm512_cvtps_ph::<NEAREST>(self.0);
            _mm256_storeu_si256(first_mut::<16, _>(to).as_mut_ptr().cast(), halves)
        }
        fn store_bf16(self, to: &mut [MaybeUninit<bf16>]) {
            let words = _mm512_srli_epi32::<16>(_mm512_castps_si512(self.round_bf16().0));
            let halves = _mm512_cvtepi32_epi16(words);
            _mm256_storeu_si256(first_mut::<16, _>(to).as_mut_ptr().cast(), halves)
        }
        fn round_f16(self) -> Self { Self(_mm512_cvtph_ps(_mm512_cvtps_ph::<NEAREST>(self.0))) }
        fn round_bf16(self) -> Self {
            // Half of the last place that is kept, and one more where that place is odd.
            let bits = _mm512_castps_si512(self.0);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let sum = _mm512_add_epi32(bits, _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff)));
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x0040_0000));
            let sum = _mm512_mask_mov_epi32(sum, self.is_nan().0, quiet);
            let kept = _mm512_set1_epi32(0xffff_0000_u32 as i32);
            Self(_mm512_castsi512_ps(_mm512_and_si512(sum, kept)))
        }
    }
}

impl Vector for F64 {
    type Arch = Avx512;
    type Scalar = f64;
    type Mask = Mask8;
    type Words = Words8;
    const LANES: usize = 8;

    #[inline(always)]
    fn arch(self) -> Avx512 {
        Avx512(())
    }

    intrinsics! {
        fn splat(_: Avx512, x: f64) -> Self { Self(_mm512_set1_pd(x)) }
        fn load(_: Avx512, from: &[f64]) -> Self { Self(_mm512_loadu_pd(first::<8, _>(from).as_ptr())) }
        fn load_i8(_: Avx512, from: &[i8]) -> Self {
            let codes = _mm_loadl_epi64(first::<8, _>(from).as_ptr().cast());
            Self(_mm512_cvtepi32_pd(_mm256_cvtepi8_epi32(codes)))
        }
        fn load_u8(_: Avx512, from: &[u8]) -> Self {
            let codes = _mm_loadl_epi64(first::<8, _>(from).as_ptr().cast());
            Self(_mm512_cvtepi32_pd(_mm256_cvtepu8_epi32(codes)))
        }
        fn load_i16(_: Avx512, from: &[i16]) -> Self {
            let codes = _mm_loadu_si128(first::<8, _>(from).as_ptr().cast());
            Self(_mm512_cvtepi32_pd(_mm256_cvtepi16_epi32(codes)))
        }
        fn load_u16(_: Avx512, from: &[u16]) -> Self {
            let codes = _mm_loadu_si128(first::<8, _>(from).as_ptr().cast());
            Self(_mm512_cvtepi32_pd(_mm256_cvtepu16_epi32(codes)))
        }
        fn store(self, to: &mut [MaybeUninit<f64>]) {
            _mm512_storeu_pd(first_mut::<8, _>(to).as_mut_ptr().cast(), self.0)
        }
        fn store_low_8(self, to: &mut [MaybeUninit<u8>]) {
            let codes = _mm512_cvtepi64_epi8(_mm512_castpd_si512(self.0));
            _mm_storel_epi64(first_mut::<8, _>(to).as_mut_ptr().cast(), codes)
        }
        fn store_low_16(self, to: &mut [MaybeUninit<u16>]) {
            let codes = _mm512_cvtepi64_epi16(_mm512_castpd_si512(self.0));
            _mm_storeu_si128(first_mut::<8, _>(to).as_mut_ptr().cast(), codes)
        }
        fn add(self, other: Self) -> Self { Self(_mm512_add_pd(self.0, other.0)) }
        fn sub(self, other: Self) -> Self { Self(_mm512_sub_pd(self.0, other.0)) }
        fn mul(self, other: Self) -> Self { Self(_mm512_mul_pd(self.0, other.0)) }
        fn div(self, other: Self) -> Self { Self(_mm512_div_pd(self.0, other.0)) }
        fn mul_add(self, factor: Self, summand: Self) -> Self { Self(_mm512_fmadd_pd(self.0, factor.0, summand.0)) }
        fn max(self, other: Self) -> Self { Self(_mm512_max_pd(self.0, other.0)) }
        fn min(self, other: Self) -> Self { Self(_mm512_min_pd(self.0, other.0)) }
        fn floor(self) -> Self { Self(_mm512_roundscale_pd::<DOWN>(self.0)) }
        fn ceil(self) -> Self { Self(_mm512_roundscale_pd::<UP>(self.0)) }
        // Rounded up to a float, and that to an integer: together, the difference rounded up to an
        // integer.
        fn ceil_difference(self, other: Self, unit: Self) -> Self {
            Self(_mm512_fnmadd_round_pd::<UP>(other.0, unit.0, self.0)).ceil()
        }
        fn gt(self, other: Self) -> Mask8 { Mask8(_mm512_cmp_pd_mask::<_CMP_GT_OQ>(self.0, other.0)) }
        fn eq(self, other: Self) -> Mask8 { Mask8(_mm512_cmp_pd_mask::<_CMP_EQ_OQ>(self.0, other.0)) }
        fn is_either_nan(self, other: Self) -> Mask8 { Mask8(_mm512_cmp_pd_mask::<_CMP_UNORD_Q>(self.0, other.0)) }
        fn select(mask: Mask8, yes: Self, no: Self) -> Self { Self(_mm512_mask_blend_pd(mask.0, no.0, yes.0)) }
        fn store_mask(mask: Mask8, to: &mut [MaybeUninit<u8>]) {
            let ones = _mm_maskz_set1_epi8(mask.0.into(), 1);
            _mm_storel_epi64(first_mut::<8, _>(to).as_mut_ptr().cast(), ones)
        }
        fn from_words(words: Words8) -> Self { Self(_mm512_cvtepi32_pd(words.0)) }
    }

    #[inline(always)]
    fn none(_: Avx512) -> Mask8 {
        Mask8(0)
    }
}

impl Mask for Mask16 {
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    #[inline(always)]
    fn any(self) -> bool {
        self.0 != 0
    }
}

impl Mask for Mask8 {
    #[inline(always)]
    fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
    #[inline(always)]
    fn any(self) -> bool {
        self.0 != 0
    }
}

impl Words for Words16 {
    type Arch = Avx512;

    intrinsics! {
        fn count_from(_: Avx512, first: u32) -> Self {
            let count = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
            Self(_mm512_add_epi32(count, _mm512_set1_epi32(first as i32)))
        }
        fn splat(_: Avx512, x: u32) -> Self { Self(_mm512_set1_epi32(x as i32)) }
        fn xor(self, other: Self) -> Self { Self(_mm512_xor_si512(self.0, other.0)) }
        fn mul(self, other: Self) -> Self { Self(_mm512_mullo_epi32(self.0, other.0)) }
        fn shift_right[const N: i32](self) -> Self { Self(_mm512_srl_epi32(self.0, _mm_cvtsi32_si128(N))) }
    }
}

impl Words for Words8 {
    type Arch = Avx512;

    intrinsics! {
        fn count_from(_: Avx512, first: u32) -> Self {
            let count = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            Self(_mm256_add_epi32(count, _mm256_set1_epi32(first as i32)))
        }
        fn splat(_: Avx512, x: u32) -> Self { Self(_mm256_set1_epi32(x as i32)) }
        fn xor(self, other: Self) -> Self { Self(_mm256_xor_si256(self.0, other.0)) }
        fn mul(self, other: Self) -> Self { Self(_mm256_mullo_epi32(self.0, other.0)) }
        fn shift_right[const N: i32](self) -> Self { Self(_mm256_srl_epi32(self.0, _mm_cvtsi32_si128(N))) }
    }
}

impl Bytes64 {
    #[inline(always)]
    fn arch(self) -> Avx512 {
        Avx512(())
    }

    intrinsics! {
        // A table of bytes, four times.
        fn bytes(_: Avx512, table: &[u8; 16]) -> __m512i {
            _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()))
        }
        // A table of 16-bit words, four times.
        fn words(_: Avx512, table: &[u16; 8]) -> __m512i {
            _mm512_broadcast_i32x4(_mm_loadu_si128(table.as_ptr().cast()))
        }
    }
}

impl Bytes for Bytes64 {
    type Arch = Avx512;
    const LANES: usize = 64;

    intrinsics! {
        fn splat(_: Avx512, x: u8) -> Self { Self(_mm512_set1_epi8(x as i8)) }
        fn load(_: Avx512, from: &[u8]) -> Self { Self(_mm512_loadu_si512(first::<64, _>(from).as_ptr().cast())) }
        fn store(self, to: &mut [MaybeUninit<u8>]) {
            _mm512_storeu_si512(first_mut::<64, _>(to).as_mut_ptr().cast(), self.0)
        }
        fn add(self, other: Self) -> Self { Self(_mm512_add_epi8(self.0, other.0)) }
        fn sub(self, other: Self) -> Self { Self(_mm512_sub_epi8(self.0, other.0)) }
        fn and(self, other: Self) -> Self { Self(_mm512_and_si512(self.0, other.0)) }
        fn or(self, other: Self) -> Self { Self(_mm512_or_si512(self.0, other.0)) }
        fn xor(self, other: Self) -> Self { Self(_mm512_xor_si512(self.0, other.0)) }
        fn any(self) -> bool { _mm512_test_epi8_mask(self.0, self.0) != 0 }
        fn load_fields[const B: usize](arch: Avx512, from: &[u8]) -> Self {
            if B == 8 {
                return Self::load(arch, from);
            }
            if B == 4 {
                let both = _mm512_cvtepu8_epi16(_mm256_loadu_si256(first::<32, _>(from).as_ptr().cast()));
                let apart = _mm512_or_si512(both, _mm512_slli_epi16::<4>(both));
                return Self(_mm512_and_si512(apart, _mm512_set1_epi8(0x0f)));
            }
            let apart = _mm512_loadu_si512(Fields::<B>::APART.as_ptr().cast());
            let lanes = _mm512_permutexvar_epi16(apart, Self::load(arch, from).0);
            let even = _mm512_shuffle_epi8(lanes, Self::bytes(arch, &Fields::<B>::EVEN));
            let odd = _mm512_shuffle_epi8(lanes, Self::bytes(arch, &Fields::<B>::ODD));
            let even = _mm512_mullo_epi16(even, Self::words(arch, &Fields::<B>::EVEN_UP));
            let odd = _mm512_mullo_epi16(odd, Self::words(arch, &Fields::<B>::ODD_UP));
            let low = _mm512_mask_blend_epi8(0xaaaa_aaaa_aaaa_aaaa, _mm512_srli_epi16::<8>(even), odd);
            Self(_mm512_and_si512(low, _mm512_set1_epi8((u8::MAX >> (8 - B)) as i8)))
        }
        fn store_fields[const B: usize](self, to: &mut [MaybeUninit<u8>]) {
            if B == 8 {
                return self.store(to);
            }
            let mut joined = _mm512_maddubs_epi16(Self::bytes(self.arch(), &Fields::<B>::OF_TWO), self.0);
            if Fields::<B>::JOINED > 2 {
                joined = _mm512_madd_epi16(joined, Self::words(self.arch(), &Fields::<B>::OF_PAIRS));
            }
            if Fields::<B>::JOINED > 4 {
                // The lower four go to the upper end of their half, and all down again.
                let unused = 32 - 4 * B as i64;
                joined = _mm512_sllv_epi32(joined, _mm512_set1_epi64(unused));
                joined = _mm512_srl_epi64(joined, _mm_cvtsi64_si128(unused));
            }
            let dense = _mm512_shuffle_epi8(joined, Self::bytes(self.arch(), &Fields::<B>::DENSE));
            let together = _mm512_loadu_si512(Fields::<B>::TOGETHER.as_ptr().cast());
            let packed = _mm512_permutexvar_epi16(together, dense);
            let to = first_mut::<64, _>(to).as_mut_ptr();
            match B {
                1..=4 => _mm256_storeu_si256(to.cast(), _mm512_castsi512_si256(packed)),
                _ => _mm512_storeu_si512(to.cast(), packed),
            }
        }
    }
}

impl crate::sealed::Sealed for Avx512 {}
impl crate::sealed::Sealed for F32 {}
impl crate::sealed::Sealed for F64 {}
impl crate::sealed::Sealed for Mask16 {}
impl crate::sealed::Sealed for Mask8 {}
impl crate::sealed::Sealed for Words16 {}
impl crate::sealed::Sealed for Words8 {}
impl crate::sealed::Sealed for Bytes64 {}
