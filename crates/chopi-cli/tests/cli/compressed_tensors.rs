//! `chopi quantize --format compressed-tensors`: folders in, folders out.

use std::fs;
use std::path::Path;
use std::time::Duration;

use chopi::{Chopi, Convention, backend::IntTensor, packing::Packing};
use ndarray::ArrayD;
use safetensors::{Dtype, SafeTensors};
use serde_json::{Value, json};

use crate::model::{
    Folder, Model, Stored, chopi, convert, convert_well, elements, failure, integers, noise,
};

const FORMAT: [&str; 2] = ["--format", "compressed-tensors"];

fn quantize_well(input: &Path, output: &Path, args: &[&str]) -> String {
    convert_well("quantize", input, output, &[&FORMAT, args].concat())
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// A model in two shards, with files of other kinds.
fn sharded(folder: &Folder) {
    let model = folder.path("model");
    fs::create_dir_all(model.join("1_Pooling")).unwrap();
    fs::write(model.join("1_Pooling/config.json"), "{\"pool\": 1}").unwrap();
    fs::write(model.join("tokenizer.json"), "{}").unwrap();
    fs::write(
        model.join("config.json"),
        r#"{"model_type": "test", "layers": 2}"#,
    )
    .unwrap();
    let first = Model::new()
        .array("model.embed_tokens.weight", &noise::<f32>(&[10, 8]))
        .array("model.layers.0.q_proj.weight", &noise::<f32>(&[6, 64]))
        .array("model.layers.0.q_proj.bias", &noise::<f32>(&[6]));
    let second = Model::new()
        .array("model.layers.1.q_proj.weight", &noise::<f32>(&[5, 32]))
        .array("model.layers.1.norm.weight", &noise::<f32>(&[8]))
        .array("lm_head.weight", &noise::<f32>(&[10, 8]));
    let mut weight_map = serde_json::Map::new();
    for (name, shard) in [
        ("model-00001-of-00002.safetensors", first),
        ("model-00002-of-00002.safetensors", second),
    ] {
        let bytes = shard.bytes();
        for tensor in SafeTensors::deserialize(&bytes).unwrap().names() {
            weight_map.insert(tensor.to_string(), name.into());
        }
        fs::write(model.join(name), bytes).unwrap();
    }
    let index = json!({"metadata": {"total_size": 1}, "weight_map": weight_map});
    fs::write(
        model.join("model.safetensors.index.json"),
        index.to_string(),
    )
    .unwrap();
}

#[test]
fn shards_with_an_index_in_are_shards_with_an_index_out() {
    let folder = Folder::new();
    sharded(&folder);
    let (model, out) = (folder.path("model"), folder.path("out"));
    quantize_well(
        &model,
        &out,
        &["--symmetric", "--bits", "4", "--group-size", "32"],
    );
    assert_eq!(folder.names(), ["model", "out"]);
    assert_eq!(
        read_json(&out.join("1_Pooling/config.json")),
        json!({"pool": 1})
    );
    assert!(out.join("tokenizer.json").exists());

    let index = read_json(&out.join("model.safetensors.index.json"));
    let mut bytes_of_all = 0;
    let mut names = Vec::new();
    for shard in [
        "model-00001-of-00002.safetensors",
        "model-00002-of-00002.safetensors",
    ] {
        let bytes = fs::read(out.join(shard)).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        for (name, tensor) in file.iter() {
            assert_eq!(index["weight_map"][name], shard, "{name}");
            bytes_of_all += tensor.data().len();
            names.push(name.to_owned());
        }
    }
    assert_eq!(index["weight_map"].as_object().unwrap().len(), names.len());
    assert_eq!(index["metadata"]["total_size"], bytes_of_all);
    names.sort();
    assert_eq!(
        names,
        [
            "lm_head.weight",
            "model.embed_tokens.weight",
            "model.layers.0.q_proj.bias",
            "model.layers.0.q_proj.weight_packed",
            "model.layers.0.q_proj.weight_scale",
            "model.layers.0.q_proj.weight_shape",
            "model.layers.1.norm.weight",
            "model.layers.1.q_proj.weight_packed",
            "model.layers.1.q_proj.weight_scale",
            "model.layers.1.q_proj.weight_shape",
        ]
    );

    let config = read_json(&out.join("config.json"));
    assert_eq!(config["model_type"], "test");
    let quantization = &config["quantization_config"];
    let group = &quantization["config_groups"]["group_0"];
    assert_eq!(quantization["format"], "pack-quantized");
    assert_eq!(group["format"], "pack-quantized");
    assert_eq!(group["weights"]["strategy"], "group");
    assert_eq!(group["weights"]["group_size"], 32);
    // The module is found with and without the prefix of the base model.
    let target = r"re:(?:.*\.)?layers\.\d+\.q_proj$";
    assert_eq!(group["targets"], json!([target]));
    let head = r"re:(?:.*\.)?lm_head$";
    assert_eq!(quantization["ignore"], json!([head, "lm_head"]));
}

/// Checks the tensors that a weight becomes against the quantizer, packed and unpacked.
fn check_weight<F: Stored + 'static>(x: &ArrayD<F>, bits: u32, args: &[&str], chopi: &mut Chopi)
where
    ArrayD<F>: chopi::backend::FloatTensor<
            chopi::ndarray::NdArray,
            Int = chopi::ndarray::IntArray<F, ndarray::IxDyn>,
        >,
{
    let folder = Folder::new();
    let model = Model::new().array("layer.weight", x);
    let input = folder.file("model.safetensors", &model.bytes());
    let out = folder.path("out");
    let number = bits.to_string();
    quantize_well(&input, &out, &[&["--bits", &*number], args].concat());
    let bytes = fs::read(out.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();

    let mut codes = Vec::new();
    chopi
        .quantize(x)
        .unwrap()
        .with_host(|host| {
            chopi::backend::match_int!(IntSlice, host.data(), data => {
                codes.extend(data.iter().map(|&q| chopi::backend::Int::to_i64(q)));
            });
            Ok(())
        })
        .unwrap();
    let (rows, width) = (x.shape()[0], x.shape()[1]);
    let scale: Vec<F> = elements(&file, "layer.weight_scale");
    let expected: Vec<F> = chopi.scale().unwrap().iter().map(|&s| F::of(s)).collect();
    assert_eq!(format!("{scale:?}"), format!("{expected:?}"));
    let shape = file.tensor("layer.weight_scale").unwrap().shape().to_vec();
    let zero_point = chopi.zero_point().unwrap().to_vec();
    let symmetric = args.contains(&"--symmetric");
    assert_eq!(file.tensor("layer.weight_zero_point").is_err(), symmetric);
    if bits == 8 {
        assert_eq!(integers(&file, "layer.weight"), codes);
        if !symmetric {
            assert_eq!(integers(&file, "layer.weight_zero_point"), zero_point);
        }
        return;
    }
    let packing = Packing::compressed_tensors(bits).unwrap();
    let packed = file.tensor("layer.weight_packed").unwrap();
    assert_eq!(packed.dtype(), Dtype::I32);
    assert_eq!(packed.shape(), [rows, (width * bits as usize).div_ceil(32)]);
    let unpacked: Vec<i8> = packing.unpack(packed.data(), rows, width).unwrap();
    assert_eq!(
        unpacked.iter().map(|&q| i64::from(q)).collect::<Vec<_>>(),
        codes
    );
    assert_eq!(
        integers(&file, "layer.weight_shape"),
        [rows as i64, width as i64]
    );
    if !symmetric && shape.len() == 2 {
        let groups = shape[1];
        let packed = file.tensor("layer.weight_zero_point").unwrap();
        let words = (rows * bits as usize).div_ceil(32);
        assert_eq!(packed.shape(), [words, groups]);
        for group in 0..groups {
            let column: Vec<u8> = packed
                .data()
                .chunks_exact(4)
                .skip(group)
                .step_by(groups)
                .flatten()
                .copied()
                .collect();
            let unpacked: Vec<i8> = packing.unpack(&column, 1, rows).unwrap();
            let expected = zero_point.iter().skip(group).step_by(groups);
            assert!(unpacked.iter().map(|&z| i64::from(z)).eq(expected.copied()));
        }
    }
}

#[test]
fn weights_are_those_of_the_quantizer_in_every_scheme_and_element_type() {
    let convention = Convention::COMPRESSED_TENSORS;
    for bits in 2..=8 {
        for symmetric in [true, false] {
            let builder = || {
                Chopi::builder()
                    .num_bits(bits)
                    .symmetric(symmetric)
                    .convention(convention)
            };
            let symmetry: &[&str] = if symmetric { &["--symmetric"] } else { &[] };
            let cases: [(&[&str], _); 3] = [
                (&[], builder()),
                (&["--per-channel", "0"], builder().per_channel(0)),
                (&["--group-size", "24"], builder().per_group(24, -1)),
            ];
            for (granularity, builder) in cases {
                let args = [symmetry, granularity].concat();
                let mut chopi = builder.build().unwrap();
                check_weight(&noise::<f32>(&[19, 72]), bits, &args, &mut chopi);
                chopi.reset();
                check_weight(
                    &noise::<chopi::backend::bf16>(&[11, 48]),
                    bits,
                    &args,
                    &mut chopi,
                );
            }
        }
    }
}

#[test]
fn include_and_exclude_choose_other_weights() {
    let folder = Folder::new();
    sharded(&folder);
    let out = folder.path("out");
    let args = [
        "--symmetric",
        "--include",
        "lm_head*",
        "--include",
        "*q_proj*",
        "--exclude",
        "*.1.*",
    ];
    quantize_well(&folder.path("model"), &out, &args);
    let config = read_json(&out.join("config.json"));
    let quantization = &config["quantization_config"];
    let patterns = |numbers: &str| json!([format!(r"re:(?:.*\.)?layers\.{numbers}\.q_proj$")]);
    assert_eq!(quantization["ignore"], patterns("1"));
    assert_eq!(
        quantization["config_groups"]["group_0"]["targets"],
        json!([
            r"re:(?:.*\.)?layers\.0\.q_proj$",
            r"re:(?:.*\.)?lm_head$",
            "lm_head"
        ])
    );
    let index = read_json(&out.join("model.safetensors.index.json"));
    assert!(index["weight_map"].get("lm_head.weight_scale").is_some());
    assert!(
        index["weight_map"]
            .get("model.layers.1.q_proj.weight_scale")
            .is_none()
    );
}

#[test]
fn a_plan_names_weights_of_all_shards() {
    let folder = Folder::new();
    sharded(&folder);
    let (model, out) = (folder.path("model"), folder.path("out"));
    let (first, second) = ("model.layers.0.q_proj", "model.layers.1.q_proj");
    let bits = json!({format!("{first}.weight"): 4, format!("{second}.weight"): 8});
    let plan = folder.file("plan.json", bits.to_string().as_bytes());
    let args = ["--symmetric", "--bits-from", plan.to_str().unwrap()];
    quantize_well(&model, &out, &args);
    let quantization = &read_json(&out.join("config.json"))["quantization_config"];
    assert_eq!(quantization["format"], "mixed-precision");
    let groups = &quantization["config_groups"];
    for (group, layer) in [("group_0", 0), ("group_1", 1)] {
        let target = format!(r"re:(?:.*\.)?layers\.{layer}\.q_proj$");
        assert_eq!(groups[group]["targets"], json!([target]));
    }
    let index = read_json(&out.join("model.safetensors.index.json"));
    assert!(
        index["weight_map"]
            .get(format!("{first}.weight_packed"))
            .is_some()
    );
    assert!(
        index["weight_map"]
            .get(format!("{second}.weight_scale"))
            .is_some()
    );

    folder.file("plan.json", br#"{"model.layers.2.q_proj.weight": 4}"#);
    let args = [&FORMAT[..], &args].concat();
    let error = failure(convert("quantize", &model, &folder.path("x"), &args), 1);
    assert!(
        error.contains("layers.2.q_proj.weight\": there is no such tensor in"),
        "{error}"
    );
    assert_eq!(folder.names(), ["model", "out", "plan.json"]);
}

#[test]
fn what_cannot_be_done_is_said_and_leaves_nothing() {
    let folder = Folder::new();
    sharded(&folder);
    let (model, out) = (folder.path("model"), folder.path("out"));
    let fail = |input: &Path, output: &Path, args: &[&str], status| {
        failure(
            convert("quantize", input, output, &[&FORMAT, args].concat()),
            status,
        )
    };
    let error = fail(&model, &out, &["--bits", "4", "--group-size", "48"], 1);
    assert!(
        error.contains("q_proj.weight") && error.contains("groups of 48"),
        "{error}"
    );
    let error = fail(&model, &out, &["--include", "nothing"], 1);
    assert!(error.contains("matches --include"), "{error}");
    let error = fail(&model, &model, &["--force"], 1);
    assert!(error.contains("the output is the input"), "{error}");
    for usage in [
        &["--per-channel", "1"][..],
        &["--bits", "9"],
        &["--scale", "1", "--zero-point", "0"],
        &["--convention", "pychop"],
        &["--calibration", "percentile:20"],
        &["--calibration", "best"],
    ] {
        fail(&model, &out, usage, 2);
    }
    assert_eq!(folder.names(), ["model"]);

    // A folder that does not hold a quantized model is never replaced.
    fs::create_dir(&out).unwrap();
    fs::write(out.join("precious"), "").unwrap();
    let error = fail(&model, &out, &["--force"], 1);
    assert!(error.contains("does not hold a quantized model"), "{error}");
    fs::remove_file(out.join("precious")).unwrap();
    quantize_well(&model, &out, &[]);
    let error = fail(&model, &out, &[], 1);
    assert!(error.contains("exists already"), "{error}");
    let error = fail(&out, &folder.path("again"), &[], 1);
    assert!(error.contains("quantized already"), "{error}");
    quantize_well(&model, &out, &["--force", "--bits", "4"]);
    assert_eq!(folder.names(), ["model", "out"]);
    let config = read_json(&out.join("config.json"));
    assert_eq!(config["quantization_config"]["format"], "pack-quantized");

    let index = model.join("model.safetensors.index.json");
    fs::write(&index, r#"{"weight_map": {"a": "../../etc/passwd"}}"#).unwrap();
    let error = fail(&model, &folder.path("x"), &[], 1);
    assert!(
        error.contains("is not the name of a file beside it"),
        "{error}"
    );
    fs::remove_file(index).unwrap();
    let error = fail(&model, &folder.path("x"), &[], 1);
    assert!(error.contains("has no model.safetensors"), "{error}");
}

#[test]
fn mse_is_better_than_min_and_max_for_few_bits() {
    let folder = Folder::new();
    let mut x = noise::<f32>(&[16, 64]);
    x[[3, 5]] = 12.0;
    let model = Model::new().array("layer.weight", &x);
    let input = folder.file("in.safetensors", &model.bytes());
    let error = |calibration: &str| {
        let out = folder.path("out.safetensors");
        let args = [
            "--bits",
            "4",
            "--json",
            "--force",
            "--calibration",
            calibration,
        ];
        let json = convert_well("quantize", &input, &out, &args);
        let report: Value = serde_json::from_str(&json).unwrap();
        report["tensors"][0]["mse"].as_f64().unwrap()
    };
    let (minmax, mse) = (error("minmax"), error("mse"));
    assert!(mse < minmax * 0.8, "{mse} and {minmax}");
    assert!(mse <= error("percentile:99") && mse <= error("kl"));
}

#[cfg(unix)]
#[test]
fn a_killed_program_leaves_nothing_that_looks_finished() {
    let folder = Folder::new();
    let model = folder.path("model");
    fs::create_dir(&model).unwrap();
    fs::write(model.join("config.json"), "{}").unwrap();
    let tensors = (0..40).fold(Model::new(), |model, i| {
        model.array(&format!("layers.{i}.weight"), &noise::<f32>(&[128, 256]))
    });
    fs::write(model.join("model.safetensors"), tensors.bytes()).unwrap();
    let mut killed = 0;
    for delay in 0..24 {
        let out = folder.path(&format!("out{delay}"));
        let mut command = chopi(["quantize"]);
        command
            .arg(&model)
            .arg("-o")
            .arg(&out)
            .args(FORMAT)
            .arg("--quiet");
        let mut child = command.spawn().unwrap();
        std::thread::sleep(Duration::from_millis(4 * delay));
        child.kill().unwrap();
        let whole = child.wait().unwrap().success();
        killed += usize::from(!whole);
        if out.exists() {
            // The name is there only where all of the rest is.
            let config = read_json(&out.join("config.json"));
            assert!(config.get("quantization_config").is_some());
            let bytes = fs::read(out.join("model.safetensors")).unwrap();
            assert_eq!(SafeTensors::deserialize(&bytes).unwrap().len(), 3 * 40);
        } else {
            assert!(!whole);
        }
    }
    assert!(killed > 0);
    let unfinished = |name: &String| name.starts_with(".chopi-") && name.ends_with(".tmp");
    let others = folder.names().into_iter().filter(|name| !unfinished(name));
    assert!(
        others
            .into_iter()
            .all(|name| name == "model" || name.starts_with("out"))
    );
}
