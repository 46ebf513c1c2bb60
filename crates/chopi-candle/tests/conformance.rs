//! The suite that every backend passes, on candle: the kernels, the composed path on CPU tensors,
//! and the composed path on a GPU where there is one.

use candle_core::{DType, Device, Tensor};
use chopi_candle::Candle;
use chopi_conformance::{Composed, Fixture, Memory, OnDevice};
use chopi_core::backend::{Compute, Float};

/// The tensor of these elements, lying in memory as asked.
fn tensor<F: Float>(data: &[F], shape: &[usize], memory: &Memory, device: &Device) -> Tensor {
    let wide: Vec<f64> = data.iter().map(|x| x.widen().as_f64()).collect();
    let dtype = match F::TYPE {
        chopi_core::backend::FloatType::F16 => DType::F16,
        chopi_core::backend::FloatType::BF16 => DType::BF16,
        chopi_core::backend::FloatType::F32 => DType::F32,
        chopi_core::backend::FloatType::F64 => DType::F64,
    };
    let tensor = Tensor::from_vec(wide, shape, &Device::Cpu).unwrap();
    let tensor = tensor.to_dtype(dtype).unwrap().to_device(device).unwrap();
    match memory {
        Memory::RowMajor => tensor,
        Memory::Permuted(order) => {
            let mut inverse = vec![0; order.len()];
            for (position, &axis) in order.iter().enumerate() {
                inverse[axis] = position;
            }
            let dense = tensor
                .permute(order.as_slice())
                .unwrap()
                .contiguous()
                .unwrap();
            dense.permute(inverse).unwrap()
        }
        Memory::Strided => {
            let column = tensor.unsqueeze(shape.len()).unwrap();
            let pairs = Tensor::cat(&[&column, &column.zeros_like().unwrap()], shape.len());
            let first = pairs.unwrap().narrow(shape.len(), 0, 1).unwrap();
            first.squeeze(shape.len()).unwrap()
        }
        Memory::Offset => {
            let tall = Tensor::cat(&[&tensor.narrow(0, 0, 1).unwrap(), &tensor], 0).unwrap();
            tall.narrow(0, 1, shape[0]).unwrap()
        }
    }
}

fn floats<F: Float>(tensor: &Tensor) -> (Vec<usize>, Vec<F>) {
    let wide = tensor
        .to_device(&Device::Cpu)
        .unwrap()
        .to_dtype(DType::F64)
        .unwrap();
    let data: Vec<f64> = wide.flatten_all().unwrap().to_vec1().unwrap();
    let data = data.into_iter().map(chopi_conformance::data::to).collect();
    (tensor.dims().to_vec(), data)
}

fn codes(tensor: &Tensor) -> (Vec<usize>, Vec<i64>) {
    let wide = tensor
        .to_device(&Device::Cpu)
        .unwrap()
        .to_dtype(DType::I64)
        .unwrap();
    (
        tensor.dims().to_vec(),
        wide.flatten_all().unwrap().to_vec1().unwrap(),
    )
}

fn int_tensor(codes: &[i32], shape: &[usize], device: &Device) -> Tensor {
    let wide = codes.iter().map(|&code| i64::from(code)).collect();
    Tensor::from_vec(wide, shape, device).unwrap()
}

struct OnCandle;

impl Fixture for OnCandle {
    type Backend = Candle;
    type Tensor<F: Float> = Tensor;

    fn tensor<F: Float>(data: &[F], shape: &[usize], memory: &Memory) -> Tensor {
        tensor(data, shape, memory, &Device::Cpu)
    }

    fn floats<F: Float>(tensor: &Tensor) -> (Vec<usize>, Vec<F>) {
        floats(tensor)
    }

    fn codes<F: Float>(tensor: &Tensor) -> (Vec<usize>, Vec<i64>) {
        codes(tensor)
    }

    fn int_tensor<F: Float>(codes: &[i32], shape: &[usize]) -> Tensor {
        int_tensor(codes, shape, &Device::Cpu)
    }
}

/// Says once that there is no GPU.
static SKIPPED: std::sync::Once = std::sync::Once::new();

/// The GPU where the build and the machine have one, else the CPU.
fn device() -> Device {
    match Device::cuda_if_available(0) {
        Ok(device) if !device.is_cpu() => device,
        _ => {
            SKIPPED.call_once(|| println!("skipped: no CUDA device; composing on the CPU"));
            Device::Cpu
        }
    }
}

struct ComposedOnCandle;

impl Fixture for ComposedOnCandle {
    type Backend = OnDevice<Candle>;
    type Tensor<F: Float> = Composed<chopi_candle::OnDevice>;

    fn tensor<F: Float>(data: &[F], shape: &[usize], memory: &Memory) -> Self::Tensor<F> {
        Composed(tensor(data, shape, memory, &device()).into())
    }

    fn floats<F: Float>(tensor: &Self::Tensor<F>) -> (Vec<usize>, Vec<F>) {
        floats(&tensor.0.0)
    }

    fn codes<F: Float>(tensor: &Self::Tensor<F>) -> (Vec<usize>, Vec<i64>) {
        codes(&tensor.0.0)
    }

    fn int_tensor<F: Float>(codes: &[i32], shape: &[usize]) -> Self::Tensor<F> {
        Composed(int_tensor(codes, shape, &device()).into())
    }
}

mod kernels {
    chopi_conformance::suite!(super::OnCandle);
}

mod composed {
    chopi_conformance::suite!(super::ComposedOnCandle);
}
