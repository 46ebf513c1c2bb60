//! chopi's own numbers.

use crate::convention::Convention;
use crate::convention::group::{Group, ScaleZero};
use crate::convention::library::{Library, OtherRanges, signed, unsigned};
use crate::convention::support::Groups;
use crate::error::{Error, Result};
use crate::scheme::{Rounding, Scheme, Symmetry};
use chopi_kernels::FloatType::{self, BF16, F16, F32, F64};
use chopi_kernels::Steps;

impl Convention {
    /// chopi's own numbers, the default.
    ///
    /// 1. Range: symmetric [−2^(b−1), 2^(b−1) − 1] with z = 0; asymmetric [0, 2^b − 1].
    /// 2. Statistics: the exact min and max of each group; NaN or ±∞ is an error.
    /// 3. Parameters, in `f64`. Symmetric: s = max(|min|, |max|)/qmax; values that have no code, as
    ///    negative ones have none in an unsigned range, are an error. Asymmetric:
    ///    s = (max − min)/(qmax − qmin), at least max(|min|, |max|)·2^−24 (2^−30 for `f64`
    ///    tensors), and z = RNE(qmin − min/s). In both s is at least the compute type's smallest
    ///    normal number, z comes from that s, and then s is rounded to the compute type, once.
    ///    Last, s is at most the largest number of the compute type with which |q − z|·s exceeds the
    ///    largest finite number of the element type for no code q that min or max may get: so every
    ///    value from min to max comes back finite. (It matters within a step of that number, as for
    ///    masks of −3.4·10^38.)
    /// 4. A constant group (min = max = c) comes back exactly. c = 0 gives s = 1 and
    ///    z = clamp(0, qmin, qmax); otherwise s = |c| and z = clamp(g, qmin, qmax) − g with g the
    ///    sign of c.
    /// 5. Quantize: q = clamp(RNE(x/s + z), qmin, qmax). The quotient is rounded once, to the
    ///    compute type; the sum is exact. ±∞ saturates; NaN is an error, or z.
    /// 6. Dequantize: x̂ = (q − z)·s. The difference is exact; the product is rounded once to the
    ///    compute type, and for `f16` and `bf16` then to the element type.
    /// 7. Fake-quantize equals dequantize(quantize(x)) bit for bit, except that NaN stays NaN.
    ///
    /// The compute type is `f64` for `f64` tensors, else `f32`.
    pub const CHOPI: Self = Self(&Chopi);
}

struct Chopi;

impl Library for Chopi {
    fn name(&self) -> &'static str {
        "chopi"
    }

    fn parameters(&self, group: Group<'_>) -> Result<ScaleZero> {
        if group.is_symmetric()
            && group.min < 0.0
            && group.min / group.abs_max() * group.qmax() < group.qmin() - 0.5
        {
            return Err(Error::SymmetricRange {
                group: group.index,
                min: group.min,
                qmin: group.scheme.qmin,
                qmax: group.scheme.qmax,
            });
        }
        if group.min == group.max {
            return Ok(of_constant_group(&group));
        }
        let compute = group.float.compute();
        let scale = if group.is_symmetric() {
            group.abs_max() / group.qmax()
        } else {
            let least = match group.float {
                F64 => 1.0 / f64::from(1 << 30),
                _ => 1.0 / f64::from(1 << 24),
            };
            group.span_over_steps().max(group.abs_max() * least)
        };
        let scale = group.checked(scale.max(compute.min_positive()))?;
        let zero_point = match group.is_symmetric() {
            true => 0.0,
            false => group.real_zero_point(F64, scale).round_ties_even(),
        };
        let scale = compute.round(scale);
        Ok(ScaleZero {
            scale: finite_scale(&group, scale, zero_point),
            zero_point,
        })
    }

    fn steps(&self, _: &Scheme, _: FloatType) -> Steps {
        Steps::DivideExact
    }

    fn has_zero_points_in_range(&self) -> bool {
        false
    }

    fn float_types(&self) -> &'static [FloatType] {
        &[F16, BF16, F32, F64]
    }

    fn default_range(&self, bits: u32, symmetry: Symmetry) -> (i64, i64) {
        match symmetry {
            Symmetry::Asymmetric => unsigned(bits),
            Symmetry::Symmetric => signed(bits),
        }
    }

    fn other_ranges(&self) -> OtherRanges {
        OtherRanges::Any
    }

    fn has_other_roundings(&self) -> bool {
        true
    }

    fn groups(&self) -> Groups {
        Groups::Ragged
    }
}

/// The largest number of the compute type, at most `scale`, with which |q − z|·s exceeds the largest
/// number of the element type for no code q that min or max may get: the nearest one, or both where two
/// are nearest or the rounding is not to nearest.
fn finite_scale(group: &Group<'_>, mut scale: f64, zero_point: f64) -> f64 {
    let (compute, largest) = (group.float.compute(), group.float.max());
    let (low, high) = (group.qmin() - zero_point, group.qmax() - zero_point);
    if low.abs().max(high.abs()) * scale < largest / 2.0 {
        return scale;
    }
    let to_nearest = matches!(
        group.scheme.rounding,
        Rounding::NearestEven | Rounding::NearestAway
    );
    loop {
        let mut steps: f64 = 0.0;
        for x in [group.min, group.max] {
            let quotient = compute.round(x / scale);
            for code in [quotient.floor(), quotient.ceil()] {
                if !to_nearest || (quotient - code).abs() <= 0.5 {
                    steps = steps.max(code.clamp(low, high).abs());
                }
            }
        }
        // A fused product and sum has the sign of the exact one.
        let exceeds = |scale: f64| steps.mul_add(scale, -largest) > 0.0;
        if !exceeds(scale) {
            return scale;
        }
        scale = compute.round(largest / steps);
        if exceeds(scale) {
            scale = match compute {
                F64 => scale.next_down(),
                _ => f64::from((scale as f32).next_down()),
            };
        }
    }
}

/// The parameters under which a group whose elements all equal c comes back exactly.
fn of_constant_group(group: &Group<'_>) -> ScaleZero {
    let c = group.min;
    let sign = if c == 0.0 { 0.0 } else { c.signum() };
    ScaleZero {
        scale: if c == 0.0 { 1.0 } else { c.abs() },
        zero_point: match group.is_symmetric() {
            true => 0.0,
            false => group.clamp(sign) - sign,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convention::tests::parameters;
    use crate::quantizer::Chopi as Quantizer;

    #[test]
    fn a_range_of_255_quarters_has_the_scale_of_a_quarter() {
        let builder = Quantizer::builder().num_bits(8);
        for float in [F16, BF16, F32, F64] {
            let of_range = parameters(&builder, float, (-21.25, 42.5)).unwrap();
            assert_eq!(of_range, (0.25, 85.0), "{float}");
        }
        let builder = Quantizer::builder().num_bits(4).symmetric(true);
        assert_eq!(parameters(&builder, F32, (-3.5, 2.0)).unwrap(), (0.5, 0.0));
    }

    #[test]
    fn constant_groups_have_a_code_that_comes_back_exactly() {
        let builder = Quantizer::builder().num_bits(8);
        assert_eq!(parameters(&builder, F32, (0.0, 0.0)).unwrap(), (1.0, 0.0));
        assert_eq!(parameters(&builder, F32, (3.0, 3.0)).unwrap(), (3.0, 0.0));
        assert_eq!(parameters(&builder, F32, (-3.0, -3.0)).unwrap(), (3.0, 1.0));
    }

    #[test]
    fn a_symmetric_scheme_refuses_values_without_codes() {
        use crate::scheme::CodeRange::{Custom, Unsigned};
        let symmetric = Quantizer::builder().num_bits(8).symmetric(true);
        let unsigned = symmetric.clone().range(Unsigned);
        assert_eq!(
            parameters(&unsigned, F32, (0.0, 255.0)).unwrap(),
            (1.0, 0.0)
        );
        for range in [(-1.0, 255.0), (-3.0, -3.0), (-1.0, 0.0)] {
            let error = parameters(&unsigned, F32, range).unwrap_err().to_string();
            let down = format!("holds values down to {}, which", range.0);
            assert!(error.contains(&down), "{error}");
        }
        // What rounds to the smallest code has one.
        let lopsided = symmetric.range(Custom { qmin: -3, qmax: 7 });
        assert_eq!(parameters(&lopsided, F32, (-3.5, 7.0)).unwrap(), (1.0, 0.0));
        assert!(parameters(&lopsided, F32, (-3.6, 7.0)).is_err());
    }

    #[test]
    fn a_narrow_range_far_from_zero_has_a_scale_that_floats_can_resolve() {
        let builder = Quantizer::builder().num_bits(8);
        let max = 1024.0 + 1.0 / 1024.0;
        let of_range = parameters(&builder, F32, (1024.0, max)).unwrap();
        let steps = f64::from(1 << 24);
        assert_eq!(of_range, (max / steps, 16.0 - steps));
    }

    #[test]
    fn every_value_up_to_the_largest_comes_back_finite() {
        // Symmetric, the largest number is as far from 0 as before but for the last bit; of a range twice
        // as wide as there are numbers, the step is that of the side with more codes.
        let max = f64::from(f32::MAX);
        let symmetric = Quantizer::builder().num_bits(8).symmetric(true);
        let (scale, _) = parameters(&symmetric, F32, (-max, 0.0)).unwrap();
        assert_eq!(scale, f64::from((f32::MAX / 127.0).next_down()));
        let asymmetric = Quantizer::builder().num_bits(8);
        let of_range = parameters(&asymmetric, F32, (-max, max)).unwrap();
        assert_eq!(of_range, (max / 128.0, 128.0));
        let of_range = parameters(&asymmetric, F16, (-65504.0, 65504.0)).unwrap();
        assert_eq!(of_range, (65504.0 / 128.0, 128.0));
        // Farther away nothing changes.
        let of_range = parameters(&symmetric, F32, (-max / 2.0, 0.0)).unwrap();
        assert_eq!(of_range, (f64::from(f32::MAX / 2.0 / 127.0), 0.0));
    }
}
