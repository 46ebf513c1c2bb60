//! What becomes of the sums of a product.

use std::marker::PhantomData;
use std::mem::MaybeUninit;

use crate::broadcast;
use crate::error::{Error, Result};
use crate::kernel::{PANEL, Sums};
use crate::requantize::{Code, Multiplier, OutputCodes};

/// Takes the sums of a product, panel by panel.
pub(crate) trait Output: Sync {
    /// Writes the first `valid` of the sums of `row`, the columns from `column` on.
    ///
    /// # Safety
    /// The row and the columns are within the product, and no other thread writes them.
    unsafe fn write(&self, row: usize, column: usize, valid: usize, sums: &Sums);
}

/// The memory of a product, which threads write in parts that do not overlap. After the product,
/// every element is initialized.
#[derive(Debug)]
pub(crate) struct Shared<'a, T> {
    data: *mut T,
    columns: usize,
    life: PhantomData<&'a mut [MaybeUninit<T>]>,
}

// SAFETY: writing is unsafe, and whoever writes promises that nobody else has that part.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T: Copy> Shared<'a, T> {
    fn new(rows: usize, columns: usize, data: &'a mut [MaybeUninit<T>]) -> Result<Self> {
        Error::check_length("the product", data.len(), rows.saturating_mul(columns))?;
        Ok(Self {
            data: data.as_mut_ptr().cast(),
            columns,
            life: PhantomData,
        })
    }

    /// # Safety
    /// As [`Output::write`].
    #[inline(always)]
    unsafe fn write(&self, row: usize, column: usize, valid: usize, values: [T; PANEL]) {
        // SAFETY: the caller's.
        unsafe {
            let to = self.data.add(row * self.columns + column);
            if valid == PANEL {
                to.cast::<[T; PANEL]>().write_unaligned(values);
            } else {
                std::ptr::copy_nonoverlapping(values.as_ptr(), to, valid);
            }
        }
    }
}

/// Elements that a product overwrites, which takes them for memory that may not be initialized.
pub(crate) fn as_uninit<T>(out: &mut [T]) -> &mut [MaybeUninit<T>] {
    // SAFETY: the two have the same layout, and a product writes nothing but initialized elements.
    unsafe { &mut *(std::ptr::from_mut(out) as *mut [MaybeUninit<T>]) }
}

/// The sums as they are.
#[derive(Debug)]
pub(crate) struct Integers<'a>(Shared<'a, i32>);

impl<'a> Integers<'a> {
    pub(crate) fn new(
        rows: usize,
        columns: usize,
        out: &'a mut [MaybeUninit<i32>],
    ) -> Result<Self> {
        Ok(Self(Shared::new(rows, columns, out)?))
    }
}

impl Output for Integers<'_> {
    #[inline(always)]
    unsafe fn write(&self, row: usize, column: usize, valid: usize, sums: &Sums) {
        // SAFETY: the caller's.
        unsafe { self.0.write(row, column, valid, *sums) }
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
    out: Shared<'a, f32>,
    left_scales: &'a [f32],
    right_scales: Vec<f32>,
    bias: Vec<f32>,
    clamp: (f32, f32),
}

impl<'a> Floats<'a> {
    pub(crate) fn new(
        scales: &Dequantize<'a>,
        rows: usize,
        columns: usize,
        out: &'a mut [MaybeUninit<f32>],
    ) -> Result<Self> {
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
            out: Shared::new(rows, columns, out)?,
            left_scales,
            right_scales: broadcast::panels(right_scales, columns, 0.0).collect(),
            // x + (−0) is x, whatever x is.
            bias: broadcast::panels(bias.unwrap_or(&[-0.0]), columns, 0.0).collect(),
            clamp: clamp.unwrap_or(UNBOUNDED),
        })
    }
}

impl Output for Floats<'_> {
    #[inline(always)]
    unsafe fn write(&self, row: usize, column: usize, valid: usize, sums: &Sums) {
        // SAFETY: the caller's.
        unsafe { self.write_scaled(row, column, valid, &sums.map(|sum| sum as f32)) }
    }
}

impl Floats<'_> {
    /// Writes sums that are floats already.
    ///
    /// # Safety
    /// As [`Output::write`].
    #[inline(always)]
    pub(crate) unsafe fn write_scaled(
        &self,
        row: usize,
        column: usize,
        valid: usize,
        sums: &[f32; PANEL],
    ) {
        let left = broadcast::of(self.left_scales, row);
        let right = &self.right_scales[column..column + PANEL];
        let bias = &self.bias[column..column + PANEL];
        let mut values = [0.0; PANEL];
        for (i, value) in values.iter_mut().enumerate() {
            *value = clamped(sums[i] * (left * right[i]) + bias[i], self.clamp);
        }
        // SAFETY: the caller's.
        unsafe { self.out.write(row, column, valid, values) }
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
pub(crate) struct Requantized<'a, M, Q> {
    out: Shared<'a, Q>,
    bias: Vec<i32>,
    multipliers: Vec<M>,
    codes: OutputCodes<Q>,
}

impl<'a, M: Multiplier, Q: Code> Requantized<'a, M, Q> {
    pub(crate) fn new(
        how: &Requantize<'a, M, Q>,
        rows: usize,
        columns: usize,
        out: &'a mut [MaybeUninit<Q>],
    ) -> Result<Self> {
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
        let fill = multipliers.first().into_iter();
        let multipliers = fill.flat_map(|&fill| broadcast::panels(multipliers, columns, fill));
        Ok(Self {
            out: Shared::new(rows, columns, out)?,
            bias: broadcast::panels(bias.unwrap_or(&[0]), columns, 0).collect(),
            multipliers: multipliers.collect(),
            codes,
        })
    }
}

impl<M: Multiplier, Q: Code> Output for Requantized<'_, M, Q> {
    #[inline(always)]
    unsafe fn write(&self, row: usize, column: usize, valid: usize, sums: &Sums) {
        let bias = &self.bias[column..column + PANEL];
        let multipliers = &self.multipliers[column..column + PANEL];
        let mut codes = [self.codes.zero_point(); PANEL];
        for (i, code) in codes.iter_mut().enumerate() {
            *code = multipliers[i].code(sums[i].saturating_add(bias[i]), self.codes);
        }
        // SAFETY: the caller's.
        unsafe { self.out.write(row, column, valid, codes) }
    }
}
