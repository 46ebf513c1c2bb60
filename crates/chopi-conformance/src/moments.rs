//! Second moments of layers' inputs, against their definition in integers.

use chopi_core::backend::{Compute, Float, bf16, f16};
use chopi_core::{Chopi, Convention};
use chopi_ptq::{Moments, quantize};

use crate::data::{Kind, Random};
use crate::{Fixture, Memory};

/// The rows that share exponents.
const PIECE: usize = 1 << 11;

/// Sums over rows, in quanta of 2^−64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sums {
    /// Σ x_i·x_j of channels i and j, row by row.
    pub products: Vec<i128>,
    /// Σ x of each channel.
    pub values: Vec<i128>,
    /// Σ |x| of each channel.
    pub magnitudes: Vec<i128>,
}

impl Sums {
    /// The sums that [`Moments`] defines, of rows of `channels` values.
    pub fn new(x: &[f64], channels: usize) -> Self {
        let mut sums = Self {
            products: vec![0; channels * channels],
            values: vec![0; channels],
            magnitudes: vec![0; channels],
        };
        for piece in x.chunks(PIECE * channels) {
            sums.add_piece(piece, channels);
        }
        sums
    }

    fn add_piece(&mut self, x: &[f64], channels: usize) {
        let rows: Vec<&[f64]> = x.chunks(channels).collect();
        let exponent = |j: usize| {
            let largest = rows.iter().fold(0.0_f64, |m, row| m.max(row[j].abs()));
            (-64..1025)
                .find(|&e| largest < f64::from(e).exp2())
                .unwrap_or(1025)
        };
        let exponents: Vec<i32> = (0..channels).map(exponent).collect();
        let integer = |row: &[f64], j: usize| {
            (row[j] * f64::from(21 - exponents[j]).exp2()).round_ties_even() as i128
        };
        let sum = |f: &dyn Fn(&[f64]) -> i128| rows.iter().map(|row| f(row)).sum::<i128>();
        for (i, e) in exponents.iter().enumerate() {
            self.values[i] += quanta(sum(&|row| integer(row, i)), e - 21);
            self.magnitudes[i] += quanta(sum(&|row| integer(row, i).abs()), e - 21);
            for (j, other) in exponents.iter().enumerate() {
                let products = sum(&|row| integer(row, i) * integer(row, j));
                self.products[i * channels + j] += quanta(products, e + other - 42);
            }
        }
    }
}

/// n·2^e in quanta of 2^−64: to the nearest, the even one of two.
fn quanta(n: i128, e: i32) -> i128 {
    let up = e + 64;
    if up >= 0 {
        return n << up;
    }
    // No sum of a piece is more than 2^53.
    let whole = 1_i128 << (-up).min(100);
    let (quotient, rest) = (n.div_euclid(whole), n.rem_euclid(whole));
    match (2 * rest).cmp(&whole) {
        std::cmp::Ordering::Less => quotient,
        std::cmp::Ordering::Greater => quotient + 1,
        std::cmp::Ordering::Equal => quotient + (quotient & 1),
    }
}

/// Checks moments against sums over so many rows.
///
/// # Panics
/// Where they differ.
pub fn check_moments(moments: &Moments, sums: &Sums, rows: usize) {
    let n = moments.channels();
    let mean = |sum: &i128| *sum as f64 / 64_f64.exp2() / rows as f64;
    assert_eq!(moments.rows(), rows as u64);
    let h = moments.second();
    for (index, products) in sums.products.iter().enumerate() {
        let (i, j) = (index / n, index % n);
        assert_eq!(h[(i, j)], mean(products), "H of {i} and {j}");
    }
    let diagonal: Vec<f64> = (0..n).map(|i| h[(i, i)]).collect();
    assert_eq!(moments.mean_square(), diagonal);
    assert_eq!(
        moments.mean(),
        sums.values.iter().map(mean).collect::<Vec<_>>()
    );
    assert_eq!(
        moments.mean_abs(),
        sums.magnitudes.iter().map(mean).collect::<Vec<_>>()
    );
}

/// Moments of tensors of every element type and memory layout are those of the definition, and so is what weights
/// become by them.
pub fn moments_are_those_of_the_definition<X: Fixture>() {
    run::<X, f32>();
    run::<X, f64>();
    run::<X, f16>();
    run::<X, bf16>();
}

fn run<X: Fixture, F: Float>() {
    let random = &mut Random::new(11);
    let memories = [
        Memory::RowMajor,
        Memory::Permuted(vec![2, 0, 1]),
        Memory::Permuted(vec![1, 2, 0]),
        Memory::Strided,
        Memory::Offset,
    ];
    for shape in [[1, 1, 1], [3, 5, 13], [3, 700, 3]] {
        let data: Vec<F> = Kind::Normal.elements(shape.iter().product(), random);
        let wide: Vec<f64> = data.iter().map(|x| x.widen().as_f64()).collect();
        let (rows, sums) = (shape[0] * shape[1], Sums::new(&wide, shape[2]));
        for memory in &memories {
            let mut moments = Moments::new(shape[2]).unwrap();
            moments.observe(&X::tensor(&data, &shape, memory)).unwrap();
            check_moments(&moments, &sums, rows);
        }
    }
    let (inputs, weights) = (
        Kind::Normal.elements::<F>(40 * 12, random),
        Kind::Normal.elements::<F>(7 * 12, random),
    );
    let mut moments = Moments::new(12).unwrap();
    moments
        .observe(&X::tensor(&inputs, &[40, 12], &Memory::RowMajor))
        .unwrap();
    let builder = Chopi::builder().num_bits(4).symmetric(true).per_group(4, 1);
    let (scheme, method) = (builder.scheme().unwrap(), "gptq+weighted".parse().unwrap());
    let codes = |memory| {
        let weights = X::tensor(&weights, &[7, 12], &memory);
        let done = quantize(&weights, &moments, &scheme, &Convention::CHOPI, &method).unwrap();
        assert!(done.error.chosen <= done.error.nearest);
        (X::codes::<F>(&done.codes), done.error)
    };
    let expected = codes(Memory::RowMajor);
    assert_eq!(expected.0.0, [7, 12]);
    for memory in [
        Memory::Permuted(vec![1, 0]),
        Memory::Strided,
        Memory::Offset,
    ] {
        assert_eq!(codes(memory), expected);
    }
}
