//! Reads the vectors of ONNX's operators, which `onnx/make_onnx_operators.py` describes.

use std::collections::HashMap;

use chopi::backend::{bf16, f16};
use ndarray::ArrayD;
use safetensors::{Dtype, SafeTensors};
use serde::de::DeserializeOwned;

/// The numbers of each element type, taken from the front.
pub struct Pools(HashMap<String, std::vec::IntoIter<f64>>);

/// The numbers of a tensor; none of its types has one that `f64` does not.
fn numbers(dtype: Dtype, bytes: &[u8]) -> Vec<f64> {
    fn read<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        let (numbers, _) = bytes.as_chunks();
        numbers.iter().map(|&bytes| number(bytes)).collect()
    }
    match dtype {
        Dtype::F16 => read(bytes, |b| f16::from_le_bytes(b).to_f64()),
        Dtype::BF16 => read(bytes, |b| bf16::from_le_bytes(b).to_f64()),
        Dtype::F32 => read(bytes, |b| f32::from_le_bytes(b).into()),
        Dtype::I8 => read(bytes, |b| i8::from_le_bytes(b).into()),
        Dtype::U8 => read(bytes, |b| u8::from_le_bytes(b).into()),
        Dtype::I16 => read(bytes, |b| i16::from_le_bytes(b).into()),
        Dtype::U16 => read(bytes, |b| u16::from_le_bytes(b).into()),
        Dtype::I32 => read(bytes, |b| i32::from_le_bytes(b).into()),
        other => panic!("numbers of type {other}"),
    }
}

/// The settings of the cases of a file, and its numbers.
pub fn load<S: DeserializeOwned>(file: &str) -> (Vec<S>, Pools) {
    let folder = std::env::var("CHOPI_VECTORS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/onnx").to_owned());
    let bytes = std::fs::read(format!("{folder}/{file}.safetensors")).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let cases = &metadata.metadata().as_ref().unwrap()["cases"];
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let pool = |(name, tensor): (String, safetensors::tensor::TensorView<'_>)| {
        (name, numbers(tensor.dtype(), tensor.data()).into_iter())
    };
    let pools = tensors.tensors().into_iter().map(pool).collect();
    (serde_json::from_str(cases).unwrap(), Pools(pools))
}

impl Pools {
    /// The next array of this type and shape; integers of 2 and 4 bits lie in the 8-bit types.
    pub fn take(&mut self, kind: &str, shape: &[usize]) -> ArrayD<f64> {
        let kind = match kind {
            "int2" | "int4" => "int8",
            "uint2" | "uint4" => "uint8",
            kind => kind,
        };
        let numbers = self.0.get_mut(kind).unwrap();
        let count = shape.iter().product();
        ArrayD::from_shape_vec(shape, numbers.take(count).collect()).unwrap()
    }

    pub fn is_empty(&self) -> bool {
        self.0.values().all(|numbers| numbers.len() == 0)
    }
}
