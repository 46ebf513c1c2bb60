//! Fake-quantization composed from candle's own operations, for tensors that are not on the CPU.

use candle_core::{DType, Device, Result, Tensor};
use chopi_core::backend::{Layout, collected};
use chopi_core::training::{LearnedParams, Ste};
use chopi_core::{Granularity, QParams};

use super::chopi;

/// [`fake_quantize`](super::fake_quantize), composed from candle's operations on the device of `x`.
/// The gradient of an infinite element is 0, also with [`Ste::Identity`].
///
/// # Errors
/// The errors of [`fake_quantize`](super::fake_quantize).
pub fn composed_fake_quantize(x: &Tensor, params: &QParams, ste: Ste) -> Result<Tensor> {
    let (values, inside) = values_and_mask(x, params)?;
    let passes = match ste {
        Ste::Clipped => inside,
        // 0·x is 0 unless x is infinite or NaN.
        Ste::Identity => {
            let zero = (x.detach() * 0.0)?;
            zero.eq(&zero.zeros_like()?)?
        }
    };
    pass(x, &values, &passes)
}

/// [`fake_quantize_learned`](super::fake_quantize_learned), composed from candle's operations on the
/// device of `x`. Sums of gradients are candle's, in `f64` where the device has it, so their last bit
/// may differ.
///
/// # Errors
/// The errors of [`fake_quantize_learned`](super::fake_quantize_learned); a convention whose gradients
/// cannot be composed.
pub fn composed_fake_quantize_learned(
    x: &Tensor,
    scale: &Tensor,
    zero_point: Option<&Tensor>,
    params: &LearnedParams,
) -> Result<Tensor> {
    let wide = if x.device().is_metal() {
        DType::F32
    } else {
        DType::F64
    };
    let (values, inside) = values_and_mask(x, params.params())?;
    let compute = match x.dtype() {
        DType::F64 => DType::F64,
        _ => DType::F32,
    };
    let factors = params
        .factors(&Layout::row_major(x.dims()))
        .map_err(chopi)?;
    let of_groups = |values: &[f64]| {
        Tensor::from_slice(values, params.params().shape(), &Device::Cpu)?
            .to_dtype(wide)?
            .to_device(x.device())
    };
    // A term whose value is 0 and whose derivative by `parameter` is `derivative` times the factor.
    let term = |parameter: &Tensor, factors: &[f64], derivative: &Tensor| {
        let zero = (parameter.detach() - parameter)?.to_dtype(wide)?;
        let zero = (zero.reshape(params.params().shape())? * of_groups(factors)?)?;
        let zero = spread(&zero, params.params(), x.dims())?;
        zero.broadcast_mul(&derivative.to_dtype(wide)?)?
            .to_dtype(x.dtype())
    };
    let detached = x.detach().to_dtype(compute)?;
    let derivative = params.scale_derivative(&detached).map_err(chopi)?;
    let mut y = (pass(x, &values, &inside)? - term(scale, &factors, &derivative)?)?;
    if let Some(zero_point) = zero_point {
        let scales = params.params().scale();
        let factors = collected(factors.iter().zip(scales).map(|(g, s)| -g * s));
        let factors = factors.map_err(|error| chopi(error.into()))?;
        let outside = inside.to_dtype(wide)?.affine(-1.0, 1.0)?;
        y = (y - term(zero_point, &factors, &outside)?)?;
    }
    Ok(y)
}

/// The fake-quantized values, without gradient, and the mask of the straight-through estimator.
fn values_and_mask(x: &Tensor, params: &QParams) -> Result<(Tensor, Tensor)> {
    params.fake_quantize_with_mask(&x.detach()).map_err(chopi)
}

/// `values`, with the gradient to x where `passes`. To the bit: subtracting +0 changes nothing, not
/// even −0, and where x is infinite nothing is subtracted.
fn pass(x: &Tensor, values: &Tensor, passes: &Tensor) -> Result<Tensor> {
    let zero = (x.detach() - x)?;
    values - passes.where_cond(&zero, &zero.zeros_like()?)?
}

/// One number a group, in the shape of the parameters, so that it broadcasts to the tensor.
fn spread(groups: &Tensor, params: &QParams, shape: &[usize]) -> Result<Tensor> {
    let resolve = |axis: isize| axis.rem_euclid(shape.len() as isize) as usize;
    let convention = params.convention();
    match convention.granularity_for(params.scheme().granularity, shape.len()) {
        Granularity::PerTensor => groups.reshape(vec![1; shape.len()]),
        Granularity::PerChannel { axis } => {
            let mut spread = vec![1; shape.len()];
            spread[resolve(axis)] = shape[resolve(axis)];
            groups.reshape(spread)
        }
        Granularity::PerGroup { axis, size } => {
            let axis = resolve(axis);
            let group = |i: usize| (i / size) as u32;
            let index = collected((0..shape[axis]).map(group));
            let index: Vec<u32> = index.map_err(|error| chopi(error.into()))?;
            groups.index_select(&Tensor::new(index, groups.device())?, axis)
        }
    }
}
