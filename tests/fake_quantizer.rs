//! The state of fake-quantizers: which parameters they give, and when.

use std::sync::mpsc;
use std::time::Duration;

use chopi::model::{ObservationPoints, WeightQuantizer};
use chopi::training::{FakeQuantizer, Initialization, Learning, Phase, Quantizers, RangeObserver};
use chopi::{
    Calibration, Chopi, Convention, Error, Observer, QParams,
    observer::{MovingAverage, Ranges},
};
use ndarray::{Array1, array};

use Phase::{Evaluation, Training};

fn activations() -> FakeQuantizer {
    FakeQuantizer::new(Chopi::new(4).unwrap())
}

fn batch(scale: f32) -> Array1<f32> {
    Array1::from_iter((0..7).map(|i| scale * (i as f32 - 2.0)))
}

/// The parameters of the smallest and the largest value of a tensor.
fn of_range(x: &Array1<f32>, quantizer: &FakeQuantizer) -> QParams {
    let ranges = Ranges::observe(x, quantizer.scheme().granularity).unwrap();
    QParams::from_ranges(&ranges, quantizer.scheme(), quantizer.convention()).unwrap()
}

fn step(quantizer: &mut FakeQuantizer, x: &Array1<f32>, phase: Phase) -> Option<QParams> {
    quantizer.step(x, phase).unwrap().cloned()
}

#[test]
fn training_counts_and_observes_and_evaluation_changes_nothing() {
    let mut quantizer = activations();
    let first = step(&mut quantizer, &batch(1.0), Training);
    assert_eq!(first, Some(of_range(&batch(1.0), &quantizer)));
    let before = quantizer.clone();
    let evaluated = step(&mut quantizer, &batch(5.0), Evaluation);
    assert_eq!((&evaluated, &quantizer), (&first, &before));
    assert_ne!(step(&mut quantizer, &batch(5.0), Training), first);
    assert_eq!(quantizer.batches(), 2);
}

#[test]
fn each_observer_gives_the_parameters_of_its_range() {
    let batches = [batch(1.0), batch(4.0), batch(2.0)];
    let last = |observer: RangeObserver| {
        let mut quantizer = activations().observer(observer);
        let steps = batches.iter().map(|x| step(&mut quantizer, x, Training));
        (steps.last().flatten().unwrap(), quantizer.clone())
    };
    let (latest, quantizer) = last(RangeObserver::Latest);
    assert_eq!(latest, of_range(&batch(2.0), &quantizer));
    let (widest, quantizer) = last(RangeObserver::min_max());
    assert_eq!(widest, of_range(&batch(4.0), &quantizer));

    let (average, quantizer) = last(RangeObserver::moving_average(0.25).unwrap());
    let mut expected = MovingAverage::new(0.25).unwrap();
    for x in &batches {
        let granularity = quantizer.scheme().granularity;
        expected
            .observe(Ranges::observe(x, granularity).unwrap())
            .unwrap();
    }
    // −2 and 4 at first, then a quarter of the way to each next end.
    let ranges = expected.ranges().unwrap();
    assert_eq!((ranges.min(), ranges.max()), (&[-3.625][..], &[7.25][..]));
    let (scheme, convention) = (quantizer.scheme(), quantizer.convention());
    assert_eq!(
        average,
        QParams::from_ranges(ranges, scheme, convention).unwrap()
    );
    assert!(matches!(
        RangeObserver::moving_average(1.5),
        Err(Error::AveragingConstant { .. })
    ));
}

#[test]
fn during_the_delay_batches_pass_and_are_observed() {
    let mut quantizer = activations().observer(RangeObserver::min_max()).delay(2);
    assert_eq!(step(&mut quantizer, &batch(1.0), Evaluation), None);
    assert_eq!(step(&mut quantizer, &batch(3.0), Training), None);
    assert_eq!(step(&mut quantizer, &batch(1.0), Training), None);
    // From now on evaluation quantizes too.
    let expected = of_range(&batch(3.0), &quantizer);
    for phase in [Evaluation, Training] {
        let params = step(&mut quantizer, &batch(1.0), phase);
        assert_eq!(params, Some(expected.clone()));
    }
    assert_eq!(quantizer.batches(), 3);
}

#[test]
fn learned_parameters_are_initialized_at_the_first_batch_after_the_delay_and_stay() {
    for initialization in [Initialization::LeastSquares, Initialization::MeanMagnitude] {
        let learning = Learning {
            initialization,
            ..Learning::lsq()
        };
        let mut quantizer = activations().learning(learning).delay(1);
        assert_eq!(quantizer.learned(), Some(learning));
        assert_eq!(step(&mut quantizer, &batch(9.0), Training), None);
        // Active, but learning has not begun: evaluation passes.
        assert_eq!(step(&mut quantizer, &batch(9.0), Evaluation), None);
        assert_eq!(quantizer.params(), None);
        let initialized = step(&mut quantizer, &batch(1.0), Training).unwrap();
        let (scheme, convention) = (quantizer.scheme(), quantizer.convention());
        let expected = match initialization {
            Initialization::LeastSquares => {
                chopi::training::least_squares(&batch(1.0), scheme, convention)
            }
            Initialization::MeanMagnitude => {
                chopi::training::mean_magnitude(&batch(1.0), scheme, convention)
            }
        };
        assert_eq!(initialized, expected.unwrap());
        assert_eq!(
            step(&mut quantizer, &batch(50.0), Training),
            Some(initialized.clone())
        );
        assert_eq!(quantizer.params(), Some(&initialized));
    }
}

#[test]
fn switched_off_observing_keeps_the_parameters_and_quantizing_passes_tensors() {
    let mut quantizer = activations().observer(RangeObserver::Latest);
    let first = step(&mut quantizer, &batch(1.0), Training);
    quantizer.freeze();
    assert!(!quantizer.is_observing() && quantizer.is_quantizing());
    assert_eq!(step(&mut quantizer, &batch(8.0), Training), first);
    quantizer.set_observing(true);
    quantizer.set_quantizing(false);
    assert!(quantizer.is_observing() && !quantizer.is_quantizing());
    // Passed, and observed.
    assert_eq!(step(&mut quantizer, &batch(8.0), Training), None);
    quantizer.set_quantizing(true);
    let expected = of_range(&batch(8.0), &quantizer);
    let params = step(&mut quantizer, &batch(1.0), Evaluation);
    assert_eq!(params, Some(expected));
    assert_eq!(quantizer.batches(), 3);
}

#[test]
fn without_parameters_evaluation_is_refused() {
    let x = batch(1.0);
    for mut quantizer in [activations(), activations().learning(Learning::lsq())] {
        let error = quantizer.step(&x, Evaluation).unwrap_err();
        assert!(matches!(error, Error::NotCalibrated), "{error}");
        assert!(quantizer.to_chopi().is_err());
    }
    // Frozen before anything was seen.
    let mut quantizer = activations();
    quantizer.freeze();
    let error = quantizer.step(&x, Training).unwrap_err();
    assert!(matches!(error, Error::NotCalibrated), "{error}");
}

#[test]
fn bad_batches_are_refused_and_change_neither_parameters_nor_count() {
    for quantizer in [activations(), activations().learning(Learning::lsq())] {
        for bad in [array![1.0, f32::NAN], array![f32::INFINITY], array![]] {
            let mut tried = quantizer.clone();
            tried.step(&bad, Training).unwrap_err();
            assert_eq!(tried, quantizer);
        }
    }
}

#[test]
fn a_calibrated_quantizer_brings_its_parameters_and_gives_them_back() {
    let mut chopi = Chopi::new(8).unwrap();
    chopi.calibrate(&batch(2.0)).unwrap();
    let mut quantizer = FakeQuantizer::new(chopi.clone());
    quantizer.freeze();
    let params = step(&mut quantizer, &batch(100.0), Training);
    assert_eq!(params.as_ref(), chopi.params());
    let back = quantizer.to_chopi().unwrap();
    assert_eq!(back.params(), chopi.params());
    assert_eq!(
        (quantizer.scheme(), quantizer.convention()),
        (chopi.scheme(), chopi.convention())
    );
    // A calibrated scale is where learning starts.
    let mut learned = FakeQuantizer::new(chopi.clone()).learning(Learning::lsq());
    let params = step(&mut learned, &batch(100.0), Training);
    assert_eq!(params.as_ref(), chopi.params());
}

#[test]
fn quantizers_have_names_of_their_own_in_order() {
    let quantizers = Quantizers::new();
    for name in ["b.weight", "a.weight", "b.activation"] {
        quantizers.insert(name.to_owned(), activations()).unwrap();
    }
    assert_eq!(quantizers.names(), ["a.weight", "b.activation", "b.weight"]);
    let mut visited = Vec::new();
    quantizers.for_each(|name, quantizer| {
        // What is called may use all of them.
        assert_eq!(quantizers.names().len(), 3);
        quantizers.freeze();
        assert!(!quantizer.state().is_observing());
        visited.push(name.to_owned());
    });
    assert_eq!(visited, quantizers.names());
    assert!(quantizers.get("c").is_none());

    let error = quantizers.insert("a.weight".to_owned(), activations());
    let error = error.unwrap_err();
    assert!(matches!(&error, Error::QuantizerName { name, .. } if name == "a.weight"));
    assert_eq!(quantizers.names().len(), 3);
}

#[test]
fn quantizers_are_shared_and_switched_together() {
    let quantizers = Quantizers::new();
    let first = quantizers.insert("a".to_owned(), activations()).unwrap();
    let second = quantizers.clone().insert("b".to_owned(), activations());
    let second = second.unwrap();
    let seen = || {
        [&first, &second].map(|shared| {
            let quantizer = shared.state();
            (quantizer.is_observing(), quantizer.is_quantizing())
        })
    };
    quantizers.freeze();
    assert_eq!(seen(), [(false, true); 2]);
    quantizers.set_observing(true);
    quantizers.set_quantizing(false);
    assert_eq!(seen(), [(true, false); 2]);
    quantizers.set_quantizing(true);
    first.step(&batch(1.0), Training).unwrap();
    assert_eq!(quantizers.get("a").unwrap().state().batches(), 1);
    assert_eq!(second.state().batches(), 0);
}

/// Runs `work` on a thread of its own, and fails where it takes longer than that.
fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, finished) = mpsc::channel();
    let worker = std::thread::spawn(move || {
        work();
        // Nobody listens where the time is over.
        let _ = done.send(());
    });
    match finished.recv_timeout(limit) {
        Err(mpsc::RecvTimeoutError::Timeout) => panic!("not done within {limit:?}"),
        _ => worker.join().unwrap(),
    }
}

/// A thread that waits for the pieces of its tensor takes other tasks meanwhile, which use the same
/// fake-quantizer.
#[test]
fn tasks_of_a_pool_share_a_quantizer_without_waiting_for_each_other() {
    const TASKS: u64 = 200;
    within(Duration::from_secs(120), || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build();
        let x = Array1::from_shape_fn(2_000_000, |i| (i % 1001) as f32 - 500.0);
        let learned = FakeQuantizer::new(Chopi::new(4).unwrap()).learning(Learning {
            initialization: Initialization::MeanMagnitude,
            ..Learning::lsq_plus()
        });
        for quantizer in [activations(), learned] {
            let shared = Quantizers::new();
            let quantizer = shared.insert("x".to_owned(), quantizer).unwrap();
            pool.as_ref().unwrap().scope(|scope| {
                for _ in 0..TASKS {
                    scope.spawn(|_| {
                        let params = quantizer.step(&x, Training).unwrap().unwrap();
                        assert_eq!(Some(&params), quantizer.state().params());
                        // Work that the others can take while they wait.
                        assert_eq!(params.fake_quantize(&x).unwrap().len(), x.len());
                        shared.for_each(|_, quantizer| quantizer.set_quantizing(true));
                    });
                }
            });
            assert_eq!(quantizer.state().batches(), TASKS);
        }
    });
}

#[test]
fn tasks_of_a_pool_share_observation_points_and_weights() {
    within(Duration::from_secs(120), || {
        let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build();
        let x = Array1::from_shape_fn(400_000, |i| (i % 1001) as f32 - 500.0);
        let scheme = Chopi::builder().num_bits(8).scheme().unwrap();
        let calibration = Calibration::Percentile(99.9);
        let observer = Observer::new(scheme, Convention::CHOPI, calibration).unwrap();
        let points = ObservationPoints::new(&observer);
        let weights = WeightQuantizer::new(Chopi::builder(), Calibration::MinMax).unwrap();
        pool.unwrap().scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|_| {
                    points.observe("x", &x).unwrap();
                    points.merge(&points.clone()).unwrap();
                    weights.fake_quantize("w", &x).unwrap();
                    assert_eq!(weights.quantized().len(), 1);
                });
            }
        });
        assert_eq!(points.params().unwrap().len(), 1);
    });
}

#[test]
fn states_go_to_a_network_of_the_same_names_only() {
    let network = |names: &[&str]| {
        let quantizers = Quantizers::new();
        for name in names {
            quantizers
                .insert((*name).to_owned(), activations())
                .unwrap();
        }
        quantizers
    };
    let trained = network(&["a", "b"]);
    let shared = trained.get("b").unwrap();
    shared.step(&batch(3.0), Training).unwrap();
    let states = trained.states();

    let same = network(&["b", "a"]);
    same.set_states(states.clone()).unwrap();
    assert_eq!(same.states(), states);
    for (names, wrong) in [(&["a", "b", "c"][..], "c"), (&["a"][..], "b")] {
        let other = network(names);
        let before = other.states();
        let error = other.set_states(states.clone()).unwrap_err();
        assert!(matches!(&error, Error::QuantizerName { name, .. } if name == wrong));
        assert_eq!(other.states(), before);
    }
}

#[test]
fn parameters_are_those_of_the_convention() {
    let chopi = Chopi::builder().num_bits(4).symmetric(true);
    let chopi = chopi.convention(Convention::COMPRESSED_TENSORS);
    let mut quantizer = FakeQuantizer::new(chopi.build().unwrap()).observer(RangeObserver::Latest);
    let params = step(&mut quantizer, &batch(1.0), Training).unwrap();
    assert_eq!(params, of_range(&batch(1.0), &quantizer));
    assert_eq!(params.convention().name(), "compressed-tensors");
}

#[cfg(feature = "serde")]
mod saved {
    use chopi::training::{GradientFactor, Ste};
    use ndarray::Array2;
    use proptest::prelude::*;

    use super::*;

    fn any_quantizer() -> impl Strategy<Value = FakeQuantizer> {
        let observer = prop_oneof![
            Just(RangeObserver::Latest),
            Just(RangeObserver::min_max()),
            (0.01..1.0).prop_map(|c| RangeObserver::moving_average(c).unwrap()),
        ];
        let learning = proptest::option::of((any::<bool>(), any::<bool>(), any::<bool>()));
        (observer, learning, 0..4_u64, 2..9_u32, any::<bool>()).prop_map(
            |(observer, learning, delay, bits, symmetric)| {
                let chopi = Chopi::builder().num_bits(bits).symmetric(symmetric);
                let quantizer = FakeQuantizer::new(chopi.per_channel(0).build().unwrap())
                    .observer(observer)
                    .ste(if symmetric {
                        Ste::Identity
                    } else {
                        Ste::Clipped
                    })
                    .delay(delay);
                match learning {
                    None => quantizer,
                    Some((zero_point, mean, fixed)) => quantizer.learning(Learning {
                        zero_point,
                        initialization: match mean {
                            true => Initialization::MeanMagnitude,
                            false => Initialization::LeastSquares,
                        },
                        factor: match fixed {
                            true => GradientFactor::Fixed(0.3),
                            false => GradientFactor::Lsq,
                        },
                    }),
                }
            },
        )
    }

    proptest! {
        /// Whenever it is saved, what follows is as if it had not been.
        #[test]
        fn a_state_saved_midway_goes_on_to_the_bit(
            mut quantizer in any_quantizer(),
            values in proptest::collection::vec(-1e3_f32..1e3, 48),
            at in 0..8_usize,
            frozen_at in 0..8_usize,
        ) {
            let batches = values.chunks(6).map(|v| Array2::from_shape_vec((2, 3), v.to_vec()).unwrap());
            let mut saved = None;
            for (i, x) in batches.enumerate() {
                if i == at {
                    let json = serde_json::to_string(&quantizer).unwrap();
                    let loaded: FakeQuantizer = serde_json::from_str(&json).unwrap();
                    prop_assert_eq!(&loaded, &quantizer);
                    saved = Some(loaded);
                }
                let all = std::iter::once(&mut quantizer).chain(&mut saved);
                let mut steps = Vec::new();
                for one in all {
                    if i == frozen_at {
                        one.freeze();
                    }
                    steps.push(one.step(&x, Training).map(|p| p.cloned()).map_err(|e| e.to_string()));
                }
                prop_assert!(steps.windows(2).all(|pair| pair[0] == pair[1]));
            }
            prop_assert_eq!(saved, Some(quantizer));
        }
    }
}

/// Pieces of a tensor in a file are made on the threads of the pool, too.
#[cfg(feature = "formats")]
#[test]
fn tasks_of_a_pool_read_a_tensor_of_a_file_without_waiting_for_each_other() {
    use chopi::formats::{Quantized, Tensor, chopi::Chopi as Layout, open, save};
    within(Duration::from_secs(120), || {
        let name = format!("chopi-shared-{}.safetensors", std::process::id());
        let path = std::env::temp_dir().join(name);
        let x = Array1::from_shape_fn(1 << 21, |i| (i % 1001) as f32 - 500.0);
        let mut chopi = Chopi::new(8).unwrap();
        let codes = chopi.quantize(&x).unwrap();
        let params = chopi.params().unwrap();
        let quantized = Quantized::of(params.clone(), &codes).unwrap();
        let tensor = Tensor::Quantized(Box::new(quantized));
        save(&path, &Layout, [("x", &tensor)]).unwrap();
        let entry = open(&path).unwrap().get("x").unwrap().values().unwrap();
        let expected: Array1<f32> = params.dequantize(&codes).unwrap();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(8).build();
        pool.unwrap().scope(|scope| {
            for _ in 0..64 {
                scope.spawn(|_| {
                    let values = entry.elements::<f32>().unwrap();
                    assert_eq!(Some(&values[..]), expected.as_slice());
                });
            }
        });
        std::fs::remove_file(path).unwrap();
    });
}
