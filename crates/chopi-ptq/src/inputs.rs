//! What a layer takes, and the error that other weights make in what it gives.

use std::sync::Arc;
use std::sync::{Mutex, PoisonError};

use faer::linalg::matmul::triangular::{self, BlockStructure};
use faer::{Accum, Mat, MatMut, MatRef, Par};

use crate::error::Result;
use crate::factor::Factor;
use crate::method::Gptq;
use crate::moments::Moments;
use crate::parallel::try_map;
use chopi_kernels::memory::repeated;

/// The outputs whose error is computed together: fixed, so that sums do not depend on the threads.
const OUTPUTS: usize = 64;

/// The inputs of the layers that take the same ones, such as the query, key and value projections of attention:
/// their moments, and what is computed of them once for all of these layers.
#[derive(Debug)]
pub struct Inputs<'a> {
    moments: &'a Moments,
    second: Mat<f64>,
    /// The upper triangle of H with its entries off the diagonal doubled: dHdᵀ = d·T·dᵀ.
    doubled: Mat<f64>,
    factor: Mutex<Option<(Gptq, Arc<Factor>)>>,
}

impl<'a> Inputs<'a> {
    /// The inputs with these moments.
    pub fn new(moments: &'a Moments) -> Self {
        let second = moments.second();
        let doubled = Mat::from_fn(second.nrows(), second.ncols(), |i, j| match i.cmp(&j) {
            std::cmp::Ordering::Less => 2.0 * second[(i, j)],
            std::cmp::Ordering::Equal => second[(i, j)],
            std::cmp::Ordering::Greater => 0.0,
        });
        Self {
            moments,
            second,
            doubled,
            factor: Mutex::new(None),
        }
    }

    /// The moments.
    pub fn moments(&self) -> &Moments {
        self.moments
    }

    /// The factor for these settings, computed unless it was the last one.
    pub(crate) fn factor(&self, settings: &Gptq) -> Result<Arc<Factor>> {
        let mut kept = self.factor.lock().unwrap_or_else(PoisonError::into_inner);
        match &*kept {
            Some((of, factor)) if of == settings => Ok(factor.clone()),
            _ => {
                let factor = Arc::new(Factor::new(&self.second, settings)?);
                *kept = Some((*settings, factor.clone()));
                Ok(factor)
            }
        }
    }

    /// Tr(D·H·Dᵀ), D the differences of weights in row-major order, `difference(i)` that of the i-th weight.
    pub(crate) fn error(
        &self,
        weights: usize,
        difference: impl Fn(usize) -> f64 + Sync,
    ) -> Result<f64> {
        let inputs = self.second.nrows();
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
