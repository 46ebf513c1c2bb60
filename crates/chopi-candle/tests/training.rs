//! Quantization-aware training with candle: gradients, layers, checkpoints.

use std::collections::HashMap;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Conv2dConfig, Module, ModuleT, VarBuilder, VarMap};
use chopi_candle::nn::{
    Adam, AdamConfig, QatConvBn2d, QatEmbedding, QatLinear, composed_fake_quantize,
    composed_fake_quantize_learned, fake_quantize, fake_quantize_learned, load_checkpoint,
    load_float, save_checkpoint,
};
use chopi_core::training::{
    FakeQuantizer, GradientFactor, LearnedParams, Learning, QatConfig, Quantizers, RangeObserver,
    Ste,
};
use chopi_core::{Chopi, Convention, backend::FloatType};

fn read(tensor: &Tensor) -> Vec<f64> {
    let wide = tensor.to_dtype(DType::F64).unwrap();
    wide.flatten_all().unwrap().to_vec1().unwrap()
}

fn ramp(shape: &[usize], dtype: DType) -> Tensor {
    let count = shape.iter().product::<usize>();
    let values: Vec<f64> = (0..count).map(|i| (i as f64 * 0.37).sin() * 3.0).collect();
    let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
    tensor.to_dtype(dtype).unwrap()
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

#[test]
fn values_and_gradients_are_the_same_composed_and_for_every_dtype_and_stride() {
    for dtype in [DType::F32, DType::F64, DType::F16, DType::BF16] {
        for transposed in [false, true] {
            let x = Var::from_tensor(&ramp(&[6, 10], dtype)).unwrap();
            let view = match transposed {
                true => x.t().unwrap(),
                false => x.as_tensor().clone(),
            };
            let mut chopi = weights(3);
            chopi.calibrate(&(view.detach() * 0.5).unwrap()).unwrap();
            let params = chopi.params().unwrap().clone();
            let expected = chopi.fake_quantize(&view.detach()).unwrap();
            for ste in [Ste::Clipped, Ste::Identity] {
                let mut gradients = Vec::new();
                for operation in [fake_quantize, composed_fake_quantize] {
                    let y = operation(&view, &params, ste).unwrap();
                    assert_eq!(read(&y), read(&expected));
                    // Used twice in one graph.
                    let loss = (&y + y.sqr().unwrap()).unwrap().sum_all().unwrap();
                    gradients.push(read(loss.backward().unwrap().get(&x).unwrap()));
                }
                assert_eq!(gradients[0], gradients[1]);
                let zeros = gradients[0].iter().filter(|&&g| g == 0.0).count();
                assert_eq!(zeros > 0, ste == Ste::Clipped);
            }
        }
    }
}

#[test]
fn learned_gradients_composed_are_those_of_the_kernels() {
    let x = Var::from_tensor(&ramp(&[4, 9], DType::F32)).unwrap();
    for builder in [
        Chopi::builder().num_bits(3),
        Chopi::builder().num_bits(3).per_channel(1),
        Chopi::builder().num_bits(3).per_group(4, 1),
    ] {
        let scheme = builder.scheme().unwrap();
        let shape = scheme.granularity.params_shape(&[4, 9]).unwrap();
        let groups = shape.iter().product::<usize>();
        let scale: Vec<f32> = (0..groups).map(|i| 0.2 + 0.05 * i as f32).collect();
        let zero = vec![3.3_f32; groups];
        let var = |v: &[f32]| {
            let tensor = Tensor::from_slice(v, shape.as_slice(), &Device::Cpu).unwrap();
            Var::from_tensor(&tensor).unwrap()
        };
        let (scale_var, zero_var) = (var(&scale), var(&zero));
        let wide = |v: &[f32]| v.iter().map(|&v| v.into()).collect::<Vec<f64>>();
        let (convention, factor) = (Convention::CHOPI, GradientFactor::Lsq);
        let numbers = (&*wide(&scale), &*wide(&zero));
        let params = LearnedParams::new(
            &scheme,
            &convention,
            FloatType::F32,
            &shape,
            numbers,
            factor,
        )
        .unwrap();
        let outcome = |composed: bool| {
            let operation = match composed {
                true => composed_fake_quantize_learned,
                false => fake_quantize_learned,
            };
            let y = operation(&x, &scale_var, Some(&zero_var), &params).unwrap();
            let g = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
            let of = |v: &Var| read(g.get(v).unwrap());
            (read(&y), of(&x), of(&scale_var), of(&zero_var))
        };
        let (kernels, composed) = (outcome(false), outcome(true));
        assert_eq!((&kernels.0, &kernels.1), (&composed.0, &composed.1));
        let pairs = kernels.2.iter().zip(&composed.2);
        for (a, b) in pairs.chain(kernels.3.iter().zip(&composed.3)) {
            assert!((a - b).abs() <= 2e-7 * a.abs().max(1e-3), "{a} {b}");
        }
    }
}

struct Network {
    layer: QatLinear,
    variables: VarMap,
    quantizers: Quantizers,
    adam: Adam,
}

impl Network {
    fn new(learned: bool) -> Self {
        let (variables, quantizers) = (VarMap::new(), Quantizers::new());
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let layer = QatLinear::new(10, 4, &config(learned), vb.pp("fc"), &quantizers).unwrap();
        let weight = Var::from_tensor(layer.layer().weight()).unwrap();
        weight.set(&ramp(&[4, 10], DType::F32)).unwrap();
        let bias = Var::from_tensor(layer.layer().bias().unwrap()).unwrap();
        bias.set(&ramp(&[4], DType::F32)).unwrap();
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
            let x = (ramp(&[8, 10], DType::F32) * (1.0 + step as f64 * 0.1)).unwrap();
            let loss = self.layer.forward_t(&x, true).unwrap().sqr().unwrap();
            self.adam.backward_step(&loss.mean_all().unwrap()).unwrap();
        }
    }

    fn state(&self) -> Vec<(String, Vec<f64>)> {
        let data = self.variables.data().lock().unwrap();
        let mut state: Vec<_> = data.iter().map(|(n, v)| (n.clone(), read(v))).collect();
        state.sort_by(|a, b| a.0.cmp(&b.0));
        state
    }
}

#[test]
fn an_optimizer_takes_only_numbers_that_it_can_step_by() {
    let mut network = Network::new(false);
    let bad = AdamConfig {
        beta2: 1.0,
        ..AdamConfig::default()
    };
    let error = network.adam.set_config(bad).unwrap_err().to_string();
    assert!(error.contains("beta2 is 1.0, expected"), "{error}");
    assert_eq!(network.adam.config(), &AdamConfig::default());
    let error = Adam::new(&network.variables, &network.quantizers, bad).unwrap_err();
    assert!(error.to_string().contains("beta2 is 1.0"), "{error}");
}

#[test]
fn a_step_that_fails_is_not_counted_and_changes_nothing() {
    let mut network = Network::new(false);
    network.train(0..2);
    let before = network.state();
    // The gradients of a network whose first variable, by name, has a gradient, and whose second has one of
    // another shape, as of one that was changed after the optimizer was made.
    let weight = network.layer.layer().weight().clone();
    let bias = network.layer.layer().bias().unwrap().clone();
    let x = ramp(&[8, 10], DType::F32);
    let loss = network.layer.forward_t(&x, true).unwrap().sqr().unwrap();
    let mut gradients = loss.mean_all().unwrap().backward().unwrap();
    assert!(gradients.get(&bias).is_some() && gradients.get(&weight).is_some());
    gradients.insert(&weight, ramp(&[3, 7], DType::F32));
    network.adam.step(&gradients).unwrap_err();
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
        second.train(10..20);
        assert_eq!(second.state(), whole.state());
        assert_eq!(second.quantizers.states(), whole.quantizers.states());
        assert_ne!(first.state(), whole.state());
    }
}

#[test]
fn training_starts_from_the_weights_of_a_network_in_floats() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("float.safetensors");
    let mut floats = HashMap::from([
        ("fc.weight", ramp(&[4, 10], DType::F64)),
        ("fc.bias", ramp(&[4], DType::F32)),
        ("head.weight", ramp(&[2, 4], DType::F32)),
    ]);
    let save = |floats: &HashMap<&str, Tensor>| {
        candle_core::safetensors::save(floats, &path).unwrap();
    };
    for learned in [false, true] {
        save(&floats);
        let mut expected = Network::new(learned);
        let mut network = Network::new(learned);
        for name in ["fc.weight", "fc.bias"] {
            let variables = network.variables.data().lock().unwrap();
            variables[name]
                .set(&variables[name].ones_like().unwrap())
                .unwrap();
        }
        load_float(&path, &network.variables, &network.quantizers).unwrap();
        assert_eq!(network.state(), expected.state());
        expected.train(0..5);
        network.train(0..5);
        assert_eq!(network.state(), expected.state());
        assert_eq!(network.quantizers.states(), expected.quantizers.states());

        let refused = |floats: &HashMap<&str, Tensor>, named: &str| {
            save(floats);
            let error = load_float(&path, &network.variables, &network.quantizers);
            let error = error.unwrap_err().to_string();
            assert!(error.contains(named), "{error}");
            assert_eq!(network.state(), expected.state());
        };
        let weight = floats
            .insert("fc.weight", ramp(&[4, 9], DType::F32))
            .unwrap();
        refused(
            &floats,
            "fc.weight is F32 [4, 9], expected floats of shape [4, 10]",
        );
        floats.remove("fc.weight");
        refused(&floats, "fc.weight");
        floats.insert("fc.weight", weight);
    }
}

#[test]
fn a_checkpoint_of_another_network_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("checkpoint.safetensors");
    let network = Network::new(false);
    save_checkpoint(&path, &network.variables, &Quantizers::new(), None).unwrap();
    let mut other = Network::new(false);
    let error = load_checkpoint(&path, &mut other.variables, &other.quantizers, None);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("fc.activation_quantizer"), "{error}");
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
    let error = error.unwrap_err().to_string();
    assert!(error.contains("chopi.adam.step"), "{error}");
    assert_eq!((other.state(), other.quantizers.states()), before);
    assert_eq!(other.adam.steps(), 2);
}

#[test]
fn learned_scales_start_where_they_are_calibrated() {
    let layer = candle_nn::Linear::new(ramp(&[3, 8], DType::F32), None);
    let mut calibrated = weights(4);
    calibrated.calibrate(layer.weight()).unwrap();
    let weights = FakeQuantizer::new(calibrated.clone()).learning(Learning::lsq());
    let mut activations = Chopi::new(8).unwrap();
    activations.calibrate(&ramp(&[4, 8], DType::F32)).unwrap();
    let input = FakeQuantizer::new(activations.clone()).learning(Learning::lsq_plus());
    let config = QatConfig::new().weights(weights).activations(input);
    let make = |variables: &VarMap| {
        let vb = VarBuilder::from_varmap(variables, DType::F32, &Device::Cpu);
        let (layer, quantizers) = (layer.clone(), Quantizers::new());
        QatLinear::from_layer(layer, &config, vb.pp("fc"), &quantizers).unwrap()
    };
    let variables = VarMap::new();
    let quantized = make(&variables);
    let (weights, input) = (
        quantized.weights().unwrap(),
        quantized.activations().unwrap(),
    );
    assert_eq!(read(weights.scale().unwrap()), calibrated.scale().unwrap());
    assert_eq!(read(input.scale().unwrap()), activations.scale().unwrap());
    let zero_point = activations.zero_point().unwrap()[0] as f64;
    assert_eq!(read(input.zero_point().unwrap()), [zero_point]);
    let x = ramp(&[5, 8], DType::F32);
    let expected = (activations.fake_quantize(&x).unwrap())
        .matmul(
            &calibrated
                .fake_quantize(layer.weight())
                .unwrap()
                .t()
                .unwrap(),
        )
        .unwrap();
    for train in [false, true] {
        assert_eq!(
            read(&quantized.forward_t(&x, train).unwrap()),
            read(&expected)
        );
    }
    // What was loaded before is kept.
    let scale = Var::from_tensor(weights.scale().unwrap()).unwrap();
    scale.set(&(scale.as_tensor() * 2.0).unwrap()).unwrap();
    let again = make(&variables);
    assert_eq!(
        read(again.weights().unwrap().scale().unwrap()),
        read(&scale)
    );
}

#[test]
fn integers_are_what_is_evaluated() {
    for learned in [false, true] {
        let mut network = Network::new(learned);
        let x = ramp(&[8, 10], DType::F32);
        assert!(network.layer.forward_t(&x, false).is_err() || learned);
        network.train(0..10);
        let converted = network.layer.convert().unwrap();
        let (weight, mut activations) = (converted.weight.unwrap(), converted.activations.unwrap());
        let w = weight.dequantize(&converted.weight_codes.unwrap()).unwrap();
        let x_hat = activations.fake_quantize(&x).unwrap();
        let y = x_hat.matmul(&w.t().unwrap()).unwrap();
        let y = y.broadcast_add(&converted.bias.unwrap()).unwrap();
        assert_eq!(
            read(&network.layer.evaluated().forward(&x).unwrap()),
            read(&y)
        );
    }
}

#[test]
fn frozen_parameters_stay_and_delays_pass_tensors_as_they_are() {
    let mut network = Network::new(false);
    network.train(0..2);
    network.quantizers.freeze();
    let scale = |network: &Network| {
        let quantizer = network.quantizers.get("fc.activation_quantizer").unwrap();
        let quantizer = quantizer.state();
        quantizer.params().unwrap().scale().to_vec()
    };
    let before = scale(&network);
    network.train(5..8);
    assert_eq!(scale(&network), before);

    network.quantizers.set_quantizing(false);
    let x = ramp(&[8, 10], DType::F32);
    let float = network.layer.layer().forward(&x).unwrap();
    let y = network.layer.forward_t(&x, false).unwrap();
    assert_eq!(read(&y), read(&float));
}

#[test]
fn a_convolution_is_folded_with_its_normalization() {
    let (variables, quantizers) = (VarMap::new(), Quantizers::new());
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let conv = candle_nn::conv2d(2, 3, 3, Conv2dConfig::default(), vb.pp("conv")).unwrap();
    let norm = candle_nn::batch_norm(3, 1e-5, vb.pp("norm")).unwrap();
    let config = config(false);
    let layer =
        QatConvBn2d::from_layers(conv, norm, &config, vb.pp("folded"), &quantizers).unwrap();
    let x = ramp(&[4, 2, 6, 6], DType::F32);
    for _ in 0..5 {
        let loss = layer.forward_t(&x, true).unwrap().sqr().unwrap().sum_all();
        let gradients = loss.unwrap().backward().unwrap();
        assert!(gradients.get(layer.conv().weight()).is_some());
    }
    // The statistics have moved since the weight was last observed; see it as it is now.
    layer.forward_t(&x, true).unwrap();
    let evaluated = layer.forward_t(&x, false).unwrap();
    let converted = layer.convert().unwrap();
    let (weight, mut activations) = (converted.weight.unwrap(), converted.activations.unwrap());
    let w = weight.dequantize(&converted.weight_codes.unwrap()).unwrap();
    let x_hat = activations.fake_quantize(&x).unwrap();
    let y = x_hat.conv2d(&w, 0, 1, 1, 1).unwrap();
    let bias = converted.bias.unwrap().reshape((1, 3, 1, 1)).unwrap();
    let y = y.broadcast_add(&bias).unwrap();
    for (a, b) in read(&y).iter().zip(read(&evaluated)) {
        assert!((a - b).abs() < 1e-4, "{a} {b}");
    }
}

#[test]
fn an_embedding_quantizes_its_rows_and_not_its_indices() {
    let (variables, quantizers) = (VarMap::new(), Quantizers::new());
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let layer = QatEmbedding::new(5, 3, &config(false), vb.pp("e"), &quantizers).unwrap();
    let indices = Tensor::new(&[4_u32, 0, 4], &Device::Cpu).unwrap();
    let y = layer.forward_t(&indices, true).unwrap();
    let rows = weights(4)
        .fake_quantize(layer.layer().embeddings())
        .unwrap();
    assert_eq!(read(&y), read(&rows.index_select(&indices, 0).unwrap()));
}
