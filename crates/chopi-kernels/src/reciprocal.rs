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
    /// The parts, if RN(x·h + RN(x·t)) = RN(x/s) for every x whose quotient is not as small as the least
    /// normal numbers, nor so large that a product overflows.
    ///
    /// Of smaller quotients, the product has the magnitude. There are no parts for s beyond 2^±60 (`f32`)
    /// or 2^±400 (`f64`), whose t could leave the normal numbers.
    pub fn new(s: C) -> Option<Self> {
        let (precision, most) = match C::TYPE {
            FloatType::F64 => (53, 400),
            _ => (24, 60),
        };
        let two_to = |exponent: i32| C::from_i32(2).powi(exponent);
        if !(s >= two_to(-most) && s <= two_to(most)) {
            return None;
        }
        let high = s.recip();
        // 1 − s·h is exact: it is a multiple of the product of both last places, and smaller than h's.
        let low = (-s).mul_add(high, C::one()) / s;
        let parts = Self { high, low };
        // Each of the two is enough; h is less than 2^−e where s is at least 2^e.
        let (divisor, ..) = s.integer_decode();
        if divisor % 2 == 0 || low.abs() * two_to(precision + 2) < high {
            return Some(parts);
        }
        // The X of X·2^(p+1) = 1 + m·S: m is −1/S modulo 2^(p+1), by Newton's iteration, each step of which
        // doubles the number of bits that are right, from 5.
        let newton = |inverse: u64, _| {
            inverse.wrapping_mul(2_u64.wrapping_sub(divisor.wrapping_mul(inverse)))
        };
        let inverse = (0..4).fold(divisor.wrapping_mul(3) ^ 2, newton);
        let m = inverse.wrapping_neg() & ((2 << precision) - 1);
        let one = ((u128::from(m) * u128::from(divisor) + 1) >> (precision + 1)) as u64;
        let right = |x: u64| {
            let is_significand = (1 << (precision - 1)..divisor).contains(&x);
            let x = C::from_i64(x as i64);
            !is_significand || x.mul_add(high, x * low) == x / s
        };
        (right(one) && right(divisor - one)).then_some(parts)
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
    }
}
