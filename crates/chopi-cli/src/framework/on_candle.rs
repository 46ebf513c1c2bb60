//! candle, on the CPU.

use candle_core::{Device, Tensor, WithDType};
use chopi::candle::Candle;
use chopi::{
    Error, Result,
    backend::{Backend, Int, IntSlice},
};

use super::Framework;
use crate::element::FloatElement;

impl Framework for Candle {
    type Floats<'a, F: FloatElement> = Tensor;
    type CodeTensor<F: FloatElement> = Tensor;

    fn floats<F: FloatElement>(data: &[F], shape: &[usize]) -> Result<Tensor> {
        chopi::backend::match_float!(FloatSlice, F::slice(data), data => tensor(data, shape))
    }

    fn codes<F: FloatElement>(data: IntSlice<'_>, shape: &[usize]) -> Result<Tensor> {
        match data {
            IntSlice::U8(data) => tensor(data, shape),
            IntSlice::I16(data) => tensor(data, shape),
            IntSlice::I32(data) => tensor(data, shape),
            IntSlice::U32(data) => tensor(data, shape),
            IntSlice::I64(data) => tensor(data, shape),
            // candle has no dtype of that width and sign; every value fits the next one.
            IntSlice::I8(data) => tensor(&widened::<_, i16>(data), shape),
            IntSlice::U16(data) => tensor(&widened::<_, i32>(data), shape),
        }
    }
}

fn widened<I: Int + Into<T>, T>(codes: &[I]) -> Vec<T> {
    codes.iter().map(|&code| code.into()).collect()
}

fn tensor<T: WithDType>(data: &[T], shape: &[usize]) -> Result<Tensor> {
    Tensor::from_slice(data, shape, &Device::Cpu).map_err(|source| Error::Framework {
        backend: Candle::NAME,
        source: source.into(),
    })
}
