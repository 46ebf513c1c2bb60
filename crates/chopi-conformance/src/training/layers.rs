//! What layers do: start, freeze, pass, and become integers.

use chopi_core::Chopi;
use chopi_core::training::{AdamConfig, FakeQuantizer, Learning, QatConfig, RangeObserver};

use super::{Kind, LAYERS, Layer, Trainee, batch, network, ramp, train};

/// 4 bits, observed or learned.
pub(super) fn config(learned: bool) -> QatConfig {
    let weights = Chopi::builder().num_bits(4).symmetric(true).per_channel(0);
    let weights = FakeQuantizer::new(weights.build().unwrap()).observer(RangeObserver::Latest);
    let activations = FakeQuantizer::new(Chopi::new(4).unwrap());
    match learned {
        false => QatConfig::new().weights(weights).activations(activations),
        true => QatConfig::new()
            .weights(weights.learning(Learning::lsq()).delay(3))
            .activations(activations.learning(Learning::lsq_plus())),
    }
}

/// Learned scales and zero points start where their fake-quantizer is calibrated, and the layer computes with
/// those.
pub fn learned_scales_start_where_they_are_calibrated<T: Trainee>() {
    let layer = Layer {
        bias: false,
        ..Layer::new(Kind::Linear, (8, 3), 1)
    };
    let (weight, x) = (
        T::tensor(&ramp(24, 0.0), &[3, 8]),
        T::tensor(&ramp(32, 0.5), &[4, 8]),
    );
    let mut weights = Chopi::builder()
        .num_bits(4)
        .symmetric(true)
        .per_channel(0)
        .build()
        .unwrap();
    weights.calibrate(&weight).unwrap();
    let mut activations = Chopi::new(8).unwrap();
    activations.calibrate(&x).unwrap();
    let config = QatConfig::new()
        .weights(FakeQuantizer::new(weights.clone()).learning(Learning::lsq()))
        .activations(FakeQuantizer::new(activations.clone()).learning(Learning::lsq_plus()));
    let trained = T::new(layer, &config).unwrap();
    trained.set("layer.weight", &ramp(24, 0.0));
    let variables = trained.variables();
    assert_eq!(
        variables["layer.weight_quantizer.scale"],
        weights.scale().unwrap()
    );
    assert_eq!(
        variables["layer.activation_quantizer.scale"],
        activations.scale().unwrap()
    );
    let zero_point = activations.zero_point().unwrap()[0] as f64;
    assert_eq!(
        variables["layer.activation_quantizer.zero_point"],
        [zero_point]
    );
    let w_hat = weights.fake_quantize(&weight).unwrap();
    let x_hat = activations.fake_quantize(&x).unwrap();
    let expected = T::read(&trained.float(&x_hat, &w_hat, None));
    for train in [false, true] {
        assert_eq!(T::read(&trained.forward(&x, train).unwrap()), expected);
    }
    assert_eq!(trained.variables(), variables);
}

/// What is evaluated is the product of the dequantized integers.
pub fn integers_are_what_is_evaluated<T: Trainee>() {
    for layer in LAYERS {
        // A normalization is folded by other roundings than it is evaluated with.
        if layer.kind == Kind::ConvBn2d {
            continue;
        }
        for learned in [false, true] {
            let mut trained = network::<T>(layer, &config(learned));
            let x = batch::<T>(layer, 2);
            // The delay of learned weights passes them.
            let passes = learned && layer.kind == Kind::Embedding;
            assert_eq!(
                trained.forward(&x, false).is_ok(),
                passes,
                "{layer:?} {learned}"
            );
            train(&mut trained, layer, 0..10);
            let converted = trained.convert().unwrap();
            let codes = converted.weight_codes.unwrap();
            let w = converted.weight.unwrap().dequantize(&codes).unwrap();
            let x_hat = converted
                .activations
                .map(|mut c| c.fake_quantize(&x).unwrap());
            assert_eq!(x_hat.is_none(), layer.kind == Kind::Embedding);
            let x_hat = x_hat.as_ref().unwrap_or(&x);
            let y = trained.float(x_hat, &w, converted.bias.as_ref());
            let evaluated = trained.forward(&x, false).unwrap();
            assert_eq!(T::read(&evaluated), T::read(&y), "{layer:?} {learned}");
        }
    }
}

/// Frozen parameters do not change, nor does anything in evaluation.
pub fn frozen_parameters_stay_as_they_are<T: Trainee>() {
    for layer in LAYERS {
        for learned in [false, true] {
            let mut trained = network::<T>(layer, &config(learned));
            train(&mut trained, layer, 0..5);
            trained.quantizers().freeze();
            let parameters = |trained: &T| {
                let converted = trained.convert().unwrap();
                let scale = |chopi: Option<Chopi>| chopi.map(|c| c.scale().unwrap().to_vec());
                (scale(converted.weight), scale(converted.activations))
            };
            let (before, weights) = (parameters(&trained), trained.variables());
            train(&mut trained, layer, 5..8);
            assert_eq!(parameters(&trained), before, "{layer:?} {learned}");
            assert_ne!(trained.variables(), weights, "{layer:?} {learned}");
            let (states, variables) = (trained.quantizers().states(), trained.variables());
            trained.forward(&batch::<T>(layer, 9), false).unwrap();
            assert_eq!(trained.quantizers().states(), states);
            assert_eq!(trained.variables(), variables);
        }
    }
}

/// A fake-quantizer whose delay is not over, or that is switched off, passes its tensor as it is.
pub fn what_is_switched_off_passes_as_it_is<T: Trainee>() {
    let layer = LAYERS[0];
    let late = |config: &QatConfig| {
        let delayed = |quantizer: Option<&FakeQuantizer>| quantizer.unwrap().clone().delay(2);
        QatConfig::new()
            .weights(delayed(config.weight_quantizer()))
            .activations(delayed(config.activation_quantizer()))
    };
    for learned in [false, true] {
        let mut trained = network::<T>(layer, &late(&config(learned)));
        let is_float = |trained: &T, train: bool| {
            let (x, variables) = (batch::<T>(layer, 3), trained.variables());
            let weight = T::tensor(&variables["layer.weight"], &[4, 10]);
            let bias = T::tensor(&variables["layer.bias"], &[4]);
            let y = trained.forward(&x, train).unwrap();
            T::read(&y) == T::read(&trained.float(&x, &weight, Some(&bias)))
        };
        assert!(is_float(&trained, true) && is_float(&trained, true));
        assert!(!is_float(&trained, true) && !is_float(&trained, false));
        trained.quantizers().set_quantizing(false);
        assert!(is_float(&trained, true) && is_float(&trained, false));
        train(&mut trained, layer, 0..2);
    }
    let trained = network::<T>(layer, &config(false));
    let names = ["layer.activation_quantizer", "layer.weight_quantizer"];
    assert_eq!(trained.quantizers().names(), names);
}

/// Numbers that Adam cannot step by are refused by name, and do not stay.
pub fn an_optimizer_takes_only_numbers_that_it_can_step_by<T: Trainee>() {
    let mut trained = network::<T>(LAYERS[0], &config(false));
    let default = AdamConfig::default();
    for (bad, text) in [
        (
            AdamConfig {
                beta2: 1.0,
                ..default
            },
            "beta2 is 1.0, expected",
        ),
        (
            AdamConfig {
                learning_rate: f64::NAN,
                ..default
            },
            "learning_rate is NaN, expected",
        ),
    ] {
        let error = trained.set_adam(bad).unwrap_err();
        assert!(error.contains(text), "{error}");
        assert_eq!(trained.adam(), default);
    }
}
