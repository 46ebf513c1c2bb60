//! `chopi sensitivity`: the errors of `quantize`, ranked, and bits that fit a budget.

use std::path::Path;

use serde_json::Value;

use crate::model::{Folder, Model, chopi, convert_well, failure, noise, row};

fn model() -> Model {
    let mut outlier = noise::<f32>(&[16, 64]);
    outlier[[4, 7]] = 40.0;
    Model::new()
        .array("layers.0.weight", &noise::<f32>(&[32, 64]))
        .array("layers.1.weight", &outlier)
        .array("embeddings.weight", &noise::<f32>(&[9, 4]))
        .array("layers.0.bias", &noise::<f32>(&[8]))
}

/// The bytes of all of its tensors.
const BYTES: u64 = 4 * (32 * 64 + 16 * 64 + 36 + 8);

fn sensitivity(model: &Path, args: &[&str]) -> Value {
    let mut command = chopi(["sensitivity", "--json"]);
    let done = command.arg(model).args(args).output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{stderr}");
    serde_json::from_slice(&done.stdout).unwrap()
}

#[test]
fn its_ratios_are_those_of_quantize() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let q = folder.path("q.safetensors");
    for scheme in [
        &["--symmetric", "--per-channel", "0"][..],
        &["--group-size", "32", "--calibration", "mse"],
    ] {
        let found = sensitivity(&input, &[scheme, &["--bits", "5,3"]].concat());
        assert_eq!(found["tensors"].as_array().unwrap().len(), 2);
        assert_eq!(found["bytes"], BYTES);
        for (i, bits) in ["3", "5"].iter().enumerate() {
            let args = [scheme, &["--json", "--force", "--bits", bits]].concat();
            let quantized = convert_well("quantize", &input, &q, &args);
            let quantized: Value = serde_json::from_str(&quantized).unwrap();
            for name in ["layers.0.weight", "layers.1.weight"] {
                let choice = &row(&found, name)["choices"][i];
                assert_eq!(choice["bits"].to_string(), *bits);
                let (a, b) = (&choice["sqnr_db"], &row(&quantized, name)["sqnr_db"]);
                let (a, b) = (a.as_f64().unwrap(), b.as_f64().unwrap());
                assert!((a - b).abs() < 1e-9, "{name}: {a} and {b}");
            }
        }
    }
}

#[test]
fn the_most_sensitive_comes_first_and_gets_more_bits() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let found = sensitivity(&input, &["--budget", "16%"]);
    assert_eq!(found["tensors"][0]["name"], "layers.1.weight");
    let bits = |i: usize| found["tensors"][i]["bits_proposed"].as_u64().unwrap();
    assert!(bits(0) > bits(1), "{found}");
    let bytes = found["bytes_proposed"].as_u64().unwrap();
    assert!(bytes <= BYTES * 16 / 100, "{bytes}");
    // A budget that all fits into changes nothing.
    let found = sensitivity(&input, &["--budget", "100%"]);
    assert!(found["tensors"][0]["bits_proposed"].is_null());
    assert_eq!(found["bytes_proposed"], BYTES);

    let table = chopi(["sensitivity", "--bits", "4,8", "--budget", "5000"])
        .arg(&input)
        .output();
    let table = String::from_utf8(table.unwrap().stdout).unwrap();
    for part in [
        "| tensor ",
        "dB at 4",
        "dB at 8",
        "proposed",
        "12,464 bytes in all",
    ] {
        assert!(table.contains(part), "{table}");
    }
}

#[test]
fn what_cannot_be_done_is_said() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let fail = |input: &Path, args: &[&str], status| {
        let mut command = chopi(["sensitivity"]);
        failure(command.arg(input).args(args).output().unwrap(), status)
    };
    let error = fail(&input, &["--budget", "100"], 1);
    assert!(
        error.contains("the budget is 100 bytes, but with the fewest bits"),
        "{error}"
    );
    let error = fail(&input, &["--include", "none"], 1);
    assert!(error.contains("matches --include"), "{error}");
    let nan = Model::new().floats("a.weight", &[1, 2], &[f32::NAN, 1.0]);
    let nan = folder.file("nan.safetensors", &nan.bytes());
    let error = fail(&nan, &[], 1);
    assert!(
        error.contains("tensor \"a.weight\": cannot calibrate on NaN"),
        "{error}"
    );
    for usage in [
        &["--bits", "1"][..],
        &["--bits", "4,40"],
        &["--budget", "much"],
        &["--convention", "tflite", "--bits", "3"],
        &["--axis", "1"],
    ] {
        fail(&input, usage, 2);
    }
}
