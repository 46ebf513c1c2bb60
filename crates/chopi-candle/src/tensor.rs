//! The traits of chopi-core on candle's tensors.

use candle_core::{CpuStorage, DType, Device, Storage, Tensor, WithDType};
use chopi_core::{
    Error, Result,
    backend::{
        Backend, Fill, FloatSlice, FloatSliceMut, FloatTensor, FloatType, HostFloats, HostInts,
        IntSlice, IntSliceMut, IntTensor, IntType, Layout, bf16, f16, with_room,
    },
};

use crate::device::OnDevice;
use crate::framework;

/// The framework candle.
#[derive(Clone, Copy, Debug)]
pub struct Candle;

impl Backend for Candle {
    const NAME: &'static str = "candle";
}

impl FloatTensor<Candle> for Tensor {
    type Owned = Tensor;
    type Int = Tensor;
    type Device = OnDevice;

    fn rank(&self) -> usize {
        self.dims().len()
    }

    fn with_host<R>(&self, f: impl FnOnce(HostFloats<'_>) -> Result<R>) -> Result<R> {
        with_storage(self, |storage, range, layout| {
            let data = match storage {
                CpuStorage::F16(data) => FloatSlice::F16(&data[range]),
                CpuStorage::BF16(data) => FloatSlice::BF16(&data[range]),
                CpuStorage::F32(data) => FloatSlice::F32(&data[range]),
                CpuStorage::F64(data) => FloatSlice::F64(&data[range]),
                _ => return Err(not_float(self.dtype())),
            };
            f(HostFloats::new(data, layout)?)
        })
    }

    fn on_device(&self) -> Option<OnDevice> {
        (!self.device().is_cpu()).then(|| OnDevice(self.detach()))
    }

    fn int_like(
        &self,
        bounds: (i64, i64),
        layout: &Layout,
        fill: Fill<impl FnOnce(IntSliceMut<'_>) -> Result<()>>,
    ) -> Result<Tensor> {
        let types = [IntType::U8, IntType::I16, IntType::I32];
        match IntType::first_of(&types, bounds) {
            IntType::U8 => from_memory(fill.into_ints::<u8>()?, layout),
            IntType::I16 => from_memory(fill.into_ints::<i16>()?, layout),
            IntType::I32 => from_memory(fill.into_ints::<i32>()?, layout),
            _ => from_memory(fill.into_ints::<i64>()?, layout),
        }
    }

    fn float_like(
        &self,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Tensor> {
        float_tensor(float_type(self.dtype())?, layout, fill)
    }
}

impl IntTensor<Candle> for Tensor {
    type Float = Tensor;
    type Device = OnDevice;

    fn with_host<R>(&self, f: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R> {
        with_storage(self, |storage, range, layout| {
            let data = match storage {
                CpuStorage::U8(data) => IntSlice::U8(&data[range]),
                CpuStorage::U32(data) => IntSlice::U32(&data[range]),
                CpuStorage::I16(data) => IntSlice::I16(&data[range]),
                CpuStorage::I32(data) => IntSlice::I32(&data[range]),
                CpuStorage::I64(data) => IntSlice::I64(&data[range]),
                _ => {
                    return Err(Error::Dtype {
                        backend: Candle::NAME,
                        dtype: self.dtype().as_str().to_owned(),
                        expected: "u8, u32, i16, i32 or i64",
                    });
                }
            };
            f(HostInts::new(data, layout)?)
        })
    }

    fn on_device(&self) -> Option<OnDevice> {
        (!self.device().is_cpu()).then(|| OnDevice(self.detach()))
    }

    fn float_like(
        &self,
        calibrated: FloatType,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Tensor> {
        float_tensor(calibrated, layout, fill)
    }
}

/// Calls `f` with the tensor's memory, the range of it that the tensor fills, and how it lies
/// there; a tensor with gaps is copied first.
fn with_storage<R>(
    tensor: &Tensor,
    f: impl FnOnce(&CpuStorage, std::ops::Range<usize>, Layout) -> Result<R>,
) -> Result<R> {
    let strides: Vec<isize> = tensor
        .stride()
        .iter()
        .map(|&stride| stride as isize)
        .collect();
    let copy;
    let (tensor, layout) = match Layout::dense(tensor.dims(), &strides) {
        Some(layout) => (tensor, layout),
        None => {
            check_room(tensor)?;
            copy = tensor.force_contiguous().map_err(framework)?;
            (&copy, Layout::row_major(tensor.dims()))
        }
    };
    let (storage, view) = tensor.storage_and_layout();
    let start = view.start_offset();
    match &*storage {
        Storage::Cpu(storage) => f(storage, start..start + layout.len(), layout),
        _ => Err(Error::Dtype {
            backend: Candle::NAME,
            dtype: format!("{:?} on {:?}", tensor.dtype(), tensor.device()),
            expected: "a tensor on the CPU",
        }),
    }
}

/// Checks that there is memory for a copy of a tensor: candle ends the process where there is none.
///
/// # Errors
/// [`Error::Memory`].
pub(crate) fn check_room(tensor: &Tensor) -> Result<()> {
    // Views of one element may have more than `usize` counts, which candle's own count does not see.
    let sizes = tensor.dims().iter().copied();
    let bytes = match tensor.dims().contains(&0) {
        true => 0,
        false => sizes.fold(tensor.dtype().size_in_bytes(), usize::saturating_mul),
    };
    with_room::<u8>(bytes)?;
    Ok(())
}

/// The tensor whose elements lie in memory in this layout.
fn from_memory<T: WithDType>(data: Vec<T>, layout: &Layout) -> Result<Tensor> {
    let tensor =
        Tensor::from_vec(data, &*layout.memory_shape(), &Device::Cpu).map_err(framework)?;
    match layout.inverse_order() {
        None => Ok(tensor),
        Some(axes) => tensor.permute(axes).map_err(framework),
    }
}

fn float_tensor(
    float: FloatType,
    layout: &Layout,
    fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
) -> Result<Tensor> {
    match float {
        FloatType::F16 => from_memory(fill.into_floats::<f16>()?, layout),
        FloatType::BF16 => from_memory(fill.into_floats::<bf16>()?, layout),
        FloatType::F32 => from_memory(fill.into_floats::<f32>()?, layout),
        FloatType::F64 => from_memory(fill.into_floats::<f64>()?, layout),
    }
}

/// The float type of a dtype.
pub(crate) fn float_type(dtype: DType) -> Result<FloatType> {
    match dtype {
        DType::F16 => Ok(FloatType::F16),
        DType::BF16 => Ok(FloatType::BF16),
        DType::F32 => Ok(FloatType::F32),
        DType::F64 => Ok(FloatType::F64),
        _ => Err(not_float(dtype)),
    }
}

fn not_float(dtype: DType) -> Error {
    Error::Dtype {
        backend: Candle::NAME,
        dtype: dtype.as_str().to_owned(),
        expected: "f16, bf16, f32 or f64",
    }
}
