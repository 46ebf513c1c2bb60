//! What models do beside their numbers: errors, observation, quantization, generation.

use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};

use candle_core::Tensor;
use chopi_candle as _;
use chopi_core::{Calibration, Chopi, Convention, Observer};
use chopi_models::{InputScheme, Inputs, Linear, Model, Network, Scheme, Windows, cosine, load};
use serde_json::{Value, json};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// A copy of a model's folder.
fn copy(name: &str) -> tempfile::TempDir {
    let target = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(folder(name)).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), target.path().join(entry.file_name())).unwrap();
    }
    target
}

/// What loading a model says whose `config.json` has these values instead.
fn error_with(name: &str, values: Value) -> String {
    let folder = copy(name);
    let path = folder.path().join("config.json");
    let mut config: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    for (key, value) in values.as_object().unwrap() {
        config[key] = value.clone();
    }
    fs::write(&path, config.to_string()).unwrap();
    load(folder.path()).unwrap_err().to_string()
}

#[test]
fn a_configuration_that_is_not_supported_is_refused_by_its_key() {
    let cases = [
        (
            "llama",
            json!({"model_type": "mamba"}),
            "config.json: model_type is mamba, expected one of bert, roberta, xlm-roberta, llama, mistral, qwen2, qwen3",
        ),
        (
            "llama",
            json!({"hidden_act": "mish"}),
            "config.json: hidden_act is mish, expected silu, gelu, gelu_new, gelu_pytorch_tanh or relu",
        ),
        (
            "llama",
            json!({"hidden_size": null}),
            "config.json: hidden_size is absent, expected an integer from 1 to 1048576",
        ),
        (
            "llama",
            json!({"hidden_size": 0}),
            "config.json: hidden_size is 0, expected an integer from 1 to 1048576",
        ),
        (
            "llama",
            json!({"hidden_size": -3}),
            "config.json: hidden_size is -3, expected an integer from 1 to 1048576",
        ),
        (
            "llama",
            json!({"num_hidden_layers": 3}),
            "there is no tensor model.layers.2.input_layernorm.weight, of shape [16] by config.json",
        ),
        (
            "llama",
            json!({"num_key_value_heads": 3}),
            "config.json: num_key_value_heads is 3, expected a divisor of num_attention_heads, 4",
        ),
        (
            "llama",
            json!({"head_dim": 5}),
            "config.json: head_dim is 5, expected an even number",
        ),
        (
            "llama",
            json!({"vocab_size": 33}),
            "the tensor model.embed_tokens.weight has the shape [32, 16], expected [33, 16] by config.json",
        ),
        (
            "llama",
            json!({"rms_norm_eps": 7}),
            "config.json: rms_norm_eps is 7, expected a number from 0 to 1",
        ),
        (
            "llama",
            json!({"rope_parameters": {"rope_type": "yarn"}}),
            "config.json: rope_parameters.rope_type is \"yarn\", expected default, linear or llama3",
        ),
        (
            "llama",
            json!({"rope_parameters": null, "rope_scaling": {"type": "linear"}}),
            "config.json: rope_scaling.factor is null, expected a positive number",
        ),
        (
            "llama",
            json!({"rope_parameters": {"rope_theta": -1}}),
            "config.json: rope_parameters.rope_theta is -1, expected a positive number",
        ),
        (
            "llama",
            json!({"partial_rotary_factor": 0.5}),
            "config.json: partial_rotary_factor is 0.5, expected 1",
        ),
        (
            "qwen2",
            json!({"layer_types": ["full_attention"]}),
            "config.json: layer_types is 1 names, expected one for each of the 2 layers",
        ),
        (
            "qwen2",
            json!({"layer_types": ["full_attention", "linear"]}),
            "config.json: layer_types is linear, expected full_attention or sliding_attention for each layer",
        ),
        (
            "bert",
            json!({"num_attention_heads": 3}),
            "config.json: num_attention_heads is 3, expected a divisor of hidden_size, 16",
        ),
        (
            "bert",
            json!({"position_embedding_type": "relative_key"}),
            "config.json: position_embedding_type is \"relative_key\", expected absolute",
        ),
        (
            "bert",
            json!({"is_decoder": true}),
            "config.json: is_decoder is true, expected false",
        ),
        (
            "roberta",
            json!({"pad_token_id": 40}),
            "config.json: max_position_embeddings is 32, expected more than pad_token_id and 1, 41",
        ),
    ];
    for (name, values, expected) in cases {
        assert_eq!(error_with(name, values), expected);
    }
}

#[test]
fn a_file_that_is_absent_or_broken_is_named() {
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        let broken = copy("llama");
        fs::write(broken.path().join(file), "{").unwrap();
        let error = load(broken.path()).unwrap_err().to_string();
        assert!(error.contains(file), "{error}");
        fs::remove_file(broken.path().join(file)).unwrap();
        let error = load(broken.path()).unwrap_err().to_string();
        let named = match file {
            "model.safetensors" => broken.path().to_str().unwrap(),
            named => named,
        };
        assert!(error.contains(named), "{error}");
    }
}

#[test]
fn every_linear_input_is_observed_by_its_name() {
    for (name, layers, width) in [("llama", 15, 20), ("bert", 12, 20)] {
        let mut model = load(folder(name)).unwrap();
        let mut names = Vec::new();
        model
            .for_each_linear(|linear: &mut Linear| {
                names.push(linear.name().to_owned());
                Ok(())
            })
            .unwrap();
        assert_eq!(names.len(), layers);
        let mut seen = Vec::new();
        let text = vec!["w3"; width].join(" ");
        let mut observer = |name: &str, input: &Tensor| {
            assert_eq!(input.dim(0)?, width);
            seen.push(name.to_owned());
            Ok(())
        };
        model.observe(&text, &mut observer).unwrap();
        assert_eq!(seen, names);
        let known = match name {
            "bert" => "encoder.layer.1.attention.output.dense",
            _ => "model.layers.1.mlp.down_proj",
        };
        assert!(seen.iter().any(|name| name == known));
        let mut failing = |_: &str, _: &Tensor| candle_core::bail!("enough");
        let error = model.observe("w3", &mut failing).unwrap_err();
        assert!(error.to_string().contains("enough"), "{error}");
    }
}

fn quantized(name: &str, scheme: &Scheme) -> Model {
    let mut model = load(folder(name)).unwrap().quantize(scheme).unwrap();
    model
        .for_each_linear(|linear| {
            assert!(linear.is_quantized() || linear.name() == "lm_head" && !scheme.embeddings);
            Ok(())
        })
        .unwrap();
    model
}

#[test]
fn quantized_encoders_embed_nearly_as_floats_do() {
    let texts = ["w1 w5 w9", "w2", "w30 w31 w30 w7 w8"];
    let float = load(folder("bert")).unwrap().embed(&texts).unwrap();
    for (bits, float_inputs, least) in [(8, false, 0.995), (8, true, 0.995), (4, false, 0.9)] {
        let mut scheme = Scheme::new(bits);
        if float_inputs {
            scheme.inputs = InputScheme::Float;
        }
        let embeddings = quantized("bert", &scheme).embed(&texts).unwrap();
        for (a, b) in float.iter().zip(&embeddings) {
            let cosine = cosine(a, b);
            assert!(cosine > least, "{bits} bits: {cosine}");
            assert!(a != b);
        }
    }
}

/// The logits of some tokens, or their hidden states.
fn output(model: &Model) -> Vec<u32> {
    let tokens = [3, 9, 27, 17, 2, 30];
    let output = match model.network() {
        Network::Decoder(decoder) => {
            let hidden = decoder.hidden(&tokens, &mut decoder.cache(), &mut ());
            decoder.logits(&hidden.unwrap(), &mut ()).unwrap()
        }
        Network::Encoder(encoder) => encoder.hidden(&[&tokens], &mut ()).unwrap().remove(0),
    };
    let values = output.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_saved_model_has_the_same_bits_and_can_be_saved_again() {
    let float_inputs = Scheme {
        inputs: InputScheme::Float,
        ..Scheme::new(4)
    };
    let float_embeddings = Scheme {
        embeddings: false,
        ..Scheme::new(8)
    };
    let asymmetric = Scheme {
        weights: Chopi::builder().num_bits(5).per_group(8, -1),
        method: "rtn+mse".parse().unwrap(),
        ..Scheme::new(5)
    };
    let schemes = [
        None,
        Some(Scheme::new(8)),
        Some(Scheme::new(4)),
        Some(float_inputs),
        Some(float_embeddings),
        Some(asymmetric),
    ];
    for name in ["llama", "llama-tied", "qwen2", "bert", "roberta"] {
        for scheme in &schemes {
            let mut model = load(folder(name)).unwrap();
            if let Some(scheme) = scheme {
                model = model.quantize(scheme).unwrap();
            }
            let target = tempfile::tempdir().unwrap();
            let (first, second) = (target.path().join("first"), target.path().join("second"));
            model.save(&first).unwrap();
            let loaded = load(&first).unwrap();
            assert_eq!(output(&loaded), output(&model), "{name} {scheme:?}");
            loaded.save(&second).unwrap();
            let bytes = |folder: &Path| fs::read(folder.join("model.safetensors")).unwrap();
            assert_eq!(bytes(&first), bytes(&second));
            assert_eq!(output(&load(&second).unwrap()), output(&model));
            // Nothing that is there is replaced.
            assert!(model.save(&first).is_err());
        }
    }
}

#[test]
fn static_inputs_are_saved_with_their_parameters() {
    let mut ranges = HashMap::new();
    let mut model = load(folder("llama-tied")).unwrap();
    let mut observer = |name: &str, input: &Tensor| {
        let observer = ranges.entry(name.to_owned()).or_insert_with(|| {
            let scheme = Chopi::builder().num_bits(8).scheme().unwrap();
            Observer::new(scheme, Convention::CHOPI, Calibration::MinMax).unwrap()
        });
        observer.observe(input).map_err(candle_core::Error::wrap)
    };
    model
        .observe("w3 w9 w27 w17 w2 w30", &mut observer)
        .unwrap();
    let dynamic = output(&model.clone().quantize(&Scheme::new(8)).unwrap());
    model
        .for_each_linear(|linear| {
            if linear.name() == "lm_head" {
                return Ok(());
            }
            let params = ranges[linear.name()].params().unwrap();
            let inputs = Inputs::Static(Box::new(params));
            let mut quantizer = Scheme::new(8).weights.build().unwrap();
            let codes = quantizer.quantize(linear.weight().unwrap()).unwrap();
            linear.set_codes(&codes, quantizer.params().unwrap(), inputs)
        })
        .unwrap();
    let target = tempfile::tempdir().unwrap();
    let saved = target.path().join("saved");
    model.save(&saved).unwrap();
    assert_eq!(output(&load(&saved).unwrap()), output(&model));
    assert_ne!(output(&model), dynamic);

    // A head of its own cannot lie beside an embedding in floats whose weights it has.
    model
        .for_each_linear(|linear| linear.quantize(&Scheme::new(8)))
        .unwrap();
    let error = model.save(target.path().join("tied")).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("lm_head has codes of its own"),
        "{error}"
    );
}

#[test]
fn layers_with_float_inputs_multiply_their_dequantized_weights() {
    let mut model = load(folder("llama")).unwrap();
    let scheme = Scheme {
        inputs: InputScheme::Float,
        ..Scheme::new(8)
    };
    let x = Tensor::arange(0_f32, 32.0, &candle_core::Device::Cpu).unwrap();
    let x = x.reshape((2, 16)).unwrap();
    model
        .for_each_linear(|linear| {
            let weight = linear.weight().unwrap().clone();
            if weight.dim(1).unwrap() != 16 {
                return Ok(());
            }
            let mut quantizer = scheme.weights.clone().build().unwrap();
            let weight = quantizer.fake_quantize(&weight).unwrap();
            let mut expected = x.matmul(&weight.t()?)?;
            if let Some(bias) = linear.bias() {
                expected = expected.broadcast_add(bias)?;
            }
            linear.quantize(&scheme)?;
            let found = linear.forward(&x, &mut ())?;
            let difference = (found - expected)?.abs()?.max_all()?.to_scalar::<f32>()?;
            assert!(difference < 1e-4, "{}: {difference}", linear.name());
            Ok(())
        })
        .unwrap();
}

#[test]
fn decoders_generate_until_the_end_and_predict_in_windows() {
    let model = load(folder("qwen3")).unwrap();
    let text = model.generate("w3 w4", 5).unwrap();
    assert!(!text.is_empty());
    let tokens = model.tokens("w3 w4").unwrap();
    let all: Vec<u32> = model
        .generate_tokens(tokens)
        .unwrap()
        .collect::<Result<_, _>>()
        .unwrap();
    // Two positions are the prompt's; the last token needs none.
    assert!(all.len() <= 63 && !all.contains(&1), "{all:?}");

    let text = (0..40)
        .map(|i| format!("w{} ", i * 7 % 32))
        .collect::<String>();
    let windows = |tokens, limit| Windows { tokens, limit };
    let mut steps = Vec::new();
    let found = model
        .perplexity(&text, windows(8, Some(3)), |done, of| {
            steps.push((done, of))
        })
        .unwrap();
    assert_eq!((found.windows, found.predictions), (3, 21));
    assert_eq!(steps, [(0, 3), (1, 3), (2, 3), (3, 3)]);
    assert!(found.perplexity > 1.0);
    let all = model
        .perplexity(&text, windows(8, None), |_, _| ())
        .unwrap();
    assert_eq!(all.windows, 5);

    let error = |windows| {
        let found = model.perplexity(&text, windows, |_, _| ());
        found.unwrap_err().to_string()
    };
    assert_eq!(
        error(windows(1, None)),
        "there are 1 tokens, expected at least 2"
    );
    assert_eq!(
        error(windows(41, None)),
        "there are 40 tokens, expected at least 41"
    );
    assert_eq!(
        model.generate("", 5).unwrap_err().to_string(),
        "there are 0 tokens, expected at least 1"
    );
    let long = "w2 ".repeat(65);
    assert_eq!(
        model.generate(&long, 5).unwrap_err().to_string(),
        "there are 65 tokens, expected at most 64"
    );
}

#[test]
fn a_family_says_what_it_does_not_do() {
    let encoder = load(folder("bert")).unwrap();
    let decoder = load(folder("llama")).unwrap();
    assert_eq!(
        decoder.embed(&["w1"]).unwrap_err().to_string(),
        "llama is a decoder, expected an encoder"
    );
    assert_eq!(
        encoder.generate("w1", 1).unwrap_err().to_string(),
        "bert is an encoder, expected a decoder"
    );
}

#[test]
fn pooling_is_that_of_the_modules() {
    let with = |modules: Value, pooling: Value| {
        let folder = copy("bert");
        fs::write(folder.path().join("modules.json"), modules.to_string()).unwrap();
        fs::create_dir(folder.path().join("1_Pooling")).unwrap();
        let path = folder.path().join("1_Pooling/config.json");
        fs::write(path, pooling.to_string()).unwrap();
        let model = load(folder.path())?;
        model.embed(&["w3 w4 w5"]).map(|mut all| all.remove(0))
    };
    let modules = json!([
        {"path": "", "type": "sentence_transformers.models.Transformer"},
        {"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"},
    ]);
    let of = |key: &str| with(modules.clone(), json!({key: true})).unwrap();
    let mean = of("pooling_mode_mean_tokens");
    assert_eq!(
        mean,
        load(folder("bert")).unwrap().embed(&["w3 w4 w5"]).unwrap()[0]
    );
    let scaled = of("pooling_mode_mean_sqrt_len_tokens");
    for (mean, scaled) in mean.iter().zip(&scaled) {
        assert!((mean * 3.0_f32.sqrt() - scaled).abs() < 1e-5);
    }
    let (first, last, max) = (
        of("pooling_mode_cls_token"),
        of("pooling_mode_lasttoken"),
        of("pooling_mode_max_tokens"),
    );
    for i in 0..16 {
        assert!(max[i] >= first[i] && max[i] >= last[i]);
    }
    let both = json!({"pooling_mode_cls_token": true, "pooling_mode_mean_tokens": true});
    assert_eq!(
        with(modules.clone(), both).unwrap(),
        [&first[..], &mean].concat()
    );
    assert_eq!(
        with(modules.clone(), json!({"pooling_mode": "cls"})).unwrap(),
        first
    );
    let mut normalized = modules.clone();
    let normalize = json!({"path": "2", "type": "sentence_transformers.models.Normalize"});
    normalized.as_array_mut().unwrap().push(normalize);
    let unit = with(normalized, json!({"pooling_mode": "mean"})).unwrap();
    assert!((unit.iter().map(|x| x * x).sum::<f32>() - 1.0).abs() < 1e-6);
    assert!((cosine(&unit, &mean) - 1.0).abs() < 1e-9);

    let error = with(modules.clone(), json!({"pooling_mode": "sum"})).unwrap_err();
    let expected = "config.json: pooling_mode is sum, expected cls, max, mean, mean_sqrt_len_tokens, weightedmean or lasttoken";
    assert_eq!(error.to_string(), expected);
    let error = with(modules, json!({})).unwrap_err().to_string();
    assert!(error.ends_with("no pooling mode is true"), "{error}");
    let dense = json!([{"path": "", "type": "sentence_transformers.models.Dense"}]);
    let error = with(dense, json!({})).unwrap_err().to_string();
    assert!(
        error.ends_with("expected Transformer, Pooling or Normalize"),
        "{error}"
    );
}

#[test]
fn texts_that_are_too_long_are_cut() {
    let model = load(folder("bert")).unwrap();
    let long = "w3 ".repeat(40);
    let cut = "w3 ".repeat(32);
    assert_eq!(
        model.embed(&[&long]).unwrap(),
        model.embed(&[&cut]).unwrap()
    );
}

/// The names that llama.cpp gives tensors, by those of Hugging Face.
const GGUF_NAMES: [(&str, &str); 13] = [
    ("model.embed_tokens", "token_embd"),
    ("model.norm", "output_norm"),
    ("lm_head", "output"),
    ("model.layers", "blk"),
    ("input_layernorm", "attn_norm"),
    ("post_attention_layernorm", "ffn_norm"),
    ("self_attn.q_proj", "attn_q"),
    ("self_attn.k_proj", "attn_k"),
    ("self_attn.v_proj", "attn_v"),
    ("self_attn.o_proj", "attn_output"),
    ("mlp.gate_proj", "ffn_gate"),
    ("mlp.up_proj", "ffn_up"),
    ("mlp.down_proj", "ffn_down"),
];

/// Writes a model as llama.cpp keeps it: its names, and for Llama the two rows of each rotated pair side by side.
fn write_gguf(name: &str, folder_of_gguf: &Path, architecture: &str) -> PathBuf {
    use chopi_formats::gguf::{GgufFile, Value};
    use chopi_formats::header::Header;
    use chopi_formats::{Plain, Plan, TensorPlan};

    for file in ["config.json", "tokenizer.json"] {
        fs::copy(folder(name).join(file), folder_of_gguf.join(file)).unwrap();
    }
    let config = fs::read_to_string(folder(name).join("config.json")).unwrap();
    let config: serde_json::Value = serde_json::from_str(&config).unwrap();
    let heads = |key: &str| config[key].as_u64().unwrap() as usize;
    let tensors = candle_core::safetensors::load(
        folder(name).join("model.safetensors"),
        &candle_core::Device::Cpu,
    );
    let mut plan = Plan::new(&GgufFile).with_header(Header::gguf(BTreeMap::from([(
        "general.architecture".to_owned(),
        Value::String(architecture.to_owned()),
    )])));
    let mut written = Vec::new();
    for (name, tensor) in tensors.unwrap() {
        let heads = match &*name {
            _ if architecture != "llama" => None,
            name if name.contains("q_proj") => Some(heads("num_attention_heads")),
            name if name.contains("k_proj") => Some(heads("num_key_value_heads")),
            _ => None,
        };
        let shape = tensor.dims().to_vec();
        let tensor = match heads {
            Some(heads) => {
                let row: usize = shape[1..].iter().product();
                let halves = tensor
                    .reshape((heads, 2, shape[0] / heads / 2, row))
                    .unwrap();
                halves.transpose(1, 2).unwrap().reshape(shape).unwrap()
            }
            None => tensor,
        };
        let name = GGUF_NAMES
            .iter()
            .fold(name, |name, (from, to)| name.replace(from, to));
        let plain = Plain::of::<chopi_candle::Candle, _>(&tensor).unwrap();
        let tensor = chopi_formats::Tensor::Plain(plain);
        plan.add(TensorPlan::of(&name, &tensor));
        written.push((name, tensor));
    }
    let path = folder_of_gguf.join("model.gguf");
    let writer = plan.create(&path, false).unwrap();
    for (name, tensor) in &written {
        writer.write(name, tensor).unwrap();
    }
    writer.finish().unwrap();
    path
}

#[test]
fn decoders_in_gguf_are_those_of_the_folder() {
    for (name, architecture) in [
        ("llama", "llama"),
        ("llama-tied", "llama"),
        ("mistral", "llama"),
        ("qwen2", "qwen2"),
    ] {
        let target = tempfile::tempdir().unwrap();
        let path = write_gguf(name, target.path(), architecture);
        let model = load(&path).unwrap();
        let float = load(folder(name)).unwrap();
        assert_eq!(output(&model), output(&float), "{name}");
        // Quantized and saved, it is a model like any other.
        let quantized = model.quantize(&Scheme::new(8)).unwrap();
        let saved = target.path().join("saved");
        quantized.save(&saved).unwrap();
        assert_eq!(output(&load(&saved).unwrap()), output(&quantized), "{name}");
    }
}

/// What other programs write and leave in a folder: numbers that standard JSON does not have, or that no float holds,
/// and names without a file.
#[cfg(unix)]
#[test]
fn a_folder_is_read_and_saved_whatever_else_it_holds() {
    let source = copy("llama");
    let config = source.path().join("config.json");
    let text = fs::read_to_string(&config).unwrap();
    let more = "{\"seed\": 123456789012345678901234567890, \"limit\": Infinity,";
    fs::write(&config, text.replacen('{', more, 1)).unwrap();
    std::os::unix::fs::symlink("nowhere", source.path().join("broken.json")).unwrap();
    let made = std::process::Command::new("mkfifo")
        .arg(source.path().join("pipe.txt"))
        .status();
    assert!(made.unwrap().success());
    let saved = tempfile::tempdir().unwrap();
    let saved = saved.path().join("saved");
    load(source.path()).unwrap().save(&saved).unwrap();
    let written = fs::read_to_string(saved.join("config.json")).unwrap();
    assert!(written.contains("123456789012345678901234567890") && written.contains("Infinity"));
    assert!(!saved.join("broken.json").exists() && !saved.join("pipe.txt").exists());
    load(&saved).unwrap();

    // Read whole, a pipe would wait for somebody who writes.
    fs::remove_file(&config).unwrap();
    fs::rename(source.path().join("pipe.txt"), &config).unwrap();
    let error = load(source.path()).unwrap_err().to_string();
    assert!(error.contains("config.json"), "{error}");
}

#[test]
fn a_module_outside_of_the_folder_is_refused() {
    let folder = copy("bert");
    for path in ["../1_Pooling", "/1_Pooling", "1_Pooling/../.."] {
        let modules = json!([{"type": "sentence_transformers.models.Pooling", "path": path}]);
        fs::write(folder.path().join("modules.json"), modules.to_string()).unwrap();
        let error = load(folder.path()).unwrap_err().to_string();
        assert!(error.contains("inside of the folder"), "{error}");
    }
}
