//! Every command on every format, and what each says to the wrong kind of input.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::model::{Folder, Model, chopi, convert, convert_well, failure, noise, row};

const NAME: &str = "model.layers.0.mlp.up_proj.weight";

/// A model of floats as a file, and as a folder of two shards.
struct Models {
    folder: Folder,
    file: PathBuf,
    shards: PathBuf,
}

fn floats() -> Models {
    let folder = Folder::new();
    let weight = || Model::new().array(NAME, &noise::<f32>(&[64, 96]));
    let norm = |model: Model| model.array("model.norm.weight", &noise::<f32>(&[96]));
    let file = folder.file("m.safetensors", &norm(weight()).bytes());
    let shards = folder.path("shards");
    fs::create_dir(&shards).unwrap();
    let write = |name: &str, bytes: &[u8]| fs::write(shards.join(name), bytes).unwrap();
    write("1.safetensors", &weight().bytes());
    write("2.safetensors", &norm(Model::new()).bytes());
    let map = json!({NAME: "1.safetensors", "model.norm.weight": "2.safetensors"});
    let index = json!({"metadata": {}, "weight_map": map}).to_string();
    write("model.safetensors.index.json", index.as_bytes());
    write("config.json", br#"{"model_type": "llama"}"#);
    Models {
        folder,
        file,
        shards,
    }
}

/// The options of each format that is written, and the dtype of the codes that `inspect` shows.
const FORMATS: [(&[&str], &str); 6] = [
    (&["--symmetric", "--per-channel", "0"], "I8"),
    (&["--bits", "4", "--group-size", "32"], "U8"),
    (
        &[
            "--format",
            "compressed-tensors",
            "--symmetric",
            "--per-channel",
            "0",
        ],
        "I8",
    ),
    (
        &[
            "--format",
            "compressed-tensors",
            "--bits",
            "4",
            "--group-size",
            "32",
        ],
        "I32",
    ),
    (&["--gguf", "q8_0"], "Q8_0"),
    (&["--gguf", "q4_1"], "Q4_1"),
];

fn json_of(args: &[&str], paths: &[&Path], status: i32) -> Value {
    let done = chopi(args).args(paths).output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert_eq!(done.status.code(), Some(status), "{args:?}: {stderr}");
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
fn what_is_written_of_a_file_or_shards_is_read_by_every_command() {
    let models = floats();
    let path = |name: &str| models.folder.path(name);
    for (i, (options, dtype)) in FORMATS.into_iter().enumerate() {
        for input in [&models.file, &models.shards] {
            let q = path(&format!("q{i}{}", input == &models.shards));
            convert_well("quantize", input, &q, &[options, &["--quiet"]].concat());

            let inspected = json_of(&["inspect", "--json"], &[&q], 0);
            assert_eq!(
                inspected["tensors"].as_array().unwrap().len(),
                2,
                "{options:?}"
            );
            let weight = row(&inspected, NAME);
            assert_eq!(weight["dtype"], dtype, "{options:?}");
            assert_eq!(weight["shape"], json!([64, 96]));
            assert_eq!(weight["quantized"]["dtype"], "F32");

            let back = path("back");
            convert_well("dequantize", &q, &back, &["--force", "--quiet"]);
            let same = json_of(&["compare", "--json"], &[&q, &back], 0);
            assert_eq!(same["tensors_differing"], 0, "{options:?}");
            // Against the floats the values are compared.
            for floats in [&models.file, &models.shards] {
                let compared = json_of(&["compare", "--json"], &[floats, &q], 1);
                let weight = row(&compared, NAME);
                let db = weight["sqnr_db"].as_f64().unwrap();
                assert!((15.0..60.0).contains(&db), "{options:?}: {db}");
                assert_eq!(row(&compared, "model.norm.weight")["differing"], 0);
            }

            let page = path("page.html");
            let mut report = chopi(["report", "--force", "--quiet"]);
            report.arg(input).arg(&q).arg("-o").arg(&page);
            assert!(report.status().unwrap().success(), "{options:?}");
        }
        let (a, b) = (path(&format!("q{i}false")), path(&format!("q{i}true")));
        json_of(&["compare", "--json"], &[&a, &b], 0);
    }
    let ranked = |input: &Path| json_of(&["sensitivity", "--json", "--symmetric"], &[input], 0);
    assert_eq!(ranked(&models.file), ranked(&models.shards));
}

#[test]
fn a_gguf_file_of_floats_is_a_model_of_floats() {
    let models = floats();
    let path = |name: &str| models.folder.path(name);
    // Nothing is included, so that the file holds floats.
    let floats = path("f.gguf");
    let kept = ["--gguf", "q8_0", "--exclude", "*"];
    convert_well("quantize", &models.file, &floats, &kept);
    json_of(&["compare", "--json"], &[&models.file, &floats], 0);
    for (i, (options, _)) in FORMATS.into_iter().enumerate() {
        let (of_file, of_gguf) = (path(&format!("a{i}")), path(&format!("b{i}")));
        // A file alone has no architecture that says which tensors are linear layers.
        let options = [options, &["--include", "*proj*"], &["--quiet"]].concat();
        convert_well("quantize", &models.file, &of_file, &options);
        convert_well("quantize", &floats, &of_gguf, &options);
        json_of(&["compare", "--json"], &[&of_file, &of_gguf], 0);
    }
    let ranked = |input: &Path| json_of(&["sensitivity", "--json", "--symmetric"], &[input], 0);
    assert_eq!(ranked(&models.file), ranked(&floats));
    // Metadata come through.
    let again = path("again.gguf");
    convert_well("quantize", &floats, &again, &["--gguf", "q4_0", "--quiet"]);
    let inspected = json_of(&["inspect", "--json"], &[&again], 0);
    assert_eq!(
        inspected["metadata"],
        json!({"general.file_type": "2", "general.quantization_version": "2"})
    );
}

#[test]
fn codes_of_four_bits_take_half_of_the_bytes_of_eight() {
    let models = floats();
    let size = |bits: &str| {
        let q = models.folder.path(bits);
        convert_well(
            "quantize",
            &models.file,
            &q,
            &["--bits", bits, "--symmetric"],
        );
        let inspected = json_of(&["inspect", "--json"], &[&q], 0);
        row(&inspected, NAME)["bytes"].as_u64().unwrap()
    };
    assert_eq!(size("8") - 4, 64 * 96);
    for bits in 2..8 {
        assert_eq!(size(&bits.to_string()) - 4, 64 * 96 * bits / 8);
    }
}

#[test]
fn files_of_the_earlier_layout_are_read() {
    let folder = Folder::new();
    let scheme = json!({"bits": 4, "symmetry": "asymmetric", "granularity": "per_tensor", "qmin": 0,
        "qmax": 15, "zero": "as_observed", "rounding": "nearest_even"});
    let record = json!({"version": 2, "tensors": {"x": 0},
        "schemes": [{"scheme": scheme, "convention": "chopi", "dtype": "F32"}]});
    let old = Model::new()
        .metadata("chopi", &record.to_string())
        .raw("x", safetensors::Dtype::I8, &[2, 2], vec![0, 1, 2, 15])
        .floats("x_scale", &[1], &[0.5])
        .raw(
            "x_zero_point",
            safetensors::Dtype::I32,
            &[1],
            vec![2, 0, 0, 0],
        );
    let old = folder.file("old", &old.bytes());
    let values = Model::new().floats("x", &[2, 2], &[-1.0, -0.5, 0.0, 6.5]);
    let values = folder.file("values", &values.bytes());
    json_of(&["compare", "--json"], &[&values, &old], 0);
    let back = folder.path("back");
    convert_well("dequantize", &old, &back, &["--quiet"]);
    json_of(&["compare", "--json"], &[&values, &back], 0);
    let inspected = json_of(&["inspect", "--json"], &[&old], 0);
    assert_eq!(row(&inspected, "x")["quantized"]["bits"], 4);
}

#[test]
fn each_kind_of_wrong_input_is_told_what_it_is() {
    let models = floats();
    let path = |name: &str| models.folder.path(name);
    let out = path("out");
    let refused = |verb: &str, input: &Path, args: &[&str]| {
        let said = failure(convert(verb, input, &out, args), 1);
        assert!(!out.exists());
        said
    };
    // What is quantized is not quantized again, whatever it is.
    for (i, (options, _)) in FORMATS.into_iter().enumerate() {
        let q = path(&format!("q{i}"));
        convert_well(
            "quantize",
            &models.shards,
            &q,
            &[options, &["--quiet"]].concat(),
        );
        for (options, _) in FORMATS {
            let said = refused("quantize", &q, options);
            assert!(said.contains("quantized already"), "{said}");
        }
        let sensitivity = chopi(["sensitivity"]).arg(&q).output().unwrap();
        let said = failure(sensitivity, 1);
        assert!(said.contains("quantized already"), "{said}");
        let report = convert_report(&q, &q, &out);
        assert!(failure(report, 1).contains("quantized already"));
    }
    // What is not quantized is not dequantized.
    for input in [&models.file, &models.shards] {
        assert!(refused("dequantize", input, &[]).contains("is not a quantized model"));
        let report = convert_report(input, input, &out);
        assert!(failure(report, 1).contains("is not a quantized model"));
    }
    // Folders of other methods.
    let config = models.shards.join("config.json");
    fs::write(
        &config,
        r#"{"quantization_config": {"quant_method": "gptq"}}"#,
    )
    .unwrap();
    for verb in ["quantize", "dequantize"] {
        let said = refused(verb, &models.shards, &[]);
        assert!(said.contains("gptq"), "{said}");
    }
    // Other files, and folders of nothing.
    let pickle = models.folder.file("model.bin", b"PK\x03\x04 and more");
    let empty = path("empty");
    fs::create_dir(&empty).unwrap();
    for (input, text) in [
        (&pickle, "ZIP archive"),
        (&empty, "has no model.safetensors"),
    ] {
        for verb in ["quantize", "dequantize"] {
            assert!(refused(verb, input, &[]).contains(text));
        }
        for verb in ["inspect", "sensitivity"] {
            let said = failure(chopi([verb]).arg(input).output().unwrap(), 1);
            assert!(said.contains(text), "{said}");
        }
        let compare = chopi(["compare"]).args([input, input]).output().unwrap();
        assert!(failure(compare, 1).contains(text));
    }
    // A GGUF file that is cut short.
    let gguf = fs::read(path("q4")).unwrap();
    let cut = models.folder.file("cut.gguf", &gguf[..gguf.len() - 64]);
    assert!(refused("dequantize", &cut, &[]).contains("not a valid GGUF file"));
    assert!(refused("quantize", &cut, &[]).contains("not a valid GGUF file"));
}

fn convert_report(model: &Path, quantized: &Path, out: &Path) -> std::process::Output {
    let mut report = chopi(["report"]);
    report.arg(model).arg(quantized).arg("-o").arg(out);
    report.output().unwrap()
}

#[test]
fn gguf_goes_without_a_scheme() {
    let models = floats();
    let out = models.folder.path("out");
    for args in [
        &["--gguf", "q4_0", "--bits", "4"][..],
        &["--gguf", "q4_0", "--symmetric"],
        &["--gguf", "q4_0", "--format", "compressed-tensors"],
        &["--gguf", "q4_k"],
        &["--gguf", "q9"],
    ] {
        failure(convert("quantize", &models.file, &out, args), 2);
    }
    // Rows that are no whole blocks stay, unless they are named.
    let odd = Model::new().array("a", &noise::<f32>(&[4, 48]));
    let odd = models.folder.file("odd", &odd.bytes());
    let json = convert_well("quantize", &odd, &out, &["--gguf", "q4_0", "--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(row(&report, "a")["kept"], "rows of no whole blocks of 32");
    let named = ["--gguf", "q4_0", "--include", "a", "--force"];
    let said = failure(convert("quantize", &odd, &out, &named), 1);
    assert!(said.contains("a multiple of the 32 elements"), "{said}");
    // What f16 does not hold, and what is not finite.
    for (value, text) in [
        (f32::NAN, "NaN in block 2"),
        (1e9, "expected at most 65504"),
    ] {
        let mut x = noise::<f32>(&[4, 32]);
        x[[2, 7]] = value;
        let bad = models
            .folder
            .file("bad", &Model::new().array("a", &x).bytes());
        let said = failure(
            convert("quantize", &bad, &out, &["--gguf", "q8_0", "--force"]),
            1,
        );
        assert!(said.contains(text) && said.contains("\"a\""), "{said}");
    }
}
