//! What can be wrong with what a product is given.

use chopi_core::{
    Granularity, QParams,
    backend::{HostInts, IntType, NoMemory},
};

/// The result of every fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What a product or a layer refuses to compute, with the numbers that explain it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// Quantizing the operands failed.
    #[error(transparent)]
    Quantization(chopi_core::Error),

    /// A trained layer whose weights were not quantized.
    #[error("the layer was trained with weights that are not quantized")]
    NotQuantized,

    /// A slice that does not have the length that its shape says.
    #[error("{what} has {len} elements, expected {expected}")]
    Length {
        /// The name of the slice.
        what: &'static str,
        /// The length of the slice.
        len: usize,
        /// The length that its shape says.
        expected: usize,
    },

    /// Values that are neither one for all nor one for each.
    #[error("{what}: there are {len}, expected {}", one_or(*expected))]
    Each {
        /// The name of the values.
        what: &'static str,
        /// The number of values.
        len: usize,
        /// The number of rows or columns.
        expected: usize,
    },

    /// Codes that are not of 8 bits.
    #[error("the codes are {found:?}, expected U8 or I8")]
    Type {
        /// The type of the codes.
        found: IntType,
    },

    /// A scheme of more than 8 bits.
    #[error("{what} are quantized to {qmin}..={qmax}, expected codes of 8 bits")]
    Range {
        /// The name of the operand that is quantized.
        what: &'static str,
        /// The smallest code.
        qmin: i64,
        /// The largest code.
        qmax: i64,
    },

    /// A convention whose zero points are real numbers.
    #[error("{what} have zero points that are no integers, with which there is no integer product")]
    RealZeroPoints {
        /// The name of the operand that is quantized.
        what: &'static str,
    },

    /// A zero point that products in 32 bits do not take.
    #[error("{what} have a zero point of {zero_point}, expected one that 32 bits hold")]
    ZeroPoint {
        /// The name of the operand that is quantized.
        what: &'static str,
        /// The zero point.
        zero_point: i64,
    },

    /// A row that a table does not have.
    #[error("row {row} of a table of {rows} rows")]
    Row {
        /// The index of the row that was asked for.
        row: i64,
        /// The number of rows of the table.
        rows: usize,
    },

    /// Groups that the kernels do not take.
    #[error("groups of {group} depths, expected a multiple of 8")]
    Group {
        /// The number of elements of a group.
        group: usize,
    },

    /// Parameters of activations that are not per tensor.
    #[error("the activations have {groups} scales, expected one for the whole tensor")]
    StaticActivations {
        /// The number of groups that have parameters of their own.
        groups: usize,
    },

    /// Weights that are not those of the layer.
    #[error(
        "weights of shape {shape:?} with parameters of shape {params:?}, {granularity}, expected \
         {expected}"
    )]
    Weights {
        /// The shape of the weights.
        shape: Vec<usize>,
        /// The shape of their parameters.
        params: Vec<usize>,
        /// The granularity of their parameters.
        granularity: Granularity,
        /// The shapes and granularities that the layer takes.
        expected: &'static str,
    },

    /// An input that a layer does not take.
    #[error("the input has shape {shape:?}, expected [..., {inputs}]")]
    Input {
        /// The shape of the input.
        shape: Vec<usize>,
        /// The length that its last axis should have.
        inputs: usize,
    },

    /// An input of more rows than there are numbers.
    #[error("the rows of shape {shape:?} are too many")]
    TooManyRows {
        /// The shape of the input, without its last axis.
        shape: Vec<usize>,
    },

    /// Matrices that do not fit together.
    #[error("the left matrix has {left} columns, but the right one has {right} rows")]
    Depth {
        /// The depth of the left matrix.
        left: usize,
        /// The depth of the right matrix.
        right: usize,
    },

    /// A product whose sums could leave the range of `i32`.
    #[error(
        "a sum of {depth} products can reach {bound}, which 32 bits do not hold; split the depth, or \
         let the ranges include zero where zero points are far from the codes"
    )]
    Overflow {
        /// The depth of the matrices.
        depth: usize,
        /// The largest sum that the largest column of the right matrix and the range of the left one can give.
        bound: u64,
    },

    /// A multiplier that is NaN or infinite.
    #[error("the multiplier is {multiplier:?}, expected a finite number")]
    Multiplier {
        /// The multiplier.
        multiplier: f64,
    },

    /// A scale of the output that is no scale.
    #[error("the scale of the output is {scale:?}, expected a positive finite number")]
    OutputScale {
        /// The scale of the output.
        scale: f64,
    },

    /// An exponent that a fixed-point multiplier does not have.
    #[error("the exponent of the multiplier is {exponent}, expected -31..=30")]
    Exponent {
        /// The exponent.
        exponent: i32,
    },

    /// Bounds of codes in the wrong order.
    #[error("the codes are to lie in {min}..={max}, which is empty")]
    CodeBounds {
        /// The smallest code.
        min: i32,
        /// The largest code.
        max: i32,
    },

    /// A bias that is beyond `i32` in the units of the sums that it is added to.
    #[error(
        "the bias of output {output} is {bias:?}, which makes {code:?} in units of the sums, expected a number of 32 bits"
    )]
    BiasCode {
        /// The index of the output.
        output: usize,
        /// The bias.
        bias: f64,
        /// The bias in units of the sums.
        code: f64,
    },

    /// Shapes and parameters of a convolution that do not fit each other.
    #[error("an input of shape {input:?} and weights of shape {weights:?}: {reason}")]
    Convolution {
        /// The shape of the input.
        input: Vec<usize>,
        /// The shape of the weights.
        weights: Vec<usize>,
        /// What does not fit, and how.
        reason: String,
    },

    /// A zero point that is not a code, of an input that is padded with it.
    #[error("the zero point of the padded input is {zero_point}, which is not one of its codes")]
    Padding {
        /// The zero point of the input.
        zero_point: i32,
    },

    /// A range of codes that an emulated operand of 16 bits does not have.
    #[error(
        "the codes of {operand} are to lie in {qmin}..={qmax}, expected 2 to 16 bits: two to 65536 \
         integers of -32768..=65535"
    )]
    OperandRange {
        /// The name of the operand.
        operand: &'static str,
        /// The smallest code of the operand.
        qmin: i64,
        /// The largest code of the operand.
        qmax: i64,
    },

    /// A code outside the range of its operand.
    #[error("the code at {index} of {operand} is {code}, expected {qmin}..={qmax}")]
    OperandCode {
        /// The name of the operand.
        operand: &'static str,
        /// The index of the element in row-major order.
        index: usize,
        /// The code.
        code: i64,
        /// The smallest code.
        qmin: i64,
        /// The largest code.
        qmax: i64,
    },

    /// A zero point that products are not emulated with.
    #[error(
        "the zero point {index} of {operand} is {zero_point}, expected at most 2^30 either way"
    )]
    OperandZeroPoint {
        /// The name of the operand.
        operand: &'static str,
        /// The index of the zero point.
        index: usize,
        /// The zero point.
        zero_point: i64,
    },

    /// A width that an emulated accumulator does not have.
    #[error("the accumulator has {bits} bits, expected 2..=32")]
    AccumulatorBits {
        /// The number of bits that was asked for.
        bits: u32,
    },

    /// A bias that the accumulator does not hold.
    #[error(
        "the bias of column {column} is {bias}, which an accumulator of {bits} bits does not hold"
    )]
    AccumulatorBias {
        /// The index of the column or of the output channel.
        column: usize,
        /// The bias.
        bias: i32,
        /// The number of bits of the accumulator.
        bits: u32,
    },

    /// A sum that an accumulator that reports overflow does not hold: the first of its element, in the
    /// first element that has one, of a convolution by group, image, position and channel.
    #[error(
        "the sum of element {index:?} overflows an accumulator of {bits} bits: it is {value} with \
         product {step}"
    )]
    AccumulatorOverflow {
        /// The index of the element of the output.
        index: Vec<usize>,
        /// The index of the product whose addition overflowed, counted from 0.
        step: usize,
        /// The sum with this product.
        value: i64,
        /// The number of bits of the accumulator.
        bits: u32,
    },

    /// A matrix of more elements than can be counted.
    #[error("a matrix of {rows} rows and {columns} columns is too large")]
    TooLarge {
        /// The number of rows.
        rows: usize,
        /// The number of columns.
        columns: usize,
    },
}

impl From<NoMemory> for Error {
    #[cold]
    fn from(error: NoMemory) -> Self {
        Self::Quantization(error.into())
    }
}

/// The name under which the core passes this crate's errors on, as those of a framework.
const NAME: &str = "matmul";

impl From<chopi_core::Error> for Error {
    fn from(error: chopi_core::Error) -> Self {
        match error {
            chopi_core::Error::Framework {
                backend: NAME,
                source,
            } => match source.downcast() {
                Ok(ours) => *ours,
                Err(source) => Self::Quantization(chopi_core::Error::Framework {
                    backend: NAME,
                    source,
                }),
            },
            other => Self::Quantization(other),
        }
    }
}

/// An error of this crate as one of the core, so that it passes through a tensor framework; converting it
/// back gives the [`Error`] again.
impl From<Error> for chopi_core::Error {
    fn from(error: Error) -> Self {
        match error {
            Error::Quantization(theirs) => theirs,
            ours => Self::Framework {
                backend: NAME,
                source: Box::new(ours),
            },
        }
    }
}

impl Error {
    /// [`Error::Weights`] of these weights.
    pub(crate) fn weights(codes: &HostInts<'_>, params: &QParams, expected: &'static str) -> Self {
        Self::Weights {
            shape: codes.layout().shape().to_vec(),
            params: params.shape().to_vec(),
            granularity: params.scheme().granularity,
            expected,
        }
    }

    pub(crate) fn check_length(what: &'static str, len: usize, expected: usize) -> Result<()> {
        if len == expected {
            Ok(())
        } else {
            Err(Self::Length {
                what,
                len,
                expected,
            })
        }
    }

    pub(crate) fn check_each(what: &'static str, len: usize, expected: usize) -> Result<()> {
        if len == 1 || len == expected {
            Ok(())
        } else {
            Err(Self::Each {
                what,
                len,
                expected,
            })
        }
    }
}

/// How many values may be given for so many rows or columns.
fn one_or(lines: usize) -> String {
    match lines {
        1 => "1".to_owned(),
        _ => format!("1 or {lines}"),
    }
}
