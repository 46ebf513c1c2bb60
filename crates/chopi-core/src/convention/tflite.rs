//! TensorFlow Lite.

use crate::convention::Convention;
use crate::convention::group::{Group, ScaleZero, round};
use crate::convention::library::{Library, narrow, signed};
use crate::error::Result;
use crate::scheme::{Rounding, Scheme, Symmetry};
use chopi_kernels::FloatType::{self, F32};
use chopi_kernels::Steps;

impl Convention {
    /// TensorFlow Lite's 8-bit quantization specification, as ai-edge-litert 2.3 computes it: the
    /// parameters of its converter (`tflite::optimize`), the codes of its reference QUANTIZE kernel.
    ///
    /// In `f32`. Symmetric (weights): [−127, 127], s = max|x|/127, 16 bits max|x|/32767, s = 1 for
    /// all-zero data. Asymmetric (activations): [−128, 127], the range extended to hold 0,
    /// s = (max − min)/255 with max − min at least the smallest normal number,
    /// z = clamp(round half away(−128 − min/s)). Quantize: q = clamp(round half away(x/s) + z).
    /// Dequantize: x̂ = (q − z)·s.
    ///
    /// TFLite disagrees with itself: its optimized kernels and XNNPACK multiply by 1/s and round
    /// half to even, and its converter multiplies weights by 127/max|x|; the reference kernel is the
    /// specification's arithmetic. Where that kernel wraps (NaN, |x/s| ≥ 2^31), chopi saturates, and
    /// NaN is chopi's policy. The converter writes scale 0 for an all-zero channel, and its calibrator
    /// takes subnormal data for zero.
    ///
    /// Supported: `f32`; 8 bits, and 16 symmetric; per tensor and per channel.
    pub const TFLITE: Self = Self(&TfLite);
}

struct TfLite;

impl Library for TfLite {
    fn name(&self) -> &'static str {
        "tflite"
    }

    fn parameters(&self, group: Group<'_>) -> Result<ScaleZero> {
        let float = group.float.compute();
        let group = group.rounded_to(float).with_zero();
        let smallest = F32.min_positive();
        let (abs_max, qmax) = (group.abs_max(), group.qmax());
        let scale = match group.is_symmetric() {
            true if group.scheme.bits > 8 => abs_max.max(smallest) / qmax,
            true if abs_max == 0.0 => 1.0,
            true => abs_max / qmax,
            false => group.span(float).max(smallest) / group.steps(float),
        };
        let scale = group.checked(round(float, scale))?;
        let zero_point = match group.is_symmetric() {
            true => 0.0,
            // Half away from zero.
            false => group.clamp(group.real_zero_point(float, scale).round()),
        };
        Ok(ScaleZero { scale, zero_point })
    }

    fn steps(&self, _: &Scheme, _: FloatType) -> Steps {
        Steps::DivideAfter
    }

    fn default_rounding(&self) -> Rounding {
        Rounding::NearestAway
    }

    fn float_types(&self) -> &'static [FloatType] {
        &[F32]
    }

    fn bits(&self) -> &'static [u32] {
        &[8, 16]
    }

    fn is_symmetric_only(&self, bits: u32) -> bool {
        bits == 16
    }

    fn default_range(&self, bits: u32, symmetry: Symmetry) -> (i64, i64) {
        match symmetry {
            Symmetry::Asymmetric => signed(bits),
            Symmetry::Symmetric => narrow(bits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convention::tests::parameters;
    use crate::quantizer::Chopi as Quantizer;

    #[test]
    fn zero_points_are_rounded_half_away_from_zero() {
        let builder = Quantizer::builder()
            .num_bits(8)
            .convention(Convention::TFLITE);
        let of = |range| parameters(&builder, F32, range).unwrap();
        assert_eq!(of((-21.25, 42.5)), (0.25, -43.0));
        assert_eq!(of((-0.375, 63.375)), (0.25, -127.0));
    }

    #[test]
    fn weights_have_narrow_codes_and_a_scale_of_1_where_they_are_zero() {
        let builder = Quantizer::builder().num_bits(8).symmetric(true);
        let builder = builder.convention(Convention::TFLITE);
        let of = |range| parameters(&builder, F32, range).unwrap();
        assert_eq!(of((-63.5, 1.0)), (0.5, 0.0));
        assert_eq!(of((0.0, 0.0)), (1.0, 0.0));
    }
}
