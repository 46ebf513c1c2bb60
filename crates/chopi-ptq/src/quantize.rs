//! The codes of a weight by a method.

use chopi_core::backend::{Backend, FloatTensor};
use chopi_core::observer::Ranges;
use chopi_core::{Calibration, Convention, QParams, Rounding as CodeRounding, Scheme};

use crate::descent::descend;
use crate::error::{Error, Result};
use crate::gptq::gptq;
use crate::inputs::{Inputs, OutputError};
use crate::matrix::Matrix;
use crate::method::{Method, RangeMethod, Rounding};
use crate::moments::Moments;
use crate::ranges::ranges_of;

/// The codes of a weight, with what they are and how good.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Quantization<Q> {
    /// The codes, as a tensor of the weight's framework.
    pub codes: Q,
    /// The scale and the zero point of each group.
    pub params: QParams,
    /// The error of the layer's output.
    pub error: LayerError,
    /// Which codes these are.
    pub choice: Choice,
    /// The damping with which GPTQ factored H, more than was asked for where that did not do; `None` of other
    /// roundings.
    pub damping: Option<f64>,
}

/// The error that quantized weights make in the output of a layer: Tr((W − Ŵ)·H·(W − Ŵ)ᵀ) / Tr(W·H·Wᵀ), its mean
/// square relative to that of the output. (Where the output is 0, it is not relative.)
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct LayerError {
    /// The error of the nearest codes in the ranges from the smallest to the largest weight.
    pub nearest: f64,
    /// The error of the codes that were chosen, at most that of the nearest.
    pub chosen: f64,
}

/// Which codes were chosen. A method is no promise: where its error under H is larger than that of the nearest codes,
/// [`quantize`] does not use what it gives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Choice {
    /// The method's.
    Method,
    /// The nearest codes in the method's ranges, since its rounding made the error larger.
    NearestInItsRanges,
    /// The nearest codes in the ranges from the smallest to the largest weight.
    Nearest,
}

/// The codes of the weights of a linear layer, \[outputs, inputs\], by a method, for inputs with these moments.
/// [`Inputs::quantize`] does that for several layers that take the same inputs.
///
/// # Errors
/// The errors of [`Inputs::quantize`].
pub fn quantize<B: Backend, T: FloatTensor<B> + ?Sized>(
    weights: &T,
    moments: &Moments,
    scheme: &Scheme,
    convention: &Convention,
    method: &Method,
) -> Result<Quantization<T::Int>> {
    Inputs::new(moments)?.quantize(weights, scheme, convention, method)
}

impl Inputs<'_> {
    /// The codes of the weights of a layer, by the ranges and the rounding of a method.
    ///
    /// The weights are \[outputs, inputs\], or \[outputs, channels, height, width\] for a convolution (of one of
    /// its groups), whose inputs are those of [`Moments::observe_patches`]. The scheme may have any granularity,
    /// symmetric or not, and the convention integer or real zero points. Scales of input channels are not
    /// applied: whoever holds the model has folded them into the weights, and divided the inputs.
    ///
    /// Half-precision weights are computed with in `f32`. The codes depend neither on the framework nor on the
    /// number of threads. Ties that the rounding of `f64` decides may fall otherwise on another CPU, as the linear
    /// algebra uses its instructions.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::Channels`] for weights that do not fit the moments; [`Error::NoRows`] for moments
    /// that have seen nothing; [`Error::Core`] for NaN and infinities, and for a scheme that the convention does not
    /// have or cannot represent the weights in; [`Error::Unsupported`] for GPTQ with stochastic rounding;
    /// [`Error::Setting`] for settings out of range; [`Error::NotFactored`].
    pub fn quantize<B: Backend, T: FloatTensor<B> + ?Sized>(
        &self,
        weights: &T,
        scheme: &Scheme,
        convention: &Convention,
        method: &Method,
    ) -> Result<Quantization<T::Int>> {
        let matrix = Matrix::of(weights)?;
        self.moments()
            .check_for("the weight", &matrix.shape, matrix.inputs())?;
        let granularity = convention.granularity_for(scheme.granularity, matrix.shape.len());
        let observed = Ranges::observe(weights, granularity)?;
        let layer = Layer {
            inputs: self,
            matrix: &matrix,
        };
        let nearest = layer.nearest(QParams::from_ranges(&observed, scheme, convention)?)?;
        let ranges = match method.ranges {
            RangeMethod::Calibration(Calibration::MinMax) => None,
            chosen => {
                let importance = self.moments().mean_square();
                Some(ranges_of(
                    chosen,
                    weights,
                    &matrix,
                    &importance,
                    (scheme, convention),
                )?)
            }
        };
        let params = match &ranges {
            Some(ranges) => QParams::from_ranges(ranges, scheme, convention)?,
            None => nearest.params.clone(),
        };
        let is_nearest = ranges.is_none() && method.rounding == Rounding::Nearest;
        let (candidate, damping) = match is_nearest {
            true => (nearest.clone(), None),
            false => layer.candidate(params, method.rounding)?,
        };
        let (mut chosen, mut choice) = (candidate, Choice::Method);
        if chosen.error > nearest.error
            && matches!(method.rounding, Rounding::Gptq(_))
            && ranges.is_some()
        {
            (chosen, choice) = (layer.nearest(chosen.params)?, Choice::NearestInItsRanges);
        }
        let error_of_nearest = nearest.error;
        if chosen.error > nearest.error {
            (chosen, choice) = (nearest, Choice::Nearest);
        }
        let output = self.error(matrix.values.len(), |i| matrix.values[i])?;
        let relative = |error: f64| OutputError { error, output }.relative();
        let codes = match &chosen.adjusted {
            None => chosen.params.quantize(weights)?,
            Some(values) => matrix.with_compute_values(values, |host| {
                Ok(chosen.params.quantize_like(weights, &host)?)
            })?,
        };
        Ok(Quantization {
            codes,
            error: LayerError {
                nearest: relative(error_of_nearest),
                chosen: relative(chosen.error),
            },
            params: chosen.params,
            choice,
            damping: damping.filter(|_| choice == Choice::Method),
        })
    }
}

/// A layer to be quantized.
struct Layer<'a> {
    inputs: &'a Inputs<'a>,
    matrix: &'a Matrix,
}

/// Codes that may be chosen.
#[derive(Clone)]
struct Candidate {
    params: QParams,
    /// The numbers that the codes are the nearest of, where these are not the weights.
    adjusted: Option<Vec<f64>>,
    /// Tr((W − Ŵ)·H·(W − Ŵ)ᵀ).
    error: f64,
}

impl Layer<'_> {
    fn nearest(&self, params: QParams) -> Result<Candidate> {
        self.measured(params, None)
    }

    /// The codes of this rounding, and the damping that GPTQ needed.
    fn candidate(&self, params: QParams, rounding: Rounding) -> Result<(Candidate, Option<f64>)> {
        let Rounding::Gptq(settings) = rounding else {
            return Ok((self.nearest(params)?, None));
        };
        if matches!(params.scheme().rounding, CodeRounding::Stochastic { .. }) {
            return Err(Error::Unsupported {
                method: "gptq",
                what: "stochastic rounding",
            });
        }
        let factor = self.inputs.factor(&settings)?;
        let mut adjusted = gptq(self.matrix, &factor, &params)?;
        if settings.sweeps > 0 {
            let (matrix, inputs) = (self.matrix, self.inputs);
            adjusted = descend(matrix, inputs, &factor, &params, adjusted, settings.sweeps)?;
        }
        Ok((self.measured(params, Some(adjusted))?, Some(factor.damping)))
    }

    fn measured(&self, params: QParams, adjusted: Option<Vec<f64>>) -> Result<Candidate> {
        let weights = &self.matrix.values;
        let quantized = self
            .matrix
            .fake_quantized(adjusted.as_ref().unwrap_or(weights), &params)?;
        let error = self
            .inputs
            .error(weights.len(), |i| weights[i] - quantized[i])?;
        Ok(Candidate {
            params,
            adjusted,
            error,
        })
    }
}
