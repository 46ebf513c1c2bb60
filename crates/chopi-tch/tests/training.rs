//! Quantization-aware training with libtorch: gradients, layers, checkpoints.

use chopi_core::training::{
    FakeQuantizer, GradientFactor, LearnedParams, Learning, QatConfig, Quantizers, RangeObserver,
    Ste,
};
use chopi_core::{Chopi, Convention, backend::FloatType};
use chopi_tch::nn::{
    Adam, AdamConfig, Convolution, IntQuantizedLayer, QatConv2d, QatConvBn2d, QatEmbedding,
    QatLinear, Weighted, fake_quantize, fake_quantize_learned, load_checkpoint, load_float,
    save_checkpoint,
};
use tch::nn::{self, ConvConfigND, EmbeddingConfig, Module, ModuleT, VarStore};
use tch::{Device, Kind, Tensor, no_grad};

const KINDS: [(Kind, FloatType); 4] = [
    (Kind::Float, FloatType::F32),
    (Kind::Double, FloatType::F64),
    (Kind::Half, FloatType::F16),
    (Kind::BFloat16, FloatType::BF16),
];

fn read(tensor: &Tensor) -> Vec<f64> {
    let wide = tensor.detach().to_kind(Kind::Double).contiguous().view(-1);
    wide.try_into().unwrap()
}

fn ramp(shape: &[i64], kind: Kind) -> Tensor {
    let count = shape.iter().product::<i64>();
    let values: Vec<f64> = (0..count).map(|i| (i as f64 * 0.37).sin() * 3.0).collect();
    Tensor::from_slice(&values).reshape(shape).to_kind(kind)
}

fn set(variable: &Tensor, value: &Tensor) {
    no_grad(|| variable.shallow_clone().copy_(value));
}

fn weights(bits: u32) -> Chopi {
    let builder = Chopi::builder().num_bits(bits).symmetric(true);
    builder.per_channel(0).build().unwrap()
}

fn config(learned: bool) -> QatConfig {
    let activations = FakeQuantizer::new(Chopi::new(4).unwrap());
    let weights = FakeQuantizer::new(weights(4)).observer(RangeObserver::Latest);
    match learned {
        false => QatConfig::new().weights(weights).activations(activations),
        true => QatConfig::new()
            .weights(weights.learning(Learning::lsq()).delay(3))
            .activations(activations.learning(Learning::lsq_plus())),
    }
}

/// The gradient of y + y² where y passes, by the rule of the straight-through estimator.
fn expected_gradient(x: &[f64], y: &[f64], inside: impl Fn(usize) -> bool) -> Vec<f64> {
    let gradient = |i: usize| if inside(i) { 1.0 + 2.0 * y[i] } else { 0.0 };
    (0..x.len()).map(gradient).collect()
}

#[test]
fn values_and_gradients_follow_the_rule_for_every_kind_and_stride() {
    for (kind, _) in KINDS {
        for transposed in [false, true] {
            let x = ramp(&[6, 10], kind).set_requires_grad(true);
            let view = if transposed {
                x.tr()
            } else {
                x.shallow_clone()
            };
            let mut chopi = weights(3);
            chopi.calibrate(&(view.detach() * 0.5)).unwrap();
            let params = chopi.params().unwrap().clone();
            let (values, mask) = chopi.fake_quantize_with_mask(&view.detach()).unwrap();
            let (values, mask) = (read(&values), read(&mask));
            assert!(mask.contains(&0.0) && mask.contains(&1.0));
            for ste in [Ste::Clipped, Ste::Identity] {
                let y = fake_quantize(&view, &params, ste).unwrap();
                assert_eq!(read(&y), values);
                // Used twice in one graph.
                let loss = (&y + y.square()).sum(kind);
                x.shallow_clone().zero_grad();
                loss.backward();
                let gradient = x.grad();
                assert_eq!(gradient.kind(), kind);
                let gradient = if transposed { gradient.tr() } else { gradient };
                let inside = |i: usize| ste == Ste::Identity || mask[i] == 1.0;
                let expected = expected_gradient(&read(&view), &values, inside);
                // Rounded as the kind has it.
                let expected = Tensor::from_slice(&expected).to_kind(kind);
                assert_eq!(read(&gradient), read(&expected), "{kind:?} {ste:?}");
            }
        }
    }
}

#[test]
fn infinities_saturate_and_nan_stays_without_gradient() {
    let values = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, 1e30, 0.3];
    let x = Tensor::from_slice(&values).set_requires_grad(true);
    let mut chopi = Chopi::new(4).unwrap();
    chopi
        .calibrate(&Tensor::from_slice(&[-1.0_f32, 2.0]))
        .unwrap();
    let y = fake_quantize(&x, chopi.params().unwrap(), Ste::Clipped).unwrap();
    y.sum(Kind::Float).backward();
    assert_eq!(read(&x.grad()), [0.0, 0.0, 0.0, 0.0, 1.0]);
    let (y, low, high) = (read(&y), -1.0, f64::from(2.0_f32));
    assert!((y[0] - high).abs() < 1e-6 && (y[1] - low).abs() < 1e-6);
    assert!(y[2].is_nan() && y[3] == y[0]);
}

#[test]
fn learned_gradients_are_those_on_slices_for_every_kind_and_stride() {
    for builder in [
        Chopi::builder().num_bits(3),
        Chopi::builder().num_bits(3).per_channel(1),
        Chopi::builder().num_bits(3).per_group(4, 1),
    ] {
        for (kind, float) in [KINDS[0], KINDS[1]] {
            for transposed in [false, true] {
                let scheme = builder.clone().scheme().unwrap();
                let shape = scheme.granularity.params_shape(&[4, 9]).unwrap();
                let groups = shape.iter().product::<usize>();
                let scale: Vec<f64> = (0..groups)
                    .map(|i| f64::from(0.2 + 0.05 * i as f32))
                    .collect();
                let zero = vec![f64::from(3.3_f32); groups];
                let learned = LearnedParams::new(
                    &scheme,
                    &Convention::CHOPI,
                    float,
                    &shape,
                    (&scale, &zero),
                    GradientFactor::Lsq,
                )
                .unwrap();
                let lengths: Vec<i64> = shape.iter().map(|&n| n as i64).collect();
                let variable = |v: &[f64]| {
                    let tensor = Tensor::from_slice(v).reshape(&lengths).to_kind(kind);
                    tensor.set_requires_grad(true)
                };
                let (scales, zeros) = (variable(&scale), variable(&zero));
                let x = match transposed {
                    true => ramp(&[9, 4], kind).tr(),
                    false => ramp(&[4, 9], kind),
                };
                let x = x.detach().set_requires_grad(true);
                let y = fake_quantize_learned(&x, &scales, Some(&zeros), &learned).unwrap();
                y.square().sum(kind).backward();

                let layout = chopi_core::backend::Layout::row_major(&[4, 9]);
                let (values, dy) = (read(&x), read(&(&y * 2.0)));
                let (dx, sums) = if kind == Kind::Float {
                    let narrow = |v: &[f64]| v.iter().map(|&v| v as f32).collect::<Vec<_>>();
                    let g = learned.gradients(&narrow(&values), &narrow(&dy), &layout);
                    let g = g.unwrap();
                    let wide = g.x.into_iter().map(f64::from).collect::<Vec<_>>();
                    (wide, [g.scale, g.zero_point])
                } else {
                    let g = learned.gradients(&values, &dy, &layout).unwrap();
                    (g.x, [g.scale, g.zero_point])
                };
                assert_eq!(read(&x.grad()), dx);
                // libtorch sums in another order, and rounds each term of a Float tensor.
                let tolerance = if kind == Kind::Float { 1e-6 } else { 1e-14 };
                for (got, expected) in [scales.grad(), zeros.grad()].iter().zip(sums) {
                    for (got, expected) in read(got).iter().zip(expected) {
                        let difference = (got - expected).abs();
                        assert!(difference <= tolerance * expected.abs().max(1.0));
                    }
                }
            }
        }
    }
}

#[test]
fn tensors_that_need_no_gradient_pass_too() {
    let x = ramp(&[6, 10], Kind::Float);
    let mut chopi = weights(3);
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
    y.square().sum(Kind::Float).backward();
    assert!(!x.grad().defined());
    assert!(layer.scale().unwrap().grad().defined());
    let y = no_grad(|| layer.f_forward_t(&x, false)).unwrap();
    assert!(!y.requires_grad());
}

struct Network {
    layer: QatLinear,
    variables: VarStore,
    quantizers: Quantizers,
    adam: Adam,
}

impl Network {
    fn new(learned: bool) -> Self {
        let (variables, quantizers) = (VarStore::new(Device::Cpu), Quantizers::new());
        let path = variables.root() / "fc";
        let layer = QatLinear::new(10, 4, &config(learned), &path, &quantizers).unwrap();
        set(layer.layer().weight(), &ramp(&[4, 10], Kind::Float));
        set(layer.layer().bias().unwrap(), &ramp(&[4], Kind::Float));
        let adam = Adam::new(&variables, &quantizers, AdamConfig::default()).unwrap();
        Self {
            layer,
            variables,
            quantizers,
            adam,
        }
    }

    fn train(&mut self, steps: std::ops::Range<usize>) {
        for step in steps {
            let x = ramp(&[8, 10], Kind::Float) * (1.0 + step as f64 * 0.1);
            let loss = self.layer.f_forward_t(&x, true).unwrap().square();
            self.adam.backward_step(&loss.mean(Kind::Float)).unwrap();
        }
    }

    fn state(&self) -> Vec<(String, Vec<f64>)> {
        let variables = self.variables.variables().into_iter();
        let mut state: Vec<_> = variables.map(|(n, v)| (n, read(&v))).collect();
        state.sort_by(|a, b| a.0.cmp(&b.0));
        state
    }
}

#[test]
fn an_optimizer_takes_only_numbers_that_it_can_step_by() {
    let mut network = Network::new(false);
    let bad = AdamConfig {
        learning_rate: f64::NAN,
        ..AdamConfig::default()
    };
    let error = network.adam.set_config(bad).unwrap_err().to_string();
    assert!(error.contains("learning_rate is NaN, expected"), "{error}");
    assert_eq!(network.adam.config(), &AdamConfig::default());
    let error = Adam::new(&network.variables, &network.quantizers, bad).unwrap_err();
    assert!(
        error.to_string().contains("learning_rate is NaN"),
        "{error}"
    );
}

#[test]
fn a_step_that_fails_is_not_counted_and_changes_nothing() {
    let mut network = Network::new(false);
    network.train(0..2);
    let x = ramp(&[8, 10], Kind::Float);
    let loss = network.layer.f_forward_t(&x, true).unwrap().square();
    loss.mean(Kind::Float).backward();
    // The bias, which is the first variable by name, has a gradient that fits. The weight has become one of
    // another shape after the optimizer was made, and so has no gradient that fits its moments.
    let mut weight = network.layer.layer().weight().shallow_clone();
    weight.set_data(&ramp(&[3, 7], Kind::Float));
    weight.grad().set_data(&ramp(&[3, 7], Kind::Float));
    let before = network.state();
    network.adam.step().unwrap_err();
    assert_eq!((network.adam.steps(), network.state()), (2, before));
}

#[test]
fn training_goes_on_from_a_checkpoint_to_the_bit() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    for learned in [false, true] {
        let mut whole = Network::new(learned);
        whole.train(0..20);
        let mut first = Network::new(learned);
        first.train(0..10);
        save_checkpoint(
            &path,
            &first.variables,
            &first.quantizers,
            Some(&first.adam),
        )
        .unwrap();
        let mut second = Network::new(learned);
        let adam = Some(&mut second.adam);
        load_checkpoint(&path, &mut second.variables, &second.quantizers, adam).unwrap();
        assert_eq!(second.adam.steps(), 10);
        second.train(10..20);
        assert_eq!(second.state(), whole.state());
        assert_eq!(second.quantizers.states(), whole.quantizers.states());
        assert_ne!(first.state(), whole.state());
        let learns = first
            .state()
            .iter()
            .any(|(name, _)| name.ends_with("scale"));
        assert_eq!(learns, learned);
    }
}

#[test]
fn training_starts_from_the_weights_of_a_network_in_floats() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("float.safetensors");
    let save = |weight: Option<Tensor>| {
        let mut floats = vec![
            ("fc.bias", ramp(&[4], Kind::Float)),
            ("head.weight", ramp(&[2, 4], Kind::Float)),
        ];
        floats.extend(weight.map(|weight| ("fc.weight", weight)));
        Tensor::write_safetensors(&floats, &path).unwrap();
    };
    for learned in [false, true] {
        save(Some(ramp(&[4, 10], Kind::Double)));
        let mut expected = Network::new(learned);
        let mut network = Network::new(learned);
        for variable in [
            network.layer.layer().weight(),
            network.layer.layer().bias().unwrap(),
        ] {
            set(variable, &variable.ones_like());
        }
        load_float(&path, &network.variables, &network.quantizers).unwrap();
        assert_eq!(network.state(), expected.state());
        expected.train(0..5);
        network.train(0..5);
        assert_eq!(network.state(), expected.state());
        assert_eq!(network.quantizers.states(), expected.quantizers.states());

        let refused = |weight, named: &str| {
            save(weight);
            let error = load_float(&path, &network.variables, &network.quantizers);
            let error = format!("{:?}", error.unwrap_err());
            assert!(error.contains(named), "{error}");
            assert_eq!(network.state(), expected.state());
        };
        refused(
            Some(ramp(&[4, 9], Kind::Float)),
            "fc.weight is F32 [4, 9], expected floats of shape [4, 10]",
        );
        refused(
            Some(ramp(&[4, 10], Kind::Float).to_kind(Kind::Int64)),
            "fc.weight is I64",
        );
        refused(None, "fc.weight");
    }
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let network = Network::new(false);
    let refused = |quantizers: &Quantizers, adam: Option<&Adam>| {
        save_checkpoint(&path, &network.variables, quantizers, adam).unwrap();
        let mut other = Network::new(false);
        let adam = Some(&mut other.adam);
        let error = load_checkpoint(&path, &mut other.variables, &other.quantizers, adam);
        error.unwrap_err()
    };
    let text = |error: chopi_core::Error| format!("{error} {error:?}");
    let error = text(refused(&Quantizers::new(), Some(&network.adam)));
    assert!(error.contains("fc.activation_quantizer"), "{error}");
    // Without the moments of an optimizer.
    let error = text(refused(&network.quantizers, None));
    assert!(error.contains("chopi.adam.step"), "{error}");
}

#[test]
fn a_checkpoint_that_lacks_something_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let mut network = Network::new(true);
    network.train(0..5);
    save_checkpoint(&path, &network.variables, &network.quantizers, None).unwrap();
    let mut other = Network::new(true);
    other.train(0..2);
    let before = (other.state(), other.quantizers.states());
    let adam = Some(&mut other.adam);
    let error = load_checkpoint(&path, &mut other.variables, &other.quantizers, adam);
    let error = error.unwrap_err();
    assert!(
        format!("{error:?}").contains("chopi.adam.step"),
        "{error:?}"
    );
    assert_eq!((other.state(), other.quantizers.states()), before);
    assert_eq!(other.adam.steps(), 2);
}

#[test]
fn learned_scales_start_where_they_are_calibrated() {
    let (weight, x) = (ramp(&[3, 8], Kind::Float), ramp(&[4, 8], Kind::Float));
    let mut calibrated = weights(4);
    calibrated.calibrate(&weight).unwrap();
    let mut activations = Chopi::new(8).unwrap();
    activations.calibrate(&x).unwrap();
    let (variables, quantizers) = (VarStore::new(Device::Cpu), Quantizers::new());
    let path = variables.root();
    let layer = |chopi: &Chopi, learning, name| {
        let quantizer = FakeQuantizer::new(chopi.clone()).learning(learning);
        let (path, shape) = (&path / name, [3, 8]);
        IntQuantizedLayer::for_shape(quantizer, &shape, &path, &quantizers).unwrap()
    };
    let weights = layer(&calibrated, Learning::lsq(), "weight_quantizer");
    let input = layer(&activations, Learning::lsq_plus(), "activation_quantizer");
    assert_eq!(read(weights.scale().unwrap()), calibrated.scale().unwrap());
    assert_eq!(read(input.scale().unwrap()), activations.scale().unwrap());
    let zero_point = activations.zero_point().unwrap()[0] as f64;
    assert_eq!(read(input.zero_point().unwrap()), [zero_point]);
    let expected: Tensor = calibrated.fake_quantize(&weight).unwrap();
    for train in [false, true] {
        assert_eq!(read(&weights.forward_t(&weight, train)), read(&expected));
    }
}

#[test]
fn integers_are_what_is_evaluated() {
    for learned in [false, true] {
        let mut network = Network::new(learned);
        let x = ramp(&[8, 10], Kind::Float);
        assert!(network.layer.f_forward_t(&x, false).is_err());
        network.train(0..10);
        let converted = network.layer.convert().unwrap();
        let (weight, mut activations) = (converted.weight.unwrap(), converted.activations.unwrap());
        let codes = converted.weight_codes.unwrap();
        assert_eq!(codes.kind(), Kind::Int8);
        let w: Tensor = weight.dequantize(&codes).unwrap();
        let x_hat = activations.fake_quantize(&x).unwrap();
        let y = x_hat.linear(&w, converted.bias.as_ref());
        let evaluated = network.layer.forward_t(&x, false);
        assert_eq!(read(&evaluated), read(&y));
    }
}

#[test]
fn frozen_parameters_stay_and_passed_tensors_are_as_they_are() {
    for learned in [false, true] {
        let mut network = Network::new(learned);
        network.train(0..5);
        network.quantizers.freeze();
        let x = ramp(&[8, 10], Kind::Float);
        let parameters = |network: &Network| {
            let converted = network.layer.convert().unwrap();
            let scale = |chopi: Option<Chopi>| chopi.unwrap().scale().unwrap().to_vec();
            (scale(converted.weight), scale(converted.activations))
        };
        let before = parameters(&network);
        let loss = network.layer.f_forward_t(&x, true).unwrap();
        for (_, variable) in network.variables.variables() {
            variable.shallow_clone().zero_grad();
        }
        loss.square().sum(Kind::Float).backward();
        // Frozen scales get no gradient, weights do.
        for (name, variable) in network.variables.variables() {
            let gradient = variable.grad();
            let moved = gradient.defined() && read(&gradient).iter().any(|&g| g != 0.0);
            assert_eq!(moved, !name.contains("quantizer"), "{name}");
        }
        assert_eq!(parameters(&network), before);
        // Evaluation changes nothing either.
        let states = network.quantizers.states();
        let _ = network.layer.f_forward_t(&(&x * 7.0), false).unwrap();
        assert_eq!(network.quantizers.states(), states);

        network.quantizers.set_quantizing(false);
        let float = network.layer.layer().forward(&x);
        let y = network.layer.f_forward_t(&x, false).unwrap();
        assert_eq!(read(&y), read(&float));
    }
}

#[test]
fn a_convolution_quantizes_weight_and_input() {
    let (variables, quantizers) = (VarStore::new(Device::Cpu), Quantizers::new());
    let convolution = ConvConfigND::<[i64; 2]> {
        stride: [2, 2],
        padding: [1, 1],
        ..ConvConfigND::default()
    };
    let path = variables.root() / "conv";
    let sizes = (2, 3, [3, 3]);
    let layer = QatConv2d::new(sizes, convolution, &config(false), &path, &quantizers).unwrap();
    let x = ramp(&[4, 2, 6, 6], Kind::Float);
    let y = layer.f_forward_t(&x, true).unwrap();
    let w = weights(4).fake_quantize(&layer.layer().weight().detach());
    let x_hat = Chopi::new(4).unwrap().fake_quantize(&x).unwrap();
    let bias = layer.layer().bias();
    let expected = x_hat.conv2d(&w.unwrap(), bias, [2, 2], [1, 1], [1, 1], 1);
    assert_eq!(read(&y), read(&expected));
    assert_eq!(
        quantizers.names(),
        ["conv.activation_quantizer", "conv.weight_quantizer"]
    );
}

#[test]
fn a_convolution_is_folded_with_its_normalization() {
    let (variables, quantizers) = (VarStore::new(Device::Cpu), Quantizers::new());
    let root = variables.root();
    let convolution = ConvConfigND::<[i64; 2]>::default();
    let conv = nn::conv(&root / "conv", 2, 3, [3, 3], convolution);
    let norm_config = nn::BatchNormConfig::default();
    let norm = nn::batch_norm2d(&root / "norm", 3, norm_config);
    let mut layer = QatConvBn2d::from_layers(
        Convolution::new(conv, convolution),
        (norm, norm_config),
        &config(false),
        &(&root / "folded"),
        &quantizers,
    )
    .unwrap();
    let x = ramp(&[4, 2, 6, 6], Kind::Float);
    for _ in 0..5 {
        let loss = layer.f_forward_t(&x, true).unwrap().square();
        loss.sum(Kind::Float).backward();
        assert!(layer.conv().weight().grad().defined());
    }
    let mean = |layer: &QatConvBn2d| read(&layer.norm().running_mean);
    let before = mean(&layer);
    layer.freeze_statistics();
    // The statistics have moved since the weight was last observed; see it as it is now.
    let frozen = layer.f_forward_t(&x, true).unwrap();
    assert_eq!(mean(&layer), before);
    let evaluated = layer.f_forward_t(&x, false).unwrap();
    // With frozen statistics training sees what is evaluated.
    assert_eq!(read(&frozen), read(&evaluated));
    let converted = layer.convert().unwrap();
    let (weight, mut activations) = (converted.weight.unwrap(), converted.activations.unwrap());
    let codes = converted.weight_codes.unwrap();
    let w: Tensor = weight.dequantize(&codes).unwrap();
    let x_hat = activations.fake_quantize(&x).unwrap();
    let y = x_hat.conv2d(&w, converted.bias, [1, 1], [0, 0], [1, 1], 1);
    for (a, b) in read(&y).iter().zip(read(&evaluated)) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn an_embedding_quantizes_its_rows_and_not_its_indices() {
    let (variables, quantizers) = (VarStore::new(Device::Cpu), Quantizers::new());
    let path = variables.root() / "e";
    let embedding = EmbeddingConfig::default();
    let layer = QatEmbedding::new(5, 3, embedding, &config(false), &path, &quantizers).unwrap();
    let indices = Tensor::from_slice(&[4_i64, 0, 4]);
    let y = layer.f_forward_t(&indices, true).unwrap();
    let rows = weights(4).fake_quantize(&layer.layer().weight().detach());
    let rows = rows.unwrap().index_select(0, &indices);
    assert_eq!(read(&y), read(&rows));
    y.sum(Kind::Float).backward();
    assert!(layer.layer().weight().grad().defined());
    assert_eq!(quantizers.names(), ["e.weight_quantizer"]);
}
