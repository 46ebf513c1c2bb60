//! libtorch, on the CPU.

use bytemuck::Pod;
use chopi::tch::LibTorch;
use chopi::{
    Error, Result,
    backend::{Backend, FloatType, Int, IntSlice},
};
use tch::{Kind, Tensor};

use super::Framework;
use crate::element::FloatElement;

impl Framework for LibTorch {
    type Floats<'a, F: FloatElement> = Tensor;
    type CodeTensor<F: FloatElement> = Tensor;

    fn floats<F: FloatElement>(data: &[F], shape: &[usize]) -> Result<Tensor> {
        let kind = match F::TYPE {
            FloatType::F16 => Kind::Half,
            FloatType::BF16 => Kind::BFloat16,
            FloatType::F32 => Kind::Float,
            FloatType::F64 => Kind::Double,
        };
        tensor(data, shape, kind)
    }

    fn codes<F: FloatElement>(data: IntSlice<'_>, shape: &[usize]) -> Result<Tensor> {
        match data {
            IntSlice::I8(data) => tensor(data, shape, Kind::Int8),
            IntSlice::U8(data) => tensor(data, shape, Kind::Uint8),
            IntSlice::I16(data) => tensor(data, shape, Kind::Int16),
            IntSlice::I32(data) => tensor(data, shape, Kind::Int),
            IntSlice::I64(data) => tensor(data, shape, Kind::Int64),
            // libtorch computes with no unsigned type of that width; every value fits the next one.
            IntSlice::U16(data) => tensor(&widened::<_, i32>(data), shape, Kind::Int),
            IntSlice::U32(data) => tensor(&widened::<_, i64>(data), shape, Kind::Int64),
        }
    }
}

fn widened<I: Int + Into<T>, T>(codes: &[I]) -> Vec<T> {
    codes.iter().map(|&code| code.into()).collect()
}

fn tensor<T: Pod>(data: &[T], shape: &[usize], kind: Kind) -> Result<Tensor> {
    let shape: Vec<i64> = shape.iter().map(|&length| length as i64).collect();
    Tensor::f_from_data_size(bytemuck::cast_slice(data), &shape, kind).map_err(|source| {
        Error::Framework {
            backend: LibTorch::NAME,
            source: source.into(),
        }
    })
}
