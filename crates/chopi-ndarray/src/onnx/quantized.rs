//! A quantized input of the operators that take scales.

use chopi_core::backend::{Float, collected};
use chopi_matmul::requantize::Code;
use ndarray::{ArrayRef, Dimension, IxDyn};

use super::{Error, Result};

/// A quantized input: codes, and the scale and the zero point of what they stand for.
#[derive(Debug)]
pub struct Quantized<'a, T, S, D: Dimension> {
    /// The codes.
    pub codes: &'a ArrayRef<T, D>,
    /// The scale: of no axes or of shape `[1]`, or of the other shapes that the operator takes.
    pub scale: &'a ArrayRef<S, IxDyn>,
    /// The zero point, of the same shape.
    pub zero_point: &'a ArrayRef<T, IxDyn>,
}

impl<T: Code, S: Float<Compute = f32>, D: Dimension> Quantized<'_, T, S, D> {
    /// The scales and the zero points in row-major order, one of each or as many as there are.
    pub(super) fn parameters(&self) -> Result<(Vec<f32>, Vec<i32>)> {
        if self.scale.shape() != self.zero_point.shape() {
            return Err(Error::ZeroPointShape {
                zero_point: self.zero_point.shape().to_vec(),
                scale: self.scale.shape().to_vec(),
            });
        }
        Ok((
            collected(self.scale.iter().map(|scale| scale.widen()))?,
            zero_points(Some(self.zero_point))?,
        ))
    }
}

/// The zero points in row-major order; one 0 where there are none.
pub(super) fn zero_points<T: Code>(zero_point: Option<&ArrayRef<T, IxDyn>>) -> Result<Vec<i32>> {
    Ok(match zero_point {
        None => vec![0],
        Some(zeros) => collected(zeros.iter().map(|&zero| zero.into()))?,
    })
}
