//! ONNX's operators: as ONNX Runtime computes them, and as the specification has them.

use crate::convention::Convention;
use crate::convention::group::{Group, ScaleZero, round};
use crate::convention::library::{Library, OtherRanges, signed, unsigned};
use crate::convention::support::Groups;
use crate::error::Result;
use crate::scheme::{Scheme, Symmetry};
use chopi_kernels::FloatType::{self, BF16, F16, F32, F64};
use chopi_kernels::Steps;

impl Convention {
    /// ONNX's QuantizeLinear and DequantizeLinear as ONNX Runtime 1.31 computes them on a CPU, with
    /// the parameters of its DynamicQuantizeLinear for unsigned 8-bit codes of `f32` data, else of
    /// its quantization tool (`onnxruntime/quantization/quant_utils.py`, `compute_scale_zp`).
    ///
    /// The range is extended to hold 0. Tool, in `f64`: s = (max − min)/(qmax − qmin),
    /// z = RNE(qmin − min/s) with that s, which then is rounded to the element type; s = 1, z = 0
    /// where s is less than the type's smallest normal number. Symmetric: s = max|x|/127 and /32767
    /// for int8 and int16, z = 0; max|x|/7.5 for int4; max|x|/((qmax − qmin)/2) and
    /// z = RNE((qmin + qmax)/2) for unsigned codes. DynamicQuantizeLinear, in `f32`: the same
    /// formulas, s = 1 for all-zero data only.
    ///
    /// Quantize: q = clamp(RNE(x/s) + z), the quotient in `f32` for `f16` data too, saturating.
    /// Dequantize: x̂ = (q − z)·s in `f32`, rounded to the element type. (ONNX's reference evaluator
    /// divides in `f16` for `f16` data and wraps beyond 2^31; ONNX Runtime is followed, and of its
    /// own two paths, which differ for NaN and |x/s| ≥ 2^31, the saturating one, with NaN by chopi's
    /// policy.)
    ///
    /// Supported: `f32`, `f16`; 2, 4, 8 and 16 bits, signed or unsigned; per tensor, per axis, and
    /// in blocks of which the last may be shorter.
    pub const ONNX: Self = Self(&Onnx::Runtime);

    /// ONNX's QuantizeLinear and DequantizeLinear as the text of the specification has them (opset 25),
    /// with `precision` FLOAT: the formulas of [`ONNX`](Self::ONNX), for `bf16` too, which ONNX Runtime
    /// does not implement.
    ///
    /// It is saved and found under its name, but is not in [`ALL`](Self::ALL): no library has all of it,
    /// so there are no vectors of one to compare with. The operators in `chopi::ndarray::onnx` are
    /// computed by it.
    ///
    /// Supported: `f32`, `f16`, `bf16`; bits, ranges and granularities of [`ONNX`](Self::ONNX).
    pub const ONNX_SPEC: Self = Self(&Onnx::Specification);
}

/// The sources of the operators' definition.
enum Onnx {
    Runtime,
    Specification,
}

impl Library for Onnx {
    fn name(&self) -> &'static str {
        match self {
            Self::Runtime => "onnx",
            Self::Specification => "onnx-spec",
        }
    }

    fn parameters(&self, group: Group<'_>) -> Result<ScaleZero> {
        let codes = (group.scheme.qmin, group.scheme.qmax);
        match (group.is_symmetric(), group.float, codes) {
            (false, F32, (0, 255)) => of_dynamic_quantize_linear(group),
            _ => self.of_tool(group),
        }
    }

    /// 0 for signed codes, RNE((qmin + qmax)/2) for unsigned ones.
    fn symmetric_zero_point(&self, scheme: &Scheme) -> i64 {
        match scheme.qmin >= 0 {
            true => ((scheme.qmin + scheme.qmax) as f64 / 2.0).round_ties_even() as i64,
            false => 0,
        }
    }

    fn steps(&self, _: &Scheme, _: FloatType) -> Steps {
        Steps::DivideAfter
    }

    fn float_types(&self) -> &'static [FloatType] {
        match self {
            Self::Runtime => &[F16, F32],
            Self::Specification => &[F16, BF16, F32],
        }
    }

    fn bits(&self) -> &'static [u32] {
        &[2, 4, 8, 16]
    }

    fn default_range(&self, bits: u32, symmetry: Symmetry) -> (i64, i64) {
        match symmetry {
            Symmetry::Asymmetric => unsigned(bits),
            Symmetry::Symmetric => signed(bits),
        }
    }

    fn other_ranges(&self) -> OtherRanges {
        OtherRanges::FullWidth
    }

    fn groups(&self) -> Groups {
        Groups::Ragged
    }
}

impl Onnx {
    /// The parameters of the quantization tool's `compute_scale_zp`, in `f64`.
    fn of_tool(&self, group: Group<'_>) -> Result<ScaleZero> {
        let group = group.with_zero();
        let (float, scheme) = (group.float, group.scheme);
        let scale = match group.is_symmetric() {
            true if scheme.bits >= 8 && scheme.qmin < 0 => group.abs_max() / group.qmax(),
            true => group.abs_max() / group.half_steps(F64),
            false => group.span_over_steps(),
        };
        if scale < float.min_positive() {
            return Ok(ScaleZero {
                scale: 1.0,
                zero_point: 0.0,
            });
        }
        let scale = group.checked(scale)?;
        let zero_point = match group.is_symmetric() {
            true => self.symmetric_zero_point(scheme) as f64,
            false => group
                .clamp(group.real_zero_point(F64, scale))
                .round_ties_even(),
        };
        Ok(ScaleZero {
            scale: round(float, scale),
            zero_point,
        })
    }
}

/// The parameters of DynamicQuantizeLinear, in `f32`.
fn of_dynamic_quantize_linear(group: Group<'_>) -> Result<ScaleZero> {
    let group = group.rounded_to(F32).with_zero();
    if group.min == 0.0 && group.max == 0.0 {
        return Ok(ScaleZero {
            scale: 1.0,
            zero_point: 0.0,
        });
    }
    let scale = group.checked(round(F32, group.span(F32) / group.steps(F32)))?;
    Ok(ScaleZero {
        scale,
        zero_point: group
            .clamp(group.real_zero_point(F32, scale))
            .round_ties_even(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convention::tests::parameters;
    use crate::quantizer::Chopi as Quantizer;
    use crate::scheme::CodeRange;

    #[test]
    fn a_range_of_255_quarters_has_the_scale_of_a_quarter() {
        for (convention, floats) in [
            (Convention::ONNX, &[F16, F32][..]),
            (Convention::ONNX_SPEC, &[F16, BF16, F32]),
        ] {
            let builder = Quantizer::builder().num_bits(8).convention(convention);
            assert_eq!(convention.float_types(), floats);
            for &float in floats {
                let of = |range| parameters(&builder, float, range).unwrap();
                assert_eq!(of((-21.25, 42.5)), (0.25, 85.0), "{float}");
                assert_eq!(of((0.0, 0.0)), (1.0, 0.0), "{float}");
            }
        }
    }

    #[test]
    fn symmetric_scales_depend_on_the_bits_and_zero_points_on_the_sign() {
        for (bits, range, abs_max, zero_point) in [
            (8, CodeRange::Signed, 127.0, 0.0),
            (16, CodeRange::Signed, 32767.0, 0.0),
            (4, CodeRange::Signed, 7.5, 0.0),
            (8, CodeRange::Unsigned, 127.5, 128.0),
            (4, CodeRange::Unsigned, 7.5, 8.0),
        ] {
            let builder = Quantizer::builder().num_bits(bits).symmetric(true);
            let builder = builder.range(range).convention(Convention::ONNX);
            let of_range = parameters(&builder, F32, (-abs_max, 1.0)).unwrap();
            assert_eq!(of_range, (1.0, zero_point), "{bits} {range:?}");
        }
    }
}
