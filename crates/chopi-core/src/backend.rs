//! The abstraction of a tensor framework.
//!
//! A framework implements little: a marker type, and for its float and its integer tensors the
//! shape, the elements as one slice of host memory, and "make a tensor like me, which this writes".
//! Core does the rest, so that every framework gives the same bits.
//!
//! The traits are safe to implement: what a backend says of its memory is checked where it says it, and
//! a backend that says something else than it does gives errors or wrong tensors, never undefined
//! behaviour.
//!
//! # Writing a backend
//!
//! A backend whose tensors are in host memory takes less than a hundred lines. This is a whole one, for
//! vectors of `f32`; its codes are `i64`:
//!
//! ```
//! # use chopi_core as chopi;
//! use chopi::backend::{
//!     Backend, Fill, Float, FloatSliceMut, FloatTensor, FloatType, HostFloats, HostInts, HostOnly, Int,
//!     IntSliceMut, IntTensor, Layout,
//! };
//! use chopi::{Chopi, Result};
//!
//! struct Vectors;
//! impl Backend for Vectors {
//!     const NAME: &'static str = "vec";
//! }
//!
//! struct Floats(Vec<f32>);
//! struct Codes(Vec<i64>);
//!
//! impl FloatTensor<Vectors> for Floats {
//!     type Owned = Floats;
//!     type Int = Codes;
//!     // Every tensor is in host memory.
//!     type Device = HostOnly<Floats, Codes>;
//!
//!     fn rank(&self) -> usize {
//!         1
//!     }
//!
//!     fn with_host<R>(&self, f: impl FnOnce(HostFloats<'_>) -> Result<R>) -> Result<R> {
//!         f(HostFloats::new(Float::slice(&self.0), Layout::row_major(&[self.0.len()]))?)
//!     }
//!
//!     fn int_like(
//!         &self,
//!         _bounds: (i64, i64),
//!         _layout: &Layout,
//!         fill: Fill<impl FnOnce(IntSliceMut<'_>) -> Result<()>>,
//!     ) -> Result<Codes> {
//!         Ok(Codes(fill.into_ints()?))
//!     }
//!
//!     fn float_like(
//!         &self,
//!         _layout: &Layout,
//!         fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
//!     ) -> Result<Floats> {
//!         Ok(Floats(fill.into_floats()?))
//!     }
//! }
//!
//! impl IntTensor<Vectors> for Codes {
//!     type Float = Floats;
//!     type Device = HostOnly<Floats, Codes>;
//!
//!     fn with_host<R>(&self, f: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R> {
//!         f(HostInts::new(Int::slice(&self.0), Layout::row_major(&[self.0.len()]))?)
//!     }
//!
//!     fn float_like(
//!         &self,
//!         _calibrated: FloatType,
//!         _layout: &Layout,
//!         fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
//!     ) -> Result<Floats> {
//!         Ok(Floats(fill.into_floats()?))
//!     }
//! }
//!
//! let mut chopi = Chopi::new(8)?;
//! let q = chopi.quantize(&Floats(vec![0.1, -0.2, 0.3, 0.4]))?;
//! assert_eq!(q.0, [128, 0, 212, 255]);
//! let y = chopi.dequantize(&q)?;
//! assert_eq!(y.0.len(), 4);
//! # Ok::<(), chopi_core::Error>(())
//! ```
//!
//! Start from `crates/chopi-conformance/tests/vec_backend.rs`: the same for tensors of any shape and float
//! type, with the tests that every backend passes, `chopi_conformance::suite!`. A framework whose tensors
//! may be on a GPU implements [`DeviceTensor`] too, about twenty primitive operations, from which core
//! composes the bits that the kernels give.

pub use chopi_kernels::{
    Compute, Float, FloatSlice, FloatSliceMut, FloatType, Int, IntSlice, IntSliceMut, IntType,
    Layout, bf16, f16, match_float, match_int,
    memory::{NoMemory, collected, copied, make_room, repeated, try_collected, with_room},
};

pub use crate::device::{DeviceTensor, HostOnly};
pub use crate::fill::Fill;
pub use crate::groups::on_host;

use crate::error::{Error, Result};
use crate::scheme::Rounding;

/// A tensor framework: a marker type such as `NdArray`.
pub trait Backend: 'static {
    /// The framework's name, as `chopi::backends()` lists it.
    const NAME: &'static str;
}

/// The elements of a dense float tensor, in memory order: as many as its layout says.
///
/// [`new`](Self::new) looks, and there is no way around it:
///
/// ```compile_fail,E0451
/// # use chopi_core as chopi;
/// use chopi::backend::{FloatSlice, HostFloats, Layout};
/// let (data, layout) = (FloatSlice::F32(&[]), Layout::row_major(&[1000]));
/// let lie = HostFloats { data, layout };
/// ```
#[derive(Clone, Debug)]
pub struct HostFloats<'a> {
    data: FloatSlice<'a>,
    layout: Layout,
}

/// The elements of a dense integer tensor, in memory order: as many as its layout says.
///
/// ```compile_fail,E0451
/// # use chopi_core as chopi;
/// use chopi::backend::{HostInts, IntSlice, Layout};
/// let (data, layout) = (IntSlice::I8(&[]), Layout::row_major(&[1000]));
/// let lie = HostInts { data, layout };
/// ```
#[derive(Clone, Debug)]
pub struct HostInts<'a> {
    data: IntSlice<'a>,
    layout: Layout,
}

impl<'a> HostFloats<'a> {
    /// The elements of a tensor of this layout.
    ///
    /// # Errors
    /// [`Error::Elements`] where there are not as many as the layout says.
    #[inline]
    pub fn new(data: FloatSlice<'a>, layout: Layout) -> Result<Self> {
        check_len(data.len(), &layout)?;
        Ok(Self { data, layout })
    }

    /// The elements.
    #[inline]
    pub fn data(&self) -> FloatSlice<'a> {
        self.data
    }

    /// The tensor's shape, and the order of its axes in memory.
    #[inline]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// The element type.
    #[inline]
    pub fn float_type(&self) -> FloatType {
        self.data.float_type()
    }

    /// Calls `f` with the elements in an order that the rounding can use: stochastic rounding goes by the
    /// row-major index.
    #[inline]
    pub(crate) fn ordered_for<R>(
        self,
        rounding: Rounding,
        f: impl FnOnce(HostFloats<'_>) -> Result<R>,
    ) -> Result<R> {
        match rounding {
            Rounding::Stochastic { .. } if !self.layout.is_row_major() => {
                let to = Layout::row_major(self.layout.shape());
                self.reordered(&to, f)
            }
            _ => f(self),
        }
    }

    /// Calls `f` with the elements in the memory order of another layout of the same shape.
    #[inline]
    pub(crate) fn reordered<R>(
        self,
        to: &Layout,
        f: impl FnOnce(HostFloats<'_>) -> Result<R>,
    ) -> Result<R> {
        if self.layout.has_order_of(to) {
            return f(self);
        }
        match_float!(FloatSlice, self.data, data => {
            let data = self.layout.reordered(data, to)?;
            f(HostFloats { data: Float::slice(&data), layout: to.clone() })
        })
    }
}

impl<'a> HostInts<'a> {
    /// The elements of a tensor of this layout.
    ///
    /// # Errors
    /// [`Error::Elements`] where there are not as many as the layout says.
    #[inline]
    pub fn new(data: IntSlice<'a>, layout: Layout) -> Result<Self> {
        check_len(data.len(), &layout)?;
        Ok(Self { data, layout })
    }

    /// The elements.
    #[inline]
    pub fn data(&self) -> IntSlice<'a> {
        self.data
    }

    /// The tensor's shape, and the order of its axes in memory.
    #[inline]
    pub fn layout(&self) -> &Layout {
        &self.layout
    }

    /// Calls `f` with the elements in the memory order of another layout of the same shape.
    #[inline]
    pub(crate) fn reordered<R>(
        self,
        to: &Layout,
        f: impl FnOnce(HostInts<'_>) -> Result<R>,
    ) -> Result<R> {
        if self.layout.has_order_of(to) {
            return f(self);
        }
        match_int!(IntSlice, self.data, data => {
            let data = self.layout.reordered(data, to)?;
            f(HostInts { data: Int::slice(&data), layout: to.clone() })
        })
    }
}

/// Checks that there are as many elements as a layout says.
#[inline]
pub(crate) fn check_len(elements: usize, layout: &Layout) -> Result<()> {
    #[cold]
    fn error(elements: usize, layout: &Layout) -> Error {
        Error::Elements {
            elements,
            shape: layout.shape().to_vec(),
        }
    }
    match elements == layout.len() {
        true => Ok(()),
        false => Err(error(elements, layout)),
    }
}

/// A float tensor of the framework `B`: what is calibrated on and quantized.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no tensor of floats that chopi quantizes",
    label = "expected an array or a tensor of f32, f64, f16 or bf16",
    note = "integers are converted first, for instance by `x.mapv(|x| x as f32)`",
    note = "a slice or a `Vec` is quantized through a view: `ndarray::ArrayView::from(&x[..])`",
    note = "tensors of `candle` and `tch` need chopi's feature of that name"
)]
pub trait FloatTensor<B: Backend> {
    /// A float tensor that owns its elements.
    type Owned;
    /// The framework's tensor of codes.
    type Int: IntTensor<B, Float = Self::Owned, Device = Self::Device>;
    /// The tensor as one for device operations; [`HostOnly`] where every tensor of the framework is in
    /// host memory.
    type Device: DeviceTensor<Float = Self::Owned, Int = Self::Int>;

    /// The number of axes.
    fn rank(&self) -> usize;

    /// Calls `f` with the tensor's elements as one slice of host memory: borrowed where they lie
    /// densely, in whatever axis order; copied, row-major, where they do not.
    ///
    /// # Errors
    /// The error that `f` returns; [`Error::Dtype`] for a dtype that chopi does not quantize; [`Error::Framework`] where
    /// the framework fails.
    fn with_host<R>(&self, f: impl FnOnce(HostFloats<'_>) -> Result<R>) -> Result<R>;

    /// The tensor as one for device operations, where its elements are not in host memory: `None`
    /// for a tensor that [`with_host`](Self::with_host) can borrow.
    fn on_device(&self) -> Option<Self::Device> {
        None
    }

    /// An integer tensor of the framework's smallest type that holds `bounds.0..=bounds.1`. `fill`
    /// writes its elements, in the memory order of `layout`, which has as many.
    ///
    /// # Errors
    /// The error that `fill` returns; [`Error::Framework`] where the framework fails.
    fn int_like(
        &self,
        bounds: (i64, i64),
        layout: &Layout,
        fill: Fill<impl FnOnce(IntSliceMut<'_>) -> Result<()>>,
    ) -> Result<Self::Int>;

    /// A float tensor of the dtype of `self`, written like [`int_like`](Self::int_like).
    ///
    /// # Errors
    /// The error that `fill` returns; [`Error::Framework`] where the framework fails.
    fn float_like(
        &self,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Self::Owned>;
}

/// An integer tensor of the framework `B`: what is dequantized.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is no tensor of codes that chopi dequantizes",
    note = "tensors of `candle` and `tch` need chopi's feature of that name",
    note = "for ndarray, dequantize the `IntArray` that `quantize` gave, or make one from an \
            integer array with `IntArray::from`"
)]
pub trait IntTensor<B: Backend> {
    /// The float tensor that dequantizing gives.
    type Float;
    /// The tensor as one for device operations, or [`HostOnly`].
    type Device: DeviceTensor<Float = Self::Float>;

    /// Calls `f` with the tensor's elements, like [`FloatTensor::with_host`].
    ///
    /// # Errors
    /// The error that `f` returns; [`Error::Dtype`] for a dtype that chopi does not quantize; [`Error::Framework`] where
    /// the framework fails.
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
    /// The error that `fill` returns; [`Error::Framework`] where the framework fails.
    fn float_like(
        &self,
        calibrated: FloatType,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Self::Float>;
}

/// The elements of a dense float tensor, in memory order, to be overwritten: as many as its layout says.
///
/// The memory that core writes to is nobody else's to see:
///
/// ```compile_fail,E0616
/// # use chopi_core as chopi;
/// use chopi::backend::{HostFloatsMut, Layout};
/// let host = HostFloatsMut::new(&mut [0.0_f32; 4], Layout::row_major(&[4]))?;
/// let memory = host.data;
/// # Ok::<(), chopi_core::Error>(())
/// ```
#[derive(Debug)]
pub struct HostFloatsMut<'a> {
    pub(crate) data: FloatSliceMut<'a>,
    pub(crate) layout: Layout,
}

impl<'a> HostFloatsMut<'a> {
    /// The elements of a tensor of this layout.
    ///
    /// # Errors
    /// [`Error::Elements`] where there are not as many as the layout says.
    #[inline]
    pub fn new<F: Float>(data: &'a mut [F], layout: Layout) -> Result<Self> {
        check_len(data.len(), &layout)?;
        let data = F::slice_mut(as_uninit(data));
        Ok(Self { data, layout })
    }
}

/// The elements of a dense integer tensor, in memory order, to be overwritten: as many as its layout
/// says.
#[derive(Debug)]
pub struct HostIntsMut<'a> {
    pub(crate) data: IntSliceMut<'a>,
    pub(crate) layout: Layout,
}

impl<'a> HostIntsMut<'a> {
    /// The elements of a tensor of this layout.
    ///
    /// # Errors
    /// [`Error::Elements`] where there are not as many as the layout says.
    #[inline]
    pub fn new<I: Int>(data: &'a mut [I], layout: Layout) -> Result<Self> {
        check_len(data.len(), &layout)?;
        let data = I::slice_mut(as_uninit(data));
        Ok(Self { data, layout })
    }
}

/// Elements that the kernels overwrite, which take them for memory that may not be initialized.
fn as_uninit<T>(data: &mut [T]) -> &mut [std::mem::MaybeUninit<T>] {
    // SAFETY: the two have the same layout. Only core sees the result, since the fields that keep
    // it are its own, and core writes nothing but initialized elements.
    unsafe { &mut *(std::ptr::from_mut(data) as *mut [std::mem::MaybeUninit<T>]) }
}

/// A float tensor of the framework `B` whose elements can be overwritten.
///
/// Arrays of `ndarray` implement it. Tensors of `candle` and `tch` do not: their handles share memory, and
/// `&mut` to one handle does not prove that no other handle reads the elements.
pub trait FloatTensorMut<B: Backend> {
    /// Calls `f` with the tensor's elements.
    ///
    /// # Errors
    /// The error that `f` returns; [`Error::OutputLayout`] where the tensor does not lie densely.
    fn with_host_mut<R>(&mut self, f: impl FnOnce(HostFloatsMut<'_>) -> Result<R>) -> Result<R>;
}

/// An integer tensor of the framework `B` whose elements can be overwritten, like
/// [`FloatTensorMut`].
pub trait IntTensorMut<B: Backend> {
    /// Calls `f` with the tensor's elements.
    ///
    /// # Errors
    /// The error that `f` returns; [`Error::OutputLayout`] where the tensor does not lie densely.
    fn with_host_mut<R>(&mut self, f: impl FnOnce(HostIntsMut<'_>) -> Result<R>) -> Result<R>;
}
