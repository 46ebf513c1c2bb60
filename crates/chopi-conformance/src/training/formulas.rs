//! The numbers of training, against the definitions.

use chopi_core::backend::{Compute, Float, FloatType, Layout, bf16, f16};
use chopi_core::training::{
    AdamConfig, FakeQuantizer, GradientFactor, LearnedParams, Learning, QatConfig, RangeObserver,
    Ste,
};
use chopi_core::{Builder, Chopi, Convention, QParams, Scheme};

use super::oracle::{Variable, fake_quantize};
use super::{Kind, Layer, Operation, Trainee, batch, network, ramp};
use crate::oracle;

/// The values are those of the definition, and the gradient of their squares passes where the estimator says
/// so, in every type and memory order.
pub fn gradients_pass_by_the_rule_of_the_estimator<T: Trainee>() {
    gradients::<T, f32>();
    gradients::<T, f64>();
    gradients::<T, f16>();
    gradients::<T, bf16>();
}

fn gradients<T: Trainee, F: Float>() {
    let shape = [6, 10];
    let scheme = Chopi::builder().num_bits(3).symmetric(true).per_channel(0);
    let scheme = scheme.scheme().unwrap();
    let wide = |x: F| x.widen().as_f64();
    let narrow = |x: f64| F::narrow(<F::Compute as Compute>::from_f64(x));
    let x: Vec<F> = ramp(60, 0.0).into_iter().map(narrow).collect();
    let scale: Vec<f64> = (0..6).map(|i| f64::from(0.3 + 0.1 * i as f32)).collect();
    let (of_groups, zeros) = (scheme.granularity.params_shape(&shape).unwrap(), vec![0; 6]);
    let params = QParams::new(
        scheme.clone(),
        Convention::CHOPI,
        F::TYPE,
        of_groups,
        scale.clone(),
        zeros,
    );
    let params = params.unwrap();
    let elements: Vec<f64> = x.iter().map(|&x| wide(x)).collect();
    for transposed in [false, true] {
        for ste in [Ste::Clipped, Ste::Identity] {
            let operation = Operation::Fixed(&params, ste);
            let outcome = T::operate((&elements, &shape), F::TYPE, transposed, &operation);
            let mut passed = 0;
            for (i, &x) in x.iter().enumerate() {
                let scale = scale[i / 10];
                let code = oracle::code(x, scale, 0, &scheme, i).unwrap();
                let y = wide(oracle::value::<F>(code, scale, 0));
                let is_inside = oracle::unclamped_code(x, scale, 0, &scheme, i) == Some(code);
                let passes = is_inside || ste == Ste::Identity;
                passed += usize::from(passes);
                let gradient = if passes { 2.0 * y } else { 0.0 };
                let what = format!("{} {transposed} {ste:?} {i}", F::TYPE);
                assert_eq!((outcome.y[i], outcome.x[i]), (y, gradient), "{what}");
            }
            assert_eq!(passed < 60, ste == Ste::Clipped);
        }
    }
}

/// Gradients of learned parameters are those of `LearnedParams::gradients`, for every granularity.
pub fn learned_gradients_are_those_on_slices<T: Trainee>() {
    for builder in [
        Chopi::builder().num_bits(3),
        Chopi::builder().num_bits(3).per_channel(1),
        Chopi::builder().num_bits(3).per_group(4, 1),
    ] {
        for transposed in [false, true] {
            learned_gradients::<T, f32>(&builder, transposed, |x| x as f32);
            learned_gradients::<T, f64>(&builder, transposed, |x| x);
        }
    }
}

fn learned_gradients<T: Trainee, F: Float + Into<f64>>(
    builder: &Builder,
    transposed: bool,
    narrow: fn(f64) -> F,
) {
    let (shape, scheme) = ([4, 9], builder.clone().scheme().unwrap());
    let of_groups = scheme.granularity.params_shape(&shape).unwrap();
    let groups = of_groups.iter().product::<usize>();
    let scale: Vec<f64> = (0..groups)
        .map(|i| f64::from(0.2 + 0.05 * i as f32))
        .collect();
    let zero_point = vec![f64::from(3.3_f32); groups];
    let params = LearnedParams::new(
        &scheme,
        &Convention::CHOPI,
        F::TYPE,
        &of_groups,
        (&scale, &zero_point),
        GradientFactor::Lsq,
    )
    .unwrap();
    let x = ramp(36, 0.0);
    let operation = Operation::Learned(&params, &scale, &zero_point);
    let outcome = T::operate((&x, &shape), F::TYPE, transposed, &operation);

    let x: Vec<F> = x.iter().map(|&x| narrow(x)).collect();
    let dy: Vec<F> = outcome.y.iter().map(|&y| narrow(2.0 * y)).collect();
    let expected = params
        .gradients(&x, &dy, &Layout::row_major(&shape))
        .unwrap();
    let dx: Vec<f64> = expected.x.into_iter().map(Into::into).collect();
    assert_eq!(outcome.x, dx);
    for (got, expected) in [
        (outcome.scale, expected.scale),
        (outcome.zero_point, expected.zero_point),
    ] {
        for (got, expected) in got.iter().zip(expected) {
            let difference = (got - expected).abs();
            let allowed = T::DIFFERENCE_OF_SUMS * expected.abs().max(1.0);
            assert!(difference <= allowed, "{got} {expected}");
        }
    }
}

/// Parameters of one group.
fn params(scheme: &Scheme, rank: usize, scale: f64, zero_point: i64) -> Chopi {
    let shape = scheme.granularity.params_shape(&vec![1; rank]).unwrap();
    let (scale, zero_point) = (vec![scale], vec![zero_point]);
    let convention = Convention::CHOPI;
    let params = QParams::new(
        scheme.clone(),
        convention,
        FloatType::F32,
        shape,
        scale,
        zero_point,
    );
    Chopi::from_params(params.unwrap())
}

/// Fifteen steps of layers whose products have one term each have the numbers of the definitions to the bit:
/// forward, backward and in Adam.
pub fn training_has_the_numbers_of_the_formulas<T: Trainee>() {
    let signed = Chopi::builder().num_bits(4).symmetric(true).per_channel(0);
    let signed = signed.scheme().unwrap();
    let unsigned = Chopi::builder().num_bits(4).scheme().unwrap();
    for kind in [Kind::Linear, Kind::Conv1d, Kind::Conv2d, Kind::Embedding] {
        let layer = Layer {
            bias: false,
            ..Layer::new(kind, (1, 1), 1)
        };
        let (x_rank, w_rank) = match kind {
            Kind::Linear | Kind::Embedding => (2, 2),
            Kind::Conv1d => (3, 3),
            Kind::Conv2d | Kind::ConvBn2d => (4, 4),
        };
        for learned in [true, false] {
            let weights = FakeQuantizer::new(params(&signed, w_rank, 0.1, 0));
            let inputs = FakeQuantizer::new(params(&unsigned, x_rank, 0.2, 7));
            let (weights, inputs) = match learned {
                true => (
                    weights.learning(Learning::lsq()),
                    inputs.learning(Learning::lsq_plus()),
                ),
                false => (weights, inputs),
            };
            let config = QatConfig::new().weights(weights).activations(inputs);
            let mut network = T::new(layer, &config).unwrap();
            network.set("layer.weight", &[0.6543]);
            let rates = AdamConfig {
                learning_rate: 0.03,
                quantizer_learning_rate: 0.01,
                ..AdamConfig::default()
            };
            network.set_adam(rates).unwrap();
            if !learned {
                network.quantizers().freeze();
            }
            let [mut w, mut w_scale, mut x_scale, mut x_zero] =
                [0.6543, 0.1, 0.2, 7.0].map(Variable::new);
            for step in 1..=15 {
                let value = (f64::from(step) * 0.7).sin() * 2.5;
                let x = match kind {
                    Kind::Embedding => T::indices(&[0]),
                    _ => T::tensor(&[value], &vec![1; x_rank]),
                };
                network.train(&x);

                // x is 1 for an embedding, and not quantized.
                let x = (kind != Kind::Embedding)
                    .then(|| fake_quantize(value as f32, x_scale.value, x_zero.value, &unsigned));
                let x_hat = x.map_or(1.0, |x| x.value);
                let w_hat = fake_quantize(w.value, w_scale.value, 0.0, &signed);
                let dy = 2.0 * (x_hat * w_hat.value);
                let (dx, dw) = (dy * w_hat.value, dy * x_hat);
                let rate = rates.quantizer_learning_rate;
                if let (Some(x), true) = (x, learned) {
                    x_scale.step::<T>(x.ds(dx), &rates, rate, step);
                    x_zero.step::<T>(x.dz(dx), &rates, rate, step);
                }
                if learned {
                    w_scale.step::<T>(w_hat.ds(dw), &rates, rate, step);
                }
                w.step::<T>(w_hat.dx(dw), &rates, rates.learning_rate, step);

                let got = network.variables();
                let mut expected = vec![("layer.weight", w)];
                if learned {
                    expected.push(("layer.weight_quantizer.scale", w_scale));
                    if kind != Kind::Embedding {
                        expected.push(("layer.activation_quantizer.scale", x_scale));
                        expected.push(("layer.activation_quantizer.zero_point", x_zero));
                    }
                }
                assert_eq!(got.len(), expected.len());
                for (name, variable) in expected {
                    let what = format!("{kind:?} {learned} step {step}: {name}");
                    assert_eq!(got[name], [f64::from(variable.value)], "{what}");
                }
            }
        }
    }
}

/// The integers of a convolution and its normalization are those of w·f and (b − μ)·f + β, each operation
/// rounded once, but for the framework's square root.
pub fn a_folded_convolution_has_the_numbers_of_the_formula<T: Trainee>() {
    for bias in [true, false] {
        let layer = Layer {
            bias,
            ..Layer::new(Kind::ConvBn2d, (2, 3), 3)
        };
        let weights = Chopi::builder().num_bits(4).symmetric(true).per_channel(0);
        let weights = weights.build().unwrap();
        let config = QatConfig::new()
            .weights(FakeQuantizer::new(weights.clone()).observer(RangeObserver::Latest))
            .activations(FakeQuantizer::new(Chopi::new(8).unwrap()));
        let mut trained = network::<T>(layer, &config);
        let numbers = [
            ("weight", [1.5, -0.75, 0.3]),
            ("bias", [0.1, -0.2, 0.0]),
            ("running_mean", [0.4, 0.0, -1.2]),
            ("running_var", [2.5, 0.8, 1.0]),
        ];
        for (name, numbers) in numbers {
            trained.set(&format!("layer.norm.{name}"), &numbers);
        }
        trained.freeze_statistics();
        let x = batch::<T>(layer, 1);
        let y = trained.forward(&x, true).unwrap();
        assert_eq!(T::read(&trained.forward(&x, false).unwrap()), T::read(&y));

        let [gamma, beta, mean, variance] = numbers.map(|(_, n)| n.map(|n| n as f32));
        let variables = trained.variables();
        let narrow = |name: &str| {
            let values = variables.get(name).cloned().unwrap_or_default();
            values.iter().map(|&v| v as f32).collect::<Vec<_>>()
        };
        let (w, b) = (narrow("layer.conv.weight"), narrow("layer.conv.bias"));
        let deviation = T::sqrt(&variance.map(|v| v + 1e-5));
        let factor = |c: usize| gamma[c] / deviation[c];
        let folded: Vec<f64> = (0..54).map(|i| f64::from(w[i] * factor(i / 18))).collect();
        let folded_bias: Vec<f64> = (0..3)
            .map(|c| {
                let shifted = if bias { b[c] - mean[c] } else { -mean[c] };
                f64::from(shifted * factor(c) + beta[c])
            })
            .collect();
        let converted = trained.convert().unwrap();
        let codes = weights.clone().quantize(&T::tensor(&folded, &[3, 2, 3, 3]));
        let got = converted.weight_codes.unwrap();
        assert_eq!(T::read(&got), T::read(&codes.unwrap()));
        let got_bias = converted.bias.unwrap();
        assert_eq!(T::read(&got_bias), folded_bias);

        // The framework normalizes in other steps, so the last bits of what it gives are others.
        let w: T::Tensor = converted.weight.unwrap().dequantize(&got).unwrap();
        let x_hat = converted.activations.unwrap().fake_quantize(&x).unwrap();
        let integers = trained.float(&x_hat, &w, Some(&got_bias));
        for (a, b) in T::read(&integers).iter().zip(T::read(&y)) {
            assert!((a - b).abs() < 1e-4, "{a} {b}");
        }
    }
}
