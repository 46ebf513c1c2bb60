//! What was saved as JSON, well made or not: whatever is read can be used without a panic, and saved and read
//! again is the same.
//!
//! The input is the number of a type and the text.

#![no_main]

use chopi::model::ObservationPoints;
use chopi::observer::{Histogram, Histograms, MovingAverage, Ranges};
use chopi::training::FakeQuantizer;
use chopi::{Calibration, Convention, Observer, QParams, Scheme};
use chopi_fuzz::planted;
use libfuzzer_sys::fuzz_target;
use ndarray::{ArrayD, IxDyn};
use serde::Serialize;
use serde::de::DeserializeOwned;

fuzz_target!(|input: &[u8]| {
    let [kind, text @ ..] = input else { return };
    match kind % 10 {
        0 => {
            if let Some(scheme) = read::<Scheme>(text) {
                for convention in Convention::ALL {
                    if let Ok(observer) =
                        Observer::new(scheme.clone(), *convention, Calibration::MinMax)
                    {
                        observe(observer);
                    }
                }
            }
        }
        1 => {
            if let Some(params) = read::<QParams>(text) {
                use_params(&params);
            }
        }
        2 => {
            if let Some(observer) = read::<Observer>(text) {
                observe(observer);
            }
        }
        3 => {
            if let Some(mut ranges) = read::<Ranges>(text) {
                let other = ranges.clone();
                ranges.merge(&other).expect("it has its own groups");
                assert_eq!(ranges, other);
                for convention in Convention::ALL {
                    for scheme in schemes() {
                        if let Ok(params) = QParams::from_ranges(&ranges, &scheme, convention) {
                            use_params(&params);
                        }
                    }
                }
            }
        }
        4 => {
            if let Some(histograms) = read::<Histograms>(text) {
                let mut twice = histograms.clone();
                let _ = twice.merge(&histograms);
                choose(&histograms);
            }
        }
        5 => {
            if let Some(histogram) = read::<Histogram>(text) {
                let (min, max) = (histogram.min(), histogram.max());
                let middle = histogram.percentile(50.0);
                assert!(
                    !(min <= max) || (min..=max).contains(&middle),
                    "{middle:e}: {histogram:?}"
                );
                let _ = (
                    histogram.magnitudes(),
                    histogram.percentile_of_magnitudes(99.0),
                    histogram.abs_max(),
                );
            }
        }
        6 => {
            read::<MovingAverage>(text);
        }
        7 => {
            if let Some(quantizer) = read::<FakeQuantizer>(text) {
                if let Some(params) = quantizer.params() {
                    use_params(params);
                }
            }
        }
        8 => {
            // It has no equality; a second reading gives the same text.
            if let Ok(points) = serde_json::from_slice::<ObservationPoints>(text) {
                for tensor in tensors() {
                    let _ = points.observe("x", &tensor);
                }
                let _ = points.params();
                let text = serde_json::to_string(&points).unwrap();
                let again: ObservationPoints = serde_json::from_str(&text).unwrap();
                assert_eq!(serde_json::to_string(&again).unwrap(), text);
            }
        }
        _ => {
            read::<Calibration>(text);
            read::<Convention>(text);
        }
    }
});

/// What the text says, if it can be read; saved and read again it is equal.
fn read<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(text: &[u8]) -> Option<T> {
    let value: T = serde_json::from_slice(text).ok()?;
    let saved = serde_json::to_string(&value).expect("it was read from JSON");
    match serde_json::from_str::<T>(&saved) {
        Ok(again) => assert!(
            again == value && !planted(saved.contains("\"bits\":7")),
            "{again:?}, not {value:?}"
        ),
        Err(error) => panic!("{error}: {saved}"),
    }
    Some(value)
}

fn tensors() -> Vec<ArrayD<f32>> {
    [&[][..], &[1], &[3], &[2, 3], &[4, 2, 3]]
        .iter()
        .map(|shape| {
            let mut number = 0.0;
            ArrayD::from_shape_simple_fn(IxDyn(shape), || {
                number += 0.75;
                number - 4.0
            })
        })
        .collect()
}

fn schemes() -> Vec<Scheme> {
    let builder = chopi::Chopi::builder;
    [
        builder(),
        builder().symmetric(true),
        builder().num_bits(4).symmetric(true).per_channel(0),
    ]
    .into_iter()
    .filter_map(|builder| builder.scheme().ok())
    .collect()
}

fn use_params(params: &QParams) {
    for tensor in tensors() {
        let (Ok(q), Ok(fake)) = (params.quantize(&tensor), params.fake_quantize(&tensor)) else {
            continue;
        };
        let back = params.dequantize(&q).expect("they are its own codes");
        let bits = |x: &ArrayD<f32>| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&back), bits(&fake), "{params:?}");
    }
}

fn observe(mut observer: Observer) {
    let before = observer.clone();
    let _ = observer.merge(&before);
    for tensor in tensors() {
        let _ = observer.observe(&tensor);
    }
    let _ = observer.ranges();
    if let Ok(params) = observer.params() {
        use_params(&params);
    }
}

/// The ranges that each calibration chooses from histograms.
fn choose(histograms: &Histograms) {
    for scheme in schemes() {
        for calibration in [
            Calibration::Percentile(99.0),
            Calibration::MeanSquaredError,
            Calibration::KullbackLeibler,
        ] {
            if let Ok(ranges) = calibration.ranges(histograms, &scheme, &Convention::CHOPI) {
                let _ = QParams::from_ranges(&ranges, &scheme, &Convention::CHOPI)
                    .map(|params| use_params(&params));
            }
        }
    }
}
