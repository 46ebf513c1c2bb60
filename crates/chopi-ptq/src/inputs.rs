//! What a layer takes, and the error that other weights make in what it gives.

use std::cmp::Ordering;
use std::sync::{Arc, Mutex, PoisonError};

use chopi_core::backend::{Backend, FloatTensor};
use chopi_kernels::memory::repeated;
use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatMut, MatRef, Par};

use crate::cholesky;
#[cfg(doc)]
use crate::error::Error;
use crate::error::Result;
use crate::factor::Factor;
use crate::matrix::Matrix;
use crate::method::Gptq;
use crate::moments::Moments;
use crate::parallel::try_map;

/// The outputs whose error is computed together: fixed, so that sums do not depend on the threads.
const OUTPUTS: usize = 96;

/// The inputs of the layers that take the same ones, such as the query, key and value projections of attention:
/// their moments, and what is computed of them once for all of these layers.
#[derive(Debug)]
pub struct Inputs<'a> {
    moments: &'a Moments,
    /// The upper triangle of H with its entries off the diagonal doubled: d·H·dᵀ = d·T·dᵀ.
    doubled: Mat<f64>,
    factor: Mutex<Option<(Gptq, Arc<Factor>)>>,
}

/// The error that quantized weights make in the output of a layer, as means over the inputs that were observed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OutputError {
    /// The mean of ‖y − ŷ‖²: Tr((W − Ŵ)·H·(W − Ŵ)ᵀ).
    pub error: f64,
    /// The mean of ‖y‖²: Tr(W·H·Wᵀ).
    pub output: f64,
}

impl OutputError {
    /// The error over the output; the error itself where the output is 0.
    pub fn relative(&self) -> f64 {
        match self.output > 0.0 {
            true => self.error / self.output,
            false => self.error,
        }
    }
}

impl<'a> Inputs<'a> {
    /// The inputs with these moments.
    ///
    /// # Errors
    /// [`Error::NoRows`](crate::Error::NoRows) for moments that have seen nothing.
    pub fn new(moments: &'a Moments) -> Result<Self> {
        moments.check_rows()?;
        let doubled = cholesky::matrix(moments.channels(), |i, j| match i.cmp(&j) {
            Ordering::Less => 2.0 * moments.second_of(i, j),
            Ordering::Equal => moments.second_of(i, j),
            Ordering::Greater => 0.0,
        })?;
        Ok(Self {
            moments,
            doubled,
            factor: Mutex::new(None),
        })
    }

    /// The moments.
    pub fn moments(&self) -> &Moments {
        self.moments
    }

    /// The error that other values in the place of a layer's weights make in its output.
    ///
    /// # Errors
    /// [`Error::Shape`] and [`Error::Channels`] for weights that do not fit the moments, or values that do not fit the
    /// weights; [`Error::Core`] for NaN and infinities.
    pub fn output_error<B, C, T, U>(&self, weights: &T, values: &U) -> Result<OutputError>
    where
        B: Backend,
        C: Backend,
        T: FloatTensor<B> + ?Sized,
        U: FloatTensor<C> + ?Sized,
    {
        let (weights, values) = (Matrix::of(weights)?, Matrix::of(values)?);
        let moments = self.moments;
        moments.check_for("the weight", &weights.shape, weights.inputs())?;
        weights.check_same_shape("the value of the weight", &values)?;
        let (weights, values) = (weights.values, values.values);
        Ok(OutputError {
            error: self.error(weights.len(), |i| weights[i] - values[i])?,
            output: self.error(weights.len(), |i| weights[i])?,
        })
    }

    /// The factor for these settings, computed unless it was the last one.
    pub(crate) fn factor(&self, settings: &Gptq) -> Result<Arc<Factor>> {
        // Not locked while it is computed: a thread that waits for its parts may do another layer's work meanwhile.
        let kept = || self.factor.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, factor)) = &*kept()
            && of == settings
        {
            return Ok(factor.clone());
        }
        let second = |i, j| self.second(i, j);
        let factor = Arc::new(Factor::new(self.doubled.nrows(), second, settings)?);
        *kept() = Some((*settings, factor.clone()));
        Ok(factor)
    }

    /// H_ij.
    pub(crate) fn second(&self, i: usize, j: usize) -> f64 {
        match i.cmp(&j) {
            Ordering::Less => self.doubled[(i, j)] / 2.0,
            Ordering::Equal => self.doubled[(i, j)],
            Ordering::Greater => self.doubled[(j, i)] / 2.0,
        }
    }

    /// Tr(D·H·Dᵀ), D the differences of weights in row-major order, `difference(i)` that of the i-th weight.
    pub(crate) fn error(
        &self,
        weights: usize,
        difference: impl Fn(usize) -> f64 + Sync,
    ) -> Result<f64> {
        let inputs = self.doubled.nrows();
        let outputs = weights / inputs;
        let chunks: Vec<usize> = (0..outputs).step_by(OUTPUTS).collect();
        let sums = try_map(chunks.into_iter(), |first| {
            let count = OUTPUTS.min(outputs - first);
            let mut d = repeated(0.0, count * inputs)?;
            for (i, d) in d.iter_mut().enumerate() {
                *d = difference(first * inputs + i);
            }
            let mut product = repeated(0.0, count * inputs)?;
            triangular::matmul(
                MatMut::from_row_major_slice_mut(&mut product, count, inputs),
                BlockStructure::Rectangular,
                Accum::Replace,
                MatRef::from_row_major_slice(&d, count, inputs),
                BlockStructure::Rectangular,
                self.doubled.as_ref(),
                BlockStructure::TriangularUpper,
                1.0,
                Par::Seq,
            );
            Ok(product.iter().zip(&d).map(|(a, b)| a * b).sum::<f64>())
        })?;
        Ok(sums.iter().sum::<f64>().max(0.0))
    }
}
