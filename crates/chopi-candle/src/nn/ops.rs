//! Fake quantization as operations of candle's autograd.

use candle_core::{
    CpuStorage, CustomOp1, CustomOp2, CustomOp3, Device, Layout, Result, Shape, Tensor,
};
use chopi_core::training::{self, LearnedParams, Ste};
use chopi_core::{
    QParams,
    backend::{FloatSlice, FloatTensor},
};

use super::chopi;
use crate::OnDevice;
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

/// [`fake_quantize`], composed from candle's operations on the device of `x`. The gradient of an infinite
/// element is 0, also with [`Ste::Identity`].
///
/// # Errors
/// The errors of [`fake_quantize`].
pub fn composed_fake_quantize(x: &Tensor, params: &QParams, ste: Ste) -> Result<Tensor> {
    let y = training::composed_fake_quantize(&OnDevice::from(x), params, ste);
    y.map(|y| y.0).map_err(chopi)
}

/// [`fake_quantize_learned`], composed from candle's operations on the device of `x`. Sums of gradients
/// are candle's, in `f64` where the device has it, so their last bit may differ.
///
/// # Errors
/// The errors of [`fake_quantize_learned`]; a convention whose gradients cannot be composed.
pub fn composed_fake_quantize_learned(
    x: &Tensor,
    scale: &Tensor,
    zero_point: Option<&Tensor>,
    params: &LearnedParams,
) -> Result<Tensor> {
    let zero_point = zero_point.map(OnDevice::from);
    let (x, scale) = (OnDevice::from(x), OnDevice::from(scale));
    let y = training::composed_fake_quantize_learned(&x, &scale, zero_point.as_ref(), params);
    y.map(|y| y.0).map_err(chopi)
}

/// An expression of the elements of a tensor and of its gradient, both in row-major order, and of that layout:
/// `with_both!(x, dy, |x, dy, layout| …)`.
macro_rules! with_both {
    ($x:ident, $dy:ident, |$a:ident, $b:ident, $layout:ident| $result:expr) => {{
        let (x, dy) = (contiguous($x)?, contiguous($dy)?);
        let both = x.with_host(|x| {
            let $layout = x.layout();
            dy.with_host(|dy| match (x.data(), dy.data()) {
                (FloatSlice::F16($a), FloatSlice::F16($b)) => $result,
                (FloatSlice::BF16($a), FloatSlice::BF16($b)) => $result,
                (FloatSlice::F32($a), FloatSlice::F32($b)) => $result,
                (FloatSlice::F64($a), FloatSlice::F64($b)) => $result,
                (x, dy) => Err(differ(x, dy)),
            })
        });
        both.map_err(chopi)
    }};
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
        with_both!(x, dy, |x, dy, layout| tensor(
            training::straight_through(x, dy, layout, &self.params)?,
            layout
        ))
        .map(Some)
    }
}

struct LearnedScale(LearnedParams);

impl LearnedScale {
    /// The gradients of x, the scale and the zero point.
    fn gradients(&self, x: &Tensor, dy: &Tensor, scale: &Tensor) -> Result<[Tensor; 3]> {
        let (dx, ds, dz) = with_both!(x, dy, |x, dy, layout| {
            let gradients = self.0.gradients(x, dy, layout)?;
            let dx = tensor(gradients.x, layout)?;
            Ok((dx, gradients.scale, gradients.zero_point))
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
    macro_rules! storage {
        ($($float:ident)*) => {
            match x {
                $(CpuStorage::$float(x) => {
                    let y = training::fake_quantize(&x[range], &row_major, params);
                    CpuStorage::$float(y.map_err(chopi)?)
                })*
                _ => candle_core::bail!("fake-quantize: expected f16, bf16, f32 or f64"),
            }
        };
    }
    let storage = storage!(F16 BF16 F32 F64);
    Ok((storage, layout.shape().clone()))
}

/// The tensor in row-major order, copied where it lies in another.
fn contiguous(x: &Tensor) -> Result<Tensor> {
    if !x.is_contiguous() {
        check_room(x).map_err(chopi)?;
    }
    x.contiguous()
}

fn tensor<T: candle_core::WithDType>(
    data: Vec<T>,
    layout: &chopi_core::backend::Layout,
) -> chopi_core::Result<Tensor> {
    Tensor::from_vec(data, layout.shape(), &Device::Cpu).map_err(crate::framework)
}

fn differ(x: FloatSlice<'_>, dy: FloatSlice<'_>) -> chopi_core::Error {
    chopi_core::Error::Dtype {
        backend: "candle",
        dtype: format!("{} of the gradient of {}", dy.float_type(), x.float_type()),
        expected: "the same",
    }
}
