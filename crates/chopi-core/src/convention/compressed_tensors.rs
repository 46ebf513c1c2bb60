//! compressed-tensors.

use crate::convention::Convention;
use crate::convention::group::{Group, ScaleZero, round};
use crate::convention::library::{Library, signed};
use crate::convention::support::Groups;
use crate::error::Result;
use crate::scheme::{Scheme, Symmetry};
use chopi_kernels::FloatType::{self, BF16, F16, F32, F64};
use chopi_kernels::Steps;

impl Convention {
    /// compressed-tensors 0.20 on a CPU (`quantization/utils/helpers.py`,
    /// `quantization/lifecycle/forward.py`).
    ///
    /// Everything in the element type, each operation rounded to it. The range is extended to hold
    /// 0. Symmetric: s = max|x|/((qmax − qmin)/2), that is 127.5 or 7.5. Asymmetric, with signed
    /// codes: s = (max − min)/(qmax − qmin), z = RNE(clamp(qmin − min/s)). s = 0 becomes the type's
    /// machine epsilon. Quantize: q = RNE(clamp(x/s + z)). Dequantize: x̂ = (q − z)·s.
    ///
    /// Supported: `f32`, `f16`, `bf16`, `f64`, with scales of the same type; 2 to 8 bits, signed;
    /// per tensor, per channel, and per group where the size divides the axis. NaN is chopi's
    /// policy, where compressed-tensors gives 0, and stays NaN in fake-quantize, as there. (Its dynamic per-tensor strategy computes z of
    /// half data in `f32`; observers do not, and are followed. Its fake-quantization, which keeps the
    /// codes floats, gives −0 where negative values have the code 0 and z = 0; chopi gives 0.)
    pub const COMPRESSED_TENSORS: Self = Self(&CompressedTensors);
}

struct CompressedTensors;

impl Library for CompressedTensors {
    fn name(&self) -> &'static str {
        "compressed-tensors"
    }

    fn parameters(&self, group: Group<'_>) -> Result<ScaleZero> {
        let float = group.float;
        let group = group.rounded_to(float).with_zero();
        let scale = match group.is_symmetric() {
            true => round(float, group.abs_max() / group.half_steps(float)),
            false => round(float, group.span(float) / group.steps(float)),
        };
        let zero_point = match group.is_symmetric() {
            true => 0.0,
            false => group
                .clamp(group.real_zero_point(float, scale))
                .round_ties_even(),
        };
        // The zero point is computed before the scale of 0 is replaced; where it is 0/0, it is 0.
        let (scale, zero_point) = match scale == 0.0 {
            true if zero_point.is_nan() => (float.epsilon(), 0.0),
            true => (float.epsilon(), zero_point),
            false => (scale, zero_point),
        };
        Ok(ScaleZero {
            scale: group.checked(scale)?,
            zero_point,
        })
    }

    fn steps(&self, _: &Scheme, _: FloatType) -> Steps {
        Steps::DivideRounded
    }

    fn computes_in_element_type(&self) -> bool {
        true
    }

    fn float_types(&self) -> &'static [FloatType] {
        &[F16, BF16, F32, F64]
    }

    fn bits(&self) -> &'static [u32] {
        &[2, 3, 4, 5, 6, 7, 8]
    }

    fn default_range(&self, bits: u32, _: Symmetry) -> (i64, i64) {
        signed(bits)
    }

    fn groups(&self) -> Groups {
        Groups::Whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convention::tests::parameters;
    use crate::quantizer::Chopi as Quantizer;

    #[test]
    fn scales_are_of_half_the_steps_or_of_all() {
        let builder = Quantizer::builder().convention(Convention::COMPRESSED_TENSORS);
        let four = builder.clone().num_bits(4).symmetric(true);
        assert_eq!(parameters(&four, BF16, (-7.5, 3.0)).unwrap(), (1.0, 0.0));
        let eight = builder.num_bits(8);
        assert_eq!(
            parameters(&eight, F32, (-21.25, 42.5)).unwrap(),
            (0.25, -43.0)
        );
    }

    #[test]
    fn a_scale_of_zero_becomes_the_epsilon_of_the_type() {
        let builder = Quantizer::builder().convention(Convention::COMPRESSED_TENSORS);
        for float in [F16, BF16, F32, F64] {
            let of_zeros = parameters(&builder, float, (0.0, 0.0)).unwrap();
            assert_eq!(of_zeros, (float.epsilon(), 0.0), "{float}");
        }
        // −min/s is infinite here, and the zero point is computed before s is replaced.
        let tiny = parameters(&builder, F16, (-F16.round(1e-7), 0.0)).unwrap();
        assert_eq!(tiny, (F16.epsilon(), 127.0));
    }
}
