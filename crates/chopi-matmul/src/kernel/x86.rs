//! AVX-512 and AVX2, with VNNI and without.

use std::arch::x86_64::*;

use super::{Arch, Kernel, PANEL, QUAD_BYTES, Sums, tiles};

macro_rules! run {
    ($name:ident, $features:literal, $arch:ty) => {
        #[target_feature(enable = $features)]
        pub(super) fn $name<K: Kernel>(kernel: K) {
            // SAFETY: the features of the instruction set are enabled here.
            unsafe { kernel.run::<$arch>() }
        }
    };
}
run!(
    run_avx512_vnni,
    "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma",
    Avx512Vnni
);
run!(
    run_avx512,
    "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma",
    Avx512
);
run!(run_avx_vnni, "avxvnni,avx2,fma", AvxVnni);
run!(run_avx2, "avx2,fma", Avx2);

/// The four depths of one row.
///
/// # Safety
/// `from` is good for 4 bytes.
#[inline(always)]
unsafe fn four(from: *const u8) -> i32 {
    // SAFETY: the caller's.
    unsafe { from.cast::<i32>().read_unaligned() }
}

#[derive(Debug)]
pub(super) struct Avx512Vnni;

impl Arch for Avx512Vnni {
    type Sums = __m512i;
    type Left = __m512i;
    type Right = __m512i;

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the caller's, as in all functions of this file.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn left(from: *const u8) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_set1_epi32(four(from)) }
    }

    #[inline(always)]
    unsafe fn right(from: *const i8) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn low_nibbles(from: *const i8) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_and_si512(_mm512_loadu_si512(from.cast()), _mm512_set1_epi8(15)) }
    }

    #[inline(always)]
    unsafe fn high_nibbles(from: *const i8) -> __m512i {
        // SAFETY: the caller's.
        unsafe {
            let both = _mm512_loadu_si512(from.cast());
            _mm512_and_si512(_mm512_srli_epi16::<4>(both), _mm512_set1_epi8(15))
        }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m512i, left: __m512i, right: __m512i) -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_dpbusd_epi32(sums, left, right) }
    }

    #[inline(always)]
    unsafe fn store(sums: __m512i, to: &mut Sums) {
        // SAFETY: the caller's; `to` is 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), sums) }
    }
}

tiles!(Avx512Vnni: 12 rows,
    1 => 8, 2 => 8, 3 => 8, 4 => 4, 5 => 4, 6 => 4, 7 => 2, 8 => 2, 9 => 2, 10 => 2, 11 => 2, 12 => 2);

/// The even bytes and the odd ones, as i16.
#[derive(Debug)]
pub(super) struct Avx512;

impl Arch for Avx512 {
    type Sums = __m512i;
    type Left = [__m512i; 2];
    type Right = [__m512i; 2];

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: the caller's.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn left(from: *const u8) -> [__m512i; 2] {
        // SAFETY: the caller's.
        unsafe {
            let quad = _mm512_set1_epi32(four(from));
            let even = _mm512_and_si512(quad, _mm512_set1_epi16(255));
            [even, _mm512_srli_epi16::<8>(quad)]
        }
    }

    #[inline(always)]
    unsafe fn right(from: *const i8) -> [__m512i; 2] {
        // SAFETY: the caller's.
        unsafe {
            let quad = _mm512_loadu_si512(from.cast());
            let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(quad));
            [even, _mm512_srai_epi16::<8>(quad)]
        }
    }

    #[inline(always)]
    unsafe fn low_nibbles(from: *const i8) -> [__m512i; 2] {
        // SAFETY: the caller's.
        unsafe {
            let low = Avx512Vnni::low_nibbles(from);
            [
                _mm512_and_si512(low, _mm512_set1_epi16(255)),
                _mm512_srli_epi16::<8>(low),
            ]
        }
    }

    #[inline(always)]
    unsafe fn high_nibbles(from: *const i8) -> [__m512i; 2] {
        // SAFETY: the caller's.
        unsafe {
            let high = Avx512Vnni::high_nibbles(from);
            [
                _mm512_and_si512(high, _mm512_set1_epi16(255)),
                _mm512_srli_epi16::<8>(high),
            ]
        }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m512i, left: [__m512i; 2], right: [__m512i; 2]) -> __m512i {
        // SAFETY: the caller's.
        unsafe {
            let even = _mm512_madd_epi16(left[0], right[0]);
            let odd = _mm512_madd_epi16(left[1], right[1]);
            _mm512_add_epi32(sums, _mm512_add_epi32(even, odd))
        }
    }

    #[inline(always)]
    unsafe fn store(sums: __m512i, to: &mut Sums) {
        // SAFETY: the caller's; `to` is 64 bytes.
        unsafe { _mm512_storeu_si512(to.as_mut_ptr().cast(), sums) }
    }
}

tiles!(Avx512: 8 rows, 1 => 4, 2 => 4, 3 => 2, 4 => 2, 5 => 2, 6 => 2, 7 => 2, 8 => 2);

/// Half a panel in a register: the two halves of what `from` points to.
///
/// # Safety
/// `from` is good for 64 bytes, the CPU has AVX2.
#[inline(always)]
unsafe fn halves(from: *const i8) -> [__m256i; 2] {
    // SAFETY: the caller's.
    unsafe {
        [
            _mm256_loadu_si256(from.cast()),
            _mm256_loadu_si256(from.add(QUAD_BYTES / 2).cast()),
        ]
    }
}

/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn store_halves(sums: [__m256i; 2], to: &mut Sums) {
    // SAFETY: the caller's; `to` is 64 bytes.
    unsafe {
        _mm256_storeu_si256(to.as_mut_ptr().cast(), sums[0]);
        _mm256_storeu_si256(to.as_mut_ptr().add(PANEL / 2).cast(), sums[1]);
    }
}

#[derive(Debug)]
pub(super) struct AvxVnni;

impl Arch for AvxVnni {
    type Sums = [__m256i; 2];
    type Left = __m256i;
    type Right = [__m256i; 2];

    #[inline(always)]
    unsafe fn zero() -> [__m256i; 2] {
        // SAFETY: the caller's.
        [unsafe { _mm256_setzero_si256() }; 2]
    }

    #[inline(always)]
    unsafe fn left(from: *const u8) -> __m256i {
        // SAFETY: the caller's.
        unsafe { _mm256_set1_epi32(four(from)) }
    }

    #[inline(always)]
    unsafe fn right(from: *const i8) -> [__m256i; 2] {
        // SAFETY: the caller's.
        unsafe { halves(from) }
    }

    #[inline(always)]
    unsafe fn low_nibbles(from: *const i8) -> [__m256i; 2] {
        // SAFETY: the caller's.
        unsafe {
            let ([a, b], low) = (halves(from), _mm256_set1_epi8(15));
            [_mm256_and_si256(a, low), _mm256_and_si256(b, low)]
        }
    }

    #[inline(always)]
    unsafe fn high_nibbles(from: *const i8) -> [__m256i; 2] {
        // SAFETY: the caller's.
        unsafe {
            let ([a, b], low) = (halves(from), _mm256_set1_epi8(15));
            let (a, b) = (_mm256_srli_epi16::<4>(a), _mm256_srli_epi16::<4>(b));
            [_mm256_and_si256(a, low), _mm256_and_si256(b, low)]
        }
    }

    #[inline(always)]
    unsafe fn dot(sums: [__m256i; 2], left: __m256i, right: [__m256i; 2]) -> [__m256i; 2] {
        // SAFETY: the caller's.
        unsafe {
            [
                _mm256_dpbusd_avx_epi32(sums[0], left, right[0]),
                _mm256_dpbusd_avx_epi32(sums[1], left, right[1]),
            ]
        }
    }

    #[inline(always)]
    unsafe fn store(sums: [__m256i; 2], to: &mut Sums) {
        // SAFETY: the caller's.
        unsafe { store_halves(sums, to) }
    }
}

tiles!(AvxVnni: 6 rows, 1 => 4, 2 => 2, 3 => 2, 4 => 1, 5 => 1, 6 => 1);

/// The even bytes and the odd ones, as i16.
#[derive(Debug)]
pub(super) struct Avx2;

impl Arch for Avx2 {
    type Sums = [__m256i; 2];
    type Left = [__m256i; 2];
    type Right = [[__m256i; 2]; 2];

    #[inline(always)]
    unsafe fn zero() -> [__m256i; 2] {
        // SAFETY: the caller's.
        [unsafe { _mm256_setzero_si256() }; 2]
    }

    #[inline(always)]
    unsafe fn left(from: *const u8) -> [__m256i; 2] {
        // SAFETY: the caller's.
        unsafe {
            let quad = _mm256_set1_epi32(four(from));
            let even = _mm256_and_si256(quad, _mm256_set1_epi16(255));
            [even, _mm256_srli_epi16::<8>(quad)]
        }
    }

    #[inline(always)]
    unsafe fn right(from: *const i8) -> [[__m256i; 2]; 2] {
        // SAFETY: the caller's.
        unsafe {
            let [a, b] = halves(from);
            [signed_pairs(a), signed_pairs(b)]
        }
    }

    #[inline(always)]
    unsafe fn low_nibbles(from: *const i8) -> [[__m256i; 2]; 2] {
        // SAFETY: the caller's.
        unsafe {
            let [a, b] = AvxVnni::low_nibbles(from);
            [signed_pairs(a), signed_pairs(b)]
        }
    }

    #[inline(always)]
    unsafe fn high_nibbles(from: *const i8) -> [[__m256i; 2]; 2] {
        // SAFETY: the caller's.
        unsafe {
            let [a, b] = AvxVnni::high_nibbles(from);
            [signed_pairs(a), signed_pairs(b)]
        }
    }

    #[inline(always)]
    unsafe fn dot(
        sums: [__m256i; 2],
        left: [__m256i; 2],
        right: [[__m256i; 2]; 2],
    ) -> [__m256i; 2] {
        // SAFETY: the caller's.
        unsafe {
            let mut out = sums;
            for half in 0..2 {
                let even = _mm256_madd_epi16(left[0], right[half][0]);
                let odd = _mm256_madd_epi16(left[1], right[half][1]);
                out[half] = _mm256_add_epi32(sums[half], _mm256_add_epi32(even, odd));
            }
            out
        }
    }

    #[inline(always)]
    unsafe fn store(sums: [__m256i; 2], to: &mut Sums) {
        // SAFETY: the caller's.
        unsafe { store_halves(sums, to) }
    }
}

/// The even bytes and the odd ones, sign-extended.
///
/// # Safety
/// The CPU has AVX2.
#[inline(always)]
unsafe fn signed_pairs(quads: __m256i) -> [__m256i; 2] {
    // SAFETY: the caller's.
    unsafe {
        let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(quads));
        [even, _mm256_srai_epi16::<8>(quads)]
    }
}

tiles!(Avx2: 4 rows, 1 => 2, 2 => 1, 3 => 1, 4 => 1);
