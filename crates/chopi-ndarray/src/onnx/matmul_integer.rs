//! MatMulInteger: the exact product of codes.

use chopi_matmul::requantize::Code;
use ndarray::{ArrayD, ArrayRef, Dimension, IxDyn};

use super::Result;
use super::matmul::{Shapes, Side, per_line};
use super::quantized::zero_points;

/// MatMulInteger-10, of the ONNX specification:
///
/// y = (a − z_a) · (b − z_b), in int32, exact
///
/// `a` and `b` are multiplied as `numpy.matmul` does: as matrices of shapes \[M, K\] and \[K, N\], for
/// each index of the axes before the last two, which are broadcast; an `a` of one axis is a row, a `b`
/// of one axis a column, and the output lacks that axis.
///
/// A zero point is a scalar, or `a` has one for each row, and `b` one for each column: of shape \[M\],
/// \[N\] where the operand is a matrix, or of the operand's shape with 1 in the place of K. Without one
/// it is 0.
///
/// ```
/// # mod chopi { pub use chopi_ndarray as ndarray; }
/// use chopi::ndarray::onnx::matmul_integer;
/// use ndarray::{ArrayD, arr0, array};
///
/// let a = array![[11_u8, 7, 3], [10, 6, 2]];
/// let b = array![[1_i8, 4], [2, 5], [3, 6]];
/// let y: ArrayD<i32> = matmul_integer(&a, &b, Some(&arr0(12).into_dyn()), None)?;
/// assert_eq!(y, array![[-38, -83], [-44, -98]].into_dyn());
/// # Ok::<(), chopi_ndarray::onnx::Error>(())
/// ```
///
/// # Errors
/// [`Error::MatMulShapes`](super::Error::MatMulShapes) and
/// [`Error::ParameterShape`](super::Error::ParameterShape) for shapes that do not fit;
/// [`Error::Product`](super::Error::Product) where a sum might not fit int32: where the largest
/// |a − z_a| times the largest sum of |b − z_b| over a column is 2^31 or more, which takes a K of
/// more than 33,000.
pub fn matmul_integer<A: Code, B: Code, D: Dimension, E: Dimension>(
    a: &ArrayRef<A, D>,
    b: &ArrayRef<B, E>,
    a_zero_point: Option<&ArrayRef<A, IxDyn>>,
    b_zero_point: Option<&ArrayRef<B, IxDyn>>,
) -> Result<ArrayD<i32>> {
    let shapes = Shapes::new(a.shape(), b.shape())?;
    let (a_zeros, b_zeros) = (zero_points(a_zero_point)?, zero_points(b_zero_point)?);
    let a_shape = a_zero_point.map_or(&[][..], |zeros| zeros.shape());
    let b_shape = b_zero_point.map_or(&[][..], |zeros| zeros.shape());
    let a_zeros = per_line(&a_zeros, a_shape, ("a_zero_point", Side::Left, a.shape()))?;
    let b_zeros = per_line(&b_zeros, b_shape, ("b_zero_point", Side::Right, b.shape()))?;
    let mut y = shapes.room()?;
    shapes.multiply((a, a_zeros), (b, b_zeros), |_, sums| {
        y.extend_from_slice(sums);
        Ok(())
    })?;
    array(shapes.output(), y)
}

/// The array of this shape.
pub(super) fn array<T>(shape: &[usize], elements: Vec<T>) -> Result<ArrayD<T>> {
    let len = elements.len();
    ArrayD::from_shape_vec(shape, elements).map_err(|_| {
        chopi_matmul::Error::Length {
            what: "the output",
            len,
            expected: shape.iter().copied().fold(1, usize::saturating_mul),
        }
        .into()
    })
}
