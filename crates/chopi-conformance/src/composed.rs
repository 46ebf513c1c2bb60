//! Host tensors that compute like device tensors, to test the composed path without a device.

use std::marker::PhantomData;
use std::ops::Range;

use chopi_core::{
    Error, Result,
    backend::{
        Backend, DeviceTensor, Fill, FloatSliceMut, FloatTensor, FloatType, HostFloats, HostInts,
        IntSliceMut, IntTensor, Layout,
    },
};

/// The backend `B`, none of whose tensors has host memory.
#[derive(Clone, Copy, Debug)]
pub struct OnDevice<B>(PhantomData<B>);

impl<B: Backend> Backend for OnDevice<B> {
    const NAME: &'static str = B::NAME;
}

/// A tensor that has no host memory as far as core can see; `D` is a backend's device tensor.
#[derive(Clone, Debug)]
pub struct Composed<D>(pub D);

impl<B, D> FloatTensor<OnDevice<B>> for Composed<D>
where
    B: Backend,
    D: DeviceTensor + Clone + From<D::Float> + From<D::Int>,
{
    type Owned = Self;
    type Int = Self;
    type Device = Self;

    fn rank(&self) -> usize {
        self.0.shape().len()
    }

    fn on_device(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn with_host<R>(&self, _: impl FnOnce(HostFloats<'_>) -> Result<R>) -> Result<R> {
        no_host_memory()
    }

    fn int_like(
        &self,
        _: (i64, i64),
        _: &Layout,
        _: Fill<impl FnOnce(IntSliceMut<'_>) -> Result<()>>,
    ) -> Result<Self> {
        no_host_memory()
    }

    fn float_like(
        &self,
        _: &Layout,
        _: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Self> {
        no_host_memory()
    }
}

impl<B, D> IntTensor<OnDevice<B>> for Composed<D>
where
    B: Backend,
    D: DeviceTensor + Clone + From<D::Float> + From<D::Int>,
{
    type Float = Self;
    type Device = Self;

    fn on_device(&self) -> Option<Self> {
        Some(self.clone())
    }

    fn with_host<R>(&self, _: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R> {
        no_host_memory()
    }

    fn float_like(
        &self,
        _: FloatType,
        _: &Layout,
        _: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Self> {
        no_host_memory()
    }
}

fn no_host_memory<R>() -> Result<R> {
    Err(Error::Dtype {
        backend: "composed",
        dtype: "any".to_owned(),
        expected: "a path that uses no host memory",
    })
}

#[rustfmt::skip]
impl<D: DeviceTensor + From<D::Float> + From<D::Int>> DeviceTensor for Composed<D> {
    type Float = Self;
    type Int = Self;

    fn shape(&self) -> Vec<usize> { self.0.shape() }
    fn float_type(&self) -> Result<FloatType> { self.0.float_type() }
    fn constant(&self, values: &[f64], shape: &[usize], float: FloatType) -> Result<Self> {
        self.0.constant(values, shape, float).map(Self)
    }
    fn zeros_like(&self) -> Result<Self> { self.0.zeros_like().map(Self) }
    fn cast(&self, float: FloatType) -> Result<Self> { self.0.cast(float).map(Self) }
    fn reshape(&self, shape: &[usize]) -> Result<Self> { self.0.reshape(shape).map(Self) }
    fn narrow(&self, axis: usize, range: Range<usize>) -> Result<Self> {
        self.0.narrow(axis, range).map(Self)
    }
    fn cat(parts: Vec<Self>, axis: usize) -> Result<Self> {
        D::cat(parts.into_iter().map(|part| part.0).collect(), axis).map(Self)
    }
    fn add(&self, other: &Self) -> Result<Self> { self.0.add(&other.0).map(Self) }
    fn sub(&self, other: &Self) -> Result<Self> { self.0.sub(&other.0).map(Self) }
    fn mul(&self, other: &Self) -> Result<Self> { self.0.mul(&other.0).map(Self) }
    fn div(&self, other: &Self) -> Result<Self> { self.0.div(&other.0).map(Self) }
    fn mul_scalar(&self, factor: f64) -> Result<Self> { self.0.mul_scalar(factor).map(Self) }
    fn add_scalar(&self, term: f64) -> Result<Self> { self.0.add_scalar(term).map(Self) }
    fn sqrt(&self) -> Result<Self> { self.0.sqrt().map(Self) }
    fn gt(&self, other: &Self) -> Result<Self> { self.0.gt(&other.0).map(Self) }
    fn ne(&self, other: &Self) -> Result<Self> { self.0.ne(&other.0).map(Self) }
    fn select(&self, yes: &Self, no: &Self) -> Result<Self> {
        self.0.select(&yes.0, &no.0).map(Self)
    }
    fn min_along(&self, axis: usize) -> Result<Self> { self.0.min_along(axis).map(Self) }
    fn max_along(&self, axis: usize) -> Result<Self> { self.0.max_along(axis).map(Self) }
    fn index_select(&self, axis: usize, indices: &[usize]) -> Result<Self> {
        self.0.index_select(axis, indices).map(Self)
    }
    fn detach(&self) -> Result<Self> { self.0.detach().map(Self) }
    fn assign(&self, values: &Self) -> Result<()> { self.0.assign(&values.0) }
    fn widest_float(&self) -> FloatType { self.0.widest_float() }
    fn to_host(&self) -> Result<Vec<f64>> { self.0.to_host() }
    fn into_float(self) -> Result<Self> { self.0.into_float().map(|x| Self(x.into())) }
    fn into_int(self, bounds: (i64, i64)) -> Result<Self> {
        self.0.into_int(bounds).map(|q| Self(q.into()))
    }
}
