//! What becomes of the sums of a product.

use crate::broadcast;
use crate::error::{Error, Result};
use crate::kernel::{PANEL, Sums};
use crate::requantize::{Code, Multiplier, OutputCodes};

/// What becomes of the sums of a product, panel by panel.
pub(crate) trait Output: Sync {
    /// The elements of the product.
    type Element: Copy + Send;

    /// The elements that the sums of `row` become, those of the panel whose first column is `column`.
    fn elements(&self, row: usize, column: usize, sums: &Sums) -> [Self::Element; PANEL];
}

/// The sums as they are.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Integers;

impl Output for Integers {
    type Element = i32;

    #[inline(always)]
    fn elements(&self, _: usize, _: usize, sums: &Sums) -> Sums {
        *sums
    }
}

/// How sums become floats: y\[i, j\] = clamp(Σ · (s_a\[i\] · s_b\[j\]) + bias\[j\]), every operation
/// rounded to `f32`, the conversion of Σ too.
#[derive(Clone, Copy, Debug)]
pub struct Dequantize<'a> {
    /// The scale of the left matrix, or one for each row.
    pub left_scales: &'a [f32],
    /// The scale of the right matrix, or one for each column.
    pub right_scales: &'a [f32],
    /// What is added to each column, if anything.
    pub bias: Option<&'a [f32]>,
    /// What the results are clamped to: (0, ∞) is a rectified linear unit. NaN stays NaN.
    pub clamp: Option<(f32, f32)>,
}

/// The bounds of what is not clamped.
pub(crate) const UNBOUNDED: (f32, f32) = (f32::NEG_INFINITY, f32::INFINITY);

/// A number in these bounds; NaN stays NaN.
#[inline(always)]
pub(crate) fn clamped(y: f32, (low, high): (f32, f32)) -> f32 {
    // f32::max would turn NaN into the bound.
    let y = if y < low { low } else { y };
    if y > high { high } else { y }
}

/// The sums as floats.
#[derive(Debug)]
pub(crate) struct Floats<'a> {
    left_scales: &'a [f32],
    right_scales: Vec<f32>,
    bias: Vec<f32>,
    clamp: (f32, f32),
}

impl<'a> Floats<'a> {
    pub(crate) fn new(scales: &Dequantize<'a>, rows: usize, columns: usize) -> Result<Self> {
        let Dequantize {
            left_scales,
            right_scales,
            bias,
            clamp,
        } = *scales;
        Error::check_each("the scales of the left matrix", left_scales.len(), rows)?;
        Error::check_each(
            "the scales of the right matrix",
            right_scales.len(),
            columns,
        )?;
        if let Some(bias) = bias {
            Error::check_length("the bias", bias.len(), columns)?;
        }
        Ok(Self {
            left_scales,
            right_scales: broadcast::panels(right_scales, columns, 0.0)?,
            // x + (−0) is x, whatever x is.
            bias: broadcast::panels(bias.unwrap_or(&[-0.0]), columns, 0.0)?,
            clamp: clamp.unwrap_or(UNBOUNDED),
        })
    }
}

impl Output for Floats<'_> {
    type Element = f32;

    #[inline(always)]
    fn elements(&self, row: usize, column: usize, sums: &Sums) -> [f32; PANEL] {
        let mut floats = [0.0; PANEL];
        for i in 0..PANEL {
            floats[i] = sums[i] as f32;
        }
        self.scaled(row, column, &floats)
    }
}

impl Floats<'_> {
    /// The elements that sums become which are floats already.
    #[inline(always)]
    pub(crate) fn scaled(&self, row: usize, column: usize, sums: &[f32; PANEL]) -> [f32; PANEL] {
        let left = broadcast::of(self.left_scales, row);
        let right = &self.right_scales[column..column + PANEL];
        let bias = &self.bias[column..column + PANEL];
        let mut values = [0.0; PANEL];
        for (i, value) in values.iter_mut().enumerate() {
            *value = clamped(sums[i] * (left * right[i]) + bias[i], self.clamp);
        }
        values
    }
}

/// How sums become 8-bit codes; see [`requantize`](crate::requantize).
#[derive(Clone, Copy, Debug)]
pub struct Requantize<'a, M, Q> {
    /// What is added to the sums of each column, if anything, saturating.
    pub bias: Option<&'a [i32]>,
    /// The multiplier, or one for each column.
    pub multipliers: &'a [M],
    /// The codes that there are.
    pub codes: OutputCodes<Q>,
}

/// The sums as codes.
#[derive(Debug)]
pub(crate) struct Requantized<M, Q> {
    bias: Vec<i32>,
    multipliers: Vec<M>,
    codes: OutputCodes<Q>,
}

impl<M: Multiplier, Q: Code> Requantized<M, Q> {
    pub(crate) fn new(how: &Requantize<'_, M, Q>, columns: usize) -> Result<Self> {
        let Requantize {
            bias,
            multipliers,
            codes,
        } = *how;
        if let Some(bias) = bias {
            Error::check_length("the bias", bias.len(), columns)?;
        }
        Error::check_each("the multipliers", multipliers.len(), columns)?;
        // Any multiplier fills up the last panel; without columns there is no panel, nor need there be
        // a multiplier.
        let multipliers = match multipliers.first() {
            Some(&fill) => broadcast::panels(multipliers, columns, fill)?,
            None => Vec::new(),
        };
        Ok(Self {
            bias: broadcast::panels(bias.unwrap_or(&[0]), columns, 0)?,
            multipliers,
            codes,
        })
    }
}

impl<M: Multiplier, Q: Code> Output for Requantized<M, Q> {
    type Element = Q;

    #[inline(always)]
    fn elements(&self, _: usize, column: usize, sums: &Sums) -> [Q; PANEL] {
        let bias = &self.bias[column..column + PANEL];
        let multipliers = &self.multipliers[column..column + PANEL];
        let mut codes = [self.codes.zero_point(); PANEL];
        for (i, code) in codes.iter_mut().enumerate() {
            *code = multipliers[i].code(sums[i].saturating_add(bias[i]), self.codes);
        }
        codes
    }
}
