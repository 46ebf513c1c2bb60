//! `chopi quantize --bits-from`: bits for each tensor.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use safetensors::SafeTensors;
use serde_json::{Value, json};

use crate::model::{Folder, Model, chopi, convert, convert_well, failure, keys, noise, row};

const FORMAT: [&str; 2] = ["--format", "compressed-tensors"];
const SCHEME: [&str; 3] = ["--symmetric", "--group-size", "32"];
const NAMES: [&str; 4] = ["a.weight", "b.weight", "embed.weight", "c.weight"];

fn model() -> Model {
    Model::new()
        .array("a.weight", &noise::<f32>(&[32, 64]))
        .array("a.bias", &noise::<f32>(&[32]))
        .array("b.weight", &noise::<f32>(&[8, 96]))
        .array("c.weight", &noise::<chopi::backend::bf16>(&[16, 32]))
        .array("embed.weight", &noise::<f32>(&[9, 32]))
}

fn plan_file(folder: &Folder, plan: &Value) -> PathBuf {
    folder.file("plan.json", plan.to_string().as_bytes())
}

/// `chopi quantize --bits-from`, with the scheme of these tests.
fn quantize(input: &Path, output: &Path, plan: &Path, args: &[&str]) -> String {
    let from = ["--bits-from", plan.to_str().unwrap()];
    convert_well(
        "quantize",
        input,
        output,
        &[&from[..], &SCHEME, args].concat(),
    )
}

/// The tensors of a file: name, dtype, shape and bytes.
fn tensors(path: &Path) -> BTreeMap<String, (String, Vec<usize>, Vec<u8>)> {
    let bytes = fs::read(path).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    file.iter()
        .map(|(name, t)| {
            let parts = (t.dtype().to_string(), t.shape().to_vec(), t.data().to_vec());
            (name.to_owned(), parts)
        })
        .collect()
}

fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The pattern that names a module.
fn named(module: &str) -> String {
    format!("re:(?:.*\\.)?{module}$")
}

/// A plan of some of the tensors.
fn plans(bits: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = BTreeMap<String, u32>> {
    let names = proptest::sample::subsequence(NAMES.to_vec(), 1..=NAMES.len());
    (names, proptest::collection::vec(bits, NAMES.len())).prop_map(|(names, bits)| {
        let names = names.into_iter().map(str::to_owned);
        names.zip(bits).collect()
    })
}

/// Checks that each tensor of a plan is the one that quantizing all to its bits gives, and that the
/// others are as they were.
fn check_plan(plan: &BTreeMap<String, u32>, format: &[&str]) {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let file = |output: PathBuf| match output.is_dir() {
        true => output.join("model.safetensors"),
        false => output,
    };
    let out = folder.path("out");
    let json = quantize(
        &input,
        &out,
        &plan_file(&folder, &json!(plan)),
        &[format, &["--json"]].concat(),
    );
    let report: Value = serde_json::from_str(&json).unwrap();
    let mut expected = tensors(&input);
    for (name, bits) in plan {
        assert_eq!(row(&report, name)["bits"], *bits);
        let alike = folder.path(&format!("{name}-{bits}"));
        let bits = bits.to_string();
        let only = ["--bits", &*bits, "--include", name];
        convert_well(
            "quantize",
            &input,
            &alike,
            &[&only[..], &SCHEME, format].concat(),
        );
        expected.remove(name);
        let parts = tensors(&file(alike)).into_iter();
        expected.extend(parts.filter(|(part, _)| part.starts_with(name)));
    }
    assert_eq!(tensors(&file(out)), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn each_tensor_is_that_of_its_bits(plan in plans(2..=17)) {
        check_plan(&plan, &[]);
    }

    #[test]
    fn each_tensor_is_that_of_its_bits_in_compressed_tensors(plan in plans(2..=8)) {
        check_plan(&plan, &FORMAT);
    }
}

#[test]
fn other_commands_read_the_bits_of_each_tensor() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let plan = json!({"a.weight": 4, "a.bias": 8, "b.weight": 12});
    let q = folder.path("q.safetensors");
    quantize(&input, &q, &plan_file(&folder, &plan), &[]);

    let inspect = chopi(["inspect", "--json"]).arg(&q).output().unwrap();
    let inspect: Value = serde_json::from_slice(&inspect.stdout).unwrap();
    for name in ["a.weight", "a.bias", "b.weight", "c.weight"] {
        assert_eq!(row(&inspect, name)["quantized"]["bits"], plan[name]);
    }

    let back = folder.path("back.safetensors");
    convert_well("dequantize", &q, &back, &[]);
    let compare = chopi(["compare", "--json"]).arg(&input).arg(&back).output();
    let compare: Value = serde_json::from_slice(&compare.unwrap().stdout).unwrap();
    let sqnr = |name: &str| row(&compare, name)["sqnr_db"].as_f64();
    assert!(sqnr("a.weight") > Some(15.0) && sqnr("a.weight") < Some(25.0));
    assert!(sqnr("a.bias") > Some(40.0) && sqnr("a.bias") < Some(50.0));
    assert!(sqnr("b.weight") > Some(60.0));
    assert_eq!(row(&compare, "c.weight")["differing"], 0);

    let page = folder.path("report.html");
    let mut report = chopi(["report"]);
    report.arg(&input).arg(&q).arg("-o").arg(&page);
    assert!(report.output().unwrap().status.success());
    let page = fs::read_to_string(page).unwrap();
    for bits in [4, 8, 12] {
        assert!(page.contains(&format!("{bits} bits symmetric")), "{bits}");
    }
}

#[test]
fn each_number_of_bits_is_a_group_of_its_modules() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let quantization = |plan: Value| {
        let out = folder.path("out");
        let args = [&FORMAT[..], &["--force"]].concat();
        quantize(&input, &out, &plan_file(&folder, &plan), &args);
        read_json(&out.join("config.json"))["quantization_config"].take()
    };
    let mixed = quantization(json!({"a.weight": 8, "b.weight": 3, "embed.weight": 8}));
    assert_eq!(mixed["format"], "mixed-precision");
    assert_eq!(
        mixed["ignore"],
        json!([named("c"), named("lm_head"), "lm_head"])
    );
    let groups = &mixed["config_groups"];
    assert_eq!(keys(groups), ["group_0", "group_1"]);
    for (group, targets, bits, format) in [
        ("group_0", json!([named("b")]), 3, "pack-quantized"),
        (
            "group_1",
            json!([named("a"), named("embed")]),
            8,
            "int-quantized",
        ),
    ] {
        let group = &groups[group];
        assert_eq!(group["targets"], targets);
        assert_eq!(group["format"], format);
        assert_eq!(group["weights"]["num_bits"], bits);
        assert_eq!(group["weights"]["group_size"], 32);
    }

    let page = folder.path("report.html");
    let mut report = chopi(["report"]);
    report
        .arg(&input)
        .arg(folder.path("out"))
        .arg("-o")
        .arg(&page);
    assert!(report.output().unwrap().status.success());
    let page = fs::read_to_string(page).unwrap();
    assert!(page.contains("3 bits symmetric") && page.contains("8 bits symmetric"));
    let config = folder.path("out").join("config.json");
    let renamed = fs::read_to_string(&config).unwrap();
    fs::write(&config, renamed.replace("b$", "z$")).unwrap();
    let error = failure(report.arg("--force").output().unwrap(), 1);
    let said = "tensor \"b.weight\": no group of \"config_groups\" is for its module \"b\"";
    assert!(error.contains(said), "{error}");

    // Two groups of one format are not mixed; nor is a head ignored that is quantized.
    let packed = quantization(json!({"a.weight": 4, "b.weight": 3}));
    assert_eq!(packed["format"], "pack-quantized");
    assert_eq!(keys(&packed["config_groups"]).len(), 2);
    let whole = quantization(json!({"a.weight": 8, "b.weight": 8}));
    assert_eq!(whole["format"], "int-quantized");
    assert_eq!(keys(&whole["config_groups"]), ["group_0"]);
}

#[test]
fn a_proposal_of_sensitivity_takes_the_bytes_that_it_says() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let plan = folder.path("plan.json");
    let mut command = chopi(["sensitivity", "--json", "--budget", "25%"]);
    command.args(SCHEME).arg(&input).arg("-o").arg(&plan);
    let done = command.output().unwrap();
    assert!(done.status.success());
    let proposed: Value = serde_json::from_slice(&done.stdout).unwrap();
    let written = read_json(&plan);
    let names = keys(&written);
    assert_eq!(names, ["a.weight", "b.weight", "c.weight"]);
    for name in &names {
        assert_eq!(row(&proposed, name)["bits_proposed"], written[name]);
    }

    let args = [&FORMAT[..], &["--json"]].concat();
    let json = quantize(&input, &folder.path("out"), &plan, &args);
    let report: Value = serde_json::from_str(&json).unwrap();
    let rows = report["tensors"].as_array().unwrap().iter();
    let bytes: u64 = rows.map(|row| row["bytes_out"].as_u64().unwrap()).sum();
    // Packed weights keep their shape beside them, two I64.
    let packed = names.iter().filter(|name| written[name] != 8).count() as u64;
    assert!(packed > 0);
    let proposed = proposed["bytes_proposed"].as_u64().unwrap();
    assert_eq!(bytes, proposed + 16 * packed);

    let error = failure(command.output().unwrap(), 1);
    assert!(error.contains("plan.json: exists already"), "{error}");
    let unbudgeted = chopi(["sensitivity", "-o", "p.json"]).arg(&input).output();
    assert!(failure(unbudgeted.unwrap(), 2).contains("--budget"));
}

#[test]
fn packed_zero_points_that_transformers_cannot_read_are_refused() {
    let folder = Folder::new();
    let input = folder.file("model.safetensors", &model().bytes());
    let quantize = |bits: Value, args: &[&str], output: &str| {
        let plan = plan_file(&folder, &bits);
        let from = ["--bits-from", plan.to_str().unwrap()];
        let args = [&FORMAT[..], &from, args].concat();
        convert("quantize", &input, &folder.path(output), &args)
    };
    let mixed = json!({"a.weight": 4, "b.weight": 8});
    let error = failure(quantize(mixed.clone(), &["--group-size", "32"], "mixed"), 1);
    assert!(
        error.contains("\"a.weight\" would get packed zero points beside weights of other bits"),
        "{error}"
    );
    assert!(
        error.contains("--symmetric") && !error.contains("\"b.weight\""),
        "{error}"
    );
    assert!(!folder.path("mixed").exists());
    let four = json!({"a.weight": 4, "b.weight": 4});
    let error = failure(quantize(four, &["--group-size", "32"], "four"), 1);
    assert!(
        error.contains("\"b.weight\": has 8 rows") && error.contains("--exclude 'b.weight'"),
        "{error}"
    );
    for (i, (bits, args)) in [
        (mixed.clone(), &["--group-size", "32", "--symmetric"][..]),
        // The zero point of a whole tensor is not packed.
        (mixed, &[]),
        (
            json!({"a.weight": 5, "b.weight": 5}),
            &["--group-size", "32"],
        ),
        (
            json!({"a.weight": 8, "b.weight": 8}),
            &["--group-size", "32"],
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let done = quantize(bits, args, &format!("out{i}"));
        assert!(done.status.success(), "{args:?}: {done:?}");
    }
}

#[test]
fn plans_that_cannot_be_are_refused() {
    let folder = Folder::new();
    let model = model().raw("ids", safetensors::Dtype::I64, &[1, 1], vec![0; 8]);
    let input = folder.file("model.safetensors", &model.bytes());
    let fail = |plan: &str, args: &[&str]| {
        let plan = folder.file("plan.json", plan.as_bytes());
        let from = ["--bits-from", plan.to_str().unwrap()];
        let args = [&from, args].concat();
        let error = failure(convert("quantize", &input, &folder.path("out"), &args), 1);
        assert!(error.contains("plan.json: "), "{error}");
        assert_eq!(folder.names(), ["model.safetensors", "plan.json"]);
        error
    };
    for (plan, said) in [
        ("", "EOF"),
        (
            "[4]",
            "expected an object from names of tensors to their bits",
        ),
        ("{\"a.weight\": 4", "EOF"),
        ("{}", "it names no tensor, expected at least one"),
        (
            "{\"a.weight\": 1}",
            "tensor \"a.weight\": its bits are 1, expected a whole number from 2 to 32",
        ),
        ("{\"a.weight\": 4294967300}", "its bits are 4294967300"),
        ("{\"a.weight\": 4.5}", "its bits are 4.5"),
        ("{\"a.weight\": \"4\"}", "its bits are \"4\""),
        ("{\"a.weight\": null}", "its bits are null"),
        (
            "{\"a.weight\": 4, \"a.weight\": 4}",
            "tensor \"a.weight\": is named twice",
        ),
        (
            "{\"a.weigth\": 4}",
            "tensor \"a.weigth\": there is no such tensor in",
        ),
        (
            "{\"ids\": 4}",
            "tensor \"ids\": is I64 [1, 1], expected a tensor of F16, BF16, F32 or F64 with \
             elements",
        ),
    ] {
        let error = fail(plan, &[]);
        assert!(error.contains(said), "{plan}: {error}");
    }
    for (plan, said) in [
        ("{\"a.weight\": 9}", "tensor \"a.weight\": "),
        (
            "{\"a.weight\": 4, \"z\": 8}",
            "tensor \"z\": there is no such",
        ),
    ] {
        let error = fail(plan, &FORMAT);
        assert!(error.contains(said), "{plan}: {error}");
    }
    // All that cannot be is said at once.
    folder.file("plan.json", b"{\"a.bias\": 4, \"ids\": 4, \"a.weight\": 4}");
    let plan = folder.path("plan.json");
    let args = [&FORMAT[..], &["--bits-from", plan.to_str().unwrap()]].concat();
    let error = failure(convert("quantize", &input, &folder.path("out"), &args), 1);
    assert!(
        error.contains("\"a.bias\" cannot be quantized: 1 dimension"),
        "{error}"
    );
    assert!(
        error.contains("\"ids\" cannot be quantized: I64"),
        "{error}"
    );

    let error = fail("{\"a.weight\": 4}", &["--convention", "tflite"]);
    assert!(error.contains("tensor \"a.weight\": "), "{error}");

    let plan = folder.file("plan.json", b"{\"a.weight\": 4}");
    for usage in [
        &["--bits", "8"][..],
        &["--include", "a*"],
        &["--exclude", "a*"],
        &["--all"],
        &["--symmetric", "--scale", "1"],
        &["--range", "-2:1"],
    ] {
        let from = ["--bits-from", plan.to_str().unwrap()];
        let args = [&from, usage].concat();
        let done = convert("quantize", &input, &folder.path("out"), &args);
        let error = failure(done, 2);
        assert!(error.contains("--bits-from"), "{error}");
    }
    let missing = folder.path("missing.json");
    let args = ["--bits-from", missing.to_str().unwrap()];
    let done = convert("quantize", &input, &folder.path("out"), &args);
    assert!(failure(done, 1).contains("missing.json: cannot read"));
}
