//! Ranges by what the codes in them cost, against a search of each group alone.

mod support;

use chopi_core::observer::Ranges;
use chopi_core::{Chopi, Convention, Granularity, QParams, Scheme, SchemeFields};
use chopi_ndarray::NdArray;
use chopi_ptq::{Error, half_quadratic_ranges, weighted_ranges};
use ndarray::{Array1, Array2};
use support::{Random, scheme, weights};

/// The values of one group under the parameters of a range.
fn values(
    w: &Array1<f32>,
    (low, high): (f64, f64),
    scheme: &Scheme,
    convention: &Convention,
) -> Array1<f64> {
    let scheme = Scheme::new(SchemeFields {
        granularity: Granularity::PerTensor,
        ..**scheme
    })
    .unwrap();
    let float = chopi_core::backend::FloatType::F32;
    let ranges = Ranges::from_ends(
        Granularity::PerTensor,
        float,
        &[w.len()],
        vec![low],
        vec![high],
    )
    .unwrap();
    let params = QParams::from_ranges(&ranges, &scheme, convention).unwrap();
    params
        .fake_quantize::<NdArray, _>(w)
        .unwrap()
        .mapv(f64::from)
}

fn weighted_error(w: &Array1<f32>, h: &Array1<f64>, values: &Array1<f64>) -> f64 {
    w.iter()
        .zip(h)
        .zip(values)
        .map(|((w, h), v)| h * (f64::from(*w) - v).powi(2))
        .sum()
}

fn norm(w: &Array1<f32>, values: &Array1<f64>) -> f64 {
    w.iter()
        .zip(values)
        .map(|(w, v)| (f64::from(*w) - v).abs().powf(0.7))
        .sum()
}

/// The groups of a matrix, each with its importance.
fn groups(w: &Array2<f32>, h: &[f64], granularity: Granularity) -> Vec<(Array1<f32>, Array1<f64>)> {
    let shape = granularity.params_shape(&[w.nrows(), w.ncols()]).unwrap();
    let group = |o: usize, j: usize| match granularity {
        Granularity::PerTensor => 0,
        Granularity::PerChannel { axis: 0 } => o,
        Granularity::PerChannel { .. } => j,
        Granularity::PerGroup { axis: 0, size } => o / size * shape[1] + j,
        Granularity::PerGroup { size, .. } => o * shape[1] + j / size,
    };
    let mut groups = vec![(Vec::new(), Vec::new()); shape.iter().product()];
    for ((o, j), w) in w.indexed_iter() {
        groups[group(o, j)].0.push(*w);
        groups[group(o, j)].1.push(h[j]);
    }
    groups
        .into_iter()
        .map(|(w, h)| (w.into(), h.into()))
        .collect()
}

/// The search as it is documented, for one group.
fn definition(w: &Array1<f32>, h: &Array1<f64>, scheme: &Scheme) -> (f64, f64) {
    let (min, max) = w
        .iter()
        .fold((f64::INFINITY, -f64::INFINITY), |(min, max), &w| {
            (min.min(w.into()), max.max(w.into()))
        });
    let symmetric = scheme.symmetry == chopi_core::Symmetry::Symmetric;
    let ends = |i: i32, j: i32| {
        let (i, j) = (f64::from(i), f64::from(j));
        let a = min.abs().max(max.abs()) * (1.0 - i / 64.0);
        match symmetric {
            _ if (i, j) == (0.0, 0.0) => (min, max),
            true => (min.max(-a).min(max), max.min(a).max(min)),
            false => (
                min + i / 64.0 * (max / 2.0 - min / 2.0),
                max - j / 64.0 * (max / 2.0 - min / 2.0),
            ),
        }
    };
    let (mut best, mut least) = ((0, 0), f64::INFINITY);
    let mut consider = |i: i32, j: i32, best: &mut (i32, i32)| {
        let (i, j) = (i.max(0), j.max(0));
        let error = weighted_error(w, h, &values(w, ends(i, j), scheme, &Convention::CHOPI));
        if error < least {
            (*best, least) = ((i, j), error);
        }
    };
    for i in 0..=12 {
        consider(4 * i, 4 * i, &mut best);
    }
    for step in [4, 2, 1] {
        if symmetric {
            for sign in [step, -step].into_iter().filter(|_| step < 4) {
                let (i, j) = best;
                consider(i + sign, j + sign, &mut best);
            }
        } else {
            for (di, dj) in [(step, 0), (-step, 0), (0, step), (0, -step)] {
                let (i, j) = best;
                consider(i + di, j + dj, &mut best);
            }
        }
    }
    ends(best.0, best.1)
}

fn schemes() -> Vec<Scheme> {
    let mut schemes = Vec::new();
    for symmetric in [true, false] {
        for bits in [2, 3, 4] {
            let builder = || Chopi::builder().num_bits(bits).symmetric(symmetric);
            schemes.push(scheme(builder().per_tensor()));
            schemes.push(scheme(builder().per_channel(0)));
            schemes.push(scheme(builder().per_channel(1)));
            schemes.push(scheme(builder().per_group(16, 1)));
            schemes.push(scheme(builder().per_group(7, 1)));
            schemes.push(scheme(builder().per_group(5, 0)));
        }
    }
    schemes
}

fn importance(channels: usize) -> Vec<f64> {
    let mut random = Random::new(9);
    (0..channels)
        .map(|j| {
            if j == 2 {
                0.0
            } else {
                random.normal().powi(2) + 0.01
            }
        })
        .collect()
}

#[test]
fn weighted_ranges_are_those_of_a_search_of_each_group_alone() {
    let (w, h) = (weights(23, 40, 1), importance(40));
    for scheme in schemes() {
        let ranges = weighted_ranges(&w, &h, &scheme, &Convention::CHOPI).unwrap();
        for (index, (w, h)) in groups(&w, &h, scheme.granularity).iter().enumerate() {
            let got = (ranges.min()[index], ranges.max()[index]);
            let expected = definition(w, h, &scheme);
            // Sums in another order may choose another of two ranges with about the same error.
            let error = |ends| weighted_error(w, h, &values(w, ends, &scheme, &Convention::CHOPI));
            let equal = (error(got) - error(expected)).abs() <= 1e-12 * error(expected);
            assert!(
                got == expected || equal,
                "{scheme:?} group {index}: {got:?} {expected:?}"
            );
        }
    }
}

#[test]
fn weighted_ranges_are_never_worse_than_all_values_and_mostly_better() {
    let (w, h) = (weights(30, 64, 2), importance(64));
    for scheme in schemes() {
        for convention in [
            Convention::CHOPI,
            Convention::ONNX,
            Convention::COMPRESSED_TENSORS,
            Convention::AQT,
        ] {
            let ranges = weighted_ranges(&w, &h, &scheme, &convention);
            let ranges = match ranges {
                Err(Error::Core(chopi_core::Error::Unsupported { .. })) => {
                    assert_ne!(convention, Convention::CHOPI);
                    continue;
                }
                ranges => ranges.unwrap(),
            };
            let (mut before, mut after) = (0.0, 0.0);
            for (index, (w, h)) in groups(&w, &h, scheme.granularity).iter().enumerate() {
                let all = w
                    .iter()
                    .fold((f64::INFINITY, -f64::INFINITY), |(min, max), &w| {
                        (min.min(w.into()), max.max(w.into()))
                    });
                let error = |ends| weighted_error(w, h, &values(w, ends, &scheme, &convention));
                let (old, new) = (
                    error(all),
                    error((ranges.min()[index], ranges.max()[index])),
                );
                assert!(
                    new <= old * (1.0 + 1e-12),
                    "{scheme:?} {convention:?} {index}: {new} {old}"
                );
                before += old;
                after += new;
            }
            assert!(
                after < before,
                "{scheme:?} {convention:?}: {after} {before}"
            );
        }
    }
}

#[test]
fn half_quadratic_ranges_are_never_worse_in_their_norm_and_better_in_sum() {
    let (w, mut better) = (weights(30, 64, 3), 0);
    for scheme in schemes() {
        let ranges = half_quadratic_ranges(&w, &scheme, &Convention::CHOPI).unwrap();
        let (mut before, mut after) = (0.0, 0.0);
        for (index, (w, _)) in groups(&w, &[1.0; 64], scheme.granularity)
            .iter()
            .enumerate()
        {
            let all = w
                .iter()
                .fold((f64::INFINITY, -f64::INFINITY), |(min, max), &w| {
                    (min.min(w.into()), max.max(w.into()))
                });
            let error = |ends| norm(w, &values(w, ends, &scheme, &Convention::CHOPI));
            let (old, new) = (
                error(all),
                error((ranges.min()[index], ranges.max()[index])),
            );
            assert!(
                new <= old * (1.0 + 1e-12),
                "{scheme:?} {index}: {new} {old}"
            );
            before += old;
            after += new;
        }
        assert!(after <= before, "{scheme:?}: {after} {before}");
        better += usize::from(after < before);
    }
    assert!(2 * better > schemes().len(), "{better} schemes are better");
}

#[test]
fn constant_groups_and_zeros_keep_their_ranges() {
    let mut w = weights(4, 8, 4);
    w.row_mut(0).fill(0.0);
    w.row_mut(1).fill(0.7);
    for scheme in schemes() {
        for ranges in [
            weighted_ranges(&w, &[1.0; 8], &scheme, &Convention::CHOPI).unwrap(),
            half_quadratic_ranges(&w, &scheme, &Convention::CHOPI).unwrap(),
        ] {
            if scheme.granularity == (Granularity::PerChannel { axis: 0 }) {
                assert_eq!((ranges.min()[0], ranges.max()[0]), (0.0, 0.0));
                assert_eq!(
                    (ranges.min()[1], ranges.max()[1]),
                    (0.7_f32.into(), 0.7_f32.into())
                );
            }
        }
    }
}

#[test]
fn importances_that_are_none_are_refused() {
    let (w, scheme) = (weights(4, 8, 5), scheme(Chopi::builder().per_channel(0)));
    let said = |h: &[f64]| {
        weighted_ranges(&w, h, &scheme, &Convention::CHOPI)
            .unwrap_err()
            .to_string()
    };
    assert_eq!(said(&[1.0]), "1 importances given for 8 channels");
    let mut h = [1.0; 8];
    h[3] = -1.0;
    assert_eq!(
        said(&h),
        "the importance of channel 3 is -1.0, expected a finite number, at least 0"
    );
    let flat = ndarray::arr1(&[1.0_f32]);
    let error = weighted_ranges(&flat, &[1.0], &scheme, &Convention::CHOPI)
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("the weight has shape [1], expected [outputs, inputs]"),
        "{error}"
    );
}
