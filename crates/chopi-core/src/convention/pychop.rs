//! pychop, with each of its backends.

use crate::convention::Convention;
use crate::convention::group::{Group, ScaleZero, round, xla_reciprocal};
use crate::convention::library::{Library, signed, unsigned};
use crate::error::{Error, Result};
use crate::scheme::{Scheme, Symmetry};
use chopi_kernels::FloatType::{self, BF16, F16, F32, F64};
use chopi_kernels::Steps;

impl Convention {
    /// pychop 0.6.2 with its NumPy backend (`pychop/np/integer.py`), under NumPy 2.
    ///
    /// Range: symmetric [−2^(b−1), 2^(b−1) − 1]; asymmetric [0, 2^(b−1) − 1], which uses b − 1
    /// bits. Parameters, in the input's type: s = max(max − min, 10⁻⁵)/(qmax − qmin), for a
    /// symmetric scheme too (so data that are not centred on zero are clipped);
    /// z = RNE(qmin − min/s) as a 32-bit integer, 0 for a symmetric scheme. Quantize:
    /// clamp(RNE(x/s + z)), the quotient in the input's type, the sum in `f64`. Dequantize:
    /// (q − z)·s. A per-channel scheme is per tensor for arrays of one dimension or none.
    ///
    /// Where pychop warns and goes on, chopi refuses: a zero point that does not fit `i32` (an
    /// offset over 2^31 steps; pychop's cast gives what the CPU makes of it), a range that
    /// overflows the input's type (pychop's scale becomes infinite and its result NaN), NaN and
    /// infinities in the calibration data. Where pychop returns `f64` from `dequantize` for `f32`
    /// data, and for `f16` (NumPy's promotion of `int32 * float32`), chopi returns that product
    /// rounded to `f32`, and for `f16` then to `f16`.
    /// Where q − z is beyond `i32` (z within 2^15 of −2^31), pychop's 8-bit and 16-bit codes wrap
    /// around in it; chopi's difference is exact.
    /// pychop treats a negative axis as "per tensor"; chopi counts it from the end. NaN is chopi's
    /// policy, where pychop casts it to an integer; infinities saturate, as in pychop.
    ///
    /// Supported: `f32`, `f64`, `f16`; the two default ranges, of bits whose bounds the element type
    /// holds exactly (2..=25 for `f32`, 2..=12 for `f16`); per tensor and per channel.
    pub const PYCHOP: Self = Self(&Pychop::NumPy);

    /// pychop 0.6.2 with its PyTorch backend (`pychop/tch/integer.py`), under torch 2.13.
    ///
    /// As [`PYCHOP`](Self::PYCHOP), but the zero point stays real, z = qmin − min/s, and
    /// q = clamp(RNE(x/s + z)) and x̂ = (q − z)·s are computed in the element type, each operation
    /// rounded to it. pychop calibrates anew on every `quantize`; chopi keeps its parameters. NaN is
    /// chopi's policy; where that is the zero point, it is rounded to an integer.
    ///
    /// Supported: `f32`, `f64`, `f16`, `bf16`; ranges and granularities as there.
    pub const PYCHOP_TORCH: Self = Self(&Pychop::Torch);

    /// pychop 0.6.2 with its JAX backend (`pychop/jx/integer.py`), under jax 0.10.2 on a CPU.
    ///
    /// Parameters as [`PYCHOP`](Self::PYCHOP), but the conversion of z to `int32` saturates, and a
    /// per-channel scale is (max − min) times the rounded reciprocal of qmax − qmin: XLA rewrites
    /// divisions by a broadcast number so. For the same reason
    /// q = clamp(RNE(x·inv + z)), inv = 1/s in `f32` (rounded to `f16` for `f16` data), the product
    /// and the sum each rounded to the element type. x̂ = (q − z)·s likewise.
    ///
    /// Supported: `f32`, `f16`, `bf16`; ranges and granularities as there. XLA flushes subnormal
    /// `f32` numbers to zero; no code depends on it, since s is at least 10⁻⁵/(qmax − qmin). Scales
    /// whose reciprocal `f16` does not hold (1/65520 and less) are refused for `f16` data. NaN is chopi's
    /// policy, where the conversion gives 0, whatever z is.
    pub const PYCHOP_JAX: Self = Self(&Pychop::Jax);
}

/// pychop by its backends.
enum Pychop {
    NumPy,
    Torch,
    Jax,
}

impl Library for Pychop {
    fn name(&self) -> &'static str {
        match self {
            Self::NumPy => "pychop",
            Self::Torch => "pychop-torch",
            Self::Jax => "pychop-jax",
        }
    }

    fn parameters(&self, group: Group<'_>) -> Result<ScaleZero> {
        let float = group.float;
        let group = group.rounded_to(float);
        let span = group.span(float).max(round(float, 1e-5));
        let steps = group.steps(float);
        let scale = match self {
            Self::Jax if group.is_per_channel() => span * xla_reciprocal(float, steps),
            _ => span / steps,
        };
        let scale = group.checked(round(float, scale))?;
        let real = match group.is_symmetric() {
            true => 0.0,
            false => group.real_zero_point(float, scale),
        };
        let (least, most) = (f64::from(i32::MIN), f64::from(i32::MAX));
        let zero_point = match self {
            Self::NumPy => real.round_ties_even(),
            Self::Torch => real,
            Self::Jax => real.round_ties_even().clamp(least, most),
        };
        if matches!(self, Self::NumPy) && !(least..=most).contains(&zero_point) {
            return Err(Error::ZeroPoint {
                group: group.index,
                zero_point,
                expected: "a 32-bit integer".to_owned(),
            });
        }
        Ok(ScaleZero { scale, zero_point })
    }

    fn steps(&self, _: &Scheme, float: FloatType) -> Steps {
        match self {
            // The `f64` sum of an `f32` quotient and an integer is exact wherever it is not clamped.
            Self::NumPy if float != F64 => Steps::DivideExact,
            Self::NumPy | Self::Torch => Steps::DivideRounded,
            Self::Jax => Steps::MultiplyRounded,
        }
    }

    fn reciprocal(&self, float: FloatType, scale: f64) -> f64 {
        xla_reciprocal(float, scale)
    }

    fn computes_in_element_type(&self) -> bool {
        true
    }

    fn has_real_zero_points(&self) -> bool {
        matches!(self, Self::Torch)
    }

    fn has_zero_points_in_range(&self) -> bool {
        false
    }

    fn float_types(&self) -> &'static [FloatType] {
        match self {
            Self::NumPy => &[F16, F32, F64],
            Self::Torch => &[F16, BF16, F32, F64],
            Self::Jax => &[F16, BF16, F32],
        }
    }

    fn default_range(&self, bits: u32, symmetry: Symmetry) -> (i64, i64) {
        match symmetry {
            Symmetry::Asymmetric => unsigned(bits - 1),
            Symmetry::Symmetric => signed(bits),
        }
    }

    fn per_channel_min_rank(&self) -> usize {
        2
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convention::tests::parameters;
    use crate::quantizer::Chopi as Quantizer;

    #[test]
    fn asymmetric_codes_have_a_bit_less() {
        for (backend, zero_point) in [
            (Convention::PYCHOP, 8.0),
            (Convention::PYCHOP_TORCH, 7.5),
            (Convention::PYCHOP_JAX, 8.0),
        ] {
            let builder = Quantizer::builder().num_bits(8).convention(backend);
            let scheme = builder.scheme().unwrap();
            assert_eq!((scheme.qmin, scheme.qmax), (0, 127));
            let of_range = parameters(&builder, F32, (-1.875, 29.875)).unwrap();
            assert_eq!(of_range, (0.25, zero_point), "{backend:?}");
        }
    }

    #[test]
    fn symmetric_scales_are_of_the_span() {
        let builder = Quantizer::builder().num_bits(8).symmetric(true);
        let builder = builder.convention(Convention::PYCHOP);
        assert_eq!(
            parameters(&builder, F32, (0.0, 63.75)).unwrap(),
            (0.25, 0.0)
        );
    }

    #[test]
    fn a_zero_point_beyond_32_bits_is_refused_or_saturates_by_the_backend() {
        let builder = Quantizer::builder().num_bits(8);
        let numpy = builder.clone().convention(Convention::PYCHOP);
        let refused = parameters(&numpy, F32, (1e9, 1e9));
        assert!(
            matches!(refused, Err(Error::ZeroPoint { group: 3, .. })),
            "{refused:?}"
        );
        let jax = builder.convention(Convention::PYCHOP_JAX);
        let (_, zero_point) = parameters(&jax, F32, (1e9, 1e9)).unwrap();
        assert_eq!(zero_point, f64::from(i32::MIN));
    }
}
