//! The header of a file that is to be written: known whole before the first tensor is.

use std::collections::{BTreeMap, BTreeSet};

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::ser::{Serialize, SerializeMap, Serializer};

use crate::error::Fault;
use crate::gguf::{self, GgmlType, Value};

/// The names, types and shapes of the tensors of a file, and its metadata.
#[derive(Debug)]
pub struct Header {
    metadata: Metadata,
    entries: Vec<Entry>,
    names: BTreeSet<String>,
}

/// The metadata, which tell the kind of the file.
#[derive(Debug)]
enum Metadata {
    Safetensors(BTreeMap<String, String>),
    Gguf(BTreeMap<String, Value>),
}

/// A tensor of the file.
#[derive(Debug)]
pub(crate) struct Entry {
    pub name: String,
    pub ggml_type: GgmlType,
    pub shape: Vec<usize>,
    pub len: usize,
}

/// A tensor of the file: which of the entries it is.
#[derive(Clone, Copy, Debug)]
pub struct Slot(usize);

/// Where all of a file lies.
#[derive(Debug)]
pub struct Layout {
    /// The header, with its length.
    pub bytes: Vec<u8>,
    /// Where the data of each slot begin.
    starts: Vec<u64>,
    /// How long the data of each slot are.
    lens: Vec<usize>,
    /// The length of the file.
    pub(crate) len: u64,
}

impl Header {
    /// The longest text of a safetensors file that readers accept.
    pub const LIMIT: usize = 100_000_000;

    /// The header of a safetensors file of no tensors.
    pub fn new(metadata: BTreeMap<String, String>) -> Self {
        Self::of(Metadata::Safetensors(metadata))
    }

    /// The header of a GGUF file of no tensors.
    pub fn gguf(metadata: BTreeMap<String, Value>) -> Self {
        Self::of(Metadata::Gguf(metadata))
    }

    fn of(metadata: Metadata) -> Self {
        Self {
            metadata,
            entries: Vec::new(),
            names: BTreeSet::new(),
        }
    }

    /// Sets a key of the metadata to a text.
    pub fn set_metadata(&mut self, key: &str, text: String) {
        match &mut self.metadata {
            Metadata::Safetensors(metadata) => {
                metadata.insert(key.to_owned(), text);
            }
            Metadata::Gguf(metadata) => {
                metadata.insert(key.to_owned(), Value::String(text));
            }
        }
    }

    /// The metadata of a GGUF file.
    pub fn gguf_metadata(&mut self) -> Option<&mut BTreeMap<String, Value>> {
        match &mut self.metadata {
            Metadata::Safetensors(_) => None,
            Metadata::Gguf(metadata) => Some(metadata),
        }
    }

    /// Adds a tensor, whose data take `len` bytes.
    ///
    /// # Errors
    /// [`Fault::NameTaken`] where there is a tensor of the name.
    pub fn add(
        &mut self,
        name: &str,
        dtype: Dtype,
        shape: &[usize],
        len: usize,
    ) -> Result<Slot, Fault> {
        self.add_typed(name, GgmlType::Plain(dtype), shape, len)
    }

    pub(crate) fn add_typed(
        &mut self,
        name: &str,
        ggml_type: GgmlType,
        shape: &[usize],
        len: usize,
    ) -> Result<Slot, Fault> {
        if !self.names.insert(name.to_owned()) {
            let name = name.to_owned();
            return Err(Fault::NameTaken { name });
        }
        self.entries.push(Entry {
            name: name.to_owned(),
            ggml_type,
            shape: shape.to_vec(),
            len,
        });
        Ok(Slot(self.entries.len() - 1))
    }

    /// The names of the tensors, in the order in which they were added.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.name)
    }

    /// The bytes of all tensors.
    pub fn data_len(&self) -> usize {
        self.entries.iter().map(|entry| entry.len).sum()
    }

    /// Lays the file out.
    ///
    /// A safetensors file has a header of a multiple of 8 bytes, then the tensors by falling alignment, so that each
    /// is aligned, and by name. A GGUF file has the tensors in the order in which they were added, each at a multiple
    /// of its alignment.
    ///
    /// # Errors
    /// Where the metadata cannot be written as JSON.
    pub fn layout(&self) -> serde_json::Result<Layout> {
        match &self.metadata {
            Metadata::Safetensors(metadata) => self.safetensors(metadata),
            Metadata::Gguf(metadata) => Ok(gguf::layout(metadata, &self.entries)),
        }
    }

    fn safetensors(&self, metadata: &BTreeMap<String, String>) -> serde_json::Result<Layout> {
        let dtype = |i: usize| match self.entries[i].ggml_type {
            GgmlType::Plain(dtype) => dtype,
            // No block is ever added to such a header; it would be bytes.
            GgmlType::Block(_) => Dtype::U8,
        };
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(dtype(i)), &self.entries[i].name));
        let mut infos = Vec::with_capacity(order.len());
        let mut starts = vec![0; order.len()];
        let mut end = 0;
        for i in order {
            let entry = &self.entries[i];
            let start = end;
            end += entry.len;
            starts[i] = start as u64;
            let info = TensorInfo {
                dtype: dtype(i),
                shape: entry.shape.clone(),
                data_offsets: (start, end),
            };
            infos.push((&*entry.name, info));
        }
        let mut text = serde_json::to_vec(&Text { metadata, infos })?;
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut text);
        for start in &mut starts {
            *start += bytes.len() as u64;
        }
        let len = (bytes.len() + end) as u64;
        Ok(Layout::new(bytes, starts, &self.entries, len))
    }
}

impl Layout {
    pub(crate) fn new(bytes: Vec<u8>, starts: Vec<u64>, entries: &[Entry], len: u64) -> Self {
        Self {
            bytes,
            starts,
            lens: entries.iter().map(|entry| entry.len).collect(),
            len,
        }
    }

    /// How many bytes the data of a tensor are.
    pub fn len_of(&self, slot: Slot) -> usize {
        self.lens[slot.0]
    }

    /// Where the data of a tensor begin in the file.
    pub fn start(&self, slot: Slot) -> u64 {
        self.starts[slot.0]
    }
}

/// The header's JSON, in an order that is always the same.
struct Text<'a> {
    metadata: &'a BTreeMap<String, String>,
    infos: Vec<(&'a str, TensorInfo)>,
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        if !self.metadata.is_empty() {
            map.serialize_entry("__metadata__", self.metadata)?;
        }
        for (name, info) in &self.infos {
            map.serialize_entry(name, info)?;
        }
        map.end()
    }
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;

    use super::*;

    #[test]
    fn tensors_are_aligned_and_readable() {
        let mut header = Header::new([("key".to_owned(), "é\"\n".to_owned())].into());
        let bytes = header.add("bytes", Dtype::U8, &[3], 3).unwrap();
        let wide = header.add("wide", Dtype::F64, &[2, 1], 16).unwrap();
        let empty = header.add("empty", Dtype::F32, &[0, 7], 0).unwrap();
        let layout = header.layout().unwrap();
        assert_eq!(layout.start(wide) % 8, 0);
        assert_eq!(layout.start(empty), layout.start(wide) + 16);
        assert_eq!(layout.start(bytes), layout.start(wide) + 16);

        let mut file = layout.bytes.clone();
        file.extend([7; 19]);
        let (_, metadata) = SafeTensors::read_metadata(&file).unwrap();
        assert_eq!(metadata.metadata().as_ref().unwrap()["key"], "é\"\n");
        let tensors = SafeTensors::deserialize(&file).unwrap();
        assert_eq!(tensors.tensor("wide").unwrap().shape(), [2, 1]);
        assert_eq!(tensors.tensor("empty").unwrap().shape(), [0, 7]);
    }
}
