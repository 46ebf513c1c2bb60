//! Weights of few bits, with a scale for each group of depths.

use std::ops::Range;

use chopi_core::backend::{collected, repeated};

use crate::codes::{CodeSlice, Matrix};
use crate::error::{Error, Result};
use crate::kernel::{
    Engine, MAX_CELLS, Operands, PAIR, PANEL, Pairs, QUAD, QUAD_BYTES, Quad, Sums, Tiles,
};
use crate::output::{Dequantize, Floats};
use crate::tiled::Tiled;
use crate::walk::{self, Job};
use crate::window::{Memory, Window};

/// The right matrix of a product, \[depth, columns\], whose columns have a scale and a zero point for
/// each group of depths: weights of 4 bits, most often.
///
/// Codes of up to 4 bits take half a byte, and become bytes in the registers of the kernel.
#[derive(Clone, Debug)]
pub struct GroupedMatrix {
    depth: usize,
    columns: usize,
    /// The depths of a group; the last group may have fewer.
    group: usize,
    /// Whether two quads share 64 bytes.
    nibbles: bool,
    /// The panels one after the other, each with its groups; see [`kernel`](crate::kernel).
    lines: Vec<Quad>,
    /// The scales: for each panel, and each of its groups, one for each column, as the kernel reads them.
    /// The columns are filled up to whole panels.
    scales: Vec<f32>,
    /// In the order of the scales.
    terms: Terms,
    /// Whether a zero point is not 0, in terms of the codes that are kept.
    has_zeros: bool,
    /// The largest Σ |code − zero point| of a group.
    magnitude: u64,
}

/// The corrections that a product needs for each group and column beside the kept codes k = code − d: the sum
/// Σ (code − zero point), wrapped, and the zero point in terms of the kept codes, zero point − d.
#[derive(Clone, Debug)]
enum Terms {
    /// All of them in 16 bits, which halves what is read of small groups.
    Narrow(Vec<Pairs>),
    Wide(Vec<[[i32; 2]; PANEL]>),
}

impl Terms {
    /// In 16 bits where all of them fit.
    fn new(terms: Vec<[[i32; 2]; PANEL]>) -> Result<Self> {
        let fits = |&number: &i32| i16::try_from(number).is_ok();
        if !terms.as_flattened().as_flattened().iter().all(fits) {
            return Ok(Self::Wide(terms));
        }
        let narrow = terms
            .iter()
            .map(|terms| terms.map(|pair| pair.map(|number| number as i16)));
        Ok(Self::Narrow(collected(narrow)?))
    }
}

impl GroupedMatrix {
    /// Packs the codes of weights of shape \[columns, depth\], within `bounds`, in groups of `group`
    /// depths; scales and zero points have shape \[columns, ⌈depth/group⌉\].
    ///
    /// # Errors
    /// [`Error::Length`] where a length is another; [`Error::Group`] for groups that are not multiples
    /// of 8, unless there is but one; [`Error::Range`] for codes of more than 8 bits, and
    /// [`Error::Quantization`] for codes that are not within the bounds.
    pub fn new<'a>(
        codes: impl Into<CodeSlice<'a>>,
        bounds: (i32, i32),
        (columns, depth): (usize, usize),
        group: usize,
        scales: &[f32],
        zero_points: &[i32],
    ) -> Result<Self> {
        let codes = codes.into();
        let (qmin, qmax) = bounds;
        let (low, high) = codes.bounds();
        if qmin > qmax || qmin < low || qmax > high {
            let (qmin, qmax) = (qmin.into(), qmax.into());
            return Err(Error::Range {
                what: "the weights",
                qmin,
                qmax,
            });
        }
        if group == 0 || (!group.is_multiple_of(PAIR) && group < depth) {
            return Err(Error::Group { group });
        }
        let whole = depth
            .checked_next_multiple_of(PAIR)
            .unwrap_or(usize::MAX / PAIR * PAIR);
        let group = group.min(whole.max(PAIR));
        let groups = depth.div_ceil(group);
        Error::check_length(
            "the right matrix",
            codes.len(),
            columns.saturating_mul(depth),
        )?;
        Error::check_length(
            "the scales of the right matrix",
            scales.len(),
            columns.saturating_mul(groups),
        )?;
        let zeros = zero_points.len();
        Error::check_length(
            "the zero points of the right matrix",
            zeros,
            columns.saturating_mul(groups),
        )?;

        let nibbles = qmax - qmin < 16;
        // Nibbles are unsigned, and bytes are signed.
        let offset = match (nibbles, codes) {
            (true, _) => qmin,
            (false, CodeSlice::U8(_)) => 128,
            (false, CodeSlice::I8(_)) => 0,
        };
        let panels = columns.div_ceil(PANEL);
        // What overflows has no element, or more than memory holds.
        let of_groups = groups.saturating_mul(panels).saturating_mul(PANEL);
        let mut terms = repeated([[0; 2]; PANEL], of_groups / PANEL)?;
        let mut packed = Self {
            depth,
            columns,
            group,
            nibbles,
            lines: Vec::new(),
            scales: repeated(0.0, of_groups)?,
            terms: Terms::Wide(Vec::new()),
            has_zeros: zero_points.iter().any(|&zero| zero != offset),
            magnitude: 0,
        };
        let panel_lines = packed.lines_to(depth);
        let lines = panels.saturating_mul(panel_lines);
        packed.lines = repeated(Quad([0; QUAD_BYTES]), lines)?;
        // Without rows there is nothing to pack, however many columns there are.
        let filled = if depth == 0 { 0 } else { columns };
        for column in 0..filled {
            let panel = &mut packed.lines[column / PANEL * panel_lines..][..panel_lines];
            for g in 0..groups {
                let place = column * groups + g;
                let zero = i64::from(zero_points[place]);
                let (mut sum, mut magnitude) = (0, 0);
                for k in g * group..depth.min((g + 1) * group) {
                    let code = codes.at(column * depth + k);
                    if !(qmin..=qmax).contains(&code) {
                        let (code, qmin, qmax) = (code.into(), qmin.into(), qmax.into());
                        let index = vec![column, k];
                        let error = chopi_core::Error::Code {
                            index,
                            code,
                            qmin,
                            qmax,
                        };
                        return Err(Error::Quantization(error));
                    }
                    let byte = (code - offset) as i8;
                    let at = column % PANEL * QUAD + k % QUAD;
                    match nibbles {
                        false => panel[k / QUAD].0[at] = byte,
                        true => panel[k / PAIR].0[at] |= byte << (k / QUAD % 2 * 4),
                    }
                    let number = i64::from(code) - zero;
                    sum += number;
                    magnitude += number.unsigned_abs();
                }
                let (at, lane) = (column / PANEL * groups + g, column % PANEL);
                terms[at][lane] = [sum as i32, zero_points[place].wrapping_sub(offset)];
                packed.scales[at * PANEL + lane] = scales[place];
                packed.magnitude = packed.magnitude.max(magnitude);
            }
        }
        packed.terms = Terms::new(terms)?;
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

    /// The product as floats, row by row:
    ///
    /// out\[i, j\] = clamp((Σ_g S_g · s\[j, g\]) · s_a\[i\] + bias\[j\]), with
    /// S_g = Σ_{k in g} (a\[i, k\] − z_a\[i\]) · (b\[j, k\] − z\[j, g\])
    ///
    /// S_g is exact. The groups are added in order; each operation, and the conversion of S_g, is
    /// rounded to `f32`.
    ///
    /// # Errors
    /// [`Error::Depth`]; [`Error::Length`] and [`Error::Each`]; [`Error::Overflow`] where an S_g might
    /// not fit into `i32`.
    pub fn multiply_dequantized(
        &self,
        left: &Matrix<'_>,
        left_scales: &[f32],
        bias: Option<&[f32]>,
        clamp: Option<(f32, f32)>,
        out: &mut [f32],
    ) -> Result<()> {
        self.run(Engine::active(), left, left_scales, (bias, clamp), out)
    }

    /// The product on one engine, into memory that may not be initialized; all of it is, where the
    /// result is Ok.
    pub(crate) fn run<'o>(
        &self,
        engine: Engine,
        left: &Matrix<'_>,
        left_scales: &[f32],
        (bias, clamp): (Option<&[f32]>, Option<(f32, f32)>),
        out: impl Into<Memory<'o, f32>>,
    ) -> Result<()> {
        if left.depth() != self.depth {
            return Err(Error::Depth {
                left: left.depth(),
                right: self.depth,
            });
        }
        let bound = self.magnitude.saturating_mul(left.magnitude());
        if bound > i32::MAX as u64 {
            return Err(Error::Overflow {
                depth: self.group.min(self.depth),
                bound,
            });
        }
        // The scales of the columns are in the sums already.
        let scales = Dequantize {
            left_scales,
            right_scales: &[1.0],
            bias,
            clamp,
        };
        let output = Floats::new(&scales, left.rows(), self.columns)?;
        let out = Window::new(left.rows(), self.columns, out.into())?;
        if left.rows() == 0 || self.columns == 0 {
            return Ok(());
        }
        let sums_over = self.has_zeros.then_some(self.group);
        let left = Tiled::new(left, sums_over, engine.left_format())?;
        match self.nibbles {
            true => {
                let job = Product::<true> {
                    right: self,
                    output: &output,
                };
                walk::run(engine, &left, &job, out);
            }
            false => {
                let job = Product::<false> {
                    right: self,
                    output: &output,
                };
                walk::run(engine, &left, &job, out);
            }
        }
        Ok(())
    }

    /// How many lines of a panel hold the depths before this one, a multiple of [`PAIR`] or the last.
    fn lines_to(&self, depth: usize) -> usize {
        depth.div_ceil(PAIR) * if self.nibbles { 1 } else { 2 }
    }
}

/// A product with a grouped matrix.
struct Product<'a, const NIBBLES: bool> {
    right: &'a GroupedMatrix,
    output: &'a Floats<'a>,
}

impl<const NIBBLES: bool> Job for Product<'_, NIBBLES> {
    type Element = f32;

    fn panels(&self) -> usize {
        self.right.columns.div_ceil(PANEL)
    }

    #[inline(always)]
    fn tile<A: Tiles>(
        &self,
        arch: A,
        left: &Tiled,
        tile: usize,
        panels: Range<usize>,
        out: &mut Window<'_, f32>,
    ) {
        let right = self.right;
        let panel_lines = right.lines_to(right.depth);
        let rows = left.rows_of(tile);
        let quads = left.quads_of(tile);
        let groups = right.depth.div_ceil(right.group);
        let scales: &[[f32; PANEL]] = right.scales.as_chunks().0;
        let mut sums = [[0; PANEL]; MAX_CELLS];
        let mut panel = panels.start;
        while panel < panels.end {
            let width = match A::panels(rows.len()) {
                width if width <= panels.end - panel => width,
                _ => 1,
            };
            let mut totals = [[0.0; PANEL]; MAX_CELLS];
            for group in 0..groups {
                let first = group * right.group;
                let line = panel * panel_lines + right.lines_to(first);
                let operands = Operands {
                    left: &quads[rows.len() * (first / QUAD)..],
                    right: &right.lines[line..],
                    right_stride: panel_lines,
                    lines: right.lines_to((right.depth - first).min(right.group)),
                };
                arch.tile::<NIBBLES>(rows.len(), width, operands, &mut sums);
                for (at, row) in rows.clone().enumerate() {
                    let zero = left.zero_points[row];
                    let sum = left.sums.get(row * groups + group).copied().unwrap_or(0);
                    let narrow =
                        i16::try_from(zero).and_then(|zero| Ok([zero, i16::try_from(sum)?]));
                    for column in 0..width {
                        let cell = at * width + column;
                        let place = (panel + column) * groups + group;
                        let exact = match (&right.terms, narrow) {
                            (Terms::Narrow(terms), Ok(left)) => {
                                arch.without_pairs(&sums[cell], left, &terms[place])
                            }
                            (Terms::Narrow(terms), Err(_)) => {
                                let terms = terms[place].map(|pair| pair.map(i32::from));
                                without_terms(&sums[cell], [zero, sum], &terms)
                            }
                            (Terms::Wide(terms), _) => {
                                without_terms(&sums[cell], [zero, sum], &terms[place])
                            }
                        };
                        let scales = &scales[place];
                        for (i, total) in totals[cell].iter_mut().enumerate() {
                            *total += exact[i] as f32 * scales[i];
                        }
                    }
                }
            }
            for column in 0..width {
                let first = (panel + column) * PANEL;
                for (at, row) in rows.clone().enumerate() {
                    let totals = &totals[at * width + column];
                    out.write(row, first, &self.output.scaled(row, first, totals));
                }
            }
            panel += width;
        }
    }
}

/// Σ (a − z_a)(b − z_b) = Σ ab − z_a·Σ(b − z_b) − z_b·Σa of each column, all of it modulo 2^32: the sums
/// less what z_a and Σa, and the terms of the columns, make.
#[inline(always)]
fn without_terms(sums: &Sums, [zero, sum]: [i32; 2], terms: &[[i32; 2]; PANEL]) -> Sums {
    std::array::from_fn(|i| {
        let [right_sum, right_zero] = terms[i];
        let products = zero
            .wrapping_mul(right_sum)
            .wrapping_add(sum.wrapping_mul(right_zero));
        sums[i].wrapping_sub(products)
    })
}

#[cfg(test)]
mod tests {
    use chopi_kernels::Isa;
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    struct Case {
        rows: usize,
        depth: usize,
        columns: usize,
        group: usize,
        bounds: (i32, i32),
        left: Vec<i8>,
        left_zeros: Vec<i32>,
        right: Vec<i8>,
        scales: Vec<f32>,
        zeros: Vec<i32>,
    }

    impl Case {
        fn packed(&self) -> Result<GroupedMatrix> {
            let shape = (self.columns, self.depth);
            let (scales, zeros) = (&self.scales, &self.zeros);
            GroupedMatrix::new(
                &self.right[..],
                self.bounds,
                shape,
                self.group,
                scales,
                zeros,
            )
        }

        /// The definition, with its sums in 64 bits.
        fn expected(&self, left_scales: &[f32], bias: &[f32]) -> Vec<f32> {
            let groups = self.depth.div_ceil(self.group);
            let element = |i: usize, j: usize| {
                let mut total = 0.0;
                for g in 0..groups {
                    let depths = g * self.group..self.depth.min((g + 1) * self.group);
                    let sum: i64 = depths
                        .map(|k| {
                            let a = i32::from(self.left[i * self.depth + k]) - self.left_zeros[i];
                            let b = i32::from(self.right[j * self.depth + k]);
                            i64::from(a) * i64::from(b - self.zeros[j * groups + g])
                        })
                        .sum();
                    total += sum as f32 * self.scales[j * groups + g];
                }
                total * left_scales[i] + bias[j]
            };
            let places = 0..self.rows * self.columns;
            places
                .map(|at| element(at / self.columns, at % self.columns))
                .collect()
        }
    }

    fn cases() -> impl Strategy<Value = Case> {
        let bounds = prop::sample::select(vec![(-8, 7), (0, 15), (-7, 7), (-2, 1), (-128, 127)]);
        let depth = prop_oneof![9 => 1_usize..70, 1 => 70_usize..900];
        let shape = (1_usize..16, depth, 1_usize..70);
        let group = prop::sample::select(vec![8_usize, 16, 32, 128, 512]);
        (shape, group, bounds).prop_flat_map(|((rows, depth, columns), group, bounds)| {
            let count = columns * depth.div_ceil(group);
            (
                prop::collection::vec(any::<i8>(), rows * depth),
                prop::collection::vec(prop_oneof![9 => -128..=127, 1 => -40_000..=40_000], rows),
                prop::collection::vec(bounds.0 as i8..=bounds.1 as i8, columns * depth),
                prop::collection::vec(0.01..2.0_f32, count),
                prop::collection::vec(bounds.0..=bounds.1, count),
            )
                .prop_map(move |(left, left_zeros, right, scales, zeros)| Case {
                    rows,
                    depth,
                    columns,
                    group,
                    bounds,
                    left,
                    left_zeros,
                    right,
                    scales,
                    zeros,
                })
        })
    }

    proptest! {
        #[test]
        fn products_are_those_of_the_definition(case in cases()) {
            let left_scales: Vec<f32> = (0..case.rows).map(|i| 0.3 + i as f32 / 11.0).collect();
            let bias: Vec<f32> = (0..case.columns).map(|j| j as f32 / 3.0 - 5.0).collect();
            let expected = case.expected(&left_scales, &bias);
            let packed = case.packed().unwrap();
            let left =
                Matrix::new(&case.left[..], case.rows, case.depth, &case.left_zeros).unwrap();
            prop_assume!(packed.magnitude * left.magnitude() <= i32::MAX as u64);
            for isa in Isa::ALL.into_iter().filter(|isa| isa.is_available()) {
                for engine in Engine::of(isa) {
                    let mut out = vec![f32::NAN; expected.len()];
                    let add = (Some(&bias[..]), None);
                    packed.run(engine, &left, &left_scales, add, &mut out[..]).unwrap();
                    let bits = |values: &[f32]| values.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
                    prop_assert_eq!(bits(&out), bits(&expected), "{:?}", engine);
                }
            }
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let new = |codes: &[i8], bounds, group, scales: &[f32]| {
            let zeros = vec![0; scales.len()];
            let packed = GroupedMatrix::new(codes, bounds, (1, 16), group, scales, &zeros);
            packed.unwrap_err().to_string()
        };
        assert_eq!(
            new(&[9; 16], (-8, 7), 8, &[1.0; 2]),
            "the code at index [0, 0] is 9, expected -8..=7"
        );
        assert_eq!(
            new(&[0; 16], (-8, 7), 12, &[1.0; 2]),
            "groups of 12 depths, expected a multiple of 8"
        );
        assert_eq!(
            new(&[0; 16], (-8, 7), 8, &[1.0]),
            "the scales of the right matrix has 1 elements, expected 2"
        );
        assert_eq!(
            new(&[0; 16], (-8, 255), 8, &[1.0; 2]),
            "the weights are quantized to -8..=255, expected codes of 8 bits"
        );
    }
}
