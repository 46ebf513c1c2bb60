//! How a file is written: version 3, little-endian.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::reader::AXES;
use super::types::GgmlType;
use super::value::{Scalar, Value};
use super::{ALIGNMENT, ALIGNMENT_KEY, MAGIC, byte_len, is_alignment};
use crate::error::Fault;
use crate::format::{Format, Keep, TensorPlan};
use crate::header::{Entry, Header, Layout};
use crate::parts::Parts;

/// The version of the format of files that are written.
const VERSION: u32 = 3;
/// The version of ggml's quantization: `GGML_QNT_VERSION` of `ggml.h`.
const QUANTIZATION_VERSION: u32 = 2;
/// Names of tensors have fewer bytes: `GGML_MAX_NAME` of `ggml.h`.
const NAME: usize = 64;

/// A GGUF file. Nothing is added to its metadata but how its tensors are quantized: what else a program that runs it
/// asks for, such as `general.architecture`, is for whoever knows it to put into the [`Header`].
#[derive(Clone, Copy, Debug, Default)]
pub struct GgufFile;

impl Format for GgufFile {
    fn header(&self) -> Header {
        Header::gguf(BTreeMap::new())
    }

    fn plan(&self, tensor: &TensorPlan, header: &mut Header) -> Result<Parts, Fault> {
        let refuse = |keep: String| Fault::NoSuchKeep {
            keep,
            format: "GGUF",
        };
        if tensor.shape.len() > AXES {
            return Err(refuse(format!("tensors of more than {AXES} axes")));
        }
        if tensor.name.len() >= NAME {
            return Err(refuse(format!("names of {NAME} bytes and more")));
        }
        let ggml_type = match &tensor.keep {
            Keep::Plain(dtype) => GgmlType::Plain(*dtype),
            Keep::Blocks(block_type) => GgmlType::Block(*block_type),
            Keep::Codes { .. } => {
                return Err(refuse("codes with parameters of their own".to_owned()));
            }
        };
        if ggml_type.number().is_none() {
            return Err(refuse(format!("elements of {ggml_type}")));
        }
        let len = match (byte_len(ggml_type, &tensor.shape), ggml_type) {
            (Some(len), _) => len,
            (None, GgmlType::Block(block_type)) => {
                let shape = tensor.shape.clone();
                return Err(Fault::Rows { shape, block_type });
            }
            (None, GgmlType::Plain(_)) => return Err(Fault::NoShape),
        };
        let slot = header.add_typed(&tensor.name, ggml_type, &tensor.shape, len)?;
        Ok(match ggml_type {
            GgmlType::Plain(_) => Parts::Plain(slot),
            GgmlType::Block(block_type) => Parts::Blocks(slot, block_type),
        })
    }

    fn describe(
        &self,
        tensors: &[TensorPlan],
        header: &mut Header,
    ) -> serde_json::Result<Option<Json>> {
        let blocks = tensors.iter().filter_map(|tensor| match &tensor.keep {
            Keep::Blocks(block_type) => Some(*block_type),
            Keep::Plain(_) | Keep::Codes { .. } => None,
        });
        let mut types: Vec<_> = blocks.collect();
        types.sort();
        types.dedup();
        if let (Some(metadata), [first, ..]) = (header.gguf_metadata(), &*types) {
            let version = Value::U32(QUANTIZATION_VERSION);
            metadata.insert("general.quantization_version".to_owned(), version);
            // What stood there is of the file that the tensors come from.
            metadata.remove("general.file_type");
            if let ([_], Some(file_type)) = (&*types, first.file_type()) {
                let file_type = Value::U32(file_type);
                metadata.insert("general.file_type".to_owned(), file_type);
            }
        }
        Ok(None)
    }
}

/// Lays a file out: the header, and each tensor at a multiple of the alignment, to which the end is filled up, too.
pub(crate) fn layout(metadata: &BTreeMap<String, Value>, entries: &[Entry]) -> Layout {
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        Some(Value::U32(alignment)) if is_alignment(*alignment) => u64::from(*alignment),
        _ => ALIGNMENT,
    };
    let mut bytes = MAGIC.to_vec();
    VERSION.write(&mut bytes);
    (entries.len() as u64).write(&mut bytes);
    (metadata.len() as u64).write(&mut bytes);
    for (key, value) in metadata {
        key.write(&mut bytes);
        value.write(&mut bytes);
    }
    let (mut starts, mut end) = (Vec::with_capacity(entries.len()), 0_u64);
    for entry in entries {
        entry.name.write(&mut bytes);
        (entry.shape.len() as u32).write(&mut bytes);
        for &len in entry.shape.iter().rev() {
            (len as u64).write(&mut bytes);
        }
        // Only types that have a number are added.
        entry
            .ggml_type
            .number()
            .unwrap_or_default()
            .write(&mut bytes);
        end.write(&mut bytes);
        starts.push(end);
        end = (end + entry.len as u64).next_multiple_of(alignment);
    }
    let data = (bytes.len() as u64).next_multiple_of(alignment);
    for start in &mut starts {
        *start += data;
    }
    Layout::new(bytes, starts, entries, data + end)
}
