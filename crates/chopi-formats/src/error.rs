//! What can be wrong with the files of a model.

use std::io;
use std::path::PathBuf;

use chopi_core::backend::NoMemory;
use safetensors::{Dtype, SafeTensorError};

use crate::gguf::{BlockType, GgmlType};

/// A result whose error says what is wrong with a file.
pub type Result<T> = std::result::Result<T, Error>;

/// What is wrong with a file or a folder. Each message names the file, and the tensor where it is one.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The system cannot read a file or a folder.
    #[error("{path}: cannot read: {source}")]
    Read {
        /// The file or the folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },

    /// A pipe, a device or a folder stands where a file is needed.
    #[error("{path}: not a regular file")]
    NotRegular {
        /// What is not a regular file.
        path: PathBuf,
    },

    /// A folder stands where a single file is needed.
    #[error("{path}: is a folder, expected a safetensors or a GGUF file")]
    Folder {
        /// The folder.
        path: PathBuf,
    },

    /// The file is of another kind.
    #[error("{path}: not a safetensors file: {reason}")]
    NoSafetensors {
        /// The file.
        path: PathBuf,
        /// What the file is instead.
        reason: String,
    },

    /// The file has no bytes.
    #[error("{path}: not a safetensors file: it is empty")]
    Empty {
        /// The file.
        path: PathBuf,
    },

    /// The header of a safetensors file is not valid, or does not describe the file.
    #[error("{path}: not a valid safetensors file: {source}")]
    Header {
        /// The file.
        path: PathBuf,
        /// What is wrong with its header.
        source: SafeTensorError,
    },

    /// The header of a GGUF file is not valid, or does not describe the file.
    #[error("{path}: not a valid GGUF file: {reason}")]
    Gguf {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },

    /// A GGUF file that should be of plain elements has blocks.
    #[error("{path}: is quantized already (its tensor {tensor:?} is {ggml_type})")]
    GgufBlocks {
        /// The file.
        path: PathBuf,
        /// The first tensor of blocks.
        tensor: String,
        /// The type of the blocks.
        ggml_type: GgmlType,
    },

    /// Something is wrong with one tensor.
    #[error("{path}: tensor {tensor:?}: {fault}")]
    Tensor {
        /// The file that holds the tensor.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// What is wrong with it.
        #[source]
        fault: Box<Fault>,
    },

    /// A folder holds no model.
    #[error(
        "{path}: has no model.safetensors, no model.safetensors.index.json, and not one \
         safetensors file alone"
    )]
    NoModel {
        /// The folder.
        path: PathBuf,
    },

    /// Several files of a model have a tensor of one name.
    #[error("{path}: has the tensor {tensor:?}, which {other} has, too")]
    TensorTwice {
        /// The later file.
        path: PathBuf,
        /// The tensor's name.
        tensor: String,
        /// The earlier file.
        other: PathBuf,
    },

    /// A model has no tensor of a name.
    #[error("{path}: has no tensor {tensor:?}")]
    NoTensor {
        /// The model.
        path: PathBuf,
        /// The name.
        tensor: String,
    },

    /// The quantization that `config.json` describes is not one that can be read.
    #[error("{path}: bad \"quantization_config\": {reason}")]
    QuantizationConfig {
        /// The configuration.
        path: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },

    /// A file of JSON is not what it should be.
    #[error("{path}: bad JSON: {reason}")]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },

    /// A model that should be of floats is quantized.
    #[error("{path}: the model is quantized already (its \"quantization_config\" says {method})")]
    AlreadyCompressed {
        /// Its configuration.
        path: PathBuf,
        /// The method that the configuration names.
        method: String,
    },

    /// The metadata of a file of layers that cannot be read.
    #[cfg(feature = "layers")]
    #[error("{path}: bad metadata under the key \"chopi_inputs\": {reason}")]
    LayerInputs {
        /// The path of the file.
        path: PathBuf,
        /// What is wrong with the metadata.
        reason: String,
    },

    /// Weights that are not those of a layer of integers.
    #[cfg(feature = "layers")]
    #[error("{path}: the layer {layer:?}: {source}")]
    Layer {
        /// The path of the file or of the folder.
        path: PathBuf,
        /// The name of the layer.
        layer: String,
        /// What the layer says.
        source: Box<chopi_matmul::Error>,
    },

    /// What chopi has written into a file's metadata is not valid.
    #[error("{path}: bad metadata under the key \"chopi\": {reason}")]
    Metadata {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what was expected.
        reason: String,
    },

    /// The system cannot write a file or a folder.
    #[error("{path}: cannot write: {source}")]
    Write {
        /// The file or the folder.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },

    /// A file stands where a folder is to be written.
    #[error("{path}: exists and is not a folder")]
    NotFolder {
        /// The file.
        path: PathBuf,
    },

    /// A folder that is no quantized model stands where one is to be written.
    #[error("{path}: exists and is not replaced, since it does not hold a quantized model")]
    OutputNotQuantized {
        /// The folder.
        path: PathBuf,
    },

    /// An output would replace what is read.
    #[error("{path}: the output is the input")]
    OutputIsInput {
        /// The output.
        path: PathBuf,
    },

    /// An output is there and is not to be replaced.
    #[error("{path}: exists already")]
    OutputExists {
        /// The output.
        path: PathBuf,
    },

    /// An output is there and may not be written.
    #[error("{path}: is read-only")]
    OutputReadOnly {
        /// The output.
        path: PathBuf,
    },

    /// The header of an output would be longer than readers accept.
    #[error("{path}: the header would be {len} bytes long, more than the {limit} of the format")]
    HeaderTooLong {
        /// The output.
        path: PathBuf,
        /// The bytes of the header.
        len: usize,
        /// The most bytes that readers accept.
        limit: usize,
    },
}

/// What is wrong with one tensor.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Fault {
    /// The parameters or the codes are not ones that can be used.
    #[error(transparent)]
    Quantizer(#[from] chopi_core::Error),

    /// The system cannot read the file.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// The error of the operating system.
        source: io::Error,
    },

    /// A tensor in memory has another number of bytes than its dtype and shape ask for.
    #[error("has {bytes} bytes, expected those of {dtype} {shape:?}")]
    Bytes {
        /// The number of bytes.
        bytes: usize,
        /// Its dtype.
        dtype: Dtype,
        /// Its shape.
        shape: Vec<usize>,
    },

    /// A tensor that is to be quantized has elements that are not finite.
    #[error("holds NaN or infinity: the first of {count} is {value} at index {index:?}")]
    NonFinite {
        /// The index of the first of them.
        index: Vec<usize>,
        /// The first of them.
        value: f64,
        /// How many there are.
        count: usize,
    },

    /// A block that is to be quantized has an element that is not finite.
    #[error("holds NaN or infinity: {value} in block {index}")]
    NonFiniteBlock {
        /// The first block that has one.
        index: usize,
        /// The first of its elements that is none.
        value: f32,
    },

    /// The last axis of a tensor cannot be cut into blocks.
    #[error("has shape {shape:?}, expected a last axis of a multiple of the {} elements of a block of {block_type}",
        block_type.elements())]
    Rows {
        /// Its shape.
        shape: Vec<usize>,
        /// The type of the blocks.
        block_type: BlockType,
    },

    /// A tensor of blocks has another number of bytes than its shape asks for.
    #[error("has {bytes} bytes, expected those of {shape:?} in blocks of {block_type}")]
    BlockBytes {
        /// The number of bytes.
        bytes: usize,
        /// Its shape.
        shape: Vec<usize>,
        /// The type of the blocks.
        block_type: BlockType,
    },

    /// Floats cannot be quantized to blocks of this type.
    #[error("cannot be quantized to {block_type}, expected one of Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0")]
    NoBlocks {
        /// The type of the blocks.
        block_type: BlockType,
    },

    /// The scale or the minimum of a block is beyond the numbers of f16.
    #[error(
        "block {index} needs the scale or the minimum {scale}, expected at most {} in f16",
        half::f16::MAX
    )]
    BlockScale {
        /// The number of the block.
        index: usize,
        /// The number that f16 does not hold.
        scale: f32,
    },

    /// A format does not keep tensors so.
    #[error("{format} does not keep {keep}")]
    NoSuchKeep {
        /// How the tensor was to be kept.
        keep: String,
        /// The name of the format.
        format: &'static str,
    },

    /// A tensor is not what was planned when the header of its file was written.
    #[error("is {found}, but was planned as {planned}")]
    Planned {
        /// What it is.
        found: String,
        /// What was planned.
        planned: String,
    },

    /// A name that a part of the quantized tensor needs is taken.
    #[error("to quantize it needs the name {name:?}, which another tensor has")]
    NameTaken {
        /// The name.
        name: String,
    },

    /// compressed-tensors does not read packed zero points of so few rows.
    #[error(
        "has {rows} rows, of which compressed-tensors 0.20 cannot read packed zero points of 4 bits in groups; \
         it reads those of 9 rows and more"
    )]
    FewZeroPoints {
        /// The number of rows.
        rows: usize,
    },

    /// A part of a quantized tensor is not there.
    #[error("the metadata say that it is quantized, but there is no tensor {name:?}")]
    Missing {
        /// The name of the part.
        name: String,
    },

    /// A weight of a compressed-tensors folder belongs to no group.
    #[error("no group of \"config_groups\" is for its module {module:?}")]
    NoGroup {
        /// The name of the weight's module.
        module: String,
    },

    /// A weight of a compressed-tensors folder is not a matrix.
    #[error("has shape {shape:?}, expected a matrix")]
    NoMatrix {
        /// Its shape.
        shape: Vec<usize>,
    },

    /// The columns of a weight of a compressed-tensors folder are in another order.
    #[error("is in the order of its activations ({name:?}), which is not supported")]
    ActivationOrder {
        /// The name of the tensor that holds the order.
        name: String,
    },

    /// A layer's weights that are floats.
    #[cfg(feature = "layers")]
    #[error("is not quantized")]
    NotQuantized,

    /// A tensor that is to be floats, and is not.
    #[cfg(feature = "layers")]
    #[error("has the dtype {found}, expected floats")]
    NotFloats {
        /// The dtype of its elements.
        found: Dtype,
    },

    /// A quantized tensor has no elements.
    #[error("the metadata say that it is quantized, but it has no elements")]
    NoElements,

    /// A file says that codes are packed which are of too many bits.
    #[error("the metadata say that its codes are packed, but they are not of 2 to 7 bits")]
    NotPacked,

    /// A file does not say what shape a tensor of packed codes has.
    #[error("its shape is not known, or has too many elements")]
    NoShape,

    /// A tensor of parameters is quantized itself.
    #[error("the metadata say that {name:?} belongs to it and is quantized itself")]
    QuantizedCompanion {
        /// The name of the tensor of parameters.
        name: String,
    },

    /// The codes have another dtype than the metadata say.
    #[error("dtype {found} does not agree with the metadata, expected {expected}")]
    Dtype {
        /// The dtype in the file.
        found: Dtype,
        /// The dtype that the metadata ask for.
        expected: Dtype,
    },

    /// A part of a quantized tensor has another dtype than it should.
    #[error("{name:?} has dtype {found}, expected {expected}")]
    CompanionDtype {
        /// The name of the part.
        name: String,
        /// Its dtype.
        found: Dtype,
        /// The dtypes that it may have.
        expected: String,
    },

    /// A part of a quantized tensor has another shape than it should.
    #[error("{name:?} has shape {found:?}, expected {expected:?}")]
    CompanionShape {
        /// The name of the part.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that it should have.
        expected: Vec<usize>,
    },
}

impl From<NoMemory> for Fault {
    fn from(error: NoMemory) -> Self {
        Self::Quantizer(error.into())
    }
}
