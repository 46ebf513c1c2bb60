//! Emulated products and convolutions.

use chopi_core::backend::{repeated, try_collected};

use super::operand::{Channels, NamedOperand};
use super::{Accumulator, Matrix, Overflow, Tensor};
use crate::conv::ConvGeometry;
use crate::{Error, Result};

/// The product of a \[m, k\] and b \[k, n\], with a bias for each column: m·n sums, row-major, as the
/// [module](super) defines them.
///
/// # Errors
/// [`Error::Length`] and [`Error::Each`] where a slice does not have the length that the shapes say;
/// [`Error::OperandRange`], [`Error::OperandCode`] and [`Error::OperandZeroPoint`] for operands that
/// are not of 2 to 16 bits; [`Error::AccumulatorBias`] for a bias that the accumulator does not hold;
/// [`Error::AccumulatorOverflow`] for the first element that overflows an accumulator that reports
/// it.
pub fn matmul(
    a: &Matrix<'_>,
    b: &Matrix<'_>,
    bias: Option<&[i32]>,
    accumulator: Accumulator,
) -> Result<Vec<i32>> {
    let ((m, k), (rows, n)) = (a.shape, b.shape);
    Error::check_length("the number of rows of b", rows, k)?;
    let per_row = Channels { count: m, inner: k };
    let per_column = Channels { count: n, inner: 1 };
    let a = a.named("a").differences(area(m, k)?, &per_row)?;
    let b = b.named("b").differences(area(k, n)?, &per_column)?;
    let bias = initial(bias, n, accumulator)?;
    let mut sums = repeated(0, area(m, n)?)?;
    let mut wide = repeated(0, n)?;
    for (i, sums) in sums.chunks_exact_mut(n.max(1)).enumerate() {
        let row = RowOperands {
            a: &a[i * k..][..k],
            b: &b,
            bias: &bias,
        };
        row.sum(accumulator, (&mut wide, sums), |j| vec![i, j])?;
    }
    Ok(sums)
}

/// The convolution of an input with weights, with a bias for each output channel: the elements of the
/// output, row-major, as the [module](super) and [`conv`](crate::conv) define them.
///
/// # Errors
/// The errors of [`matmul`].
pub fn conv(
    input: &Tensor<'_>,
    weights: &Tensor<'_>,
    bias: Option<&[i32]>,
    geometry: &ConvGeometry,
    accumulator: Accumulator,
) -> Result<Vec<i32>> {
    let (depth, channels) = (geometry.depth(), geometry.group_channels());
    let one = Channels { count: 1, inner: 1 };
    let per_channel = Channels {
        count: geometry.out_channels(),
        inner: depth,
    };
    let input = input
        .named("the input")
        .differences(geometry.input_len(), &one)?;
    let weights = weights
        .named("the weights")
        .differences(geometry.weights_len(), &per_channel)?;
    let bias = initial(bias, geometry.out_channels(), accumulator)?;
    let positions = geometry.positions();
    let mut output = repeated(0, geometry.output_len())?;
    if output.is_empty() {
        // However many groups or images there are.
        return Ok(output);
    }
    let mut columns = repeated(0, depth.saturating_mul(channels))?;
    let (mut patch, mut sums) = (repeated(0, depth)?, repeated(0, channels)?);
    let mut wide = repeated(0, channels)?;
    for group in 0..geometry.groups() {
        let first = group * channels;
        for (c, kernel) in weights[first * depth..]
            .chunks_exact(depth.max(1))
            .take(channels)
            .enumerate()
        {
            for (t, &w) in kernel.iter().enumerate() {
                columns[t * channels + c] = w;
            }
        }
        for image in 0..geometry.batch() {
            for position in 0..positions {
                let range = position..position + 1;
                geometry.patches(&input, (image, group), range, 0, &mut patch);
                let row = RowOperands {
                    a: &patch,
                    b: &columns,
                    bias: &bias[first..first + channels],
                };
                row.sum(accumulator, (&mut wide, &mut sums), |c| {
                    geometry.output_index(image, first + c, position)
                })?;
                for (c, &sum) in sums.iter().enumerate() {
                    output[(image * geometry.out_channels() + first + c) * positions + position] =
                        sum;
                }
            }
        }
    }
    Ok(output)
}

impl<'a> Matrix<'a> {
    fn named(&self, name: &'static str) -> NamedOperand<'a> {
        let tensor = Tensor {
            codes: self.codes,
            range: self.range,
            zero_points: self.zero_points,
        };
        tensor.named(name)
    }
}

impl<'a> Tensor<'a> {
    fn named(&self, name: &'static str) -> NamedOperand<'a> {
        NamedOperand {
            name,
            codes: self.codes,
            range: self.range,
            zero_points: self.zero_points,
        }
    }
}

/// The number of elements of a matrix.
fn area(rows: usize, columns: usize) -> Result<usize> {
    rows.checked_mul(columns)
        .ok_or(Error::TooLarge { rows, columns })
}

/// s_0 of each column.
fn initial(bias: Option<&[i32]>, columns: usize, accumulator: Accumulator) -> Result<Vec<i64>> {
    let Some(bias) = bias else {
        return Ok(repeated(0, columns)?);
    };
    Error::check_length("the bias", bias.len(), columns)?;
    let held = |(column, &bias): (usize, &i32)| match accumulator.holds(bias.into()) {
        true => Ok(bias.into()),
        false => Err(Error::AccumulatorBias {
            column,
            bias,
            bits: accumulator.bits(),
        }),
    };
    try_collected(bias.iter().enumerate().map(held))
}

/// What a row of the product is computed from: of b all, row-major.
struct RowOperands<'a> {
    a: &'a [i32],
    b: &'a [i32],
    bias: &'a [i64],
}

impl RowOperands<'_> {
    /// Writes the sums of the row, in `all` before they are narrowed; `index` is the index of the output of
    /// a column.
    fn sum(
        &self,
        accumulator: Accumulator,
        (all, sums): (&mut [i64], &mut [i32]),
        index: impl Fn(usize) -> Vec<usize>,
    ) -> Result<()> {
        all.copy_from_slice(self.bias);
        match accumulator.overflow() {
            Overflow::Wrap => self.add(all, |sum| accumulator.wrap(sum)),
            Overflow::Saturate => self.add(all, |sum| accumulator.saturate(sum)),
            Overflow::Report => {
                let mut held = true;
                self.add(all, |sum| {
                    held &= accumulator.holds(sum);
                    accumulator.wrap(sum)
                });
                if !held {
                    self.report(accumulator, index)?;
                }
            }
        }
        for (sum, &wide) in sums.iter_mut().zip(&*all) {
            *sum = wide as i32;
        }
        Ok(())
    }

    /// One product after the other, for all columns at once.
    #[inline(always)]
    fn add(&self, sums: &mut [i64], mut hold: impl FnMut(i64) -> i64) {
        let columns = sums.len().max(1);
        for (&a, row) in self.a.iter().zip(self.b.chunks_exact(columns)) {
            for (sum, &b) in sums.iter_mut().zip(row) {
                *sum = hold(*sum + i64::from(a) * i64::from(b));
            }
        }
    }

    /// The first overflow of the first column that has one.
    fn report(&self, accumulator: Accumulator, index: impl Fn(usize) -> Vec<usize>) -> Result<()> {
        let columns = self.bias.len();
        for (column, &bias) in self.bias.iter().enumerate() {
            let mut value = bias;
            for (step, &a) in self.a.iter().enumerate() {
                value += i64::from(a) * i64::from(self.b[step * columns + column]);
                if !accumulator.holds(value) {
                    return Err(Error::AccumulatorOverflow {
                        index: index(column),
                        step,
                        value,
                        bits: accumulator.bits(),
                    });
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use chopi_core::backend::IntSlice;
    use proptest::prelude::*;

    use super::*;
    use crate::conv::im2col_tests::{geometries, indices, met, offset};

    /// An operand of up to 16 bits.
    #[derive(Clone, Debug)]
    struct Drawn {
        range: (i64, i64),
        codes: Vec<i64>,
        zero_points: Vec<i64>,
    }

    impl Drawn {
        fn zero_point(&self, channel: usize) -> i128 {
            self.zero_points[channel % self.zero_points.len()].into()
        }
    }

    fn drawn(len: usize, channels: usize) -> impl Strategy<Value = Drawn> {
        (2..=16_u32, any::<bool>(), any::<bool>()).prop_flat_map(move |(bits, signed, each)| {
            let qmin = if signed { -(1_i64 << (bits - 1)) } else { 0 };
            let range = (qmin, qmin + (1 << bits) - 1);
            let code = prop_oneof![3 => range.0..=range.1, 1 => Just(range.0), 1 => Just(range.1)];
            let zero_point = prop_oneof![4 => code.clone(), 1 => -(1_i64 << 30)..=1 << 30];
            let zero_points = if each && channels > 0 { channels } else { 1 };
            let codes = prop::collection::vec(code, len);
            (codes, prop::collection::vec(zero_point, zero_points)).prop_map(
                move |(codes, zero_points)| Drawn {
                    range,
                    codes,
                    zero_points,
                },
            )
        })
    }

    fn accumulators() -> impl Strategy<Value = Accumulator> {
        let widths = prop_oneof![Just(16), Just(24), Just(32), 2..=32_u32];
        let overflow =
            prop::sample::select(vec![Overflow::Wrap, Overflow::Saturate, Overflow::Report]);
        (widths, overflow).prop_map(|(bits, overflow)| Accumulator::new(bits, overflow).unwrap())
    }

    /// The definition: the sum, or the step and the value that overflow.
    fn definition(
        bias: i32,
        products: impl Iterator<Item = i128>,
        accumulator: Accumulator,
    ) -> std::result::Result<i128, (usize, i128)> {
        let size = 1_i128 << accumulator.bits();
        let (min, max) = (-size / 2, size / 2 - 1);
        let mut sum = i128::from(bias);
        for (step, product) in products.enumerate() {
            sum += product;
            if !(min..=max).contains(&sum) {
                sum = match accumulator.overflow() {
                    Overflow::Wrap => (sum - min).rem_euclid(size) + min,
                    Overflow::Saturate => sum.clamp(min, max),
                    Overflow::Report => return Err((step, sum)),
                };
            }
        }
        Ok(sum)
    }

    /// Compares with what the definition gives for each element of the output.
    fn compare(
        got: Result<Vec<i32>>,
        shape: &[usize],
        mut expected: impl FnMut(&[usize]) -> std::result::Result<i128, (usize, i128)>,
    ) {
        let all: Vec<_> = indices(shape)
            .into_iter()
            .map(|index| (expected(&index), index))
            .collect();
        match got {
            Ok(got) => {
                let all: Vec<_> = all.into_iter().map(|(sum, _)| sum.unwrap()).collect();
                assert_eq!(got.into_iter().map(i128::from).collect::<Vec<_>>(), all);
            }
            Err(Error::AccumulatorOverflow {
                index, step, value, ..
            }) => {
                let (first, _) = all.iter().find(|(_, at)| *at == index).unwrap();
                assert_eq!(*first, Err((step, value.into())));
                if shape.len() == 2 {
                    let first = all.iter().find(|(sum, _)| sum.is_err()).unwrap();
                    assert_eq!(first.1, index);
                }
            }
            Err(other) => panic!("{other}"),
        }
    }

    fn biases(columns: usize) -> impl Strategy<Value = Option<Vec<i32>>> {
        prop::option::of(prop::collection::vec(-2..2, columns))
    }

    proptest! {
        #[test]
        fn products_are_those_of_the_definition(
            (shape, a, b, bias) in (0..5_usize, 0..9_usize, 0..6_usize).prop_flat_map(|(m, k, n)| {
                (Just((m, k, n)), drawn(m * k, m), drawn(k * n, n), biases(n))
            }),
            accumulator in accumulators(),
        ) {
            let (m, k, n) = shape;
            let left = Matrix {
                codes: IntSlice::I64(&a.codes), shape: (m, k), range: a.range, zero_points: &a.zero_points,
            };
            let codes: Vec<i32> = b.codes.iter().map(|&q| q as i32).collect();
            let right = Matrix {
                codes: IntSlice::I32(&codes), shape: (k, n), range: b.range, zero_points: &b.zero_points,
            };
            let got = matmul(&left, &right, bias.as_deref(), accumulator);
            compare(got, &[m, n], |index| {
                let (i, j) = (index[0], index[1]);
                let products = (0..k).map(|t| {
                    let a_it = i128::from(a.codes[i * k + t]) - a.zero_point(i);
                    let b_tj = i128::from(b.codes[t * n + j]) - b.zero_point(j);
                    a_it * b_tj
                });
                definition(bias.as_ref().map_or(0, |bias| bias[j]), products, accumulator)
            });
        }

        #[test]
        fn convolutions_are_those_of_the_definition(
            (shapes, x, w, bias) in geometries().prop_flat_map(|shapes| {
                let len = |shape: &[usize]| shape.iter().product::<usize>();
                let (x, w, m) = (len(&shapes.0), len(&shapes.1), shapes.1[0]);
                (Just(shapes), drawn(x, 1), drawn(w, m), biases(m))
            }),
            accumulator in accumulators(),
        ) {
            let (input, weights, params) = &shapes;
            let geometry = ConvGeometry::new(input, weights, params).unwrap();
            let tensor = |drawn: &Drawn| (drawn.range, drawn.zero_points.clone());
            let ((x_range, x_zeros), (w_range, w_zeros)) = (tensor(&x), tensor(&w));
            let left = Tensor { codes: IntSlice::I64(&x.codes), range: x_range, zero_points: &x_zeros };
            let right = Tensor { codes: IntSlice::I64(&w.codes), range: w_range, zero_points: &w_zeros };
            let got = conv(&left, &right, bias.as_deref(), &geometry, accumulator);
            compare(got, &geometry.output_shape(), |index| {
                let (image, m) = (index[0], index[1]);
                let group = m / geometry.group_channels();
                let products = indices(&weights[1..]).into_iter().map(|k| {
                    let channel = group * weights[1] + k[0];
                    let at = met(input, params, (image, channel), &index[2..], &k[1..]);
                    let Some(at) = at else { return 0 };
                    let whole: Vec<usize> = [m].into_iter().chain(k).collect();
                    let w_mk = i128::from(w.codes[offset(weights, &whole)]) - w.zero_point(m);
                    (i128::from(x.codes[at]) - x.zero_point(0)) * w_mk
                });
                definition(bias.as_ref().map_or(0, |bias| bias[m]), products, accumulator)
            });
        }
    }

    #[test]
    fn operands_that_are_not_narrow_are_refused() {
        let accumulator = Accumulator::new(32, Overflow::Wrap).unwrap();
        let run = |codes: &[i64], range, zero_points: &[i64], bias: Option<&[i32]>| {
            let matrix = Matrix {
                codes: IntSlice::I64(codes),
                shape: (1, 1),
                range,
                zero_points,
            };
            matmul(&matrix, &matrix, bias, accumulator)
                .unwrap_err()
                .to_string()
        };
        let wide = "the codes of a are to lie in 0..=65536, expected 2 to 16 bits: two to 65536 \
                    integers of -32768..=65535";
        assert_eq!(run(&[0], (0, 65536), &[0], None), wide);
        assert_eq!(
            run(&[4], (0, 3), &[0], None),
            "the code at 0 of a is 4, expected 0..=3"
        );
        assert_eq!(
            run(&[0], (0, 3), &[(1 << 30) + 1], None),
            "the zero point 0 of a is 1073741825, expected at most 2^30 either way"
        );
        assert_eq!(
            run(&[0, 1], (0, 3), &[0], None),
            "a has 2 elements, expected 1"
        );
        assert_eq!(
            run(&[0], (0, 3), &[0, 0], None),
            "the zero points: there are 2, expected 1"
        );
        assert_eq!(
            run(&[0], (0, 3), &[0], Some(&[])),
            "the bias has 0 elements, expected 1"
        );
        assert!(matches!(
            Accumulator::new(33, Overflow::Wrap),
            Err(Error::AccumulatorBits { bits: 33 })
        ));
    }

    #[test]
    fn a_bias_that_the_accumulator_does_not_hold_is_refused() {
        let matrix = Matrix {
            codes: IntSlice::U8(&[1]),
            shape: (1, 1),
            range: (0, 3),
            zero_points: &[0],
        };
        let accumulator = Accumulator::new(16, Overflow::Saturate).unwrap();
        let error = matmul(&matrix, &matrix, Some(&[32768]), accumulator).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the bias of column 0 is 32768, which an accumulator of 16 bits does not hold"
        );
    }
}
