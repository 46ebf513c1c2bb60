//! Folders of models as they are found: what is a linear layer, what lies beside the weights, what is refused
//! before anything is written.

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::model::{Folder, Model, chopi, convert, convert_well, failure, noise, row};

const FORMAT: [&str; 4] = ["--format", "compressed-tensors", "--symmetric", "--bits"];

/// A model's folder with this configuration and these weights.
fn folder_of(folder: &Folder, config: &str, model: &Model) -> PathBuf {
    let path = folder.path("model");
    fs::create_dir_all(&path).unwrap();
    fs::write(path.join("config.json"), config).unwrap();
    fs::write(path.join("model.safetensors"), model.bytes()).unwrap();
    path
}

/// Matrices of these names, and biases where the length of one is given.
fn matrices(names: &[&str]) -> Model {
    let add = |model: Model, name: &&str| model.array(name, &noise::<f32>(&[16, 32]));
    names.iter().fold(Model::new(), add)
}

fn args<'a>(bits: &'a str, more: &[&'a str]) -> Vec<&'a str> {
    [&FORMAT[..], &[bits], more].concat()
}

/// What would be done to a model.
fn plan(model: &Path, bits: &str, more: &[&str]) -> Value {
    let more = [more, &["--dry-run"]].concat();
    let out = model.with_file_name("out");
    let said = convert_well("quantize", model, &out, &args(bits, &more));
    assert!(!out.exists());
    serde_json::from_str(&said).unwrap()
}

fn refused(model: &Path, bits: &str, more: &[&str]) -> String {
    let out = model.with_file_name("out");
    let error = failure(convert("quantize", model, &out, &args(bits, more)), 1);
    assert!(!out.exists());
    error
}

fn is_quantized(plan: &Value, name: &str) -> bool {
    plan["tensors"][name].get("bits").is_some()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

const MIXTRAL: [&str; 8] = [
    "lm_head.weight",
    "model.embed_tokens.weight",
    "model.layers.0.block_sparse_moe.experts.0.w1.weight",
    "model.layers.0.block_sparse_moe.experts.0.w2.weight",
    "model.layers.0.block_sparse_moe.experts.1.w1.weight",
    "model.layers.0.block_sparse_moe.experts.1.w2.weight",
    "model.layers.0.block_sparse_moe.gate.weight",
    "model.layers.0.self_attn.q_proj.weight",
];

#[test]
fn a_router_stays_in_float_and_says_why() {
    let folder = Folder::new();
    let model = folder_of(&folder, r#"{"model_type": "mixtral"}"#, &matrices(&MIXTRAL));
    let plan = plan(&model, "4", &[]);
    for name in MIXTRAL {
        let expected = name.contains("experts") || name.contains("q_proj");
        assert_eq!(is_quantized(&plan, name), expected, "{name}");
    }
    let said = convert_well(
        "quantize",
        &model,
        &folder.path("out"),
        &args("4", &["--json"]),
    );
    let report: Value = serde_json::from_str(&said).unwrap();
    let gate = row(&report, "model.layers.0.block_sparse_moe.gate.weight");
    assert_eq!(
        gate["kept"],
        "a parameter of MixtralTopKRouter, no linear layer"
    );
    let table = convert_well("quantize", &model, &folder.path("again"), &args("4", &[]));
    assert!(
        table.contains("\n  1: an embedding, no linear layer\n"),
        "{table}"
    );
}

#[test]
fn experts_that_are_stacked_have_one_scheme_that_can_be_stacked() {
    let folder = Folder::new();
    let model = folder_of(&folder, r#"{"model_type": "mixtral"}"#, &matrices(&MIXTRAL));
    // 8 bits are packed too, in a group that stands first.
    let eight = plan(&model, "8", &[]);
    assert_eq!(eight["tensors"][MIXTRAL[2]]["format"], "pack-quantized");
    assert_eq!(eight["tensors"][MIXTRAL[7]]["format"], "int-quantized");
    let groups = &eight["quantization_config"]["config_groups"];
    assert_eq!(groups["group_0"]["format"], "pack-quantized");
    assert!(
        groups["group_0"]["targets"][0]
            .as_str()
            .unwrap()
            .contains("experts")
    );
    let error = refused(&model, "4", &["--exclude", "*experts.1*"]);
    assert!(
        error.contains("experts.1.w1.weight") && error.contains("stacked"),
        "{error}"
    );

    let asymmetric = ["--format", "compressed-tensors", "--bits", "4"];
    let done = convert("quantize", &model, &folder.path("out"), &asymmetric);
    assert!(failure(done, 1).contains("--symmetric"));

    let bits = json!({MIXTRAL[2]: 4, MIXTRAL[3]: 4, MIXTRAL[4]: 8, MIXTRAL[5]: 4});
    let plan = folder.file("plan.json", bits.to_string().as_bytes());
    let from = [
        "--format",
        "compressed-tensors",
        "--symmetric",
        "--bits-from",
    ];
    let from = [&from[..], &[plan.to_str().unwrap()]].concat();
    let error = failure(convert("quantize", &model, &folder.path("out"), &from), 1);
    assert!(
        error.contains("experts.1.w1.weight\" would get 8 bits"),
        "{error}"
    );

    // What sensitivity proposes is one number of bits for all of them.
    let mut sensitivity = chopi(["sensitivity", "--symmetric", "--budget", "60%", "--force"]);
    let done = sensitivity
        .arg(&model)
        .arg("-o")
        .arg(&plan)
        .output()
        .unwrap();
    assert!(done.status.success(), "{done:?}");
    let proposed = read_json(&plan);
    let of_experts = MIXTRAL[2..6].iter().map(|name| &proposed[name]);
    assert!(
        of_experts
            .clone()
            .all(|bits| bits.is_u64() && *bits == proposed[MIXTRAL[2]])
    );
    convert_well("quantize", &model, &folder.path("out"), &from);
}

#[test]
fn tables_of_embeddings_are_none_of_linear_layers() {
    let folder = Folder::new();
    let names = [
        "encoder.layer.0.attention.attn.q.weight",
        "encoder.relative_attention_bias.weight",
        "embeddings.word_embeddings.weight",
    ];
    let model = folder_of(&folder, r#"{"model_type": "mpnet"}"#, &matrices(&names));
    for more in [&[][..], &["--include", "*"]] {
        let plan = plan(&model, "4", more);
        assert_eq!(
            names.map(|name| is_quantized(&plan, name)),
            [true, false, false]
        );
    }
    let error = refused(
        &model,
        "4",
        &["--include", "*embeddings*", "--include", "*attn.q*"],
    );
    assert!(
        error.contains("\"embeddings.word_embeddings.weight\" cannot be quantized: an embedding"),
        "{error}"
    );
}

#[test]
fn a_layer_whose_rows_are_inputs_is_left_in_float() {
    let folder = Folder::new();
    let names = [
        "h.0.attn.c_attn.weight",
        "h.0.mlp.fc1.weight",
        "h.0.mlp.fc2.weight",
    ];
    let model = matrices(&names)
        .array("h.0.mlp.fc1.bias", &noise::<f32>(&[32]))
        .array("h.0.mlp.fc2.bias", &noise::<f32>(&[16]));
    for model_type in ["gpt2", "of tomorrow"] {
        let config = format!("{{\"model_type\": {model_type:?}}}");
        let plan = plan(&folder_of(&folder, &config, &model), "4", &[]);
        assert_eq!(
            names.map(|name| is_quantized(&plan, name)),
            [false, false, true]
        );
    }
}

#[test]
fn a_tied_head_is_ignored() {
    let folder = Folder::new();
    let names = [
        "bert.encoder.layer.0.attention.self.query.weight",
        "bert.embeddings.word_embeddings.weight",
        "cls.predictions.transform.dense.weight",
    ];
    let model = folder_of(&folder, r#"{"model_type": "bert"}"#, &matrices(&names));
    let plan = plan(&model, "4", &[]);
    let config = &plan["quantization_config"];
    let ignore = config["ignore"].as_array().unwrap();
    assert!(
        ignore.contains(&json!(r"re:(?:.*\.)?cls\.predictions\.decoder$")),
        "{ignore:?}"
    );
    assert_eq!(
        config["config_groups"]["group_0"]["targets"],
        json!([r"re:(?:.*\.)?encoder\.layer\.\d+\.attention\.self\.query$"])
    );
}

#[test]
fn weights_that_are_asked_for_by_name_are_not_packed() {
    let folder = Folder::new();
    let name = "encoder.block.0.layer.0.SelfAttention.q.weight";
    let model = folder_of(&folder, r#"{"model_type": "t5"}"#, &matrices(&[name]));
    let plan = plan(&model, "4", &[]);
    assert_eq!(
        plan["tensors"][name],
        json!({"bits": 4, "format": "int-quantized"})
    );
    let out = folder.path("out");
    convert_well(
        "quantize",
        &model,
        &out,
        &args("4", &["--group-size", "16"]),
    );
    let bytes = fs::read(out.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let codes = file.tensor(name).unwrap();
    assert_eq!((codes.dtype(), codes.shape()), (Dtype::I8, &[16, 32][..]));
    assert!(
        codes
            .data()
            .iter()
            .all(|&code| (-8..8).contains(&(code as i8)))
    );
    let report = chopi(["report"])
        .arg(&model)
        .arg(&out)
        .arg("-o")
        .arg(folder.path("page.html"))
        .output();
    assert!(report.unwrap().status.success());
}

#[test]
fn weights_that_are_quantized_already_are_refused() {
    let folder = Folder::new();
    let float = || matrices(&["model.layers.0.mlp.up_proj.weight"]);
    let ints = |name: &str| float().raw(name, Dtype::I32, &[4, 4], vec![0; 64]);
    for (model, found) in [
        (
            ints("model.layers.0.mlp.down_proj.qweight"),
            "down_proj.qweight",
        ),
        (
            ints("model.layers.0.mlp.down_proj.weight_packed"),
            "weight_packed",
        ),
        (
            ints("model.layers.0.mlp.down_proj.weight"),
            "\" is I32 [4, 4]",
        ),
        (
            float().array(
                "model.layers.0.mlp.up_proj.weight_scale_inv",
                &noise::<f32>(&[1, 1]),
            ),
            "weight_scale_inv",
        ),
        (
            float()
                .raw("a.codes_of", Dtype::U8, &[4], vec![0; 4])
                .array("a.codes_of_scale", &noise::<f32>(&[2, 2])),
            "a.codes_of_scale",
        ),
    ] {
        let path = folder_of(&folder, r#"{"model_type": "llama"}"#, &model);
        let error = refused(&path, "4", &[]);
        assert!(
            error.contains("quantized already") && error.contains(found),
            "{error}"
        );
    }
    let config = |quantization: &str| {
        format!("{{\"model_type\": \"llama\", \"quantization_config\": {quantization}}}")
    };
    let path = folder_of(&folder, &config("{\"quant_method\": \"gptq\"}"), &float());
    assert!(refused(&path, "4", &[]).contains("says gptq"));
    // null is as good as nothing.
    let path = folder_of(&folder, &config("null"), &float());
    let out = folder.path("out");
    convert_well("quantize", &path, &out, &args("4", &[]));
    assert!(read_json(&out.join("config.json"))["quantization_config"].is_object());
    // A file of such weights is refused in chopi's own format, too, unless they are left out.
    let gptq = ints("a.qweight").array("a.scales", &noise::<f32>(&[2, 2]));
    let gptq = gptq.raw("a.qweight_scales", Dtype::F32, &[2, 2], vec![0; 16]);
    let file = folder.file("gptq.safetensors", &gptq.bytes());
    let error = failure(convert("quantize", &file, &folder.path("q"), &[]), 1);
    assert!(error.contains("quantized already"), "{error}");
    convert_well(
        "quantize",
        &file,
        &folder.path("q"),
        &["--exclude", "*scales"],
    );
}

#[test]
fn a_folder_of_which_nothing_is_quantized_is_not_written() {
    let folder = Folder::new();
    let model = matrices(&["wte.weight"]).array("ln.weight", &noise::<f32>(&[4]));
    let model = folder_of(&folder, r#"{"model_type": "gpt2"}"#, &model);
    let error = refused(&model, "8", &[]);
    for part in [
        "no tensor that can be quantized",
        "an embedding",
        "1 dimension",
    ] {
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn models_that_cannot_be_opened_are_refused() {
    let folder = Folder::new();
    let names = ["encoder.layer.0.attention.attention.query.weight"];
    let model = folder_of(&folder, r#"{"model_type": "dinov2"}"#, &matrices(&names));
    let error = refused(&model, "8", &[]);
    assert!(
        error.contains("cannot open quantized weights of \"dinov2\""),
        "{error}"
    );
}

#[test]
fn shards_that_have_a_tensor_in_common_are_refused() {
    let folder = Folder::new();
    let path = folder.path("model");
    fs::create_dir(&path).unwrap();
    let name = "layers.0.q_proj.weight";
    let mut weight_map = serde_json::Map::new();
    for shard in ["a", "b"] {
        let model = Model::new()
            .array(name, &noise::<f32>(&[8, 32]))
            .array(&format!("{shard}.bias"), &noise::<f32>(&[8]));
        let file = format!("{shard}.safetensors");
        fs::write(path.join(&file), model.bytes()).unwrap();
        weight_map.insert(name.to_owned(), file.clone().into());
        weight_map.insert(format!("{shard}.bias"), file.into());
    }
    let index = json!({"weight_map": weight_map}).to_string();
    fs::write(path.join("model.safetensors.index.json"), index).unwrap();
    let has_both = |error: String| {
        let said = format!("has the tensor {name:?}, which ");
        assert!(
            error.contains(&said) && error.contains("a.safetensors"),
            "{error}"
        );
    };
    has_both(refused(&path, "8", &[]));
    let out = folder.path("out");
    has_both(failure(
        convert("quantize", &path, &out, &["--bits", "8"]),
        1,
    ));
}

#[test]
fn all_that_is_wrong_is_said_before_anything_is_written() {
    let folder = Folder::new();
    let path = folder.path("model");
    fs::create_dir(&path).unwrap();
    let mut weight_map = serde_json::Map::new();
    for (shard, width) in [("a", 32), ("b", 24), ("c", 40)] {
        let name = format!("layers.0.{shard}.q_proj.weight");
        let model = Model::new().array(&name, &noise::<f32>(&[8, width]));
        fs::write(path.join(format!("{shard}.safetensors")), model.bytes()).unwrap();
        weight_map.insert(name, format!("{shard}.safetensors").into());
    }
    let index = json!({"weight_map": weight_map}).to_string();
    fs::write(path.join("model.safetensors.index.json"), index).unwrap();
    let error = refused(&path, "4", &["--group-size", "16"]);
    let exclude = "--exclude 'layers.0.b.q_proj.weight' --exclude 'layers.0.c.q_proj.weight'";
    assert!(error.contains(exclude), "{error}");
    assert!(!error.contains("layers.0.a"), "{error}");
    let helped = ["layers.0.b.q_proj.weight", "layers.0.c.q_proj.weight"];
    let helped = [
        "--group-size",
        "16",
        "--exclude",
        helped[0],
        "--exclude",
        helped[1],
    ];
    convert_well("quantize", &path, &folder.path("out"), &args("4", &helped));
}

#[test]
fn of_a_file_and_an_index_the_file_is_taken_and_other_weights_stay_behind() {
    let folder = Folder::new();
    let model = matrices(&["model.layers.0.mlp.up_proj.weight"]);
    let path = folder_of(&folder, r#"{"model_type": "llama"}"#, &model);
    let index = json!({"weight_map": {"x": "model-00001-of-00001.safetensors"}});
    let index = index.to_string();
    for (name, bytes) in [
        ("model.safetensors.index.json", index.as_bytes()),
        ("model-00001-of-00001.safetensors", b"shard"),
        ("pytorch_model.bin", b"pickle"),
        ("consolidated.00.pth", b"pickle"),
        ("original/params.json", b"{}"),
        ("onnx/model.onnx", b"onnx"),
        ("onnx/config.json", b"{}"),
        ("2_Dense/model.safetensors", b"dense"),
        ("modules.json", br#"[{"path": ""}, {"path": "2_Dense"}]"#),
        ("tokenizer.model", b"words"),
    ] {
        let file = path.join(name);
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, bytes).unwrap();
    }
    let out = folder.path("out");
    let said = convert_well("quantize", &path, &out, &args("4", &["--json"]));
    let report: Value = serde_json::from_str(&said).unwrap();
    let left = [
        "consolidated.00.pth",
        "model-00001-of-00001.safetensors",
        "onnx/model.onnx",
        "original/",
        "pytorch_model.bin",
    ];
    assert_eq!(report["left_out"], json!(left));
    for name in left.iter().chain(&["model.safetensors.index.json"]) {
        assert!(!out.join(name).exists(), "{name}");
    }
    for name in [
        "tokenizer.model",
        "2_Dense/model.safetensors",
        "onnx/config.json",
    ] {
        assert!(out.join(name).exists(), "{name}");
    }
    let table = convert_well("quantize", &path, &folder.path("again"), &args("4", &[]));
    assert!(
        table.contains("other weights, not copied: consolidated.00.pth"),
        "{table}"
    );
}

#[test]
fn a_configuration_as_python_writes_it_comes_through() {
    let folder = Folder::new();
    let model = matrices(&["model.layers.0.mlp.up_proj.weight"]);
    let config =
        r#"{"model_type": "llama", "limits": [0.0, Infinity, -Infinity, NaN], "said": "NaN"}"#;
    let path = folder_of(&folder, config, &model);
    let out = folder.path("out");
    convert_well("quantize", &path, &out, &args("4", &[]));
    let written = fs::read_to_string(out.join("config.json")).unwrap();
    let words: String = written.split_whitespace().collect();
    assert!(words.contains("[0.0,Infinity,-Infinity,NaN]"), "{written}");
    assert!(words.contains("\"said\":\"NaN\""), "{written}");
    // It is read again.
    let again = convert("quantize", &out, &folder.path("again"), &args("4", &[]));
    assert!(failure(again, 1).contains("quantized already"));
}

#[test]
fn files_that_are_none_of_safetensors_are_named() {
    let folder = Folder::new();
    let out = folder.path("out");
    let twice = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    let twice = [
        &(twice.len() as u64).to_le_bytes(),
        twice.as_bytes(),
        &[0; 4],
    ]
    .concat();
    for (bytes, said) in [
        (&twice[..], "its header has the name \"a\" twice"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n",
            "Git LFS pointer",
        ),
        (b"<!DOCTYPE html>\n<html></html>", "HTML page"),
    ] {
        let file = folder.file("model.safetensors", bytes);
        let error = failure(convert("quantize", &file, &out, &[]), 1);
        assert!(error.contains(said), "{error}");
    }
    let f8 = Model::new().raw("w.weight", Dtype::F8_E4M3, &[2, 2], vec![0; 4]);
    let file = folder.file("f8.safetensors", &f8.bytes());
    let error = failure(convert("quantize", &file, &out, &["--include", "*"]), 1);
    assert!(error.contains("\"w.weight\" is F8_E4M3 [2, 2]"), "{error}");
    let sensitivity = chopi(["sensitivity"]).arg(&file).output().unwrap();
    let error = failure(sensitivity, 1);
    assert!(
        error.contains("F8_E4M3") && !error.contains("--include"),
        "{error}"
    );

    let model = matrices(&["model.layers.0.mlp.up_proj.weight"]);
    let path = folder_of(&folder, r#"{"model_type": "llama"}"#, &model);
    let inspect = chopi(["inspect"]).arg(&path).output().unwrap();
    let compare = chopi(["compare"]).arg(&path).arg(&path).output().unwrap();
    let dequantize = convert("dequantize", &path, &out, &[]);
    for done in [inspect, compare] {
        assert!(done.status.success());
    }
    let error = failure(dequantize, 1);
    assert!(error.contains("is not a quantized model"), "{error}");
}
