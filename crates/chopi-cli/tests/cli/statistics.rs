//! `--statistics`: codes chosen, and errors measured, on what layers take, for any model.

use std::path::{Path, PathBuf};

use chopi::formats::Tensor;
use chopi::ptq::{Moments, Statistics, quantize};
use chopi::{Chopi, Convention};
use ndarray::{Array2, ArrayD, Ix2, IxDyn};
use serde_json::Value;

use crate::model::{Folder, Model, chopi, convert, convert_well, failure, noise, row};

/// Inputs of a layer, of which neighbours are alike and some are large.
fn inputs(channels: usize) -> Array2<f32> {
    Array2::from_shape_fn((200, channels), |(i, j)| {
        let (i, group) = (i as f32, (j / 4) as f32);
        let size = if j % 9 == 0 { 8.0 } else { 1.0 };
        size * ((i * 0.37 + group).sin() + 0.3 * (i * 1.7 + j as f32).cos())
    })
}

/// A model of linear layers, one of which has half-precision weights and one no statistics, and a convolution.
fn model() -> Model {
    Model::new()
        .array("net.first.weight", &noise::<f32>(&[24, 64]))
        .array("net.half.weight", &noise::<half::f16>(&[12, 32]))
        .array("net.other.weight", &noise::<f32>(&[8, 64]))
        .array("conv.weight", &noise::<f32>(&[6, 4, 3, 3]))
        .array("net.first.bias", &noise::<f32>(&[24]))
}

fn statistics() -> Statistics {
    let mut statistics = Statistics::default();
    for (layer, channels) in [("net.first", 64), ("net.half", 32), ("conv", 36)] {
        statistics.observe(layer, &inputs(channels)).unwrap();
    }
    statistics
}

/// The model and its statistics in files.
fn files(folder: &Folder) -> (PathBuf, PathBuf) {
    let path = folder.path("statistics.safetensors");
    statistics().save(&path).unwrap();
    (folder.file("model.safetensors", &model().bytes()), path)
}

/// The codes and the values of a tensor of a file, and what the library makes of it.
fn compared(output: &Path, name: &str, x: &ArrayD<f32>, moments: &Moments, method: &str) {
    let builder = Chopi::builder().num_bits(4).symmetric(true);
    let scheme = builder.per_group(16, -1).scheme().unwrap();
    let method = method.parse().unwrap();
    let expected = quantize(x, moments, &scheme, &Convention::CHOPI, &method).unwrap();
    let expected = expected.params.dequantize(&expected.codes).unwrap();
    let Tensor::Quantized(found) = chopi::formats::open(output).unwrap().read(name).unwrap() else {
        panic!("{name} is not quantized");
    };
    let found = Tensor::Quantized(found).dequantize().unwrap();
    let found = found.elements::<f32>().unwrap();
    assert_eq!(
        found,
        expected.iter().copied().collect::<Vec<_>>(),
        "{name}"
    );
}

#[test]
fn codes_are_those_that_the_library_chooses_on_the_statistics() {
    let folder = Folder::new();
    let (input, path) = files(&folder);
    let output = folder.path("q.safetensors");
    let scheme = ["--bits", "4", "--symmetric", "--group-size", "16"];
    for method in ["gptq+weighted", "rtn", "hqq"] {
        let seen = ["--method", method, "--statistics", path.to_str().unwrap()];
        let args = [&scheme[..], &seen, &["--json", "--force"]].concat();
        let report = convert_well("quantize", &input, &output, &args);
        let report: Value = serde_json::from_str(&report).unwrap();
        let statistics = statistics();
        for (name, shape) in [("net.first", &[24, 64][..]), ("conv", &[6, 4, 3, 3])] {
            let (moments, tensor) = (&statistics.0[name], format!("{name}.weight"));
            compared(&output, &tensor, &noise(shape), moments, method);
        }
        for name in ["net.first.weight", "net.half.weight", "conv.weight"] {
            let row = row(&report, name);
            let error = |key: &str| row["output_error"][key].as_f64().unwrap();
            assert!(error("chosen") <= error("nearest"), "{row}");
            let is_less = error("chosen") < error("nearest");
            assert!(is_less || method != "gptq+weighted", "{row}");
            assert!(!is_less || method != "rtn", "{row}");
            assert!(row["sqnr_db"].as_f64().unwrap() > 5.0, "{row}");
        }
        let other = row(&report, "net.other.weight");
        assert!(
            other["output_error"].is_null() && other["bits"] == 4,
            "{other}"
        );
    }
    // What has no statistics has the nearest codes.
    let nearest = folder.path("nearest.safetensors");
    convert_well("quantize", &input, &nearest, &scheme);
    let read = |path: &Path| {
        chopi::formats::open(path)
            .unwrap()
            .read("net.other.weight")
            .unwrap()
    };
    assert_eq!(
        read(&output).dequantize().unwrap().bytes(),
        read(&nearest).dequantize().unwrap().bytes()
    );
}

#[test]
fn the_table_says_the_errors_and_what_has_no_statistics_on_any_number_of_threads() {
    let folder = Folder::new();
    let (input, path) = files(&folder);
    let outputs = ["1", "3"].map(|threads| {
        let output = folder.path(threads);
        let args = [
            "--bits",
            "3",
            "--per-channel",
            "0",
            "--threads",
            threads,
            "--method",
        ];
        let seen = ["gptq+mse", "--statistics", path.to_str().unwrap()];
        let said = convert_well("quantize", &input, &output, &[&args[..], &seen].concat());
        assert!(
            said.contains("error of the outputs of 3 layers: "),
            "{said}"
        );
        let expected = "nearest codes, for want of statistics: 1: net.other.weight";
        assert!(
            said.contains(expected) && said.contains("output error"),
            "{said}"
        );
        std::fs::read(output).unwrap()
    });
    assert!(outputs[0] == outputs[1]);
    // Without statistics there is no such column.
    let said = convert_well("quantize", &input, &folder.path("nearest"), &[]);
    assert!(!said.contains("output"), "{said}");
}

#[test]
fn a_folder_for_transformers_and_a_plan_of_bits_take_them_too() {
    let folder = Folder::new();
    let (input, path) = files(&folder);
    let plan = br#"{"net.first.weight": 4, "net.half.weight": 8}"#;
    let plan = folder.file("plan.json", plan);
    let seen = ["--method", "gptq", "--statistics", path.to_str().unwrap()];
    let options = ["--json", "--symmetric", "--group-size", "16"];
    for format in ["chopi", "compressed-tensors"] {
        let output = folder.path(format);
        let more = ["--format", format, "--bits-from", plan.to_str().unwrap()];
        let args = [&seen[..], &options, &more].concat();
        let report = convert_well("quantize", &input, &output, &args);
        let report: Value = serde_json::from_str(&report).unwrap();
        for (name, bits) in [("net.first.weight", 4), ("net.half.weight", 8)] {
            let row = row(&report, name);
            assert_eq!(row["bits"], bits);
            let error = |key: &str| row["output_error"][key].as_f64().unwrap();
            assert!(error("chosen") < error("nearest"), "{row}");
        }
        let moments = &statistics().0["net.first"];
        if format == "chopi" {
            let x = noise(&[24, 64]);
            compared(&output, "net.first.weight", &x, moments, "gptq");
        }
    }
}

#[test]
fn the_loss_of_a_tensor_is_the_noise_in_the_output_of_its_layer() {
    let folder = Folder::new();
    let (input, path) = files(&folder);
    let sensitivity = |more: &[&str]| {
        let args = [
            "--json",
            "--symmetric",
            "--per-channel",
            "0",
            "--bits",
            "3,4",
        ];
        let mut command = chopi(["sensitivity"]);
        let done = command.arg(&input).args(args).args(more).output().unwrap();
        assert!(
            done.status.success(),
            "{}",
            String::from_utf8_lossy(&done.stderr)
        );
        serde_json::from_slice::<Value>(&done.stdout).unwrap()
    };
    let found = sensitivity(&["--statistics", path.to_str().unwrap()]);
    let without = sensitivity(&[]);
    let db = |report: &Value, name: &str, at: usize| {
        let choice = &row(report, name)["choices"][at];
        choice["sqnr_db"].as_f64().unwrap()
    };
    // Of the outputs themselves: ‖y − ŷ‖²/‖y‖².
    let x = inputs(64).mapv(f64::from);
    let w = noise::<f32>(&[24, 64]);
    let flat = |w: ArrayD<f32>| w.mapv(f64::from).into_dimensionality::<Ix2>().unwrap();
    for (at, bits) in [3, 4].into_iter().enumerate() {
        let builder = Chopi::builder().num_bits(bits).symmetric(true);
        let mut chopi = builder.per_channel(0).build().unwrap();
        chopi.calibrate(&w).unwrap();
        let values: ArrayD<f32> = chopi.fake_quantize(&w).unwrap();
        let (y, z) = (x.dot(&flat(w.clone()).t()), x.dot(&flat(values).t()));
        let error = (&y - &z).mapv(|e| e * e).sum() / y.mapv(|e| e * e).sum();
        let found = db(&found, "net.first.weight", at);
        assert!(
            (found + 10.0 * error.log10()).abs() < 1e-6,
            "{found} {error}"
        );
    }
    let other = "net.other.weight";
    assert_eq!(db(&found, other, 0), db(&without, other, 0));
    assert_ne!(
        db(&found, "net.half.weight", 0),
        db(&without, "net.half.weight", 0)
    );
}

#[test]
fn statistics_that_do_not_fit_are_refused() {
    let folder = Folder::new();
    let (input, path) = files(&folder);
    let save = |name: &str, layer: &str, channels: usize| {
        let mut statistics = Statistics::default();
        statistics.observe(layer, &inputs(channels)).unwrap();
        let path = folder.path(name);
        statistics.save(&path).unwrap();
        path
    };
    let absent = folder.path("absent");
    let cases = [
        (
            save("unknown", "net.second", 64),
            "layer \"net.second\": there is no tensor \"net.second.weight\" in ",
        ),
        (
            save("wide", "net.first", 32),
            "layer \"net.first\": has 32 inputs, but \"net.first.weight\" is [24, 64], expected [outputs, 32]",
        ),
        (input.clone(), "the metadata do not say chopi.moments = 1"),
        (absent, "absent: cannot read"),
    ];
    for (path, expected) in &cases {
        let args = ["--method", "gptq", "--statistics", path.to_str().unwrap()];
        let error = failure(convert("quantize", &input, &folder.path("out"), &args), 1);
        assert!(error.contains(expected), "{error}");
        let mut command = chopi(["sensitivity"]);
        let done = command.arg(&input).args(&args[2..]).output().unwrap();
        let error = failure(done, 1);
        assert!(error.contains(expected), "{error}");
    }
    // One that is the input of a layer whose weight lies the other way.
    let transposed = Model::new()
        .array("a.weight", &noise::<f32>(&[8, 16]))
        .array("a.bias", &ArrayD::<f32>::zeros(IxDyn(&[16])));
    let transposed = folder.file("transposed.safetensors", &transposed.bytes());
    let of_a = save("of_a", "a", 16);
    let args = ["--method", "gptq", "--statistics", of_a.to_str().unwrap()];
    let error = failure(
        convert("quantize", &transposed, &folder.path("out"), &args),
        1,
    );
    assert!(
        error.contains("\"a.weight\" is no weight [outputs, inputs]: "),
        "{error}"
    );

    let seen = ["--statistics", path.to_str().unwrap()];
    for (more, expected) in [
        (
            &["--method", "awq+gptq"][..],
            "--method awq+gptq changes layers together",
        ),
        (
            &["--method", "smoothquant"],
            "--calibration-text, not --statistics",
        ),
        (
            &["--method", "rotation+gptq"],
            "--calibration-text, not --statistics",
        ),
        (&["--calibration", "mse"], "cannot be used with"),
        (&["--gguf", "q8_0"], "cannot be used with"),
        (
            &["--format", "compressed-tensors", "--dry-run"],
            "cannot be used with",
        ),
        (
            &["--scale", "1", "--zero-point", "0"],
            "cannot be used with",
        ),
        #[cfg(feature = "models")]
        (&["--calibration-text", "text.txt"], "cannot be used with"),
    ] {
        let args = [more, &seen].concat();
        let error = failure(convert("quantize", &input, &folder.path("out"), &args), 2);
        assert!(error.contains(expected), "{more:?}: {error}");
    }
    assert!(!folder.path("out").exists());
}
