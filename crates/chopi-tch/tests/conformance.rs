//! The suite that every backend passes, on libtorch: the kernels, the composed path on CPU tensors,
//! and the composed path on a GPU where there is one.

use chopi_conformance::{Composed, Fixture, Memory, OnDevice};
use chopi_core::backend::{Compute, Float, FloatType};
use chopi_tch::LibTorch;
use tch::{Cuda, Device, Kind, Tensor};

fn lengths(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&length| length as i64).collect()
}

/// The tensor of these elements, lying in memory as asked.
fn tensor<F: Float>(data: &[F], shape: &[usize], memory: &Memory, device: Device) -> Tensor {
    let wide: Vec<f64> = data.iter().map(|x| x.widen().as_f64()).collect();
    let kind = match F::TYPE {
        FloatType::F16 => Kind::Half,
        FloatType::BF16 => Kind::BFloat16,
        FloatType::F32 => Kind::Float,
        FloatType::F64 => Kind::Double,
    };
    let tensor = Tensor::from_slice(&wide)
        .reshape(lengths(shape))
        .to_kind(kind)
        .to_device(device);
    match memory {
        Memory::RowMajor => tensor,
        Memory::Permuted(order) => {
            let mut inverse = vec![0; order.len()];
            for (position, &axis) in order.iter().enumerate() {
                inverse[axis] = position;
            }
            tensor
                .permute(lengths(order))
                .contiguous()
                .permute(lengths(&inverse))
        }
        Memory::Strided => {
            let pairs = Tensor::stack(&[&tensor, &tensor.zeros_like()], -1);
            pairs.select(-1, 0)
        }
        Memory::Offset => {
            Tensor::cat(&[tensor.narrow(0, 0, 1), tensor], 0).narrow(0, 1, shape[0] as i64)
        }
    }
}

fn floats<F: Float>(tensor: &Tensor) -> (Vec<usize>, Vec<F>) {
    let wide: Vec<f64> = tensor
        .to_device(Device::Cpu)
        .to_kind(Kind::Double)
        .contiguous()
        .view(-1)
        .try_into()
        .unwrap();
    let shape = tensor
        .size()
        .into_iter()
        .map(|length| length as usize)
        .collect();
    (
        shape,
        wide.into_iter().map(chopi_conformance::data::to).collect(),
    )
}

fn codes(tensor: &Tensor) -> (Vec<usize>, Vec<i64>) {
    let wide = tensor
        .to_device(Device::Cpu)
        .to_kind(Kind::Int64)
        .contiguous()
        .view(-1);
    let shape = tensor
        .size()
        .into_iter()
        .map(|length| length as usize)
        .collect();
    (shape, wide.try_into().unwrap())
}

fn int_tensor(codes: &[i32], shape: &[usize], device: Device) -> Tensor {
    Tensor::from_slice(codes)
        .reshape(lengths(shape))
        .to_device(device)
}

struct OnTch;

impl Fixture for OnTch {
    type Backend = LibTorch;
    type Tensor<F: Float> = Tensor;

    fn tensor<F: Float>(data: &[F], shape: &[usize], memory: &Memory) -> Tensor {
        tensor(data, shape, memory, Device::Cpu)
    }

    fn floats<F: Float>(tensor: &Tensor) -> (Vec<usize>, Vec<F>) {
        floats(tensor)
    }

    fn codes<F: Float>(tensor: &Tensor) -> (Vec<usize>, Vec<i64>) {
        codes(tensor)
    }

    fn int_tensor<F: Float>(codes: &[i32], shape: &[usize]) -> Tensor {
        int_tensor(codes, shape, Device::Cpu)
    }
}

/// Says once that there is no GPU.
static SKIPPED: std::sync::Once = std::sync::Once::new();

/// The GPU where the build and the machine have one, else the CPU.
fn device() -> Device {
    if !Cuda::is_available() {
        SKIPPED.call_once(|| println!("skipped: no CUDA device; composing on the CPU"));
    }
    Device::cuda_if_available()
}

struct ComposedOnTch;

impl Fixture for ComposedOnTch {
    type Backend = OnDevice<LibTorch>;
    type Tensor<F: Float> = Composed<chopi_tch::OnDevice>;

    fn tensor<F: Float>(data: &[F], shape: &[usize], memory: &Memory) -> Self::Tensor<F> {
        Composed(tensor(data, shape, memory, device()).into())
    }

    fn floats<F: Float>(tensor: &Self::Tensor<F>) -> (Vec<usize>, Vec<F>) {
        floats(&tensor.0.0)
    }

    fn codes<F: Float>(tensor: &Self::Tensor<F>) -> (Vec<usize>, Vec<i64>) {
        codes(&tensor.0.0)
    }

    fn int_tensor<F: Float>(codes: &[i32], shape: &[usize]) -> Self::Tensor<F> {
        Composed(int_tensor(codes, shape, device()).into())
    }
}

mod kernels {
    chopi_conformance::suite!(super::OnTch);
}

mod composed {
    chopi_conformance::suite!(super::ComposedOnTch);
}
