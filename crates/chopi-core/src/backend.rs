//! The abstraction of a tensor framework.
//!
//! A framework implements little: a marker type, and for its float and its integer tensors the
//! shape, the elements as one slice of host memory, and "make a tensor like me, which this writes".
//! Core does the rest, so that every framework gives the same bits.

use std::mem::MaybeUninit;

use crate::buffer::{Fill, FloatSlice, FloatSliceMut, IntSlice, IntSliceMut};
use crate::device::DeviceTensor;
use crate::dtype::{Float, FloatType, Int};
use crate::error::Result;
use crate::layout::Layout;

/// A tensor framework: a marker type such as `NdArray`.
pub trait Backend: 'static {
    /// The framework's name, as `chopi::backends()` lists it.
    const NAME: &'static str;
}

/// The elements of a dense float tensor, in memory order.
#[derive(Clone, Debug)]
pub struct HostFloats<'a> {
    /// The elements.
    pub data: FloatSlice<'a>,
    /// The tensor's shape, and the order of its axes in `data`.
    pub layout: Layout,
}

/// The elements of a dense integer tensor, in memory order.
#[derive(Clone, Debug)]
pub struct HostInts<'a> {
    /// The elements.
    pub data: IntSlice<'a>,
    /// The tensor's shape, and the order of its axes in `data`.
    pub layout: Layout,
}

/// A float tensor of the framework `B`: what is calibrated on and quantized.
#[diagnostic::on_unimplemented(
    message = "chopi does not know `{Self}` as a float tensor",
    note = "tensors of `ndarray`, `candle` and `tch` need the feature of that name: \
            `chopi = {{ features = [\"candle\"] }}`",
    note = "elements must be f32, f64, half::f16 or half::bf16"
)]
pub trait FloatTensor<B: Backend> {
    /// A float tensor that owns its elements.
    type Owned;
    /// The framework's tensor of codes.
    type Int: IntTensor<B, Float = Self::Owned, Device = Self::Device>;
    /// The tensor as one for device operations; [`HostOnly`](crate::device::HostOnly) where every tensor of the framework is
    /// in host memory.
    type Device: DeviceTensor<Float = Self::Owned, Int = Self::Int>;

    /// The number of axes.
    fn rank(&self) -> usize;

    /// Calls `f` with the tensor's elements as one slice of host memory: borrowed where they lie
    /// densely, in whatever axis order; copied, row-major, where they do not.
    ///
    /// # Errors
    /// Those of `f`; an unsupported dtype; what the framework says.
    fn with_host<R>(&self, f: impl FnOnce(HostFloats<'_>) -> Result<R>) -> Result<R>;

    /// The tensor as one for device operations, where its elements are not in host memory: `None`
    /// for a tensor that [`with_host`](Self::with_host) can borrow.
    fn on_device(&self) -> Option<Self::Device> {
        None
    }

    /// An integer tensor of the framework's smallest type that holds `bounds.0..=bounds.1`. `fill`
    /// writes its `layout.len()` elements, in the memory order of `layout`.
    ///
    /// # Errors
    /// Those of `fill`; what the framework says.
    fn int_like(
        &self,
        bounds: (i64, i64),
        layout: &Layout,
        fill: Fill<impl FnOnce(IntSliceMut<'_>) -> Result<()>>,
    ) -> Result<Self::Int>;

    /// A float tensor of the same dtype, written likewise.
    ///
    /// # Errors
    /// Those of `fill`; what the framework says.
    fn float_like(
        &self,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Self::Owned>;
}

/// An integer tensor of the framework `B`: what is dequantized.
#[diagnostic::on_unimplemented(
    message = "chopi does not know `{Self}` as a tensor of codes",
    note = "tensors of `ndarray`, `candle` and `tch` need the feature of that name: \
            `chopi = {{ features = [\"candle\"] }}`",
    note = "for ndarray, dequantize the `IntArray` that `quantize` gave, or make one from an \
            integer array with `IntArray::from`"
)]
pub trait IntTensor<B: Backend> {
    /// The float tensor that dequantizing gives.
    type Float;
    /// The tensor as one for device operations, or [`HostOnly`](crate::device::HostOnly).
    type Device: DeviceTensor<Float = Self::Float>;

    /// Calls `f` with the tensor's elements, like [`FloatTensor::with_host`].
    ///
    /// # Errors
    /// Those of `f`; an unsupported dtype; what the framework says.
    fn with_host<R>(&self, f: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R>;

    /// The tensor as one for device operations, like [`FloatTensor::on_device`].
    fn on_device(&self) -> Option<Self::Device> {
        None
    }

    /// A float tensor, written like [`FloatTensor::float_like`]. `calibrated` is
    /// the type of the data that the parameters were calibrated on; a framework whose integer
    /// tensors remember a float type of their own takes that instead.
    ///
    /// # Errors
    /// Those of `fill`; what the framework says.
    fn float_like(
        &self,
        calibrated: FloatType,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Self::Float>;
}

/// The elements of a dense float tensor, in memory order, to be overwritten.
#[derive(Debug)]
pub struct HostFloatsMut<'a> {
    pub(crate) data: FloatSliceMut<'a>,
    pub(crate) layout: Layout,
}

impl<'a> HostFloatsMut<'a> {
    /// The elements of a tensor of this layout.
    pub fn new<F: Float>(data: &'a mut [F], layout: Layout) -> Self {
        let data = F::slice_mut(as_uninit(data));
        Self { data, layout }
    }
}

/// The elements of a dense integer tensor, in memory order, to be overwritten.
#[derive(Debug)]
pub struct HostIntsMut<'a> {
    pub(crate) data: IntSliceMut<'a>,
    pub(crate) layout: Layout,
}

impl<'a> HostIntsMut<'a> {
    /// The elements of a tensor of this layout.
    pub fn new<I: Int>(data: &'a mut [I], layout: Layout) -> Self {
        let data = I::slice_mut(as_uninit(data));
        Self { data, layout }
    }
}

/// Elements that the kernels overwrite, which take them for memory that may not be initialized.
fn as_uninit<T>(data: &mut [T]) -> &mut [MaybeUninit<T>] {
    // SAFETY: the two have the same layout. Only core sees the result, since the fields that keep
    // it are its own, and core writes nothing but initialized elements.
    unsafe { &mut *(std::ptr::from_mut(data) as *mut [MaybeUninit<T>]) }
}

/// A float tensor of the framework `B` whose elements can be overwritten.
///
/// `ndarray` arrays are. Tensors of `candle` and `tch` are not: their handles share memory, so
/// that nothing proves that nobody else reads it.
pub trait FloatTensorMut<B: Backend> {
    /// Calls `f` with the tensor's elements.
    ///
    /// # Errors
    /// Those of `f`; [`Error::OutputLayout`](crate::Error::OutputLayout) where the tensor does not lie
    /// densely.
    fn with_host_mut<R>(&mut self, f: impl FnOnce(HostFloatsMut<'_>) -> Result<R>) -> Result<R>;
}

/// An integer tensor of the framework `B` whose elements can be overwritten, like
/// [`FloatTensorMut`].
pub trait IntTensorMut<B: Backend> {
    /// Calls `f` with the tensor's elements.
    ///
    /// # Errors
    /// As [`FloatTensorMut::with_host_mut`].
    fn with_host_mut<R>(&mut self, f: impl FnOnce(HostIntsMut<'_>) -> Result<R>) -> Result<R>;
}
