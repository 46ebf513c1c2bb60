//! PyTorch: its observers with `quantize_*`, and with `fake_quantize_*`.

use crate::convention::Convention;
use crate::convention::group::{Group, ScaleZero, round};
use crate::convention::library::{Library, OtherRanges, signed, unsigned};
use crate::error::Result;
use crate::scheme::{Granularity, Scheme, Symmetry};
use chopi_kernels::FloatType::{self, BF16, F16, F32, F64};
use chopi_kernels::Steps;

impl Convention {
    /// PyTorch 2.13: `MinMaxObserver`, `PerChannelMinMaxObserver`, `torch.quantize_per_tensor`,
    /// `torch.quantize_per_channel` (`ao/quantization/observer.py`, FBGEMM's `QuantUtilsAvx2.cc`,
    /// `affine_quantizer_base.cpp`), on an x86-64 CPU with AVX2.
    ///
    /// Parameters, in `f32`: the range is extended to hold 0; s = (max − min)/(qmax − qmin), at
    /// least 2^−23; z = clamp(qmin − RNE(min/s)). Symmetric: s = max|x|/((qmax − qmin)/2), at least
    /// 2^−23; z = 0 for signed codes, 128 for unsigned ones.
    ///
    /// Quantize, inv = 1/s: per tensor q = clamp(RNE(fma(x, inv, z))); per channel
    /// q = clamp(RNE(x·inv + z)), product and sum each rounded to `f32`. So the two differ near ties.
    /// That z is added before the rounding is peculiar to 2.13: up to 2.11 it was added after, as
    /// ARM builds still do. Dequantize: x̂ = (q − z)·s.
    ///
    /// Supported: `f32`; 8 bits, signed (qint8) or unsigned (quint8); per tensor and per channel.
    /// NaN has no stable code in PyTorch (255, 127 or 0); here it is chopi's policy. Scales that are
    /// not `f32` numbers are rounded to `f32` first, as `quantize_per_tensor` does.
    pub const TORCH: Self = Self(&Torch::Quantize);

    /// PyTorch 2.13: `torch.fake_quantize_per_tensor_affine` and `_per_channel_affine`
    /// (`FakeQuantPerTensorAffine.cpp`, `fake_quant_core.cpp`), with the observers of
    /// [`TORCH`](Self::TORCH).
    ///
    /// q = z + RNE(x·inv), clamped, inv = 1/s; x̂ = (q − z)·s; halves are computed in `f32`. The
    /// gradient passes where qmin ≤ unclamped q ≤ qmax.
    ///
    /// `f64` data are rounded to `f32` by the observers; s and inv are `f32` for them too; x·inv is an
    /// `f64` product, and (q − z)·s is rounded to `f32` per tensor, not per channel.
    ///
    /// Supported: `f32`, `f16`, `bf16`, `f64`; any range that holds 0, up to 16 bits; per tensor and per
    /// channel. Fake-quantize gives NaN the value of qmin, as PyTorch does; quantize, which PyTorch
    /// does not have here, follows chopi's policy. +∞ and x·inv ≥ 2^63 saturate to qmax per channel
    /// too, where PyTorch's conversion to `int64` makes them qmin.
    pub const TORCH_FAKE: Self = Self(&Torch::FakeQuantize);
}

/// PyTorch by its operations.
enum Torch {
    Quantize,
    FakeQuantize,
}

impl Library for Torch {
    fn name(&self) -> &'static str {
        match self {
            Self::Quantize => "torch",
            Self::FakeQuantize => "torch-fake",
        }
    }

    fn parameters(&self, group: Group<'_>) -> Result<ScaleZero> {
        let group = group.rounded_to(F32).with_zero();
        let scale = match group.is_symmetric() {
            true => group.abs_max() / group.half_steps(F32),
            false => group.span(F32) / group.steps(F32),
        };
        let scale = group.checked(round(F32, scale).max(f64::from(f32::EPSILON)))?;
        let zero_point = match group.is_symmetric() {
            true => self.symmetric_zero_point(group.scheme) as f64,
            false => group.clamp(group.qmin() - round(F32, group.min / scale).round_ties_even()),
        };
        Ok(ScaleZero { scale, zero_point })
    }

    /// 0 for signed codes; for unsigned ones ⌊(qmin + qmax)/2⌋, but 128 of [0, 255] and 32768 of
    /// [0, 65535].
    fn symmetric_zero_point(&self, scheme: &Scheme) -> i64 {
        match (scheme.qmin, scheme.qmax) {
            (0, qmax @ (255 | 65535)) => (qmax + 1) / 2,
            (qmin, qmax) if qmin >= 0 => (qmin + qmax) / 2,
            _ => 0,
        }
    }

    fn scale_type(&self, _: FloatType) -> FloatType {
        F32
    }

    fn steps(&self, scheme: &Scheme, _: FloatType) -> Steps {
        match (self, scheme.granularity) {
            (Self::FakeQuantize, _) => Steps::MultiplyAfter,
            (Self::Quantize, Granularity::PerTensor) => Steps::Fused,
            (Self::Quantize, _) => Steps::MultiplyRounded,
        }
    }

    fn reciprocal(&self, float: FloatType, scale: f64) -> f64 {
        match self {
            Self::Quantize => float.compute().round(1.0 / scale),
            Self::FakeQuantize => F32.round(1.0 / scale),
        }
    }

    fn has_f32_values(&self, scheme: &Scheme) -> bool {
        matches!(self, Self::FakeQuantize) && scheme.granularity == Granularity::PerTensor
    }

    fn nan_is_smallest(&self) -> bool {
        matches!(self, Self::FakeQuantize)
    }

    fn has_torch_gradients(&self) -> bool {
        matches!(self, Self::FakeQuantize)
    }

    fn float_types(&self) -> &'static [FloatType] {
        match self {
            Self::Quantize => &[F32],
            Self::FakeQuantize => &[F16, BF16, F32, F64],
        }
    }

    fn bits(&self) -> &'static [u32] {
        match self {
            Self::Quantize => &[8],
            Self::FakeQuantize => &[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
        }
    }

    fn default_range(&self, bits: u32, symmetry: Symmetry) -> (i64, i64) {
        match symmetry {
            Symmetry::Asymmetric => unsigned(bits),
            Symmetry::Symmetric => signed(bits),
        }
    }

    fn other_ranges(&self) -> OtherRanges {
        match self {
            Self::Quantize => OtherRanges::FullWidth,
            Self::FakeQuantize => OtherRanges::Any,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convention::tests::parameters;
    use crate::quantizer::Chopi as Quantizer;
    use crate::scheme::CodeRange;

    #[test]
    fn a_range_of_255_quarters_has_the_scale_of_a_quarter() {
        for convention in [Convention::TORCH, Convention::TORCH_FAKE] {
            let builder = Quantizer::builder().num_bits(8).convention(convention);
            let of = |range| parameters(&builder, F32, range).unwrap();
            assert_eq!(of((-21.25, 42.5)), (0.25, 85.0));
            assert_eq!(of((0.5, 63.75)), (0.25, 0.0));
            assert_eq!(of((0.0, 0.0)), (1.0 / 8_388_608.0, 0.0));
        }
    }

    #[test]
    fn the_zero_point_of_unsigned_symmetric_codes_is_in_their_middle() {
        let builder = Quantizer::builder().num_bits(8).symmetric(true);
        let signed = builder.clone().convention(Convention::TORCH);
        assert_eq!(parameters(&signed, F32, (-127.5, 3.0)).unwrap(), (1.0, 0.0));
        let unsigned = signed.range(CodeRange::Unsigned);
        assert_eq!(
            parameters(&unsigned, F32, (-127.5, 3.0)).unwrap(),
            (1.0, 128.0)
        );
        let four = builder.num_bits(4).convention(Convention::TORCH_FAKE);
        let four = four.range(CodeRange::Unsigned);
        assert_eq!(parameters(&four, F32, (-7.5, 3.0)).unwrap(), (1.0, 7.0));
    }
}
