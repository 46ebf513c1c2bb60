//! Observers, calibrations and metrics on the tensors of real frameworks.

#[cfg(feature = "candle")]
use candle_core::{Device, Tensor};
use chopi::{
    Calibration, Chopi, Convention, Error, Granularity, Observer, Scheme,
    metrics::{compare, quantization_metrics},
    observer::{Histograms, Ranges},
};
use ndarray::{Array1, Array2, Array3, Axis, array};
use proptest::prelude::*;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rand_distr::{Distribution, StandardNormal};

const ALL: [Calibration; 4] = [
    Calibration::MinMax,
    Calibration::Percentile(99.9),
    Calibration::MeanSquaredError,
    Calibration::KullbackLeibler,
];

fn normal(count: usize, seed: u64) -> Vec<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    (0..count)
        .map(|_| StandardNormal.sample(&mut rng))
        .collect()
}

fn scheme(bits: u32, symmetric: bool) -> Scheme {
    let builder = Chopi::builder().num_bits(bits).symmetric(symmetric);
    builder.scheme().expect("the bits are in range")
}

fn observer(calibration: Calibration) -> Observer {
    Observer::new(scheme(8, false), Convention::CHOPI, calibration).expect("all is in range")
}

fn observed(calibration: Calibration, data: &[f32]) -> Observer {
    let mut observer = observer(calibration);
    observer
        .observe(&Array1::from(data.to_vec()))
        .expect("the data are finite");
    observer
}

#[test]
fn observers_of_1_2_7_and_64_pieces_merge_to_the_same_bits_in_any_order() {
    let data: Vec<f32> = normal(100_003, 1).iter().map(|x| x * x * x).collect();
    for calibration in ALL {
        let whole = observed(calibration, &data);
        for pieces in [1, 2, 7, 64] {
            let parts = data.chunks(data.len().div_ceil(pieces));
            let mut parts: Vec<Observer> = parts.map(|part| observed(calibration, part)).collect();
            // From the middle outwards, then as a tree.
            let mut merged = parts.remove(parts.len() / 2);
            while parts.len() > 1 {
                let other = parts.remove(parts.len() / 3);
                parts[0].merge(&other).unwrap();
                let first = parts.remove(0);
                merged.merge(&first).unwrap();
            }
            for rest in parts {
                merged.merge(&rest).unwrap();
            }
            assert_eq!(merged, whole, "{calibration}, {pieces} pieces");
            assert_eq!(merged.params().unwrap(), whole.params().unwrap());
        }
    }
}

#[test]
fn kl_clips_a_lone_outlier_of_a_million_normal_numbers() {
    let mut data = normal(1_000_000, 2);
    data[123_456] = 50.0;
    let x = Array1::from(data);
    let kl = Calibration::KullbackLeibler;
    let ranges = kl
        .observe(&x, &scheme(8, true), &Convention::CHOPI)
        .unwrap();
    let (min, max) = (ranges.min()[0], ranges.max()[0]);
    assert!((4.0..=8.0).contains(&max), "clips to {max}");
    assert!((-8.0..=-4.0).contains(&min), "clips to {min}");
}

/// Data without a tail, at many places, of values that spread evenly or crowd.
fn without_a_tail() -> Vec<(&'static str, Vec<f32>)> {
    let mut rng = StdRng::seed_from_u64(11);
    let mut uniform: Vec<f32> = (0..40_000).map(|_| rng.random()).collect();
    uniform.extend([0.0, 1.0]);
    let mut normal = normal(40_000, 12);
    normal.extend([-4.2, 4.2]);
    let of = |data: &[f32], f: fn(f32) -> f32| data.iter().map(|&x| f(x)).collect::<Vec<f32>>();
    let uniform = |f| of(&uniform, f);
    let normal = |f| of(&normal, f);
    vec![
        ("uniform", uniform(|u| 2.0 * u - 1.0)),
        ("uniform, all positive", uniform(|u| u)),
        ("uniform from 280 to 310", uniform(|u| 280.0 + 30.0 * u)),
        ("uniform from -310 to -280", uniform(|u| -280.0 - 30.0 * u)),
        ("uniform from -1 to 10", uniform(|u| 11.0 * u - 1.0)),
        (
            "uniform from 1e-30 to 2e-30",
            uniform(|u| 1e-30 + 1e-30 * u),
        ),
        ("uniform from 1e5 to 1e5 + 1", uniform(|u| 1e5 + u)),
        ("whole numbers", uniform(|u| (200.0 * u).round())),
        ("two heaps", uniform(|u| (u - 0.5).signum() * (5.0 + u))),
        ("nine of ten are 0", uniform(|u| (10.0 * u - 9.0).max(0.0))),
        (
            "999 of 1000 are 0",
            uniform(|u| (1000.0 * u - 999.0).max(0.0)),
        ),
        ("one in ten is the largest", uniform(|u| u.min(0.9))),
        ("normal", normal(|x| x)),
        ("normal at 100", normal(|x| 100.0 + x)),
        ("ReLU", normal(|x| x.max(0.0))),
        ("negative ReLU", normal(|x| x.min(0.0))),
        ("ReLU6", normal(|x| (3.0 * x).clamp(0.0, 6.0))),
        ("leaky ReLU", normal(|x| x.max(0.01 * x))),
        ("GELU", normal(|x| x / (1.0 + (-1.702 * x).exp()))),
        (
            "hard swish",
            normal(|x| x * (x + 3.0).clamp(0.0, 6.0) / 6.0),
        ),
        ("sigmoid", normal(|x| 1.0 / (1.0 + (-x).exp()))),
        ("tanh", normal(|x| (2.0 * x).tanh())),
        ("|x|", normal(f32::abs)),
        ("few", normal(|x| x)[..100].to_vec()),
        ("few of a ReLU", normal(|x| x.max(0.0))[..1_500].to_vec()),
    ]
}

#[test]
fn kl_is_never_far_below_minmax_on_data_without_a_tail() {
    for (name, data) in without_a_tail() {
        let x = Array1::from(data);
        for (bits, symmetric) in [
            (8, true),
            (8, false),
            (6, true),
            (4, true),
            (4, false),
            (2, false),
        ] {
            let scheme = scheme(bits, symmetric);
            let sqnr = |calibration: Calibration| {
                let ranges = calibration
                    .observe(&x, &scheme, &Convention::CHOPI)
                    .unwrap();
                let params =
                    chopi::QParams::from_ranges(&ranges, &scheme, &Convention::CHOPI).unwrap();
                quantization_metrics(&x, &params).unwrap()[0].sqnr_db()
            };
            let (kl, minmax) = (
                sqnr(Calibration::KullbackLeibler),
                sqnr(Calibration::MinMax),
            );
            let case = format!("{name}, {bits} bits, symmetric {symmetric}");
            assert!(
                kl >= minmax - 2.0,
                "{case}: {kl:.2} dB, minmax {minmax:.2} dB"
            );
        }
    }
}

#[test]
fn each_calibration_does_what_it_is_for() {
    let mut data = normal(50_000, 3);
    data[7] = 40.0;
    let x = Array1::from(data);
    for symmetric in [false, true] {
        for bits in [3, 4, 8] {
            let scheme = scheme(bits, symmetric);
            let mse = |calibration: Calibration| {
                let ranges = calibration
                    .observe(&x, &scheme, &Convention::CHOPI)
                    .unwrap();
                let params =
                    chopi::QParams::from_ranges(&ranges, &scheme, &Convention::CHOPI).unwrap();
                let metrics = quantization_metrics(&x, &params).unwrap();
                (metrics[0].mse(), metrics[0].saturated_share())
            };
            let (least, clipped) = mse(Calibration::MeanSquaredError);
            let (widest, none) = mse(Calibration::MinMax);
            assert_eq!(none, 0.0);
            assert!(least <= widest, "{bits} bits: {least} and {widest}");
            if bits <= 4 {
                assert!(
                    least < widest / 10.0 && clipped > 0.0,
                    "{bits} bits: {least}"
                );
                for other in [Calibration::Percentile(99.9), Calibration::KullbackLeibler] {
                    let (other, _) = mse(other);
                    assert!(least <= other * 1.001, "{bits} bits: {least} and {other}");
                }
            }
        }
    }
}

#[test]
fn asymmetric_ranges_are_as_good_as_those_of_a_search_over_all_pairs_of_ends() {
    // Dense from 0 to 1, with one value far out on each side.
    let mut data: Vec<f32> = (0..2_000).map(|i| i as f32 / 2_000.0).collect();
    data.extend([-8.0, 3.0]);
    let x = Array1::from(data);
    for bits in [3, 4, 6] {
        let scheme = scheme(bits, false);
        let error = |min: f64, max: f64| {
            let ends = ndarray::array![min as f32, max as f32];
            let mut chopi = Chopi::builder().num_bits(bits).build().unwrap();
            chopi.calibrate(&ends).unwrap();
            quantization_metrics(&x, chopi.params().unwrap()).unwrap()[0].mse()
        };
        let mut least = f64::INFINITY;
        for low in 0..=40 {
            for high in 1..=40 {
                least = least.min(error(-0.2 * f64::from(low), 0.075 * f64::from(high)));
            }
        }
        let mse = Calibration::MeanSquaredError;
        let ranges = mse.observe(&x, &scheme, &Convention::CHOPI).unwrap();
        let found = error(ranges.min()[0], ranges.max()[0]);
        assert!(found <= least * 1.02, "{bits} bits: {found}, not {least}");
    }
}

#[test]
fn percentiles_are_within_a_bin_of_numpys() {
    let data = normal(200_001, 4);
    let mut sorted = data.clone();
    sorted.sort_by(f32::total_cmp);
    let exact = |p: f64| {
        let position = 200_000.0 * (p / 100.0);
        let below = position.floor() as usize;
        let (a, b) = (
            f64::from(sorted[below]),
            f64::from(sorted[(below + 1).min(200_000)]),
        );
        a + (b - a) * (position - position.floor())
    };
    let histograms = Histograms::observe(&Array1::from(data), Granularity::PerTensor).unwrap();
    let histogram = &histograms.groups()[0];
    for p in [0.01, 1.0, 50.0, 99.0, 99.9, 99.99, 100.0] {
        let difference = (histogram.percentile(p) - exact(p)).abs();
        assert!(difference <= histogram.width(), "{p}: {difference}");
    }
}

#[test]
fn frameworks_and_memory_orders_observe_the_same() {
    let data = normal(6 * 40 * 10, 5);
    let array = Array3::from_shape_vec((6, 40, 10), data.clone()).unwrap();
    let turned = array.clone().permuted_axes([2, 0, 1]);
    let turned = turned
        .as_standard_layout()
        .into_owned()
        .permuted_axes([1, 2, 0]);
    assert_eq!(turned, array);
    #[cfg(feature = "candle")]
    let tensor = Tensor::from_vec(data, (6, 40, 10), &Device::Cpu).unwrap();
    for granularity in [
        Granularity::PerTensor,
        Granularity::PerChannel { axis: 0 },
        Granularity::PerChannel { axis: 1 },
        Granularity::PerChannel { axis: -1 },
        Granularity::PerGroup { axis: 1, size: 16 },
        Granularity::PerGroup { axis: -1, size: 4 },
    ] {
        let expected = Histograms::observe(&array, granularity).unwrap();
        assert_eq!(Histograms::observe(&turned, granularity).unwrap(), expected);
        #[cfg(feature = "candle")]
        assert_eq!(Histograms::observe(&tensor, granularity).unwrap(), expected);
    }
    let expected = Histograms::observe(&array, Granularity::PerChannel { axis: 1 }).unwrap();
    for (channel, histogram) in array.axis_iter(Axis(1)).zip(expected.groups()) {
        let channel = channel.to_owned();
        let one = Histograms::observe(&channel, Granularity::PerTensor).unwrap();
        assert_eq!(&one.groups()[0], histogram);
    }
}

#[test]
fn bad_data_are_refused_and_leave_what_was_seen() {
    for calibration in ALL {
        let mut observer = observer(calibration);
        assert!(matches!(observer.params(), Err(Error::NotCalibrated)));
        observer.observe(&ndarray::array![1.0_f32, 2.0]).unwrap();
        let before = observer.clone();
        let error = observer.observe(&ndarray::array![[1.0_f32, 5.0], [f32::NAN, 0.0]]);
        let error = error.unwrap_err().to_string();
        assert!(
            error.contains("the first of 1 is NaN at index [1, 0]"),
            "{error}"
        );
        assert!(matches!(
            observer.observe(&Array2::<f32>::zeros((0, 3))),
            Err(Error::Empty { .. })
        ));
        assert_eq!(observer, before);
    }
    let other = Observer::new(scheme(4, false), Convention::CHOPI, Calibration::MinMax).unwrap();
    let merged = observer(Calibration::MinMax).merge(&other);
    assert!(matches!(merged, Err(Error::MergeSettings)));
    for p in [50.0, 100.1, f64::NAN] {
        let percentile = Calibration::Percentile(p);
        let refused = Observer::new(scheme(8, true), Convention::CHOPI, percentile);
        assert!(matches!(refused, Err(Error::Percentile { .. })), "{p}");
    }
}

#[test]
fn metrics_of_channels_and_of_the_tensor_agree_across_frameworks() {
    let data = normal(60, 6);
    let x = Array2::from_shape_vec((6, 10), data.clone()).unwrap();
    #[cfg(feature = "candle")]
    let tensor = Tensor::from_vec(data, (6, 10), &Device::Cpu).unwrap();
    #[cfg(not(feature = "candle"))]
    let tensor = Array2::from_shape_vec((6, 10), data).unwrap();
    let mut chopi = Chopi::builder().num_bits(3).per_channel(0).build().unwrap();
    let y = chopi.fake_quantize(&x).unwrap();
    let channels = compare(&x, &y, Granularity::PerChannel { axis: 0 }).unwrap();
    let other = compare(&tensor, &y, Granularity::PerChannel { axis: 0 }).unwrap();
    let own = quantization_metrics(&tensor, chopi.params().unwrap()).unwrap();
    for ((a, b), c) in channels.iter().zip(&other).zip(&own) {
        assert_eq!(a.sqnr_db(), b.sqnr_db());
        assert_eq!(a.sqnr_db(), c.sqnr_db());
        assert_eq!(c.saturated_share(), 0.0);
    }
    let mut sum = channels[0].clone();
    channels[1..].iter().for_each(|channel| sum.merge(channel));
    let whole = &compare(&x, &y, Granularity::PerTensor).unwrap()[0];
    assert_eq!(sum.count(), 60);
    assert!((sum.sqnr_db() - whole.sqnr_db()).abs() < 1e-9);
    assert!(matches!(
        compare(&x, &y.t().to_owned(), Granularity::PerTensor),
        Err(Error::Compared { .. })
    ));
}

proptest! {
    #[test]
    fn ranges_lie_within_the_data(
        data in prop_oneof![
            proptest::collection::vec(prop_oneof![-1.0_f32..1.0, -1e3_f32..1e5, Just(0.0)], 1..200),
            // Of one sign, at a distance from zero.
            proptest::collection::vec(-71.5_f32..-63.5, 1..200),
            proptest::collection::vec(280.0_f32..310.0, 1..200),
        ],
        bits in 2_u32..9,
        symmetric: bool,
    ) {
        let x = Array1::from(data);
        for calibration in ALL {
            let scheme = scheme(bits, symmetric);
            let ranges = calibration.observe(&x, &scheme, &Convention::CHOPI).unwrap();
            let all = Ranges::observe(&x, Granularity::PerTensor).unwrap();
            prop_assert!(ranges.min()[0] >= all.min()[0] && ranges.max()[0] <= all.max()[0]);
            prop_assert!(ranges.min()[0] <= ranges.max()[0]);
            chopi::QParams::from_ranges(&ranges, &scheme, &Convention::CHOPI).unwrap();
        }
    }
}

#[cfg(feature = "serde")]
#[test]
fn saved_observers_go_on_to_the_bit() {
    let data = normal(5_000, 7);
    for calibration in ALL {
        let whole = observed(calibration, &data);
        let first = observed(calibration, &data[..1_234]);
        let json = serde_json::to_string(&first).unwrap();
        let mut saved: Observer = serde_json::from_str(&json).unwrap();
        assert_eq!(saved, first);
        saved
            .observe(&Array1::from(data[1_234..].to_vec()))
            .unwrap();
        assert_eq!(saved, whole, "{calibration}");
    }
    let broken = r#"{"exponent":0,"min":0.0,"max":2.5,"counts":[1,0]}"#;
    let error = serde_json::from_str::<chopi::observer::Histogram>(broken).unwrap_err();
    assert!(error.to_string().contains("2 counts for 3 bins"), "{error}");
}

/// The scales of rows are none of columns, although there are as many of them.
#[test]
fn ranges_of_another_granularity_are_refused() {
    let x = array![[1.0_f32, 20.0], [3.0, 0.5]];
    let granularities = [
        Granularity::PerTensor,
        Granularity::PerChannel { axis: 0 },
        Granularity::PerChannel { axis: 1 },
        Granularity::PerGroup { axis: 0, size: 2 },
        Granularity::PerGroup { axis: 0, size: 1 },
        Granularity::PerGroup { axis: 1, size: 2 },
    ];
    for of in granularities {
        let ranges = Ranges::observe(&x, of).unwrap();
        for granularity in granularities {
            let mut scheme = Chopi::builder();
            scheme = match granularity {
                Granularity::PerTensor => scheme.per_tensor(),
                Granularity::PerChannel { axis } => scheme.per_channel(axis),
                Granularity::PerGroup { axis, size } => scheme.per_group(size, axis),
            };
            let scheme = scheme.scheme().unwrap();
            let params = chopi::QParams::from_ranges(&ranges, &scheme, &Convention::CHOPI);
            match of == granularity {
                true => drop(params.unwrap()),
                false => assert_eq!(
                    params.unwrap_err().to_string(),
                    "the ranges are not those of this scheme, convention and calibration"
                ),
            }
        }
    }
    // The last axis by its other name.
    let ranges = Ranges::observe(&x, Granularity::PerChannel { axis: -1 }).unwrap();
    let scheme = Chopi::builder().per_channel(1).scheme().unwrap();
    chopi::QParams::from_ranges(&ranges, &scheme, &Convention::CHOPI).unwrap();
}
