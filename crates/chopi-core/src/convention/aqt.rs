//! AQT.

use crate::convention::Convention;
use crate::convention::group::{Group, ScaleZero, round, xla_reciprocal};
use crate::convention::library::{Library, narrow};
use crate::error::Result;
use crate::scheme::{Scheme, Symmetry};
use chopi_kernels::FloatType::{self, BF16, F16, F32};
use chopi_kernels::Steps;

impl Convention {
    /// AQT: aqtp 0.9 (`aqt.jax.v2`, `quantizer_make`), under jax 0.10.2 on a CPU, jitted.
    ///
    /// Symmetric only, codes in [−2^(b−1) + 1, 2^(b−1) − 1]. s = max|x|·(1/(2^(b−1) − ½)), the
    /// reciprocal rounded (to `f16` for `f16` data): XLA rewrites the division so. max|x| = 0 counts
    /// as 1. Quantize: q = RNE(clip(x·inv)), inv = 1/s, each operation rounded to the element type.
    /// Dequantize: x̂ = q·s.
    ///
    /// Supported: `f32`, `f16`, `bf16`; 2 to 8 bits; per tensor and per channel. XLA flushes
    /// subnormal numbers of `f32` and `bf16` to zero: so a subnormal max|x| counts as 1 too, and a scale
    /// that would be subnormal is refused; but chopi keeps the subnormal reciprocal of a scale beyond 2^126, for
    /// which XLA has 0. NaN is chopi's policy, where XLA's conversion gives 0.
    pub const AQT: Self = Self(&Aqt);
}

struct Aqt;

impl Library for Aqt {
    fn name(&self) -> &'static str {
        "aqt"
    }

    fn parameters(&self, group: Group<'_>) -> Result<ScaleZero> {
        let float = group.float;
        let group = group.rounded_to(float);
        // XLA has no subnormal numbers of `f32`; `f16` has no number so small but 0.
        let abs_max = match group.abs_max() {
            subnormal if subnormal < F32.min_positive() => 1.0,
            abs_max => abs_max,
        };
        let bound = round(float, (1_i64 << (group.scheme.bits - 1)) as f64 - 0.5);
        let scale = round(float, abs_max * xla_reciprocal(float, bound));
        if scale < float.compute().min_positive() {
            return Err(group.scale_error(scale));
        }
        Ok(ScaleZero {
            scale: group.checked(scale)?,
            zero_point: 0.0,
        })
    }

    fn steps(&self, _: &Scheme, _: FloatType) -> Steps {
        Steps::MultiplyAfter
    }

    /// 1/s in the element type, or 1 where that is infinite.
    fn reciprocal(&self, float: FloatType, scale: f64) -> f64 {
        match round(float, 1.0 / scale) {
            reciprocal if reciprocal.is_infinite() => 1.0,
            reciprocal => reciprocal,
        }
    }

    fn computes_in_element_type(&self) -> bool {
        true
    }

    fn float_types(&self) -> &'static [FloatType] {
        &[F16, BF16, F32]
    }

    fn bits(&self) -> &'static [u32] {
        &[2, 3, 4, 5, 6, 7, 8]
    }

    fn is_symmetric_only(&self, _: u32) -> bool {
        true
    }

    fn default_range(&self, bits: u32, _: Symmetry) -> (i64, i64) {
        narrow(bits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convention::tests::parameters;
    use crate::error::Error;
    use crate::quantizer::Chopi as Quantizer;

    #[test]
    fn scales_are_products_with_the_reciprocal_of_half_the_steps() {
        let builder = Quantizer::builder().num_bits(8).symmetric(true);
        let builder = builder.convention(Convention::AQT);
        let of = |range| parameters(&builder, F32, range).unwrap();
        let reciprocal = f64::from(1.0_f32 / 127.5);
        assert_eq!(of((-4.0, 1.0)), (4.0 * reciprocal, 0.0));
        assert_eq!(of((0.0, 0.0)), (reciprocal, 0.0));
        assert_eq!(of((0.0, 1e-40)), (reciprocal, 0.0));
        let refused = parameters(&builder, F32, (0.0, 2e-38));
        assert!(
            matches!(refused, Err(Error::Scale { group: 3, .. })),
            "{refused:?}"
        );
    }
}
