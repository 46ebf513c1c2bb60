//! Quantization-aware training with candle.

mod network;

use candle_core::{DType, Device, Tensor};
use candle_nn::{ModuleT, Optimizer, VarBuilder, VarMap};
use chopi_candle::nn::{Adam, AdamConfig, IntQuantizedLayer};
use chopi_conformance::training::{Kind, Layer, Trainee};
use chopi_core::Chopi;
use chopi_core::training::{FakeQuantizer, Learning, QatConfig, Quantizers};

use network::{Network, read};

mod kernels {
    chopi_conformance::training_suite!(super::Network<false>);
}

mod composed {
    chopi_conformance::training_suite!(super::Network<true>:
        gradients_pass_by_the_rule_of_the_estimator
        learned_gradients_are_those_on_slices
    );
}

fn linear(bias: bool) -> Network<false> {
    let layer = Layer {
        bias,
        ..Layer::new(Kind::Linear, (10, 4), 1)
    };
    Network::new(layer, &QatConfig::new()).unwrap()
}

fn loss(network: &Network<false>) -> Tensor {
    let x = Tensor::ones((8, 10), DType::F32, &Device::Cpu).unwrap();
    let y = network.forward(&x, true).unwrap();
    y.sqr().unwrap().mean_all().unwrap()
}

#[test]
fn a_step_that_fails_is_not_counted_and_changes_nothing() {
    let mut network = linear(true);
    network.adam.backward_step(&loss(&network)).unwrap();
    let before = network.variables();
    // The first variable, by name, has a gradient that fits, and the second has one of another shape, as of
    // one that was changed after the optimizer was made.
    let mut gradients = loss(&network).backward().unwrap();
    let weight = network.variables.data().lock().unwrap()["layer.weight"].clone();
    let other = Tensor::ones((1, 10), DType::F32, &Device::Cpu).unwrap();
    gradients.insert(&weight, other);
    let error = network.adam.step(&gradients).unwrap_err().to_string();
    let expected = "the gradient of \"layer.weight\" has shape [1, 10], expected [4, 10]";
    assert!(error.contains(expected), "{error}");
    assert_eq!((network.steps(), network.variables()), (1, before));
}

#[test]
fn adam_is_an_optimizer_of_candle() {
    fn train<O: Optimizer>(optimizer: &mut O, network: &Network<false>, rate: f64) {
        optimizer.set_learning_rate(rate);
        assert_eq!(optimizer.learning_rate(), rate);
        optimizer.backward_step(&loss(network)).unwrap();
    }
    let (mut named, generic) = (linear(true), linear(true));
    for (name, values) in named.variables() {
        generic.set(&name, &values);
    }
    let variables = generic.variables.all_vars();
    let mut adam = <Adam as Optimizer>::new(variables, AdamConfig::default()).unwrap();
    for rate in [1e-3, 2e-2, 5e-4] {
        named
            .set_adam(AdamConfig {
                learning_rate: rate,
                ..named.adam()
            })
            .unwrap();
        named.adam.backward_step(&loss(&named)).unwrap();
        train(&mut adam, &generic, rate);
        assert_eq!(generic.variables(), named.variables());
    }
    assert_eq!(adam.steps(), 3);
    // A rate that is none is refused when it is stepped by.
    Optimizer::set_learning_rate(&mut adam, f64::NAN);
    let error = adam.backward_step(&loss(&generic)).unwrap_err().to_string();
    assert!(error.contains("learning_rate is NaN"), "{error}");
    assert_eq!((adam.steps(), generic.variables()), (3, named.variables()));
}

fn tensor(values: &[f64]) -> Tensor {
    Network::<false>::tensor(values, &[values.len()])
}

#[test]
fn learned_scales_that_the_network_has_already_are_kept() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let mut input = Chopi::new(8).unwrap();
    input.calibrate(&tensor(&[1.0, -0.5])).unwrap();
    let layer = || {
        let quantizer = FakeQuantizer::new(input.clone()).learning(Learning::lsq());
        IntQuantizedLayer::new(quantizer, vb.pp("input"), &Quantizers::new()).unwrap()
    };
    let scale = read(layer().scale().unwrap());
    assert_eq!(scale, input.scale().unwrap());
    let other = tensor(&[0.125]);
    variables.data().lock().unwrap()["input.scale"]
        .set(&other)
        .unwrap();
    assert_eq!(read(layer().scale().unwrap()), [0.125]);
}

#[test]
fn what_learns_needs_variables() {
    let zeros = VarBuilder::zeros(DType::F32, &Device::Cpu);
    let quantizer = FakeQuantizer::new(Chopi::new(8).unwrap()).learning(Learning::lsq());
    let layer = IntQuantizedLayer::new(quantizer, zeros, &Quantizers::new()).unwrap();
    let error = layer.forward_t(&tensor(&[1.0]), true).unwrap_err();
    assert!(error.to_string().contains("expected a variable"), "{error}");
}
