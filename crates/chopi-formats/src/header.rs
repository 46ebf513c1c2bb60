//! The header of a file that is to be written: known whole before the first tensor is.

use std::collections::BTreeMap;

use safetensors::Dtype;
use safetensors::tensor::TensorInfo;
use serde::ser::{Serialize, SerializeMap, Serializer};

/// The names, dtypes and shapes of the tensors of a file, and its metadata.
#[derive(Debug, Default)]
pub struct Header {
    metadata: BTreeMap<String, String>,
    entries: Vec<Entry>,
}

#[derive(Debug)]
struct Entry {
    name: String,
    dtype: Dtype,
    shape: Vec<usize>,
    len: usize,
}

/// A tensor of the file: which of the entries it is.
#[derive(Clone, Copy, Debug)]
pub struct Slot(usize);

/// Where all of a file lies.
#[derive(Debug)]
pub struct Layout {
    /// The length and the text of the header.
    pub bytes: Vec<u8>,
    /// Where the data of each slot begin.
    starts: Vec<u64>,
}

impl Header {
    /// The longest text that readers accept.
    pub const LIMIT: usize = 100_000_000;

    /// A header of no tensors.
    pub fn new(metadata: BTreeMap<String, String>) -> Self {
        Self {
            metadata,
            entries: Vec::new(),
        }
    }

    /// Adds a tensor, whose data take `len` bytes. The name must be new.
    pub fn add(&mut self, name: &str, dtype: Dtype, shape: &[usize], len: usize) -> Slot {
        self.entries.push(Entry {
            name: name.to_owned(),
            dtype,
            shape: shape.to_vec(),
            len,
        });
        Slot(self.entries.len() - 1)
    }

    /// The names of the tensors.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.iter().map(|entry| &*entry.name)
    }

    /// The bytes of all tensors.
    pub fn data_len(&self) -> usize {
        self.entries.iter().map(|entry| entry.len).sum()
    }

    /// Lays the file out as the format asks: a header of a multiple of 8 bytes, then the tensors by
    /// falling alignment, so that each is aligned, and by name.
    ///
    /// # Errors
    /// Where the metadata cannot be written as JSON.
    pub fn layout(&self) -> serde_json::Result<Layout> {
        let mut order: Vec<usize> = (0..self.entries.len()).collect();
        order.sort_by_key(|&i| {
            let entry = &self.entries[i];
            (std::cmp::Reverse(entry.dtype), &entry.name)
        });
        let mut infos = Vec::with_capacity(order.len());
        let mut starts = vec![0; order.len()];
        let mut end = 0;
        for i in order {
            let entry = &self.entries[i];
            let start = end;
            end += entry.len;
            starts[i] = start as u64;
            let info = TensorInfo {
                dtype: entry.dtype,
                shape: entry.shape.clone(),
                data_offsets: (start, end),
            };
            infos.push((&*entry.name, info));
        }
        let mut text = serde_json::to_vec(&Text {
            metadata: &self.metadata,
            infos,
        })?;
        text.resize(text.len().next_multiple_of(8), b' ');
        let mut bytes = (text.len() as u64).to_le_bytes().to_vec();
        bytes.append(&mut text);
        for start in &mut starts {
            *start += bytes.len() as u64;
        }
        Ok(Layout { bytes, starts })
    }
}

impl Layout {
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
        let bytes = header.add("bytes", Dtype::U8, &[3], 3);
        let wide = header.add("wide", Dtype::F64, &[2, 1], 16);
        let empty = header.add("empty", Dtype::F32, &[0, 7], 0);
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
