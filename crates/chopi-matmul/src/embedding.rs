//! Rows of a table of codes.

use chopi_core::{
    Granularity, QParams,
    backend::{Backend, IntTensor, collected, with_room},
};

use crate::broadcast;
use crate::codes::CodeSlice;
use crate::error::{Error, Result};
use crate::linear::{Bytes, check_params, is_per_output, narrow, to_f32};

/// An embedding with an integer table, in a quarter of the memory or less: indices in, `f32` rows out,
/// which are looked up in codes.
///
/// Element k of row i is x̂ = (q\[i, k\] − z\[i, g\])·s\[i, g\], g the group of k, the product rounded to `f32`:
/// what dequantizing the table gives. Codes of up to 4 bits take half a byte.
#[derive(Clone, Debug)]
pub struct QuantizedEmbedding {
    table: Table,
    rows: usize,
    columns: usize,
    /// The columns of a group; all of them where a row has one scale.
    group: usize,
    scales: Vec<f32>,
    zero_points: Vec<i32>,
}

/// The codes, row by row.
#[derive(Clone, Debug)]
enum Table {
    Bytes(Bytes<'static>),
    /// Two codes a byte, the first in the lower half, less by the least code; each row starts a byte.
    Nibbles(Vec<u8>, i32),
}

impl QuantizedEmbedding {
    /// A table of codes of shape \[rows, columns\], with their parameters: per tensor, per channel
    /// of axis 0, or in groups along axis 1.
    ///
    /// # Errors
    /// [`Error::Weights`] for another shape or granularity; [`Error::Range`],
    /// [`Error::RealZeroPoints`] and [`Error::ZeroPoint`] for a table that is not of 8 bits.
    pub fn new<B: Backend, Q: IntTensor<B> + ?Sized>(table: &Q, params: &QParams) -> Result<Self> {
        check_params("the table", params)?;
        let embedding = table.with_host(|codes| {
            let shape = codes.layout().shape();
            let (rows, columns) = match *shape {
                [rows, columns] if group_of(params, &[rows, columns]).is_some() => (rows, columns),
                _ => {
                    let expected = "[rows, columns] with one for all, one for each row, or one for \
                                    each group of columns";
                    return Err(Error::weights(&codes, params, expected).into());
                }
            };
            let zero_points = params.zero_point().iter().map(|&z| z as i32);
            let bytes = narrow(&codes, params.bounds())?;
            Ok(Self {
                table: Table::new(bytes, columns, params.bounds())?,
                rows,
                columns,
                group: group_of(params, shape).unwrap_or(columns).max(1),
                scales: to_f32(params.scale())?,
                zero_points: collected(zero_points)?,
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
            let codes = row * self.columns..(row + 1) * self.columns;
            match &self.table {
                Table::Bytes(bytes) => match bytes.codes() {
                    CodeSlice::U8(table) => self.dequantize(row, widened(&table[codes]), out),
                    CodeSlice::I8(table) => self.dequantize(row, widened(&table[codes]), out),
                },
                Table::Nibbles(packed, low) => {
                    let bytes = self.columns.div_ceil(2);
                    let halves = packed[row * bytes..][..bytes]
                        .iter()
                        .flat_map(|byte| [byte & 15, byte >> 4]);
                    self.dequantize(row, halves.map(|code| i32::from(code) + low), out);
                }
            }
        }
        Ok(())
    }

    /// Writes the values of a row's codes.
    fn dequantize(&self, row: usize, mut codes: impl Iterator<Item = i32>, out: &mut [f32]) {
        let groups = self.columns.div_ceil(self.group);
        for (g, out) in out.chunks_mut(self.group).enumerate() {
            // Where a row has one scale, it has one group.
            let scale = broadcast::of(&self.scales, row * groups + g);
            let zero = i64::from(broadcast::of(&self.zero_points, row * groups + g));
            for (out, code) in out.iter_mut().zip(&mut codes) {
                *out = (i64::from(code) - zero) as f32 * scale;
            }
        }
    }
}

impl Table {
    fn new(codes: Bytes<'static>, columns: usize, (qmin, qmax): (i64, i64)) -> Result<Self> {
        if qmax - qmin >= 16 {
            return Ok(Self::Bytes(codes));
        }
        let low = qmin as i32;
        let pack = |pair: &[u8]| {
            let code = |at: usize| pair.get(at).map_or(0, |code| code.wrapping_sub(low as u8));
            code(0) | code(1) << 4
        };
        // The difference of two bytes does not depend on their sign.
        let rows = codes.codes().bytes().chunks(columns.max(1));
        let mut packed = with_room(rows.len().saturating_mul(columns.div_ceil(2)))?;
        packed.extend(rows.flat_map(|row| row.chunks(2).map(pack)));
        Ok(Self::Nibbles(packed, low))
    }
}

fn widened<C: Copy + Into<i32>>(codes: &[C]) -> impl Iterator<Item = i32> {
    codes.iter().map(|&code| code.into())
}

/// The columns that have a scale in common, for a table of this shape.
fn group_of(params: &QParams, shape: &[usize]) -> Option<usize> {
    match (params.shape(), params.scheme().granularity, shape) {
        _ if is_per_output(params, shape) => shape.last().copied(),
        (&[of_rows, groups], Granularity::PerGroup { size, .. }, &[rows, columns]) => {
            let fits = of_rows == rows && size > 0 && groups == columns.div_ceil(size);
            fits.then_some(size)
        }
        _ => None,
    }
}
