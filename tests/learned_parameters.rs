//! Learned scales: where they start, and what their numbers mean.

use chopi::training::{GradientFactor, LearnedParams, least_squares, mean_magnitude};
use chopi::{
    Chopi, Convention, Error, Granularity, QParams, Scheme, SchemeFields,
    backend::{FloatType, Layout},
    observer::Ranges,
};
use ndarray::{Array2, ArrayView2};
use proptest::prelude::*;

const ROWS: usize = 3;
const COLUMNS: usize = 10;

fn scheme(bits: u32, symmetric: bool, granularity: Granularity) -> Scheme {
    let builder = Chopi::builder().num_bits(bits).symmetric(symmetric);
    builder.granularity(granularity).scheme().unwrap()
}

fn granularities() -> impl Strategy<Value = Granularity> {
    prop_oneof![
        Just(Granularity::PerTensor),
        Just(Granularity::PerChannel { axis: 0 }),
        Just(Granularity::PerChannel { axis: -1 }),
        Just(Granularity::PerGroup { axis: 1, size: 4 }),
    ]
}

/// The values of each group, in row-major order of the groups.
fn groups(x: ArrayView2<'_, f32>, granularity: Granularity) -> Vec<Vec<f64>> {
    let count = match granularity {
        Granularity::PerTensor => 1,
        Granularity::PerChannel { axis: 0 } => ROWS,
        Granularity::PerChannel { .. } => COLUMNS,
        Granularity::PerGroup { size, .. } => ROWS * COLUMNS.div_ceil(size),
    };
    let mut groups = vec![Vec::new(); count];
    for ((row, column), &x) in x.indexed_iter() {
        let group = match granularity {
            Granularity::PerTensor => 0,
            Granularity::PerChannel { axis: 0 } => row,
            Granularity::PerChannel { .. } => column,
            Granularity::PerGroup { size, .. } => row * COLUMNS.div_ceil(size) + column / size,
        };
        groups[group].push(f64::from(x));
    }
    groups
}

/// Σ(x − x̂)² of a group.
fn squared_error(x: &[f64], scheme: &Scheme, scale: f64, zero_point: f64) -> f64 {
    let (qmin, qmax) = (scheme.qmin as f64, scheme.qmax as f64);
    let value = |x: f64| {
        let q = (x / scale + zero_point).round_ties_even();
        (q.clamp(qmin, qmax) - zero_point) * scale
    };
    x.iter().map(|&x| (x - value(x)).powi(2)).sum()
}

/// The parameters of every part of the range that may be chosen.
fn candidates(x: &[f64], scheme: &Scheme) -> Vec<(f64, f64)> {
    let min = x.iter().copied().fold(f64::INFINITY, f64::min);
    let max = x.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let center = if min <= 0.0 && max >= 0.0 {
        0.0
    } else {
        min / 2.0 + max / 2.0
    };
    let of_tensor = scheme_of_tensor(scheme);
    let params = |part: f64| {
        let end = |end: f64| match part {
            1.0 => end,
            part => center + (end - center) * part,
        };
        let ends = ndarray::array![end(min) as f32, end(max) as f32];
        let ranges = Ranges::observe(&ends, Granularity::PerTensor).unwrap();
        QParams::from_ranges(&ranges, &of_tensor, &Convention::CHOPI).unwrap()
    };
    let parts = (1..=64).rev().map(|k| params(f64::from(k) / 64.0));
    parts
        .map(|params| (params.scale()[0], params.zero_point()[0] as f64))
        .collect()
}

fn scheme_of_tensor(scheme: &Scheme) -> Scheme {
    Scheme::new(SchemeFields {
        granularity: Granularity::PerTensor,
        ..**scheme
    })
    .unwrap()
}

fn values() -> impl Strategy<Value = Array2<f32>> {
    let value = prop_oneof![4 => -3_f32..3.0, 1 => Just(0.0), 1 => 20_f32..40.0];
    proptest::collection::vec(value, ROWS * COLUMNS)
        .prop_map(|v| Array2::from_shape_vec((ROWS, COLUMNS), v).unwrap())
}

proptest! {
    /// No candidate has a smaller error than the one that is chosen.
    #[test]
    fn least_squares_is_the_candidate_of_least_error(
        x in values(),
        bits in 2..9_u32,
        symmetric in any::<bool>(),
        granularity in granularities(),
    ) {
        let scheme = scheme(bits, symmetric, granularity);
        let params = least_squares(&x, &scheme, &Convention::CHOPI).unwrap();
        for (group, x) in groups(x.view(), granularity).iter().enumerate() {
            let chosen = (params.scale()[group], params.zero_point()[group] as f64);
            let candidates = candidates(x, &scheme);
            prop_assert!(candidates.contains(&chosen), "{chosen:?} of {candidates:?}");
            let error = |(s, z)| squared_error(x, &scheme, s, z);
            let least = candidates.into_iter().map(error).fold(f64::INFINITY, f64::min);
            // Values at a tie may go either way with x/s and x·(1/s): both are as far.
            prop_assert!(error(chosen) <= least * (1.0 + 1e-9) + 1e-12);
        }
    }

    /// 2·mean|x|/√qmax, rounded once.
    #[test]
    fn mean_magnitude_is_the_formula_of_lsq(
        x in values(),
        bits in 2..9_u32,
        symmetric in any::<bool>(),
        granularity in granularities(),
    ) {
        let scheme = scheme(bits, symmetric, granularity);
        let params = mean_magnitude(&x, &scheme, &Convention::CHOPI).unwrap();
        let observed = Ranges::observe(&x, granularity).unwrap();
        let observed = QParams::from_ranges(&observed, &scheme, &Convention::CHOPI).unwrap();
        prop_assert_eq!(params.zero_point(), observed.zero_point());
        for (group, x) in groups(x.view(), granularity).iter().enumerate() {
            let mean = x.iter().map(|x| x.abs()).sum::<f64>() / x.len() as f64;
            let expected = match 2.0 * mean / (scheme.qmax as f64).sqrt() {
                0.0 => observed.scale()[group],
                scale => scale,
            };
            let got = params.scale()[group];
            // The sum may be taken in another order.
            prop_assert!((got - expected).abs() <= expected * f64::from(f32::EPSILON));
        }
    }

    /// A view of the same values in another order of memory starts at the same numbers.
    #[test]
    fn starts_do_not_depend_on_strides(x in values(), granularity in granularities()) {
        let scheme = scheme(3, false, granularity);
        let fortran = Array2::from_shape_fn((COLUMNS, ROWS), |(j, i)| x[(i, j)]);
        let a = least_squares(&x, &scheme, &Convention::CHOPI).unwrap();
        let b = least_squares(&fortran.t(), &scheme, &Convention::CHOPI).unwrap();
        prop_assert_eq!(a, b);
    }
}

#[test]
fn two_bits_of_a_known_group_start_where_computed_by_hand() {
    // 1 and −1 lie on the codes at s = 1 and s = 0.5 alike for [−2, 1] only where nothing is clipped:
    // with 1 as the largest value that is the whole range.
    let x = ndarray::array![[1.0_f32, -1.0, 0.0, 1.0]];
    let scheme = scheme(2, true, Granularity::PerTensor);
    let params = least_squares(&x, &scheme, &Convention::CHOPI).unwrap();
    assert_eq!(
        (params.scale(), params.zero_point()),
        (&[1.0][..], &[0][..])
    );
    // mean|x| = 3/4 and qmax = 1.
    let params = mean_magnitude(&x, &scheme, &Convention::CHOPI).unwrap();
    assert_eq!(params.scale(), [1.5]);
}

#[test]
fn constant_and_tiny_groups_have_a_start() {
    let scheme = scheme(2, true, Granularity::PerChannel { axis: 0 });
    let x = ndarray::array![[0.0_f32, 0.0], [2.5, 2.5], [1e-45, 0.0]];
    for start in [least_squares, mean_magnitude] {
        let params = start(&x, &scheme, &Convention::CHOPI).unwrap();
        let smallest = f64::from(f32::MIN_POSITIVE);
        assert!(
            params
                .scale()
                .iter()
                .all(|&s| s.is_finite() && s >= smallest)
        );
        assert_eq!(params.scale()[0], 1.0);
    }
}

#[test]
fn what_the_parameters_of_a_range_refuse_is_refused() {
    let scheme = scheme(4, false, Granularity::PerTensor);
    for start in [least_squares, mean_magnitude] {
        let start = |x: &[f32]| {
            let x = ndarray::Array1::from(x.to_vec());
            start(&x, &scheme, &Convention::CHOPI).unwrap_err()
        };
        assert!(matches!(start(&[]), Error::Empty { .. }));
        assert!(matches!(start(&[1.0, f32::NAN]), Error::NonFinite { .. }));
    }
}

fn learned(scale: f64, zero_point: f64, convention: Convention) -> chopi::Result<LearnedParams> {
    let builder = Chopi::builder().num_bits(4).convention(convention);
    LearnedParams::new(
        &builder.scheme().unwrap(),
        &convention,
        FloatType::F32,
        &[1],
        (&[scale], &[zero_point]),
        GradientFactor::Lsq,
    )
}

#[test]
fn learned_numbers_are_floored_rounded_and_clamped_as_their_convention_says() {
    let numbers = |scale, zero_point, convention| {
        let params = learned(scale, zero_point, convention).unwrap();
        (params.params().scale()[0], params.params().zero_point()[0])
    };
    assert_eq!(numbers(0.5, 2.5, Convention::CHOPI), (0.5, 2));
    assert_eq!(numbers(0.5, 3.5, Convention::CHOPI), (0.5, 4));
    // Outside 0..=15: CHOPI takes it, PyTorch clamps it.
    assert_eq!(numbers(0.5, -40.2, Convention::CHOPI), (0.5, -40));
    assert_eq!(numbers(0.5, -40.2, Convention::TORCH_FAKE), (0.5, 0));
    let smallest = f64::from(f32::MIN_POSITIVE);
    for scale in [0.0, -3.0, 1e-300] {
        assert_eq!(numbers(scale, 0.0, Convention::CHOPI), (smallest, 0));
    }
    for scale in [f64::NAN, f64::INFINITY] {
        let error = learned(scale, 0.0, Convention::CHOPI).unwrap_err();
        assert!(matches!(error, Error::Scale { .. }), "{error}");
    }
    for convention in [Convention::CHOPI, Convention::TORCH_FAKE] {
        let error = learned(0.5, f64::NAN, convention).unwrap_err();
        assert!(matches!(error, Error::ZeroPoint { .. }), "{error}");
    }
}

#[test]
fn the_lsq_factor_counts_the_elements_of_each_group() {
    let factors = |granularity: Granularity, shape: &[usize], factor: GradientFactor| {
        let scheme = scheme(4, true, granularity);
        let of_params = granularity.params_shape(shape).unwrap();
        let groups = of_params.iter().product();
        let numbers = (vec![1.0; groups], vec![0.0; groups]);
        LearnedParams::new(
            &scheme,
            &Convention::CHOPI,
            FloatType::F32,
            &of_params,
            (&numbers.0, &numbers.1),
            factor,
        )
        .unwrap()
        .factors(&Layout::row_major(shape))
        .unwrap()
    };
    let lsq = |n: f64| 1.0 / (n * 7.0).sqrt();
    let (shape, axis) = ([2, 10], 1);
    assert_eq!(
        factors(Granularity::PerTensor, &shape, GradientFactor::Lsq),
        [lsq(20.0)]
    );
    assert_eq!(
        factors(
            Granularity::PerChannel { axis: 0 },
            &shape,
            GradientFactor::Lsq
        ),
        [lsq(10.0); 2]
    );
    let size = 4;
    let of_groups = [4.0, 4.0, 2.0, 4.0, 4.0, 2.0].map(lsq);
    assert_eq!(
        factors(
            Granularity::PerGroup { axis, size },
            &shape,
            GradientFactor::Lsq
        ),
        of_groups
    );
    assert_eq!(
        factors(
            Granularity::PerGroup { axis, size },
            &shape,
            GradientFactor::Fixed(0.5)
        ),
        [0.5; 6]
    );
    // Of nothing, nothing is to be counted.
    let empty = factors(
        Granularity::PerGroup { axis, size },
        &[2, 0],
        GradientFactor::Lsq,
    );
    assert!(empty.is_empty());
}

#[test]
fn gradients_of_another_shape_or_length_are_refused() {
    let params = learned(0.5, 0.0, Convention::CHOPI).unwrap();
    let layout = Layout::row_major(&[3]);
    for (x, dy) in [(2, 3), (3, 2)] {
        let error = params.gradients(&vec![1.0_f32; x], &vec![1.0; dy], &layout);
        assert!(matches!(
            error.unwrap_err(),
            Error::Elements { elements: 2, .. }
        ));
    }
    let none = params.gradients::<f32>(&[], &[], &Layout::row_major(&[0]));
    let none = none.unwrap();
    assert_eq!(
        (none.x, none.scale, none.zero_point),
        (vec![], vec![0.0], vec![0.0])
    );
}
