//! libtorch's operations, for tensors that are not in host memory.

use std::ops::Range;

use chopi_core::{
    Result,
    backend::{DeviceTensor, FloatType, IntType, repeated},
};
use tch::{Device, Kind, TchError, Tensor};

use crate::framework;
use crate::tensor::{float_kind, float_type, int_kind};

/// A tensor on any device, without gradient.
#[derive(Debug)]
pub struct OnDevice(pub Tensor);

impl From<Tensor> for OnDevice {
    fn from(tensor: Tensor) -> Self {
        Self(tensor)
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

fn lengths(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&length| length as i64).collect()
}

impl DeviceTensor for OnDevice {
    type Float = Tensor;
    type Int = Tensor;

    fn shape(&self) -> Vec<usize> {
        self.0
            .size()
            .into_iter()
            .map(|length| length as usize)
            .collect()
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

    fn gt(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.f_gt_tensor(&other.0))
    }

    fn ne(&self, other: &Self) -> Result<Self> {
        Self::new(self.0.f_ne_tensor(&other.0))
    }

    fn select(&self, yes: &Self, no: &Self) -> Result<Self> {
        Self::new(yes.0.f_where_self(&self.0, &no.0))
    }

    fn min_along(&self, axis: usize) -> Result<Self> {
        Self::new(self.0.f_amin(axis as i64, true))
    }

    fn max_along(&self, axis: usize) -> Result<Self> {
        Self::new(self.0.f_amax(axis as i64, true))
    }

    fn to_host(&self) -> Result<Vec<f64>> {
        let host = self
            .0
            .f_to_device(Device::Cpu)
            .and_then(|host| host.f_to_kind(Kind::Double));
        let host = host
            .and_then(|host| host.f_contiguous())
            .map_err(framework)?;
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
