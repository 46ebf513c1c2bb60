//! Files to try the program on, and the program.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use chopi::backend::{Float, bf16, f16};
use ndarray::{ArrayD, IxDyn};
use safetensors::tensor::{TensorView, serialize};
use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use tempfile::TempDir;

/// A folder that vanishes at the end of a test.
pub struct Folder(TempDir);

impl Folder {
    pub fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A file in the folder.
    pub fn file(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, bytes).unwrap();
        path
    }

    /// What the folder holds, sorted: a temporary file would show.
    pub fn names(&self) -> Vec<String> {
        names(self.0.path())
    }
}

/// The folder of a small model of chopi-models.
#[cfg(feature = "models")]
pub fn small(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../chopi-models/tests/data")
        .join(name)
}

/// The names in a folder, sorted.
pub fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
    let mut names: Vec<String> = entries
        .map(|entry| name(entry).into_string().unwrap())
        .collect();
    names.sort();
    names
}

/// The program with these arguments.
pub fn chopi<S: AsRef<std::ffi::OsStr>>(args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_chopi"));
    command.args(args);
    command
}

/// `chopi VERB IN -o OUT ARGS`.
pub fn convert(verb: &str, input: &Path, output: &Path, args: &[&str]) -> Output {
    let mut command = chopi([verb]);
    command.arg(input).arg("-o").arg(output).args(args);
    command.output().unwrap()
}

/// What `chopi VERB IN -o OUT ARGS` prints; it must succeed.
pub fn convert_well(verb: &str, input: &Path, output: &Path, args: &[&str]) -> String {
    let done = convert(verb, input, output, args);
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{verb} {args:?}: {stderr}");
    assert_eq!(stderr, "");
    String::from_utf8(done.stdout).unwrap()
}

/// The one line that a command says that must fail with this exit status.
pub fn failure(done: Output, status: i32) -> String {
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(status), "{stderr}");
    assert_eq!(String::from_utf8(done.stdout).unwrap(), "");
    assert!(!stderr.contains("panicked"), "{stderr}");
    if status == 1 {
        assert_eq!(stderr.matches('\n').count(), 1, "{stderr}");
    }
    stderr
}

/// A float that tests store.
pub trait Stored: Float {
    const DTYPE: Dtype;
    fn of(value: f64) -> Self;
    fn le(self) -> Vec<u8>;
    fn from_le(bytes: &[u8]) -> Self;
}

macro_rules! impl_stored {
    ($($t:ident $dtype:ident $of:expr;)*) => {$(
        impl Stored for $t {
            const DTYPE: Dtype = Dtype::$dtype;
            fn of(value: f64) -> Self {
                $of(value)
            }
            fn le(self) -> Vec<u8> {
                self.to_le_bytes().to_vec()
            }
            fn from_le(bytes: &[u8]) -> Self {
                Self::from_le_bytes(bytes.try_into().unwrap())
            }
        }
    )*};
}

impl_stored! {
    f16 F16 f16::from_f64;
    bf16 BF16 bf16::from_f64;
    f32 F32 |v| v as f32;
    f64 F64 |v| v;
}

/// An array of numbers that look random, the same at every run.
pub fn noise<F: Stored>(shape: &[usize]) -> ArrayD<F> {
    let mut state = shape.iter().fold(11_u64, |s, &n| s * 31 + n as u64);
    ArrayD::from_shape_simple_fn(IxDyn(shape), || {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        F::of((state >> 40) as f64 / 2_f64.powi(22) - 1.3)
    })
}

/// The tensors of a file to be.
#[derive(Default)]
pub struct Model {
    tensors: Vec<(String, Dtype, Vec<usize>, Vec<u8>)>,
    metadata: HashMap<String, String>,
}

impl Model {
    pub fn new() -> Self {
        Self::default()
    }

    pub fn raw(mut self, name: &str, dtype: Dtype, shape: &[usize], data: Vec<u8>) -> Self {
        self.tensors
            .push((name.to_owned(), dtype, shape.to_vec(), data));
        self
    }

    pub fn array<F: Stored>(self, name: &str, x: &ArrayD<F>) -> Self {
        let data = x.iter().flat_map(|&v| v.le()).collect();
        self.raw(name, F::DTYPE, x.shape(), data)
    }

    pub fn floats(self, name: &str, shape: &[usize], data: &[f32]) -> Self {
        let data = data.iter().flat_map(|v| v.to_le_bytes()).collect();
        self.raw(name, Dtype::F32, shape, data)
    }

    pub fn metadata(mut self, key: &str, value: &str) -> Self {
        self.metadata.insert(key.to_owned(), value.to_owned());
        self
    }

    pub fn bytes(&self) -> Vec<u8> {
        let views = self.tensors.iter().map(|(name, dtype, shape, data)| {
            (name, TensorView::new(*dtype, shape.clone(), data).unwrap())
        });
        let metadata = Some(self.metadata.clone()).filter(|m| !m.is_empty());
        serialize(views, metadata).unwrap()
    }
}

/// The elements of a tensor of a file.
pub fn elements<F: Stored>(file: &SafeTensors<'_>, name: &str) -> Vec<F> {
    let tensor = file.tensor(name).unwrap();
    assert_eq!(tensor.dtype(), F::DTYPE, "{name}");
    tensor
        .data()
        .chunks_exact(size_of::<F>())
        .map(F::from_le)
        .collect()
}

/// The elements of an integer tensor of a file, whatever their type.
pub fn integers(file: &SafeTensors<'_>, name: &str) -> Vec<i64> {
    let tensor = file.tensor(name).unwrap();
    macro_rules! read {
        ($($dtype:ident $t:ident),*) => {
            match tensor.dtype() {
                $(Dtype::$dtype => {
                    let read = |b: &[u8]| $t::from_le_bytes(b.try_into().unwrap()) as i64;
                    tensor.data().chunks_exact(size_of::<$t>()).map(read).collect()
                })*
                other => panic!("{name} is {other}"),
            }
        };
    }
    read!(I8 i8, U8 u8, I16 i16, U16 u16, I32 i32, U32 u32, I64 i64)
}

/// The codes of a quantized tensor of this shape, packed where they have 2 to 7 bits.
pub fn codes(
    file: &SafeTensors<'_>,
    name: &str,
    shape: &[usize],
    bits: u32,
    signed: bool,
) -> Vec<i64> {
    let name = format!("{name}.codes");
    let tensor = file.tensor(&name).unwrap();
    if bits >= 8 {
        assert_eq!(tensor.shape(), shape);
        return integers(file, &name);
    }
    let rows = if shape.len() < 2 { 1 } else { shape[0] };
    let row = shape.iter().product::<usize>() / rows;
    assert_eq!(tensor.dtype(), Dtype::U8);
    assert_eq!(tensor.shape(), [rows, (row * bits as usize).div_ceil(8)]);
    // Bit by bit: code i of a row begins at bit i·bits.
    let bit = |row: &[u8], at: usize| i64::from(row[at / 8] >> (at % 8) & 1);
    let code = |bytes: &[u8], i: usize| {
        let start = i * bits as usize;
        let field = (0..bits as usize)
            .map(|b| bit(bytes, start + b) << b)
            .sum::<i64>();
        match signed && field >> (bits - 1) == 1 {
            true => field - (1 << bits),
            false => field,
        }
    };
    let bytes = tensor.data().chunks_exact(tensor.shape()[1].max(1));
    bytes
        .flat_map(|bytes| (0..row).map(move |i| code(bytes, i)))
        .collect()
}

/// The metadata of a file.
pub fn metadata(bytes: &[u8]) -> HashMap<String, String> {
    let (_, header) = SafeTensors::read_metadata(bytes).unwrap();
    header.metadata().clone().unwrap_or_default()
}

/// The keys of a JSON object.
pub fn keys(object: &Value) -> Vec<&str> {
    object
        .as_object()
        .unwrap()
        .keys()
        .map(String::as_str)
        .collect()
}

/// What a report says of a tensor.
pub fn row<'a>(report: &'a Value, name: &str) -> &'a Value {
    let rows = report["tensors"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap()
}
