//! Quantization-aware training with libtorch.

mod network;

use chopi_conformance::training::{Kind, Layer, Trainee};
use chopi_core::Chopi;
use chopi_core::training::{FakeQuantizer, Learning, QatConfig, Quantizers, Ste};
use chopi_tch::nn::{IntQuantizedLayer, fake_quantize};
use tch::nn::VarStore;
use tch::{Device, Kind as Dtype, Tensor, no_grad};

use network::{Network, read, set};

chopi_conformance::training_suite!(Network);

#[test]
fn infinities_saturate_and_nan_stays_without_gradient() {
    let values = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e30, 0.3];
    let x = Tensor::from_slice(&values).set_requires_grad(true);
    let mut chopi = Chopi::new(4).unwrap();
    chopi
        .calibrate(&Tensor::from_slice(&[-1.0_f32, 2.0]))
        .unwrap();
    let y = fake_quantize(&x, chopi.params().unwrap(), Ste::Clipped).unwrap();
    y.sum(Dtype::Float).backward();
    assert_eq!(read(&x.grad()), [0.0, 0.0, 0.0, 0.0, 1.0]);
    let (y, low, high) = (read(&y), -1.0, f64::from(2.0_f32));
    assert!((y[0] - high).abs() < 1e-6 && (y[1] - low).abs() < 1e-6);
    assert!(y[2].is_nan() && y[3] == y[0]);
}

#[test]
fn tensors_that_need_no_gradient_pass_too() {
    let x = Tensor::arange(60, (Dtype::Float, Device::Cpu))
        .reshape([6, 10])
        .sin();
    let scheme = Chopi::builder().num_bits(3).symmetric(true).per_channel(0);
    let mut chopi = scheme.build().unwrap();
    chopi.calibrate(&x).unwrap();
    let y = fake_quantize(&x, chopi.params().unwrap(), Ste::Clipped).unwrap();
    assert!(!y.requires_grad());
    assert_eq!(read(&y), read(&chopi.fake_quantize(&x).unwrap()));

    let variables = VarStore::new(Device::Cpu);
    let quantizer = FakeQuantizer::new(Chopi::new(4).unwrap()).learning(Learning::lsq_plus());
    let path = variables.root() / "input";
    let layer = IntQuantizedLayer::new(quantizer, &path, &Quantizers::new()).unwrap();
    // The input needs none, the scale does.
    let y = layer.f_forward_t(&(&x * 10.0), true).unwrap();
    y.square().sum(Dtype::Float).backward();
    assert!(!x.grad().defined());
    assert!(layer.scale().unwrap().grad().defined());
    let y = no_grad(|| layer.f_forward_t(&x, false)).unwrap();
    assert!(!y.requires_grad());
}

fn linear() -> Network {
    Network::new(Layer::new(Kind::Linear, (10, 4), 1), &QatConfig::new()).unwrap()
}

fn loss(network: &Network) -> Tensor {
    let x = Tensor::ones([8, 10], (Dtype::Float, Device::Cpu));
    network
        .forward(&x, true)
        .unwrap()
        .square()
        .mean(Dtype::Float)
}

#[test]
fn a_step_that_fails_is_not_counted_and_changes_nothing() {
    let mut network = linear();
    network.adam.backward_step(&loss(&network)).unwrap();
    loss(&network).backward();
    // The bias, which is the first variable by name, has a gradient that fits. The weight has become one of
    // another shape after the optimizer was made, and so has no gradient that fits its moments.
    let mut weight = network
        .variables
        .variables()
        .remove("layer.weight")
        .unwrap();
    let other = Tensor::ones([1, 10], (Dtype::Float, Device::Cpu));
    weight.set_data(&other);
    weight.grad().set_data(&other);
    let before = network.variables();
    let error = network.adam.step().unwrap_err().to_string();
    let expected = "the gradient of \"layer.weight\" has shape [1, 10], expected [4, 10]";
    assert_eq!(error, expected);
    assert_eq!((network.steps(), network.variables()), (1, before));
}

#[test]
fn a_step_by_gradients_that_are_there_is_that_of_a_loss() {
    let (mut of_loss, mut of_gradients) = (linear(), linear());
    for (name, values) in of_loss.variables() {
        of_gradients.set(&name, &values);
    }
    for _ in 0..3 {
        of_loss.adam.backward_step(&loss(&of_loss)).unwrap();
        for (_, variable) in of_gradients.variables.variables() {
            variable.shallow_clone().zero_grad();
        }
        loss(&of_gradients).backward();
        of_gradients.adam.step().unwrap();
        assert_eq!(of_gradients.variables(), of_loss.variables());
    }
    // More than one number is no loss.
    let x = Tensor::ones([8, 10], (Dtype::Float, Device::Cpu));
    let y = of_loss.forward(&x, true).unwrap();
    let error = of_loss.adam.backward_step(&y).unwrap_err().to_string();
    assert!(error.contains("the loss has shape [8, 4]"), "{error}");
    // Variables that are not trained any more are left alone.
    let variables = of_loss.variables.variables();
    let _ = variables["layer.bias"].set_requires_grad(false);
    let before = of_loss.variables();
    of_loss.adam.backward_step(&loss(&of_loss)).unwrap();
    let after = of_loss.variables();
    assert_eq!(after["layer.bias"], before["layer.bias"]);
    assert_ne!(after["layer.weight"], before["layer.weight"]);
}

#[test]
fn learned_scales_that_the_network_has_already_are_kept() {
    let scheme = Chopi::builder().num_bits(4).symmetric(true).per_channel(0);
    let mut weights = scheme.build().unwrap();
    let weight = Network::tensor(&[1.0, -0.5], &[2, 1]);
    weights.calibrate(&weight).unwrap();
    let variables = VarStore::new(Device::Cpu);
    let path = variables.root() / "weights";
    let layer = || {
        let quantizer = FakeQuantizer::new(weights.clone()).learning(Learning::lsq());
        IntQuantizedLayer::for_shape(quantizer, &[2, 1], &path, &Quantizers::new()).unwrap()
    };
    let scale = |layer: &IntQuantizedLayer| layer.scale().unwrap().shallow_clone();
    set(&scale(&layer()), &Network::tensor(&[0.125; 2], &[2]));
    assert_eq!(read(&scale(&layer())), [0.125; 2]);
    assert_eq!(variables.variables().len(), 1);
}
