//! What parameters do with tensors.

use chopi_kernels::memory::collected;
use chopi_kernels::{Compute, Float, FloatSliceMut, IntSliceMut, IntType, Layout, match_float};

use crate::backend::{
    Backend, Fill, FloatTensor, FloatTensorMut, HostFloats, HostFloatsMut, IntTensor, IntTensorMut,
};
use crate::device::DeviceTensor;
use crate::error::{Error, Result};
use crate::qparams::QParams;
use crate::scheme::Rounding;
use crate::{device, host};

impl QParams {
    /// The codes of a tensor, in the framework's smallest integer type that holds their range.
    ///
    /// # Errors
    /// [`Error::NaN`] for NaN, unless the [policy](Self::with_nan_policy) has a code for it;
    /// [`Error::ParamsShape`] where the parameters are for another shape; [`Error::Unsupported`] where
    /// the convention does not have such tensors.
    pub fn quantize<B: Backend, T: FloatTensor<B> + ?Sized>(&self, x: &T) -> Result<T::Int> {
        if let Some(device) = x.on_device() {
            return device::quantize(&device, self);
        }
        x.with_host(|host| {
            host.ordered_for(self.scheme().rounding, |host| {
                let layout = host.layout();
                let codes = |out: IntSliceMut<'_>| host::quantize(&host, self, out);
                x.int_like(self.bounds(), layout, Fill::new(layout.len(), codes))
            })
        })
    }

    /// The codes of a tensor, written into one that is there: of the same shape, dense, of any
    /// integer type that holds the range.
    ///
    /// Nothing is allocated where the two lie in memory in the same order, but for a list of the
    /// parameters where there are several groups.
    ///
    /// # Errors
    /// The errors of [`quantize`](Self::quantize), which leave codes without meaning;
    /// [`Error::OutputShape`], [`Error::OutputType`] and [`Error::OutputLayout`].
    pub fn quantize_into<B, T, Q>(&self, x: &T, out: &mut Q) -> Result<()>
    where
        B: Backend,
        T: FloatTensor<B> + ?Sized,
        Q: IntTensorMut<B> + ?Sized,
    {
        x.with_host(|host| {
            out.with_host_mut(|out| {
                check_shape(&out.layout, host.layout(), self.scheme().rounding)?;
                check_int_type(&out.data, self.bounds())?;
                host.reordered(&out.layout, |host| host::quantize(&host, self, out.data))
            })
        })
    }

    /// The codes of elements in host memory as a tensor of the framework of `like`: for values that stand in
    /// the place of a tensor's own, such as weights that were changed to make up for the errors of others.
    ///
    /// # Errors
    /// The errors of [`quantize`](Self::quantize).
    pub fn quantize_like<B: Backend, T: FloatTensor<B> + ?Sized>(
        &self,
        like: &T,
        values: &HostFloats<'_>,
    ) -> Result<T::Int> {
        if let Some(device) = like.on_device() {
            let (wide, shape) = (widened(values)?, values.layout().shape());
            return device::quantize(&device.constant(&wide, shape, values.float_type())?, self);
        }
        values.clone().ordered_for(self.scheme().rounding, |host| {
            let layout = host.layout();
            let codes = |out: IntSliceMut<'_>| host::quantize(&host, self, out);
            like.int_like(self.bounds(), layout, Fill::new(layout.len(), codes))
        })
    }

    /// The values of codes: x̂ = (q − z)·s.
    ///
    /// # Errors
    /// [`Error::ParamsShape`] where the parameters are for another shape; [`Error::Code`] for a code
    /// outside of the scheme's range.
    pub fn dequantize<B: Backend, Q: IntTensor<B> + ?Sized>(&self, q: &Q) -> Result<Q::Float> {
        if let Some(q) = q.on_device() {
            return device::dequantize(&q, self);
        }
        q.with_host(|codes| {
            let layout = codes.layout();
            let values = |out: FloatSliceMut<'_>| host::dequantize(&codes, self, out);
            q.float_like(self.float_type(), layout, Fill::new(layout.len(), values))
        })
    }

    /// The values of codes, written into a tensor that is there: of the same shape, dense, of any
    /// float type.
    ///
    /// # Errors
    /// The errors of [`dequantize`](Self::dequantize), which leave `out` as it was;
    /// [`Error::OutputShape`] and [`Error::OutputLayout`].
    pub fn dequantize_into<B, Q, T>(&self, q: &Q, out: &mut T) -> Result<()>
    where
        B: Backend,
        Q: IntTensor<B> + ?Sized,
        T: FloatTensorMut<B> + ?Sized,
    {
        q.with_host(|codes| {
            out.with_host_mut(|out| {
                check_shape(&out.layout, codes.layout(), Rounding::NearestEven)?;
                codes.reordered(&out.layout, |codes| {
                    host::dequantize(&codes, self, out.data)
                })
            })
        })
    }

    /// Quantizes and dequantizes in one pass: the bits of `dequantize(quantize(x))`, but for NaN,
    /// which stays NaN, or has the value of qmin in
    /// [`Convention::TORCH_FAKE`](crate::Convention::TORCH_FAKE).
    ///
    /// # Errors
    /// [`Error::ParamsShape`] where the parameters are for another shape; [`Error::Unsupported`] where
    /// the convention does not have such tensors.
    pub fn fake_quantize<B: Backend, T: FloatTensor<B> + ?Sized>(&self, x: &T) -> Result<T::Owned> {
        if let Some(x) = x.on_device() {
            return device::fake_quantize(&x, self);
        }
        x.with_host(|host| {
            host.ordered_for(self.scheme().rounding, |host| {
                let layout = host.layout();
                let values = |out: FloatSliceMut<'_>| host::fake_quantize(&host, self, out);
                x.float_like(layout, Fill::new(layout.len(), values))
            })
        })
    }

    /// [`fake_quantize`](Self::fake_quantize), written into a tensor that is there: of the same shape and
    /// type, dense.
    ///
    /// # Errors
    /// The errors of [`fake_quantize`](Self::fake_quantize), which leave `out` as it was;
    /// [`Error::OutputShape`], [`Error::OutputType`] and [`Error::OutputLayout`].
    pub fn fake_quantize_into<B, T, U>(&self, x: &T, out: &mut U) -> Result<()>
    where
        B: Backend,
        T: FloatTensor<B> + ?Sized,
        U: FloatTensorMut<B> + ?Sized,
    {
        x.with_host(|host| out.with_host_mut(|out| self.fake_quantize_host(host, out)))
    }

    /// [`fake_quantize`](Self::fake_quantize) of elements in host memory, of no framework.
    ///
    /// # Errors
    /// The errors of [`fake_quantize_into`](Self::fake_quantize_into).
    pub fn fake_quantize_host(&self, x: HostFloats<'_>, out: HostFloatsMut<'_>) -> Result<()> {
        check_shape(&out.layout, x.layout(), self.scheme().rounding)?;
        let (float, expected) = (out.data.float_type(), x.float_type());
        if float != expected {
            return Err(Error::OutputType {
                dtype: float.to_string(),
                expected: expected.to_string(),
            });
        }
        x.reordered(&out.layout, |host| {
            host::fake_quantize(&host, self, out.data)
        })
    }

    /// [`fake_quantize`](Self::fake_quantize), and the mask of the straight-through estimator: a tensor of
    /// `u8` that holds 1 where the code lies in qmin..=qmax before it is clamped, else 0, and 0 for NaN.
    ///
    /// # Errors
    /// The errors of [`fake_quantize`](Self::fake_quantize).
    pub fn fake_quantize_with_mask<B: Backend, T: FloatTensor<B> + ?Sized>(
        &self,
        x: &T,
    ) -> Result<(T::Owned, T::Int)> {
        if let Some(x) = x.on_device() {
            return device::fake_quantize_with_mask(&x, self);
        }
        x.with_host(|host| {
            host.ordered_for(self.scheme().rounding, |host| {
                let layout = host.layout();
                let unwritten = || Error::Framework {
                    backend: B::NAME,
                    source: "the framework made a tensor without writing it".into(),
                };
                let mut mask = None;
                // Both tensors are written in one pass, so the one is made while the other is.
                let values = |out: FloatSliceMut<'_>| {
                    let mut written = false;
                    let inside = |mask: IntSliceMut<'_>| {
                        host::fake_quantize_with_mask(&host, self, out, mask)?;
                        written = true;
                        Ok(())
                    };
                    mask = Some(x.int_like((0, 255), layout, Fill::new(layout.len(), inside))?);
                    // `out` is written only if the framework has had the mask written.
                    if written { Ok(()) } else { Err(unwritten()) }
                };
                let values = x.float_like(layout, Fill::new(layout.len(), values))?;
                Ok((values, mask.ok_or_else(unwritten)?))
            })
        })
    }
}

/// The elements as `f64`, in row-major order.
fn widened(host: &HostFloats<'_>) -> Result<Vec<f64>> {
    match_float!(FloatSlice, host.data(), data => {
        let data = host.layout().to_row_major(data)?;
        Ok(collected(data.iter().map(|x| x.widen().as_f64()))?)
    })
}

/// Checks that a result of layout `expected` can be written to an output of layout `out`.
#[inline]
pub(crate) fn check_shape(out: &Layout, expected: &Layout, rounding: Rounding) -> Result<()> {
    #[cold]
    fn other_shape(out: &Layout, expected: &Layout) -> Error {
        Error::OutputShape {
            shape: out.shape().to_vec(),
            expected: expected.shape().to_vec(),
        }
    }
    #[cold]
    fn other_order(out: &Layout) -> Error {
        Error::OutputLayout {
            shape: out.shape().to_vec(),
            expected: "in row-major order, by which stochastic rounding goes",
        }
    }
    if out.shape() != expected.shape() {
        return Err(other_shape(out, expected));
    }
    if matches!(rounding, Rounding::Stochastic { .. }) && !out.is_row_major() {
        return Err(other_order(out));
    }
    Ok(())
}

/// Checks that an output has an integer type that holds the codes.
#[inline]
pub(crate) fn check_int_type(out: &IntSliceMut<'_>, (qmin, qmax): (i64, i64)) -> Result<()> {
    #[cold]
    fn other_type(int: IntType, (qmin, qmax): (i64, i64)) -> Error {
        Error::OutputType {
            dtype: int.to_string(),
            expected: format!("a type that holds {qmin}..={qmax}"),
        }
    }
    let int = out.int_type();
    match int.holds(qmin, qmax) {
        true => Ok(()),
        false => Err(other_type(int, (qmin, qmax))),
    }
}
