//! Fake quantization, with gradients composed from libtorch's operations.

use chopi_core::backend::{Layout, collected};
use chopi_core::training::{LearnedParams, Ste};
use chopi_core::{Granularity, QParams, Result};
use tch::{Kind, Tensor};

use crate::framework;
use crate::tensor::{check_strided, float_kind, float_type};

/// Fake-quantizes with fixed parameters: the bits of
/// [`Chopi::fake_quantize`](chopi_core::Chopi::fake_quantize); the gradient passes by `ste`. That of
/// an infinite element is 0, also with [`Ste::Identity`].
///
/// # Errors
/// An unsupported kind; parameters for another shape.
pub fn fake_quantize(x: &Tensor, params: &QParams, ste: Ste) -> Result<Tensor> {
    check_strided(x)?;
    let (values, inside) = values_and_mask(x, params)?;
    let passes = match ste {
        Ste::Clipped => inside,
        Ste::Identity => x.detach().f_isfinite().map_err(framework)?,
    };
    pass(x, &values, &passes)
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
    let forward = params.params();
    if forward.convention().has_torch_gradients() {
        return learnable(x, scale, zero_point, params);
    }
    let (values, inside) = values_and_mask(x, forward)?;
    let factors = params.factors(&Layout::row_major(&shape(x)))?;
    let kind = x.f_kind().map_err(framework)?;
    // A term whose value is 0 and whose derivative by `parameter` is `derivative` times the factor.
    let term = |parameter: &Tensor, factors: &[f64], derivative: &Tensor| -> Result<Tensor> {
        let groups = lengths(forward.shape());
        let factors = Tensor::f_from_slice(factors)
            .and_then(|factors| factors.f_reshape(&groups)?.f_to_device(x.device()));
        let term = || {
            let zero = (parameter.detach().f_sub(parameter)?).f_to_kind(Kind::Double)?;
            let zero = zero.f_reshape(&groups)?.f_mul(&factors?)?;
            let zero = spread(&zero, forward, x)?;
            let wide = derivative.f_to_kind(Kind::Double)?;
            zero.f_mul(&wide)?.f_to_kind(kind)
        };
        term().map_err(framework)
    };
    let compute = float_kind(float_type(x)?.compute());
    let detached = x.detach().f_to_kind(compute).map_err(framework)?;
    let derivative = params.scale_derivative(&detached)?;
    let mut y = pass(x, &values, &inside)?
        .f_sub(&term(scale, &factors, &derivative)?)
        .map_err(framework)?;
    if let Some(zero_point) = zero_point {
        let factors: Vec<f64> =
            collected(factors.iter().zip(forward.scale()).map(|(g, s)| -g * s))?;
        let outside = inside.f_logical_not().map_err(framework)?;
        let term = term(zero_point, &factors, &outside)?;
        y = y.f_sub(&term).map_err(framework)?;
    }
    Ok(y)
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

/// The fake-quantized values, without gradient, and the mask of the straight-through estimator.
fn values_and_mask(x: &Tensor, params: &QParams) -> Result<(Tensor, Tensor)> {
    let (values, mask) = params.fake_quantize_with_mask(&x.detach())?;
    let mask = mask.f_to_kind(Kind::Bool).map_err(framework)?;
    Ok((values, mask))
}

/// `values`, with the gradient to x where `passes`. To the bit: subtracting +0 changes nothing, not
/// even −0, and where x is infinite nothing is subtracted.
fn pass(x: &Tensor, values: &Tensor, passes: &Tensor) -> Result<Tensor> {
    let pass = || {
        let zero = x.detach().f_sub(x)?;
        let none = zero.detach().f_zeros_like()?;
        values.f_sub(&zero.f_where_self(passes, &none)?)
    };
    pass().map_err(framework)
}

/// One number a group, in the shape of the parameters, so that it broadcasts to the tensor.
fn spread(
    groups: &Tensor,
    params: &QParams,
    x: &Tensor,
) -> std::result::Result<Tensor, tch::TchError> {
    let resolve = |axis: isize| axis.rem_euclid(x.dim().max(1) as isize) as usize;
    let mut shape = vec![1; x.dim()];
    match params
        .convention()
        .granularity_for(params.scheme().granularity, x.dim())
    {
        Granularity::PerTensor => groups.f_reshape(&shape),
        Granularity::PerChannel { axis } => {
            shape[resolve(axis)] = -1;
            groups.f_reshape(&shape)
        }
        Granularity::PerGroup { axis, size } => {
            let axis = resolve(axis);
            let length = x.size()[axis];
            let options = (Kind::Int64, groups.device());
            let index =
                Tensor::f_arange(length, options)?.f_divide_scalar_mode(size as i64, "floor")?;
            groups.f_index_select(axis as i64, &index)
        }
    }
}

pub(crate) fn shape(x: &Tensor) -> Vec<usize> {
    x.size().into_iter().map(|length| length as usize).collect()
}

pub(super) fn lengths(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&length| length as i64).collect()
}
