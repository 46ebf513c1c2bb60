//! A safetensors file: its header, and its tensors, which are read piece by piece.

mod kind;

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chopi_core::backend::repeated;
use safetensors::tensor::Metadata;
use safetensors::{Dtype, SafeTensorError};

use crate::element::{Element, bytes_mut, from_file_order};
use crate::error::{Error, Fault, Result};
use crate::gguf::{GgmlType, Gguf, is_gguf};
use crate::header::Header;
use crate::lazy::Dequantized;
use crate::source::Source;
use crate::watch;

/// A safetensors file, or a GGUF file of plain elements, whose header has been read and found to be true.
#[derive(Debug)]
pub struct Archive {
    /// Where the file is.
    pub path: PathBuf,
    /// The entries of `__metadata__`; none of a GGUF file.
    pub metadata: BTreeMap<String, String>,
    /// The tensors, in the order of their names.
    pub tensors: BTreeMap<String, Entry>,
    /// The length of the file in bytes.
    pub len: u64,
    /// Whether it is a GGUF file.
    pub is_gguf: bool,
}

/// A tensor of a file, which is read when it is asked for.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Its name in the file.
    pub name: String,
    /// The type of its elements.
    pub dtype: Dtype,
    /// The lengths of its axes.
    pub shape: Vec<usize>,
    /// Where its elements are.
    pub data: Data,
}

/// The bytes of a tensor: its elements, row-major and little-endian.
#[derive(Clone, Debug)]
pub struct Data(Place);

#[derive(Clone, Debug)]
enum Place {
    /// In a file, from `start` on.
    Stored {
        source: Arc<Source>,
        start: u64,
        len: usize,
    },
    /// In memory.
    Held(Arc<[u8]>),
    /// The values of codes or blocks.
    Dequantized(Arc<Dequantized>),
}

impl Archive {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// Where there is no regular file that can be read, or the header is not valid or does not
    /// describe the file; [`Error::GgufBlocks`] for a GGUF file that is quantized.
    pub fn open(path: &Path) -> Result<Self> {
        if path.is_dir() {
            let path = path.to_owned();
            return Err(Error::Folder { path });
        }
        if is_gguf(path)? {
            return Self::of_gguf(Gguf::open(path)?);
        }
        Self::parse(Arc::new(Source::open(path)?))
    }

    /// The tensors of a GGUF file of plain elements.
    fn of_gguf(gguf: Gguf) -> Result<Self> {
        let mut tensors = BTreeMap::new();
        for (name, entry) in gguf.tensors {
            let GgmlType::Plain(dtype) = entry.ggml_type else {
                return Err(Error::GgufBlocks {
                    path: gguf.path,
                    tensor: name,
                    ggml_type: entry.ggml_type,
                });
            };
            let tensor = Entry {
                name: entry.name,
                dtype,
                shape: entry.shape,
                data: entry.data,
            };
            tensors.insert(name, tensor);
        }
        Ok(Self {
            path: gguf.path,
            metadata: BTreeMap::new(),
            tensors,
            len: gguf.len,
            is_gguf: true,
        })
    }

    fn parse(source: Arc<Source>) -> Result<Self> {
        let path = &source.path;
        let read = |source| Error::Read {
            path: path.clone(),
            source,
        };
        let mut start = [0; N_LEN];
        let known = source.len.min(N_LEN as u64) as usize;
        source.read_at(0, &mut start[..known]).map_err(read)?;
        // Of a file that is none of safetensors enough to tell what it is.
        let header = match u64::from_le_bytes(start) {
            len if len <= Header::LIMIT as u64 => len,
            _ => 1 << 12,
        };
        let mut bytes = vec![0; source.len.min(N_LEN as u64 + header) as usize];
        source.read_at(0, &mut bytes).map_err(read)?;
        if let Some(reason) = kind::no_safetensors(&bytes) {
            let path = path.clone();
            return Err(Error::NoSafetensors { path, reason });
        }
        let header = header_of(&bytes, source.len).map_err(|error| Error::Header {
            path: path.clone(),
            source: error,
        })?;
        let tensors = header.tensors().into_iter().map(|(name, info)| {
            let (start, end) = info.data_offsets;
            let tensor = Entry {
                name: name.clone(),
                dtype: info.dtype,
                shape: info.shape.clone(),
                data: Data::stored(&source, (bytes.len() + start) as u64, end - start),
            };
            (name, tensor)
        });
        Ok(Archive {
            path: path.clone(),
            tensors: tensors.collect(),
            metadata: header.metadata().clone().into_iter().flatten().collect(),
            len: source.len,
            is_gguf: false,
        })
    }
}

/// The bytes before the header's text: its length.
const N_LEN: usize = size_of::<u64>();

/// The header of a file of `len` bytes, which begins with `bytes`: those of the header, or fewer where its length
/// is a lie.
fn header_of(bytes: &[u8], len: u64) -> std::result::Result<Metadata, SafeTensorError> {
    let text_len = match bytes.first_chunk() {
        Some(&text_len) => u64::from_le_bytes(text_len),
        None => return Err(SafeTensorError::HeaderTooSmall),
    };
    if text_len > Header::LIMIT as u64 {
        return Err(SafeTensorError::HeaderTooLarge);
    }
    let text = &bytes[N_LEN..];
    if text.len() as u64 != text_len {
        return Err(SafeTensorError::InvalidHeaderLength);
    }
    let text = std::str::from_utf8(text).map_err(SafeTensorError::InvalidHeader)?;
    let header: Metadata =
        serde_json::from_str(text).map_err(SafeTensorError::InvalidHeaderDeserialization)?;
    match (header.data_len() as u64).checked_add(bytes.len() as u64) {
        Some(expected) if expected == len => Ok(header),
        _ => Err(SafeTensorError::MetadataIncompleteBuffer),
    }
}

impl Data {
    pub(crate) fn stored(source: &Arc<Source>, start: u64, len: usize) -> Self {
        let source = Arc::clone(source);
        Self(Place::Stored { source, start, len })
    }

    pub(crate) fn dequantized(values: Dequantized) -> Self {
        Self(Place::Dequantized(Arc::new(values)))
    }

    /// The number of bytes.
    pub fn len(&self) -> usize {
        match &self.0 {
            Place::Stored { len, .. } => *len,
            Place::Held(bytes) => bytes.len(),
            Place::Dequantized(values) => values.len(),
        }
    }

    /// Whether there are no bytes.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Reads the bytes from `offset` on, as many as `out` has, which there must be.
    ///
    /// # Errors
    /// Where the file cannot be read, has become shorter, or a signal has stopped the program.
    pub fn read(&self, offset: usize, out: &mut [u8]) -> std::result::Result<(), Fault> {
        match &self.0 {
            Place::Stored { source, start, .. } => {
                let read = watch::check().and_then(|()| source.read_at(start + offset as u64, out));
                read.map_err(|error| Fault::Read {
                    path: source.path.clone(),
                    source: error,
                })
            }
            Place::Held(bytes) => {
                out.copy_from_slice(&bytes[offset..offset + out.len()]);
                Ok(())
            }
            Place::Dequantized(values) => values.read(offset, out),
        }
    }

    /// Calls `f` with all bytes, a piece after the other, and where each begins.
    ///
    /// # Errors
    /// The errors of [`read`](Self::read) by `fault`, and those of `f`.
    pub fn pieces<E>(
        &self,
        fault: impl Fn(Fault) -> E,
        mut f: impl FnMut(usize, &[u8]) -> std::result::Result<(), E>,
    ) -> std::result::Result<(), E> {
        const PIECE: usize = 1 << 20;
        let mut buffer = vec![0; self.len().min(PIECE)];
        for offset in (0..self.len()).step_by(PIECE) {
            let piece = &mut buffer[..PIECE.min(self.len() - offset)];
            self.read(offset, piece).map_err(&fault)?;
            f(offset, piece)?;
        }
        Ok(())
    }
}

impl From<Vec<u8>> for Data {
    /// Bytes in memory.
    fn from(bytes: Vec<u8>) -> Self {
        Self(Place::Held(bytes.into()))
    }
}

impl Entry {
    /// Reads all bytes.
    ///
    /// # Errors
    /// The errors of [`Data::read`].
    pub fn bytes(&self) -> std::result::Result<Vec<u8>, Fault> {
        let mut bytes = repeated(0, self.data.len())?;
        self.data.read(0, &mut bytes)?;
        Ok(bytes)
    }

    /// Reads all elements.
    ///
    /// # Errors
    /// The errors of [`Data::read`].
    pub fn elements<T: Element>(&self) -> std::result::Result<Vec<T>, Fault> {
        self.elements_of(0..self.data.len() / size_of::<T>())
    }

    /// Reads some of the elements, which there must be.
    ///
    /// # Errors
    /// The errors of [`Data::read`].
    pub fn elements_of<T: Element>(
        &self,
        range: Range<usize>,
    ) -> std::result::Result<Vec<T>, Fault> {
        let mut elements = repeated(T::zeroed(), range.len())?;
        self.data
            .read(range.start * size_of::<T>(), bytes_mut(&mut elements))?;
        from_file_order(&mut elements);
        Ok(elements)
    }
}

/// The elements of a tensor, of which a piece is in memory, or all where they are few.
#[derive(Debug)]
pub struct Reader<'a, T> {
    tensor: &'a Entry,
    held: Range<usize>,
    buffer: Vec<T>,
}

impl<'a, T: Element> Reader<'a, T> {
    /// The most bytes of a tensor that is read once, where its elements are used more than once.
    const WHOLE: usize = 1 << 23;

    /// A reader that has read nothing yet.
    pub fn new(tensor: &'a Entry) -> Self {
        Self {
            tensor,
            held: 0..0,
            buffer: Vec::new(),
        }
    }

    /// Some of the elements, which there must be.
    ///
    /// # Errors
    /// The errors of [`Data::read`].
    pub fn read(&mut self, range: Range<usize>) -> std::result::Result<&[T], Fault> {
        if range.start < self.held.start || range.end > self.held.end {
            let all = 0..self.tensor.data.len() / size_of::<T>();
            let wanted = match self.tensor.data.len() <= Self::WHOLE {
                true => all,
                false => range.clone(),
            };
            self.held = 0..0;
            self.buffer.truncate(wanted.len());
            if self.buffer.len() < wanted.len() {
                // Not both in memory at once.
                self.buffer = Vec::new();
                self.buffer = repeated(T::zeroed(), wanted.len())?;
            }
            let offset = wanted.start * size_of::<T>();
            self.tensor.data.read(offset, bytes_mut(&mut self.buffer))?;
            from_file_order(&mut self.buffer);
            self.held = wanted;
        }
        Ok(&self.buffer[range.start - self.held.start..range.end - self.held.start])
    }
}

impl Archive {
    /// The error that says what is wrong with a tensor of this file.
    pub fn fault(&self, tensor: &str, fault: impl Into<Fault>) -> Error {
        Error::Tensor {
            path: self.path.clone(),
            tensor: tensor.to_owned(),
            fault: Box::new(fault.into()),
        }
    }

    /// The error that says what is wrong with chopi's metadata of this file.
    pub fn bad_metadata(&self, reason: impl ToString) -> Error {
        Error::Metadata {
            path: self.path.clone(),
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

    /// Does something with the archive in a file of these bytes.
    fn read<R>(bytes: &[u8], f: impl FnOnce(Result<Archive>) -> R) -> R {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), bytes).unwrap();
        f(Archive::open(file.path()))
    }

    #[test]
    fn a_true_header_is_read() {
        let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let mut bytes = file(header, 0);
        bytes.extend([1.5_f32, -2.0].iter().flat_map(|x| x.to_le_bytes()));
        read(&bytes, |archive| {
            let archive = archive.unwrap();
            assert_eq!(archive.metadata["format"], "pt");
            let tensor = &archive.tensors["a"];
            assert_eq!((&*tensor.shape, tensor.data.len()), (&[2][..], 8));
            assert_eq!(tensor.elements::<f32>().unwrap(), [1.5, -2.0]);
            assert_eq!(Reader::<f32>::new(tensor).read(1..2).unwrap(), [-2.0]);
        });
    }

    #[test]
    fn a_file_that_is_cut_short_is_an_error() {
        let header = r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
        let on_disk = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(on_disk.path(), file(header, 8)).unwrap();
        let archive = Archive::open(on_disk.path()).unwrap();
        let tensor = &archive.tensors["a"];
        let mut elements = Reader::<f32>::new(tensor);
        assert_eq!(elements.read(0..2).unwrap(), [0.0; 2]);
        on_disk.as_file().set_len(archive.len - 1).unwrap();
        // What is in memory stays there.
        assert_eq!(elements.read(0..2).unwrap(), [0.0; 2]);
        let said = tensor.elements::<f32>().unwrap_err().to_string();
        assert!(said.contains("it has become shorter than the"), "{said}");
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
            let refused = read(&file(&header, 8), |archive| archive.is_err());
            assert!(refused, "{header}");
        }
        assert!(read(&u64::MAX.to_le_bytes(), |archive| archive.is_err()));
        assert!(read(&[1, 2, 3], |archive| archive.is_err()));
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
            read(&bytes, drop);
        }
    }
}
