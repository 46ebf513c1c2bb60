//! Products of a matrix of activations with a packed one.

use std::ops::Range;

use crate::codes::Matrix;
use crate::error::{Error, Result};
use crate::kernel::{Engine, MAX_CELLS, Operands, PANEL, QUAD, Sums, Tiles};
use crate::output::{Dequantize, Floats, Integers, Output, Requantize, Requantized};
use crate::packed::PackedMatrix;
use crate::requantize::{Code, Multiplier};
use crate::tiled::Tiled;
use crate::walk::{self, Job};
use crate::window::{Memory, Window};

impl PackedMatrix {
    /// The exact product: out\[i, j\] = Σ_k (a\[i, k\] − z_a\[i\]) · (b\[k, j\] − z_b\[j\]), row by row.
    ///
    /// # Errors
    /// [`Error::Depth`]; [`Error::Length`]; [`Error::Overflow`] where a sum might not fit into `i32`.
    pub fn multiply(&self, left: &Matrix<'_>, out: &mut [i32]) -> Result<()> {
        self.run(Engine::active(), left, &Integers, out)
    }

    /// The product as floats: [`multiply`](Self::multiply)'s sums, scaled as `scales` says.
    ///
    /// # Errors
    /// The errors of [`multiply`](Self::multiply), and [`Error::Each`] for scales or a bias of another length.
    pub fn multiply_dequantized(
        &self,
        left: &Matrix<'_>,
        scales: &Dequantize<'_>,
        out: &mut [f32],
    ) -> Result<()> {
        self.write_dequantized(left, scales, out)
    }

    /// [`multiply_dequantized`](Self::multiply_dequantized) into memory that may not be initialized; all of
    /// it is where the result is Ok.
    pub(crate) fn write_dequantized<'o>(
        &self,
        left: &Matrix<'_>,
        scales: &Dequantize<'_>,
        out: impl Into<Memory<'o, f32>>,
    ) -> Result<()> {
        let output = Floats::new(scales, left.rows(), self.columns())?;
        self.run(Engine::active(), left, &output, out)
    }

    /// The product as 8-bit codes: [`multiply`](Self::multiply)'s sums, requantized as `how` says.
    ///
    /// # Errors
    /// The errors of [`multiply`](Self::multiply), and for a bias or multipliers of another length.
    pub fn multiply_requantized<M: Multiplier, Q: Code>(
        &self,
        left: &Matrix<'_>,
        how: &Requantize<'_, M, Q>,
        out: &mut [Q],
    ) -> Result<()> {
        let output = Requantized::new(how, self.columns())?;
        self.run(Engine::active(), left, &output, out)
    }

    /// The product on one engine: so that tests can run them all. All of `out` is initialized where the
    /// result is Ok.
    pub(crate) fn run<'o, O: Output>(
        &self,
        engine: Engine,
        left: &Matrix<'_>,
        output: &O,
        out: impl Into<Memory<'o, O::Element>>,
    ) -> Result<()>
    where
        O::Element: 'o,
    {
        let out = Window::new(left.rows(), self.columns(), out.into())?;
        if left.depth() != self.depth() {
            return Err(Error::Depth {
                left: left.depth(),
                right: self.depth(),
            });
        }
        let bound = self.magnitude().saturating_mul(left.magnitude());
        if bound > i32::MAX as u64 {
            return Err(Error::Overflow {
                depth: self.depth(),
                bound,
            });
        }
        if left.rows() == 0 || self.columns() == 0 {
            // However many there are of the other.
            return Ok(());
        }
        let sums_over = self.has_zero_points().then_some(self.depth());
        let left = Tiled::new(left, sums_over, engine.left_format())?;
        let job = Product {
            right: self,
            output,
        };
        walk::run(engine, &left, &job, out);
        Ok(())
    }
}

/// A product with a packed matrix.
struct Product<'a, O> {
    right: &'a PackedMatrix,
    output: &'a O,
}

impl<O: Output> Job for Product<'_, O> {
    type Element = O::Element;

    fn panels(&self) -> usize {
        self.right.columns().div_ceil(PANEL)
    }

    #[inline(always)]
    fn tile<A: Tiles>(
        &self,
        arch: A,
        left: &Tiled,
        tile: usize,
        panels: Range<usize>,
        out: &mut Window<'_, O::Element>,
    ) {
        let mut sums = [[0; PANEL]; MAX_CELLS];
        let rows = left.rows_of(tile);
        let mut panel = panels.start;
        while panel < panels.end {
            let width = match A::panels(rows.len()) {
                width if width <= panels.end - panel => width,
                _ => 1,
            };
            let lines = left.depth / QUAD;
            let operands = Operands {
                left: left.quads_of(tile),
                right: self.right.panels_from(panel),
                right_stride: lines,
                lines,
            };
            arch.tile::<false>(rows.len(), width, operands, &mut sums);
            for column in 0..width {
                let sums = sums[column..].iter().step_by(width);
                self.finish(left, rows.clone(), panel + column, sums, out);
            }
            panel += width;
        }
    }
}

impl<O: Output> Product<'_, O> {
    /// Takes the zero points into account, and writes the sums of some rows over a panel.
    #[inline(always)]
    fn finish<'s>(
        &self,
        left: &Tiled,
        rows: Range<usize>,
        panel: usize,
        sums: impl Iterator<Item = &'s Sums>,
        out: &mut Window<'_, O::Element>,
    ) {
        let right_sums = &self.right.sums()[panel];
        let right_zeros = &self.right.zero_points()[panel];
        let column = panel * PANEL;
        for (row, sums) in rows.zip(sums) {
            let zero = left.zero_points[row];
            let mut exact = without_zero_point(sums, zero, right_sums);
            if let Some(&left) = left.sums.get(row) {
                exact = without_zero_point(&exact, left, right_zeros);
            }
            out.write(row, column, &self.output.elements(row, column, &exact));
        }
    }
}

/// A step of Σ (a − z_a)(b − z_b) = Σ ab − z_a·Σ(b − z_b) − z_b·Σa, all of it modulo 2^32: the sums
/// less `left` times `right`.
#[inline(always)]
pub(crate) fn without_zero_point(sums: &Sums, left: i32, right: &Sums) -> Sums {
    let mut less = *sums;
    for (sum, right) in less.iter_mut().zip(right) {
        *sum = sum.wrapping_sub(left.wrapping_mul(*right));
    }
    less
}

#[cfg(test)]
mod tests {
    use chopi_kernels::Isa;
    use proptest::prelude::*;

    use super::*;
    use crate::codes::CodeSlice;
    use crate::packed::Order;
    use crate::requantize::{DoubleRounded, FixedMultiplier, OutputCodes, requantize_row};

    /// Every engine of this CPU.
    fn engines() -> Vec<Engine> {
        let there = Isa::ALL.into_iter().filter(|isa| isa.is_available());
        there.flat_map(Engine::of).collect()
    }

    /// A matrix of codes of either type.
    #[derive(Clone, Debug)]
    enum Owned {
        U8(Vec<u8>),
        I8(Vec<i8>),
    }

    impl Owned {
        fn codes(&self) -> CodeSlice<'_> {
            match self {
                Self::U8(codes) => codes[..].into(),
                Self::I8(codes) => codes[..].into(),
            }
        }

        fn at(&self, i: usize) -> i64 {
            match self {
                Self::U8(codes) => codes[i].into(),
                Self::I8(codes) => codes[i].into(),
            }
        }
    }

    /// Codes of either type, of which many are the smallest or the largest.
    fn codes(len: usize) -> impl Strategy<Value = Owned> {
        let unsigned = prop_oneof![any::<u8>(), Just(0), Just(255)];
        let signed = prop_oneof![any::<i8>(), Just(-128), Just(127)];
        prop_oneof![
            prop::collection::vec(unsigned, len).prop_map(Owned::U8),
            prop::collection::vec(signed, len).prop_map(Owned::I8),
        ]
    }

    /// One zero point or one for each.
    fn zero_points(len: usize) -> impl Strategy<Value = Vec<i32>> {
        let zero = || prop_oneof![Just(0), Just(128), -128..=255, -70_000..=70_000];
        prop_oneof![
            prop::collection::vec(zero(), 1),
            prop::collection::vec(zero(), len)
        ]
    }

    #[derive(Clone, Debug)]
    struct Case {
        shape: (usize, usize, usize),
        order: Order,
        left: Owned,
        left_zeros: Vec<i32>,
        right: Owned,
        right_zeros: Vec<i32>,
    }

    impl Case {
        fn packed(&self) -> PackedMatrix {
            let ((_, depth, columns), codes) = (self.shape, self.right.codes());
            PackedMatrix::new(codes, depth, columns, self.order, &self.right_zeros).unwrap()
        }

        fn matrix(&self) -> Matrix<'_> {
            let (rows, depth, _) = self.shape;
            Matrix::new(self.left.codes(), rows, depth, &self.left_zeros).unwrap()
        }

        /// The definition, in 64 bits.
        fn expected(&self) -> Vec<i64> {
            let (rows, depth, columns) = self.shape;
            let of = |zeros: &[i32], i: usize| i64::from(zeros[i % zeros.len()]);
            let sum = |i: usize, j: usize| {
                let product = |k: usize| {
                    let place = match self.order {
                        Order::DepthMajor => k * columns + j,
                        Order::ColumnMajor => j * depth + k,
                    };
                    let left = self.left.at(i * depth + k) - of(&self.left_zeros, i);
                    left * (self.right.at(place) - of(&self.right_zeros, j))
                };
                (0..depth).map(product).sum::<i64>()
            };
            (0..rows * columns)
                .map(|at| sum(at / columns, at % columns))
                .collect()
        }

        fn run(&self, engine: Engine) -> Result<Vec<i32>> {
            let (rows, _, columns) = self.shape;
            let mut out = vec![i32::MIN; rows * columns];
            self.packed()
                .run(engine, &self.matrix(), &Integers, &mut out[..])?;
            Ok(out)
        }
    }

    fn case(shape: (usize, usize, usize)) -> impl Strategy<Value = Case> {
        let (rows, depth, columns) = shape;
        let order = prop_oneof![Just(Order::DepthMajor), Just(Order::ColumnMajor)];
        let left = (codes(rows * depth), zero_points(rows));
        let right = (codes(depth * columns), zero_points(columns));
        (order, left, right).prop_map(move |(order, (left, left_zeros), (right, right_zeros))| {
            Case {
                shape,
                order,
                left,
                left_zeros,
                right,
                right_zeros,
            }
        })
    }

    proptest! {
        #[test]
        fn products_are_exact(
            case in (0_usize..30, 0_usize..40, 0_usize..150).prop_flat_map(case),
        ) {
            let expected = case.expected();
            for engine in engines() {
                match case.run(engine) {
                    Ok(sums) => {
                        let sums: Vec<i64> = sums.into_iter().map(i64::from).collect();
                        prop_assert_eq!(&sums, &expected, "{:?}", engine);
                    }
                    // Only zero points far outside the range of the codes can do this.
                    Err(Error::Overflow { bound, .. }) => prop_assert!(bound > i32::MAX as u64),
                    Err(other) => prop_assert!(false, "{}", other),
                }
            }
        }

        #[test]
        fn floats_are_the_sums_scaled(
            case in (1_usize..14, 1_usize..9, 1_usize..40).prop_flat_map(case),
            left_scale in 1e-3_f32..1e3,
            has_bias: bool,
            relu: bool,
        ) {
            let (rows, _, columns) = case.shape;
            let right_scales: Vec<f32> = (0..columns).map(|j| 0.5 + j as f32 / 7.0).collect();
            let bias: Vec<f32> = (0..columns).map(|j| j as f32 * 1.3 - 9.0).collect();
            let scales = Dequantize {
                left_scales: &[left_scale],
                right_scales: &right_scales,
                bias: has_bias.then_some(&bias[..]),
                clamp: relu.then_some((0.0, f32::INFINITY)),
            };
            let Ok(sums) = case.run(Engine::active()) else { return Ok(()) };
            for engine in engines() {
                let mut out = vec![f32::NAN; rows * columns];
                let floats = Floats::new(&scales, rows, columns).unwrap();
                case.packed()
                    .run(engine, &case.matrix(), &floats, &mut out[..])
                    .unwrap();
                for (at, (&y, &sum)) in out.iter().zip(&sums).enumerate() {
                    let mut expected = sum as f32 * (left_scale * right_scales[at % columns]);
                    if has_bias {
                        expected += bias[at % columns];
                    }
                    if relu && expected < 0.0 {
                        expected = 0.0;
                    }
                    prop_assert_eq!(y.to_bits(), expected.to_bits(), "{:?} at {}", engine, at);
                }
            }
        }
    }

    #[test]
    fn codes_are_the_sums_requantized() {
        let case = large((13, 57, 41));
        let sums = case.run(Engine::active()).unwrap();
        let real = |j: usize| 1e-3 / (1.0 + j as f64);
        let each: Vec<_> = (0..41)
            .map(|j| DoubleRounded(FixedMultiplier::from_real(real(j)).unwrap()))
            .collect();
        let bias: Vec<i32> = (0..41).map(|j| j * 1000 - 20_000).collect();
        let codes = OutputCodes::new(-5_i8).clamped(-100, 90).unwrap();
        for multipliers in [&each[..1], &each] {
            for bias in [None, Some(&bias[..])] {
                let how = Requantize {
                    bias,
                    multipliers,
                    codes,
                };
                for engine in engines() {
                    let mut out = vec![0; sums.len()];
                    let output = Requantized::new(&how, 41).unwrap();
                    case.packed()
                        .run(engine, &case.matrix(), &output, &mut out[..])
                        .unwrap();
                    for (row, sums) in out.chunks(41).zip(sums.chunks(41)) {
                        let mut expected = [0; 41];
                        requantize_row(sums, bias, multipliers, codes, &mut expected).unwrap();
                        assert_eq!(row, expected, "{engine:?}");
                    }
                }
            }
        }
    }

    /// A product with a little of everything, made by a formula.
    fn large(shape: (usize, usize, usize)) -> Case {
        let (rows, depth, columns) = shape;
        let code = |i: usize| (i.wrapping_mul(2_654_435_761) >> 7) as u8;
        Case {
            shape,
            order: Order::ColumnMajor,
            left: Owned::U8((0..rows * depth).map(code).collect()),
            left_zeros: (0..rows).map(|i| i as i32 % 256).collect(),
            right: Owned::I8((0..columns * depth).map(|i| code(i + 99) as i8).collect()),
            right_zeros: (0..columns).map(|j| j as i32 % 200 - 100).collect(),
        }
    }

    #[test]
    fn large_and_odd_shapes_are_exact_on_every_engine_and_any_number_of_threads() {
        for shape in [
            (67, 513, 131),
            (1, 1031, 257),
            (5, 4099, 19),
            (259, 33, 7),
            (300, 100, 300),
        ] {
            let case = large(shape);
            let expected = case.expected();
            for engine in engines() {
                let sums: Vec<i64> = case
                    .run(engine)
                    .unwrap()
                    .into_iter()
                    .map(i64::from)
                    .collect();
                assert!(sums == expected, "{engine:?} on {shape:?}");
            }
            #[cfg(feature = "rayon")]
            for threads in [1, 2, 5] {
                let pool = rayon::ThreadPoolBuilder::new()
                    .num_threads(threads)
                    .build()
                    .unwrap();
                let sums = pool.install(|| case.run(Engine::active())).unwrap();
                assert!(
                    sums.into_iter().map(i64::from).eq(expected.iter().copied()),
                    "{threads}"
                );
            }
        }
    }

    #[test]
    fn a_depth_at_which_32_bits_could_overflow_is_refused() {
        let product = |depth: usize| {
            let (left, right) = (vec![255_u8; depth], vec![-128_i8; depth]);
            let right = PackedMatrix::new(&right[..], depth, 1, Order::DepthMajor, &[0]).unwrap();
            let mut out = [0];
            let left = Matrix::new(&left[..], 1, depth, &[0]).unwrap();
            right.multiply(&left, &mut out).map(|()| out[0])
        };
        // 255 · 128 · 65,793 = 2^31 − 128.
        assert_eq!(product(65_793).unwrap(), -255 * 128 * 65_793);
        let error = product(65_794).unwrap_err().to_string();
        assert_eq!(
            error,
            "a sum of 65794 products can reach 2147516160, which 32 bits do not hold; split the depth, \
             or let the ranges include zero where zero points are far from the codes"
        );
    }

    #[test]
    fn operands_that_do_not_fit_are_refused() {
        let right = PackedMatrix::new(&[1_i8; 6][..], 3, 2, Order::DepthMajor, &[0]).unwrap();
        let left = Matrix::new(&[1_u8; 4][..], 1, 4, &[0]).unwrap();
        let error = |e: Result<()>| e.unwrap_err().to_string();
        assert_eq!(
            error(right.multiply(&left, &mut [0; 2])),
            "the left matrix has 4 columns, but the right one has 3 rows"
        );
        assert_eq!(
            error(right.multiply(&left, &mut [0; 3])),
            "the product has 3 elements, expected 2"
        );
        let left = Matrix::new(&[1_u8; 4][..], 2, 3, &[0])
            .unwrap_err()
            .to_string();
        assert_eq!(left, "the left matrix has 4 elements, expected 6");
        let zeros = Matrix::new(&[1_u8; 9][..], 3, 3, &[0, 1])
            .unwrap_err()
            .to_string();
        assert_eq!(
            zeros,
            "the zero points of the left matrix: there are 2, expected 1 or 3"
        );
    }
}
