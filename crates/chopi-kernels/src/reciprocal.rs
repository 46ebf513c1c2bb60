//! Quotients by a divisor that is known in advance, without a division.
//!
//! With r = 1/s in two parts, h = RN(1/s) and t = RN(1/s − h), RN rounding to nearest even, the
//! quotient is
//!
//! ```text
//! RN(x/s) = RN(x·h + RN(x·t))
//! ```
//!
//! for every x, unless a result leaves the normal numbers, and but for a few s: algorithm 1 of
//! Brisebarre, Muller and Raina, *Accelerating correctly rounded floating-point division when the
//! divisor is known in advance*, IEEE Transactions on Computers 53(8), 2004. [`Reciprocal::new`] tells
//! these s.
//!
//! # Proof
//!
//! Powers of two change nothing, and neither do signs: let x and s lie in [1, 2), with p bits each,
//! and X = x·2^(p−1) and S = s·2^(p−1) be integers below 2^p. The case s = 1 is exact. Else h lies in
//! [½, 1), so that
//!
//! - |1/s − h| ≤ 2^(−p−1), and |t| is at most that;
//! - |1/s − h − t| ≤ 2^(−2p−2), half of the last place of t;
//! - |x·t − RN(x·t)| ≤ 2^(−2p−1), as |x·t| ≤ 2^−p.
//!
//! What the outer RN rounds is therefore off x/s by e < 2·2^(−2p−2) + 2^(−2p−1) = 2^(−2p). The result
//! is right where no midpoint of two floats lies within e of x/s, nor at it, and a quotient of floats is
//! never a midpoint.
//!
//! - *x ≥ s.* Midpoints near x/s in [1, 2) are m·2^(−p), m odd, at the distance
//!   |X·2^p − m·S| / (S·2^p) ≥ 1/(S·2^p) > 2^(−2p): always right.
//! - *x < s.* Midpoints near x/s in (½, 1) are m·2^(−p−1), m odd, at the distance
//!   |d| / (S·2^(p+1)), d = X·2^(p+1) − m·S, which exceeds |d|·2^(−2p−1). Where |d| ≥ 2, that is at least
//!   2^(−2p): right. The rest, d = ±1, needs an odd S, and an X ≡ ±2^(−p−1) modulo S: there are at most
//!   two of them in [2^(p−1), S). They are tried.
//!
//! Where |t| < 2^(−p−2), the last two of the bounds above are half as large, e < 2^(−2p−1), and
//! |d| = 1 is right too.
//!
//! # Where the quotient is rounded to an integer
//!
//! With |x/s| at most 2^b, b ≤ p − 2, most s need no trial. Where the product is not the quotient, the two
//! are neighbours, (m ± 1)/2 in units of 2^(−p). They lie on different sides of a half-integer, or one of
//! them at it, only if that half-integer, n/2 with an odd n < 2^(b+1), is one of them: then (m ± 1)/2 is
//! n·2^i, at least 2^(p−1), so that 2^i is at least 2^(p−1−b), and m ≡ ∓1 modulo 2^(p−b). As ±1 = X·2^(p+1) − m·S,
//! S ≡ ±1 modulo 2^(p−b). For every other S, the product and the quotient have one nearest integer, and so
//! have their sums with an integer. [`Reciprocal::to_integers`] looks at the last bits of S first.

use crate::float::{Compute, FloatType};

/// 1/s in two parts, for s of which [the product](self) is the quotient.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Reciprocal<C> {
    /// h, the nearest number to 1/s.
    pub high: C,
    /// t, the nearest number to 1/s − h.
    pub low: C,
}

impl<C: Compute> Reciprocal<C> {
    /// The parts, if RN(x·h + RN(x·t)) rounds to the integer that RN(x/s) rounds to, and so does its sum with
    /// an integer, for every x whose quotient is at most `most` in magnitude, less than 2^(p−2).
    ///
    /// There are no parts for s beyond 2^±60 (`f32`) or 2^±400 (`f64`), whose t could leave the normal
    /// numbers.
    #[inline(always)]
    pub fn to_integers(s: C, most: C) -> Option<Self> {
        let bits = (most.as_f64() as u64 | 1).ilog2() + 1;
        // As many of the last bits of S as have to be looked at; more than a word has are not needed.
        let last = (Self::PRECISION - bits).min(23);
        // S + 1 is 0 or 2 where S is ±1.
        let is_trial = s.low_word().wrapping_add(1) & ((1 << last) - 1) & !2 == 0;
        match is_trial || !Self::has_normal_parts(s) {
            true => Self::new(s),
            false => Some(Self::of(s)),
        }
    }

    const PRECISION: u32 = match C::TYPE {
        FloatType::F64 => 53,
        _ => 24,
    };

    #[inline(always)]
    fn has_normal_parts(s: C) -> bool {
        let exponent = match C::TYPE {
            FloatType::F64 => 400,
            _ => 60,
        };
        let two_to = |exponent: i64| C::from_f64(f64::from_bits(((1023 + exponent) as u64) << 52));
        s >= two_to(-exponent) && s <= two_to(exponent)
    }

    /// The parts, whatever their product is.
    #[inline(always)]
    fn of(s: C) -> Self {
        let high = C::one() / s;
        // 1 − s·h is exact: it is a multiple of the product of both last places, and smaller than h's.
        let low = (-s).mul_add(high, C::one()) / s;
        Self { high, low }
    }

    /// The parts, if RN(x·h + RN(x·t)) = RN(x/s) for every x whose quotient is not as small as the least
    /// normal numbers, nor so large that a product overflows.
    ///
    /// Of smaller quotients, the product has the magnitude. There are no parts for s beyond 2^±60 (`f32`)
    /// or 2^±400 (`f64`), whose t could leave the normal numbers.
    #[inline(never)]
    pub fn new(s: C) -> Option<Self> {
        if !Self::has_normal_parts(s) {
            return None;
        }
        let parts = Self::of(s);
        let Self { high, low } = parts;
        // Each of the two is enough; h is less than 2^−e where s is at least 2^e.
        let bound = C::from_i64(1 << (Self::PRECISION + 2));
        if s.low_word().is_multiple_of(2) || low.abs() * bound < high {
            return Some(parts);
        }
        let right = |x: u64| {
            let x = C::from_i64(x as i64);
            x.mul_add(high, x * low) == x / s
        };
        let (divisor, ..) = s.integer_decode();
        let mut doubtful = Self::doubtful(divisor).into_iter();
        doubtful.all(right).then_some(parts)
    }

    /// The X whose product may not be the quotient by s, given the odd S.
    fn doubtful(divisor: u64) -> impl IntoIterator<Item = u64> {
        // The X of X·2^(p+1) = 1 + m·S: m is −1/S modulo 2^(p+1), by Newton's iteration, each step of which
        // doubles the number of bits that are right, from 5.
        let newton = |inverse: u64, _| {
            inverse.wrapping_mul(2_u64.wrapping_sub(divisor.wrapping_mul(inverse)))
        };
        let inverse = (0..4).fold(divisor.wrapping_mul(3) ^ 2, newton);
        let precision = Self::PRECISION;
        let m = inverse.wrapping_neg() & ((2 << precision) - 1);
        let one = ((u128::from(m) * u128::from(divisor) + 1) >> (precision + 1)) as u64;
        let is_significand = move |x: &u64| (1 << (precision - 1)..divisor).contains(x);
        [one, divisor - one].into_iter().filter(is_significand)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn quotient<C: Compute>(parts: Reciprocal<C>, x: C) -> C {
        x.mul_add(parts.high, x * parts.low)
    }

    #[test]
    fn every_significand_of_a_few_divisors_has_its_quotient() {
        let mut refused = 0;
        for i in 0..24_u32 {
            let s = f32::from_bits(0x3f80_0000 | (i.wrapping_mul(0x9e37_79b9) >> 9));
            let Some(parts) = Reciprocal::new(s) else {
                refused += 1;
                continue;
            };
            for significand in 0..1 << 23 {
                let x = f32::from_bits(0x3f80_0000 | significand);
                assert_eq!(quotient(parts, x), x / s, "{x:e} / {s:e}");
            }
        }
        assert!(refused < 4, "{refused} of 24 divisors");
    }

    #[test]
    fn few_divisors_are_refused_and_each_for_a_reason() {
        let (mut refused, mut all) = (0, 0);
        for significand in (0..1 << 23).step_by(37) {
            let s = f32::from_bits(0x3f80_0000 | significand);
            all += 1;
            if Reciprocal::new(s).is_none() {
                refused += 1;
                // Some number of the binade has another quotient; those near the divisor are not looked at.
                let high = s.recip();
                let low = (-s).mul_add(high, 1.0) / s;
                let wrong = |x: f32| x.mul_add(high, x * low) != x / s;
                let mut ones = (1_u32 << 23..1 << 24).map(|x| x as f32);
                assert!(refused > 40 || ones.any(wrong), "{s:e}");
            }
        }
        assert!(refused * 30 < all, "{refused} of {all}");
    }

    #[test]
    fn divisors_that_are_not_tried_have_products_that_round_as_quotients_do() {
        let is_wrong = |s: f32, x: f32, bits: i32| {
            let (product, exact) = (quotient(Reciprocal::of(s), x), x / s);
            (0..=bits).any(|e| {
                let scaled = |v: f32| (v * 2_f32.powi(e)).round_ties_even();
                scaled(product) != scaled(exact)
            })
        };
        for bits in [5, 11, 12, 16, 21] {
            let (mut tried, mut wrong) = (0, 0);
            for significand in ((1 << 23) + 1..1_u32 << 24).step_by(2) {
                let unit = |x: u64| x as f32 / (1 << 23) as f32;
                let s = unit(significand.into());
                let mut doubtful = Reciprocal::<f32>::doubtful(significand.into()).into_iter();
                if doubtful.any(|x| is_wrong(s, unit(x), bits)) {
                    wrong += 1;
                    let most = (1 << bits) - 1;
                    tried += u32::from(Reciprocal::to_integers(s, most as f32).is_none());
                }
            }
            // With less than 12 bits, all are right.
            assert_eq!(wrong > 0, bits > 11, "{bits} bits");
            assert_eq!(tried, wrong, "{bits} bits");
        }
    }

    #[test]
    fn divisors_far_from_one_have_no_parts() {
        for s in [0.0, -1.0, f32::NAN, f32::INFINITY, 1e-40, 1e-30, 1e30] {
            assert_eq!(Reciprocal::new(s), None, "{s}");
        }
        for s in [0.0, 1e-300, 1e300, f64::NAN] {
            assert_eq!(Reciprocal::new(s), None, "{s}");
        }
        let parts = Reciprocal {
            high: 4.0,
            low: 0.0,
        };
        assert_eq!(Reciprocal::new(0.25), Some(parts));
    }

    /// The number nearest to n + ½, times s, and its neighbours: their quotients lie by a tie.
    fn beside_a_tie<C: Compute>(s: C, n: i32, away: i32) -> C {
        let tie = C::from_i32(n) + C::from_f64(0.5);
        let step = tie * s * C::from_f64(C::TYPE.epsilon());
        tie * s + C::from_i32(away) * step
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn a_quotient_beside_a_tie_is_that_of_the_division(
            significand in 1.0_f64..2.0,
            exponent in -58_i32..58,
            n in -70_000_i32..70_000,
        ) {
            let s = significand * 2_f64.powi(exponent);
            if let Some(parts) = Reciprocal::new(s as f32) {
                for away in -3..=3 {
                    let x = beside_a_tie(s as f32, n, away);
                    prop_assert_eq!(quotient(parts, x), x / s as f32, "{:e} / {:e}", x, s as f32);
                }
            }
            if let Some(parts) = Reciprocal::new(s) {
                for away in -3..=3 {
                    let x = beside_a_tie(s, n, away);
                    prop_assert_eq!(quotient(parts, x), x / s, "{:e} / {:e}", x, s);
                }
            }
        }

        #[test]
        fn a_product_rounds_to_the_integer_of_the_quotient(
            significand in 1_u64 << 52..1 << 53,
            near_one in 2_u32..53,
            minus in any::<bool>(),
            n in 0_i32..70_000,
            most in 0_u32..17,
        ) {
            // The last bits of every other divisor are those of 1 or of −1.
            fn with_last_bits(significand: u64, bits: u32, minus: bool) -> u64 {
                let mask = (1 << bits) - 1;
                (significand & !mask) | if minus { mask } else { 1 }
            }
            let n = n >> (17 - most);
            let doubles = [significand, with_last_bits(significand, near_one, minus)];
            for s in doubles.map(|s| s as f64 / (1_u64 << 52) as f64) {
                if let Some(parts) = Reciprocal::to_integers(s, f64::from(n + 1)) {
                    for away in -3..=3 {
                        let x = beside_a_tie(s, n, away);
                        let (product, exact) = (quotient(parts, x), x / s);
                        prop_assert_eq!(product.round_ties_even(), exact.round_ties_even());
                    }
                }
            }
            let significand = significand >> 29;
            let floats = [significand, with_last_bits(significand, near_one.min(23), minus)];
            for s in floats.map(|s| s as f32 / (1 << 23) as f32) {
                if let Some(parts) = Reciprocal::to_integers(s, (n + 1) as f32) {
                    for away in -3..=3 {
                        let x = beside_a_tie(s, n, away);
                        let (product, exact) = (quotient(parts, x), x / s);
                        prop_assert_eq!(product.round_ties_even(), exact.round_ties_even());
                    }
                }
            }
        }
    }
}
