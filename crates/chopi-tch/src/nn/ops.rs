//! Fake quantization, with gradients composed from libtorch's operations.

use chopi_core::backend::{Layout, collected};
use chopi_core::training::{self, LearnedParams, Ste};
use chopi_core::{Granularity, QParams, Result};
use tch::Tensor;

use crate::device::shape;
use crate::tensor::check_strided;
use crate::{OnDevice, framework};

/// Fake-quantizes with fixed parameters: the bits of
/// [`Chopi::fake_quantize`](chopi_core::Chopi::fake_quantize); the gradient passes by `ste`. That of
/// an infinite element is 0, also with [`Ste::Identity`].
///
/// # Errors
/// An unsupported kind; parameters for another shape.
pub fn fake_quantize(x: &Tensor, params: &QParams, ste: Ste) -> Result<Tensor> {
    check_strided(x)?;
    let y = training::composed_fake_quantize(&OnDevice::from(x), params, ste)?;
    Ok(y.0)
}

/// Fake-quantizes with learned parameters, whose gradients are those of [`LearnedParams`].
///
/// `scale` and `zero_point`, real numbers in the shape of the parameters, are the tensors that
/// `params` was made of and that get the gradients; without `zero_point` it is fixed. With
/// [`Convention::TORCH_FAKE`](chopi_core::Convention::TORCH_FAKE) this is libtorch's own operation,
/// which takes Float tensors.
///
/// # Errors
/// An unsupported kind; parameters for another shape.
pub fn fake_quantize_learned(
    x: &Tensor,
    scale: &Tensor,
    zero_point: Option<&Tensor>,
    params: &LearnedParams,
) -> Result<Tensor> {
    check_strided(x)?;
    if params.params().convention().has_torch_gradients() {
        return learnable(x, scale, zero_point, params);
    }
    let zero_point = zero_point.map(OnDevice::from);
    let (x, scale) = (OnDevice::from(x), OnDevice::from(scale));
    let y = training::composed_fake_quantize_learned(&x, &scale, zero_point.as_ref(), params)?;
    Ok(y.0)
}

/// libtorch's operation for [`chopi_core::Convention::TORCH_FAKE`].
fn learnable(
    x: &Tensor,
    scale: &Tensor,
    zero_point: Option<&Tensor>,
    params: &LearnedParams,
) -> Result<Tensor> {
    let forward = params.params();
    let factors = params.factors(&Layout::row_major(&shape(x)))?;
    let factor = factors.first().copied().unwrap_or(1.0);
    let (qmin, qmax) = forward.bounds();
    let fixed;
    let zero_point = match zero_point {
        Some(zero_point) => zero_point,
        None => {
            let zeros: Vec<f32> = collected(forward.zero_point().iter().map(|&z| z as f32))?;
            fixed = Tensor::f_from_slice(&zeros)
                .and_then(|zeros| zeros.f_to_device(x.device()))
                .map_err(framework)?;
            &fixed
        }
    };
    match forward.scheme().granularity {
        Granularity::PerChannel { axis } => {
            let axis = axis.rem_euclid(x.dim().max(1) as isize) as i64;
            x.f_internal_fake_quantize_learnable_per_channel_affine(
                scale, zero_point, axis, qmin, qmax, factor,
            )
        }
        _ => x.f_internal_fake_quantize_learnable_per_tensor_affine(
            scale, zero_point, qmin, qmax, factor,
        ),
    }
    .map_err(framework)
}
