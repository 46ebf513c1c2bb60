//! NEON, with dot products and without.
//!
//! A quad takes four registers, of 4 columns each. Both engines multiply signed bytes by signed ones: so the
//! instructions for unsigned bytes by signed ones, of `i8mm`, are not needed. Those of `i8mm` for matrices
//! would want the depths of a pair of quads side by side, and the zips that put them there undo most of the gain.

use std::arch::aarch64::*;
use std::arch::{asm, is_aarch64_feature_detected};

use super::{Arch, LeftQuad, Pairs, Quad, Sums, engine, intrinsics, tiles};

engine! {
    /// NEON, which every 64-bit ARM CPU has: products of bytes, as i16.
    Neon(): is_aarch64_feature_detected, "neon"
}
engine! {
    /// NEON with the instruction `sdot`.
    NeonDot(Neon): is_aarch64_feature_detected, "neon", "dotprod"
}

impl Neon {
    intrinsics! {
        fn quad(self, from: &Quad) -> [int8x16_t; 4] {
            let from = from.0.as_ptr();
            [
                vld1q_s8(from),
                vld1q_s8(from.add(16)),
                vld1q_s8(from.add(32)),
                vld1q_s8(from.add(48)),
            ]
        }
        fn low_halves(self, from: &Quad) -> [int8x16_t; 4] {
            let mut quad = self.quad(from);
            for bytes in &mut quad {
                *bytes = vandq_s8(*bytes, vdupq_n_s8(15));
            }
            quad
        }
        fn high_halves(self, from: &Quad) -> [int8x16_t; 4] {
            let mut quad = self.quad(from);
            for bytes in &mut quad {
                *bytes = vreinterpretq_s8_u8(vshrq_n_u8::<4>(vreinterpretq_u8_s8(*bytes)));
            }
            quad
        }
        // 4 bytes in every lane.
        fn four(self, from: &LeftQuad) -> int8x16_t {
            vreinterpretq_s8_s32(vdupq_n_s32(i32::from_ne_bytes(*from)))
        }
        fn store_quarters(self, sums: [int32x4_t; 4], to: &mut Sums) {
            let to = to.as_mut_ptr();
            vst1q_s32(to, sums[0]);
            vst1q_s32(to.add(4), sums[1]);
            vst1q_s32(to.add(8), sums[2]);
            vst1q_s32(to.add(12), sums[3]);
        }
        // The sums of 8 columns less the products of as many pairs.
        fn less_pairs(self, sums: [int32x4_t; 2], left: [i16; 2], right: int16x8x2_t) -> [int32x4_t; 2] {
            let low = vmlsl_n_s16(sums[0], vget_low_s16(right.0), left[0]);
            let high = vmlsl_high_n_s16(sums[1], right.0, left[0]);
            [
                vmlsl_n_s16(low, vget_low_s16(right.1), left[1]),
                vmlsl_high_n_s16(high, right.1, left[1]),
            ]
        }
        fn less_all_pairs(self, sums: &Sums, left: [i16; 2], right: &Pairs) -> [int32x4_t; 4] {
            let (sums, right) = (sums.as_ptr(), right.as_ptr().cast::<i16>());
            let first = [vld1q_s32(sums), vld1q_s32(sums.add(4))];
            let [a, b] = self.less_pairs(first, left, vld2q_s16(right));
            let second = [vld1q_s32(sums.add(8)), vld1q_s32(sums.add(12))];
            let [c, d] = self.less_pairs(second, left, vld2q_s16(right.add(16)));
            [a, b, c, d]
        }
    }
}

impl Arch for Neon {
    const SIGNED_LEFT: bool = true;

    /// For each column two sums, of two depths of each quad.
    type Sums = [[int32x4_t; 2]; 4];
    type Left = int8x16_t;
    type Right = [int8x16_t; 4];

    intrinsics! {
        fn zero(self) -> [[int32x4_t; 2]; 4] {
            [[vdupq_n_s32(0); 2]; 4]
        }
        fn dot(self, sums: [[int32x4_t; 2]; 4], left: int8x16_t, right: [int8x16_t; 4]) -> [[int32x4_t; 2]; 4] {
            let mut sums = sums;
            for (sums, right) in sums.iter_mut().zip(right) {
                // A product fits i16, but the sum of two might not.
                let products = vmull_s8(vget_low_s8(left), vget_low_s8(right));
                sums[0] = vpadalq_s16(sums[0], products);
                sums[1] = vpadalq_s16(sums[1], vmull_high_s8(left, right));
            }
            sums
        }
        fn store(self, sums: [[int32x4_t; 2]; 4], to: &mut Sums) {
            let [a, b, c, d] = sums;
            let sums = [
                vpaddq_s32(a[0], a[1]),
                vpaddq_s32(b[0], b[1]),
                vpaddq_s32(c[0], c[1]),
                vpaddq_s32(d[0], d[1]),
            ];
            self.store_quarters(sums, to);
        }
    }

    #[inline(always)]
    fn left(self, from: &LeftQuad) -> int8x16_t {
        self.four(from)
    }

    #[inline(always)]
    fn right(self, from: &Quad) -> [int8x16_t; 4] {
        self.quad(from)
    }

    #[inline(always)]
    fn low_nibbles(self, from: &Quad) -> [int8x16_t; 4] {
        self.low_halves(from)
    }

    #[inline(always)]
    fn high_nibbles(self, from: &Quad) -> [int8x16_t; 4] {
        self.high_halves(from)
    }

    #[inline(always)]
    fn without_pairs(self, sums: &Sums, left: [i16; 2], right: &Pairs) -> Sums {
        let mut less = *sums;
        self.store_quarters(self.less_all_pairs(sums, left, right), &mut less);
        less
    }
}

tiles!(Neon: 2 rows, 1 => 2, 2 => 1);

impl Arch for NeonDot {
    const SIGNED_LEFT: bool = true;

    type Sums = [int32x4_t; 4];
    type Left = int8x16_t;
    type Right = [int8x16_t; 4];

    intrinsics! {
        fn zero(self) -> [int32x4_t; 4] {
            [vdupq_n_s32(0); 4]
        }
        // `vdotq_s32`, which is not in stable Rust.
        fn dot(self, sums: [int32x4_t; 4], left: int8x16_t, right: [int8x16_t; 4]) -> [int32x4_t; 4] {
            let mut sums = sums;
            for (sums, right) in sums.iter_mut().zip(right) {
                asm!(
                    ".arch_extension dotprod",
                    "sdot {sums:v}.4s, {left:v}.16b, {right:v}.16b",
                    sums = inout(vreg) *sums,
                    left = in(vreg) left,
                    right = in(vreg) right,
                    options(pure, nomem, nostack, preserves_flags),
                );
            }
            sums
        }
    }

    #[inline(always)]
    fn left(self, from: &LeftQuad) -> int8x16_t {
        self.0.four(from)
    }

    #[inline(always)]
    fn right(self, from: &Quad) -> [int8x16_t; 4] {
        self.0.quad(from)
    }

    #[inline(always)]
    fn low_nibbles(self, from: &Quad) -> [int8x16_t; 4] {
        self.0.low_halves(from)
    }

    #[inline(always)]
    fn high_nibbles(self, from: &Quad) -> [int8x16_t; 4] {
        self.0.high_halves(from)
    }

    #[inline(always)]
    fn store(self, sums: [int32x4_t; 4], to: &mut Sums) {
        self.0.store_quarters(sums, to);
    }

    #[inline(always)]
    fn without_pairs(self, sums: &Sums, left: [i16; 2], right: &Pairs) -> Sums {
        self.0.without_pairs(sums, left, right)
    }
}

tiles!(NeonDot: 6 rows, 1 => 4, 2 => 2, 3 => 1, 4 => 1, 5 => 1, 6 => 1);
