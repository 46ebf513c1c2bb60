//! What a framework provides: primitive operations on tensors that are where they are.

use std::convert::Infallible;
use std::marker::PhantomData;
use std::ops::Range;

use crate::error::{Error, Result};
use chopi_kernels::FloatType;

/// A tensor of a framework that computes where the elements are: a cheap handle.
///
/// Operations of two tensors broadcast as NumPy's do; arithmetic rounds once, as IEEE 754 says. Gradients
/// pass through the operations as the framework has it; [`training`](crate::training) is written on top of
/// that.
pub trait DeviceTensor: Sized {
    /// What a float tensor is to the user.
    type Float;
    /// What a tensor of codes is to the user.
    type Int;

    /// The length of each axis.
    fn shape(&self) -> Vec<usize>;
    /// The element type of a float tensor; an error for any other.
    fn float_type(&self) -> Result<FloatType>;
    /// A float tensor on the same device; `values` in row-major order are numbers of its type.
    fn constant(&self, values: &[f64], shape: &[usize], float: FloatType) -> Result<Self>;
    /// A tensor of this one's shape and type whose elements are 0, without gradient.
    fn zeros_like(&self) -> Result<Self>;
    /// The conversion of a float or integer tensor, rounded to nearest even.
    fn cast(&self, float: FloatType) -> Result<Self>;
    /// A tensor of this one's elements, in row-major order, with another shape.
    fn reshape(&self, shape: &[usize]) -> Result<Self>;
    /// The part of these indices along an axis.
    fn narrow(&self, axis: usize, range: Range<usize>) -> Result<Self>;
    /// Parts put together along an axis.
    fn cat(parts: Vec<Self>, axis: usize) -> Result<Self>;
    /// `self + other`.
    fn add(&self, other: &Self) -> Result<Self>;
    /// `self − other`.
    fn sub(&self, other: &Self) -> Result<Self>;
    /// `self · other`.
    fn mul(&self, other: &Self) -> Result<Self>;
    /// `self / other`.
    fn div(&self, other: &Self) -> Result<Self>;
    /// `self · factor`, the factor in the type that the framework computes in.
    fn mul_scalar(&self, factor: f64) -> Result<Self>;
    /// `self + term`, the term in the type that the framework computes in.
    fn add_scalar(&self, term: f64) -> Result<Self>;
    /// The square root of each element, to within a unit in the last place: libtorch's is not always the
    /// nearest number.
    fn sqrt(&self) -> Result<Self>;
    /// The mask of `self > other`, false for NaN.
    fn gt(&self, other: &Self) -> Result<Self>;
    /// The mask of `self ≠ other`, true for NaN.
    fn ne(&self, other: &Self) -> Result<Self>;
    /// Where `self`, a mask of the full shape or integers that are 0 where it does not hold, holds `yes`, else
    /// `no`.
    fn select(&self, yes: &Self, no: &Self) -> Result<Self>;
    /// The smallest element along an axis, which is kept with length 1. There is no NaN.
    fn min_along(&self, axis: usize) -> Result<Self>;
    /// The largest element along an axis, which is kept with length 1. There is no NaN.
    fn max_along(&self, axis: usize) -> Result<Self>;
    /// The elements with these indices along an axis, one after the other.
    fn index_select(&self, axis: usize, indices: &[usize]) -> Result<Self>;
    /// The elements of this tensor, without a gradient to it.
    fn detach(&self) -> Result<Self>;
    /// Gives a variable of a network, which this is, the elements of a tensor of its shape and type; no gradient
    /// is recorded.
    fn assign(&self, values: &Self) -> Result<()>;
    /// The widest float type that the device computes in.
    fn widest_float(&self) -> FloatType {
        FloatType::F64
    }
    /// The elements of a float tensor in host memory, in row-major order.
    fn to_host(&self) -> Result<Vec<f64>>;
    /// A float tensor for the user, in its own type.
    fn into_float(self) -> Result<Self::Float>;
    /// A tensor of codes for the user, from integers within the bounds held in a float tensor: of
    /// the smallest type that the device can convert to.
    fn into_int(self, bounds: (i64, i64)) -> Result<Self::Int>;
}

/// The device tensor of a framework whose tensors are all in host memory: there is none.
#[derive(Debug)]
pub struct HostOnly<F, I>(Infallible, PhantomData<(F, I)>);

#[rustfmt::skip]
impl<F, I> DeviceTensor for HostOnly<F, I> {
    type Float = F;
    type Int = I;

    fn shape(&self) -> Vec<usize> { match self.0 {} }
    fn float_type(&self) -> Result<FloatType> { match self.0 {} }
    fn constant(&self, _: &[f64], _: &[usize], _: FloatType) -> Result<Self> { match self.0 {} }
    fn zeros_like(&self) -> Result<Self> { match self.0 {} }
    fn cast(&self, _: FloatType) -> Result<Self> { match self.0 {} }
    fn reshape(&self, _: &[usize]) -> Result<Self> { match self.0 {} }
    fn narrow(&self, _: usize, _: Range<usize>) -> Result<Self> { match self.0 {} }
    fn cat(_: Vec<Self>, _: usize) -> Result<Self> {
        // There is no part to give.
        Err(Error::Empty { shape: Vec::new() })
    }
    fn add(&self, _: &Self) -> Result<Self> { match self.0 {} }
    fn sub(&self, _: &Self) -> Result<Self> { match self.0 {} }
    fn mul(&self, _: &Self) -> Result<Self> { match self.0 {} }
    fn div(&self, _: &Self) -> Result<Self> { match self.0 {} }
    fn mul_scalar(&self, _: f64) -> Result<Self> { match self.0 {} }
    fn add_scalar(&self, _: f64) -> Result<Self> { match self.0 {} }
    fn sqrt(&self) -> Result<Self> { match self.0 {} }
    fn gt(&self, _: &Self) -> Result<Self> { match self.0 {} }
    fn ne(&self, _: &Self) -> Result<Self> { match self.0 {} }
    fn select(&self, _: &Self, _: &Self) -> Result<Self> { match self.0 {} }
    fn min_along(&self, _: usize) -> Result<Self> { match self.0 {} }
    fn max_along(&self, _: usize) -> Result<Self> { match self.0 {} }
    fn index_select(&self, _: usize, _: &[usize]) -> Result<Self> { match self.0 {} }
    fn detach(&self) -> Result<Self> { match self.0 {} }
    fn assign(&self, _: &Self) -> Result<()> { match self.0 {} }
    fn to_host(&self) -> Result<Vec<f64>> { match self.0 {} }
    fn into_float(self) -> Result<F> { match self.0 {} }
    fn into_int(self, _: (i64, i64)) -> Result<I> { match self.0 {} }
}
