//! Fake quantization as operations of candle's autograd.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Tensor,
};
use chopi_core::training::{self, LearnedGradients, LearnedParams, Ste};
use chopi_core::{
    QParams,
    backend::{FloatSlice, FloatTensor},
};

use super::{chopi, composed_fake_quantize, composed_fake_quantize_learned};
use crate::tensor::check_room;

/// Fake-quantizes with fixed parameters: the bits of
/// [`Chopi::fake_quantize`](chopi_core::Chopi::fake_quantize); the gradient passes by `ste`.
///
/// # Errors
/// An unsupported dtype; parameters for another shape.
pub fn fake_quantize(x: &Tensor, params: &QParams, ste: Ste) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return composed_fake_quantize(x, params, ste);
    }
    let params = params.try_clone().map_err(chopi)?;
    contiguous(x)?.apply_op1(StraightThrough { params, ste })
}

/// Fake-quantizes with learned parameters, whose gradients are those of [`LearnedParams`].
///
/// `scale` and `zero_point`, real numbers in the shape of the parameters, are the tensors that
/// `params` was made of and that get the gradients; without `zero_point` it is fixed.
///
/// # Errors
/// An unsupported dtype; parameters for another shape.
pub fn fake_quantize_learned(
    x: &Tensor,
    scale: &Tensor,
    zero_point: Option<&Tensor>,
    params: &LearnedParams,
) -> Result<Tensor> {
    if !x.device().is_cpu() {
        return composed_fake_quantize_learned(x, scale, zero_point, params);
    }
    let x = contiguous(x)?;
    let op = LearnedScale(params.try_clone().map_err(chopi)?);
    match zero_point {
        None => x.apply_op2(scale, op),
        Some(zero_point) => x.apply_op3(scale, zero_point, op),
    }
}

struct StraightThrough {
    params: QParams,
    ste: Ste,
}

impl CustomOp1 for StraightThrough {
    fn name(&self) -> &'static str {
        "fake-quantize"
    }

    fn cpu_fwd(&self, x: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        forward(x, layout, &self.params)
    }

    fn bwd(&self, x: &Tensor, _: &Tensor, dy: &Tensor) -> Result<Option<Tensor>> {
        if self.ste == Ste::Identity {
            return Ok(Some(dy.clone()));
        }
        with_both(x, dy, |x, dy, layout| match (x, dy) {
            (FloatSlice::F16(x), FloatSlice::F16(dy)) => tensor(
                training::straight_through(x, dy, layout, &self.params)?,
                layout,
            ),
            (FloatSlice::BF16(x), FloatSlice::BF16(dy)) => tensor(
                training::straight_through(x, dy, layout, &self.params)?,
                layout,
            ),
            (FloatSlice::F32(x), FloatSlice::F32(dy)) => tensor(
                training::straight_through(x, dy, layout, &self.params)?,
                layout,
            ),
            (FloatSlice::F64(x), FloatSlice::F64(dy)) => tensor(
                training::straight_through(x, dy, layout, &self.params)?,
                layout,
            ),
            (x, dy) => Err(differ(x, dy)),
        })
        .map(Some)
    }
}

struct LearnedScale(LearnedParams);

impl LearnedScale {
    /// The gradients of x, the scale and the zero point.
    fn gradients(&self, x: &Tensor, dy: &Tensor, scale: &Tensor) -> Result<[Tensor; 3]> {
        let (dx, ds, dz) = with_both(x, dy, |x, dy, layout| match (x, dy) {
            (FloatSlice::F16(x), FloatSlice::F16(dy)) => {
                parts(self.0.gradients(x, dy, layout)?, layout)
            }
            (FloatSlice::BF16(x), FloatSlice::BF16(dy)) => {
                parts(self.0.gradients(x, dy, layout)?, layout)
            }
            (FloatSlice::F32(x), FloatSlice::F32(dy)) => {
                parts(self.0.gradients(x, dy, layout)?, layout)
            }
            (FloatSlice::F64(x), FloatSlice::F64(dy)) => {
                parts(self.0.gradients(x, dy, layout)?, layout)
            }
            (x, dy) => Err(differ(x, dy)),
        })?;
        let of_groups = |values: Vec<f64>| {
            Tensor::from_vec(values, scale.shape(), &Device::Cpu)?.to_dtype(scale.dtype())
        };
        Ok([dx, of_groups(ds)?, of_groups(dz)?])
    }
}

impl CustomOp2 for LearnedScale {
    fn name(&self) -> &'static str {
        "fake-quantize-lsq"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        forward(x, layout, self.0.params())
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>)> {
        let [dx, ds, _] = self.gradients(x, dy, scale)?;
        Ok((Some(dx), Some(ds)))
    }
}

impl CustomOp3 for LearnedScale {
    fn name(&self) -> &'static str {
        "fake-quantize-lsq+"
    }

    fn cpu_fwd(
        &self,
        x: &CpuStorage,
        layout: &Layout,
        _: &CpuStorage,
        _: &Layout,
        _: &CpuStorage,
        _: &Layout,
    ) -> Result<(CpuStorage, Shape)> {
        forward(x, layout, self.0.params())
    }

    fn bwd(
        &self,
        x: &Tensor,
        scale: &Tensor,
        _: &Tensor,
        _: &Tensor,
        dy: &Tensor,
    ) -> Result<(Option<Tensor>, Option<Tensor>, Option<Tensor>)> {
        let [dx, ds, dz] = self.gradients(x, dy, scale)?;
        Ok((Some(dx), Some(ds), Some(dz)))
    }
}

/// The fake-quantized elements of a contiguous tensor.
fn forward(x: &CpuStorage, layout: &Layout, params: &QParams) -> Result<(CpuStorage, Shape)> {
    let Some((start, end)) = layout.contiguous_offsets() else {
        return Err(candle_core::Error::RequiresContiguous {
            op: "fake-quantize",
        });
    };
    let row_major = chopi_core::backend::Layout::row_major(layout.dims());
    let range = start..end;
    let storage = match x {
        CpuStorage::F16(x) => {
            CpuStorage::F16(training::fake_quantize(&x[range], &row_major, params).map_err(chopi)?)
        }
        CpuStorage::BF16(x) => {
            CpuStorage::BF16(training::fake_quantize(&x[range], &row_major, params).map_err(chopi)?)
        }
        CpuStorage::F32(x) => {
            CpuStorage::F32(training::fake_quantize(&x[range], &row_major, params).map_err(chopi)?)
        }
        CpuStorage::F64(x) => {
            CpuStorage::F64(training::fake_quantize(&x[range], &row_major, params).map_err(chopi)?)
        }
        _ => candle_core::bail!("fake-quantize: expected f16, bf16, f32 or f64"),
    };
    Ok((storage, layout.shape().clone()))
}

/// The tensor in row-major order, copied where it lies in another.
fn contiguous(x: &Tensor) -> Result<Tensor> {
    if !x.is_contiguous() {
        check_room(x).map_err(chopi)?;
    }
    x.contiguous()
}

/// Calls `f` with the elements of two tensors of one shape, both in row-major order.
fn with_both<R>(
    x: &Tensor,
    dy: &Tensor,
    f: impl FnOnce(
        FloatSlice<'_>,
        FloatSlice<'_>,
        &chopi_core::backend::Layout,
    ) -> chopi_core::Result<R>,
) -> Result<R> {
    let (x, dy) = (contiguous(x)?, contiguous(dy)?);
    let both = x.with_host(|x| dy.with_host(|dy| f(x.data(), dy.data(), x.layout())));
    both.map_err(chopi)
}

fn tensor<T: candle_core::WithDType>(
    data: Vec<T>,
    layout: &chopi_core::backend::Layout,
) -> chopi_core::Result<Tensor> {
    Tensor::from_vec(data, layout.shape(), &Device::Cpu).map_err(crate::framework)
}

fn parts<T: candle_core::WithDType>(
    gradients: LearnedGradients<T>,
    layout: &chopi_core::backend::Layout,
) -> chopi_core::Result<(Tensor, Vec<f64>, Vec<f64>)> {
    let LearnedGradients {
        x,
        scale,
        zero_point,
    } = gradients;
    Ok((tensor(x, layout)?, scale, zero_point))
}

fn differ(x: FloatSlice<'_>, dy: FloatSlice<'_>) -> chopi_core::Error {
    chopi_core::Error::Dtype {
        backend: "candle",
        dtype: format!("{} of the gradient of {}", dy.float_type(), x.float_type()),
        expected: "the same",
    }
}
