//! What can be wrong with what is given.

use std::path::PathBuf;

use chopi_kernels::NoMemory;

/// The result of every fallible operation of this crate.
pub type Result<T> = std::result::Result<T, Error>;

/// What this crate refuses to compute, with the numbers that explain it.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// What chopi-core refuses: a scheme, a tensor, parameters.
    #[error(transparent)]
    Core(#[from] chopi_core::Error),

    /// Moments of no channels.
    #[error("moments of 0 channels, expected at least 1")]
    NoChannels,

    /// A tensor whose channels are not those of the moments.
    #[error("{what} of shape {shape:?} has {channels} channels, expected {expected}")]
    Channels {
        /// What has another number of channels.
        what: &'static str,
        /// Its shape.
        shape: Vec<usize>,
        /// Its number of channels.
        channels: usize,
        /// The number of channels of the moments.
        expected: usize,
    },

    /// Moments of another number of channels.
    #[error("moments of {other} channels cannot be merged into those of {channels}")]
    Merge {
        /// The number of channels of the moments that were to be extended.
        channels: usize,
        /// The number of channels of the moments that were to be merged into them.
        other: usize,
    },

    /// Values too large for the sums of their squares.
    #[error(
        "channel {channel} holds {largest:e} in {rows} rows, but the second moments hold up to 2^62 for \
         the square of the largest value times the rows"
    )]
    Overflow {
        /// The channel.
        channel: usize,
        /// The largest absolute value of the channel.
        largest: f64,
        /// The number of rows, seen before and new.
        rows: u64,
    },

    /// Moments of no rows, where some are needed.
    #[error("the moments have seen no rows: observe inputs of the layer first")]
    NoRows,

    /// A number for each channel that is none that can be used.
    #[error("{what} of channel {channel} is {value:?}, expected {expected}")]
    Number {
        /// What the number is.
        what: &'static str,
        /// The channel.
        channel: usize,
        /// The number.
        value: f64,
        /// The numbers that can be used.
        expected: &'static str,
    },

    /// A list of another length than there are channels.
    #[error("{count} {what} given for {channels} channels")]
    Count {
        /// What the list holds.
        what: &'static str,
        /// The length of the list.
        count: usize,
        /// The number of channels.
        channels: usize,
    },

    /// A tensor of another rank than is needed.
    #[error("{what} has shape {shape:?}, expected {expected}")]
    Shape {
        /// What has this shape.
        what: &'static str,
        /// The shape.
        shape: Vec<usize>,
        /// The shapes that can be used.
        expected: &'static str,
    },

    /// A window that a convolution does not have, or that does not fit its input.
    #[error("{what} is {value:?}, expected {expected}")]
    Window {
        /// The part of the window.
        what: &'static str,
        /// Its values.
        value: Vec<usize>,
        /// The values that can be used.
        expected: String,
    },

    /// A setting of a method that is out of its range.
    #[error("{what} is {value:?}, expected {expected}")]
    Setting {
        /// The name of the setting.
        what: &'static str,
        /// Its value.
        value: f64,
        /// The values that can be used.
        expected: &'static str,
    },

    /// A method that does not exist.
    #[error("{part:?} of the method {name:?} is unknown: expected {expected}")]
    UnknownMethod {
        /// The name that was asked for.
        name: String,
        /// The part of the name that is not known.
        part: String,
        /// The parts that a name can have.
        expected: &'static str,
    },

    /// A method that cannot be used with a scheme.
    #[error("{method} cannot be used with {what}")]
    Unsupported {
        /// The method.
        method: &'static str,
        /// What it cannot be used with.
        what: &'static str,
    },

    /// Second moments that could not be factored, whatever was added to their diagonal.
    #[error(
        "the second moments cannot be factored, even with {damping:e} of their mean diagonal added"
    )]
    NotFactored {
        /// The largest share that was added.
        damping: f64,
    },

    /// A file of statistics that cannot be read.
    #[error(transparent)]
    Read(Box<chopi_formats::Error>),

    /// A file of statistics that cannot be written.
    #[error(transparent)]
    Write(Box<chopi_formats::Error>),

    /// A file that does not hold moments.
    #[error("{}: {problem}", .path.display())]
    File {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong with the file.
        problem: String,
    },

    /// An error with one named layer.
    #[error("{name:?}: {source}")]
    Named {
        /// The name of the layer.
        name: String,
        /// What is wrong with it.
        source: Box<Error>,
    },
}

impl From<NoMemory> for Error {
    #[cold]
    fn from(error: NoMemory) -> Self {
        Self::Core(error.into())
    }
}
