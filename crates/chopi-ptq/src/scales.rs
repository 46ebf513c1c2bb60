//! Scales of the input channels of a layer: (x/s)·(s·w) for x·w.

use chopi_core::backend::{Backend, FloatTensor, FloatType};
use chopi_core::observer::Ranges;
use chopi_core::{Convention, QParams, Scheme};
use chopi_kernels::memory::{collected, repeated, with_room};

use crate::error::{Error, Result};
use crate::inputs::Inputs;
use crate::matrix::Matrix;
use crate::method::{Method, check_alpha};
use crate::moments::Moments;
use crate::ranges::ranges_of;
use crate::slice::Tensor;

/// The powers that AWQ tries: 0, 1/20, … 19/20.
const GRID: u32 = 20;
/// The least scale of SmoothQuant; the largest is its inverse.
const LEAST: f64 = 1e-5;

/// The scales of activation-aware quantization (Lin et al. 2023) for layers that take the same inputs: weights of
/// channels that matter are made larger before they are rounded, w·s, and their inputs smaller, x/s.
///
/// With m_j the mean of |x| of input channel j, and α = 0, 1/20, … 19/20,
///
/// ```text
/// s_j = max(m_j^α, 10^−4);   s = s / √(max s · min s)
/// ```
///
/// as llm-awq has it; taken are those with the least Σ Tr(D·H·Dᵀ) over the layers, D = W − Ŵ/s, Ŵ the nearest codes of
/// W·s in the ranges of the method. α = 0, at which all scales are 1, is one of them. (llm-awq searches by the output
/// of a whole block, for what stands in for D·H·Dᵀ here.)
///
/// There is one scale for each input channel; where a channel of several weights, as of a convolution, has one scale
/// before it, this is not for it.
///
/// # Errors
/// The errors of [`Inputs::quantize`]; [`Error::Count`] where there are no weights.
pub fn awq_scales<B: Backend, T: FloatTensor<B>>(
    weights: &[&T],
    moments: &Moments,
    scheme: &Scheme,
    convention: &Convention,
    method: &Method,
) -> Result<Vec<f64>> {
    let weights = matrices(weights, moments)?;
    let inputs = Inputs::new(moments)?;
    let mean_abs = moments.mean_abs();
    let mut best = (f64::INFINITY, repeated(1.0, mean_abs.len())?);
    for step in 0..GRID {
        let scales = powers(&mean_abs, f64::from(step) / f64::from(GRID))?;
        let mut error = 0.0;
        for weight in &weights {
            error += scaled_error(weight, &scales, &inputs, (scheme, convention), method)?;
        }
        if error < best.0 {
            best = (error, scales);
        }
    }
    Ok(best.1)
}

/// The weights as matrices of as many input channels as the moments have, one or more.
fn matrices<B: Backend, T: FloatTensor<B>>(
    weights: &[&T],
    moments: &Moments,
) -> Result<Vec<Matrix>> {
    if weights.is_empty() {
        return Err(Error::Count {
            what: "weights",
            count: 0,
            channels: moments.channels(),
        });
    }
    let matrices = weights.iter().map(|weight| {
        let matrix = Matrix::of(*weight)?;
        moments.check_for("the weight", &matrix.shape, matrix.inputs())?;
        Ok(matrix)
    });
    matrices.collect()
}

/// The means to a power, with the product of the largest and the smallest 1.
fn powers(mean_abs: &[f64], power: f64) -> Result<Vec<f64>> {
    let mut scales = collected(mean_abs.iter().map(|m| m.powf(power).max(1e-4)))?;
    let (low, high) = scales
        .iter()
        .fold((f64::INFINITY, 0.0_f64), |(low, high), s| {
            (low.min(*s), high.max(*s))
        });
    let middle = (low * high).sqrt();
    scales.iter_mut().for_each(|s| *s /= middle);
    Ok(scales)
}

/// Tr(D·H·Dᵀ) with D = W − Ŵ/s.
fn scaled_error(
    weight: &Matrix,
    scales: &[f64],
    inputs: &Inputs<'_>,
    (scheme, convention): (&Scheme, &Convention),
    method: &Method,
) -> Result<f64> {
    let n = weight.inputs();
    let mut values = with_room(weight.values.len())?;
    for row in weight.values.chunks_exact(n) {
        values.extend(row.iter().zip(scales).map(|(w, s)| w * s));
    }
    let scaled = Matrix {
        values,
        shape: weight.shape.clone(),
        float: if weight.float == FloatType::F64 {
            FloatType::F64
        } else {
            FloatType::F32
        },
    };
    let ranges = match scaled.float {
        FloatType::F64 => ranges_in(
            &scaled,
            &scaled.values,
            inputs,
            scales,
            (scheme, convention),
            method,
        )?,
        _ => {
            let values: Vec<f32> = collected(scaled.values.iter().map(|w| *w as f32))?;
            ranges_in(
                &scaled,
                &values,
                inputs,
                scales,
                (scheme, convention),
                method,
            )?
        }
    };
    let params = QParams::from_ranges(&ranges, scheme, convention)?;
    let quantized = scaled.fake_quantized(&scaled.values, &params)?;
    inputs.error(quantized.len(), |i| {
        weight.values[i] - quantized[i] / scales[i % n]
    })
}

fn ranges_in<F: chopi_core::backend::Float>(
    matrix: &Matrix,
    elements: &[F],
    inputs: &Inputs<'_>,
    scales: &[f64],
    (scheme, convention): (&Scheme, &Convention),
    method: &Method,
) -> Result<Ranges> {
    let tensor = Tensor {
        elements,
        shape: &matrix.shape,
    };
    // E[(x/s)²].
    let squares = inputs.moments().mean_square();
    let importance = collected(squares.iter().zip(scales).map(|(h, s)| h / (s * s)))?;
    ranges_of(
        method.ranges,
        &tensor,
        matrix,
        &importance,
        (scheme, convention),
    )
}

/// The scales of SmoothQuant (Xiao et al. 2023) for layers that take the same inputs, whose activations are quantized
/// too: s_j = max|x_j|^α / max|w_j|^(1 − α), j an input channel, with the largest |w_j| of all the weights; at least 10^−5
/// and at most 10^5, and 1 for channels whose inputs or weights are all 0.
///
/// # Errors
/// [`Error::Shape`] and [`Error::Channels`] for weights that do not fit the moments; [`Error::NoRows`] for moments that
/// have seen nothing; [`Error::Setting`] for an α outside of 0..=1; [`Error::Count`] where there are no weights;
/// [`Error::Core`] for NaN and infinities.
pub fn smooth_scales<B: Backend, T: FloatTensor<B>>(
    weights: &[&T],
    moments: &Moments,
    alpha: f64,
) -> Result<Vec<f64>> {
    check_alpha(alpha)?;
    let mut largest = repeated(0.0_f64, moments.channels())?;
    for matrix in matrices(weights, moments)? {
        for row in matrix.values.chunks_exact(largest.len()) {
            for (largest, w) in largest.iter_mut().zip(row) {
                *largest = largest.max(w.abs());
            }
        }
    }
    let both = moments.abs_max().iter().zip(&largest);
    Ok(collected(both.map(|(&x, &w)| match x > 0.0 && w > 0.0 {
        true => (x.powf(alpha) / w.powf(1.0 - alpha)).clamp(LEAST, 1.0 / LEAST),
        false => 1.0,
    }))?)
}

/// The scales that make the ranges of a channel between two layers equal (Nagel et al. 2019): with r the largest |w| of
/// output i of the first layer, and t that of input i of the second, s_i = √(r/t), by which output i of the first
/// layer, its bias too, is divided, and the weights of input i of the second are multiplied; 1 where r or t is 0. In
/// between there may be what commutes with positive factors, such as ReLU, but not GELU.
///
/// Both are \[outputs, inputs\] or \[outputs, inputs, height, width\].
///
/// # Errors
/// [`Error::Shape`] and [`Error::Channels`] for weights that do not fit each other; [`Error::Core`] for NaN and infinities.
pub fn equalization_scales<B: Backend, T: FloatTensor<B>>(
    first: &T,
    second: &T,
) -> Result<Vec<f64>> {
    let (first, second) = (Matrix::of(first)?, Matrix::of(second)?);
    let (channels, width) = (second.shape[1], second.inputs() / second.shape[1]);
    if channels != first.outputs() {
        return Err(Error::Channels {
            what: "the second weight",
            shape: second.shape,
            channels,
            expected: first.outputs(),
        });
    }
    let abs_max = |weights: &[f64]| {
        weights
            .iter()
            .fold(0.0_f64, |largest, w| largest.max(w.abs()))
    };
    let mut theirs = repeated(0.0_f64, channels)?;
    for row in second.values.chunks_exact(second.inputs()) {
        for (largest, weights) in theirs.iter_mut().zip(row.chunks_exact(width)) {
            *largest = largest.max(abs_max(weights));
        }
    }
    let ours = first.values.chunks_exact(first.inputs()).map(abs_max);
    Ok(collected(ours.zip(theirs).map(|(r, t)| {
        match r > 0.0 && t > 0.0 {
            true => (r / t).sqrt(),
            false => 1.0,
        }
    }))?)
}

/// What is to be added to the bias of a layer whose weights were quantized, so that the mean of its output stays what
/// it was (Nagel et al. 2019): (W − Ŵ)·E\[x\], a number for each output.
///
/// # Errors
/// [`Error::Shape`] and [`Error::Channels`] for weights that do not fit the moments or each other; [`Error::NoRows`] for
/// moments that have seen nothing; [`Error::Core`] for NaN and infinities.
pub fn bias_correction<B, C, T, U>(
    weights: &T,
    dequantized: &U,
    moments: &Moments,
) -> Result<Vec<f64>>
where
    B: Backend,
    C: Backend,
    T: FloatTensor<B> + ?Sized,
    U: FloatTensor<C> + ?Sized,
{
    let (weights, dequantized) = (Matrix::of(weights)?, Matrix::of(dequantized)?);
    moments.check_for("the weight", &weights.shape, weights.inputs())?;
    weights.check_same_shape("the dequantized weight", &dequantized)?;
    let mean = moments.mean();
    let rows = weights
        .values
        .chunks_exact(mean.len())
        .zip(dequantized.values.chunks_exact(mean.len()));
    let of_row = |(w, v): (&[f64], &[f64])| {
        w.iter()
            .zip(v)
            .zip(&mean)
            .map(|((w, v), m)| (w - v) * m)
            .sum()
    };
    Ok(rows.map(of_row).collect())
}
