//! AVX-512 and AVX2, with VNNI and without.

use std::arch::x86_64::*;

use super::{Arch, LeftQuad, Pairs, Quad, Sums, engine, intrinsics, tiles};

engine! {
    /// AVX2: the even bytes and the odd ones of quads, as i16.
    Avx2(): is_x86_feature_detected, "avx2", "fma"
}
engine! {
    /// AVX2 with VNNI.
    AvxVnni(Avx2): is_x86_feature_detected, "avxvnni", "avx2", "fma"
}
engine! {
    /// AVX-512: the even bytes and the odd ones of quads, as i16.
    Avx512(): is_x86_feature_detected, "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"
}
engine! {
    /// AVX-512 with VNNI.
    Avx512Vnni(Avx512): is_x86_feature_detected, "avx512vnni", "avx512f", "avx512bw", "avx512dq", "avx512vl", "avx2", "fma"
}

/// Two numbers of 16 bits as the lanes hold them.
fn pair([low, high]: [i16; 2]) -> i32 {
    i32::from(low as u16) | i32::from(high) << 16
}

impl Avx2 {
    intrinsics! {
        // A quad in two registers: 8 columns in each.
        fn halves(self, from: &Quad) -> [__m256i; 2] {
            let from = from.0.as_ptr().cast::<__m256i>();
            [_mm256_loadu_si256(from), _mm256_loadu_si256(from.add(1))]
        }
        fn low_halves(self, from: &Quad) -> [__m256i; 2] {
            let ([a, b], low) = (self.halves(from), _mm256_set1_epi8(15));
            [_mm256_and_si256(a, low), _mm256_and_si256(b, low)]
        }
        fn high_halves(self, from: &Quad) -> [__m256i; 2] {
            let ([a, b], low) = (self.halves(from), _mm256_set1_epi8(15));
            let (a, b) = (_mm256_srli_epi16::<4>(a), _mm256_srli_epi16::<4>(b));
            [_mm256_and_si256(a, low), _mm256_and_si256(b, low)]
        }
        fn store_halves(self, sums: [__m256i; 2], to: &mut Sums) {
            let to = to.as_mut_ptr().cast::<__m256i>();
            _mm256_storeu_si256(to, sums[0]);
            _mm256_storeu_si256(to.add(1), sums[1]);
        }
        // 4 bytes in every lane.
        fn four(self, from: &LeftQuad) -> __m256i {
            _mm256_set1_epi32(i32::from_ne_bytes(*from))
        }
        // The even bytes and the odd ones, sign-extended.
        fn signed_pairs(self, quads: __m256i) -> [__m256i; 2] {
            let even = _mm256_srai_epi16::<8>(_mm256_slli_epi16::<8>(quads));
            [even, _mm256_srai_epi16::<8>(quads)]
        }
        fn less_pairs(self, sums: &Sums, left: [i16; 2], right: &Pairs) -> [__m256i; 2] {
            let left = _mm256_set1_epi32(pair(left));
            let (sums, right) = (sums.as_ptr().cast::<__m256i>(), right.as_ptr().cast::<__m256i>());
            let products = _mm256_madd_epi16(left, _mm256_loadu_si256(right));
            let low = _mm256_sub_epi32(_mm256_loadu_si256(sums), products);
            let products = _mm256_madd_epi16(left, _mm256_loadu_si256(right.add(1)));
            [low, _mm256_sub_epi32(_mm256_loadu_si256(sums.add(1)), products)]
        }
        fn dot_half(self, sums: __m256i, left: [__m256i; 2], right: [__m256i; 2]) -> __m256i {
            let even = _mm256_madd_epi16(left[0], right[0]);
            let odd = _mm256_madd_epi16(left[1], right[1]);
            _mm256_add_epi32(sums, _mm256_add_epi32(even, odd))
        }
    }
}

impl Arch for Avx2 {
    const SIGNED_LEFT: bool = false;

    type Sums = [__m256i; 2];
    type Left = [__m256i; 2];
    type Right = [[__m256i; 2]; 2];

    intrinsics! {
        fn zero(self) -> [__m256i; 2] {
            [_mm256_setzero_si256(); 2]
        }
        fn left(self, from: &LeftQuad) -> [__m256i; 2] {
            let quad = self.four(from);
            let even = _mm256_and_si256(quad, _mm256_set1_epi16(255));
            [even, _mm256_srli_epi16::<8>(quad)]
        }
    }

    #[inline(always)]
    fn right(self, from: &Quad) -> [[__m256i; 2]; 2] {
        let [a, b] = self.halves(from);
        [self.signed_pairs(a), self.signed_pairs(b)]
    }

    #[inline(always)]
    fn low_nibbles(self, from: &Quad) -> [[__m256i; 2]; 2] {
        let [a, b] = self.low_halves(from);
        [self.signed_pairs(a), self.signed_pairs(b)]
    }

    #[inline(always)]
    fn high_nibbles(self, from: &Quad) -> [[__m256i; 2]; 2] {
        let [a, b] = self.high_halves(from);
        [self.signed_pairs(a), self.signed_pairs(b)]
    }

    #[inline(always)]
    fn dot(self, sums: [__m256i; 2], left: [__m256i; 2], right: [[__m256i; 2]; 2]) -> [__m256i; 2] {
        [
            self.dot_half(sums[0], left, right[0]),
            self.dot_half(sums[1], left, right[1]),
        ]
    }

    #[inline(always)]
    fn store(self, sums: [__m256i; 2], to: &mut Sums) {
        self.store_halves(sums, to);
    }

    #[inline(always)]
    fn without_pairs(self, sums: &Sums, left: [i16; 2], right: &Pairs) -> Sums {
        let mut less = *sums;
        self.store_halves(self.less_pairs(sums, left, right), &mut less);
        less
    }
}

tiles!(Avx2: 4 rows, 1 => 2, 2 => 1, 3 => 1, 4 => 1);

impl Arch for AvxVnni {
    const SIGNED_LEFT: bool = false;

    type Sums = [__m256i; 2];
    type Left = __m256i;
    type Right = [__m256i; 2];

    intrinsics! {
        fn dot(self, sums: [__m256i; 2], left: __m256i, right: [__m256i; 2]) -> [__m256i; 2] {
            [
                _mm256_dpbusd_avx_epi32(sums[0], left, right[0]),
                _mm256_dpbusd_avx_epi32(sums[1], left, right[1]),
            ]
        }
    }

    #[inline(always)]
    fn zero(self) -> [__m256i; 2] {
        self.0.zero()
    }

    #[inline(always)]
    fn left(self, from: &LeftQuad) -> __m256i {
        self.0.four(from)
    }

    #[inline(always)]
    fn right(self, from: &Quad) -> [__m256i; 2] {
        self.0.halves(from)
    }

    #[inline(always)]
    fn low_nibbles(self, from: &Quad) -> [__m256i; 2] {
        self.0.low_halves(from)
    }

    #[inline(always)]
    fn high_nibbles(self, from: &Quad) -> [__m256i; 2] {
        self.0.high_halves(from)
    }

    #[inline(always)]
    fn store(self, sums: [__m256i; 2], to: &mut Sums) {
        self.0.store_halves(sums, to);
    }

    #[inline(always)]
    fn without_pairs(self, sums: &Sums, left: [i16; 2], right: &Pairs) -> Sums {
        self.0.without_pairs(sums, left, right)
    }
}

tiles!(AvxVnni: 6 rows, 1 => 4, 2 => 2, 3 => 2, 4 => 1, 5 => 1, 6 => 1);

impl Avx512 {
    intrinsics! {
        // A quad in a register.
        fn whole(self, from: &Quad) -> __m512i {
            _mm512_loadu_si512(from.0.as_ptr().cast())
        }
        fn low_whole(self, from: &Quad) -> __m512i {
            _mm512_and_si512(self.whole(from), _mm512_set1_epi8(15))
        }
        fn high_whole(self, from: &Quad) -> __m512i {
            _mm512_and_si512(_mm512_srli_epi16::<4>(self.whole(from)), _mm512_set1_epi8(15))
        }
        fn less_pairs(self, sums: &Sums, left: [i16; 2], right: &Pairs) -> __m512i {
            let right = _mm512_loadu_si512(right.as_ptr().cast());
            let products = _mm512_madd_epi16(_mm512_set1_epi32(pair(left)), right);
            _mm512_sub_epi32(_mm512_loadu_si512(sums.as_ptr().cast()), products)
        }
        // 4 bytes in every lane.
        fn four(self, from: &LeftQuad) -> __m512i {
            _mm512_set1_epi32(i32::from_ne_bytes(*from))
        }
        // The even bytes and the odd ones.
        fn unsigned_pairs(self, quads: __m512i) -> [__m512i; 2] {
            let even = _mm512_and_si512(quads, _mm512_set1_epi16(255));
            [even, _mm512_srli_epi16::<8>(quads)]
        }
        // The even bytes and the odd ones, sign-extended.
        fn signed_pairs(self, quads: __m512i) -> [__m512i; 2] {
            let even = _mm512_srai_epi16::<8>(_mm512_slli_epi16::<8>(quads));
            [even, _mm512_srai_epi16::<8>(quads)]
        }
    }
}

impl Arch for Avx512 {
    const SIGNED_LEFT: bool = false;

    type Sums = __m512i;
    type Left = [__m512i; 2];
    type Right = [__m512i; 2];

    intrinsics! {
        fn zero(self) -> __m512i {
            _mm512_setzero_si512()
        }
        fn dot(self, sums: __m512i, left: [__m512i; 2], right: [__m512i; 2]) -> __m512i {
            let even = _mm512_madd_epi16(left[0], right[0]);
            let odd = _mm512_madd_epi16(left[1], right[1]);
            _mm512_add_epi32(sums, _mm512_add_epi32(even, odd))
        }
        fn store(self, sums: __m512i, to: &mut Sums) {
            _mm512_storeu_si512(to.as_mut_ptr().cast(), sums);
        }
    }

    #[inline(always)]
    fn left(self, from: &LeftQuad) -> [__m512i; 2] {
        self.unsigned_pairs(self.four(from))
    }

    #[inline(always)]
    fn right(self, from: &Quad) -> [__m512i; 2] {
        self.signed_pairs(self.whole(from))
    }

    #[inline(always)]
    fn low_nibbles(self, from: &Quad) -> [__m512i; 2] {
        self.unsigned_pairs(self.low_whole(from))
    }

    #[inline(always)]
    fn high_nibbles(self, from: &Quad) -> [__m512i; 2] {
        self.unsigned_pairs(self.high_whole(from))
    }

    #[inline(always)]
    fn without_pairs(self, sums: &Sums, left: [i16; 2], right: &Pairs) -> Sums {
        let mut less = *sums;
        self.store(self.less_pairs(sums, left, right), &mut less);
        less
    }
}

tiles!(Avx512: 8 rows, 1 => 4, 2 => 4, 3 => 2, 4 => 2, 5 => 2, 6 => 2, 7 => 2, 8 => 2);

impl Arch for Avx512Vnni {
    const SIGNED_LEFT: bool = false;

    type Sums = __m512i;
    type Left = __m512i;
    type Right = __m512i;

    intrinsics! {
        fn dot(self, sums: __m512i, left: __m512i, right: __m512i) -> __m512i {
            _mm512_dpbusd_epi32(sums, left, right)
        }
    }

    #[inline(always)]
    fn zero(self) -> __m512i {
        self.0.zero()
    }

    #[inline(always)]
    fn left(self, from: &LeftQuad) -> __m512i {
        self.0.four(from)
    }

    #[inline(always)]
    fn right(self, from: &Quad) -> __m512i {
        self.0.whole(from)
    }

    #[inline(always)]
    fn low_nibbles(self, from: &Quad) -> __m512i {
        self.0.low_whole(from)
    }

    #[inline(always)]
    fn high_nibbles(self, from: &Quad) -> __m512i {
        self.0.high_whole(from)
    }

    #[inline(always)]
    fn store(self, sums: __m512i, to: &mut Sums) {
        self.0.store(sums, to);
    }

    #[inline(always)]
    fn without_pairs(self, sums: &Sums, left: [i16; 2], right: &Pairs) -> Sums {
        self.0.without_pairs(sums, left, right)
    }
}

tiles!(Avx512Vnni: 12 rows,
    1 => 4, 2 => 8, 3 => 8, 4 => 4, 5 => 4, 6 => 4, 7 => 2, 8 => 2, 9 => 2, 10 => 2, 11 => 2, 12 => 2);
