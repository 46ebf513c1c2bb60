//! AVX2, FMA and F16C.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use half::{bf16, f16};

use super::fields::Fields;
use super::{Arch, Bytes, Halves, Mask, Vector, Words, first, first_mut, intrinsics};

/// The instruction set.
#[derive(Clone, Copy, Debug)]
pub struct Avx2(());

impl Avx2 {
    /// The instruction set, without a look at the CPU.
    ///
    /// # Safety
    /// The CPU must have AVX2, FMA and F16C.
    pub(crate) unsafe fn assume() -> Self {
        Self(())
    }
}

impl Arch for Avx2 {
    type F32 = F32;
    type F64 = F64;
    type Bytes = Bytes32;
    const SPECIALIZED: bool = true;
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

/// 32 lanes.
#[derive(Clone, Copy, Debug)]
pub struct Bytes32(__m256i);

/// 8 lanes, of all ones or all zeros.
#[derive(Clone, Copy, Debug)]
pub struct Mask8(__m256);

/// 4 lanes, of all ones or all zeros.
#[derive(Clone, Copy, Debug)]
pub struct Mask4(__m256d);

const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT;

impl F32 {
    intrinsics! {
        // The low 16 bits of the lanes.
        fn low_halves(self) -> __m128i {
            let low = _mm256_and_si256(_mm256_castps_si256(self.0), _mm256_set1_epi32(0xffff));
            _mm_packus_epi32(_mm256_castsi256_si128(low), _mm256_extracti128_si256::<1>(low))
        }
        // The lanes with the highest bit alone, as the lowest.
        fn high_bit(self) -> Self {
            Self(_mm256_castsi256_ps(_mm256_srli_epi32::<31>(_mm256_castps_si256(self.0))))
        }
        // The lanes with the low 8 bits alone.
        fn low_byte(self) -> __m256i {
            _mm256_and_si256(_mm256_castps_si256(self.0), _mm256_set1_epi32(0xff))
        }
    }
}

impl F64 {
    intrinsics! {
        // The low 32 bits of the lanes.
        fn low_words(self) -> __m128i {
            let order = _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6);
            _mm256_castsi256_si128(_mm256_permutevar8x32_epi32(_mm256_castpd_si256(self.0), order))
        }
    }
}

impl Vector for F32 {
    type Arch = Avx2;
    type Scalar = f32;
    type Mask = Mask8;
    type Words = Words8;
    const LANES: usize = 8;

    #[inline(always)]
    fn arch(self) -> Avx2 {
        Avx2(())
    }

    intrinsics! {
        fn splat(_: Avx2, x: f32) -> Self { Self(_mm256_set1_ps(x)) }
        fn load(_: Avx2, from: &[f32]) -> Self { Self(_mm256_loadu_ps(first::<8, _>(from).as_ptr())) }
        fn load_i8(_: Avx2, from: &[i8]) -> Self {
            let codes = _mm_loadl_epi64(first::<8, _>(from).as_ptr().cast());
            Self(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(codes)))
        }
        fn load_u8(_: Avx2, from: &[u8]) -> Self {
            let codes = _mm_loadl_epi64(first::<8, _>(from).as_ptr().cast());
            Self(_mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(codes)))
        }
        fn load_i16(_: Avx2, from: &[i16]) -> Self {
            let codes = _mm_loadu_si128(first::<8, _>(from).as_ptr().cast());
            Self(_mm256_cvtepi32_ps(_mm256_cvtepi16_epi32(codes)))
        }
        fn load_u16(_: Avx2, from: &[u16]) -> Self {
            let codes = _mm_loadu_si128(first::<8, _>(from).as_ptr().cast());
            Self(_mm256_cvtepi32_ps(_mm256_cvtepu16_epi32(codes)))
        }
        fn store(self, to: &mut [MaybeUninit<f32>]) {
            _mm256_storeu_ps(first_mut::<8, _>(to).as_mut_ptr().cast(), self.0)
        }
        fn store_low_8(self, to: &mut [MaybeUninit<u8>]) {
            let bytes = self.low_byte();
            let halves = _mm_packus_epi32(_mm256_castsi256_si128(bytes), _mm256_extracti128_si256::<1>(bytes));
            _mm_storel_epi64(first_mut::<8, _>(to).as_mut_ptr().cast(), _mm_packus_epi16(halves, halves))
        }
        fn store_all_low_8[const N: usize](vectors: [Self; N], to: &mut [MaybeUninit<u8>]) {
            if N != 4 {
                for (k, vector) in vectors.into_iter().enumerate() {
                    vector.store_low_8(&mut to[k * Self::LANES..]);
                }
                return;
            }
            let [a, b, c, d] = [vectors[0], vectors[1 % N], vectors[2 % N], vectors[3 % N]];
            // Both halves of a vector are packed apart, which leaves groups of 4 to be put in order.
            let (low, high) = (
                _mm256_packus_epi32(a.low_byte(), b.low_byte()),
                _mm256_packus_epi32(c.low_byte(), d.low_byte()),
            );
            let order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
            let codes = _mm256_permutevar8x32_epi32(_mm256_packus_epi16(low, high), order);
            _mm256_storeu_si256(first_mut::<32, _>(to).as_mut_ptr().cast(), codes)
        }
        fn store_low_16(self, to: &mut [MaybeUninit<u16>]) {
            _mm_storeu_si128(first_mut::<8, _>(to).as_mut_ptr().cast(), self.low_halves())
        }
        fn add(self, other: Self) -> Self { Self(_mm256_add_ps(self.0, other.0)) }
        fn sub(self, other: Self) -> Self { Self(_mm256_sub_ps(self.0, other.0)) }
        fn mul(self, other: Self) -> Self { Self(_mm256_mul_ps(self.0, other.0)) }
        fn div(self, other: Self) -> Self { Self(_mm256_div_ps(self.0, other.0)) }
        fn mul_add(self, factor: Self, summand: Self) -> Self { Self(_mm256_fmadd_ps(self.0, factor.0, summand.0)) }
        fn max(self, other: Self) -> Self { Self(_mm256_max_ps(self.0, other.0)) }
        fn min(self, other: Self) -> Self { Self(_mm256_min_ps(self.0, other.0)) }
        fn floor(self) -> Self { Self(_mm256_floor_ps(self.0)) }
        fn ceil(self) -> Self { Self(_mm256_ceil_ps(self.0)) }
        fn gt(self, other: Self) -> Mask8 { Mask8(_mm256_cmp_ps::<_CMP_GT_OQ>(self.0, other.0)) }
        fn eq(self, other: Self) -> Mask8 { Mask8(_mm256_cmp_ps::<_CMP_EQ_OQ>(self.0, other.0)) }
        fn is_either_nan(self, other: Self) -> Mask8 { Mask8(_mm256_cmp_ps::<_CMP_UNORD_Q>(self.0, other.0)) }
        fn none(_: Avx2) -> Mask8 { Mask8(_mm256_setzero_ps()) }
        fn select(mask: Mask8, yes: Self, no: Self) -> Self { Self(_mm256_blendv_ps(no.0, yes.0, mask.0)) }
        fn from_words(words: Words8) -> Self { Self(_mm256_cvtepi32_ps(words.0)) }
    }

    #[inline(always)]
    fn store_mask(mask: Mask8, to: &mut [MaybeUninit<u8>]) {
        Self(mask.0).high_bit().store_low_8(to);
    }
    #[inline(always)]
    fn store_all_masks<const N: usize>(masks: [Mask8; N], to: &mut [MaybeUninit<u8>]) {
        let mut ones = [Self::splat(Avx2(()), 0.0); N];
        for (ones, mask) in ones.iter_mut().zip(masks) {
            *ones = Self(mask.0).high_bit();
        }
        Self::store_all_low_8(ones, to);
    }
}

impl Halves for F32 {
    intrinsics! {
        fn load_f16(_: Avx2, from: &[f16]) -> Self {
            Self(_mm256_cvtph_ps(_mm_loadu_si128(first::<8, _>(from).as_ptr().cast())))
        }
        fn load_bf16(_: Avx2, from: &[bf16]) -> Self {
            let words = _mm256_cvtepu16_epi32(_mm_loadu_si128(first::<8, _>(from).as_ptr().cast()));
            Self(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(words)))
        }
        fn store_f16(self, to: &mut [MaybeUninit<f16>]) {
            let halves = _mm256_cvtps_ph::<NEAREST>(self.0);
            _mm_storeu_si128(first_mut::<8, _>(to).as_mut_ptr().cast(), halves)
        }
        fn store_bf16(self, to: &mut [MaybeUninit<bf16>]) {
            let words = _mm256_srli_epi32::<16>(_mm256_castps_si256(self.round_bf16().0));
            let halves = Self(_mm256_castsi256_ps(words)).low_halves();
            _mm_storeu_si128(first_mut::<8, _>(to).as_mut_ptr().cast(), halves)
        }
        fn round_f16(self) -> Self { Self(_mm256_cvtph_ps(_mm256_cvtps_ph::<NEAREST>(self.0))) }
        fn round_bf16(self) -> Self {
            // Half of the last place that is kept, and one more where that place is odd.
            let bits = _mm256_castps_si256(self.0);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let sum = _mm256_add_epi32(bits, _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff)));
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x0040_0000));
            let sum = _mm256_blendv_epi8(sum, quiet, _mm256_castps_si256(self.is_nan().0));
            let kept = _mm256_set1_epi32(0xffff_0000_u32 as i32);
            Self(_mm256_castsi256_ps(_mm256_and_si256(sum, kept)))
        }
    }
}

impl Vector for F64 {
    type Arch = Avx2;
    type Scalar = f64;
    type Mask = Mask4;
    type Words = Words4;
    const LANES: usize = 4;

    #[inline(always)]
    fn arch(self) -> Avx2 {
        Avx2(())
    }

    intrinsics! {
        fn splat(_: Avx2, x: f64) -> Self { Self(_mm256_set1_pd(x)) }
        fn load(_: Avx2, from: &[f64]) -> Self { Self(_mm256_loadu_pd(first::<4, _>(from).as_ptr())) }
        fn load_i8(_: Avx2, from: &[i8]) -> Self {
            let codes = i32::from_le_bytes(first::<4, _>(from).map(|code| code as u8));
            Self(_mm256_cvtepi32_pd(_mm_cvtepi8_epi32(_mm_cvtsi32_si128(codes))))
        }
        fn load_u8(_: Avx2, from: &[u8]) -> Self {
            let codes = i32::from_le_bytes(*first::<4, _>(from));
            Self(_mm256_cvtepi32_pd(_mm_cvtepu8_epi32(_mm_cvtsi32_si128(codes))))
        }
        fn load_i16(_: Avx2, from: &[i16]) -> Self {
            let codes = _mm_loadl_epi64(first::<4, _>(from).as_ptr().cast());
            Self(_mm256_cvtepi32_pd(_mm_cvtepi16_epi32(codes)))
        }
        fn load_u16(_: Avx2, from: &[u16]) -> Self {
            let codes = _mm_loadl_epi64(first::<4, _>(from).as_ptr().cast());
            Self(_mm256_cvtepi32_pd(_mm_cvtepu16_epi32(codes)))
        }
        fn store(self, to: &mut [MaybeUninit<f64>]) {
            _mm256_storeu_pd(first_mut::<4, _>(to).as_mut_ptr().cast(), self.0)
        }
        fn store_low_8(self, to: &mut [MaybeUninit<u8>]) {
            let order = _mm_setr_epi8(0, 4, 8, 12, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0);
            let codes = _mm_cvtsi128_si32(_mm_shuffle_epi8(self.low_words(), order));
            *first_mut::<4, _>(to) = codes.to_le_bytes().map(MaybeUninit::new);
        }
        fn store_low_16(self, to: &mut [MaybeUninit<u16>]) {
            let low = _mm_and_si128(self.low_words(), _mm_set1_epi32(0xffff));
            _mm_storel_epi64(first_mut::<4, _>(to).as_mut_ptr().cast(), _mm_packus_epi32(low, low))
        }
        fn add(self, other: Self) -> Self { Self(_mm256_add_pd(self.0, other.0)) }
        fn sub(self, other: Self) -> Self { Self(_mm256_sub_pd(self.0, other.0)) }
        fn mul(self, other: Self) -> Self { Self(_mm256_mul_pd(self.0, other.0)) }
        fn div(self, other: Self) -> Self { Self(_mm256_div_pd(self.0, other.0)) }
        fn mul_add(self, factor: Self, summand: Self) -> Self { Self(_mm256_fmadd_pd(self.0, factor.0, summand.0)) }
        fn max(self, other: Self) -> Self { Self(_mm256_max_pd(self.0, other.0)) }
        fn min(self, other: Self) -> Self { Self(_mm256_min_pd(self.0, other.0)) }
        fn floor(self) -> Self { Self(_mm256_floor_pd(self.0)) }
        fn ceil(self) -> Self { Self(_mm256_ceil_pd(self.0)) }
        fn gt(self, other: Self) -> Mask4 { Mask4(_mm256_cmp_pd::<_CMP_GT_OQ>(self.0, other.0)) }
        fn eq(self, other: Self) -> Mask4 { Mask4(_mm256_cmp_pd::<_CMP_EQ_OQ>(self.0, other.0)) }
        fn is_either_nan(self, other: Self) -> Mask4 { Mask4(_mm256_cmp_pd::<_CMP_UNORD_Q>(self.0, other.0)) }
        fn none(_: Avx2) -> Mask4 { Mask4(_mm256_setzero_pd()) }
        fn select(mask: Mask4, yes: Self, no: Self) -> Self { Self(_mm256_blendv_pd(no.0, yes.0, mask.0)) }
        fn store_mask(mask: Mask4, to: &mut [MaybeUninit<u8>]) {
            let ones = _mm256_srli_epi64::<63>(_mm256_castpd_si256(mask.0));
            Self(_mm256_castsi256_pd(ones)).store_low_8(to)
        }
        fn from_words(words: Words4) -> Self { Self(_mm256_cvtepi32_pd(words.0)) }
    }
}

impl Mask for Mask8 {
    intrinsics! {
        fn or(self, other: Self) -> Self { Self(_mm256_or_ps(self.0, other.0)) }
        fn any(self) -> bool { _mm256_movemask_ps(self.0) != 0 }
    }
}

impl Mask for Mask4 {
    intrinsics! {
        fn or(self, other: Self) -> Self { Self(_mm256_or_pd(self.0, other.0)) }
        fn any(self) -> bool { _mm256_movemask_pd(self.0) != 0 }
    }
}

impl Words for Words8 {
    type Arch = Avx2;

    intrinsics! {
        fn count_from(_: Avx2, first: u32) -> Self {
            let count = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
            Self(_mm256_add_epi32(count, _mm256_set1_epi32(first as i32)))
        }
        fn splat(_: Avx2, x: u32) -> Self { Self(_mm256_set1_epi32(x as i32)) }
        fn xor(self, other: Self) -> Self { Self(_mm256_xor_si256(self.0, other.0)) }
        fn mul(self, other: Self) -> Self { Self(_mm256_mullo_epi32(self.0, other.0)) }
        fn shift_right[const N: i32](self) -> Self { Self(_mm256_srl_epi32(self.0, _mm_cvtsi32_si128(N))) }
    }
}

impl Words for Words4 {
    type Arch = Avx2;

    intrinsics! {
        fn count_from(_: Avx2, first: u32) -> Self {
            Self(_mm_add_epi32(_mm_setr_epi32(0, 1, 2, 3), _mm_set1_epi32(first as i32)))
        }
        fn splat(_: Avx2, x: u32) -> Self { Self(_mm_set1_epi32(x as i32)) }
        fn xor(self, other: Self) -> Self { Self(_mm_xor_si128(self.0, other.0)) }
        fn mul(self, other: Self) -> Self { Self(_mm_mullo_epi32(self.0, other.0)) }
        fn shift_right[const N: i32](self) -> Self { Self(_mm_srl_epi32(self.0, _mm_cvtsi32_si128(N))) }
    }
}

impl Bytes32 {
    #[inline(always)]
    fn arch(self) -> Avx2 {
        Avx2(())
    }

    intrinsics! {
        // A table of bytes, twice.
        fn bytes(_: Avx2, table: &[u8; 16]) -> __m256i {
            _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()))
        }
        // A table of 16-bit words, twice.
        fn words(_: Avx2, table: &[u16; 8]) -> __m256i {
            _mm256_broadcastsi128_si256(_mm_loadu_si128(table.as_ptr().cast()))
        }
    }
}

impl Bytes for Bytes32 {
    type Arch = Avx2;
    const LANES: usize = 32;

    intrinsics! {
        fn splat(_: Avx2, x: u8) -> Self { Self(_mm256_set1_epi8(x as i8)) }
        fn load(_: Avx2, from: &[u8]) -> Self { Self(_mm256_loadu_si256(first::<32, _>(from).as_ptr().cast())) }
        fn store(self, to: &mut [MaybeUninit<u8>]) {
            _mm256_storeu_si256(first_mut::<32, _>(to).as_mut_ptr().cast(), self.0)
        }
        fn add(self, other: Self) -> Self { Self(_mm256_add_epi8(self.0, other.0)) }
        fn sub(self, other: Self) -> Self { Self(_mm256_sub_epi8(self.0, other.0)) }
        fn and(self, other: Self) -> Self { Self(_mm256_and_si256(self.0, other.0)) }
        fn or(self, other: Self) -> Self { Self(_mm256_or_si256(self.0, other.0)) }
        fn xor(self, other: Self) -> Self { Self(_mm256_xor_si256(self.0, other.0)) }
        fn any(self) -> bool { _mm256_testz_si256(self.0, self.0) == 0 }
        fn load_fields[const B: usize](arch: Avx2, from: &[u8]) -> Self {
            if B == 8 {
                return Self::load(arch, from);
            }
            let low = _mm_loadu_si128(first::<16, _>(from).as_ptr().cast());
            if B == 4 {
                let both = _mm256_cvtepu8_epi16(low);
                let apart = _mm256_or_si256(both, _mm256_slli_epi16::<4>(both));
                return Self(_mm256_and_si256(apart, _mm256_set1_epi8(0x0f)));
            }
            let high = _mm_loadu_si128(first::<16, _>(&from[2 * B..]).as_ptr().cast());
            let halves = _mm256_set_m128i(high, low);
            let even = _mm256_shuffle_epi8(halves, Self::bytes(arch, &Fields::<B>::EVEN));
            let odd = _mm256_shuffle_epi8(halves, Self::bytes(arch, &Fields::<B>::ODD));
            let even = _mm256_mullo_epi16(even, Self::words(arch, &Fields::<B>::EVEN_UP));
            let odd = _mm256_mullo_epi16(odd, Self::words(arch, &Fields::<B>::ODD_UP));
            let upper = _mm256_set1_epi16(0xff00_u16 as i16);
            let both = _mm256_or_si256(_mm256_srli_epi16::<8>(even), _mm256_and_si256(odd, upper));
            Self(_mm256_and_si256(both, _mm256_set1_epi8((u8::MAX >> (8 - B)) as i8)))
        }
        fn store_fields[const B: usize](self, to: &mut [MaybeUninit<u8>]) {
            if B == 8 {
                return self.store(to);
            }
            let mut joined = _mm256_maddubs_epi16(Self::bytes(self.arch(), &Fields::<B>::OF_TWO), self.0);
            if Fields::<B>::JOINED > 2 {
                joined = _mm256_madd_epi16(joined, Self::words(self.arch(), &Fields::<B>::OF_PAIRS));
            }
            if Fields::<B>::JOINED > 4 {
                // The lower four go to the upper end of their half, and all down again.
                let unused = 32 - 4 * B as i64;
                joined = _mm256_sllv_epi32(joined, _mm256_set1_epi64x(unused));
                joined = _mm256_srl_epi64(joined, _mm_cvtsi64_si128(unused));
            }
            let dense = _mm256_shuffle_epi8(joined, Self::bytes(self.arch(), &Fields::<B>::DENSE));
            let (low, high) = (_mm256_castsi256_si128(dense), _mm256_extracti128_si256::<1>(dense));
            _mm_storeu_si128(first_mut::<16, _>(to).as_mut_ptr().cast(), low);
            _mm_storeu_si128(first_mut::<16, _>(&mut to[2 * B..]).as_mut_ptr().cast(), high)
        }
    }
}

impl crate::sealed::Sealed for Avx2 {}
impl crate::sealed::Sealed for F32 {}
impl crate::sealed::Sealed for F64 {}
impl crate::sealed::Sealed for Mask8 {}
impl crate::sealed::Sealed for Mask4 {}
impl crate::sealed::Sealed for Words8 {}
impl crate::sealed::Sealed for Words4 {}
impl crate::sealed::Sealed for Bytes32 {}
