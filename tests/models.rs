//! Weights by name, observation points and sensitivity, on arrays.

use std::collections::BTreeMap;
use std::thread;

use chopi::model::{ObservationPoints, Sensitivity, WeightQuantizer, allocate_bits};
use chopi::{Calibration, Chopi, Convention, Error, Observer, Scheme};
use ndarray::{Array1, Array2, array};
use rand::SeedableRng;
use rand::rngs::StdRng;
use rand_distr::{Distribution, StandardNormal};

fn normal(shape: (usize, usize), seed: u64) -> Array2<f32> {
    let mut rng = StdRng::seed_from_u64(seed);
    Array2::from_shape_simple_fn(shape, || StandardNormal.sample(&mut rng))
}

fn observer(calibration: Calibration) -> Observer {
    let scheme = Chopi::builder().num_bits(8).scheme().unwrap();
    Observer::new(scheme, Convention::CHOPI, calibration).unwrap()
}

#[test]
fn a_weight_is_what_the_quantizer_makes_of_it_by_hand() {
    let weight = normal((6, 40), 1);
    let builder = Chopi::builder().num_bits(4).symmetric(true).per_channel(0);
    let weights = WeightQuantizer::new(builder.clone(), Calibration::MinMax).unwrap();
    let quantized = weights.fake_quantize("fc.weight", &weight).unwrap();
    let mut by_hand = builder.build().unwrap();
    assert_eq!(quantized, by_hand.fake_quantize(&weight).unwrap());

    let done = weights.clone().quantized();
    assert_eq!(done.keys().collect::<Vec<_>>(), ["fc.weight"]);
    let done = &done["fc.weight"];
    assert_eq!(Some(&done.params), by_hand.params());
    let (signal, noise) = weight
        .iter()
        .zip(&quantized)
        .map(|(&x, &y)| (f64::from(x).powi(2), (f64::from(x) - f64::from(y)).powi(2)))
        .fold((0.0, 0.0), |(s, n), (a, b)| (s + a, n + b));
    let sqnr = 10.0 * (signal / noise).log10();
    assert!((done.metrics.sqnr_db() - sqnr).abs() < 1e-9);
    assert_eq!(done.metrics.count(), 240);
}

#[test]
fn the_weights_of_linear_layers_are_taken_or_those_that_are_asked_for() {
    let weights = WeightQuantizer::new(Chopi::builder(), Calibration::MinMax).unwrap();
    assert!(weights.selects("layers.0.fc.weight", &[4, 4]));
    assert!(!weights.selects("embed.weight", &[4, 4]));
    let convolutions = weights
        .clone()
        .select(|name, shape| name.contains("conv") && shape.len() == 4);
    assert!(convolutions.selects("conv.weight", &[4, 4, 3, 3]));
    assert!(!convolutions.selects("layers.0.fc.weight", &[4, 4]));

    let bits = BTreeMap::from([("a".to_owned(), 2), ("b".to_owned(), 8)]);
    let mixed = weights.bits(bits).unwrap();
    assert!(mixed.selects("a", &[3]) && !mixed.selects("c.weight", &[4, 4]));
    let x = normal((8, 8), 2);
    for name in ["a", "b"] {
        mixed.fake_quantize(name, &x).unwrap();
    }
    let bits = |name: &str| mixed.quantized()[name].params.scheme().bits;
    assert_eq!((bits("a"), bits("b")), (2, 8));
}

#[test]
fn what_is_wrong_with_a_weight_is_said_with_its_name() {
    let weights = WeightQuantizer::new(Chopi::builder(), Calibration::MinMax).unwrap();
    let error = weights.fake_quantize("fc.weight", &array![1.0_f32, f32::NAN]);
    let error = error.unwrap_err().to_string();
    assert_eq!(
        error,
        "\"fc.weight\": cannot calibrate on NaN or infinity: the first of 1 is NaN at index [1]"
    );
    assert!(weights.quantized().is_empty());
    let error = weights.bits([("x".to_owned(), 33)].into()).unwrap_err();
    assert_eq!(error.to_string(), "\"x\": num_bits is 33, expected 2..=32");
    assert!(WeightQuantizer::new(Chopi::builder(), Calibration::Percentile(3.0)).is_err());
}

#[test]
fn points_observe_as_their_observers_do() {
    for calibration in [Calibration::MinMax, Calibration::Percentile(99.0)] {
        let points = ObservationPoints::new(&observer(calibration));
        let (mut first, mut second) = (observer(calibration), observer(calibration));
        for seed in 0..5 {
            let (x, y) = (normal((3, 50), seed), normal((2, 9), 100 + seed) * 7.0);
            points.observe("first", &x).unwrap();
            points.observe("second", &y).unwrap();
            first.observe(&x).unwrap();
            second.observe(&y).unwrap();
        }
        let params = points.params().unwrap();
        assert_eq!(params.len(), 2);
        assert_eq!(params["first"], first.params().unwrap());
        assert_eq!(params["second"], second.params().unwrap());
    }
}

#[test]
fn threads_and_merged_parts_give_the_same_bits() {
    let batches: Vec<Array2<f32>> = (0..24).map(|seed| normal((5, 41), seed)).collect();
    let observer = observer(Calibration::MeanSquaredError);
    let observe = |points: &ObservationPoints, batches: &[Array2<f32>]| {
        for x in batches {
            points.observe("input", x).unwrap();
            points.observe("output", &(x * 3.0)).unwrap();
        }
    };
    let whole = ObservationPoints::new(&observer);
    observe(&whole, &batches);

    let shared = ObservationPoints::new(&observer);
    thread::scope(|scope| {
        for batches in batches.chunks(5) {
            let points = shared.clone();
            scope.spawn(move || observe(&points, batches));
        }
    });
    assert_eq!(shared.observers(), whole.observers());

    let merged = ObservationPoints::new(&observer);
    for part in batches.chunks(7).rev() {
        let points = ObservationPoints::new(&observer);
        observe(&points, part);
        merged.merge(&points).unwrap();
    }
    assert_eq!(merged.observers(), whole.observers());
    assert_eq!(merged.params().unwrap(), whole.params().unwrap());
}

#[test]
fn points_that_are_switched_off_see_nothing() {
    let points = ObservationPoints::new(&observer(Calibration::MinMax));
    points.set_observing(false);
    points.clone().observe("x", &array![f32::NAN]).unwrap();
    assert!(points.observers().is_empty());
    points.set_observing(true);
    assert!(points.is_observing());
    points.observe("x", &array![1.0_f32]).unwrap();
    assert_eq!(points.observers().len(), 1);
}

#[test]
fn points_say_which_one_went_wrong_and_stay_as_they_were() {
    let points = ObservationPoints::new(&observer(Calibration::MinMax));
    let error = points
        .observe("encoder.0", &array![f32::INFINITY])
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("\"encoder.0\": cannot calibrate on NaN"),
        "{error}"
    );
    // The name has no observer without data that would spoil the others' parameters.
    assert!(points.params().unwrap().is_empty());

    let scheme = |bits| -> Scheme { Chopi::builder().num_bits(bits).scheme().unwrap() };
    let of_bits =
        |bits| Observer::new(scheme(bits), Convention::CHOPI, Calibration::MinMax).unwrap();
    let other = ObservationPoints::new(&of_bits(4));
    points.observe("x", &array![1.0_f32]).unwrap();
    other.observe("new", &array![2.0_f32]).unwrap();
    other.observe("x", &array![2.0_f32]).unwrap();
    let before = points.observers();
    let error = points.merge(&other).unwrap_err();
    assert!(
        matches!(error, Error::Tensor { ref name, .. } if name == "x"),
        "{error}"
    );
    assert_eq!(points.observers(), before);
}

#[test]
fn a_point_may_have_an_observer_of_its_own() {
    let points = ObservationPoints::new(&observer(Calibration::MinMax));
    let scheme = Chopi::builder()
        .num_bits(4)
        .symmetric(true)
        .scheme()
        .unwrap();
    let own = Observer::new(scheme, Convention::CHOPI, Calibration::MinMax).unwrap();
    points.set_observer("attention", own);
    for name in ["attention", "other"] {
        points.observe(name, &array![1.0_f32, -2.0]).unwrap();
    }
    let params = points.params().unwrap();
    assert_eq!(params["attention"].scheme().bits, 4);
    assert_eq!(params["other"].scheme().bits, 8);
}

#[cfg(feature = "serde")]
#[test]
fn points_that_were_saved_go_on() {
    let points = ObservationPoints::new(&observer(Calibration::Percentile(99.9)));
    points.observe("x", &normal((4, 100), 1)).unwrap();
    points.set_observing(false);
    let json = serde_json::to_string(&points).unwrap();
    let loaded: ObservationPoints = serde_json::from_str(&json).unwrap();
    assert!(!loaded.is_observing());
    assert_eq!(loaded.observers(), points.observers());
    for points in [&points, &loaded] {
        points.set_observing(true);
        points.observe("x", &normal((4, 100), 2)).unwrap();
        points.observe("y", &normal((4, 100), 3)).unwrap();
    }
    assert_eq!(loaded.params().unwrap(), points.params().unwrap());
}

/// Two layers, the second of which matters little.
fn model() -> [(&'static str, Array2<f32>); 2] {
    [
        ("first.weight", normal((8, 16), 5)),
        ("second.weight", normal((8, 64), 6) * 0.01),
    ]
}

fn output(weights: &BTreeMap<&str, Array2<f32>>) -> Array1<f32> {
    let x = Array1::ones(16);
    let first = weights["first.weight"].dot(&x);
    let second = weights["second.weight"].dot(&Array1::ones(64));
    first + second
}

#[test]
fn the_loss_is_that_of_the_model_with_one_tensor_quantized() {
    let weights: BTreeMap<_, _> = model().into();
    let expected = output(&weights);
    let builder = Chopi::builder().symmetric(true).per_channel(0);
    let bits = [2, 4, 8];
    let mut measured = Vec::new();
    for (name, weight) in &weights {
        let loss = |_: u32, quantized: &Array2<f32>| -> chopi::Result<f64> {
            let mut changed = weights.clone();
            changed.insert(*name, quantized.clone());
            let error = output(&changed) - &expected;
            Ok(f64::from(error.dot(&error)))
        };
        let scheme = (&builder, Calibration::MinMax);
        measured.push(Sensitivity::measure(name, weight, &bits, scheme, loss).unwrap());
    }
    // By hand, for one of them.
    let mut chopi = builder.clone().num_bits(4).build().unwrap();
    let mut changed = weights.clone();
    let quantized = chopi.fake_quantize(&weights["first.weight"]).unwrap();
    changed.insert("first.weight", quantized);
    let error = output(&changed) - &expected;
    let choice = measured[0].choice(4).unwrap();
    assert_eq!(choice.loss, f64::from(error.dot(&error)));
    // 128 codes of 4 bits and 8 scales of f32.
    assert_eq!((choice.bytes, measured[0].bytes()), (64 + 32, 512));

    let names = chopi::model::rank(&measured, 4);
    assert_eq!(names[0].name(), "first.weight");
    let found = allocate_bits(&measured, 500).unwrap();
    assert!(
        found.bits["first.weight"] > found.bits["second.weight"],
        "{found:?}"
    );
    assert!(found.bytes <= 500);
    // The weights can be quantized by it.
    let mixed = WeightQuantizer::new(builder, Calibration::MinMax).unwrap();
    let mixed = mixed.bits(found.bits).unwrap();
    assert!(mixed.selects("first.weight", &[8, 16]));
}

#[test]
fn without_data_the_loss_is_the_share_of_noise() {
    let x = normal((4, 32), 9);
    let builder = Chopi::builder().per_group(16, -1);
    let scheme = (&builder, Calibration::MeanSquaredError);
    let found = Sensitivity::without_data("x", &x, &[3, 5], scheme).unwrap();
    let weights =
        WeightQuantizer::new(builder.clone().num_bits(3), Calibration::MeanSquaredError).unwrap();
    weights.fake_quantize("x", &x).unwrap();
    let sqnr = weights.quantized()["x"].metrics.sqnr_db();
    let choice = found.choice(3).unwrap();
    assert_eq!(choice.loss, 10_f64.powf(-sqnr / 10.0));
    // 128 codes, 8 scales, 8 zero points.
    assert_eq!(choice.bytes, 48 + 32 + 3);
    assert!(found.choice(5).unwrap().loss < choice.loss);
    let failed = |_: u32, _: &Array2<f32>| Err::<f64, _>(Error::NotCalibrated);
    assert!(Sensitivity::measure("x", &x, &[8], scheme, failed).is_err());
    let nan = |_: u32, _: &Array2<f32>| Ok::<_, Error>(f64::NAN);
    assert!(matches!(
        Sensitivity::measure("x", &x, &[8], scheme, nan),
        Err(Error::Loss { bits: 8, .. })
    ));
}
