//! What can be wrong with what chopi is given.

use chopi_kernels::FloatType;

/// The result of every fallible operation of chopi.
pub type Result<T> = std::result::Result<T, Error>;

/// What was wrong, with the numbers that explain it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// `dequantize`, or another use of parameters, before there are any.
    #[error("the quantizer is not calibrated: call calibrate, quantize or from_params first")]
    NotCalibrated,

    /// The number of bits is outside 2..=32.
    #[error("num_bits is {bits}, expected 2..=32")]
    Bits {
        /// What was asked for.
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
        /// What is wrong with it.
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

    /// Ranges of different shapes cannot be merged.
    #[error("ranges of shape {left:?} and of shape {right:?} cannot be merged")]
    Merge {
        /// The shape of the one.
        left: Vec<usize>,
        /// The shape of the other.
        right: Vec<usize>,
    },

    /// Observers of different schemes, conventions or calibrations cannot be merged.
    #[error("observers of different schemes, conventions or calibrations cannot be merged")]
    MergeSettings,

    /// A percentile that leaves no range.
    #[error("the percentile is {percentile}, expected more than 50 and at most 100")]
    Percentile {
        /// What was asked for.
        percentile: f64,
    },

    /// No calibration has this name.
    #[error(
        "there is no calibration {name:?}, expected minmax, percentile:P with a number P, mse or kl"
    )]
    UnknownCalibration {
        /// The name.
        name: String,
    },

    /// NaN or infinity in data to calibrate on.
    #[error(
        "cannot calibrate on NaN or infinity: the first of {count} is {value} at index {index:?}"
    )]
    NonFinite {
        /// Where the first one is, in row-major order.
        index: Vec<usize>,
        /// Its value.
        value: f64,
        /// How many there are.
        count: usize,
    },

    /// NaN in data to quantize.
    #[error("cannot quantize NaN: the first of {count} is at index {index:?}")]
    NaN {
        /// Where the first one is, in row-major order.
        index: Vec<usize>,
        /// How many there are.
        count: usize,
    },

    /// A tensor without elements has no range.
    #[error("cannot calibrate on an empty tensor (shape {shape:?})")]
    Empty {
        /// The tensor's shape.
        shape: Vec<usize>,
    },

    /// A scale that is not a positive finite number of the type that it is used in.
    #[error("the scale of group {group} is {scale}, expected a positive finite {float}")]
    Scale {
        /// Which group of elements.
        group: usize,
        /// The scale.
        scale: f64,
        /// The compute type.
        float: FloatType,
    },

    /// A zero point that is too far away to be computed with.
    #[error("the zero point of group {group} is {zero_point}, expected {expected}")]
    ZeroPoint {
        /// Which group of elements.
        group: usize,
        /// The zero point.
        zero_point: f64,
        /// What it should have been.
        expected: String,
    },

    /// The numbers of scales and zero points do not fit their shape.
    #[error(
        "{scales} scales and {zero_points} zero points given for parameters of shape {shape:?}"
    )]
    ParamsCount {
        /// How many scales.
        scales: usize,
        /// How many zero points.
        zero_points: usize,
        /// The shape of the parameters.
        shape: Vec<usize>,
    },

    /// A code outside of the scheme's integer range.
    #[error("the code at index {index:?} is {code}, expected {qmin}..={qmax}")]
    Code {
        /// Where the first one is, in row-major order.
        index: Vec<usize>,
        /// The code.
        code: i64,
        /// The smallest code of the scheme.
        qmin: i64,
        /// The largest code of the scheme.
        qmax: i64,
    },

    /// A slice that does not have the elements of its shape.
    #[error("{elements} elements given for a tensor of shape {shape:?}")]
    Elements {
        /// How many there are.
        elements: usize,
        /// The shape.
        shape: Vec<usize>,
    },

    /// The averaging constant of a moving average is outside (0, 1].
    #[error("the averaging constant is {constant}, expected a number over 0 and up to 1")]
    AveragingConstant {
        /// What was asked for.
        constant: f64,
    },

    /// The fake-quantizers of a network are not the ones that are expected.
    #[error("the fake-quantizer {name:?}: {problem}")]
    QuantizerName {
        /// Which one.
        name: String,
        /// What is wrong.
        problem: &'static str,
    },

    /// What is wrong with one tensor of a model.
    #[error("{name:?}: {source}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong.
        source: Box<Error>,
    },

    /// A loss that is not finite, so that it cannot be compared with others.
    #[error("the loss of {name:?} with {bits} bits is {loss}, expected a finite number")]
    Loss {
        /// The tensor.
        name: String,
        /// The bits that it was quantized to.
        bits: u32,
        /// What was given.
        loss: f64,
    },

    /// A budget that is too small.
    #[error("the budget is {budget} bytes, but with the fewest bits there are still {least}")]
    Budget {
        /// What was asked for, in bytes.
        budget: u64,
        /// The bytes that are needed.
        least: u64,
    },

    /// Tensors of different shapes or element types cannot be compared.
    #[error("{left_type} of shape {left:?} and {right_type} of shape {right:?} cannot be compared")]
    Compared {
        /// The shape of the one.
        left: Vec<usize>,
        /// Its element type.
        left_type: FloatType,
        /// The shape of the other.
        right: Vec<usize>,
        /// Its element type.
        right_type: FloatType,
    },

    /// The number of bits of packed codes is outside 1..=8.
    #[error("codes of {bits} bits cannot be packed, expected 1..=8")]
    PackedBits {
        /// What was asked for.
        bits: u32,
    },

    /// Codes that do not fill their rows.
    #[error("{codes} codes are not whole rows of {row}")]
    PackedRows {
        /// How many codes.
        codes: usize,
        /// The codes of a row.
        row: usize,
    },

    /// Packed codes of another length than their number needs.
    #[error("{bytes} bytes are not {rows} rows of {row} codes of {bits} bits")]
    PackedLength {
        /// How many bytes.
        bytes: usize,
        /// How many rows.
        rows: usize,
        /// The codes of a row.
        row: usize,
        /// The bits of a code.
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
        /// What it has to be.
        expected: String,
    },

    /// An output that does not lie in memory as it must.
    #[error("the output of shape {shape:?} does not lie in memory {expected}")]
    OutputLayout {
        /// The shape of the output.
        shape: Vec<usize>,
        /// How it has to lie.
        expected: &'static str,
    },

    /// The real library that a convention reproduces has no such operation.
    #[error("the convention {convention} does not support {what}")]
    Unsupported {
        /// The convention's name.
        convention: String,
        /// What it does not support.
        what: String,
    },

    /// No convention has this name.
    #[error("there is no convention named {name:?}, expected one of: {expected}")]
    UnknownConvention {
        /// The name.
        name: String,
        /// The names that there are.
        expected: String,
    },

    /// The framework refused an operation.
    #[error("{backend}: {source}")]
    Framework {
        /// The backend's name.
        backend: &'static str,
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

fn axes(rank: usize) -> String {
    match rank {
        0 => "a tensor of at least one dimension".to_owned(),
        _ => format!("-{rank}..={}", rank - 1),
    }
}
