//! The random numbers of stochastic rounding: a function of the seed and the element's index.

use crate::vector::{Vector, Words};

/// The seed's part of the hash: the two halves of the first output of SplitMix64.
#[inline(always)]
fn keys(seed: u64) -> (u32, u32) {
    let mut z = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z as u32, (z >> 32) as u32)
}

const FACTORS: [u32; 2] = [0x21F0_AAAD, 0xD35A_2D97];

/// The number in [0, 1) that the element of this index compares its fraction with: see
/// [`Rounding::Stochastic`](crate::Rounding::Stochastic).
pub fn uniform(seed: u64, index: u64) -> f64 {
    let (first, second) = keys(seed);
    let mut h = index as u32 ^ first;
    h = (h ^ (h >> 16)).wrapping_mul(FACTORS[0]) ^ second;
    h = (h ^ (h >> 15)).wrapping_mul(FACTORS[1]);
    h ^= h >> 15;
    f64::from(h >> 8) * UNIT
}

/// 2^−24: what the numbers are multiples of.
pub(crate) const UNIT: f64 = 1.0 / (1 << 24) as f64;

/// [`uniform`] of the elements from `index` on, as multiples of [`UNIT`].
#[inline(always)]
pub(crate) fn words<V: Vector>(arch: V::Arch, seed: u64, index: u64) -> V::Words {
    let (first, second) = keys(seed);
    // The keys' bits come in where they cost a vector nothing: (h ^ k) ^ ((h ^ k) >> n) is
    // h ^ (h >> n) ^ (k ^ (k >> n)).
    let keys = [first ^ (first >> 16), second ^ (second >> 15)];
    let splat = |word| V::Words::splat(arch, word);
    let h = V::Words::count_from(arch, index as u32);
    let h = h.xor(h.shift_right::<16>()).xor(splat(keys[0]));
    let h = h.mul(splat(FACTORS[0]));
    let h = h.xor(h.shift_right::<15>()).xor(splat(keys[1]));
    let h = h.mul(splat(FACTORS[1]));
    h.xor(h.shift_right::<15>()).shift_right::<8>()
}
