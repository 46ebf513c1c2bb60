//! What can be wrong with an operator's inputs and attributes.

use chopi_core::backend::{FloatType, IntType, NoMemory};

use super::QuantizedType;

/// The result of an operator.
pub type Result<T> = std::result::Result<T, Error>;

/// What an operator refuses to compute, with the numbers that explain it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A scale of a shape that says for no granularity which elements share one.
    #[error("the scale has shape {scale:?}, but a tensor of shape {shape:?} needs {expected}")]
    ScaleShape {
        /// The scale's shape.
        scale: Vec<usize>,
        /// The tensor's shape.
        shape: Vec<usize>,
        /// The shapes that the scale could have had.
        expected: String,
    },

    /// A zero point of another shape than the scale's.
    #[error("the zero point has shape {zero_point:?}, expected the scale's, {scale:?}")]
    ZeroPointShape {
        /// The zero point's shape.
        zero_point: Vec<usize>,
        /// The scale's shape.
        scale: Vec<usize>,
    },

    /// A block size that does not cut the axis into as many blocks as there are scales.
    #[error(
        "block_size is {block_size}, but with {blocks} scales for an axis of length {length} it \
         must be {expected}"
    )]
    BlockSize {
        /// The block size.
        block_size: usize,
        /// The number of scales along the axis.
        blocks: usize,
        /// The length of the axis.
        length: usize,
        /// The block sizes that cut the axis into that many blocks.
        expected: String,
    },

    /// A zero point that the output type does not have.
    #[error("the zero point of group {group} is {zero_point}, expected {expected}")]
    ZeroPoint {
        /// The index of the group of elements, in the row-major order of the scale.
        group: usize,
        /// The zero point.
        zero_point: i64,
        /// The zero points that the output type has.
        expected: String,
    },

    /// An output type whose codes are not elements of the array that is asked for.
    #[error(
        "output_dtype is {output_dtype}, whose codes are elements of type {}, not {element}",
        .output_dtype.element()
    )]
    OutputType {
        /// The output type.
        output_dtype: QuantizedType,
        /// The element type of the zero point and of the result.
        element: IntType,
    },

    /// A type that x/s cannot be computed in.
    #[error("precision is {precision}, expected f32, f16 or bf16")]
    Precision {
        /// The type that was asked for.
        precision: FloatType,
    },

    /// An error with the elements or the axis.
    #[error(transparent)]
    Core(#[from] chopi_core::Error),

    /// Operands of a product whose shapes do not fit each other.
    #[cfg(feature = "matmul")]
    #[error("a has shape {a:?} and b has shape {b:?}: {reason}")]
    MatMulShapes {
        /// The shape of the left operand.
        a: Vec<usize>,
        /// The shape of the right operand.
        b: Vec<usize>,
        /// What does not fit, and how.
        reason: &'static str,
    },

    /// A scale or a zero point of a shape that the operator does not take.
    #[cfg(feature = "matmul")]
    #[error("{name} has shape {shape:?}, but an operand of shape {operand:?} needs {expected}")]
    ParameterShape {
        /// The name of the scale or zero point among the inputs.
        name: &'static str,
        /// The shape of the scale or zero point.
        shape: Vec<usize>,
        /// The shape of the operand that it belongs to.
        operand: Vec<usize>,
        /// The shapes that the scale or zero point could have had.
        expected: String,
    },

    /// An attribute of a convolution that does not fit the inputs or another one.
    #[cfg(feature = "matmul")]
    #[error("{attribute} is {value:?}, expected {expected}")]
    ConvAttribute {
        /// The name of the attribute.
        attribute: &'static str,
        /// The value of the attribute.
        value: Vec<usize>,
        /// The values that the attribute could have had.
        expected: String,
    },

    /// An error with a product.
    #[cfg(feature = "matmul")]
    #[error(transparent)]
    Product(#[from] chopi_matmul::Error),
}

impl From<NoMemory> for Error {
    #[cold]
    fn from(error: NoMemory) -> Self {
        Self::Core(error.into())
    }
}
