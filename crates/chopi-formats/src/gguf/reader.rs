//! The header of a file: version 2 and 3 of the format, little-endian.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use chopi_core::backend::repeated;

use super::blocks::Blocks;
use super::cursor::{Cursor, Stop};
use super::types::GgmlType;
use super::value::{Scalar, Value};
use super::{ALIGNMENT, ALIGNMENT_KEY, MAGIC, MAX_ALIGNMENT, is_alignment};
use crate::archive::Data;
use crate::error::{Error, Fault, Result};
use crate::source::Source;
use crate::tensor::{Plain, Tensor};

/// A GGUF file whose header has been read and found to be true.
#[derive(Debug)]
pub struct Gguf {
    /// Where the file is.
    pub path: PathBuf,
    /// The metadata.
    pub metadata: BTreeMap<String, Value>,
    /// The tensors, in the order of their names.
    pub tensors: BTreeMap<String, GgufEntry>,
    /// The length of the file in bytes.
    pub len: u64,
}

/// A tensor of a GGUF file, which is read when it is asked for.
#[derive(Clone, Debug)]
pub struct GgufEntry {
    /// Its name in the file.
    pub name: String,
    /// How its elements are kept.
    pub ggml_type: GgmlType,
    /// The lengths of the axes, the outermost first: the other way around than in the file.
    pub shape: Vec<usize>,
    /// Where its elements or its blocks are.
    pub data: Data,
}

/// What the header says of a tensor.
struct Info {
    name: String,
    shape: Vec<usize>,
    ggml_type: GgmlType,
    /// Where it begins in the data, and how long it is.
    offset: u64,
    len: u64,
}

/// The most axes that ggml's tensors have.
pub(super) const AXES: usize = 4;

impl GgufEntry {
    /// Reads all of it.
    ///
    /// # Errors
    /// Where it cannot be read.
    pub fn read(&self) -> std::result::Result<Tensor, Fault> {
        let mut bytes = repeated(0, self.data.len())?;
        self.data.read(0, &mut bytes)?;
        let shape = self.shape.clone();
        Ok(match self.ggml_type {
            GgmlType::Plain(dtype) => Tensor::Plain(Plain::new(dtype, shape, bytes)?),
            GgmlType::Block(block_type) => Tensor::Blocks(Blocks::new(block_type, shape, bytes)?),
        })
    }
}

impl GgufEntry {
    /// Reads the values of some elements: whole blocks.
    pub(crate) fn values_of(&self, elements: Range<usize>) -> std::result::Result<Plain, Fault> {
        let (block, bytes) = (
            self.ggml_type.block_elements(),
            self.ggml_type.block_bytes(),
        );
        let mut piece = repeated(0, elements.len() / block * bytes)?;
        self.data.read(elements.start / block * bytes, &mut piece)?;
        let shape = vec![elements.len()];
        match self.ggml_type {
            GgmlType::Plain(dtype) => Plain::new(dtype, shape, piece),
            GgmlType::Block(block_type) => Ok(Blocks::new(block_type, shape, piece)?.dequantize()?),
        }
    }
}

/// Whether a file begins as a GGUF file does.
///
/// # Errors
/// Where it cannot be read.
pub(crate) fn is_gguf(path: &Path) -> Result<bool> {
    let source = Source::open(path)?;
    let mut start = [0; MAGIC.len()];
    if source.len < MAGIC.len() as u64 {
        return Ok(false);
    }
    let read = source.read_at(0, &mut start);
    read.map_err(|error| Error::Read {
        path: path.to_owned(),
        source: error,
    })?;
    Ok(start == MAGIC)
}

impl Gguf {
    /// Opens a file and reads its header.
    ///
    /// # Errors
    /// Where there is no regular file that can be read, or the header is not valid, does not describe the file or
    /// has tensors of types that are not read.
    pub fn open(path: &Path) -> Result<Self> {
        let source = Arc::new(Source::open(path)?);
        let path = || source.path.clone();
        read(&source).map_err(|stop| match stop {
            Stop::Io(source) => Error::Read {
                path: path(),
                source,
            },
            Stop::Wrong(reason) => Error::Gguf {
                path: path(),
                reason,
            },
        })
    }
}

fn read(source: &Arc<Source>) -> std::result::Result<Gguf, Stop> {
    let mut cursor = Cursor::new(source);
    if cursor.array()? != MAGIC {
        return Err(Stop::Wrong("it does not begin with \"GGUF\"".to_owned()));
    }
    match u32::read(&mut cursor)? {
        2 | 3 => {}
        version if version & 0xffff == 0 => {
            return Err(cursor.wrong("its numbers are big-endian, which is not read"));
        }
        version => {
            return Err(cursor.wrong(format!("it has version {version}, expected 2 or 3")));
        }
    }
    let tensor_count = u64::read(&mut cursor)?;
    let value_count = u64::read(&mut cursor)?;
    let mut metadata = BTreeMap::new();
    for _ in 0..cursor.count(value_count, 13)? {
        let key = String::read(&mut cursor)?;
        let number = u32::read(&mut cursor)?;
        let value = Value::read(number, &mut cursor)?;
        if metadata.insert(key.clone(), value).is_some() {
            return Err(cursor.wrong(format!("its metadata have the key {key:?} twice")));
        }
    }
    let mut infos = Vec::new();
    for _ in 0..cursor.count(tensor_count, 24)? {
        infos.push(info(&mut cursor)?);
    }
    let alignment = match metadata.get(ALIGNMENT_KEY) {
        None => ALIGNMENT,
        Some(Value::U32(alignment)) if is_alignment(*alignment) => u64::from(*alignment),
        Some(other) => {
            return Err(cursor.wrong(format!(
                "{ALIGNMENT_KEY:?} is {other}, expected a power of two up to {MAX_ALIGNMENT} as an unsigned integer of 32 bits"
            )));
        }
    };
    let start = cursor.position().next_multiple_of(alignment);
    check(&infos, start, alignment, source.len)?;
    let entry = |info: Info| {
        let data = Data::stored(source, start + info.offset, info.len as usize);
        let entry = GgufEntry {
            name: info.name.clone(),
            ggml_type: info.ggml_type,
            shape: info.shape,
            data,
        };
        (info.name, entry)
    };
    Ok(Gguf {
        path: source.path.clone(),
        metadata,
        tensors: infos.into_iter().map(entry).collect(),
        len: source.len,
    })
}

/// Reads what the header says of a tensor.
fn info(cursor: &mut Cursor<'_>) -> std::result::Result<Info, Stop> {
    let name = String::read(cursor)?;
    let wrong =
        |cursor: &Cursor<'_>, what: String| cursor.wrong(format!("tensor {name:?}: {what}"));
    let axes = u32::read(cursor)? as usize;
    if axes > AXES {
        return Err(wrong(
            cursor,
            format!("it has {axes} axes, expected at most {AXES}"),
        ));
    }
    let mut shape = Vec::with_capacity(axes);
    // Without the axes of length 0, so that the axes can be multiplied in any order.
    let mut elements = 1_u64;
    for _ in 0..axes {
        let len = u64::read(cursor)?;
        let product = elements
            .checked_mul(len.max(1))
            .filter(|&n| n <= i64::MAX as u64);
        let (Some(product), Ok(len)) = (product, usize::try_from(len)) else {
            return Err(wrong(
                cursor,
                format!("it has too many elements, {len} along an axis"),
            ));
        };
        elements = product;
        shape.insert(0, len);
    }
    if shape.contains(&0) {
        elements = 0;
    }
    let ggml_type = GgmlType::of(u32::read(cursor)?).map_err(|what| wrong(cursor, what))?;
    let block = ggml_type.block_elements();
    let row = shape.last().copied().unwrap_or(1);
    if !row.is_multiple_of(block) {
        return Err(wrong(
            cursor,
            format!(
                "its rows have {row} elements, expected a multiple of the {block} of a block of {ggml_type}"
            ),
        ));
    }
    let bytes = (elements / block as u64).checked_mul(ggml_type.block_bytes() as u64);
    let Some(len) = bytes.filter(|&len| usize::try_from(len).is_ok()) else {
        return Err(wrong(
            cursor,
            format!("its {elements} elements take too many bytes"),
        ));
    };
    let offset = u64::read(cursor)?;
    Ok(Info {
        name,
        shape,
        ggml_type,
        offset,
        len,
    })
}

/// Checks that the tensors have names of their own and lie one after the other in the file, each aligned, as ggml
/// asks for.
fn check(infos: &[Info], start: u64, alignment: u64, file: u64) -> std::result::Result<(), Stop> {
    let mut names = BTreeSet::new();
    let mut expected = 0_u64;
    for info in infos {
        let wrong = |what: String| Err(Stop::Wrong(format!("tensor {:?}: {what}", info.name)));
        if !names.insert(&*info.name) {
            return wrong("another tensor has its name, too".to_owned());
        }
        if info.offset != expected {
            return wrong(format!(
                "it begins at byte {} of the data, expected {expected}",
                info.offset
            ));
        }
        let end = expected.checked_add(info.len);
        let in_file = end.and_then(|end| start.checked_add(end));
        if in_file.is_none_or(|end| end > file) {
            return wrong(format!(
                "its {} bytes at byte {expected} of the data go beyond the end of the file, at byte {file}",
                info.len
            ));
        }
        expected = end
            .and_then(|end| end.checked_next_multiple_of(alignment))
            .unwrap_or(u64::MAX);
    }
    Ok(())
}
