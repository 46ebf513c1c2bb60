//! ONNX's quantization operators as functions on arrays: QuantizeLinear, DequantizeLinear and
//! DynamicQuantizeLinear, and with the feature `matmul` those that multiply: MatMulInteger,
//! QLinearMatMul, ConvInteger and QLinearConv.
//!
//! ```
//! # mod chopi { pub use chopi_ndarray as ndarray; }
//! use chopi::ndarray::onnx::{self, QuantizeAttributes, QuantizedType};
//! use ndarray::{Array2, array};
//!
//! let x = array![[-1.0_f32, 0.0, 0.25], [2.0, 4.0, 100.0]];
//! let (scale, zero_point) = (array![0.25_f32, 0.5], array![3_i8, -8]);
//!
//! let per_row = QuantizeAttributes { axis: 0, ..Default::default() };
//! let q = onnx::quantize_linear(&x, &scale, Some(&zero_point), &per_row)?;
//! assert_eq!(q, array![[-1, 3, 4], [-4, 0, 127]]);
//!
//! let int4 = QuantizeAttributes { output_dtype: Some(QuantizedType::Int4), ..per_row };
//! let q = onnx::quantize_linear(&x, &scale, Some(&zero_point), &int4)?;
//! assert_eq!(q, array![[-1, 3, 4], [-4, 0, 7]]);
//!
//! let y: Array2<f32> = onnx::dequantize_linear(&q, &scale, Some(&zero_point), &per_row.groups())?;
//! assert_eq!(y, array![[-1.0, 0.0, 0.25], [2.0, 4.0, 7.5]]);
//!
//! let (q, scale, zero_point) = onnx::dynamic_quantize_linear(&x)?;
//! assert_eq!((scale, zero_point), (101.0 / 255.0, 3));
//! assert_eq!(q, array![[0, 3, 4], [8, 13, 255]]);
//! # Ok::<(), onnx::Error>(())
//! ```
//!
//! The definition is the text of the [ONNX specification](https://onnx.ai/onnx/operators/), opset
//! 25: QuantizeLinear-25, DequantizeLinear-25, DynamicQuantizeLinear-11, MatMulInteger-10,
//! QLinearMatMul-21, ConvInteger-10, QLinearConv-10. Each function gives it as a formula.
//!
//! # Types
//!
//! | ONNX | Rust |
//! |---|---|
//! | float, float16, bfloat16 | `f32`, [`f16`](chopi_core::backend::f16), [`bf16`](chopi_core::backend::bf16) |
//! | int8, uint8, int16, uint16 | `i8`, `u8`, `i16`, `u16` |
//! | int4, int2 | `i8`, one code an element, in −8..=7 and −2..=1 |
//! | uint4, uint2 | `u8`, one code an element, in 0..=15 and 0..=3 |
//! | int32 (only to be dequantized) | `i32` |
//!
//! A scalar is an array of no axes ([`ndarray::arr0`]), or as ONNX Runtime has it one of shape `[1]`.
//! Of the specification's types, the 8-bit and 4-bit floats and QuantizeLinear's int32 input are
//! not here.
//!
//! # Scales and zero points
//!
//! The shape of the scale says which elements share one; the zero point has the same shape.
//!
//! | shape of the scale | `block_size` | granularity |
//! |---|---|---|
//! | `[]` or `[1]` | 0 | per tensor |
//! | `[D]`, D the length of `axis` | 0 | per axis |
//! | the tensor's, with ⌈D/B⌉ along `axis` | B | blocks of B elements, the last one of D − (⌈D/B⌉ − 1)·B |
//!
//! A block size fits S blocks of an axis of length D where ⌈D/S⌉ ≤ B ≤ ⌈D/(S − 1)⌉ − 1, which is
//! the same as S = ⌈D/B⌉; one block may be longer than the axis.
//!
//! A scale may be any number; negative, zero and infinite ones mean what IEEE 754 makes of them in
//! the formula.
//!
//! # Where ONNX's reference evaluator and ONNX Runtime disagree
//!
//! Seen in onnx 1.23.2 and in ONNX Runtime 1.31.1 on an x86-64 CPU. The specification's text is
//! followed, and ONNX Runtime where the text is silent. Everywhere else the two give the bits that
//! these functions give.
//!
//! | | text | reference evaluator | ONNX Runtime | here |
//! |---|---|---|---|---|
//! | x/s of float16 | rounded to the type of s | so | rounded to float, whatever `precision` says | the text's; [`precision`](QuantizeAttributes::precision) `F32` gives ONNX Runtime's |
//! | x and s of two types | x and s cast to the type of s | cast to the wider one | fails | the text's; `precision` `F32` gives the evaluator's |
//! | bfloat16 | allowed | allowed | not implemented | the text's |
//! | \|x/s\| ≥ 2^31, infinities included | saturates | becomes −2^31, and the sum with z wraps around: qmin for z ≥ 0, qmax for z < 0 | `f32` to 8 and 16 bits saturates, but in blocks along another axis than the last; there and for other types it does as the evaluator, or for 4 bits saturates, by its kernel | saturates |
//! | NaN | silent | as −2^31 | qmin, or as −2^31 | [`NanPolicy`](chopi_core::NanPolicy): an error that says where, or z |
//! | `block_size` too large for the blocks | wrong | takes as many scales as it needs | refuses | refused |
//! | `block_size` with a scalar scale | used for blocks only | ignored | refuses | refused |
//! | scale of shape `[1, 1, …]` without `block_size` | wrong | per tensor | refuses | refused |
//! | a scalar scale with a zero point of shape `[1]` | wrong | takes it | takes it | refused |
//! | one block of shape `[1]` of a tensor of one axis | blocks | per tensor, the same numbers | refuses | blocks |
//! | no blocks of an empty axis | silent | an empty result | divides by zero | an empty result |
//! | zero points of int32 | none, or 0 | subtracts any, and multiplies, in float64 | subtracts any, and wraps around | refused unless 0; computed as without |
//! | DynamicQuantizeLinear of zeros | 0/0 | scale 1/255 | scale 1, zero point 0 | ONNX Runtime's |
//! | DynamicQuantizeLinear of nothing | silent | fails | scale 1, zero point 0 | ONNX Runtime's |
//! | DynamicQuantizeLinear of NaN | silent | scale NaN, zero point 255 | leaves it out of the range | an error that says where |
//! | what QLinearMatMul and QLinearConv round | the quotient with y_scale, before z is added | RNE(C·m + z), C·m in float64 | C, m and C·m to float, RNE(C·m) + z | ONNX Runtime's |
//! | QLinearMatMul with scales of float16 | allowed | m in float16 | not implemented | the scales widened to `f32` |
//! | parameters `[M]` on the left of a product | one for each row | one for each column, or fails | refuses any for rows | the text's |
//! | parameters `[M]` of weights with another number of spatial axes than two | one for each output channel | fails, or takes another axis | the text's, but QLinearConv wants one zero point | the text's |
//! | `auto_pad` SAME with dilations | allowed | as the formula says | refuses | the formula's |
//! | int8 with uint8 weights; an output of another type than the left operand's | allowed | as the formula says | QLinearMatMul and QLinearConv: not implemented | the formula's |
//! | sums beyond int32 | may overflow | wrap around | wrap around | refused where one might |
//!
//! In two places the functions refuse what both compute: DynamicQuantizeLinear of an infinity, and
//! of data whose scale is infinite or zero in `f32` (a range of more than 3.4·10^38 or less than
//! 1.8·10^−43). Their codes could not be dequantized.
//!
//! One sentence of the text that neither follows is not followed here: that with a tensor of one
//! axis QuantizeLinear is always per tensor. A scale of that axis's length is per axis.

mod codes;
#[cfg(feature = "matmul")]
mod conv_integer;
#[cfg(feature = "matmul")]
mod convolution;
mod dequantize_linear;
mod dynamic_quantize_linear;
mod element;
mod error;
mod groups;
#[cfg(feature = "matmul")]
mod matmul;
#[cfg(feature = "matmul")]
mod matmul_integer;
#[cfg(feature = "matmul")]
mod qlinear_conv;
#[cfg(feature = "matmul")]
mod qlinear_matmul;
mod quantize_linear;
#[cfg(feature = "matmul")]
mod quantized;

#[cfg(feature = "matmul")]
pub use conv_integer::conv_integer;
#[cfg(feature = "matmul")]
pub use convolution::{AutoPad, ConvAttributes};
#[cfg(feature = "matmul")]
pub use matmul_integer::matmul_integer;
#[cfg(feature = "matmul")]
pub use qlinear_conv::qlinear_conv;
#[cfg(feature = "matmul")]
pub use qlinear_matmul::qlinear_matmul;
#[cfg(feature = "matmul")]
pub use quantized::Quantized;

pub use dequantize_linear::{DequantizeAttributes, dequantize_linear};
pub use dynamic_quantize_linear::dynamic_quantize_linear;
pub use element::{DequantizableElement, QuantizedElement, QuantizedType};
pub use error::{Error, Result};
pub use quantize_linear::{QuantizeAttributes, quantize_linear};
