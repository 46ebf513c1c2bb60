//! Files that cannot be: exit status 1, one line that says why, and nothing is written.

use std::fs;
use std::path::Path;

use safetensors::Dtype;
use serde_json::{Value, json};

use crate::model::{Folder, Model, chopi, convert, convert_well, failure, metadata, noise};

/// What a command says of a file that it must refuse, which may not leave anything behind.
fn refused(verb: &str, bytes: &[u8], args: &[&str]) -> String {
    let folder = Folder::new();
    let input = folder.file("in.safetensors", bytes);
    let done = convert(verb, &input, &folder.path("out.safetensors"), args);
    let message = failure(done, 1);
    assert!(message.contains("in.safetensors"), "{message}");
    assert_eq!(folder.names(), ["in.safetensors"], "{message}");
    message
}

fn weights() -> Model {
    Model::new().array("weight", &noise::<f32>(&[4, 6]))
}

#[test]
fn a_file_that_cannot_be_read_is_refused() {
    let folder = Folder::new();
    let output = folder.path("out");
    for verb in ["quantize", "dequantize"] {
        let missing = convert(verb, &folder.path("missing"), &output, &[]);
        assert!(failure(missing, 1).contains("missing: cannot read"));
        let folder_itself = convert(verb, &folder.path("."), &output, &[]);
        assert!(failure(folder_itself, 1).contains("has no model.safetensors"));
    }

    let inspect = chopi(["inspect"]).arg(folder.path("missing")).output();
    assert!(failure(inspect.unwrap(), 1).contains("missing: cannot read"));
    assert_eq!(folder.names(), [""; 0]);
}

#[test]
fn a_file_that_is_not_safetensors_is_refused() {
    let whole = weights().bytes();
    let mut longer = whole.clone();
    longer.push(0);
    let with_header = |header: &str| {
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend([0; 8]);
        bytes
    };
    let tensor = |shape: &str, offsets: &str| {
        let tensor = format!(r#"{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}"#);
        with_header(&format!(r#"{{"a":{tensor}}}"#))
    };
    for bytes in [
        &[][..],
        &[7],
        &[0; 8],
        &[255; 64],
        &whole[..4],
        &whole[..20],
        &whole[..whole.len() - 1],
        &longer,
        &with_header("{}"),
        &with_header("{\"a\":1}"),
        &with_header("not json"),
        &tensor("[3]", "[0,8]"),
        &tensor("[2]", "[0,800]"),
        &tensor("[2]", "[8,0]"),
        &tensor("[4294967296,4294967296,4]", "[0,8]"),
        &tensor("[-2]", "[0,8]"),
    ] {
        for verb in ["quantize", "dequantize"] {
            assert!(refused(verb, bytes, &[]).contains("safetensors file"));
        }
        let folder = Folder::new();
        let input = folder.file("f", bytes);
        failure(chopi(["inspect"]).arg(input).output().unwrap(), 1);
    }
}

#[test]
fn nan_and_infinity_are_refused_where_they_are() {
    for (value, text) in [
        (f32::NAN, "NaN"),
        (f32::INFINITY, "inf"),
        (f32::NEG_INFINITY, "-inf"),
    ] {
        let mut x = noise::<f32>(&[3, 4]);
        x[[1, 2]] = value;
        x[[2, 0]] = value;
        let bytes = weights().array("layer.0", &x).bytes();
        let given = ["--scale", "1", "--zero-point", "0"];
        let args: [&[&str]; 4] = [&[], &["--per-channel", "0"], &["--group-size", "2"], &given];
        for args in args {
            let message = refused("quantize", &bytes, args);
            assert!(message.contains("\"layer.0\""), "{message}");
            assert!(message.contains(&format!("the first of 2 is {text} at index [1, 2]")));
        }
        // A tensor that is not quantized may hold anything.
        let folder = Folder::new();
        let input = folder.file("in", &bytes);
        convert_well(
            "quantize",
            &input,
            &folder.path("out"),
            &["--exclude", "layer*"],
        );
    }
}

#[test]
fn of_several_bad_tensors_the_first_is_named() {
    let nan = |model: Model, i: usize| {
        let mut x = noise::<f32>(&[2, 10 + i]);
        x[[0, 3]] = f32::NAN;
        model.array(&format!("tensor.{i:02}"), &x)
    };
    let bytes = (1..40).fold(weights(), nan).bytes();
    for threads in ["1", "4"] {
        let message = refused("quantize", &bytes, &["--threads", threads]);
        assert!(message.contains("\"tensor.01\""), "{message}");
    }
}

#[test]
fn an_axis_that_a_tensor_does_not_have_is_refused() {
    let bytes = weights().array("bias", &noise::<f32>(&[3])).bytes();
    for args in [
        &["--per-channel", "2"][..],
        &["--per-channel", "-3"],
        &["--group-size", "2", "--axis", "2"],
    ] {
        let message = refused("quantize", &bytes, args);
        assert!(
            message.contains("\"weight\"") && message.contains("[4, 6]"),
            "{message}"
        );
    }
    let message = refused("quantize", &bytes, &["--per-channel", "1", "--all"]);
    assert!(message.contains("\"bias\""), "{message}");
}

#[test]
fn a_scale_that_the_type_cannot_hold_is_refused() {
    for scale in ["1e-300", "1e300"] {
        let message = refused(
            "quantize",
            &weights().bytes(),
            &["--symmetric", "--scale", scale],
        );
        assert!(
            message.contains("\"weight\"") && message.contains("scale"),
            "{message}"
        );
    }
}

#[test]
fn names_that_would_collide_are_refused() {
    for (name, args) in [
        ("weight.codes", &["--symmetric"][..]),
        ("weight.scale", &["--symmetric"]),
        ("weight.scale", &[]),
        ("weight.zero_point", &[]),
    ] {
        let bytes = weights().raw(name, Dtype::U8, &[1], vec![1]).bytes();
        let message = refused("quantize", &bytes, args);
        assert!(
            message.contains("\"weight\"") && message.contains(name),
            "{message}"
        );
    }
    let bytes = weights().metadata("chopi", "mine").bytes();
    assert!(refused("quantize", &bytes, &[]).contains("quantized already"));
}

#[test]
fn a_file_is_not_quantized_twice_nor_dequantized_unless_it_was() {
    let folder = Folder::new();
    let input = folder.file("in", &weights().bytes());
    convert_well("quantize", &input, &folder.path("q"), &[]);
    let message = refused("quantize", &fs::read(folder.path("q")).unwrap(), &[]);
    assert!(message.contains("quantized already"), "{message}");
    let message = refused("dequantize", &weights().bytes(), &[]);
    assert!(message.contains("is not a quantized model"), "{message}");
}

#[test]
fn the_input_is_never_the_output() {
    let folder = Folder::new();
    let bytes = weights().bytes();
    let input = folder.file("in", &bytes);
    fs::hard_link(&input, folder.path("hard")).unwrap();
    let mut outputs = vec![input.clone(), folder.path("./in"), folder.path("hard")];
    #[cfg(unix)]
    {
        std::os::unix::fs::symlink(&input, folder.path("soft")).unwrap();
        outputs.push(folder.path("soft"));
    }
    let names = folder.names();
    for output in &outputs {
        for args in [&[][..], &["--force"]] {
            let message = failure(convert("quantize", &input, output, args), 1);
            assert!(message.contains("the output is the input"), "{message}");
            // And the other way round.
            failure(convert("quantize", output, &input, args), 1);
        }
    }
    assert_eq!(folder.names(), names);
    assert_eq!(fs::read(&input).unwrap(), bytes);
}

#[test]
fn an_output_that_exists_is_replaced_only_when_asked() {
    let folder = Folder::new();
    let input = folder.file("in", &weights().bytes());
    let output = folder.file("out", b"precious");
    let message = failure(convert("quantize", &input, &output, &[]), 1);
    assert!(
        message.contains("out: exists already (--force"),
        "{message}"
    );
    assert_eq!(fs::read(&output).unwrap(), b"precious");
    convert_well("quantize", &input, &output, &["--force"]);
    assert_ne!(fs::read(&output).unwrap(), b"precious");
    assert_eq!(folder.names(), ["in", "out"]);
}

#[test]
fn a_failure_leaves_the_old_output_as_it_was() {
    let folder = Folder::new();
    let bad = Model::new().floats("x", &[1, 2], &[1.0, f32::NAN]).bytes();
    let input = folder.file("in", &bad);
    let output = folder.file("out", b"precious");
    failure(convert("quantize", &input, &output, &["--force"]), 1);
    assert_eq!(fs::read(&output).unwrap(), b"precious");
    assert_eq!(folder.names(), ["in", "out"]);
}

#[test]
fn a_target_that_cannot_be_written_is_refused() {
    let folder = Folder::new();
    let input = folder.file("in", &weights().bytes());
    let message = failure(convert("quantize", &input, &folder.path("no/out"), &[]), 1);
    assert!(message.contains("no/out: cannot write"), "{message}");
    assert!(!message.contains(".chopi-"), "{message}");
    let message = failure(convert("quantize", &input, &folder.path("in/out"), &[]), 1);
    assert!(message.contains("in/out: cannot write"), "{message}");
    assert!(!message.contains(".chopi-"), "{message}");
    let message = failure(
        convert("quantize", &input, &folder.path("."), &["--force"]),
        1,
    );
    assert!(message.contains("not a regular file"), "{message}");

    let output = folder.file("out", b"precious");
    let mut permissions = fs::metadata(&output).unwrap().permissions();
    permissions.set_readonly(true);
    fs::set_permissions(&output, permissions).unwrap();
    let message = failure(convert("quantize", &input, &output, &["--force"]), 1);
    assert!(message.contains("out: is read-only"), "{message}");
    assert_eq!(fs::read(&output).unwrap(), b"precious");
    assert_eq!(folder.names(), ["in", "out"]);
}

#[cfg(unix)]
#[test]
fn devices_and_links_that_lead_nowhere_are_not_replaced() {
    let folder = Folder::new();
    let input = folder.file("in", &weights().bytes());
    let message = failure(
        convert("quantize", &input, Path::new("/dev/null"), &["--force"]),
        1,
    );
    assert!(
        message.contains("/dev/null: not a regular file"),
        "{message}"
    );
    std::os::unix::fs::symlink(folder.path("nowhere"), folder.path("link")).unwrap();
    let message = failure(convert("quantize", &input, &folder.path("link"), &[]), 1);
    assert!(message.contains("exists already"), "{message}");
    failure(
        convert("quantize", &input, &folder.path("link"), &["--force"]),
        1,
    );
    assert_eq!(folder.names(), ["in", "link"]);
}

#[cfg(unix)]
#[test]
fn a_new_file_has_ordinary_permissions_and_a_replaced_one_keeps_its_own() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    let input = folder.file("in", &weights().bytes());
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    convert_well("quantize", &input, &folder.path("new"), &[]);
    assert_eq!(mode(&folder.path("new")), mode(&input));
    let old = folder.file("old", b"");
    fs::set_permissions(&old, PermissionsExt::from_mode(0o640)).unwrap();
    convert_well("quantize", &input, &old, &["--force"]);
    assert_eq!(mode(&old), 0o640);
}

/// A file may not grow beyond 4 KiB here, as if the disk were full.
#[cfg(unix)]
#[test]
fn a_full_target_is_refused() {
    let folder = Folder::new();
    let model = weights().array("large", &noise::<f32>(&[100, 100]));
    let input = folder.file("in", &model.bytes());
    let output = folder.file("out", b"precious");
    let done = std::process::Command::new("sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$0\" \"$@\""])
        .args([env!("CARGO_BIN_EXE_chopi"), "quantize", "--force"])
        .arg(&input)
        .arg("-o")
        .arg(&output)
        .output()
        .unwrap();
    let message = failure(done, 1);
    assert!(message.contains("out: cannot write"), "{message}");
    assert_eq!(fs::read(&output).unwrap(), b"precious");
    assert_eq!(folder.names(), ["in", "out"]);
}

/// A quantized file, as its parts.
struct Quantized {
    record: Value,
    codes: (Dtype, Vec<usize>, Vec<u8>),
    scale: (Dtype, Vec<usize>, Vec<u8>),
    zero_point: (Dtype, Vec<usize>, Vec<u8>),
}

impl Quantized {
    fn new() -> Self {
        let folder = Folder::new();
        let input = folder.file("in", &weights().bytes());
        convert_well(
            "quantize",
            &input,
            &folder.path("q"),
            &["--per-channel", "0"],
        );
        let bytes = fs::read(folder.path("q")).unwrap();
        let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
        let part = |name: &str| {
            let tensor = file.tensor(name).unwrap();
            (
                tensor.dtype(),
                tensor.shape().to_vec(),
                tensor.data().to_vec(),
            )
        };
        Self {
            record: serde_json::from_str(&metadata(&bytes)["chopi"]).unwrap(),
            codes: part("weight.codes"),
            scale: part("weight.scale"),
            zero_point: part("weight.zero_point"),
        }
    }

    fn bytes(self) -> Vec<u8> {
        let mut model = Model::new().metadata("chopi", &self.record.to_string());
        for (name, (dtype, shape, data)) in [
            ("weight.codes", self.codes),
            ("weight.scale", self.scale),
            ("weight.zero_point", self.zero_point),
        ] {
            model = model.raw(name, dtype, &shape, data);
        }
        model.bytes()
    }
}

/// What `dequantize` and `inspect` say of a quantized file that was changed.
fn lie(change: impl Fn(&mut Quantized)) -> String {
    let mut file = Quantized::new();
    change(&mut file);
    let bytes = file.bytes();
    let folder = Folder::new();
    let input = folder.file("f", &bytes);
    let inspect = chopi(["inspect"]).arg(input).output().unwrap();
    let message = failure(inspect, 1);
    let dequantize = refused("dequantize", &bytes, &[]);
    assert_eq!(
        message.split_once("f: ").unwrap().1,
        dequantize.split_once("safetensors: ").unwrap().1
    );
    message
}

#[test]
fn metadata_that_lie_are_refused() {
    let set = |pointer: &str, value: Value| {
        lie(move |file| *file.record.pointer_mut(pointer).unwrap() = value.clone())
    };
    let scheme = "/schemes/0/scheme";
    assert!(set("", json!("text")).contains("bad metadata"));
    assert!(set("", json!({"version": 3})).contains("bad metadata"));
    assert!(set("/version", json!(4)).contains("version 4"));
    assert!(set("/tensors", json!([1])).contains("bad metadata"));
    assert!(set("/tensors/weight", json!(1)).contains("index 1, but there are 1"));
    assert!(set("/tensors/weight", json!(-1)).contains("bad metadata"));
    assert!(set("/schemes/0/dtype", json!("F31")).contains("bad metadata"));
    assert!(set("/schemes/0/dtype", json!("F64")).contains("weight.scale"));
    assert!(set("/schemes/0/convention", json!("none")).contains("no convention"));
    assert!(set(scheme, json!({})).contains("bad metadata"));
    for (field, value) in [
        ("bits", json!(99)),
        ("bits", json!(2)),
        ("qmin", json!(i64::MIN)),
        ("qmax", json!(i64::MAX)),
        ("qmax", json!(127)),
        ("granularity", json!("per_tensor")),
        ("granularity", json!({"per_channel": {"axis": 1}})),
        ("granularity", json!({"per_channel": {"axis": 7}})),
        ("granularity", json!({"per_channel": {"axis": i64::MIN}})),
        ("granularity", json!({"per_group": {"axis": 0, "size": 0}})),
        ("granularity", json!({"per_group": {"axis": 0, "size": 3}})),
        ("rounding", json!("up")),
    ] {
        set(&format!("{scheme}/{field}"), value);
    }
    assert!(
        lie(|file| {
            let entry = file.record["tensors"]["weight"].take();
            file.record["tensors"] = json!({ "other": entry });
        })
        .contains("\"other\"")
    );
    assert!(
        lie(|file| {
            let entry = file.record["tensors"]["weight"].clone();
            file.record["tensors"]["weight.scale"] = entry;
        })
        .contains("weight.scale")
    );
}

#[test]
fn tensors_that_do_not_agree_with_their_metadata_are_refused() {
    assert!(lie(|f| f.codes.0 = Dtype::I8).contains("dtype I8"));
    assert!(lie(|f| f.codes = (Dtype::U8, vec![0, 6], vec![])).contains("no elements"));
    assert!(lie(|f| f.codes.1 = vec![6, 4]).contains("weight.scale"));
    assert!(lie(|f| f.scale.0 = Dtype::I32).contains("weight.scale"));
    assert!(lie(|f| f.scale.1 = vec![2, 2]).contains("weight.scale"));
    assert!(lie(|f| f.zero_point.0 = Dtype::F32).contains("weight.zero_point"));
    for scale in [0.0_f32, -1.0, f32::NAN, f32::INFINITY] {
        let lie = lie(move |f| f.scale.2[8..12].copy_from_slice(&scale.to_le_bytes()));
        assert!(lie.contains("scale of group 2"), "{lie}");
    }
    assert!(
        lie(|f| {
            f.zero_point.0 = Dtype::I64;
            f.zero_point.2 = vec![0x7f; 32];
        })
        .contains("zero point")
    );
}

#[test]
fn codes_outside_of_their_range_are_refused_where_they_are() {
    let mut file = Quantized::new();
    file.record["schemes"][0]["scheme"]["qmax"] = json!(199);
    file.codes.2.fill(7);
    file.codes.2[6 * 3 + 1] = 200;
    let message = refused("dequantize", &file.bytes(), &[]);
    assert!(message.contains("\"weight\""), "{message}");
    assert!(
        message.contains("the code at index [3, 1] is 200"),
        "{message}"
    );
}

#[test]
fn an_instruction_set_that_is_not_there_is_refused() {
    let message = failure(
        chopi(["backends"])
            .env("CHOPI_ISA", "sse9")
            .output()
            .unwrap(),
        1,
    );
    assert!(message.contains("CHOPI_ISA"), "{message}");
    assert!(message.contains("\"sse9\", expected avx512"), "{message}");
}
