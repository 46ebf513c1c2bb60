//! The traits of chopi-core on libtorch's tensors.

use std::mem::MaybeUninit;

use chopi_core::{
    Error, Result,
    backend::{
        Backend, Fill, FloatSlice, FloatSliceMut, FloatTensor, FloatType, HostFloats, HostInts,
        IntSlice, IntSliceMut, IntTensor, IntType, Layout, bf16, f16,
    },
};
use tch::{Device, Kind, Tensor};

use crate::device::OnDevice;
use crate::framework;

/// The framework libtorch, through `tch`.
#[derive(Clone, Copy, Debug)]
pub struct LibTorch;

impl Backend for LibTorch {
    const NAME: &'static str = "tch";
}

impl FloatTensor<LibTorch> for Tensor {
    type Owned = Tensor;
    type Int = Tensor;
    type Device = OnDevice;

    fn rank(&self) -> usize {
        // One that is not defined is refused where its elements are wanted.
        if self.defined() { self.dim() } else { 0 }
    }

    fn with_host<R>(&self, f: impl FnOnce(HostFloats<'_>) -> Result<R>) -> Result<R> {
        let float = float_type(self)?;
        with_dense(self, |tensor, layout| {
            let len = layout.len();
            // SAFETY: `with_dense` gives a CPU tensor whose elements fill the memory at its data
            // pointer, and `float` is its kind. The tensor outlives the call.
            let data = unsafe {
                match float {
                    FloatType::F16 => FloatSlice::F16(elements::<f16>(tensor, len)),
                    FloatType::BF16 => FloatSlice::BF16(elements::<bf16>(tensor, len)),
                    FloatType::F32 => FloatSlice::F32(elements::<f32>(tensor, len)),
                    FloatType::F64 => FloatSlice::F64(elements::<f64>(tensor, len)),
                }
            };
            f(HostFloats::new(data, layout)?)
        })
    }

    fn on_device(&self) -> Option<OnDevice> {
        (self.defined() && self.device() != Device::Cpu).then(|| OnDevice(self.detach()))
    }

    fn int_like(
        &self,
        bounds: (i64, i64),
        layout: &Layout,
        fill: Fill<impl FnOnce(IntSliceMut<'_>) -> Result<()>>,
    ) -> Result<Tensor> {
        let types = [IntType::I8, IntType::U8, IntType::I16, IntType::I32];
        let int = IntType::first_of(&types, bounds);
        let (mut tensor, len) = (empty(layout, int_kind(int))?, layout.len());
        // SAFETY: the tensor was just made, on the CPU, dense, and of the kind of the slice; nobody
        // else has it.
        let slice = unsafe {
            match int {
                IntType::I8 => IntSliceMut::I8(elements_mut(&mut tensor, len)),
                IntType::U8 => IntSliceMut::U8(elements_mut(&mut tensor, len)),
                IntType::I16 => IntSliceMut::I16(elements_mut(&mut tensor, len)),
                IntType::I32 => IntSliceMut::I32(elements_mut(&mut tensor, len)),
                _ => IntSliceMut::I64(elements_mut(&mut tensor, len)),
            }
        };
        fill.write_ints(slice)?;
        Ok(tensor)
    }

    fn float_like(
        &self,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Tensor> {
        float_tensor(float_type(self)?, layout, fill)
    }
}

impl IntTensor<LibTorch> for Tensor {
    type Float = Tensor;
    type Device = OnDevice;

    fn with_host<R>(&self, f: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R> {
        let kind = self.f_kind().map_err(framework)?;
        with_dense(self, |tensor, layout| {
            let len = layout.len();
            // SAFETY: as in the implementation for float tensors.
            let data = unsafe {
                match kind {
                    Kind::Int8 => IntSlice::I8(elements(tensor, len)),
                    Kind::Uint8 => IntSlice::U8(elements(tensor, len)),
                    Kind::Int16 => IntSlice::I16(elements(tensor, len)),
                    Kind::Int => IntSlice::I32(elements(tensor, len)),
                    Kind::Int64 => IntSlice::I64(elements(tensor, len)),
                    _ => {
                        return Err(Error::Dtype {
                            backend: LibTorch::NAME,
                            dtype: format!("{kind:?}"),
                            expected: "Int8, Uint8, Int16, Int or Int64",
                        });
                    }
                }
            };
            f(HostInts::new(data, layout)?)
        })
    }

    fn on_device(&self) -> Option<OnDevice> {
        (self.defined() && self.device() != Device::Cpu).then(|| OnDevice(self.detach()))
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

/// Checks that a tensor is defined and has strides: that it is not sparse, nested, or of MKL-DNN. libtorch
/// throws where such a one is asked for its shape or its strides, upon which tch panics.
pub(crate) fn check_strided(tensor: &Tensor) -> Result<()> {
    let refused = |dtype: String| Error::Dtype {
        backend: LibTorch::NAME,
        dtype,
        expected: "a tensor with strides",
    };
    if !tensor.defined() {
        return Err(refused("of an undefined tensor".to_owned()));
    }
    // The one question about strides that is answered by an error where there are none, and at once where
    // they are those of a dense tensor.
    let is_strided = !tensor.is_sparse()
        && !tensor.is_mkldnn()
        && tensor.f_internal_debug_has_internal_overlap().is_ok();
    if is_strided {
        return Ok(());
    }
    let kind = tensor.f_kind().map_err(framework)?;
    Err(refused(format!("{kind:?} of a tensor without strides")))
}

/// A copy of a tensor whose memory does not hold its elements, none of any other: libtorch marks tensors as negated,
/// and as zeros without memory, and what reads memory itself does not see it.
pub(crate) fn in_memory(tensor: &Tensor) -> Result<Option<Tensor>> {
    let read = if tensor.f_internal_is_zerotensor().map_err(framework)? {
        let kind = tensor.f_kind().map_err(framework)?;
        Tensor::f_zeros(tensor.size(), (kind, tensor.device()))
    } else if tensor.f_is_neg().map_err(framework)? {
        tensor.detach().f_resolve_neg()
    } else {
        return Ok(None);
    };
    read.map(Some).map_err(framework)
}

/// Calls `f` with a CPU tensor whose elements fill their memory, and how they lie there: the tensor
/// itself, or a copy of one with gaps, or of one whose memory does not hold its elements.
fn with_dense<R>(tensor: &Tensor, f: impl FnOnce(&Tensor, Layout) -> Result<R>) -> Result<R> {
    check_strided(tensor)?;
    if tensor.device() != Device::Cpu {
        return Err(Error::Dtype {
            backend: LibTorch::NAME,
            dtype: format!("{:?} on {:?}", tensor.f_kind(), tensor.device()),
            expected: "a tensor on the CPU",
        });
    }
    let read = in_memory(tensor)?;
    let tensor = read.as_ref().unwrap_or(tensor);
    let shape: Vec<usize> = tensor
        .size()
        .into_iter()
        .map(|length| length as usize)
        .collect();
    let strides: Vec<isize> = tensor
        .stride()
        .into_iter()
        .map(|stride| stride as isize)
        .collect();
    match Layout::dense(&shape, &strides) {
        Some(layout) => f(tensor, layout),
        None => {
            let copy = tensor.detach().f_contiguous().map_err(framework)?;
            f(&copy, Layout::row_major(&shape))
        }
    }
}

/// The elements of a tensor; none where it has no memory, which [`HostFloats::new`] then refuses.
///
/// # Safety
/// The tensor must be on the CPU and of a kind whose elements are `T`, and fill the memory of `len`
/// elements at its data pointer; nobody may write to it while the slice lives.
unsafe fn elements<T>(tensor: &Tensor, len: usize) -> &[T] {
    let data = tensor.data_ptr().cast::<T>();
    if len == 0 || data.is_null() {
        return &[];
    }
    // SAFETY: the caller says so; libtorch aligns its allocations to 64 bytes and offsets in them
    // are whole elements.
    unsafe { std::slice::from_raw_parts(data, len) }
}

/// The elements of a new tensor, to be written.
///
/// # Safety
/// The tensor must be on the CPU and of a kind whose elements are `T`, and fill the memory of `len`
/// elements at its data pointer; nobody else may have the tensor.
unsafe fn elements_mut<T>(tensor: &mut Tensor, len: usize) -> &mut [MaybeUninit<T>] {
    let data = tensor.data_ptr().cast::<MaybeUninit<T>>();
    if len == 0 || data.is_null() {
        return &mut [];
    }
    // SAFETY: the caller says so; for alignment see `elements`.
    unsafe { std::slice::from_raw_parts_mut(data, len) }
}

/// A CPU tensor of this layout whose elements have no value yet.
fn empty(layout: &Layout, kind: Kind) -> Result<Tensor> {
    let mut strides = vec![1; layout.shape().len()];
    let mut stride = 1;
    for position in (0..strides.len()).rev() {
        let axis = layout.axis_at(position);
        strides[axis] = stride;
        // Only of a tensor without elements can it be too large, and there it means nothing.
        stride = i64::saturating_mul(stride, layout.shape()[axis].max(1) as i64);
    }
    let shape: Vec<i64> = layout.shape().iter().map(|&length| length as i64).collect();
    Tensor::f_empty_strided(shape, strides, (kind, Device::Cpu)).map_err(framework)
}

fn float_tensor(
    float: FloatType,
    layout: &Layout,
    fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
) -> Result<Tensor> {
    let (mut tensor, len) = (empty(layout, float_kind(float))?, layout.len());
    // SAFETY: the tensor was just made, on the CPU, dense, and of the kind of the slice; nobody
    // else has it.
    let slice = unsafe {
        match float {
            FloatType::F16 => FloatSliceMut::F16(elements_mut(&mut tensor, len)),
            FloatType::BF16 => FloatSliceMut::BF16(elements_mut(&mut tensor, len)),
            FloatType::F32 => FloatSliceMut::F32(elements_mut(&mut tensor, len)),
            FloatType::F64 => FloatSliceMut::F64(elements_mut(&mut tensor, len)),
        }
    };
    fill.write_floats(slice)?;
    Ok(tensor)
}

/// The float type of a tensor.
pub(crate) fn float_type(tensor: &Tensor) -> Result<FloatType> {
    match tensor.f_kind().map_err(framework)? {
        Kind::Half => Ok(FloatType::F16),
        Kind::BFloat16 => Ok(FloatType::BF16),
        Kind::Float => Ok(FloatType::F32),
        Kind::Double => Ok(FloatType::F64),
        kind => Err(Error::Dtype {
            backend: LibTorch::NAME,
            dtype: format!("{kind:?}"),
            expected: "Half, BFloat16, Float or Double",
        }),
    }
}

/// libtorch's kind of a float type.
pub(crate) fn float_kind(float: FloatType) -> Kind {
    match float {
        FloatType::F16 => Kind::Half,
        FloatType::BF16 => Kind::BFloat16,
        FloatType::F32 => Kind::Float,
        FloatType::F64 => Kind::Double,
    }
}

/// libtorch's kind of an integer type that it has.
pub(crate) fn int_kind(int: IntType) -> Kind {
    match int {
        IntType::I8 => Kind::Int8,
        IntType::U8 => Kind::Uint8,
        IntType::I16 => Kind::Int16,
        IntType::I32 => Kind::Int,
        IntType::U16 | IntType::U32 | IntType::I64 => Kind::Int64,
    }
}
