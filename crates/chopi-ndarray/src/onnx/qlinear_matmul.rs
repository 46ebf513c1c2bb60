//! QLinearMatMul: the product of codes, as codes.

use chopi_core::backend::{Float, repeated, try_collected};
use chopi_matmul::requantize::{Code, FloatMultiplier, OutputCodes, requantize_row};
use ndarray::{ArrayD, Dimension};

use super::matmul::{Shapes, Side, per_line};
use super::matmul_integer::array;
use super::{Quantized, Result};

/// QLinearMatMul-21, of the ONNX specification, of 8-bit integers:
///
/// y = saturate(RNE(RN(C) · RN(RN(s_a·s_b)/s_y)) + z_y), with C = (a − z_a) · (b − z_b) exact
///
/// with RN the rounding to `f32`, also of the product with C, and RNE that to the nearest integer,
/// ties to even. The text of the specification leaves open what is rounded; ONNX Runtime computes
/// this. Scales of `f16` and `bf16` are widened to `f32` first.
///
/// Shapes are as of [`matmul_integer`](super::matmul_integer()); a scale has the shape of its zero
/// point. The element type of `y_zero_point` is that of the output.
///
/// ```
/// # mod chopi { pub use chopi_ndarray as ndarray; }
/// use chopi::ndarray::onnx::{Quantized, qlinear_matmul};
/// use ndarray::{arr0, array};
///
/// let (codes, scale, zero_point) = (array![[128_u8, 130]], arr0(0.5_f32).into_dyn(), arr0(128).into_dyn());
/// let a = Quantized { codes: &*codes, scale: &*scale, zero_point: &*zero_point };
/// // Each column has its scale.
/// let (codes, scale, zero_point) = (array![[1_i8, 1], [3, 3]], array![1.0_f32, 0.25].into_dyn(), array![0, 0].into_dyn());
/// let b = Quantized { codes: &*codes, scale: &*scale, zero_point: &*zero_point };
/// // The product is [3.0, 0.75].
/// assert_eq!(qlinear_matmul(&a, &b, 0.25, 10_u8)?, array![[22, 13]].into_dyn());
/// # Ok::<(), chopi_ndarray::onnx::Error>(())
/// ```
///
/// # Errors
/// The errors of [`matmul_integer`](super::matmul_integer());
/// [`Error::ZeroPointShape`](super::Error::ZeroPointShape) for a zero point of another shape than its
/// scale; [`Error::Product`](super::Error::Product) for a multiplier that is NaN or infinite.
pub fn qlinear_matmul<A, B, Y, S, D, E>(
    a: &Quantized<'_, A, S, D>,
    b: &Quantized<'_, B, S, E>,
    y_scale: S,
    y_zero_point: Y,
) -> Result<ArrayD<Y>>
where
    A: Code,
    B: Code,
    Y: Code,
    S: Float<Compute = f32>,
    D: Dimension,
    E: Dimension,
{
    let shapes = Shapes::new(a.codes.shape(), b.codes.shape())?;
    let ((a_scales, a_zeros), (b_scales, b_zeros)) = (a.parameters()?, b.parameters()?);
    let left = ("a_scale", Side::Left, a.codes.shape());
    let right = ("b_scale", Side::Right, b.codes.shape());
    let a_scales = per_line(&a_scales, a.scale.shape(), left)?;
    let a_zeros = per_line(&a_zeros, a.scale.shape(), left)?;
    let b_scales = per_line(&b_scales, b.scale.shape(), right)?;
    let b_zeros = per_line(&b_zeros, b.scale.shape(), right)?;
    let y_scale = y_scale.widen();
    let codes = OutputCodes::new(y_zero_point);
    let mut y = shapes.room()?;
    let mut row = repeated(
        Y::MIN,
        if shapes.output().contains(&0) {
            0
        } else {
            shapes.n
        },
    )?;
    shapes.multiply(
        (a.codes, a_zeros),
        (b.codes, b_zeros),
        |(left, right), sums| {
            let (a_scales, b_scales) = (a_scales.of(left), b_scales.of(right));
            let multipliers = a_scales.iter().map(|&a| {
                let multiplier = |&b: &f32| FloatMultiplier::from_scales(a, b, y_scale);
                try_collected(b_scales.iter().map(multiplier))
            });
            let multipliers = try_collected(multipliers)?;
            for (i, sums) in sums.chunks_exact(shapes.n).enumerate() {
                let multipliers = &multipliers[i % multipliers.len()];
                requantize_row(sums, None, multipliers, codes, &mut row)?;
                y.extend_from_slice(&row);
            }
            Ok(())
        },
    )?;
    array(shapes.output(), y)
}
