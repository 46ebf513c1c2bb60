//! Writes the inputs that the targets start from: small files as the program and the library write them, and
//! files with the faults that files have.
//!
//! Takes the folder to write to, which gets a folder for each target.

use std::fs;
use std::path::{Path, PathBuf};

use chopi::formats::gguf::{Array, BlockType, Blocks, GgufFile, Value};
use chopi::formats::{Format, Plain, Plan, Tensor, TensorPlan, save};
use chopi::model::ObservationPoints;
use chopi::observer::{Histograms, MovingAverage, Ranges};
use chopi::ptq::{Moments, Statistics};
use chopi::training::{FakeQuantizer, Learning};
use chopi::{Calibration, Chopi, Convention, Granularity, Observer};
use chopi_conformance::data::Random;
use chopi_fuzz::program::{Folder, model, parts, safetensors, succeeds};
use chopi_fuzz::training::Training;
use ndarray::{Array2, array};
use serde_json::json;

fn main() {
    let root = PathBuf::from(std::env::args_os().nth(1).expect("the folder to write to"));
    files(&Seeds::new(&root, "program_file"));
    folders(&Seeds::new(&root, "program_folder"));
    plans(&Seeds::new(&root, "plan"));
    ggufs(&Seeds::new(&root, "gguf"));
    saved(&Seeds::new(&root, "saved"));
    statistics(&Seeds::new(&root, "statistics"));
    checkpoints(&Seeds::new(&root, "checkpoint"));
    models(&Seeds::new(&root, "model"));
    for target in [
        "observe",
        "onnx",
        "packing",
        "product",
        "quantize",
        "requantize",
    ] {
        numbers(&Seeds::new(&root, target));
    }
}

/// Files of moments of no layer, of one and of two, and numbers of batches.
fn statistics(seeds: &Seeds) {
    let folder = Folder::new();
    let path = folder.path("moments.safetensors");
    let mut statistics = Statistics::default();
    for (layer, channels) in [1, 3, 5].into_iter().enumerate() {
        statistics.save(&path).unwrap();
        let file = fs::read(&path).unwrap();
        seeds.write(&format!("layers{layer}"), &[&[0], &*file].concat());
        let mut moments = Moments::new(channels).unwrap();
        let batch = Array2::from_shape_fn((4, channels), |(i, j)| (i * 7 + j) as f32 / 4.0 - 2.0);
        moments.observe(&batch).unwrap();
        statistics.0.insert(format!("layer.{layer}"), moments);
    }
    let numbers = (0..40).flat_map(|i| ((i * i) as f32 / 8.0 - 50.0).to_le_bytes());
    let numbers: Vec<u8> = numbers.collect();
    for channels in [1_u8, 3] {
        seeds.write(
            &format!("channels{channels}"),
            &[&[2 * channels - 1], &*numbers].concat(),
        );
    }
}

/// Checkpoints of a layer, with what it learns and without, and of another one.
fn checkpoints(seeds: &Seeds) {
    let folder = Folder::new();
    let path = folder.path("checkpoint.safetensors");
    for (learned, inputs) in [(false, 3), (true, 3), (true, 4)] {
        let mut training = Training::new(inputs, learned);
        for trained in [false, true] {
            if trained {
                training.step().unwrap();
            }
            training.save(&path, true).unwrap();
            let file = fs::read(&path).unwrap();
            let (header, data) = parts(&file);
            for options in [0, 2, 4, 6, 8, 10] {
                let name = format!("learned-{learned}-{inputs}-{trained}-{options}");
                seeds.write(&name, &[&[options], header, &[0], data].concat());
            }
        }
    }
}

/// Small models of each family, in floats and quantized.
fn models(seeds: &Seeds) {
    let data = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../crates/chopi-models/tests/data"
    );
    for (name, commands) in [
        ("llama", &[0, 2, 3, 8, 12][..]),
        ("llama-tied", &[0]),
        ("qwen3", &[0, 2]),
        ("bert", &[1, 3, 9, 13]),
        ("roberta", &[1]),
    ] {
        let model = Path::new(data).join(name);
        let folder = Folder::new();
        let quantized = folder.path("q");
        let quantize = [
            "quantize",
            "--quiet",
            "--format",
            "compressed-tensors",
            "--bits",
            "4",
        ];
        let how = [
            "--symmetric",
            "--group-size",
            "8",
            "--output",
            quantized.to_str().unwrap(),
        ];
        assert!(
            succeeds(&[&quantize[..], &how].concat(), &[&model]),
            "{name}"
        );
        for (kind, folder) in [("float", &model), ("w4", &quantized)] {
            // Without spaces and ends of lines, which only make the search slower.
            let json = |file: &str| {
                let text = fs::read_to_string(folder.join(file)).unwrap();
                serde_json::from_str::<serde_json::Value>(&text)
                    .unwrap()
                    .to_string()
            };
            let file = fs::read(folder.join("model.safetensors")).unwrap();
            let (config, tokenizer) = (json("config.json"), json("tokenizer.json"));
            let (header, data) = parts(&file);
            let header = header.trim_ascii_end();
            // Those of floats are made up; shapes and codes cannot be.
            let data = if kind == "float" { &[] } else { data };
            let (config, tokenizer) = (config.as_bytes(), tokenizer.as_bytes());
            for &command in commands
                .iter()
                .filter(|&&command| kind == "float" || command < 3)
            {
                let input = [
                    &[command],
                    config,
                    &[0],
                    tokenizer,
                    &[0],
                    header,
                    &[0],
                    data,
                ]
                .concat();
                seeds.write(&format!("{name}-{kind}-{command}"), &input);
            }
        }
    }
}

/// Bytes without a meaning, as many as a target draws: libFuzzer lengthens inputs slowly, and what is drawn
/// beyond their end is 0.
fn numbers(seeds: &Seeds) {
    let mut random = Random::new(1);
    for i in 0..12 {
        let bytes: Vec<u8> = (0..50).flat_map(|_| random.bits().to_le_bytes()).collect();
        seeds.write(&format!("random{i}"), &bytes);
    }
}

/// The folder of a target.
struct Seeds(PathBuf);

impl Seeds {
    fn new(root: &Path, target: &str) -> Self {
        let folder = root.join(target);
        fs::create_dir_all(&folder).unwrap();
        Self(folder)
    }

    fn write(&self, name: &str, input: &[u8]) {
        fs::write(self.0.join(name), input).unwrap();
    }
}

/// GGUF files that are well made, of each type of blocks and of floats, with metadata, and one cut short.
fn ggufs(seeds: &Seeds) {
    let x: Vec<f32> = (0..256).map(|i| (i as f32 - 100.0) / 7.0).collect();
    let blocks = |kind: BlockType| match BlockType::QUANTIZED.contains(&kind) {
        true => Blocks::quantize(&x[..64], &[2, 32], kind).unwrap(),
        false => Blocks::new(kind, vec![1, 256], vec![7; kind.bytes()]).unwrap(),
    };
    for (i, kind) in BlockType::ALL.into_iter().enumerate() {
        let folder = Folder::new();
        let path = folder.path("f.gguf");
        let mut header = GgufFile.header();
        let names = Array::String(vec!["a".to_owned(), "b".to_owned()]);
        header.gguf_metadata().unwrap().extend([
            ("names".to_owned(), Value::Array(names)),
            ("number".to_owned(), Value::F32(0.5)),
            ("general.alignment".to_owned(), Value::U32(8 << (i % 4))),
        ]);
        let plain = Plain::of(&array![[1.5_f32, -2.0], [0.0, 3.0]]).unwrap();
        let tensors = [
            ("a.weight", Tensor::Blocks(blocks(kind))),
            ("bias", Tensor::Plain(plain)),
        ];
        let mut plan = Plan::new(&GgufFile).with_header(header);
        for (name, tensor) in &tensors[..1 + i % 2] {
            plan.add(TensorPlan::of(name, tensor));
        }
        let writer = plan.create(&path, false).unwrap();
        for (name, tensor) in &tensors[..1 + i % 2] {
            writer.write(name, tensor).unwrap();
        }
        writer.finish().unwrap();
        let bytes = fs::read(path).unwrap();
        seeds.write(&kind.to_string(), &[&[i as u8][..], &bytes].concat());
        if i == 0 {
            seeds.write("cut", &[&[0][..], &bytes[..bytes.len() / 2]].concat());
        }
    }
    let folder = Folder::new();
    let path = folder.path("f.gguf");
    let plain = Tensor::Plain(Plain::of(&array![[1.5_f32, -2.0], [0.0, 3.0]]).unwrap());
    save(
        &path,
        &GgufFile,
        [("a.weight", &plain), ("b.weight", &plain)],
    )
    .unwrap();
    seeds.write("floats", &[&[3][..], &fs::read(path).unwrap()].concat());
}

/// Files that are well made, and files that are not.
fn files(seeds: &Seeds) {
    let quantized = |args: &[&str]| {
        let folder = Folder::new();
        let (input, output) = (
            folder.write("in.safetensors", &model()),
            folder.path("q.safetensors"),
        );
        let command = ["quantize", "--quiet", "--output", output.to_str().unwrap()];
        assert!(
            succeeds(&[&command[..], args].concat(), &[&input]),
            "{args:?}"
        );
        fs::read(output).unwrap()
    };
    let well_made = [
        ("float", model()),
        ("q8", quantized(&["--all"])),
        (
            "q4",
            quantized(&["--bits", "4", "--symmetric", "--group-size", "4"]),
        ),
        (
            "channels",
            quantized(&["--per-channel", "0", "--convention", "compressed-tensors"]),
        ),
        (
            "pychop",
            quantized(&["--convention", "pychop-torch", "--all"]),
        ),
        ("q32", quantized(&["--bits", "32", "--all"])),
        (
            "given",
            quantized(&["--scale", "0.5", "--zero-point", "3", "--include", "a*"]),
        ),
    ];
    let input =
        |command: u8, header: &[u8], data: &[u8]| [&[command, 0], header, &[0], data].concat();
    for (name, file) in &well_made {
        let (header, data) = parts(file);
        for command in 0..16 {
            // A float file goes with every command, a quantized one with those that read it.
            if *name == "float" || command >= 8 && command < 13 {
                seeds.write(&format!("{name}-{command}"), &input(command, header, data));
            }
        }
    }
    let header = |dtype: &str, shape: &str, offsets: &str| {
        format!(r#"{{"a.weight":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
    };
    let faults = [
        header("F32", "[2,4]", "[0,16]"),
        header("F32", "[2,2]", "[8,0]"),
        header("F32", "[2,2]", "[4,20]"),
        header("F32", "[2,2]", "[0,18446744073709551615]"),
        header("F32", "[-2,2]", "[0,16]"),
        header("F32", "[18446744073709551615,2,2]", "[0,16]"),
        header("F32", "[0,18446744073709551615]", "[0,0]"),
        header("F32", "[]", "[0,4]"),
        header("F31", "[2,2]", "[0,16]"),
        header("F8_E4M3", "[2,2]", "[0,4]"),
        header("F4", "[2,2]", "[0,2]"),
        header("C64", "[2,2]", "[0,32]"),
        header("BOOL", "[2,2]", "[0,4]"),
        header("BF16", "[2,2]", "[0,8]").replace("a.weight", "a\u{1b}[2J\u{9b}.weight"),
        format!("{{{0},{0}}}", &header("I8", "[2,2]", "[0,4]")[1..][..56]),
        r#"{"__metadata__":{"chopi":"{}"},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#
            .to_owned(),
        r#"{"__metadata__":{"format":1},"a":{"dtype":"U8","shape":[2],"data_offsets":[0,2]}}"#
            .to_owned(),
        "{".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        "<!DOCTYPE html>".to_owned(),
        "version https://git-lfs.github.com/spec/v1".to_owned(),
    ];
    for (i, header) in faults.iter().enumerate() {
        for command in [0, 8, 9, 14] {
            seeds.write(
                &format!("fault{i}-{command}"),
                &input(command, header.as_bytes(), &[]),
            );
        }
    }
    let raw = |bytes: &[u8]| [&[9, 1], bytes].concat();
    seeds.write("raw-page", &raw(b"<!DOCTYPE html><html>404</html>"));
    seeds.write(
        "raw-lfs",
        &raw(b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n"),
    );
    seeds.write("raw-zip", &raw(b"PK\x03\x04\x14\x00\x00\x00\x08\x00"));
    seeds.write("raw-gguf", &raw(b"GGUF\x03\x00\x00\x00\x00\x00\x00\x00"));
    seeds.write("raw-short", &raw(&[7, 0, 0]));
    seeds.write("raw-cut", &raw(&model()[..200]));
}

/// A model of one layer, whole and in two shards, and what the program makes of it.
fn folders(seeds: &Seeds) {
    let tensor = |name: &str, dtype: &str, shape: &[usize], start: usize| {
        let size = if dtype == "F32" { 4 } else { 2 };
        let end = start + shape.iter().product::<usize>() * size;
        (
            json!({"dtype": dtype, "shape": shape, "data_offsets": [start, end]}),
            name.to_owned(),
            end,
        )
    };
    let header = |tensors: &[(&str, &str, &[usize])]| {
        let mut header = json!({"__metadata__": {"format": "pt"}});
        let mut start = 0;
        for (name, dtype, shape) in tensors {
            let (tensor, name, end) = tensor(name, dtype, shape, start);
            header[name] = tensor;
            start = end;
        }
        header.to_string()
    };
    let attention: &[(&str, &str, &[usize])] = &[
        ("model.embed_tokens.weight", "F32", &[6, 8]),
        ("model.layers.0.self_attn.q_proj.weight", "F32", &[8, 8]),
        ("model.layers.0.input_layernorm.weight", "F32", &[8]),
    ];
    let mlp: &[(&str, &str, &[usize])] = &[
        ("model.layers.0.mlp.up_proj.weight", "BF16", &[8, 8]),
        ("lm_head.weight", "F32", &[6, 8]),
    ];
    let whole = header(&[attention, mlp].concat());
    let (first, second) = (header(attention), header(mlp));
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 8,
        "num_hidden_layers": 1, "tie_word_embeddings": false, "torch_dtype": "float32",
    });
    let of = |file: &str, tensors: &[(&str, &str, &[usize])]| {
        tensors
            .iter()
            .map(|(name, ..)| ((*name).to_owned(), json!(file)))
            .collect::<Vec<_>>()
    };
    let map: serde_json::Map<_, _> = [
        of("model-00001-of-00002.safetensors", attention),
        of("model-00002-of-00002.safetensors", mlp),
    ]
    .concat()
    .into_iter()
    .collect();
    let index = json!({"metadata": {"total_size": 1000}, "weight_map": map});
    let input = |command: u8, files: [&str; 4]| {
        let mut input = vec![command];
        for file in files {
            input.extend(file.as_bytes());
            input.push(0);
        }
        input
    };
    let (config, index) = (config.to_string(), index.to_string());
    for command in 0..8 {
        seeds.write(
            &format!("whole-{command}"),
            &input(command, [&config, "", &whole, ""]),
        );
        seeds.write(
            &format!("shards-{command}"),
            &input(command, [&config, &index, &first, &second]),
        );
    }
    for (name, args) in [
        (
            "w4",
            &["--symmetric", "--bits", "4", "--group-size", "4"][..],
        ),
        ("w8", &["--per-channel", "0"]),
        ("w3", &["--bits", "3", "--include", "*"]),
    ] {
        let folder = Folder::new();
        folder.write("model/config.json", config.as_bytes());
        folder.write(
            "model/model.safetensors",
            &safetensors(whole.as_bytes(), &[]),
        );
        let (model, output) = (folder.path("model"), folder.path("q"));
        let command = [
            "quantize",
            "--quiet",
            "--format",
            "compressed-tensors",
            "--output",
            output.to_str().unwrap(),
        ];
        assert!(
            succeeds(&[&command[..], args].concat(), &[&model]),
            "{args:?}"
        );
        let config = fs::read_to_string(output.join("config.json")).unwrap();
        // Without spaces and ends of lines, which only make the search slower.
        let config = serde_json::from_str::<serde_json::Value>(&config)
            .unwrap()
            .to_string();
        let file = fs::read(output.join("model.safetensors")).unwrap();
        let header = String::from_utf8(parts(&file).0.to_vec()).unwrap();
        for command in [0, 6, 7] {
            seeds.write(
                &format!("{name}-{command}"),
                &input(command, [&config, "", header.trim_end(), ""]),
            );
        }
    }
    let faults = [
        ["", &*index, &*first, &*second],
        ["{", "", &*whole, ""],
        ["[]", "", &*whole, ""],
        [r#"{"model_type":1}"#, "", &*whole, ""],
        [
            r#"{"quantization_config":{"quant_method":"gptq","bits":4}}"#,
            "",
            &*whole,
            "",
        ],
        [&*config, "{}", &*first, ""],
        [
            &*config,
            r#"{"weight_map":{"a":"../a.safetensors"}}"#,
            &*first,
            "",
        ],
        [
            &*config,
            r#"{"weight_map":{"a":"missing.safetensors"}}"#,
            &*first,
            "",
        ],
        [&*config, &*index, &*first, ""],
        [&*config, &*index, &*whole, &*whole],
        [&*config, "", "", ""],
        [r#"{"a":NaN,"b":-Infinity}"#, "", &*whole, ""],
    ];
    for (i, files) in faults.into_iter().enumerate() {
        for command in [0, 7] {
            seeds.write(&format!("fault{i}-{command}"), &input(command, files));
        }
    }
}

fn plans(seeds: &Seeds) {
    for (name, plan) in [
        ("two", r#"{"a.weight": 4, "b.weight": 8}"#),
        ("one", r#"{"c.bias":2}"#),
        ("wide", r#"{"a.weight": 32, "c.bias": 16}"#),
        ("none", "{}"),
        ("unknown", r#"{"d.weight": 4}"#),
        ("twice", r#"{"a.weight": 4, "a.weight": 8}"#),
        ("text", r#"{"a.weight": "4"}"#),
        ("fraction", r#"{"a.weight": 4.5}"#),
        ("negative", r#"{"a.weight": -4}"#),
        ("large", r#"{"a.weight": 33}"#),
        ("huge", r#"{"a.weight": 1e400}"#),
        ("list", "[4]"),
        ("cut", r#"{"a.weight": "#),
        ("escaped", r#"{"a\u002eweight": 4}"#),
    ] {
        seeds.write(name, plan.as_bytes());
    }
}

/// What the library saves.
fn saved(seeds: &Seeds) {
    let write = |kind: u8, name: &str, json: String| {
        seeds.write(name, &[&[kind], json.as_bytes()].concat())
    };
    let x: Array2<f32> = array![[0.1, -0.2, 7.0], [0.3, 0.4, -1e-3]];
    let builders = [
        ("plain", Chopi::builder()),
        (
            "channels",
            Chopi::builder().num_bits(4).symmetric(true).per_channel(-1),
        ),
        (
            "groups",
            Chopi::builder().num_bits(3).per_group(2, -1).include_zero(),
        ),
        ("torch", Chopi::builder().convention(Convention::TORCH)),
        (
            "real",
            Chopi::builder().convention(Convention::PYCHOP_TORCH),
        ),
        (
            "stochastic",
            Chopi::builder().rounding(chopi::Rounding::Stochastic { seed: 7 }),
        ),
    ];
    for (name, builder) in builders {
        let scheme = builder.scheme().unwrap();
        write(
            0,
            &format!("scheme-{name}"),
            serde_json::to_string(&scheme).unwrap(),
        );
        let mut chopi = builder.build().unwrap();
        chopi.calibrate(&x).unwrap();
        let convention = *chopi.convention();
        write(
            1,
            &format!("params-{name}"),
            serde_json::to_string(&chopi.into_params().unwrap()).unwrap(),
        );
        for (kind, calibration) in [
            ("minmax", Calibration::MinMax),
            ("percentile", Calibration::Percentile(99.0)),
        ] {
            // Histograms are long.
            if kind == "percentile" && !["plain", "real"].contains(&name) {
                continue;
            }
            let mut observer = Observer::new(scheme.clone(), convention, calibration).unwrap();
            write(
                2,
                &format!("observer-{name}-{kind}-new"),
                serde_json::to_string(&observer).unwrap(),
            );
            observer.observe(&x).unwrap();
            write(
                2,
                &format!("observer-{name}-{kind}"),
                serde_json::to_string(&observer).unwrap(),
            );
            if name == "plain" {
                let points = ObservationPoints::new(&observer);
                points.observe("x", &x).unwrap();
                write(
                    8,
                    &format!("points-{kind}"),
                    serde_json::to_string(&points).unwrap(),
                );
            }
        }
        if convention == Convention::CHOPI {
            let ranges = Ranges::observe(&x, scheme.granularity).unwrap();
            write(
                3,
                &format!("ranges-{name}"),
                serde_json::to_string(&ranges).unwrap(),
            );
            let histograms = Histograms::observe(&x, scheme.granularity).unwrap();
            write(
                4,
                &format!("histograms-{name}"),
                serde_json::to_string(&histograms).unwrap(),
            );
            write(
                5,
                &format!("histogram-{name}"),
                serde_json::to_string(&histograms.groups()[0]).unwrap(),
            );
        }
    }
    let mut average = MovingAverage::new(0.01).unwrap();
    write(6, "average-new", serde_json::to_string(&average).unwrap());
    average
        .observe(Ranges::observe(&x, Granularity::PerTensor).unwrap())
        .unwrap();
    write(6, "average", serde_json::to_string(&average).unwrap());
    let quantizer = FakeQuantizer::new(Chopi::new(8).unwrap());
    write(7, "quantizer", serde_json::to_string(&quantizer).unwrap());
    let learned = Chopi::builder()
        .num_bits(3)
        .symmetric(true)
        .per_channel(0)
        .build()
        .unwrap();
    let learned = FakeQuantizer::new(learned).learning(Learning::lsq());
    write(
        7,
        "quantizer-learned",
        serde_json::to_string(&learned).unwrap(),
    );
    for calibration in [
        Calibration::MinMax,
        Calibration::Percentile(99.9),
        Calibration::KullbackLeibler,
    ] {
        write(
            9,
            &format!("calibration-{calibration}").replace(':', "-"),
            serde_json::to_string(&calibration).unwrap(),
        );
    }
    write(
        9,
        "convention",
        serde_json::to_string(&Convention::ONNX_SPEC).unwrap(),
    );
}
