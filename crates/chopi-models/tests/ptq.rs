//! Quantization with data, on small models with random weights.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use chopi_core::Calibration;
use chopi_models::{InputScheme, Model, Network, Scheme, Windows, load};
use chopi_ptq::Moments;

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// A text of the words that the small models know, a line for each few.
fn text() -> String {
    let word = |i: usize| format!("w{}", (i * i * 7 + i * 3) % 29 + 1);
    let words: Vec<String> = (0..240).map(word).collect();
    let lines: Vec<String> = words.chunks(8).map(|line| line.join(" ")).collect();
    lines.join("\n")
}

const WINDOWS: Windows = Windows {
    tokens: 16,
    limit: Some(12),
};

fn scheme(bits: u32, method: &str) -> Scheme {
    Scheme {
        method: method.parse().unwrap(),
        ..Scheme::new(bits)
    }
}

/// The logits of some tokens, or their hidden states.
fn output(model: &Model) -> Vec<f32> {
    let tokens = [3, 9, 27, 17, 2, 30];
    let output = match model.network() {
        Network::Decoder(decoder) => {
            let hidden = decoder.hidden(&tokens, &mut decoder.cache(), &mut ());
            decoder.logits(&hidden.unwrap(), &mut ()).unwrap()
        }
        Network::Encoder(encoder) => encoder.hidden(&[&tokens], &mut ()).unwrap().remove(0),
    };
    output.flatten_all().unwrap().to_vec1().unwrap()
}

fn bits(values: Vec<f32>) -> Vec<u32> {
    values.into_iter().map(f32::to_bits).collect()
}

const MODELS: [&str; 7] = [
    "llama",
    "llama-tied",
    "mistral",
    "qwen2",
    "qwen3",
    "bert",
    "roberta",
];

#[test]
fn the_nearest_codes_are_the_same_with_data_and_without() {
    for name in MODELS {
        let float = load(folder(name)).unwrap();
        let scheme = scheme(4, "rtn");
        let mut layers = Vec::new();
        let seen = float
            .clone()
            .quantize_on(&text(), WINDOWS, &scheme, |layer| {
                assert_eq!(layer.error.nearest, layer.error.chosen);
                layers.push((layer.name.clone(), layer.done));
            });
        let quantized = float.clone().quantize(&scheme).unwrap();
        assert_eq!(
            bits(output(&seen.unwrap())),
            bits(output(&quantized)),
            "{name}"
        );
        let mut names = Vec::new();
        let mut float = float;
        float
            .for_each_linear(|linear| {
                names.push(linear.name().to_owned());
                Ok(())
            })
            .unwrap();
        names.retain(|name| name != "lm_head");
        let count = names.len();
        let expected = names.into_iter().zip((1..=count).map(|done| (done, count)));
        assert_eq!(layers, expected.collect::<Vec<_>>());
    }
}

#[test]
fn methods_make_layers_no_worse_and_files_keep_the_bits() {
    for name in MODELS {
        for method in [
            "rtn+weighted",
            "gptq",
            "gptq+weighted",
            "awq",
            "awq+gptq",
            "smoothquant+gptq",
        ] {
            let mut scheme = scheme(4, method);
            if method == "gptq" {
                scheme.inputs = InputScheme::Static(Calibration::MinMax);
            }
            let model = load(folder(name)).unwrap();
            let model = model.quantize_on(&text(), WINDOWS, &scheme, |layer| {
                let error = &layer.error;
                assert!(
                    error.chosen <= error.nearest * (1.0 + 1e-12),
                    "{name} {method} {layer:?}"
                );
            });
            let model = model.unwrap();
            let target = tempfile::tempdir().unwrap();
            let saved = target.path().join("saved");
            model.save(&saved).unwrap();
            assert_eq!(
                bits(output(&load(&saved).unwrap())),
                bits(output(&model)),
                "{name} {method}"
            );
        }
    }
}

/// ‖a − b‖²/‖b‖².
fn relative(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    error / b.iter().copied().map(square).sum::<f64>()
}

#[test]
fn moving_scales_does_not_change_what_a_model_computes() {
    for name in MODELS {
        let float = load(folder(name)).unwrap();
        let expected = output(&float);
        // Weights of 8 bits and inputs in floats, so that little else changes it.
        let quantized = |method: &str| {
            let scheme = Scheme {
                inputs: InputScheme::Float,
                embeddings: false,
                ..scheme(8, method)
            };
            let model = float.clone();
            model
                .quantize_on(&text(), WINDOWS, &scheme, |_| ())
                .unwrap()
        };
        let nearest = relative(&output(&quantized("rtn")), &expected);
        for method in ["awq", "smoothquant", "smoothquant:1"] {
            let model = quantized(method);
            // Were a scale not undone, the error would be about 1.
            let error = relative(&output(&model), &expected);
            assert!(
                error < 10.0 * nearest && error < 0.02,
                "{name} {method}: {error}, {nearest}"
            );
            let moved = model.changed().keys().any(|name| name.contains("norm"));
            assert_eq!(moved, !name.contains("bert"), "{name}");
        }
    }
}

#[test]
fn scales_do_not_move_into_integers() {
    let float = load(folder("llama")).unwrap();
    let expected = output(&float);
    let scheme = |method: &str, inputs: InputScheme| Scheme {
        inputs,
        embeddings: false,
        ..scheme(8, method)
    };
    let mut part = float.clone();
    part.for_each_linear(|linear| match linear.name().ends_with("up_proj") {
        true => linear.quantize(&scheme("rtn", InputScheme::Float)),
        false => Ok(()),
    })
    .unwrap();
    // With ranges of inputs from data, scales would move into linear layers too.
    let inputs = InputScheme::Static(Calibration::MinMax);
    let scheme = scheme("smoothquant:1", inputs);
    let model = part.quantize_on(&text(), WINDOWS, &scheme, |_| ());
    let error = relative(&output(&model.unwrap()), &expected);
    assert!(error < 0.2, "{error}");
}

#[test]
fn statistics_are_the_moments_of_what_layers_take() {
    let model = load(folder("llama")).unwrap();
    let statistics = model.statistics(&text(), WINDOWS, |_, _| ()).unwrap();
    let name = "model.layers.1.mlp.down_proj";
    let tokens = model.tokens(&text()).unwrap();
    let Network::Decoder(decoder) = model.network() else {
        unreachable!("it is a decoder");
    };
    let mut inputs: Vec<Tensor> = Vec::new();
    for window in tokens.chunks_exact(16).take(12) {
        let mut observer = |layer: &str, input: &Tensor| {
            if layer == name {
                inputs.push(input.clone());
            }
            Ok(())
        };
        decoder
            .hidden(window, &mut decoder.cache(), &mut observer)
            .unwrap();
    }
    // In any order.
    let mut moments = Moments::new(inputs[0].dim(1).unwrap()).unwrap();
    inputs
        .iter()
        .rev()
        .for_each(|input| moments.observe(input).unwrap());
    assert_eq!(statistics.0.get(name), Some(&moments));
    assert_eq!(moments.rows(), 12 * 16);
}

#[test]
fn what_needs_data_says_so() {
    let model = load(folder("llama")).unwrap();
    for scheme in [
        scheme(4, "gptq"),
        scheme(4, "rtn+weighted"),
        scheme(4, "awq"),
        Scheme {
            inputs: InputScheme::Static(Calibration::MinMax),
            ..Scheme::new(8)
        },
    ] {
        let error = model.clone().quantize(&scheme).unwrap_err().to_string();
        assert!(
            error.contains("needs data: quantize the model on a text"),
            "{error}"
        );
    }
    let error = model
        .clone()
        .quantize_on("w1 w2", WINDOWS, &Scheme::new(4), |_| ())
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        "there are 2 tokens, expected at least 16"
    );
    let model = load(folder("bert")).unwrap();
    let error = model
        .quantize_on("\n \n", WINDOWS, &Scheme::new(4), |_| ())
        .unwrap_err();
    assert!(error.to_string().contains("no line with text"), "{error}");
}

const DECODERS: [&str; 5] = ["llama", "llama-tied", "mistral", "qwen2", "qwen3"];

#[test]
fn a_rotated_decoder_computes_the_same_and_files_keep_its_bits() {
    for name in DECODERS {
        let float = load(folder(name)).unwrap();
        let rotated = float.clone().rotated().unwrap();
        let error = relative(&output(&rotated), &output(&float));
        assert!(0.0 < error && error < 1e-11, "{name}: {error}");
        let changed = rotated.changed();
        for tensor in [
            "model.embed_tokens",
            "lm_head",
            "model.norm",
            "model.layers.1.mlp.down_proj",
        ] {
            assert!(
                changed.contains_key(&format!("{tensor}.weight")),
                "{name} {tensor}"
            );
        }
        let target = tempfile::tempdir().unwrap();
        let saved = target.path().join("saved");
        rotated.save(&saved).unwrap();
        let loaded = load(&saved).unwrap();
        assert_eq!(bits(output(&loaded)), bits(output(&rotated)), "{name}");
        // It can be rotated again.
        let error = relative(&output(&loaded.rotated().unwrap()), &output(&float));
        assert!(error < 1e-11, "{name}: {error}");
    }
}

#[test]
fn rotations_compose_with_methods_and_inputs_of_few_bits() {
    for name in DECODERS {
        let float = load(folder(name)).unwrap();
        for (method, inputs) in [
            ("rotation+gptq+weighted", InputScheme::Dynamic4),
            ("rotation+smoothquant+gptq", InputScheme::Dynamic),
        ] {
            let quantized = |method: &str| {
                let scheme = Scheme {
                    inputs,
                    ..scheme(8, method)
                };
                let model = float.clone();
                model
                    .quantize_on(&text(), WINDOWS, &scheme, |_| ())
                    .unwrap()
            };
            let model = quantized(method);
            let without = quantized(method.trim_start_matches("rotation+"));
            let [error, without] =
                [&model, &without].map(|model| relative(&output(model), &output(&float)));
            // Were a rotation not undone, the error would be about 1.
            assert!(
                error < 4.0 * without,
                "{name} {method}: {error}, {without} without"
            );
            let target = tempfile::tempdir().unwrap();
            let saved = target.path().join("saved");
            model.save(&saved).unwrap();
            assert_eq!(
                bits(output(&load(&saved).unwrap())),
                bits(output(&model)),
                "{name}"
            );
        }
        // Without data too.
        let [error, without] = ["rotation", "rtn"].map(|method| {
            let model = float.clone().quantize(&scheme(8, method)).unwrap();
            relative(&output(&model), &output(&float))
        });
        assert!(error < 10.0 * without, "{name}: {error}, {without} without");
    }
}

#[test]
fn inputs_of_4_bits_are_rows_of_16_levels() {
    let mut model = load(folder("llama")).unwrap();
    let x: Vec<f32> = (0..5 * 16)
        .map(|i| (i as f32 * 1.3).sin() * (i / 16 + 1) as f32)
        .collect();
    let x = Tensor::from_vec(x, (5, 16), &candle_core::Device::Cpu).unwrap();
    let mut rows = chopi_core::Chopi::builder()
        .num_bits(4)
        .include_zero()
        .per_channel(0)
        .build()
        .unwrap();
    rows.calibrate(&x).unwrap();
    let levels: Tensor = rows.fake_quantize(&x).unwrap();
    model
        .for_each_linear(|linear| {
            if !linear.name().ends_with("gate_proj") {
                return Ok(());
            }
            let mut other = linear.clone();
            let of = |inputs| Scheme {
                inputs,
                ..Scheme::new(8)
            };
            linear.quantize(&of(InputScheme::Dynamic4))?;
            other.quantize(&of(InputScheme::Float))?;
            let found = linear
                .forward(&x, &mut ())?
                .flatten_all()?
                .to_vec1::<f32>()?;
            let expected = other
                .forward(&levels, &mut ())?
                .flatten_all()?
                .to_vec1::<f32>()?;
            let error = relative(&found, &expected);
            assert!(error < 1e-12, "{error}");
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_cannot_be_rotated_says_so() {
    let encoder = load(folder("bert")).unwrap();
    let error = encoder.clone().rotated().unwrap_err().to_string();
    assert_eq!(error, "bert is an encoder, expected a decoder");
    let error = encoder.quantize_on(&text(), WINDOWS, &scheme(4, "rotation+gptq"), |_| ());
    assert!(
        error
            .unwrap_err()
            .to_string()
            .contains("expected a decoder")
    );
    let integers = load(folder("llama"))
        .unwrap()
        .quantize(&Scheme::new(8))
        .unwrap();
    let error = integers.rotated().unwrap_err().to_string();
    assert_eq!(
        error,
        "model.layers.0.self_attn.q_proj cannot be rotated: its weights are integers, expected floats"
    );
}
