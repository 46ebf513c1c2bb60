//! The conventions that have a name.

use super::{
    Arithmetic, ConstantGroup, Convention, DefaultRange, FakeQuantizedNan, Groups, LearnedGradient,
    Parameters, ScaleFloor, Scaling, SpanDivision, Support, SymmetricScale, SymmetricZero,
    ZeroPointAdd, ZeroPointRule,
};
use crate::dtype::FloatType::{BF16, F16, F32, F64};
use crate::scheme::Rounding;

impl Convention {
    /// All named conventions.
    pub const ALL: &'static [Self] = &[
        Self::CHOPI,
        Self::PYCHOP,
        Self::PYCHOP_TORCH,
        Self::PYCHOP_JAX,
        Self::TORCH,
        Self::TORCH_FAKE,
        Self::ONNX,
        Self::COMPRESSED_TENSORS,
        Self::TFLITE,
        Self::AQT,
    ];

    /// chopi's own numbers, the default.
    ///
    /// 1. Range: symmetric [−2^(b−1), 2^(b−1) − 1] with z = 0; asymmetric [0, 2^b − 1].
    /// 2. Statistics: the exact min and max of each group; NaN or ±∞ is an error.
    /// 3. Parameters, in `f64`. Symmetric: s = max(|min|, |max|)/qmax. Asymmetric:
    ///    s = (max − min)/(qmax − qmin), at least max(|min|, |max|)·2^−24 (2^−30 for `f64`
    ///    tensors), and z = RNE(qmin − min/s). In both s is at least the compute type's smallest
    ///    normal number, z comes from that s, and then s is rounded to the compute type, once.
    /// 4. A constant group (min = max = c) comes back exactly. c = 0 gives s = 1 and
    ///    z = clamp(0, qmin, qmax); otherwise s = |c| and z = clamp(g, qmin, qmax) − g with g the
    ///    sign of c. (A symmetric scheme keeps z = 0 even where that clips: an unsigned symmetric
    ///    range has no code for a negative c.)
    /// 5. Quantize: q = clamp(RNE(x/s + z), qmin, qmax). The quotient is rounded once, to the
    ///    compute type; the sum is exact. ±∞ saturates; NaN is an error, or z.
    /// 6. Dequantize: x̂ = (q − z)·s. The difference is exact; the product is rounded once to the
    ///    compute type, and for `f16` and `bf16` then to the element type.
    /// 7. Fake-quantize equals dequantize(quantize(x)) bit for bit, except that NaN stays NaN.
    ///
    /// The compute type is `f64` for `f64` tensors, else `f32`.
    pub const CHOPI: Self = Self {
        name: "chopi",
        support: Support {
            floats: &[F16, BF16, F32, F64],
            bits: &[],
            any_range: true,
            any_sign: true,
            symmetric_only: &[],
            any_rounding: true,
            groups: Groups::Ragged,
            zero_point_in_range: false,
        },
        asymmetric_range: DefaultRange::Unsigned,
        symmetric_range: DefaultRange::Signed,
        parameters: Parameters {
            arithmetic: Arithmetic::F64,
            scale_type: Arithmetic::Compute,
            always_include_zero: false,
            symmetric_scale: SymmetricScale::AbsMaxOverQmax,
            symmetric_zero: SymmetricZero::Zero,
            span_division: SpanDivision::Divide,
            scale_floor: ScaleFloor::Relative,
            constant_group: ConstantGroup::Exact,
            zero_point: ZeroPointRule::Rounded,
        },
        parameters_u8: None,
        arithmetic: Arithmetic::Compute,
        scaling: Scaling::Divide,
        zero_point_add: ZeroPointAdd::Exact,
        zero_point_add_grouped: ZeroPointAdd::Exact,
        value: Arithmetic::Compute,
        value_grouped: Arithmetic::Compute,
        fake_quantized_nan: FakeQuantizedNan::NaN,
        rounding: Rounding::NearestEven,
        learned_gradient: LearnedGradient::Exact,
        per_channel_min_rank: 0,
    };

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
    pub const PYCHOP: Self = Self {
        name: "pychop",
        support: Support {
            floats: &[F16, F32, F64],
            bits: &[],
            any_range: false,
            any_sign: false,
            symmetric_only: &[],
            any_rounding: false,
            groups: Groups::None,
            zero_point_in_range: false,
        },
        asymmetric_range: DefaultRange::UnsignedHalf,
        symmetric_range: DefaultRange::Signed,
        parameters: Parameters {
            arithmetic: Arithmetic::Element,
            scale_type: Arithmetic::Element,
            always_include_zero: false,
            symmetric_scale: SymmetricScale::SpanOverSpan,
            symmetric_zero: SymmetricZero::Zero,
            span_division: SpanDivision::Divide,
            scale_floor: ScaleFloor::Span(1e-5),
            constant_group: ConstantGroup::Ordinary,
            zero_point: ZeroPointRule::RoundedI32,
        },
        parameters_u8: None,
        arithmetic: Arithmetic::Element,
        scaling: Scaling::Divide,
        zero_point_add: ZeroPointAdd::InF64,
        zero_point_add_grouped: ZeroPointAdd::InF64,
        value: Arithmetic::Compute,
        value_grouped: Arithmetic::Compute,
        fake_quantized_nan: FakeQuantizedNan::NaN,
        rounding: Rounding::NearestEven,
        learned_gradient: LearnedGradient::Exact,
        per_channel_min_rank: 2,
    };

    /// pychop 0.6.2 with its PyTorch backend (`pychop/tch/integer.py`), under torch 2.13.
    ///
    /// As [`PYCHOP`](Self::PYCHOP), but the zero point stays real, z = qmin − min/s, and
    /// q = clamp(RNE(x/s + z)) and x̂ = (q − z)·s are computed in the element type, each operation
    /// rounded to it. pychop calibrates anew on every `quantize`; chopi keeps its parameters. NaN is
    /// chopi's policy; where that is the zero point, it is rounded to an integer.
    ///
    /// Supported: `f32`, `f64`, `f16`, `bf16`; ranges and granularities as there.
    pub const PYCHOP_TORCH: Self = Self {
        name: "pychop-torch",
        support: Support {
            floats: &[F16, BF16, F32, F64],
            ..Self::PYCHOP.support
        },
        parameters: Parameters {
            zero_point: ZeroPointRule::Real,
            ..Self::PYCHOP.parameters
        },
        zero_point_add: ZeroPointAdd::Rounded,
        zero_point_add_grouped: ZeroPointAdd::Rounded,
        ..Self::PYCHOP
    };

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
    pub const PYCHOP_JAX: Self = Self {
        name: "pychop-jax",
        support: Support {
            floats: &[F16, BF16, F32],
            ..Self::PYCHOP.support
        },
        parameters: Parameters {
            span_division: SpanDivision::ReciprocalPerChannel,
            zero_point: ZeroPointRule::RoundedSaturatingI32,
            ..Self::PYCHOP.parameters
        },
        scaling: Scaling::ReciprocalOfF16,
        zero_point_add: ZeroPointAdd::Rounded,
        zero_point_add_grouped: ZeroPointAdd::Rounded,
        ..Self::PYCHOP
    };

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
    pub const TORCH: Self = Self {
        name: "torch",
        support: Support {
            floats: &[F32],
            bits: &[8],
            any_range: false,
            any_sign: true,
            symmetric_only: &[],
            any_rounding: false,
            groups: Groups::None,
            zero_point_in_range: true,
        },
        asymmetric_range: DefaultRange::Unsigned,
        symmetric_range: DefaultRange::Signed,
        parameters: Parameters {
            arithmetic: Arithmetic::F32,
            scale_type: Arithmetic::F32,
            always_include_zero: true,
            symmetric_scale: SymmetricScale::AbsMaxOverHalfSpan,
            symmetric_zero: SymmetricZero::MiddleDown,
            span_division: SpanDivision::Divide,
            scale_floor: ScaleFloor::Scale(1.0 / 8_388_608.0),
            constant_group: ConstantGroup::Ordinary,
            zero_point: ZeroPointRule::QuotientRounded,
        },
        parameters_u8: None,
        arithmetic: Arithmetic::Compute,
        scaling: Scaling::Reciprocal,
        zero_point_add: ZeroPointAdd::Fused,
        zero_point_add_grouped: ZeroPointAdd::Rounded,
        value: Arithmetic::Compute,
        value_grouped: Arithmetic::Compute,
        fake_quantized_nan: FakeQuantizedNan::NaN,
        rounding: Rounding::NearestEven,
        learned_gradient: LearnedGradient::Exact,
        per_channel_min_rank: 0,
    };

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
    pub const TORCH_FAKE: Self = Self {
        name: "torch-fake",
        support: Support {
            floats: &[F16, BF16, F32, F64],
            bits: &[2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16],
            any_range: true,
            ..Self::TORCH.support
        },
        scaling: Scaling::ReciprocalOfF32,
        zero_point_add: ZeroPointAdd::AfterRounding,
        zero_point_add_grouped: ZeroPointAdd::AfterRounding,
        value: Arithmetic::F32,
        fake_quantized_nan: FakeQuantizedNan::Smallest,
        learned_gradient: LearnedGradient::Torch,
        ..Self::TORCH
    };

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
    pub const ONNX: Self = Self {
        name: "onnx",
        support: Support {
            floats: &[F16, F32],
            bits: &[2, 4, 8, 16],
            any_range: false,
            any_sign: true,
            symmetric_only: &[],
            any_rounding: false,
            groups: Groups::Ragged,
            zero_point_in_range: true,
        },
        asymmetric_range: DefaultRange::Unsigned,
        symmetric_range: DefaultRange::Signed,
        parameters: Parameters {
            arithmetic: Arithmetic::F64,
            scale_type: Arithmetic::Element,
            always_include_zero: true,
            symmetric_scale: SymmetricScale::AbsMaxOverQmaxFrom8Bits,
            symmetric_zero: SymmetricZero::Middle,
            span_division: SpanDivision::Divide,
            scale_floor: ScaleFloor::OneForSubnormal,
            constant_group: ConstantGroup::Ordinary,
            zero_point: ZeroPointRule::ClampedThenRounded,
        },
        parameters_u8: Some(Parameters {
            arithmetic: Arithmetic::Compute,
            scale_type: Arithmetic::Element,
            always_include_zero: true,
            symmetric_scale: SymmetricScale::AbsMaxOverHalfSpan,
            symmetric_zero: SymmetricZero::Middle,
            span_division: SpanDivision::Divide,
            scale_floor: ScaleFloor::OneForZero,
            constant_group: ConstantGroup::Ordinary,
            zero_point: ZeroPointRule::ClampedThenRounded,
        }),
        arithmetic: Arithmetic::Compute,
        scaling: Scaling::Divide,
        zero_point_add: ZeroPointAdd::AfterRounding,
        zero_point_add_grouped: ZeroPointAdd::AfterRounding,
        value: Arithmetic::Compute,
        value_grouped: Arithmetic::Compute,
        fake_quantized_nan: FakeQuantizedNan::NaN,
        rounding: Rounding::NearestEven,
        learned_gradient: LearnedGradient::Exact,
        per_channel_min_rank: 0,
    };

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
    pub const COMPRESSED_TENSORS: Self = Self {
        name: "compressed-tensors",
        support: Support {
            floats: &[F16, BF16, F32, F64],
            bits: &[2, 3, 4, 5, 6, 7, 8],
            any_range: false,
            any_sign: false,
            symmetric_only: &[],
            any_rounding: false,
            groups: Groups::Whole,
            zero_point_in_range: true,
        },
        asymmetric_range: DefaultRange::Signed,
        symmetric_range: DefaultRange::Signed,
        parameters: Parameters {
            arithmetic: Arithmetic::Element,
            scale_type: Arithmetic::Element,
            always_include_zero: true,
            symmetric_scale: SymmetricScale::AbsMaxOverHalfSpan,
            symmetric_zero: SymmetricZero::Zero,
            span_division: SpanDivision::Divide,
            scale_floor: ScaleFloor::EpsilonForZero,
            constant_group: ConstantGroup::Ordinary,
            zero_point: ZeroPointRule::ClampedThenRounded,
        },
        parameters_u8: None,
        arithmetic: Arithmetic::Element,
        scaling: Scaling::Divide,
        zero_point_add: ZeroPointAdd::Rounded,
        zero_point_add_grouped: ZeroPointAdd::Rounded,
        value: Arithmetic::Compute,
        value_grouped: Arithmetic::Compute,
        fake_quantized_nan: FakeQuantizedNan::NaN,
        rounding: Rounding::NearestEven,
        learned_gradient: LearnedGradient::Exact,
        per_channel_min_rank: 0,
    };

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
    pub const TFLITE: Self = Self {
        name: "tflite",
        support: Support {
            floats: &[F32],
            bits: &[8, 16],
            any_range: false,
            any_sign: false,
            symmetric_only: &[16],
            any_rounding: false,
            groups: Groups::None,
            zero_point_in_range: true,
        },
        asymmetric_range: DefaultRange::Signed,
        symmetric_range: DefaultRange::Narrow,
        parameters: Parameters {
            arithmetic: Arithmetic::Compute,
            scale_type: Arithmetic::Compute,
            always_include_zero: true,
            symmetric_scale: SymmetricScale::AbsMaxOverQmax,
            symmetric_zero: SymmetricZero::Zero,
            span_division: SpanDivision::Divide,
            scale_floor: ScaleFloor::SpanOrOne(f32::MIN_POSITIVE as f64),
            constant_group: ConstantGroup::Ordinary,
            zero_point: ZeroPointRule::RoundedAway,
        },
        parameters_u8: None,
        arithmetic: Arithmetic::Compute,
        scaling: Scaling::Divide,
        zero_point_add: ZeroPointAdd::AfterRounding,
        zero_point_add_grouped: ZeroPointAdd::AfterRounding,
        value: Arithmetic::Compute,
        value_grouped: Arithmetic::Compute,
        fake_quantized_nan: FakeQuantizedNan::NaN,
        rounding: Rounding::NearestAway,
        learned_gradient: LearnedGradient::Exact,
        per_channel_min_rank: 0,
    };

    /// AQT: aqtp 0.9 (`aqt.jax.v2`, `quantizer_make`), under jax 0.10.2 on a CPU, jitted.
    ///
    /// Symmetric only, codes in [−2^(b−1) + 1, 2^(b−1) − 1]. s = max|x|·(1/(2^(b−1) − ½)), the
    /// reciprocal rounded (to `f16` for `f16` data): XLA rewrites the division so. max|x| = 0 counts
    /// as 1. Quantize: q = RNE(clip(x·inv)), inv = 1/s, each operation rounded to the element type.
    /// Dequantize: x̂ = q·s.
    ///
    /// Supported: `f32`, `f16`, `bf16`; 2 to 8 bits; per tensor and per channel. XLA flushes
    /// subnormal numbers of `f32` and `bf16` to zero: so a subnormal max|x| counts as 1 too, and a scale
    /// that would be subnormal is refused. NaN is chopi's policy, where XLA's conversion gives 0.
    pub const AQT: Self = Self {
        name: "aqt",
        support: Support {
            floats: &[F16, BF16, F32],
            bits: &[2, 3, 4, 5, 6, 7, 8],
            any_range: false,
            any_sign: false,
            symmetric_only: &[2, 3, 4, 5, 6, 7, 8],
            any_rounding: false,
            groups: Groups::None,
            zero_point_in_range: true,
        },
        asymmetric_range: DefaultRange::Narrow,
        symmetric_range: DefaultRange::Narrow,
        parameters: Parameters {
            arithmetic: Arithmetic::Element,
            scale_type: Arithmetic::Element,
            always_include_zero: false,
            symmetric_scale: SymmetricScale::AbsMaxTimesInverse,
            symmetric_zero: SymmetricZero::Zero,
            span_division: SpanDivision::Divide,
            scale_floor: ScaleFloor::AbsMaxOne,
            constant_group: ConstantGroup::Ordinary,
            zero_point: ZeroPointRule::Rounded,
        },
        parameters_u8: None,
        arithmetic: Arithmetic::Element,
        scaling: Scaling::ReciprocalOfElement,
        zero_point_add: ZeroPointAdd::AfterRounding,
        zero_point_add_grouped: ZeroPointAdd::AfterRounding,
        value: Arithmetic::Compute,
        value_grouped: Arithmetic::Compute,
        fake_quantized_nan: FakeQuantizedNan::NaN,
        rounding: Rounding::NearestEven,
        learned_gradient: LearnedGradient::Exact,
        per_channel_min_rank: 0,
    };
}
