//! Files of quantized models: what [chopi](https://docs.rs/chopi) and others write, read tensor by tensor.
//!
//! [`open`] takes a safetensors file, a folder with one or with shards and their index, a file that chopi has written,
//! a folder of compressed-tensors, or a GGUF file. A [`Model`] lists its tensors, by the names that they have in the
//! float model, and how each is [kept](Storage); [`Model::read`] reads one: a [`Plain`] tensor, a [`Quantized`] one
//! of codes and [`QParams`](chopi_core::QParams), or [`Blocks`](gguf::Blocks). Only headers are read before: a model is
//! never in memory whole.
//!
//! [`save`] writes tensors that are in memory, and a [`Plan`] tensors that come one by one, in a [`Format`]:
//! [`Chopi`](chopi::Chopi), [`CompressedTensors`](compressed_tensors::CompressedTensors) or
//! [`GgufFile`](gguf::GgufFile).
//!
//! ```
//! # mod chopi { pub use chopi_formats as formats; }
//! use chopi::formats::Storage;
//! # let folder = tempfile::tempdir()?;
//! # let path = folder.path().join("model.safetensors");
//! # let data: Vec<u8> = [0.5_f32, -1.0].iter().flat_map(|x| x.to_le_bytes()).collect();
//! # let view = safetensors::tensor::TensorView::new(safetensors::Dtype::F32, vec![2], &data)?;
//! # safetensors::serialize_to_file([("norm.weight", view)], None, &path)?;
//!
//! let model = chopi::formats::open(&path)?;
//! for tensor in model.tensors() {
//!     match tensor.storage() {
//!         Storage::Plain(dtype) => println!("{} {dtype} {:?}", tensor.name(), tensor.shape()),
//!         Storage::Quantized { scheme, .. } => println!("{} in {} bits", tensor.name(), scheme.bits),
//!         _ => println!("{}", tensor.name()),
//!     }
//! }
//! let values = model.read("norm.weight")?.dequantize()?;
//! assert_eq!(values.elements::<f32>().as_deref(), Some(&[0.5, -1.0][..]));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

pub mod archive;
pub mod chopi;
pub mod chunks;
mod codes;
pub mod compressed_tensors;
pub mod dtype;
pub mod element;
mod error;
pub mod file;
pub mod files;
mod format;
pub mod gguf;
pub mod header;
mod host;
pub mod json;
#[cfg(feature = "layers")]
mod layers;
mod lazy;
mod model;
mod parts;
mod save;
mod source;
mod tensor;
mod watch;
pub mod write;

pub use codes::{Codes, Ints, PackedCodes};
pub use error::{Error, Fault, Result};
pub use format::{Format, Keep, TensorPlan};
pub use host::Host;
#[cfg(feature = "layers")]
pub use layers::{LayerEntry, LayerReader, LayerWriter};
pub use model::{Model, Storage, StoredTensor, open};
pub use parts::{CodeParts, Parts};
pub use safetensors::Dtype;
pub use save::{Plan, Writer, save};
pub use tensor::{Plain, Quantized, Tensor};
pub use watch::Watch;
