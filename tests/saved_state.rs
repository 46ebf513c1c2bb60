//! Saved state that somebody has changed: it is refused, or it is state like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};

use chopi::backend::FloatType;
use chopi::model::ObservationPoints;
use chopi::observer::{Histogram, Histograms, MovingAverage, Ranges};
use chopi::training::{FakeQuantizer, Initialization, Learning, Phase, RangeObserver};
use chopi::{Calibration, Chopi, Convention, Granularity, Observer, QParams, Scheme};
use ndarray::{Array2, array};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

const CALIBRATIONS: [Calibration; 4] = [
    Calibration::MinMax,
    Calibration::Percentile(99.0),
    Calibration::MeanSquaredError,
    Calibration::KullbackLeibler,
];

/// Values close to each other, so that a histogram has few bins; those of the second row are all one.
fn tensor() -> Array2<f32> {
    let step = f32::EPSILON * 8.0;
    array![[1.0, 1.0 + step, 1.0 + 3.0 * step], [-2.0, -2.0, -2.0]]
}

fn schemes() -> Vec<(Scheme, Convention)> {
    let builders = [
        Chopi::builder(),
        Chopi::builder().num_bits(4).symmetric(true).per_channel(0),
        Chopi::builder().num_bits(3).per_group(2, -1),
        Chopi::builder().convention(Convention::PYCHOP_TORCH),
        Chopi::builder()
            .convention(Convention::TORCH)
            .per_channel(0),
    ];
    let built = builders.map(|builder| builder.build().unwrap());
    let parts = |chopi: &Chopi| (chopi.scheme().clone(), *chopi.convention());
    built.iter().map(parts).collect()
}

/// The values of JSON with one of its parts changed, and what was changed.
fn changed(saved: &Value) -> Vec<(String, Value)> {
    let mut changed = Vec::new();
    let mut paths = vec![String::new()];
    while let Some(path) = paths.pop() {
        let part = saved.pointer(&path).unwrap();
        let mut others = vec![Value::Null, json!("x"), json!([]), json!({}), json!(true)];
        match part {
            Value::Object(fields) => {
                for name in fields.keys() {
                    paths.push(format!("{path}/{name}"));
                    let mut fewer = fields.clone();
                    fewer.remove(name);
                    others.push(fewer.into());
                }
            }
            Value::Array(elements) => {
                paths.extend((0..elements.len()).map(|i| format!("{path}/{i}")));
                if let Some((last, fewer)) = elements.split_last() {
                    others.push(fewer.to_vec().into());
                    others.push([elements, std::slice::from_ref(last)].concat().into());
                    others.push(elements.iter().rev().cloned().collect());
                }
            }
            Value::Number(_) => {
                others.extend([
                    json!(0),
                    json!(0.0),
                    json!(-0.0),
                    json!(1),
                    json!(-1),
                    json!(40),
                ]);
                others.extend([1_u64 << 63, u64::MAX, 1 << 51, 1 << 31].map(Value::from));
                others.extend([i64::MIN, -(1 << 31)].map(Value::from));
                others.extend([1e308, -1e308, f64::MAX, 5e-324, 3e38, 0.5].map(Value::from));
            }
            Value::Bool(flag) => others.push((!flag).into()),
            Value::Null => others.extend([json!(0), json!(1e308)]),
            Value::String(_) => others.push(json!("")),
        }
        for other in others {
            let mut value = saved.clone();
            let text = format!("{path} is {other}");
            *value.pointer_mut(&path).unwrap() = other;
            changed.push((text, value));
        }
    }
    changed
}

/// Whatever of it is changed, it is refused, or it can be used.
fn check<T: DeserializeOwned>(state: &impl serde::Serialize, mut used: impl FnMut(T)) {
    let saved = serde_json::to_value(state).unwrap();
    used(serde_json::from_value(saved.clone()).unwrap());
    let (mut refused, mut taken) = (0, 0);
    for (change, value) in changed(&saved) {
        // As text, as it is saved.
        match serde_json::from_str::<T>(&value.to_string()) {
            Err(_) => refused += 1,
            Ok(state) => {
                taken += 1;
                let used = catch_unwind(AssertUnwindSafe(|| used(state)));
                assert!(used.is_ok(), "{}: {change}", std::any::type_name::<T>());
            }
        }
    }
    assert!(refused > 0 && taken > 0, "{refused} refused, {taken} taken");
}

/// Parameters that anybody may have made.
fn use_params(params: &QParams) {
    let scheme = params.scheme();
    assert!(scheme.qmin < scheme.qmax && (2..=32).contains(&scheme.bits));
    assert!(params.scale().iter().all(|s| *s > 0.0 && s.is_finite()));
    let groups: usize = params.shape().iter().product();
    let zero_points = params
        .real_zero_point()
        .map_or(params.zero_point().len(), |zeros| {
            assert!(zeros.iter().all(|z| z.is_finite()));
            zeros.len()
        });
    assert_eq!((params.scale().len(), zero_points), (groups, groups));
    for x in [tensor(), tensor().reversed_axes(), tensor() * 1e38] {
        if let Ok(codes) = params.quantize(&x) {
            let inside = |code: &i64| (scheme.qmin..=scheme.qmax).contains(code);
            assert!(codes.to_i64().iter().all(inside));
            let values = params.dequantize(&codes).unwrap();
            assert_eq!(values, params.fake_quantize(&x).unwrap());
        }
    }
}

fn use_scheme(scheme: &Scheme) {
    assert!(scheme.qmin < scheme.qmax && (2..=32).contains(&scheme.bits));
    for convention in [Convention::CHOPI, Convention::TORCH_FAKE] {
        for calibration in CALIBRATIONS {
            if let Ok(ranges) = calibration.observe(&tensor(), scheme, &convention) {
                assert!(ranges.min().iter().zip(ranges.max()).all(|(a, b)| a <= b));
            }
        }
    }
}

fn use_ranges(ranges: &Ranges) {
    for (scheme, convention) in schemes() {
        if let Ok(params) = QParams::from_ranges(ranges, &scheme, &convention) {
            use_params(&params);
        }
    }
    let mut merged = ranges.clone();
    merged.merge(ranges).unwrap();
    assert_eq!(&merged, ranges);
    let mut average = MovingAverage::new(0.5).unwrap();
    average.observe(ranges.clone()).unwrap();
    let other = Ranges::observe(&tensor(), ranges.granularity());
    if let Ok(other) = other {
        // Refused, or ranges.
        let _ = average.observe(other);
    }
    let average = average.ranges().unwrap();
    assert!(average.min().iter().zip(average.max()).all(|(a, b)| a <= b));
}

fn use_histogram(histogram: &Histogram) {
    let mut merged = histogram.clone();
    for _ in 0..70 {
        let twice = merged.clone();
        merged.merge(&twice).unwrap();
    }
    for histogram in [histogram, &merged] {
        let total: u64 = histogram.bins().map(|bin| bin.count).sum();
        assert_eq!(total, histogram.len());
        assert_eq!(total == 0, histogram.is_empty());
        if !histogram.is_empty() {
            for p in [0.0, 50.0, 99.9, 100.0] {
                let value = histogram.percentile(p);
                assert!(
                    (histogram.min()..=histogram.max()).contains(&value),
                    "{value}"
                );
                let magnitude = histogram.percentile_of_magnitudes(p).unwrap();
                assert!(
                    (0.0..=histogram.abs_max()).contains(&magnitude),
                    "{magnitude}"
                );
            }
        }
        let (counts, _) = histogram.magnitudes().unwrap();
        assert_eq!(counts.iter().sum::<u64>(), total);
    }
}

fn use_histograms(histograms: &Histograms) {
    histograms.groups().iter().for_each(use_histogram);
    let mut merged = histograms.clone();
    merged.merge(histograms).unwrap();
    for (scheme, convention) in schemes() {
        for calibration in CALIBRATIONS {
            for histograms in [histograms, &merged] {
                let ranges = calibration
                    .ranges(histograms, &scheme, &convention)
                    .unwrap();
                let ends = ranges.min().iter().zip(ranges.max());
                assert!(
                    ends.clone().all(|(a, b)| a <= b),
                    "{calibration}: {ranges:?}"
                );
                let params = QParams::from_ranges(&ranges, &scheme, &convention);
                let _ = params.map(|params| use_params(&params));
            }
        }
    }
}

fn use_observer(mut observer: Observer) {
    for _ in 0..70 {
        let twice = observer.clone();
        observer.merge(&twice).unwrap();
    }
    let _ = observer.params().map(|params| use_params(&params));
    let before = observer.clone();
    if observer.observe(&tensor()).is_err() {
        assert_eq!(observer, before);
    }
    let _ = observer.params().map(|params| use_params(&params));
    let _ = observer.without_data().observe(&tensor());
}

fn use_fake_quantizer(mut quantizer: FakeQuantizer) {
    for phase in [Phase::Evaluation, Phase::Training, Phase::Training] {
        let before = quantizer.clone();
        match quantizer.step(&tensor(), phase) {
            Ok(params) => params.into_iter().for_each(use_params),
            Err(_) => assert_eq!(quantizer, before),
        }
    }
    let _ = quantizer
        .to_chopi()
        .map(|chopi| use_params(chopi.params().unwrap()));
}

#[test]
fn schemes_and_parameters() {
    for (scheme, convention) in schemes() {
        check(&scheme, |scheme: Scheme| use_scheme(&scheme));
        let granularity = convention.granularity_for(scheme.granularity, 2);
        let ranges = Ranges::observe(&tensor(), granularity).unwrap();
        let params = QParams::from_ranges(&ranges, &scheme, &convention).unwrap();
        check(&params, |params: QParams| use_params(&params));
    }
}

#[test]
fn ranges_and_averages() {
    let axes = [
        Granularity::PerTensor,
        Granularity::PerChannel { axis: 0 },
        Granularity::PerGroup { axis: 1, size: 2 },
    ];
    for granularity in axes {
        let ranges = Ranges::observe(&tensor(), granularity).unwrap();
        check(&ranges, |ranges: Ranges| use_ranges(&ranges));
        let mut average = MovingAverage::default();
        average.observe(ranges).unwrap();
        check(&average, |average: MovingAverage| {
            assert!(average.constant() > 0.0 && average.constant() <= 1.0);
            average.ranges().into_iter().for_each(use_ranges);
        });
    }
}

#[test]
fn histograms() {
    let mut histogram = Histogram::new();
    check(&histogram, |histogram: Histogram| use_histogram(&histogram));
    let widest = [-f64::MAX, -1.0, 2.0, f64::MAX];
    assert_eq!(
        histogram.observe(chopi::backend::FloatSlice::F64(&widest)),
        Ok(true)
    );
    use_histogram(&histogram);
    for granularity in [Granularity::PerTensor, Granularity::PerChannel { axis: 0 }] {
        let half = tensor() * 0.5;
        let histograms = Histograms::observe(&half.slice(ndarray::s![..1, ..]), granularity);
        let histograms = histograms.unwrap();
        check(&histograms.groups()[0], |histogram: Histogram| {
            use_histogram(&histogram)
        });
        check(&histograms, |histograms: Histograms| {
            use_histograms(&histograms)
        });
    }
}

#[test]
fn observers() {
    let row = tensor().slice_move(ndarray::s![..1, ..]);
    for (scheme, convention) in schemes().into_iter().skip(1).step_by(2) {
        for calibration in CALIBRATIONS {
            let mut observer = Observer::new(scheme.clone(), convention, calibration).unwrap();
            check(&observer, use_observer);
            observer.observe(&row).unwrap();
            check(&observer, use_observer);
            let points = ObservationPoints::new(&observer);
            points.observe("x", &row).unwrap();
            check(&points, |points: ObservationPoints| {
                let _ = points.observe("x", &row);
                let _ = points.observe("y", &row);
                points.observers().into_values().for_each(use_observer);
            });
        }
    }
}

#[test]
fn fake_quantizers() {
    let learned = |initialization| {
        Some(Learning {
            initialization,
            ..Learning::lsq_plus()
        })
    };
    for (scheme, convention) in schemes() {
        let chopi = || {
            let ranges = Ranges::observe(&tensor(), scheme.granularity).unwrap();
            Chopi::from_params(QParams::from_ranges(&ranges, &scheme, &convention).unwrap())
        };
        for observer in [
            RangeObserver::Latest,
            RangeObserver::min_max(),
            RangeObserver::moving_average(0.5).unwrap(),
        ] {
            for learning in [
                None,
                learned(Initialization::LeastSquares),
                learned(Initialization::MeanMagnitude),
            ] {
                let mut quantizer = FakeQuantizer::new(chopi()).observer(observer.clone());
                if let Some(learning) = learning {
                    quantizer = quantizer.learning(learning);
                }
                quantizer.step(&tensor(), Phase::Training).unwrap();
                check(&quantizer, use_fake_quantizer);
            }
        }
    }
}

#[test]
fn ranges_of_other_numbers_than_their_type_has_are_refused() {
    let saved = |min: Value, max: Value, float: FloatType| json!({"granularity": "per_tensor", "float": float, "shape": [1], "min": [min], "max": [max]});
    let read = |value: Value| serde_json::from_str::<Ranges>(&value.to_string());
    assert!(read(saved(json!(-1.0), json!(2.0), FloatType::F32)).is_ok());
    for (min, max) in [(2.0, 1.0), (-1e39, 0.0), (0.0, 1e39)] {
        let error = read(saved(min.into(), max.into(), FloatType::F32)).unwrap_err();
        let expected = "the range of group 0 is";
        assert!(error.to_string().starts_with(expected), "{error}");
    }
}

#[test]
fn groups_with_a_shorter_last_one_are_saved_with_the_length_of_their_axis() {
    let four = ndarray::array![[0.0_f32, 1.0, 2.0, 3.0]];
    let six = ndarray::array![[0.0_f32, 1.0, 2.0, 3.0, 4.0, 5.0]];
    let mut chopi = Chopi::builder().per_group(3, 1).build().unwrap();
    chopi.calibrate(&four).unwrap();
    let params = chopi.params().unwrap();
    let mut json = serde_json::to_value(params).unwrap();
    let saved: QParams = serde_json::from_value(json.clone()).unwrap();
    assert_eq!(&saved, params);
    saved.quantize(&four).unwrap();
    let refused = saved.quantize(&six).unwrap_err().to_string();
    assert_eq!(
        refused,
        "groups of 3 along an axis of 4 do not fit an axis of 6"
    );

    json["length"] = json!(7);
    let refused = serde_json::from_value::<QParams>(json)
        .unwrap_err()
        .to_string();
    assert!(
        refused.contains("a tensor of shape [1, 7] needs [1, 3]"),
        "{refused}"
    );
}
