//! A safetensors file, mapped into memory.

mod kind;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use safetensors::{Dtype, SafeTensors};

use crate::error::{Error, Fault, Result};
use crate::json;
use crate::model::QUANTIZATION;

/// The memory of a file. Its tensors are read when they are used, and not before.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    map: Mmap,
}

/// A file whose header has been read and found to be true.
#[derive(Debug)]
pub struct Archive<'a> {
    pub path: &'a Path,
    /// The entries of `__metadata__`.
    pub metadata: BTreeMap<String, String>,
    /// The tensors, in the order of their names.
    pub tensors: BTreeMap<String, Tensor<'a>>,
    /// The length of the file in bytes.
    pub len: usize,
}

/// A tensor in the file's memory.
#[derive(Clone, Debug)]
pub struct Tensor<'a> {
    pub name: String,
    pub dtype: Dtype,
    pub shape: Vec<usize>,
    /// The elements, row-major and little-endian, at any alignment.
    pub data: &'a [u8],
}

impl Mapped {
    /// # Errors
    /// Where there is no regular file with at least one byte that can be read.
    pub fn open(path: &Path) -> Result<Self> {
        let read = |source| Error::Read {
            path: path.to_owned(),
            source,
        };
        // Asked before it is opened: opening a pipe would wait for its other end.
        let metadata = std::fs::metadata(path).map_err(read)?;
        if metadata.is_dir() {
            return Err(Error::Folder {
                path: path.to_owned(),
                hint: folder_hint(path),
            });
        }
        if !metadata.is_file() {
            return Err(Error::NotRegular {
                path: path.to_owned(),
            });
        }
        if metadata.len() == 0 {
            return Err(Error::Empty {
                path: path.to_owned(),
            });
        }
        let file = File::open(path).map_err(read)?;
        // SAFETY: the memory changes under us only if another process writes to the file or
        // truncates it meanwhile, which no program that maps files can keep it from doing. The
        // bytes are only ever read as integers and floats, for which every bit pattern is valid.
        let map = unsafe { Mmap::map(&file) }.map_err(read)?;
        Ok(Self {
            path: path.to_owned(),
            map,
        })
    }

    /// # Errors
    /// Where the header is not valid or does not describe the file.
    pub fn parse(&self) -> Result<Archive<'_>> {
        parse(&self.path, &self.map)
    }
}

/// What to say of a folder where a file is needed.
fn folder_hint(folder: &Path) -> &'static str {
    let quantized = json::object(&folder.join("config.json"));
    match quantized.is_ok_and(|config| config.get(QUANTIZATION).is_some_and(|v| !v.is_null())) {
        true => " (chopi report reads the folder of a quantized model)",
        false => " (chopi quantize --format compressed-tensors reads a model's folder)",
    }
}

fn parse<'a>(path: &'a Path, bytes: &'a [u8]) -> Result<Archive<'a>> {
    let invalid = |source| Error::Header {
        path: path.to_owned(),
        source,
    };
    if let Some(reason) = kind::no_safetensors(bytes) {
        let path = path.to_owned();
        return Err(Error::NoSafetensors { path, reason });
    }
    let (len, header) = SafeTensors::read_metadata(bytes).map_err(invalid)?;
    let data = &bytes[size_of::<u64>() + len..];
    let tensors = header.tensors().into_iter().map(|(name, info)| {
        let (start, end) = info.data_offsets;
        let tensor = Tensor {
            name: name.clone(),
            dtype: info.dtype,
            shape: info.shape.clone(),
            // The header has been found to describe the file.
            data: &data[start..end],
        };
        (name, tensor)
    });
    Ok(Archive {
        path,
        tensors: tensors.collect(),
        metadata: header.metadata().clone().into_iter().flatten().collect(),
        len: bytes.len(),
    })
}

impl Archive<'_> {
    /// The error that says what is wrong with a tensor of this file.
    pub fn fault(&self, tensor: &str, fault: impl Into<Fault>) -> Error {
        Error::Tensor {
            path: self.path.to_owned(),
            tensor: tensor.to_owned(),
            fault: Box::new(fault.into()),
        }
    }

    /// The error that says what is wrong with chopi's metadata of this file.
    pub fn bad_metadata(&self, reason: impl ToString) -> Error {
        Error::Metadata {
            path: self.path.to_owned(),
            reason: reason.to_string(),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A file with this header and this many bytes of data.
    fn file(header: &str, data: usize) -> Vec<u8> {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![0; data]);
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Archive<'_>> {
        parse(Path::new("f"), bytes)
    }

    #[test]
    fn a_true_header_is_read() {
        let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let bytes = file(header, 8);
        let archive = read(&bytes).unwrap();
        assert_eq!(archive.metadata["format"], "pt");
        assert_eq!(archive.tensors["a"].shape, [2]);
        assert_eq!(archive.tensors["a"].data.len(), 8);
    }

    #[test]
    fn lying_headers_are_refused() {
        let tensor = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        for header in [
            tensor("F32", "[2]", "[0,16]"),
            tensor("F32", "[4]", "[0,8]"),
            tensor("F32", "[2]", "[8,0]"),
            tensor("F32", "[2]", "[4,12]"),
            tensor("F32", "[2]", "[0,18446744073709551615]"),
            tensor("F32", "[-2]", "[0,8]"),
            tensor("F32", "[18446744073709551615,2,2]", "[0,8]"),
            tensor("F31", "[2]", "[0,8]"),
            "[]".to_owned(),
            "{".to_owned(),
            String::new(),
        ] {
            assert!(read(&file(&header, 8)).is_err(), "{header}");
        }
        assert!(read(&u64::MAX.to_le_bytes()).is_err());
        assert!(read(&[1, 2, 3]).is_err());
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(
            len in 0_u64..80,
            header in "[ -~]{0,80}",
            data in proptest::collection::vec(any::<u8>(), 0..16),
        ) {
            let mut bytes = len.to_le_bytes().to_vec();
            bytes.extend(header.as_bytes());
            bytes.extend(data);
            let _ = read(&bytes);
        }
    }
}
