//! Rows of a table of codes.

use chopi_core::{
    QParams,
    backend::{Backend, IntTensor},
};

use crate::broadcast;
use crate::codes::CodeSlice;
use crate::error::{Error, Result};
use crate::linear::{Bytes, check_params, is_per_output, narrow, to_f32};

/// An embedding with an integer table, in a quarter of the memory: indices in, `f32` rows out, which are
/// looked up in 8-bit codes.
///
/// Element k of row i is x̂ = (q\[i, k\] − z\[i\])·s\[i\], the product rounded to `f32`: what dequantizing
/// the table gives.
#[derive(Clone, Debug)]
pub struct QuantizedEmbedding {
    table: Bytes<'static>,
    rows: usize,
    columns: usize,
    scales: Vec<f32>,
    zero_points: Vec<i64>,
}

impl QuantizedEmbedding {
    /// A table of codes of shape \[rows, columns\], with their parameters: per tensor, or per channel
    /// of axis 0.
    ///
    /// # Errors
    /// [`Error::Weights`] for another shape or granularity; [`Error::Range`],
    /// [`Error::RealZeroPoints`] and [`Error::ZeroPoint`] for a table that is not of 8 bits.
    pub fn new<B: Backend, Q: IntTensor<B> + ?Sized>(table: &Q, params: &QParams) -> Result<Self> {
        check_params("the table", params)?;
        let embedding = table.with_host(|codes| {
            let (rows, columns) = match *codes.layout().shape() {
                [rows, columns] if is_per_output(params, &[rows, columns]) => (rows, columns),
                _ => {
                    let expected = "[rows, columns] with one for all, or one for each row";
                    return Err(Error::weights(&codes, params, expected).into());
                }
            };
            Ok(Self {
                table: narrow(&codes, params.bounds())?.into_owned(),
                rows,
                columns,
                scales: to_f32(params.scale()),
                zero_points: params.zero_point().to_vec(),
            })
        });
        Ok(embedding?)
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// The length of a row.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// Writes the rows of these indices to `out`, one after the other.
    ///
    /// # Errors
    /// [`Error::Length`] where `out` has another length; [`Error::Row`] for a row that is not there, and
    /// then nothing is written.
    pub fn lookup(&self, indices: &[u32], out: &mut [f32]) -> Result<()> {
        let expected = indices.len().saturating_mul(self.columns);
        Error::check_length("the output", out.len(), expected)?;
        let outside = indices.iter().find(|&&row| row as usize >= self.rows);
        if let Some(&row) = outside {
            let (row, rows) = (row.into(), self.rows);
            return Err(Error::Row { row, rows });
        }
        if self.columns == 0 {
            return Ok(());
        }
        for (&row, out) in indices.iter().zip(out.chunks_exact_mut(self.columns)) {
            let row = row as usize;
            let scale = broadcast::of(&self.scales, row);
            let zero = broadcast::of(&self.zero_points, row);
            let codes = row * self.columns..(row + 1) * self.columns;
            match self.table.codes() {
                CodeSlice::U8(table) => dequantize(&table[codes], zero, scale, out),
                CodeSlice::I8(table) => dequantize(&table[codes], zero, scale, out),
            }
        }
        Ok(())
    }
}

fn dequantize<C: Copy + Into<i64>>(codes: &[C], zero: i64, scale: f32, out: &mut [f32]) {
    for (out, &code) in out.iter_mut().zip(codes) {
        *out = (code.into() - zero) as f32 * scale;
    }
}
