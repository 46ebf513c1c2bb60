//! GGUF files that are true, cut short, lying or hostile.

use std::collections::BTreeMap;

use chopi_formats::gguf::{Array, BlockType, Blocks, Gguf, GgufFile, Value};
use chopi_formats::{Error, Format, Plan, Tensor, TensorPlan, open};
use proptest::prelude::*;

/// A file with metadata of every type, and two tensors.
fn file() -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("f.gguf");
    let x: Vec<f32> = (0..128).map(|i| (i as f32 - 60.0) / 7.0).collect();
    let a = Tensor::Blocks(Blocks::quantize(&x, &[2, 64], BlockType::Q5_1).unwrap());
    let b = Tensor::Blocks(Blocks::quantize(&x, &[4, 32], BlockType::Q8_0).unwrap());
    let mut header = GgufFile.header();
    header.gguf_metadata().unwrap().extend(metadata());
    let mut plan = Plan::new(&GgufFile).with_header(header);
    plan.add(TensorPlan::of("a", &a));
    plan.add(TensorPlan::of("b", &b));
    let writer = plan.create(&path, false).unwrap();
    writer.write("b", &b).unwrap();
    writer.write("a", &a).unwrap();
    writer.finish().unwrap();
    std::fs::read(path).unwrap()
}

fn metadata() -> BTreeMap<String, Value> {
    let strings = Array::String(vec!["".to_owned(), "naïve".to_owned()]);
    [
        ("u8", Value::U8(1)),
        ("i8", Value::I8(-1)),
        ("u16", Value::U16(2)),
        ("i16", Value::I16(-2)),
        ("u32", Value::U32(3)),
        ("i32", Value::I32(-3)),
        ("f32", Value::F32(0.5)),
        ("bool", Value::Bool(true)),
        ("string", Value::String("text".to_owned())),
        ("strings", Value::Array(strings)),
        ("floats", Value::Array(Array::F32(vec![1.5, -0.0]))),
        ("bools", Value::Array(Array::Bool(vec![true, false]))),
        ("u64", Value::U64(4)),
        ("i64", Value::I64(-4)),
        ("f64", Value::F64(0.25)),
    ]
    .map(|(key, value)| (key.to_owned(), value))
    .into()
}

/// What is said of a file of these bytes.
fn read(bytes: &[u8]) -> Result<Gguf, Error> {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), bytes).unwrap();
    let gguf = Gguf::open(file.path())?;
    for tensor in gguf.tensors.values() {
        tensor.read().unwrap();
    }
    Ok(gguf)
}

#[test]
fn metadata_of_every_type_come_back() {
    let mut back = read(&file()).unwrap().metadata;
    assert_eq!(
        back.remove("general.quantization_version"),
        Some(Value::U32(2))
    );
    // Blocks of two types are of no one file type.
    assert_eq!(back, metadata());
}

#[test]
fn a_file_that_ends_anywhere_is_refused() {
    let whole = file();
    // The end is padding: 4 blocks of Q8_0 are 136 bytes, and 160 are written.
    let needed = whole.len() - 24;
    assert!(read(&whole[..needed]).is_ok());
    for len in 0..needed {
        assert!(read(&whole[..len]).is_err(), "{len}");
    }
}

/// The bytes of a header.
#[derive(Default)]
struct Bytes(Vec<u8>);

impl Bytes {
    fn new(version: u32, tensors: u64, values: u64) -> Self {
        Self(b"GGUF".to_vec()).u32(version).u64(tensors).u64(values)
    }
    fn u32(mut self, x: u32) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }
    fn u64(mut self, x: u64) -> Self {
        self.0.extend(x.to_le_bytes());
        self
    }
    fn text(mut self, text: &[u8]) -> Self {
        self = self.u64(text.len() as u64);
        self.0.extend(text);
        self
    }
    /// A tensor: its lengths the innermost first, its type and where it begins.
    fn tensor(self, name: &str, lens: &[u64], ggml_type: u32, offset: u64) -> Self {
        let start = self.text(name.as_bytes()).u32(lens.len() as u32);
        let lens = lens.iter().fold(start, |bytes, &len| bytes.u64(len));
        lens.u32(ggml_type).u64(offset)
    }
    /// What is said of it with so many bytes of data.
    fn said(mut self, data: usize) -> String {
        let start = self.0.len().next_multiple_of(32);
        self.0.resize(start + data, 0);
        match read(&self.0) {
            Ok(_) => "read".to_owned(),
            Err(error) => error.to_string(),
        }
    }
}

#[test]
fn lying_headers_are_refused() {
    let one = || Bytes::new(3, 1, 0);
    let key = |number: u32| Bytes::new(3, 0, 1).text(b"key").u32(number);
    assert_eq!(one().tensor("a", &[32, 2], 2, 0).said(36), "read");
    for (bytes, said) in [
        (Bytes::new(1, 0, 0), "version 1, expected 2 or 3"),
        (Bytes::new(3_u32.swap_bytes(), 0, 0), "big-endian"),
        (
            Bytes::new(3, u64::MAX, 0),
            "18446744073709551615 values are announced",
        ),
        (
            Bytes::new(3, 0, u64::MAX),
            "18446744073709551615 values are announced",
        ),
        (Bytes::new(3, 0, 1).u64(u64::MAX), "announced"),
        (Bytes::new(3, 0, 1).text(&[0xff, 0xfe]).u64(0), "not UTF-8"),
        (key(13).u64(0), "type 13, which is unknown"),
        (key(7).u32(2), "a boolean is 2"),
        (key(9).u32(9).u64(1), "an array holds arrays"),
        (key(9).u32(99).u64(1), "values of type 99"),
        (key(9).u32(8).u64(u64::MAX / 8), "announced"),
        (key(9).u32(0).u64(1 << 40), "announced"),
        (
            Bytes::new(3, 0, 2)
                .text(b"k")
                .u32(4)
                .u32(1)
                .text(b"k")
                .u32(4)
                .u32(1),
            "\"k\" twice",
        ),
        (
            Bytes::new(3, 0, 1).text(b"general.alignment").u32(4).u32(0),
            "a power of two",
        ),
        (
            Bytes::new(3, 0, 1)
                .text(b"general.alignment")
                .u32(4)
                .u32(48),
            "a power of two",
        ),
        (
            Bytes::new(3, 0, 1)
                .text(b"general.alignment")
                .u32(4)
                .u32(1 << 31),
            "up to 65536",
        ),
        (
            Bytes::new(3, 0, 1)
                .text(b"general.alignment")
                .u32(8)
                .text(b"32"),
            "a power of two",
        ),
        (
            one().tensor("a", &[32, 2], 2, 32),
            "begins at byte 32 of the data, expected 0",
        ),
        (one().tensor("a", &[32, 2], 2, u64::MAX), "expected 0"),
        (
            one().tensor("a", &[32, 3], 2, 0),
            "beyond the end of the file",
        ),
        (
            one().tensor("a", &[33], 2, 0),
            "33 elements, expected a multiple of the 32",
        ),
        (one().tensor("a", &[32], 16, 0), "type IQ2_XXS is not read"),
        (one().tensor("a", &[32], 4, 0), "type 4 is unknown"),
        (
            one().tensor("a", &[1; 5], 0, 0),
            "5 axes, expected at most 4",
        ),
        (one().tensor("a", &[u64::MAX, 2], 0, 0), "too many elements"),
        (one().tensor("a", &[1 << 62], 0, 0), "too many bytes"),
        (one().tensor("a", &[1 << 60, 0], 0, 0), "read"),
        (
            one().tensor("a", &[0, 1 << 62, 8], 0, 0),
            "too many elements",
        ),
        (
            Bytes::new(3, 2, 0)
                .tensor("a", &[1], 0, 0)
                .tensor("a", &[1], 0, 32),
            "another tensor has its name",
        ),
        (
            Bytes::new(3, 2, 0)
                .tensor("a", &[1], 0, 0)
                .tensor("b", &[1], 0, 0),
            "expected 32",
        ),
    ] {
        let found = bytes.said(36);
        assert!(found.contains(said), "{found}, expected {said}");
    }
}

#[test]
fn a_model_of_plain_elements_is_one_of_floats() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("m");
    let mut bytes = Bytes::new(2, 1, 0).tensor("a", &[3, 1], 0, 0).0;
    bytes.resize(bytes.len().next_multiple_of(32), 0);
    bytes.extend([1.5_f32, -2.0, 0.0].iter().flat_map(|x| x.to_le_bytes()));
    std::fs::write(&path, bytes).unwrap();
    let model = open(&path).unwrap();
    assert!(!model.is_quantized());
    // The innermost axis stands first in the file.
    assert_eq!(model.get("a").unwrap().shape(), [1, 3]);
    let values = model.read("a").unwrap().dequantize().unwrap();
    assert_eq!(*values.elements::<f32>().unwrap(), [1.5, -2.0, 0.0]);
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
        let _ = read(&[b"GGUF\x03\0\0\0", &bytes[..]].concat());
    }

    #[test]
    fn no_change_makes_it_panic(
        changes in proptest::collection::vec(any::<(prop::sample::Index, u8)>(), 1..6),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = file();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let _ = read(&bytes);
        let _ = read(&bytes[..cut.index(bytes.len())]);
    }
}
