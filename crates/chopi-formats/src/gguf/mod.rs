//! GGUF, the files of llama.cpp and of what is built on ggml.
//!
//! A file has metadata, keys with [`Value`]s, and tensors of [`GgmlType`]s: plain elements, or blocks along the last
//! axis with scales of their own. Versions 2 and 3 are read, little-endian; version 3 is written. The shape of a
//! tensor is the other way around in the file: the innermost axis stands first.
//!
//! [`Blocks::dequantize`] gives the values as ggml does, and [`Blocks::quantize`] the blocks of floats, to the bit as
//! the Python package `gguf` 0.19.

mod blocks;
mod cursor;
mod dequantize;
mod k_quants;
mod layout;
mod quantize;
mod reader;
mod types;
mod value;

pub use blocks::Blocks;
pub(crate) use blocks::byte_len;
pub use layout::GgufFile;
pub(crate) use layout::layout;
pub(crate) use reader::is_gguf;
pub use reader::{Gguf, GgufEntry};
pub use types::{BlockType, GgmlType};
pub use value::{Array, Value};

/// What a file begins with.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
/// Tensors begin at multiples of so many bytes, unless the metadata say otherwise.
const ALIGNMENT: u64 = 32;
const ALIGNMENT_KEY: &str = "general.alignment";
/// The largest alignment that is read: larger ones would make files of nothing but gaps.
const MAX_ALIGNMENT: u32 = 1 << 16;

/// Whether tensors may be aligned so.
fn is_alignment(alignment: u32) -> bool {
    alignment.is_power_of_two() && alignment <= MAX_ALIGNMENT
}
