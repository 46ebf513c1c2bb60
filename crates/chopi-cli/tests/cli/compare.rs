//! `compare`: what it finds, how it says so, and its exit status.

use std::process::{Output, Stdio};

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::model::{
    Folder, Model, Stored, chopi, convert_well, failure, integers, keys, metadata, noise, row,
};

/// `chopi compare A B ARGS`.
fn compare(a: &[u8], b: &[u8], args: &[&str]) -> Output {
    let folder = Folder::new();
    let (a, b) = (folder.file("a", a), folder.file("b", b));
    let done = chopi(["compare"]).args([a, b]).args(args).output().unwrap();
    assert_eq!(folder.names(), ["a", "b"]);
    done
}

/// What two good files give with this exit status.
fn compared(a: &Model, b: &Model, args: &[&str], status: i32) -> String {
    let done = compare(&a.bytes(), &b.bytes(), args);
    let stdout = String::from_utf8(done.stdout).unwrap();
    assert_eq!(String::from_utf8(done.stderr).unwrap(), "");
    assert_eq!(done.status.code(), Some(status), "{stdout}");
    stdout
}

/// The report as JSON.
fn report(a: &Model, b: &Model, status: i32) -> Value {
    serde_json::from_str(&compared(a, b, &["--json"], status)).unwrap()
}

/// How a tensor `x` of A differs from that of B.
fn differences(a: &Model, b: &Model) -> Value {
    let report = report(a, b, 1);
    assert_eq!(report["tensors_differing"], 1);
    row(&report, "x").clone()
}

fn x(dtype: Dtype, shape: &[usize], data: &[u8]) -> Model {
    Model::new().raw("x", dtype, shape, data.to_vec())
}

fn floats<F: Stored>(values: &[f64]) -> Model {
    let data: Vec<u8> = values.iter().flat_map(|&v| F::of(v).le()).collect();
    x(F::DTYPE, &[values.len()], &data)
}

fn singles(bits: &[u32]) -> Model {
    let data: Vec<u8> = bits.iter().flat_map(|b| b.to_le_bytes()).collect();
    x(Dtype::F32, &[bits.len()], &data)
}

fn close(value: &Value, expected: f64) {
    let value = value.as_f64().unwrap();
    assert!((value - expected).abs() < 1e-9, "{value} {expected}");
}

#[test]
fn equal_files_do_not_differ() {
    let model = Model::new()
        .array("weight", &noise::<f32>(&[8, 3]))
        .array("half", &noise::<half::bf16>(&[4, 4]))
        .floats("nan", &[3], &[f32::NAN, -0.0, f32::INFINITY])
        .raw("mask", Dtype::BOOL, &[2], vec![0, 1])
        .raw("tiny", Dtype::F4, &[6], vec![1, 2, 3])
        .raw("codes", Dtype::U64, &[], vec![255; 8])
        .floats("none", &[0, 4], &[]);
    let report = report(&model, &model, 0);
    assert_eq!(report["tensors_differing"], 0);
    assert_eq!(report["elements_differing"], 0);
    let names: Vec<_> = report["tensors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| row["name"].as_str().unwrap())
        .collect();
    assert!(names.len() == 7 && names.is_sorted(), "{names:?}");
    for name in names {
        let row = row(&report, name);
        assert_eq!(row["differing"], 0, "{row}");
        for null in ["sqnr_db", "first_index", "note"] {
            assert_eq!(row[null], Value::Null, "{row}");
        }
    }
    assert_eq!(row(&report, "weight")["max_abs_difference"], 0.0);
    assert_eq!(row(&report, "codes")["max_abs_difference"], 0);
    assert_eq!(row(&report, "mask")["max_abs_difference"], Value::Null);
    let few = compared(&model, &model, &[], 0);
    assert_eq!(few.lines().count(), 1, "{few}");
    let table = compared(&model, &model, &["--verbose"], 0);
    assert!(
        table.contains("inf") && table.contains("0 differ"),
        "{table}"
    );
    assert_eq!(compared(&Model::new(), &Model::new(), &["--quiet"], 0), "");
}

#[test]
fn a_code_that_differs_is_found_with_its_place_and_size() {
    let folder = Folder::new();
    let weights = Model::new().array("weight", &noise::<f32>(&[70, 3, 50]));
    let input = folder.file("in", &weights.bytes());
    convert_well("quantize", &input, &folder.path("q"), &["--symmetric"]);
    let bytes = std::fs::read(folder.path("q")).unwrap();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let codes = integers(&file, "weight.codes");
    let (at, index) = ((68 * 3 + 2) * 50 + 7, [68, 2, 7]);
    // Towards zero, so that the code stays in its range.
    let step = if codes[at] > 0 { -3 } else { 3 };
    let mut other = codes.clone();
    other[at] += step;
    let narrow = |codes: &[i64]| codes.iter().map(|&q| q as u8).collect();
    let changed = Model::new()
        .metadata("chopi", &metadata(&bytes)["chopi"])
        .raw("weight.codes", Dtype::I8, &[70, 3, 50], narrow(&other))
        .raw(
            "weight.scale",
            Dtype::F32,
            &[1],
            file.tensor("weight.scale").unwrap().data().to_vec(),
        );
    let done = compare(&bytes, &changed.bytes(), &["--json"]);
    assert_eq!(done.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&done.stdout).unwrap();
    assert_eq!(report["tensors_differing"], 1);
    assert_eq!(report["elements_differing"], 1);
    let weight = row(&report, "weight.codes");
    assert_eq!(weight["differing"], 1);
    assert_eq!(weight["max_abs_difference"], 3);
    assert_eq!(weight["first_index"], json!(index));
    let signal: i64 = codes.iter().map(|q| q * q).sum();
    close(&weight["sqnr_db"], 10.0 * (signal as f64 / 9.0).log10());
    assert_eq!(row(&report, "weight.scale")["differing"], 0);
}

#[test]
fn the_report_has_these_keys() {
    let a = x(Dtype::I8, &[2], &[1, 2]);
    let report = report(&a, &x(Dtype::I8, &[2], &[1, 3]), 1);
    assert_eq!(
        keys(&report),
        ["elements_differing", "tensors", "tensors_differing"]
    );
    let row = row(&report, "x");
    assert_eq!(
        keys(row),
        [
            "differing",
            "dtype_a",
            "dtype_b",
            "elements",
            "first_index",
            "max_abs_difference",
            "name",
            "note",
            "shape",
            "sqnr_db"
        ]
    );
    assert_eq!(
        (&row["dtype_a"], &row["elements"]),
        (&"I8".into(), &2.into())
    );
    close(&row["sqnr_db"], 10.0 * 5_f64.log10());
}

#[test]
fn the_table_says_where_tensors_differ() {
    let a = Model::new()
        .floats("bias", &[2], &[3.0, 4.0])
        .raw("codes", Dtype::U8, &[2, 2], vec![0, 1, 2, 255])
        .raw("old", Dtype::U8, &[1], vec![0])
        .raw("same", Dtype::I8, &[1], vec![0]);
    let b = Model::new()
        .floats("bias", &[2], &[3.0, 4.5])
        .raw("codes", Dtype::I8, &[2, 2], vec![0, 1, 2, 255])
        .raw("new", Dtype::U8, &[1], vec![0])
        .raw("same", Dtype::I8, &[1, 1], vec![0]);
    let table = compared(&a, &b, &[], 1);
    let line = |name: &str| {
        let line = table.lines().find(|line| line.contains(name)).unwrap();
        line.split('|').map(str::trim).collect::<Vec<_>>()
    };
    assert_eq!(
        line("| tensor ")[1..10],
        [
            "tensor",
            "shape",
            "dtype",
            "note",
            "elements",
            "differing",
            "largest difference",
            "first at",
            "SQNR dB"
        ]
    );
    assert_eq!(
        line("| bias")[2..10],
        ["[2]", "F32", "", "2", "1", "5.000e-1", "[1]", "20.00"]
    );
    assert_eq!(
        line("| codes")[2..9],
        [
            "[2, 2]",
            "U8 / I8",
            "dtypes differ",
            "4",
            "1",
            "256",
            "[1, 1]"
        ]
    );
    assert_eq!(line("| old")[2..7], ["[1]", "U8", "only in A", "1", ""]);
    assert_eq!(line("| new")[2..7], ["[1]", "U8", "only in B", "1", ""]);
    assert_eq!(
        line("| same")[2..7],
        ["[1] / [1, 1]", "I8", "shape [1, 1] in B", "1", ""]
    );
    assert!(
        table.ends_with("5 tensors, 5 differ: 2 of 9 elements\n"),
        "{table}"
    );
    assert_eq!(compared(&a, &b, &["--quiet"], 1), "");
}

#[test]
fn tensors_that_one_file_lacks_differ() {
    let a = Model::new().floats("both", &[1], &[1.0]);
    let b = Model::new()
        .floats("a", &[2], &[1.0, 2.0])
        .floats("both", &[1], &[1.0]);
    for (a, b, note, dtypes) in [
        (&a, &b, "only in B", [Value::Null, "F32".into()]),
        (&b, &a, "only in A", ["F32".into(), Value::Null]),
    ] {
        let report = report(a, b, 1);
        let row = row(&report, "a");
        assert_eq!(row["note"], note);
        assert_eq!([row["dtype_a"].clone(), row["dtype_b"].clone()], dtypes);
        assert_eq!((&row["shape"], &row["elements"]), (&json!([2]), &2.into()));
        assert_eq!(row["differing"], Value::Null);
        assert_eq!(report["tensors_differing"], 1);
        assert_eq!(report["elements_differing"], 0);
    }
}

#[test]
fn other_shapes_differ_though_the_elements_are_the_same() {
    let row = differences(
        &x(Dtype::I8, &[2, 3], &[1; 6]),
        &x(Dtype::I8, &[3, 2], &[1; 6]),
    );
    assert_eq!(row["shape"], json!([2, 3]));
    assert_eq!(row["note"], "shape [3, 2] in B");
    assert_eq!(row["differing"], Value::Null);
}

#[test]
fn other_dtypes_differ_and_their_numbers_are_compared() {
    let numbers = differences(
        &x(Dtype::I8, &[3], &[1, 0xff, 0x80]),
        &x(Dtype::I16, &[3], &[1, 0, 0xff, 0xff, 0x80, 0]),
    );
    assert_eq!(numbers["note"], "dtypes differ");
    assert_eq!(
        (&numbers["dtype_a"], &numbers["dtype_b"]),
        (&"I8".into(), &"I16".into())
    );
    assert_eq!(numbers["differing"], 1);
    assert_eq!(numbers["first_index"], json!([2]));
    assert_eq!(numbers["max_abs_difference"], 256);

    let values = [0.5, -0.0, f64::NAN, 2.0, 1.1];
    let row = differences(&floats::<half::f16>(&values), &floats::<f64>(&values));
    // Only 1.1 is no number of F16.
    assert_eq!(
        (&row["differing"], &row["first_index"]),
        (&1.into(), &json!([4]))
    );
    let same = differences(&floats::<f32>(&[0.5]), &floats::<half::bf16>(&[0.5]));
    assert_eq!(
        (&same["differing"], &same["sqnr_db"]),
        (&0.into(), &Value::Null)
    );

    let neither = differences(&floats::<f32>(&[0.0]), &x(Dtype::I32, &[1], &[0; 4]));
    assert_eq!(neither["note"], "dtypes differ, elements not compared");
    assert_eq!(neither["differing"], Value::Null);
    let bits = differences(&x(Dtype::BOOL, &[1], &[1]), &x(Dtype::U8, &[1], &[1]));
    assert_eq!(bits["note"], "dtypes differ, elements not compared");
}

#[test]
fn integers_are_compared_exactly() {
    let wide = |dtype, v: u64| x(dtype, &[], &v.to_le_bytes());
    let large = 1_u64 << 60;
    let row = differences(&wide(Dtype::I64, large), &wide(Dtype::I64, large + 1));
    assert_eq!(
        (&row["max_abs_difference"], &row["first_index"]),
        (&1.into(), &json!([]))
    );
    close(&row["sqnr_db"], 20.0 * (large as f64).log10());
    let row = differences(&wide(Dtype::U64, u64::MAX), &wide(Dtype::U64, 0));
    assert_eq!(row["max_abs_difference"], u64::MAX);
    // -1 as one, 2^64 - 1 as the other.
    let row = differences(&wide(Dtype::I64, u64::MAX), &wide(Dtype::U64, u64::MAX));
    assert_eq!(row["max_abs_difference"].as_f64(), Some(2_f64.powi(64)));
}

#[test]
fn floats_are_compared_bit_for_bit() {
    let zeros = differences(&floats::<f32>(&[1.0, 0.0]), &floats::<f32>(&[1.0, -0.0]));
    assert_eq!(
        (&zeros["differing"], &zeros["first_index"]),
        (&1.into(), &json!([1]))
    );
    assert_eq!(zeros["max_abs_difference"], 0.0);
    assert_eq!(zeros["sqnr_db"], Value::Null);

    let (one, quiet, signaling) = (1_f32.to_bits(), 0x7fc0_0001, 0x7f80_0001);
    report(
        &singles(&[quiet, signaling]),
        &singles(&[quiet, signaling]),
        0,
    );
    let nans = differences(&singles(&[quiet, one]), &singles(&[signaling, one]));
    assert_eq!(nans["differing"], 1);
    let nan = differences(&singles(&[one, one, one]), &singles(&[0, quiet, one]));
    assert_eq!(
        (&nan["differing"], &nan["first_index"]),
        (&2.into(), &json!([0]))
    );
    assert_eq!(nan["max_abs_difference"], Value::Null);
    assert_eq!(nan["sqnr_db"], Value::Null);
    let table = compared(&singles(&[one]), &singles(&[quiet]), &[], 1);
    assert_eq!(table.matches("NaN").count(), 2, "{table}");
}

#[test]
fn infinities_and_nan_that_both_have_do_not_hide_the_ratio() {
    let with = |last| floats::<f64>(&[f64::NEG_INFINITY, f64::NAN, 3.0, last]);
    let row = differences(&with(4.0), &with(4.5));
    assert_eq!(row["max_abs_difference"], 0.5);
    close(&row["sqnr_db"], 20.0);
    for scale in [1e-200, 1e200] {
        let row = differences(
            &floats::<f64>(&[3.0 * scale, 4.0 * scale]),
            &floats::<f64>(&[3.0 * scale, 4.5 * scale]),
        );
        close(&row["sqnr_db"], 20.0);
    }
}

#[test]
fn other_dtypes_are_compared_element_by_element() {
    let row = differences(
        &x(Dtype::F8_E4M3, &[2, 2], &[1, 2, 3, 4]),
        &x(Dtype::F8_E4M3, &[2, 2], &[1, 2, 9, 9]),
    );
    assert_eq!(
        (&row["differing"], &row["first_index"]),
        (&2.into(), &json!([1, 0]))
    );
    assert_eq!(row["max_abs_difference"], Value::Null);
    assert_eq!(row["sqnr_db"], Value::Null);
    let mut complex = [0; 16];
    complex[8..].fill(1);
    let row = differences(
        &x(Dtype::C64, &[2], &[0; 16]),
        &x(Dtype::C64, &[2], &complex),
    );
    assert_eq!(
        (&row["differing"], &row["first_index"]),
        (&1.into(), &json!([1]))
    );
}

#[test]
fn dequantized_files_are_as_far_as_quantize_said() {
    let folder = Folder::new();
    let model = Model::new().array("x", &noise::<f32>(&[100, 90]));
    let input = folder.file("in", &model.bytes());
    let (q, back) = (folder.path("q"), folder.path("back"));
    let said = convert_well("quantize", &input, &q, &["--json"]);
    convert_well("dequantize", &q, &back, &[]);
    let compare = chopi(["compare", "--json"]).args([input, back]).output();
    let found: Value = serde_json::from_slice(&compare.unwrap().stdout).unwrap();
    let said: Value = serde_json::from_str(&said).unwrap();
    let (found, said) = (row(&found, "x"), row(&said, "x"));
    assert_eq!(found["max_abs_difference"], said["max_abs_error"]);
    close(&found["sqnr_db"], said["sqnr_db"].as_f64().unwrap());
}

#[test]
fn bad_files_are_refused_whichever_they_are() {
    let good = Model::new().floats("x", &[1], &[1.0]).bytes();
    for bad in [&[][..], &[7], &[255; 64], &good[..good.len() - 1]] {
        for args in [&[][..], &["--json"], &["--quiet"]] {
            let message = failure(compare(&good, bad, args), 1);
            assert!(message.contains("b: not a "), "{message}");
            let message = failure(compare(bad, &good, args), 1);
            assert!(message.contains("a: not a "), "{message}");
        }
    }
    let folder = Folder::new();
    let file = folder.file("in", &good);
    let refused = |b: &str| {
        let done = chopi(["compare"]).args([&file, &folder.path(b)]).output();
        failure(done.unwrap(), 1)
    };
    assert!(refused("missing").contains("missing: cannot read"));
    assert!(refused(".").contains("has no model.safetensors"));
}

#[test]
fn bad_command_lines_have_status_2() {
    for args in [
        &["a"][..],
        &["a", "b", "c"],
        &["a", "b", "--json", "--quiet"],
        &["a", "b", "--frobnicate"],
    ] {
        failure(chopi(["compare"]).args(args).output().unwrap(), 2);
    }
}

#[test]
fn a_reader_that_goes_away_does_not_change_the_exit_status() {
    let folder = Folder::new();
    let model = |value| {
        (0..500).fold(Model::new(), |model, i| {
            let name = format!("tensor {i} with a name that fills pipes");
            model.floats(&name, &[1], &[value])
        })
    };
    let a = folder.file("a", &model(1.0).bytes());
    let b = folder.file("b", &model(2.0).bytes());
    for (b, status) in [(&a, 0), (&b, 1)] {
        let mut compare = chopi(["compare"]);
        compare.args([&a, b]);
        compare.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = compare.spawn().unwrap();
        drop(child.stdout.take());
        let done = child.wait_with_output().unwrap();
        assert_eq!(done.status.code(), Some(status));
        assert_eq!(String::from_utf8(done.stderr).unwrap(), "");
    }
}
