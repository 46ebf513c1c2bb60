//! Requantization with a float multiplier.

use super::{Code, Multiplier, OutputCodes};
use crate::{Error, Result};

/// m in `f32`:
///
/// q = clamp(z + RNE(RN(RN(acc) · m)), qmin, qmax)
///
/// with RN the rounding to `f32` and RNE that to the nearest integer, ties to even. An accumulator
/// beyond 2^24 is therefore rounded before it is multiplied. This is what ONNX Runtime
/// (`MlasRequantizeOutput`), FBGEMM and QNNPACK compute; that they clamp to qmin − z and qmax − z
/// before they round gives the same codes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct FloatMultiplier(f32);

impl FloatMultiplier {
    /// This multiplier, which may be negative.
    ///
    /// # Errors
    /// [`Error::Multiplier`] for NaN and infinities.
    pub fn new(multiplier: f32) -> Result<Self> {
        match multiplier.is_finite() {
            true => Ok(Self(multiplier)),
            false => Err(Error::Multiplier {
                multiplier: multiplier.into(),
            }),
        }
    }

    /// RN(RN(s_a · s_b)/s_out), as ONNX Runtime computes it.
    ///
    /// # Errors
    /// [`Error::Multiplier`] where that is NaN or infinite.
    pub fn from_scales(a: f32, b: f32, out: f32) -> Result<Self> {
        Self::new(a * b / out)
    }

    /// The multiplier.
    pub fn value(self) -> f32 {
        self.0
    }
}

/// 1.5·2^23: added to |v| ≤ 2^21, it rounds v to the nearest integer, ties to even, and leaves that
/// integer in the low bits of the sum.
const MAGIC: f32 = 12_582_912.0;

impl Multiplier for FloatMultiplier {
    #[inline(always)]
    fn code<Q: Code>(self, acc: i32, codes: OutputCodes<Q>) -> Q {
        let (low, high) = codes.range();
        let (low, high) = (low as f32, high as f32);
        let product = acc as f32 * self.0;
        // The bounds are integers, so the rounding cannot leave them.
        let product = if product > low { product } else { low };
        let product = if product < high { product } else { high };
        let bits = (product + MAGIC).to_bits().wrapping_sub(MAGIC.to_bits());
        codes.at(bits as i32)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition, in numbers that hold it: the product of two `f32` is a `f64`.
    fn definition(acc: i32, m: f32, (z, qmin, qmax): (i32, i32, i32)) -> i32 {
        let product = (f64::from(acc as f32) * f64::from(m)) as f32;
        let rounded = f64::from(product).round_ties_even();
        (f64::from(z) + rounded).clamp(qmin.into(), qmax.into()) as i32
    }

    fn check<Q: Code>(acc: i32, m: f32, z: Q, a: Q, b: Q) {
        let (min, max) = (a.min(b), a.max(b));
        let codes = OutputCodes::new(z).clamped(min, max).unwrap();
        let got: i32 = FloatMultiplier::new(m).unwrap().code(acc, codes).into();
        let expected = definition(acc, m, (z.into(), min.into(), max.into()));
        assert_eq!(got, expected, "{acc} · {m:e}, {codes:?}");
    }

    fn multipliers() -> impl Strategy<Value = f32> {
        prop_oneof![
            4 => (-32.0..2.0_f32).prop_map(f32::exp2),
            2 => prop::sample::select(vec![0.5, 0.25, 0.125, 1.0 / 3.0, 0.1, 1.0, -0.5, 0.0]),
            1 => any::<f32>().prop_filter("finite", |m| m.is_finite()),
        ]
    }

    fn accumulators() -> impl Strategy<Value = i32> {
        prop_oneof![
            -2000..2000,
            any::<i32>(),
            Just(i32::MIN),
            Just(i32::MAX),
            // Beside 2^24, from where RN(acc) is not acc.
            (1 << 24) - 4..(1 << 24) + 8,
        ]
    }

    proptest! {
        #[test]
        fn codes_are_those_of_the_definition(
            acc in accumulators(), m in multipliers(),
            z: u8, a: u8, b: u8,
        ) {
            check(acc, m, z, a, b);
            check(acc, m, z as i8, a as i8, b as i8);
        }
    }

    #[test]
    fn ties_go_to_even_before_the_zero_point_is_added() {
        let half = FloatMultiplier::new(0.5).unwrap();
        let codes = OutputCodes::new(3_i8);
        let got = [-5, -3, -1, 1, 3, 5].map(|acc| half.code(acc, codes));
        assert_eq!(got, [1, 1, 3, 3, 5, 5]);
    }

    #[test]
    fn multipliers_that_are_no_numbers_are_refused() {
        for (a, out) in [(f32::NAN, 1.0), (1.0, 0.0), (3e38, 0.01)] {
            let error = FloatMultiplier::from_scales(a, 1.0, out).unwrap_err();
            assert!(matches!(error, Error::Multiplier { .. }));
        }
    }
}
