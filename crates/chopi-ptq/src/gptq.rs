//! GPTQ: weights quantized one input channel after the other, the error of each made up for by those that follow.

use std::ops::Range;

use chopi_core::QParams;
use chopi_core::backend::{Float, FloatType};
use chopi_kernels::memory::repeated;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use crate::columns::{Columns, by_channel};
use crate::error::Result;
use crate::factor::Factor;
use crate::matrix::Matrix;
use crate::parallel::{chunks, joined, try_map};

/// From so many channels down, errors are passed on one by one.
const FEW: usize = 16;

/// The weights, each as it was when it was quantized: the codes of GPTQ are the nearest codes of these numbers, of
/// the compute type.
///
/// With U the factor of the inverse of H, for each channel j in the order of the factor, for every output:
///
/// ```text
/// ŵ_j = dequantize(quantize(w_j));   e = (w_j − ŵ_j) / U_jj;   w_k ← w_k − e·U_jk for each later k
/// ```
///
/// in `f64`; only what is quantized is rounded to the compute type. Errors are passed on by halves of the
/// channels, as one matrix product, which sums the same numbers in another order.
pub(crate) fn gptq(weights: &Matrix, factor: &Factor, params: &QParams) -> Result<Vec<f64>> {
    let parts = try_map(chunks(weights.outputs()), |outputs| match weights.float {
        FloatType::F64 => Chunk::<f64>::new(weights, factor, params, outputs)?.run(),
        _ => Chunk::<f32>::new(weights, factor, params, outputs)?.run(),
    })?;
    joined(parts)
}

/// Some outputs of a weight.
struct Chunk<'a, F> {
    factor: &'a Factor,
    columns: Columns<F>,
    outputs: usize,
    inputs: usize,
    /// The weights of each channel in the order of the factor, as many as there are outputs; those that are
    /// quantized have made place for their errors.
    rows: Vec<f64>,
    /// The weights as they were quantized, in row-major order of outputs and channels.
    adjusted: Vec<f64>,
}

impl<'a, F: Float> Chunk<'a, F> {
    fn new(
        weights: &Matrix,
        factor: &'a Factor,
        params: &QParams,
        outputs: Range<usize>,
    ) -> Result<Self> {
        let (inputs, count) = (weights.inputs(), outputs.len());
        let rows = by_channel(&weights.values, &factor.order, &outputs)?;
        Ok(Self {
            factor,
            columns: Columns::new(weights, params, outputs)?,
            outputs: count,
            inputs,
            rows,
            adjusted: repeated(0.0, inputs * count)?,
        })
    }

    fn run(mut self) -> Result<Vec<f64>> {
        self.quantize(0..self.inputs)?;
        Ok(self.adjusted)
    }

    /// Quantizes channels, which errors of the ones before have been passed on to.
    fn quantize(&mut self, channels: Range<usize>) -> Result<()> {
        if channels.len() <= FEW {
            for position in channels.clone() {
                self.quantize_one(position)?;
                self.pass_on(position, channels.end);
            }
            return Ok(());
        }
        let middle = channels.start + channels.len() / 2;
        self.quantize(channels.start..middle)?;
        self.pass_all_on(channels.start, middle, channels.end);
        self.quantize(middle..channels.end)
    }

    /// Puts the errors of the channel, divided by U_jj, in the place of its weights.
    fn quantize_one(&mut self, position: usize) -> Result<()> {
        let (channel, diagonal) = (
            self.factor.order[position],
            self.factor.upper()[(position, position)],
        );
        let row = &mut self.rows[position * self.outputs..][..self.outputs];
        let quantized = self.columns.quantize(channel, row)?;
        for (o, (x, value)) in quantized.enumerate() {
            self.adjusted[o * self.inputs + channel] = x;
            row[o] = (row[o] - value) / diagonal;
        }
        Ok(())
    }

    /// Passes the errors of one channel on to those after it, up to `end`.
    fn pass_on(&mut self, position: usize, end: usize) {
        let (before, after) = self.rows.split_at_mut((position + 1) * self.outputs);
        let errors = &before[position * self.outputs..];
        let upper = self.factor.upper();
        for (k, row) in (position + 1..end).zip(after.chunks_exact_mut(self.outputs)) {
            let u = upper[(position, k)];
            for (w, e) in row.iter_mut().zip(errors) {
                *w -= e * u;
            }
        }
    }

    /// Passes the errors of channels from `start` to `middle` on to those up to `end`.
    fn pass_all_on(&mut self, start: usize, middle: usize, end: usize) {
        let c = self.outputs;
        let (before, after) = self.rows.split_at_mut(middle * c);
        let errors = MatRef::from_row_major_slice(&before[start * c..], middle - start, c);
        let later =
            MatMut::from_row_major_slice_mut(&mut after[..(end - middle) * c], end - middle, c);
        let upper = self
            .factor
            .upper()
            .submatrix(start, middle, middle - start, end - middle);
        matmul(later, Accum::Add, upper.transpose(), errors, -1.0, Par::Seq);
    }
}
