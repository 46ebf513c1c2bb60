//! What can be wrong with what chopi is given.

use chopi_kernels::{FloatType, NoMemory};

use crate::scheme::Granularity;

/// The result of every fallible operation of chopi.
pub type Result<T> = std::result::Result<T, Error>;

/// What chopi refuses to compute, with the numbers that explain it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `dequantize`, or another use of parameters, before there are any.
    #[error("the quantizer is not calibrated: call calibrate, quantize or from_params first")]
    NotCalibrated,

    /// The number of bits is outside 2..=32.
    #[error("num_bits is {bits}, expected 2..=32")]
    Bits {
        /// The number of bits that was asked for.
        bits: u32,
    },

    /// An integer range that is empty, that `bits` bits or 32-bit integers do not hold, or that a
    /// symmetric scheme cannot use.
    #[error("the integer range {qmin}..={qmax} {reason}")]
    Range {
        /// The smallest code.
        qmin: i64,
        /// The largest code.
        qmax: i64,
        /// What is wrong with the range.
        reason: String,
    },

    /// A group size of zero.
    #[error("the group size is 0, expected at least 1")]
    GroupSize,

    /// The axis does not exist in a tensor of this rank.
    #[error("axis {axis} is out of range for a tensor of shape {shape:?}, expected {}", axes(.shape.len()))]
    Axis {
        /// The axis of the scheme.
        axis: isize,
        /// The tensor's shape.
        shape: Vec<usize>,
    },

    /// Parameters of one shape used on a tensor that needs another.
    #[error(
        "the parameters have shape {params:?}, but a tensor of shape {shape:?} needs {expected:?} \
         with this granularity"
    )]
    ParamsShape {
        /// The shape of the parameters.
        params: Vec<usize>,
        /// The shape that they would need.
        expected: Vec<usize>,
        /// The tensor's shape.
        shape: Vec<usize>,
    },

    /// Groups along an axis of one length, used along an axis of another.
    #[error("groups of {size} along an axis of {expected} do not fit an axis of {length}")]
    GroupedAxis {
        /// The size of the groups.
        size: usize,
        /// The length of the axis that the groups are of.
        expected: usize,
        /// The length of the other axis.
        length: usize,
    },

    /// Ranges of different shapes cannot be merged.
    #[error("ranges of shape {left:?} and of shape {right:?} cannot be merged")]
    Merge {
        /// The shape of the ranges that were to be extended.
        left: Vec<usize>,
        /// The shape of the ranges that were to be merged into them.
        right: Vec<usize>,
    },

    /// Observers of different schemes, conventions or calibrations cannot be merged.
    #[error("observers of different schemes, conventions or calibrations cannot be merged")]
    MergeSettings,

    /// A percentile that leaves no range.
    #[error("the percentile is {percentile:?}, expected more than 50 and at most 100")]
    Percentile {
        /// The percentile that was asked for.
        percentile: f64,
    },

    /// No calibration has this name.
    #[error(
        "there is no calibration {name:?}, expected minmax, percentile:P with a number P, mse or kl"
    )]
    UnknownCalibration {
        /// The name that was asked for.
        name: String,
    },

    /// NaN or infinity in data to calibrate on.
    #[error(
        "cannot calibrate on NaN or infinity: the first of {count} is {value} at index {index:?}"
    )]
    NonFinite {
        /// The index of the first NaN or infinity in row-major order, along each axis.
        index: Vec<usize>,
        /// The first such value.
        value: f64,
        /// The number of such values.
        count: usize,
    },

    /// NaN in data to quantize.
    #[error("cannot quantize NaN: the first of {count} is at index {index:?}")]
    NaN {
        /// The index of the first NaN in row-major order, along each axis.
        index: Vec<usize>,
        /// The number of NaNs.
        count: usize,
    },

    /// A tensor without elements has no range.
    #[error("cannot calibrate on an empty tensor (shape {shape:?})")]
    Empty {
        /// The tensor's shape.
        shape: Vec<usize>,
    },

    /// A scale that is not a positive finite number of the type that it is used in.
    #[error("the scale of group {group} is {}, expected a positive finite {float}", number(*.scale))]
    Scale {
        /// The index of the group of elements, in row-major order.
        group: usize,
        /// The scale.
        scale: f64,
        /// The compute type.
        float: FloatType,
    },

    /// Values below the smallest code of a symmetric scheme.
    #[error(
        "group {group} holds values down to {}, which the codes {qmin}..={qmax} of a symmetric scheme do \
         not reach: expected signed codes, or an asymmetric scheme",
        number(*.min)
    )]
    SymmetricRange {
        /// The index of the group of elements, in row-major order.
        group: usize,
        /// The smallest value of the group.
        min: f64,
        /// The smallest code.
        qmin: i64,
        /// The largest code.
        qmax: i64,
    },

    /// A zero point that is too far away to be computed with.
    #[error("the zero point of group {group} is {}, expected {expected}", number(*.zero_point))]
    ZeroPoint {
        /// The index of the group of elements, in row-major order.
        group: usize,
        /// The zero point.
        zero_point: f64,
        /// The zero points that can be computed with.
        expected: String,
    },

    /// The numbers of scales and zero points do not fit their shape.
    #[error(
        "{scales} scales and {zero_points} zero points given for parameters of shape {shape:?}"
    )]
    ParamsCount {
        /// The number of scales.
        scales: usize,
        /// The number of zero points.
        zero_points: usize,
        /// The shape of the parameters.
        shape: Vec<usize>,
    },

    /// A code outside of the scheme's integer range.
    #[error("the code at index {index:?} is {code}, expected {qmin}..={qmax}")]
    Code {
        /// The index of the first such code in row-major order, along each axis.
        index: Vec<usize>,
        /// The first such code.
        code: i64,
        /// The smallest code of the scheme.
        qmin: i64,
        /// The largest code of the scheme.
        qmax: i64,
    },

    /// A slice that does not have the elements of its shape.
    #[error("{elements} elements given for a tensor of shape {shape:?}")]
    Elements {
        /// The number of elements of the slice.
        elements: usize,
        /// The shape that the slice should fill.
        shape: Vec<usize>,
    },

    /// A range that is none: its ends are not finite numbers of the type, the smaller one first.
    #[error(
        "the range of group {group} is {min} to {max}, expected finite {float}, the smaller first"
    )]
    Ends {
        /// The index of the group of elements, in row-major order.
        group: usize,
        /// The smallest value.
        min: f64,
        /// The largest value.
        max: f64,
        /// The type of the values.
        float: FloatType,
    },

    /// Observed ranges or histograms are not as many as their shape and granularity ask for.
    #[error("{groups} groups were observed, of shape {shape:?}, {granularity}")]
    ObservedGroups {
        /// The number of groups.
        groups: usize,
        /// The shape of the parameters.
        shape: Vec<usize>,
        /// The granularity.
        granularity: Granularity,
    },

    /// Parameters or statistics of another scheme, convention or calibration than what they are to be part
    /// of.
    #[error("{what} are not those of this scheme, convention and calibration")]
    Settings {
        /// The name of what does not fit.
        what: &'static str,
    },

    /// More memory than there is, where an input says how much: for a result, for what is computed on the
    /// way, or for a number for each group. (What has a small size that no input changes is allocated as
    /// usual, and ends the process where there is no memory: shapes, names, the texts of errors. So do
    /// [`Clone`], which can give no error, and a framework that allocates its own tensors so.)
    #[error("there is no memory for {bytes} bytes")]
    Memory {
        /// The number of bytes that are wanted; `usize::MAX` where there are more.
        bytes: usize,
    },

    /// A number of an optimizer that is out of its range.
    #[error("{name} is {value:?}, expected {expected}")]
    AdamConfig {
        /// The name of the number.
        name: &'static str,
        /// The number.
        value: f64,
        /// The numbers that the optimizer can step by.
        expected: &'static str,
    },

    /// A gradient of another shape than its variable had when the optimizer was made.
    #[error("the gradient of {name:?} has shape {shape:?}, expected {expected:?}")]
    GradientShape {
        /// The name of the variable.
        name: String,
        /// The shape of the gradient.
        shape: Vec<usize>,
        /// The shape of the variable.
        expected: Vec<usize>,
    },

    /// A checkpoint that cannot be written or read, or is of another network.
    #[error("{}: {source}", .path.display())]
    Checkpoint {
        /// The file.
        path: std::path::PathBuf,
        /// What is wrong with it.
        source: Box<dyn std::error::Error + Send + Sync>,
    },

    /// The averaging constant of a moving average is outside (0, 1].
    #[error("the averaging constant is {constant:?}, expected a number over 0 and up to 1")]
    AveragingConstant {
        /// The constant that was asked for.
        constant: f64,
    },

    /// The fake-quantizers of a network are not the ones that are expected.
    #[error("the fake-quantizer {name:?}: {problem}")]
    QuantizerName {
        /// The name of the fake-quantizer.
        name: String,
        /// What is wrong with the fake-quantizer of this name.
        problem: &'static str,
    },

    /// An error with one tensor of a model.
    #[error("{name:?}: {source}")]
    Tensor {
        /// The name of the tensor.
        name: String,
        /// What is wrong with the tensor.
        source: Box<Error>,
    },

    /// A loss that is not finite, so that it cannot be compared with others.
    #[error("the loss of {name:?} with {bits} bits is {loss:?}, expected a finite number")]
    Loss {
        /// The name of the tensor.
        name: String,
        /// The number of bits that the tensor was quantized to.
        bits: u32,
        /// The loss that was given.
        loss: f64,
    },

    /// A budget that is too small.
    #[error("the budget is {budget} bytes, but with the fewest bits there are still {least}")]
    Budget {
        /// The bytes that were asked for.
        budget: u64,
        /// The bytes that are needed with the fewest bits.
        least: u64,
    },

    /// Tensors of different shapes or element types cannot be compared.
    #[error("{left_type} of shape {left:?} and {right_type} of shape {right:?} cannot be compared")]
    Compared {
        /// The shape of the first tensor.
        left: Vec<usize>,
        /// The element type of the first tensor.
        left_type: FloatType,
        /// The shape of the second tensor.
        right: Vec<usize>,
        /// The element type of the second tensor.
        right_type: FloatType,
    },

    /// The number of bits of packed codes is outside 1..=8.
    #[error("codes of {bits} bits cannot be packed, expected 1..=8")]
    PackedBits {
        /// The number of bits that was asked for.
        bits: u32,
    },

    /// Codes that do not fill their rows.
    #[error("{codes} codes are not whole rows of {row}")]
    PackedRows {
        /// The number of codes.
        codes: usize,
        /// The number of codes in a row.
        row: usize,
    },

    /// Packed codes of another length than their number needs.
    #[error("{bytes} bytes are not {rows} rows of {row} codes of {bits} bits")]
    PackedLength {
        /// The number of bytes.
        bytes: usize,
        /// The number of rows.
        rows: usize,
        /// The number of codes in a row.
        row: usize,
        /// The number of bits of a code.
        bits: u32,
    },

    /// A dtype that cannot be used here.
    #[error("{backend}: dtype {dtype} is not supported here, expected {expected}")]
    Dtype {
        /// The backend's name.
        backend: &'static str,
        /// The dtype, as the framework calls it.
        dtype: String,
        /// The dtypes that can be used.
        expected: &'static str,
    },

    /// An output of another shape than the result's.
    #[error("the output has shape {shape:?}, expected {expected:?}")]
    OutputShape {
        /// The shape of the output.
        shape: Vec<usize>,
        /// The shape of the result.
        expected: Vec<usize>,
    },

    /// An output whose element type does not hold the result.
    #[error("the output has elements of type {dtype}, expected {expected}")]
    OutputType {
        /// The output's element type.
        dtype: String,
        /// The element types that hold the result.
        expected: String,
    },

    /// An output that does not lie in memory as it must.
    #[error("the output of shape {shape:?} does not lie in memory {expected}")]
    OutputLayout {
        /// The shape of the output.
        shape: Vec<usize>,
        /// How the output has to lie in memory.
        expected: &'static str,
    },

    /// The real library that a convention reproduces has no such operation.
    #[error("the convention {convention} does not support {what}")]
    Unsupported {
        /// The convention's name.
        convention: String,
        /// What the convention does not support.
        what: String,
    },

    /// No convention has this name.
    #[error("there is no convention named {name:?}, expected one of: {expected}")]
    UnknownConvention {
        /// The name that was asked for.
        name: String,
        /// The names of all conventions.
        expected: String,
    },

    /// The framework refused an operation.
    #[error("{backend}: {source}")]
    Framework {
        /// The backend's name.
        backend: &'static str,
        /// The framework's error.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl From<NoMemory> for Error {
    #[cold]
    fn from(NoMemory { bytes }: NoMemory) -> Self {
        Self::Memory { bytes }
    }
}

/// A number without a long row of zeros before or after its digits.
fn number(x: f64) -> String {
    match x.abs() {
        1e-5..1e15 | 0.0 => x.to_string(),
        _ => format!("{x:?}"),
    }
}

fn axes(rank: usize) -> String {
    match rank {
        0 => "a tensor of at least one dimension".to_owned(),
        _ => format!("-{rank}..={}", rank - 1),
    }
}
