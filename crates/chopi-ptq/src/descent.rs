//! Coordinate descent over the codes of a weight: each channel's, given those of all others.

use std::ops::Range;

use chopi_core::QParams;
use chopi_core::backend::{Float, FloatType};
use chopi_kernels::memory::{repeated, with_room};
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};

use crate::columns::{Columns, by_channel};
use crate::error::Result;
use crate::factor::Factor;
use crate::inputs::Inputs;
use crate::matrix::Matrix;
use crate::parallel::{chunks, joined, try_map};

/// The channels whose changes are passed on together to those of other blocks.
const BLOCK: usize = 64;

/// Numbers whose nearest codes leave a smaller error than the nearest codes of `numbers`, or the same.
///
/// With A = H + λI of the factor, D = W − Ŵ and G = D·A, for each channel j in the order of the factor, for every
/// output:
///
/// ```text
/// v = ŵ_j + G_j / A_jj;   ŵ_j' = dequantize(quantize(v));   G_k ← G_k + (ŵ_j − ŵ_j')·A_jk for each k
/// ```
///
/// v is where the error d·A·dᵀ is least with all other weights as they are, and the error is a parabola of ŵ_j, so that
/// the nearest value to v is the best one. `sweeps` times, or until a sweep changes nothing.
pub(crate) fn descend(
    weights: &Matrix,
    inputs: &Inputs<'_>,
    factor: &Factor,
    params: &QParams,
    numbers: Vec<f64>,
    sweeps: u32,
) -> Result<Vec<f64>> {
    let damped = factor.damped(|i, j| inputs.second(i, j))?;
    let values = weights.fake_quantized(&numbers, params)?;
    let parts = try_map(chunks(weights.outputs()), |outputs| {
        let of_chunk = |all: &[f64]| by_channel(all, &factor.order, &outputs);
        let chunk = Chunk {
            damped: damped.as_ref(),
            order: &factor.order,
            gradient: of_chunk(&weights.values)?,
            numbers: of_chunk(&numbers)?,
            values: of_chunk(&values)?,
        };
        match weights.float {
            FloatType::F64 => chunk.run(Columns::<f64>::new(weights, params, outputs)?, sweeps),
            _ => chunk.run(Columns::<f32>::new(weights, params, outputs)?, sweeps),
        }
    })?;
    joined(parts)
}

/// Some outputs of a weight, each number of which stands by its channel's position in the order.
struct Chunk<'a> {
    damped: MatRef<'a, f64>,
    order: &'a [usize],
    /// G; the weights before it is computed.
    gradient: Vec<f64>,
    numbers: Vec<f64>,
    /// Ŵ.
    values: Vec<f64>,
}

impl Chunk<'_> {
    /// The numbers after the sweeps, in row-major order of outputs and channels.
    fn run<F: Float>(mut self, mut columns: Columns<F>, sweeps: u32) -> Result<Vec<f64>> {
        let n = self.order.len();
        let count = self.values.len() / n;
        let mut difference: Vec<f64> = with_room(self.values.len())?;
        difference.extend(self.gradient.iter().zip(&self.values).map(|(w, v)| w - v));
        matmul(
            MatMut::from_row_major_slice_mut(&mut self.gradient, n, count),
            Accum::Replace,
            self.damped,
            MatRef::from_row_major_slice(&difference, n, count),
            1.0,
            Par::Seq,
        );
        let mut changes = repeated(0.0, BLOCK.min(n) * count)?;
        for _ in 0..sweeps {
            let mut any = false;
            for first in (0..n).step_by(BLOCK) {
                let block = first..n.min(first + BLOCK);
                any |= self.improve(block, &mut columns, &mut changes, count)?;
            }
            if !any {
                break;
            }
        }
        let mut numbers = repeated(0.0, self.numbers.len())?;
        for (row, &channel) in self.numbers.chunks_exact(count).zip(self.order) {
            for (o, number) in row.iter().enumerate() {
                numbers[o * n + channel] = *number;
            }
        }
        Ok(numbers)
    }

    /// Takes the best code of each channel of a block, and gives whether any was another one.
    fn improve<F: Float>(
        &mut self,
        block: Range<usize>,
        columns: &mut Columns<F>,
        changes: &mut [f64],
        count: usize,
    ) -> Result<bool> {
        let changes = &mut changes[..block.len() * count];
        for position in block.clone() {
            let row = position * count..(position + 1) * count;
            let (numbers, values) = (
                &mut self.numbers[row.clone()],
                &mut self.values[row.clone()],
            );
            let diagonal = self.damped[(position, position)];
            let least = values.iter().zip(&self.gradient[row]);
            for (number, (value, g)) in numbers.iter_mut().zip(least) {
                *number = value + g / diagonal;
            }
            let change = &mut changes[(position - block.start) * count..][..count];
            let quantized = columns.quantize(self.order[position], numbers)?;
            for (o, (number, value)) in quantized.enumerate() {
                change[o] = values[o] - value;
                (self.numbers[position * count + o], values[o]) = (number, value);
            }
            for k in block.clone() {
                let a = self.damped[(k, position)];
                let gradient = &mut self.gradient[k * count..(k + 1) * count];
                for (g, change) in gradient.iter_mut().zip(&*change) {
                    *g += change * a;
                }
            }
        }
        if changes.iter().all(|&change| change == 0.0) {
            return Ok(false);
        }
        let n = self.order.len();
        let changes = MatRef::from_row_major_slice(changes, block.len(), count);
        for others in [0..block.start, block.end..n] {
            let gradient = &mut self.gradient[others.start * count..others.end * count];
            matmul(
                MatMut::from_row_major_slice_mut(gradient, others.len(), count),
                Accum::Add,
                self.damped
                    .submatrix(others.start, block.start, others.len(), block.len()),
                changes,
                1.0,
                Par::Seq,
            );
        }
        Ok(true)
    }
}
