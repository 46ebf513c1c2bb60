//! Command lines that make no sense: exit status 2, and nothing is written.

use crate::model::{Folder, Model, convert, failure, noise};

/// What the program says about these arguments.
fn usage(args: &[&str]) -> String {
    let folder = Folder::new();
    let model = Model::new().array("x", &noise::<f32>(&[2, 2]));
    let input = folder.file("in.safetensors", &model.bytes());
    let output = folder.path("out.safetensors");
    let message = failure(convert("quantize", &input, &output, args), 2);
    assert_eq!(folder.names(), ["in.safetensors"], "{args:?}");
    message
}

#[test]
fn numbers_out_of_range_are_refused() {
    for bits in ["1", "33", "0", "-8", "eight"] {
        assert!(usage(&[&format!("--bits={bits}")]).contains("--bits"));
    }
    for scale in ["0", "-1", "inf", "NaN", "x"] {
        assert!(usage(&["--zero-point=0", &format!("--scale={scale}")]).contains("--scale"));
    }
    for size in ["0", "-1"] {
        assert!(usage(&[&format!("--group-size={size}")]).contains("--group-size"));
    }
    assert!(usage(&["--threads=0"]).contains("--threads"));
}

#[test]
fn ranges_that_cannot_be_are_refused() {
    for range in [
        "half",
        "5",
        "7:-8",
        "0:256",
        "3:3",
        "0:99999999999",
        "-9223372036854775808:0",
    ] {
        assert!(
            usage(&[&format!("--range={range}")]).contains("range"),
            "{range}"
        );
    }
    assert!(usage(&["--symmetric", "--range=1:9"]).contains("symmetric"));
}

#[test]
fn options_that_contradict_each_other_are_refused() {
    for args in [
        &["--per-channel=0", "--group-size=2"][..],
        &["--axis=0"],
        &["--per-channel=0", "--axis=0"],
        &["--scale=1"],
        &["--zero-point=1"],
        &["--scale=1", "--zero-point=1", "--symmetric"],
        &["--scale=1", "--zero-point=99999999999"],
        &["--scale=1", "--zero-point=0", "--per-channel=0"],
        &["--scale=1", "--symmetric", "--group-size=2"],
        &["--json", "--quiet"],
    ] {
        usage(args);
    }
    assert!(usage(&["--scale=1"]).contains("--zero-point"));
}

#[test]
fn names_that_do_not_exist_are_refused_with_those_that_do() {
    assert!(usage(&["--convention=numpy"]).contains("chopi, pychop"));
    assert!(usage(&["--backend=numpy"]).contains("ndarray"));
    if cfg!(not(feature = "candle")) {
        assert!(usage(&["--backend=candle"]).contains("--features candle"));
    }
    assert!(usage(&["--include=a[", "--all"]).contains("--include"));
    usage(&["--frobnicate"]);
}
