//! The integer-only linear layer: codes in, codes out, without a float operation.

use chopi_core::{
    QParams,
    backend::{Backend, HostInts, IntTensor, collected, repeated, try_collected},
};

use crate::broadcast;
use crate::codes::Matrix;
use crate::error::{Error, Result};
use crate::linear::{check_params, narrow, pack_per_output, row_count, row_shape};
use crate::output::Requantize;
use crate::packed::PackedMatrix;
use crate::requantize::{Code, DoubleRounded, FixedMultiplier, OutputCodes, SingleRounded};

/// How often the product with a fixed-point multiplier is rounded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FixedRounding {
    /// Twice, as [`DoubleRounded`] says.
    #[default]
    Double,
    /// Once, as [`SingleRounded`] says.
    Single,
}

/// An integer-only linear layer: codes in, codes out, without a float operation. A network between its
/// first and its last layer is made of them; [`QuantizedLinear`](crate::QuantizedLinear) is the layer with
/// floats in and out.
///
/// For codes of an input of shape \[…, inputs\], row by row, and weights of shape \[outputs, inputs\]:
///
/// a\[j\] = Σ_k (q_x\[k\] − z_x) · (q_w\[j, k\] − z_w\[j\]) + B\[j\], y\[j\] = clamp(z_y + round(a\[j\] · m\[j\]))
///
/// B\[j\] is the bias in units of s_x·s_w\[j\], rounded to the nearest integer, ties to even; m\[j\] the
/// [`FixedMultiplier`] of s_x·s_w\[j\]/s_y, whose product is rounded as [`FixedRounding`] says. Both are
/// found once, with the layer, in `f64`. The sum over k is exact, and that with the bias saturates.
#[derive(Clone, Debug)]
pub struct IntegerOnlyLinear {
    weights: PackedMatrix,
    bias: Vec<i32>,
    multipliers: Vec<FixedMultiplier>,
    rounding: FixedRounding,
    input_bounds: (i64, i64),
    input_zero: [i32; 1],
}

impl IntegerOnlyLinear {
    /// A layer of the codes of its weights, per tensor or per channel of axis 0; of its bias, one for
    /// each output; for an input that was quantized per tensor; and an output in units of
    /// `output_scale`.
    ///
    /// # Errors
    /// [`Error::Weights`] for weights of another shape or granularity; [`Error::Range`],
    /// [`Error::RealZeroPoints`] and [`Error::ZeroPoint`] for weights or an input that are not of 8 bits;
    /// [`Error::StaticActivations`] for an input with several scales; [`Error::Length`] for a bias of
    /// another length; [`Error::BiasCode`] for one that `i32` does not hold; [`Error::OutputScale`], and
    /// [`Error::Multiplier`] where the quotient of the scales is infinite.
    pub fn new<B: Backend, Q: IntTensor<B> + ?Sized>(
        weights: &Q,
        params: &QParams,
        bias: Option<&[f32]>,
        input: &QParams,
        output_scale: f64,
    ) -> Result<Self> {
        if !(output_scale > 0.0 && output_scale.is_finite()) {
            let scale = output_scale;
            return Err(Error::OutputScale { scale });
        }
        check_params("the input", input)?;
        let (&[input_scale], &[input_zero]) = (input.scale(), input.zero_point()) else {
            return Err(Error::StaticActivations {
                groups: input.scale().len(),
            });
        };
        let (weights, scales) = weights.with_host(|codes| Ok(pack_per_output(&codes, params)?))?;
        let outputs = weights.columns();
        if let Some(bias) = bias {
            Error::check_length("the bias", bias.len(), outputs)?;
        }
        let unit = |output: usize| input_scale * broadcast::of(&scales, output);
        let bias_code = |output: usize| {
            let bias = bias.map_or(0.0, |bias| f64::from(bias[output]));
            let code = (bias / unit(output)).round_ties_even();
            // NaN is in no range.
            match (f64::from(i32::MIN)..=f64::from(i32::MAX)).contains(&code) {
                true => Ok(code as i32),
                false => Err(Error::BiasCode { output, bias, code }),
            }
        };
        let multiplier = |output: usize| FixedMultiplier::from_real(unit(output) / output_scale);
        Ok(Self {
            bias: try_collected((0..outputs).map(bias_code))?,
            multipliers: try_collected((0..outputs).map(multiplier))?,
            weights,
            rounding: FixedRounding::default(),
            input_bounds: input.bounds(),
            input_zero: [input_zero as i32],
        })
    }

    /// The layer, which now rounds the product with its multipliers so.
    #[must_use]
    pub fn with_rounding(self, rounding: FixedRounding) -> Self {
        Self { rounding, ..self }
    }

    /// The length of the input's last axis.
    pub fn inputs(&self) -> usize {
        self.weights.depth()
    }

    /// The length of the output's last axis.
    pub fn outputs(&self) -> usize {
        self.weights.columns()
    }

    /// The bias of each output, in units of s_x·s_w.
    pub fn bias(&self) -> &[i32] {
        &self.bias
    }

    /// The multiplier of each output.
    pub fn multipliers(&self) -> &[FixedMultiplier] {
        &self.multipliers
    }

    /// The codes of the output, row-major, of shape \[…, outputs\]. With
    /// [`clamped`](OutputCodes::clamped) codes a rectified linear unit is part of the layer.
    ///
    /// # Errors
    /// [`Error::Input`] for another shape; a code outside the range of the input;
    /// [`Error::Overflow`].
    pub fn forward<B: Backend, T: IntTensor<B> + ?Sized, Q: Code>(
        &self,
        x: &T,
        codes: OutputCodes<Q>,
    ) -> Result<Vec<Q>> {
        self.with_rows(x, |left| {
            let len = left.rows().saturating_mul(self.outputs());
            let mut out = repeated(codes.zero_point(), len)?;
            match self.rounding {
                FixedRounding::Double => {
                    self.requantize(left, DoubleRounded, codes, &mut out)?;
                }
                FixedRounding::Single => {
                    self.requantize(left, SingleRounded, codes, &mut out)?;
                }
            }
            Ok(out)
        })
    }

    /// round(a\[j\] · m\[j\]) in 32 bits, row-major, of shape \[…, outputs\]: for the last layer of a
    /// network, whose results are compared and not multiplied again.
    ///
    /// # Errors
    /// The errors of [`forward`](Self::forward).
    pub fn forward_wide<B: Backend, T: IntTensor<B> + ?Sized>(&self, x: &T) -> Result<Vec<i32>> {
        self.with_rows(x, |left| {
            let mut out = repeated(0, left.rows().saturating_mul(self.outputs()))?;
            self.weights.multiply(left, &mut out)?;
            let columns = self.bias.iter().zip(&self.multipliers).cycle();
            for (sum, (&bias, &multiplier)) in out.iter_mut().zip(columns) {
                let a = sum.saturating_add(bias);
                *sum = match self.rounding {
                    FixedRounding::Double => DoubleRounded(multiplier).scale(a),
                    FixedRounding::Single => SingleRounded(multiplier).scale(a),
                };
            }
            Ok(out)
        })
    }

    fn requantize<M: crate::requantize::Multiplier, Q: Code>(
        &self,
        left: &Matrix<'_>,
        rounded: impl Fn(FixedMultiplier) -> M,
        codes: OutputCodes<Q>,
        out: &mut [Q],
    ) -> Result<()> {
        let multipliers: Vec<M> = collected(self.multipliers.iter().map(|&m| rounded(m)))?;
        let how = Requantize {
            bias: Some(&self.bias),
            multipliers: &multipliers,
            codes,
        };
        self.weights.multiply_requantized(left, &how, out)
    }

    /// Calls `f` with the rows of a tensor of codes.
    fn with_rows<B: Backend, T: IntTensor<B> + ?Sized, R>(
        &self,
        x: &T,
        f: impl FnOnce(&Matrix<'_>) -> Result<R>,
    ) -> Result<R> {
        let run = |codes: HostInts<'_>| {
            let rows = row_count(row_shape(codes.layout().shape(), self.inputs())?)?;
            let bytes = narrow(&codes, self.input_bounds)?;
            let left = Matrix::new(bytes.codes(), rows, self.inputs(), &self.input_zero)?;
            f(&left)
        };
        Ok(x.with_host(|codes| Ok(run(codes)?))?)
    }
}
