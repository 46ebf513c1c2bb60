//! Cholesky's factor and its inverse, in parts for threads that do not depend on how many there are.

use chopi_kernels::NoMemory;
use faer::dyn_stack::{MemBuffer, MemStack};
use faer::linalg::cholesky::llt::factor::{cholesky_in_place, cholesky_in_place_scratch};
use faer::linalg::matmul::matmul;
use faer::linalg::triangular_solve::solve_lower_triangular_in_place;
use faer::{Accum, Mat, MatMut, MatRef, Par};

use crate::error::Result;
use crate::parallel::try_for_each;

/// Matrices up to this size are not split.
const SMALL: usize = 128;
/// The rows or columns that one task works on.
const TASK: usize = 64;

/// Puts L with A = LLᵀ in the place of the lower triangle of A, and gives whether A is positive definite.
///
/// By halves: L₁₁ of A₁₁; L₂₁ = A₂₁·L₁₁^−ᵀ; L₂₂ of A₂₂ − L₂₁·L₂₁ᵀ.
pub(crate) fn factor(matrix: MatMut<'_, f64>) -> Result<bool> {
    let n = matrix.nrows();
    if n <= SMALL {
        return Ok(factor_small(matrix));
    }
    let half = n / 2;
    let (mut first, _, mut below, mut second) = matrix.split_at_mut(half, half);
    if !factor(first.as_mut())? {
        return Ok(false);
    }
    let first = first.as_ref();
    try_for_each(row_tasks(below.as_mut()), |(_, rows)| {
        solve_lower_triangular_in_place(first, rows.transpose_mut(), Par::Seq);
        Ok(())
    })?;
    let below = below.as_ref();
    try_for_each(row_tasks(second.as_mut()).rev(), |(start, rows)| {
        let end = start + rows.nrows();
        let (lhs, rhs) = (
            below.subrows(start, rows.nrows()),
            below.subrows(0, end).transpose(),
        );
        matmul(
            rows.subcols_mut(0, end),
            Accum::Add,
            lhs,
            rhs,
            -1.0,
            Par::Seq,
        );
        Ok(())
    })?;
    factor(second)
}

fn factor_small(matrix: MatMut<'_, f64>) -> bool {
    let scratch = cholesky_in_place_scratch::<f64>(matrix.nrows(), Par::Seq, Default::default());
    let mut memory = MemBuffer::new(scratch);
    let stack = MemStack::new(&mut memory);
    cholesky_in_place(
        matrix,
        Default::default(),
        Par::Seq,
        stack,
        Default::default(),
    )
    .is_ok()
}

/// The inverse of a lower triangular matrix: the solution of L·X = I, some columns at a time, which are 0 above their
/// part of the diagonal.
pub(crate) fn inverse(lower: MatRef<'_, f64>) -> Result<Mat<f64>> {
    let n = lower.nrows();
    let mut inverse = zeros(n)?;
    (0..n).for_each(|i| inverse[(i, i)] = 1.0);
    try_for_each(
        row_tasks(inverse.as_mut().transpose_mut()),
        |(start, columns)| {
            let columns = columns.transpose_mut().subrows_mut(start, n - start);
            let lower = lower.submatrix(start, start, n - start, n - start);
            solve_lower_triangular_in_place(lower, columns, Par::Seq);
            Ok(())
        },
    )?;
    Ok(inverse)
}

/// The n × n matrix of these entries.
pub(crate) fn matrix(n: usize, entry: impl Fn(usize, usize) -> f64 + Sync) -> Result<Mat<f64>> {
    let mut matrix = zeros(n)?;
    try_for_each(
        row_tasks(matrix.as_mut().transpose_mut()),
        |(start, columns)| {
            let mut columns = columns.transpose_mut();
            for j in 0..columns.ncols() {
                for i in 0..n {
                    columns[(i, j)] = entry(i, start + j);
                }
            }
            Ok(())
        },
    )?;
    Ok(matrix)
}

/// n × n zeros.
fn zeros(n: usize) -> Result<Mat<f64>> {
    let mut matrix = Mat::new();
    let bytes = n.saturating_mul(n).saturating_mul(size_of::<f64>());
    matrix.try_reserve(n, n).map_err(|_| NoMemory { bytes })?;
    matrix.resize_with(n, n, |_, _| 0.0);
    Ok(matrix)
}

/// The rows of a matrix in parts, and where each begins.
fn row_tasks(
    mut rest: MatMut<'_, f64>,
) -> impl DoubleEndedIterator<Item = (usize, MatMut<'_, f64>)> + ExactSizeIterator + Send {
    let mut tasks = Vec::new();
    let mut start = 0;
    while rest.nrows() > 0 {
        let count = rest.nrows().min(TASK);
        let (rows, later) = rest.split_at_row_mut(count);
        tasks.push((start, rows));
        start += count;
        rest = later;
    }
    tasks.into_iter()
}
