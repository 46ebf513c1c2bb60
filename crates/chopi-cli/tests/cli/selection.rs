//! Which tensors are quantized.

use std::fs;

use safetensors::{Dtype, SafeTensors};

use crate::model::{Folder, Model, convert, convert_well, failure, noise};

/// The tensors that these arguments quantize.
fn quantized(args: &[&str]) -> Vec<String> {
    let folder = Folder::new();
    let model = Model::new()
        .array("layer.0.weight", &noise::<f32>(&[3, 4]))
        .array("layer.1.weight", &noise::<f32>(&[4, 3]))
        .array("layer.0.bias", &noise::<f32>(&[3]))
        .array("head/weight", &noise::<f32>(&[2, 2, 2]))
        .array("temperature", &noise::<f32>(&[]))
        .array("empty", &noise::<f32>(&[2, 0]))
        .raw("ids", Dtype::I64, &[1, 1], vec![0; 8]);
    let input = folder.file("in.safetensors", &model.bytes());
    let output = folder.path("out.safetensors");
    convert_well("quantize", &input, &output, args);
    let bytes = fs::read(output).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names: Vec<String> = file
        .iter()
        .filter(|(_, tensor)| tensor.dtype() == Dtype::U8)
        .filter_map(|(name, _)| Some(name.strip_suffix(".codes")?.to_owned()))
        .collect();
    names.sort();
    names
}

#[test]
fn by_default_float_tensors_of_two_or_more_dimensions() {
    assert_eq!(
        quantized(&[]),
        ["head/weight", "layer.0.weight", "layer.1.weight"]
    );
}

#[test]
fn with_all_every_float_tensor_that_has_elements() {
    assert_eq!(
        quantized(&["--all"]),
        [
            "head/weight",
            "layer.0.bias",
            "layer.0.weight",
            "layer.1.weight",
            "temperature"
        ]
    );
}

#[test]
fn globs_include_and_exclude() {
    assert_eq!(quantized(&["--include", "head*"]), ["head/weight"]);
    assert_eq!(quantized(&["--exclude", "layer.*"]), ["head/weight"]);
    assert_eq!(
        quantized(&[
            "--include",
            "layer.?.*",
            "--include",
            "head*",
            "--exclude",
            "*.1.*"
        ]),
        ["head/weight", "layer.0.weight"]
    );
    assert_eq!(quantized(&["--exclude", "*"]), [""; 0]);
    assert_eq!(
        quantized(&["--all", "--include", "*.{bias,scale}"]),
        ["layer.0.bias"]
    );
}

#[test]
fn an_include_that_takes_nothing_is_an_error() {
    let folder = Folder::new();
    let model = Model::new().array("weight", &noise::<f32>(&[2, 2]));
    let input = folder.file("in.safetensors", &model.bytes());
    let output = folder.path("out.safetensors");
    let done = convert("quantize", &input, &output, &["--include", "wieght"]);
    assert!(failure(done, 1).contains("--include"));
    assert_eq!(folder.names(), ["in.safetensors"]);
}
