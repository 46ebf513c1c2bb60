//! The right matrix of a product, laid out once for the kernels.

use chopi_core::backend::{collected, repeated};

use crate::broadcast;
use crate::codes::CodeSlice;
use crate::error::{Error, Result};
use crate::kernel::{PAIR, PANEL, QUAD, QUAD_BYTES, Quad, Sums};

/// The right matrix of a product, [depth, columns], packed for the kernels: the weights.
///
/// Stands for the numbers code − zero point. Packing depends on nothing but the codes, so that a
/// packed matrix serves on every CPU, from any thread, in any number of products.
#[derive(Clone, Debug)]
pub struct PackedMatrix {
    depth: usize,
    columns: usize,
    /// The panels, one after the other; see [`kernel`](crate::kernel). Codes that were unsigned are
    /// less by 128, as are their zero points.
    codes: Vec<Quad>,
    /// A zero point for each column, filled up with 0 to whole panels.
    zero_points: Vec<i32>,
    /// Σ (code − zero point) of each column, wrapped, filled up with 0 to whole panels.
    sums: Vec<i32>,
    /// The largest Σ |code − zero point| of a column.
    magnitude: u64,
}

/// How a matrix of [depth, columns] lies in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// One depth after the other, as ONNX has the second operand of a product.
    DepthMajor,
    /// One column after the other, as the weights of linear layers are kept: [outputs, inputs].
    ColumnMajor,
}

impl PackedMatrix {
    /// Packs a matrix of `depth` × `columns` codes, with one zero point or one for each column.
    ///
    /// # Errors
    /// [`Error::Length`] where the lengths are not those; [`Error::Quantization`] where there is no memory
    /// for so many columns.
    pub fn new<'a>(
        codes: impl Into<CodeSlice<'a>>,
        depth: usize,
        columns: usize,
        order: Order,
        zero_points: &[i32],
    ) -> Result<Self> {
        let codes = codes.into();
        Error::check_length(
            "the right matrix",
            codes.len(),
            depth.saturating_mul(columns),
        )?;
        Error::check_each(
            "the zero points of the right matrix",
            zero_points.len(),
            columns,
        )?;
        let (flip, offset) = match codes {
            CodeSlice::U8(_) => (128, 128),
            CodeSlice::I8(_) => (0, 0),
        };
        let zero_points: Vec<i32> = broadcast::panels(zero_points, columns, offset)?;
        // Without columns any depth has no codes.
        let quads = depth.div_ceil(PAIR) * (PAIR / QUAD);
        let panels = columns.div_ceil(PANEL);
        let mut packed = Self {
            depth,
            columns,
            codes: repeated(Quad([0; QUAD_BYTES]), panels.saturating_mul(quads))?,
            zero_points: collected(zero_points.iter().map(|zero| zero.wrapping_sub(offset)))?,
            sums: repeated(0, zero_points.len())?,
            magnitude: 0,
        };
        let (depth_stride, column_stride) = match order {
            Order::DepthMajor => (columns, 1),
            Order::ColumnMajor => (1, depth),
        };
        let bytes = codes.bytes();
        for column in 0..columns {
            let panel = &mut packed.codes[column / PANEL * quads..][..quads];
            let zero = i64::from(zero_points[column]) - i64::from(offset);
            let (mut sum, mut magnitude) = (0, 0);
            for k in 0..depth {
                let code = (bytes[k * depth_stride + column * column_stride] ^ flip) as i8;
                panel[k / QUAD].0[column % PANEL * QUAD + k % QUAD] = code;
                let number = i64::from(code) - zero;
                sum += number;
                magnitude += number.unsigned_abs();
            }
            packed.sums[column] = sum as i32;
            packed.magnitude = packed.magnitude.max(magnitude);
        }
        Ok(packed)
    }

    /// The number of rows, over which a product sums.
    pub fn depth(&self) -> usize {
        self.depth
    }

    /// The number of columns.
    pub fn columns(&self) -> usize {
        self.columns
    }

    /// The quads of a panel and of those after it.
    pub(crate) fn panels_from(&self, panel: usize) -> &[Quad] {
        &self.codes[panel * self.depth.next_multiple_of(PAIR) / QUAD..]
    }

    /// The zero points of the columns, panel by panel.
    pub(crate) fn zero_points(&self) -> &[Sums] {
        self.zero_points.as_chunks().0
    }

    /// Whether any zero point is not 0.
    pub(crate) fn has_zero_points(&self) -> bool {
        self.zero_points.iter().any(|&zero| zero != 0)
    }

    /// Σ (code − zero point) of the columns, panel by panel.
    pub(crate) fn sums(&self) -> &[Sums] {
        self.sums.as_chunks().0
    }

    /// The largest Σ |code − zero point| of a column.
    pub(crate) fn magnitude(&self) -> u64 {
        self.magnitude
    }
}
