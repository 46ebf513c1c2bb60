//! libtorch's operations, for tensors that are not in host memory.

use std::ops::Range;

use chopi_core::{
    Error, Result,
    backend::{Backend, DeviceTensor, FloatType, IntType, collected, repeated},
    training::{CheckpointTensor, Dtype},
};
use safetensors::tensor::TensorView;
use tch::{Device, Kind, TchError, Tensor};

use crate::tensor::{check_strided, float_kind, float_type, in_memory, int_kind};
use crate::{LibTorch, framework};

/// A tensor on any device.
#[derive(Debug)]
pub struct OnDevice(pub Tensor);

impl From<Tensor> for OnDevice {
    fn from(tensor: Tensor) -> Self {
        Self(tensor)
    }
}

/// Shares the elements and the gradient.
impl From<&Tensor> for OnDevice {
    fn from(tensor: &Tensor) -> Self {
        Self(tensor.shallow_clone())
    }
}

impl Clone for OnDevice {
    fn clone(&self) -> Self {
        Self(self.0.shallow_clone())
    }
}

impl OnDevice {
    fn new(tensor: std::result::Result<Tensor, TchError>) -> Result<Self> {
        tensor.map(Self).map_err(framework)
    }
}

/// The length of each axis.
pub(crate) fn shape(x: &Tensor) -> Vec<usize> {
    x.size().into_iter().map(|length| length as usize).collect()
}

/// The lengths of axes, as libtorch takes them.
pub(crate) fn lengths(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&length| length as i64).collect()
}

impl DeviceTensor for OnDevice {
    type Float = Tensor;
    type Int = Tensor;

    fn shape(&self) -> Vec<usize> {
        shape(&self.0)
    }

    fn float_type(&self) -> Result<FloatType> {
        float_type(&self.0)
    }

    fn constant(&self, values: &[f64], shape: &[usize], float: FloatType) -> Result<Self> {
        // Converted on the host: not every device has f64.
        let host = Tensor::f_from_slice(values);
        let host =
            host.and_then(|host| host.f_reshape(lengths(shape))?.f_to_kind(float_kind(float)));
        Self::new(host.and_then(|host| host.f_to_device(self.0.device())))
    }

    fn zeros_like(&self) -> Result<Self> {
        Self::new(self.0.detach().f_zeros_like())
    }

    fn cast(&self, float: FloatType) -> Result<Self> {
        Self::new(self.0.f_to_kind(float_kind(float)))
    }

    fn reshape(&self, shape: &[usize]) -> Result<Self> {
        Self::new(self.0.f_reshape(lengths(shape)))
    }

    fn narrow(&self, axis: usize, range: Range<usize>) -> Result<Self> {
        Self::new(
            self.0
                .f_narrow(axis as i64, range.start as i64, range.len() as i64),
        )
    }

    fn cat(parts: Vec<Self>, axis: usize) -> Result<Self> {
        let parts: Vec<Tensor> = parts.into_iter().map(|part| part.0).collect();
        Self::new(Tensor::f_cat(&parts, axis as i64))
    }

    fn add(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.f_add(&other.0))
    }

    fn sub(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.f_sub(&other.0))
    }

    fn mul(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.f_mul(&other.0))
    }

    fn div(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.f_div(&other.0))
    }

    fn mul_scalar(&self, factor: f64) -> Result<Self> {
        Self::new(self.0.f_mul_scalar(factor))
    }

    fn add_scalar(&self, term: f64) -> Result<Self> {
        Self::new(self.0.f_add_scalar(term))
    }

    fn sqrt(&self) -> Result<Self> {
        Self::new(self.0.f_sqrt())
    }

    fn gt(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.f_gt_tensor(&other.0))
    }

    fn ne(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.f_ne_tensor(&other.0))
    }

    fn select(&self, yes: &Self, no: &Self) -> Result<Self> {
        let mask = self.0.f_to_kind(Kind::Bool);
        Self::new(mask.and_then(|mask| yes.0.f_where_self(&mask, &no.0)))
    }

    fn min_along(&self, axis: usize) -> Result<Self> {
        Self::new(self.0.f_amin(axis as i64, true))
    }

    fn max_along(&self, axis: usize) -> Result<Self> {
        Self::new(self.0.f_amax(axis as i64, true))
    }

    fn index_select(&self, axis: usize, indices: &[usize]) -> Result<Self> {
        let indices: Vec<i64> = collected(indices.iter().map(|&index| index as i64))?;
        let indices = Tensor::f_from_slice(&indices);
        let indices = indices.and_then(|indices| indices.f_to_device(self.0.device()));
        Self::new(indices.and_then(|indices| self.0.f_index_select(axis as i64, &indices)))
    }

    fn detach(&self) -> Result<Self> {
        Self::new(self.0.f_detach())
    }

    fn assign(&self, values: &Self) -> Result<()> {
        let mut variable = self.0.shallow_clone();
        tch::no_grad(|| variable.f_copy_(&values.0)).map_err(framework)?;
        Ok(())
    }

    fn widest_float(&self) -> FloatType {
        match self.0.device() {
            Device::Mps => FloatType::F32,
            _ => FloatType::F64,
        }
    }

    fn to_host(&self) -> Result<Vec<f64>> {
        check_strided(&self.0)?;
        let read = in_memory(&self.0)?;
        let host = read
            .as_ref()
            .unwrap_or(&self.0)
            .f_to_device(Device::Cpu)
            .and_then(|host| host.f_to_kind(Kind::Double)?.f_contiguous());
        let host = host.map_err(framework)?;
        let mut values = repeated(0.0, host.numel())?;
        host.f_copy_data(&mut values, host.numel())
            .map_err(framework)?;
        Ok(values)
    }

    fn into_float(self) -> Result<Tensor> {
        Ok(self.0)
    }

    fn into_int(self, bounds: (i64, i64)) -> Result<Tensor> {
        let types = [IntType::I8, IntType::U8, IntType::I16, IntType::I32];
        self.0
            .f_to_kind(int_kind(IntType::first_of(&types, bounds)))
            .map_err(framework)
    }
}

/// The kinds that safetensors has.
const KINDS: [(Kind, Dtype); 10] = [
    (Kind::Half, Dtype::F16),
    (Kind::BFloat16, Dtype::BF16),
    (Kind::Float, Dtype::F32),
    (Kind::Double, Dtype::F64),
    (Kind::Uint8, Dtype::U8),
    (Kind::Int8, Dtype::I8),
    (Kind::Int16, Dtype::I16),
    (Kind::Int, Dtype::I32),
    (Kind::Int64, Dtype::I64),
    (Kind::Bool, Dtype::BOOL),
];

impl CheckpointTensor for OnDevice {
    fn dtype(&self) -> Result<Dtype> {
        let kind = self.0.f_kind().map_err(framework)?;
        let dtype = KINDS.iter().find(|(of, _)| *of == kind);
        dtype.map(|(_, dtype)| *dtype).ok_or_else(|| Error::Dtype {
            backend: LibTorch::NAME,
            dtype: format!("{kind:?}"),
            expected: "a kind that safetensors has",
        })
    }

    fn to_bytes(&self) -> Result<Vec<u8>> {
        check_strided(&self.0)?;
        let read = in_memory(&self.0)?;
        let bytes = read.as_ref().unwrap_or(&self.0).f_detach();
        let bytes = bytes.and_then(|tensor| {
            let host = tensor.f_to_device(Device::Cpu)?.f_contiguous()?;
            host.f_reshape([-1])?.f_view_dtype(Kind::Uint8)
        });
        let bytes = bytes.map_err(framework)?;
        let mut data = repeated(0, bytes.numel())?;
        bytes
            .f_copy_data(&mut data, bytes.numel())
            .map_err(framework)?;
        Ok(data)
    }

    fn with_view(&self, saved: &TensorView<'_>) -> Result<Self> {
        let kind = KINDS.iter().find(|(_, dtype)| *dtype == saved.dtype());
        let (kind, _) = kind.ok_or_else(|| Error::Dtype {
            backend: LibTorch::NAME,
            dtype: format!("{:?}", saved.dtype()),
            expected: "a dtype that libtorch has",
        })?;
        let tensor = Tensor::f_from_data_size(saved.data(), &lengths(saved.shape()), *kind);
        Self::new(tensor.and_then(|tensor| tensor.f_to_device(self.0.device())))
    }
}
