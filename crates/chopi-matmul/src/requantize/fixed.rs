//! Requantization with integers only, as gemmlowp and TensorFlow Lite define it.

use super::{Code, Multiplier, OutputCodes};
use crate::{Error, Result};

/// m = M·2^(e − 31), with M, the mantissa, an `i32`, and e in −31..=30: a number of 31 bits, in
/// which no float is left.
///
/// How it is applied is the choice of [`DoubleRounded`] or [`SingleRounded`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FixedMultiplier {
    mantissa: i32,
    exponent: i32,
}

impl FixedMultiplier {
    /// The exponents that there are.
    pub const EXPONENTS: std::ops::RangeInclusive<i32> = -31..=30;

    /// mantissa·2^(exponent − 31).
    ///
    /// # Errors
    /// [`Error::Exponent`] for an exponent outside −31..=30.
    pub fn new(mantissa: i32, exponent: i32) -> Result<Self> {
        match Self::EXPONENTS.contains(&exponent) {
            true => Ok(Self { mantissa, exponent }),
            false => Err(Error::Exponent { exponent }),
        }
    }

    /// The multiplier next to a real one, as TensorFlow Lite's `QuantizeMultiplier` finds it:
    /// m = f·2^e with ½ ≤ |f| < 1, M = f·2^31 rounded to the nearest integer, halves away from zero.
    /// Where that gives |M| = 2^31 for a positive m, M is halved and e is one more. Below an
    /// exponent of −31 the multiplier is 0; above 30 it is (2^31 − 1)·2^−1, and −(2^31 − 1)·2^−1 for
    /// negative m, with which every accumulator but 0 saturates 8-bit codes.
    ///
    /// # Errors
    /// [`Error::Multiplier`] for NaN and infinities.
    pub fn from_real(multiplier: f64) -> Result<Self> {
        if !multiplier.is_finite() {
            return Err(Error::Multiplier { multiplier });
        }
        const ZERO: FixedMultiplier = FixedMultiplier {
            mantissa: 0,
            exponent: 0,
        };
        // Subnormal numbers, whose exponent is not where it is read below, are among these.
        if multiplier.abs() < 2_f64.powi(-40) {
            return Ok(ZERO);
        }
        const EXPONENT_BITS: u64 = 0x7ff << 52;
        let bits = multiplier.to_bits();
        // The exponent of a number of [½, 1) is stored as 1022.
        let exponent = ((bits & EXPONENT_BITS) >> 52) as i32 - 1022;
        let fraction = f64::from_bits(bits & !EXPONENT_BITS | 1022 << 52);
        let mantissa = (fraction * 2_f64.powi(31)).round() as i64;
        let (mantissa, exponent) = match i32::try_from(mantissa) {
            Ok(mantissa) => (mantissa, exponent),
            Err(_) => (1 << 30, exponent + 1),
        };
        Ok(match exponent {
            ..-31 => ZERO,
            31.. => Self {
                mantissa: mantissa.signum() * i32::MAX,
                exponent: 30,
            },
            _ => Self { mantissa, exponent },
        })
    }

    /// M.
    pub fn mantissa(self) -> i32 {
        self.mantissa
    }

    /// e.
    pub fn exponent(self) -> i32 {
        self.exponent
    }

    /// M·2^(e − 31), exact.
    pub fn value(self) -> f64 {
        f64::from(self.mantissa) * 2_f64.powi(self.exponent - 31)
    }
}

/// A [`FixedMultiplier`] whose product is rounded twice, as gemmlowp defines it and TensorFlow Lite
/// does unless it is built otherwise: with the left shift l = max(e, 0) and the right shift
/// r = max(−e, 0),
///
/// 1. a = acc·2^l, saturated to `i32`;
/// 2. h = ⌊a·M/2^31 + ½⌋, saturated to `i32` (that is for a = M = −2^31 only):
///    `SaturatingRoundingDoublingHighMul`, halves up;
/// 3. h/2^r rounded to the nearest integer, halves away from zero: `RoundingDivideByPOT`.
///
/// An overflow of 1, which saturates here, is undefined behavior there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoubleRounded(pub FixedMultiplier);

/// A [`FixedMultiplier`] whose product is rounded once, as TensorFlow Lite does when it is built with
/// `TFLITE_SINGLE_ROUNDING`: ⌊acc·M·2^(e − 31) + ½⌋, saturated to `i32`, halves up.
///
/// What saturates here is undefined there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SingleRounded(pub FixedMultiplier);

#[inline(always)]
fn saturate(value: i64) -> i32 {
    value.clamp(i32::MIN.into(), i32::MAX.into()) as i32
}

impl DoubleRounded {
    /// The rounded product of an accumulator, before the zero point.
    #[inline(always)]
    pub fn scale(self, acc: i32) -> i32 {
        let FixedMultiplier { mantissa, exponent } = self.0;
        let left = saturate(i64::from(acc) << exponent.max(0));
        let high = saturate((i64::from(left) * i64::from(mantissa) + (1 << 30)) >> 31);
        let right = (-exponent).max(0);
        let mask = ((1_u32 << right) - 1) as i32;
        let threshold = (mask >> 1) + i32::from(high < 0);
        (high >> right) + i32::from(high & mask > threshold)
    }
}

impl SingleRounded {
    /// The rounded product of an accumulator, before the zero point.
    #[inline(always)]
    pub fn scale(self, acc: i32) -> i32 {
        let FixedMultiplier { mantissa, exponent } = self.0;
        let product = i64::from(acc) * i64::from(mantissa);
        saturate((product + (1 << (30 - exponent))) >> (31 - exponent))
    }
}

macro_rules! impl_multiplier {
    ($($t:ident),*) => {$(
        impl Multiplier for $t {
            #[inline(always)]
            fn code<Q: Code>(self, acc: i32, codes: OutputCodes<Q>) -> Q {
                let (low, high) = codes.range();
                codes.at(self.scale(acc).clamp(low, high))
            }
        }
    )*};
}

impl_multiplier!(DoubleRounded, SingleRounded);

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The nearest integer to numerator/2^shift.
    fn half_up(numerator: i128, shift: i32) -> i128 {
        (2 * numerator + (1 << shift)).div_euclid(2 << shift)
    }

    fn half_away(numerator: i128, shift: i32) -> i128 {
        half_up(numerator.abs(), shift) * numerator.signum()
    }

    fn to_i32(value: i128) -> i128 {
        value.clamp(i32::MIN.into(), i32::MAX.into())
    }

    /// The definition, in exact arithmetic.
    fn double(acc: i32, m: FixedMultiplier) -> i128 {
        let left = to_i32(i128::from(acc) * (1 << m.exponent.max(0)));
        let high = to_i32(half_up(left * i128::from(m.mantissa), 31));
        half_away(high, (-m.exponent).max(0))
    }

    fn single(acc: i32, m: FixedMultiplier) -> i128 {
        to_i32(half_up(
            i128::from(acc) * i128::from(m.mantissa),
            31 - m.exponent,
        ))
    }

    fn check(acc: i32, m: FixedMultiplier) {
        let (one, two) = (SingleRounded(m).scale(acc), DoubleRounded(m).scale(acc));
        assert_eq!(i128::from(two), double(acc, m), "{acc} · {m:?}, twice");
        assert_eq!(i128::from(one), single(acc, m), "{acc} · {m:?}, once");
        let codes = OutputCodes::new(-7_i8).clamped(-100, 90).unwrap();
        let code = |scaled: i128| (scaled - 7).clamp(-100, 90) as i8;
        assert_eq!(DoubleRounded(m).code(acc, codes), code(double(acc, m)));
        assert_eq!(SingleRounded(m).code(acc, codes), code(single(acc, m)));
    }

    /// SplitMix64: the same numbers in any language.
    struct Numbers(u64);

    impl Numbers {
        fn next(&mut self) -> u64 {
            self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            z ^ (z >> 31)
        }

        /// An accumulator of any size and a multiplier, most of them in [½, 1)·2^e.
        fn case(&mut self) -> (i32, FixedMultiplier) {
            let acc = self.next() as i32 >> (self.next() % 32);
            let exponent = (self.next() % 62) as i32 - 31;
            let mantissa = match self.next() % 8 {
                0 => self.next() as i32,
                1 => 1 << 30,
                2 => i32::MAX,
                _ => (self.next() as u32 >> 2 | 1 << 30) as i32,
            };
            (acc, FixedMultiplier::new(mantissa, exponent).unwrap())
        }
    }

    #[test]
    fn edges_are_those_of_the_definition() {
        let edges = [
            0,
            1,
            2,
            3,
            5,
            255,
            1 << 23,
            1 << 30,
            (1 << 30) + 1,
            i32::MAX - 1,
            i32::MAX,
        ];
        let edges = edges.iter().flat_map(|&edge| [edge, -edge, -edge - 1]);
        for acc in edges.clone() {
            for mantissa in edges.clone() {
                for exponent in FixedMultiplier::EXPONENTS {
                    check(acc, FixedMultiplier::new(mantissa, exponent).unwrap());
                }
            }
        }
    }

    fn random_cases(count: u32) {
        let mut numbers = Numbers(count.into());
        for _ in 0..count {
            let (acc, m) = numbers.case();
            check(acc, m);
        }
    }

    #[test]
    fn random_products_are_those_of_the_definition() {
        random_cases(200_000);
    }

    #[test]
    #[ignore = "long: 50 million cases, for a release build"]
    fn very_many_random_products_are_those_of_the_definition() {
        random_cases(50_000_000);
    }

    /// FNV-1a over what is computed from such cases, where it is defined there.
    fn hash(count: u32) -> u64 {
        let mut hash = 0xcbf2_9ce4_8422_2325;
        let mut put = |value: i32| {
            hash = (hash ^ u64::from(value as u32)).wrapping_mul(0x100_0000_01b3);
        };
        let mut numbers = Numbers(count.into());
        for _ in 0..count {
            let (acc, m) = numbers.case();
            let left = i64::from(acc) << m.exponent.max(0);
            if i32::try_from(left).is_ok() {
                put(DoubleRounded(m).scale(acc));
            }
            let product = i64::from(acc) * i64::from(m.mantissa) + (1 << (30 - m.exponent));
            if i32::try_from(product >> (31 - m.exponent)).is_ok() {
                put(SingleRounded(m).scale(acc));
            }
            let fraction = (numbers.next() >> 11) as f64;
            let real = fraction * 2_f64.powi((numbers.next() % 72) as i32 - 90);
            let m = FixedMultiplier::from_real(real).unwrap();
            put(m.mantissa);
            put(m.exponent);
        }
        hash
    }

    // The hashes are those of a C++ program that draws the same numbers and calls gemmlowp's
    // fixedpoint/fixedpoint.h and TensorFlow Lite's MultiplyByQuantizedMultiplier and
    // QuantizeMultiplier.

    #[test]
    fn numbers_are_those_of_gemmlowp_and_tensorflow_lite() {
        assert_eq!(hash(1_000_000), 0x65cb_1667_de57_7f28);
    }

    #[test]
    #[ignore = "long: 50 million cases, for a release build"]
    fn very_many_numbers_are_those_of_gemmlowp_and_tensorflow_lite() {
        assert_eq!(hash(50_000_000), 0xc98e_aedb_cf32_6b35);
    }

    #[test]
    fn halves_go_up_or_away_from_zero() {
        let half = FixedMultiplier::from_real(0.5).unwrap();
        let odd = [-5, -3, -1, 1, 3, 5];
        // Without a right shift there is one rounding only.
        assert_eq!(
            odd.map(|acc| DoubleRounded(half).scale(acc)),
            [-2, -1, 0, 1, 2, 3]
        );
        assert_eq!(
            odd.map(|acc| SingleRounded(half).scale(acc)),
            [-2, -1, 0, 1, 2, 3]
        );
        let quarter = FixedMultiplier::from_real(0.25).unwrap();
        let acc = [-10, -6, -2, 2, 6, 10];
        assert_eq!(
            acc.map(|acc| DoubleRounded(quarter).scale(acc)),
            [-3, -2, -1, 1, 2, 3]
        );
        assert_eq!(
            acc.map(|acc| SingleRounded(quarter).scale(acc)),
            [-2, -1, 0, 1, 2, 3]
        );
    }

    #[test]
    fn two_roundings_may_differ_from_one() {
        // M/2^31 = 0.9999998 is rounded to 1 first, and then 1/2 away from zero.
        let m = FixedMultiplier::from_real(0.4999999).unwrap();
        assert_eq!((m.exponent(), SingleRounded(m).scale(1)), (-1, 0));
        assert_eq!(DoubleRounded(m).scale(1), 1);
    }

    #[test]
    fn real_multipliers_become_what_quantize_multiplier_makes_of_them() {
        let fixed = |real: f64| {
            let m = FixedMultiplier::from_real(real).unwrap();
            (m.mantissa(), m.exponent())
        };
        assert_eq!(fixed(0.0), (0, 0));
        assert_eq!(fixed(-0.0), (0, 0));
        assert_eq!(fixed(1.0), (1 << 30, 1));
        assert_eq!(fixed(0.5), (1 << 30, 0));
        assert_eq!(fixed(-0.75), (-3 << 29, 0));
        assert_eq!(fixed(0.1), (1_717_986_918, -3));
        // The carry: f·2^31 rounds to 2^31.
        assert_eq!(fixed(1.0_f64.next_down()), (1 << 30, 1));
        assert_eq!(fixed((-1.0_f64).next_up()), (i32::MIN, 0));
        // Halves go away from zero.
        let tie = 0.5 + 2_f64.powi(-32);
        assert_eq!(fixed(tie), ((1 << 30) + 1, 0));
        assert_eq!(fixed(-tie), (-(1 << 30) - 1, 0));
        assert_eq!(fixed(tie.next_down()), (1 << 30, 0));
        // The ends: 2^−32 has the exponent −31.
        assert_eq!(fixed(2_f64.powi(-32)), (1 << 30, -31));
        assert_eq!(fixed(2_f64.powi(-32).next_down()), (1 << 30, -31));
        assert_eq!(fixed(2_f64.powi(-33)), (0, 0));
        assert_eq!(fixed(2_f64.powi(-32) * 0.999), (0, 0));
        assert_eq!(fixed(5e-324), (0, 0));
        assert_eq!(fixed(2_f64.powi(29)), (1 << 30, 30));
        assert_eq!(fixed(2_f64.powi(30)), (i32::MAX, 30));
        assert_eq!(fixed(2_f64.powi(30).next_down()), (i32::MAX, 30));
        assert_eq!(fixed(-f64::MAX), (-i32::MAX, 30));
        for real in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            assert!(matches!(
                FixedMultiplier::from_real(real),
                Err(Error::Multiplier { .. })
            ));
        }
        assert!(FixedMultiplier::new(1, 31).is_err() && FixedMultiplier::new(1, -32).is_err());
    }

    proptest! {
        #[test]
        fn a_multiplier_is_the_nearest_of_31_bits(fraction in 0.5..1.0_f64, e in -31..=30_i32) {
            let real = fraction * 2_f64.powi(e);
            let m = FixedMultiplier::from_real(real).unwrap();
            prop_assume!(m.exponent() <= 30 && m.mantissa() != i32::MAX);
            prop_assert!((m.value() - real).abs() <= 2_f64.powi(e - 32));
        }
    }
}
