//! Products of arrays by the rules of `numpy.matmul`.

use std::borrow::Cow;

use chopi_core::backend::{collected, repeated, try_collected, with_room};
use chopi_matmul::requantize::Code;
use chopi_matmul::{Matrix, Order, PackedMatrix};
use ndarray::{ArrayRef, Dimension};

use super::{Error, Result};

/// The shapes of a product of arrays: of two matrices for each index of the axes before the last
/// two, which are broadcast. An array of one axis is a row on the left and a column on the right, and
/// the output has no axis for it.
pub(super) struct Shapes {
    /// The axes before the last two, of the left, of the right and of the output, of one length.
    batches: [Vec<usize>; 3],
    pub m: usize,
    pub k: usize,
    pub n: usize,
    output: Vec<usize>,
}

/// Zero points or scales of an operand: one, or one for each row (column) of each of its matrices.
#[derive(Clone, Copy)]
pub(super) struct PerLine<'a, T> {
    values: &'a [T],
    /// How many rows (columns) a matrix has.
    lines: usize,
}

impl<'a, T> PerLine<'a, T> {
    /// The zero points or scales of one matrix: one for all, or one for each row (column).
    pub fn of(self, matrix: usize) -> &'a [T] {
        match self.values {
            [_] => self.values,
            all => &all[matrix * self.lines..][..self.lines],
        }
    }
}

impl Shapes {
    /// # Errors
    /// [`Error::MatMulShapes`] where the shapes do not fit each other.
    pub fn new(a: &[usize], b: &[usize]) -> Result<Self> {
        let refused = |reason| Error::MatMulShapes {
            a: a.to_vec(),
            b: b.to_vec(),
            reason,
        };
        let (a_batch, m, a_depth) = match *a {
            [] => return Err(refused("both need at least one axis")),
            [k] => (&[][..], 1, k),
            [ref batch @ .., m, k] => (batch, m, k),
        };
        let (b_batch, b_depth, n) = match *b {
            [] => return Err(refused("both need at least one axis")),
            [k] => (&[][..], k, 1),
            [ref batch @ .., k, n] => (batch, k, n),
        };
        if a_depth != b_depth {
            return Err(refused(
                "the rows of the one are not as long as the columns of the other",
            ));
        }
        let rank = a_batch.len().max(b_batch.len());
        let padded = |batch: &[usize]| [&vec![1; rank - batch.len()], batch].concat();
        let (a_batch, b_batch) = (padded(a_batch), padded(b_batch));
        let mut batch = Vec::with_capacity(rank);
        for (&a, &b) in a_batch.iter().zip(&b_batch) {
            batch.push(match (a, b) {
                (1, n) | (n, 1) => n,
                (n, m) if n == m => n,
                _ => return Err(refused("the axes before the last two cannot be broadcast")),
            });
        }
        let rows = (a.len() > 1).then_some(m);
        let columns = (b.len() > 1).then_some(n);
        let output = batch.iter().copied().chain(rows).chain(columns).collect();
        Ok(Self {
            batches: [a_batch, b_batch, batch],
            m,
            k: a_depth,
            n,
            output,
        })
    }

    /// Memory for the output, of which there is nothing yet.
    pub fn room<T>(&self) -> Result<Vec<T>> {
        if self.output.contains(&0) {
            return Ok(Vec::new());
        }
        let len = |n: usize, &length| n.saturating_mul(length);
        Ok(with_room(self.output.iter().fold(1, len))?)
    }

    /// The shape of the output.
    pub fn output(&self) -> &[usize] {
        &self.output
    }

    /// The numbers of the matrices of the left and the right whose product is a matrix of the output.
    fn pair(&self, mut matrix: usize) -> (usize, usize) {
        let [a, b, output] = &self.batches;
        let (mut numbers, mut strides) = ([0; 2], [1; 2]);
        for ((&a, &b), &n) in a.iter().zip(b).zip(output).rev() {
            let at = matrix % n;
            matrix /= n;
            for (operand, length) in [a, b].into_iter().enumerate() {
                numbers[operand] += if length == 1 { 0 } else { at } * strides[operand];
                strides[operand] *= length;
            }
        }
        numbers.into()
    }

    /// How many matrices the left operand, the right one or the output is.
    fn matrices(batch: &[usize]) -> usize {
        batch.iter().product()
    }

    /// Multiplies, and calls `write` for each matrix of the output with the numbers of its left and
    /// its right one and the sums.
    pub fn multiply<A: Code, B: Code, D: Dimension, E: Dimension>(
        &self,
        (a, a_zeros): (&ArrayRef<A, D>, PerLine<'_, i32>),
        (b, b_zeros): (&ArrayRef<B, E>, PerLine<'_, i32>),
        mut write: impl FnMut((usize, usize), &[i32]) -> Result<()>,
    ) -> Result<()> {
        if self.output.contains(&0) {
            return Ok(());
        }
        let (a, b) = (row_major(a)?, row_major(b)?);
        let (m, k, n) = (self.m, self.k, self.n);
        let pack = |matrix: usize| {
            let codes = B::codes(&b[matrix * k * n..][..k * n]);
            PackedMatrix::new(codes, k, n, Order::DepthMajor, b_zeros.of(matrix))
        };
        let [_, right, output] = &self.batches;
        let packed = try_collected((0..Self::matrices(right)).map(pack))?;
        let mut sums = repeated(0, m.saturating_mul(n))?;
        for matrix in 0..Self::matrices(output) {
            let (left, right) = self.pair(matrix);
            let codes = A::codes(&a[left * m * k..][..m * k]);
            let matrix = Matrix::new(codes, m, k, a_zeros.of(left))?;
            packed[right].multiply(&matrix, &mut sums)?;
            write((left, right), &sums)?;
        }
        Ok(())
    }
}

/// The elements in row-major order.
pub(super) fn row_major<T: Copy, D: Dimension>(array: &ArrayRef<T, D>) -> Result<Cow<'_, [T]>> {
    Ok(match array.as_slice() {
        Some(elements) => Cow::Borrowed(elements),
        None => Cow::Owned(collected(array.iter().copied())?),
    })
}

/// Which matrix of a product an operand is.
#[derive(Clone, Copy)]
pub(super) enum Side {
    /// The left one, with parameters for each row.
    Left,
    /// The right one, with parameters for each column.
    Right,
}

/// The parameters of an operand of shape `operand`, which have themselves this shape: scalars, or of
/// shape `[M]` (`[N]`) for a matrix, or of the operand's shape with 1 for its last (but one) axis.
///
/// # Errors
/// [`Error::ParameterShape`] for another shape.
pub(super) fn per_line<'a, T>(
    values: &'a [T],
    shape: &[usize],
    (name, side, operand): (&'static str, Side, &[usize]),
) -> Result<PerLine<'a, T>> {
    let (along, of) = match side {
        Side::Left => (operand.len().wrapping_sub(2), operand.len().wrapping_sub(1)),
        Side::Right => (operand.len().wrapping_sub(1), operand.len().wrapping_sub(2)),
    };
    let lines = if operand.len() > 1 { operand[along] } else { 1 };
    let mut each = operand.to_vec();
    if operand.len() > 1 {
        each[of] = 1;
    }
    let scalar = shape.is_empty() || *shape == [1];
    let fits = operand.len() == 2 && *shape == [lines] || operand.len() > 1 && shape == each;
    if scalar || fits {
        return Ok(PerLine { values, lines });
    }
    Err(Error::ParameterShape {
        name,
        shape: shape.to_vec(),
        operand: operand.to_vec(),
        expected: match operand.len() {
            0 | 1 => "a scalar".to_owned(),
            2 => format!("a scalar, [{lines}] or {each:?}"),
            _ => format!("a scalar or {each:?}"),
        },
    })
}
