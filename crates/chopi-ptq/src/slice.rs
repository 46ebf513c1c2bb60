//! Slices as tensors of a framework of their own, for what observes tensors.

use std::marker::PhantomData;

use chopi_core::Result;
use chopi_core::backend::{
    Backend, Fill, Float, FloatSliceMut, FloatTensor, FloatType, HostFloats, HostInts, HostOnly,
    Int, IntSliceMut, IntTensor, Layout,
};

/// The framework of slices.
#[derive(Debug)]
pub(crate) struct Slices;

impl Backend for Slices {
    const NAME: &'static str = "slices";
}

/// Elements in row-major order, with the shape of their tensor.
#[derive(Debug)]
pub(crate) struct Tensor<'a, F> {
    pub elements: &'a [F],
    pub shape: &'a [usize],
}

/// Elements of type `T` that are owned, of a tensor that was of type `F`.
#[derive(Debug)]
pub(crate) struct Owned<T, F = T>(Vec<T>, Layout, PhantomData<F>);

impl<F: Float> FloatTensor<Slices> for Tensor<'_, F> {
    type Owned = Owned<F>;
    type Int = Owned<i64, F>;
    type Device = HostOnly<Owned<F>, Owned<i64, F>>;

    fn rank(&self) -> usize {
        self.shape.len()
    }

    fn with_host<R>(&self, f: impl FnOnce(HostFloats<'_>) -> Result<R>) -> Result<R> {
        f(HostFloats::new(
            F::slice(self.elements),
            Layout::row_major(self.shape),
        )?)
    }

    fn int_like(
        &self,
        _: (i64, i64),
        layout: &Layout,
        fill: Fill<impl FnOnce(IntSliceMut<'_>) -> Result<()>>,
    ) -> Result<Owned<i64, F>> {
        Ok(Owned(fill.into_ints()?, layout.clone(), PhantomData))
    }

    fn float_like(
        &self,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Owned<F>> {
        Ok(Owned(fill.into_floats()?, layout.clone(), PhantomData))
    }
}

impl<F: Float> IntTensor<Slices> for Owned<i64, F> {
    type Float = Owned<F>;
    type Device = HostOnly<Owned<F>, Self>;

    fn with_host<R>(&self, f: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R> {
        f(HostInts::new(i64::slice(&self.0), self.1.clone())?)
    }

    fn float_like(
        &self,
        _: FloatType,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Owned<F>> {
        Ok(Owned(fill.into_floats()?, layout.clone(), PhantomData))
    }
}
