//! Candle's operations, for tensors that are not in host memory.

use std::ops::Range;

use candle_core::safetensors::Load;
use candle_core::{DType, Tensor, Var};
use chopi_core::{
    Result,
    backend::{DeviceTensor, FloatType, IntType, collected},
    training::{CheckpointTensor, Dtype},
};
use safetensors::{View, tensor::TensorView};

use crate::framework;
use crate::tensor::{check_room, float_type};

/// A tensor on any device.
#[derive(Clone, Debug)]
pub struct OnDevice(pub Tensor);

impl From<Tensor> for OnDevice {
    fn from(tensor: Tensor) -> Self {
        Self(tensor)
    }
}

/// Shares the elements and the gradient.
impl From<&Tensor> for OnDevice {
    fn from(tensor: &Tensor) -> Self {
        Self(tensor.clone())
    }
}

impl OnDevice {
    fn new(tensor: candle_core::Result<Tensor>) -> Result<Self> {
        tensor.map(Self).map_err(framework)
    }
}

fn dtype(float: FloatType) -> DType {
    match float {
        FloatType::F16 => DType::F16,
        FloatType::BF16 => DType::BF16,
        FloatType::F32 => DType::F32,
        FloatType::F64 => DType::F64,
    }
}

impl DeviceTensor for OnDevice {
    type Float = Tensor;
    type Int = Tensor;

    fn shape(&self) -> Vec<usize> {
        self.0.dims().to_vec()
    }

    fn float_type(&self) -> Result<FloatType> {
        float_type(self.0.dtype())
    }

    fn constant(&self, values: &[f64], shape: &[usize], float: FloatType) -> Result<Self> {
        // Converted on the host: not every device has f64.
        let host = Tensor::from_slice(values, shape, &candle_core::Device::Cpu);
        let host = host.and_then(|host| host.to_dtype(dtype(float)));
        Self::new(host.and_then(|host| host.to_device(self.0.device())))
    }

    fn zeros_like(&self) -> Result<Self> {
        Self::new(self.0.zeros_like())
    }

    fn cast(&self, float: FloatType) -> Result<Self> {
        Self::new(self.0.to_dtype(dtype(float)))
    }

    fn reshape(&self, shape: &[usize]) -> Result<Self> {
        Self::new(self.0.reshape(shape))
    }

    fn narrow(&self, axis: usize, range: Range<usize>) -> Result<Self> {
        Self::new(self.0.narrow(axis, range.start, range.len()))
    }

    fn cat(parts: Vec<Self>, axis: usize) -> Result<Self> {
        let parts: Vec<&Tensor> = parts.iter().map(|part| &part.0).collect();
        Self::new(Tensor::cat(&parts, axis))
    }

    fn add(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.broadcast_add(&other.0))
    }

    fn sub(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.broadcast_sub(&other.0))
    }

    fn mul(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.broadcast_mul(&other.0))
    }

    fn div(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.broadcast_div(&other.0))
    }

    fn mul_scalar(&self, factor: f64) -> Result<Self> {
        Self::new(self.0.affine(factor, 0.0))
    }

    fn add_scalar(&self, term: f64) -> Result<Self> {
        Self::new(self.0.affine(1.0, term))
    }

    fn sqrt(&self) -> Result<Self> {
        Self::new(self.0.sqrt())
    }

    fn gt(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.broadcast_gt(&other.0))
    }

    fn ne(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.broadcast_ne(&other.0))
    }

    fn select(&self, yes: &Self, no: &Self) -> Result<Self> {
        let full = |x: &Tensor| x.broadcast_as(self.0.shape());
        let selected = full(&yes.0).and_then(|yes| self.0.where_cond(&yes, &full(&no.0)?));
        Self::new(selected)
    }

    fn min_along(&self, axis: usize) -> Result<Self> {
        Self::new(self.0.min_keepdim(axis))
    }

    fn max_along(&self, axis: usize) -> Result<Self> {
        Self::new(self.0.max_keepdim(axis))
    }

    fn index_select(&self, axis: usize, indices: &[usize]) -> Result<Self> {
        let indices: Vec<u32> = collected(indices.iter().map(|&index| index as u32))?;
        let indices = Tensor::new(indices, self.0.device());
        Self::new(indices.and_then(|indices| self.0.index_select(&indices, axis)))
    }

    fn detach(&self) -> Result<Self> {
        Ok(Self(self.0.detach()))
    }

    fn assign(&self, values: &Self) -> Result<()> {
        if !self.0.is_variable() {
            let problem = "expected a variable, as of a VarMap, to be trained";
            return Err(framework(candle_core::Error::Msg(problem.to_owned())));
        }
        let variable = Var::from_tensor(&self.0);
        variable
            .and_then(|variable| variable.set(&values.0))
            .map_err(framework)
    }

    fn widest_float(&self) -> FloatType {
        match self.0.device().is_metal() {
            true => FloatType::F32,
            false => FloatType::F64,
        }
    }

    fn to_host(&self) -> Result<Vec<f64>> {
        check_room(&self.0)?;
        let host = self.0.to_device(&candle_core::Device::Cpu);
        let flat = host.and_then(|host| host.to_dtype(DType::F64)?.flatten_all());
        flat.and_then(|flat| flat.to_vec1()).map_err(framework)
    }

    fn into_float(self) -> Result<Tensor> {
        Ok(self.0)
    }

    fn into_int(self, bounds: (i64, i64)) -> Result<Tensor> {
        // CUDA has no conversion to I16 or I32.
        let types: &[IntType] = match self.0.device().is_cuda() {
            true => &[IntType::U8],
            false => &[IntType::U8, IntType::I16, IntType::I32],
        };
        let dtype = match IntType::first_of(types, bounds) {
            IntType::U8 => DType::U8,
            IntType::I16 => DType::I16,
            IntType::I32 => DType::I32,
            _ => DType::I64,
        };
        self.0.to_dtype(dtype).map_err(framework)
    }
}

impl CheckpointTensor for OnDevice {
    fn dtype(&self) -> Result<Dtype> {
        Ok(self.0.dtype().into())
    }

    fn to_bytes(&self) -> Result<Vec<u8>> {
        check_room(&self.0)?;
        Ok(self.0.data().into_owned())
    }

    fn with_view(&self, saved: &TensorView<'_>) -> Result<Self> {
        Self::new(saved.load(self.0.device()))
    }
}
