//! What the program prints.

use std::process::Stdio;

use serde_json::Value;

use crate::model::{Folder, Model, chopi, convert_well, keys, noise, row};

fn model() -> Model {
    Model::new()
        .metadata("format", "pt")
        .array("weight", &noise::<f32>(&[8, 3]))
        .array("half", &noise::<half::f16>(&[4, 4]))
        .array("bias", &noise::<f32>(&[8]))
        .floats("zero", &[2, 2], &[0.0; 4])
}

#[test]
fn quantize_reports_every_tensor_as_json() {
    let folder = Folder::new();
    let input = folder.file("in.safetensors", &model().bytes());
    let args = ["--json", "--per-channel", "0"];
    let json = convert_well("quantize", &input, &folder.path("out"), &args);
    let report: Value = serde_json::from_str(&json).unwrap();

    assert_eq!(
        keys(&report),
        ["bytes_in", "bytes_out", "seconds", "tensors"]
    );
    for row in report["tensors"].as_array().unwrap() {
        assert_eq!(
            keys(row),
            [
                "bits",
                "bytes_in",
                "bytes_out",
                "convention",
                "dtype",
                "granularity",
                "max_abs_error",
                "mse",
                "name",
                "shape",
                "sqnr_db",
                "symmetric"
            ]
        );
    }
    let weight = row(&report, "weight");
    assert_eq!(weight["shape"], serde_json::json!([8, 3]));
    assert_eq!(weight["dtype"], "F32");
    assert_eq!(weight["bits"], 8);
    assert_eq!(weight["symmetric"], false);
    assert_eq!(weight["granularity"], "per_channel(axis 0)");
    assert_eq!(weight["convention"], "chopi");
    assert_eq!(weight["bytes_in"], 96);
    // The codes, eight scales and eight zero points.
    assert_eq!(weight["bytes_out"], 24 + 32 + 32);
    assert!(weight["sqnr_db"].as_f64().unwrap() > 40.0);
    assert!(weight["mse"].as_f64().unwrap() < 1e-4);
    assert!(weight["max_abs_error"].as_f64().unwrap() < 1e-2);
    // Nothing is lost of zeros: the ratio is infinite, which JSON has no number for.
    let zero = row(&report, "zero");
    assert_eq!(
        (&zero["sqnr_db"], &zero["mse"]),
        (&Value::Null, &0.0.into())
    );
    let bias = row(&report, "bias");
    assert_eq!(
        (&bias["bits"], &bias["bytes_out"]),
        (&Value::Null, &32.into())
    );

    let rows = report["tensors"].as_array().unwrap();
    let total = |key: &str| {
        rows.iter()
            .map(|row| row[key].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!(report["bytes_in"], total("bytes_in"));
    assert_eq!(report["bytes_out"], total("bytes_out"));
    assert!(report["seconds"].as_f64().unwrap() > 0.0);
}

#[test]
fn quantize_prints_a_table_with_totals() {
    let folder = Folder::new();
    let input = folder.file("in.safetensors", &model().bytes());
    let table = convert_well("quantize", &input, &folder.path("out"), &["--symmetric"]);
    let line = |name: &str| table.lines().find(|line| line.contains(name)).unwrap();
    assert!(line("tensor ").contains("SQNR dB"));
    let weight = line("| weight");
    assert!(weight.contains("F32 → I8"), "{weight}");
    assert!(
        weight.contains("8 bits symmetric [-128, 127] per_tensor"),
        "{weight}"
    );
    assert!(line("| half").contains("F16 → I8"));
    assert!(line("| zero").contains("inf"));
    assert!(!table.contains("bias"), "{table}");
    assert!(line("1 tensor copied, 32 bytes").contains("--verbose"));
    let totals = line("4 tensors");
    assert!(
        totals.contains("3 quantized: ") && totals.contains(" of 176 bytes"),
        "{totals}"
    );
    let args = ["--symmetric", "--verbose", "--force"];
    let table = convert_well("quantize", &input, &folder.path("out"), &args);
    let bias = table.lines().find(|line| line.contains("| bias")).unwrap();
    assert!(bias.contains("copied"), "{bias}");
    assert!(!table.contains("tensor copied"), "{table}");
}

#[test]
fn dequantize_reports_too() {
    let folder = Folder::new();
    let input = folder.file("in.safetensors", &model().bytes());
    let quantized = folder.path("q");
    convert_well("quantize", &input, &quantized, &[]);
    let json = convert_well("dequantize", &quantized, &folder.path("back"), &["--json"]);
    let report: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        keys(&report),
        ["bytes_in", "bytes_out", "seconds", "tensors"]
    );
    let half = row(&report, "half");
    assert_eq!(
        (&half["dtype"], &half["bytes_in"]),
        (&"F16".into(), &(16 + 4 + 4).into())
    );
    assert_eq!(half["bytes_out"], 32);
    let table = convert_well("dequantize", &quantized, &folder.path("back"), &["--force"]);
    assert!(
        table.contains("U8 → F16") && table.contains("3 dequantized"),
        "{table}"
    );
}

#[test]
fn inspect_says_how_tensors_are_quantized() {
    let folder = Folder::new();
    let input = folder.file("in.safetensors", &model().bytes());
    let quantized = folder.path("q");
    let args = ["--bits", "4", "--group-size", "2", "--exclude", "zero"];
    convert_well("quantize", &input, &quantized, &args);
    let inspect = |args: &[&str]| {
        let done = chopi(["inspect"])
            .arg(&quantized)
            .args(args)
            .output()
            .unwrap();
        assert!(done.status.success());
        assert!(done.stderr.is_empty());
        String::from_utf8(done.stdout).unwrap()
    };
    let report: Value = serde_json::from_str(&inspect(&["--json"])).unwrap();
    assert_eq!(
        keys(&report),
        ["bytes", "file_bytes", "metadata", "tensors"]
    );
    assert_eq!(report["metadata"], serde_json::json!({"format": "pt"}));
    let how = &row(&report, "half")["quantized"];
    assert_eq!(
        keys(how),
        [
            "bits",
            "convention",
            "dtype",
            "granularity",
            "qmax",
            "qmin",
            "scale_max",
            "scale_min",
            "symmetric"
        ]
    );
    assert_eq!((&how["dtype"], &how["qmax"]), (&"F16".into(), &15.into()));
    assert_eq!(how["granularity"], "per_group(2, axis -1)");
    let scale = |key: &str| how[key].as_f64().unwrap();
    assert!(0.0 < scale("scale_min") && scale("scale_min") <= scale("scale_max"));
    assert_eq!(row(&report, "half")["dtype"], "U8");
    // 16 codes of 4 bits, and a scale and a zero point of 4 bytes for each two of them.
    assert_eq!(row(&report, "half")["bytes"], 8 + 8 * (4 + 4));
    assert_eq!(row(&report, "zero")["quantized"], Value::Null);

    let table = inspect(&[]);
    assert!(
        table.contains("4 bits asymmetric [0, 15] per_group(2, axis -1)"),
        "{table}"
    );
    assert!(
        table.contains("4 tensors") && table.contains("2 quantized"),
        "{table}"
    );
    assert!(table.contains("format: pt"), "{table}");
}

#[test]
fn inspect_lists_any_file() {
    let folder = Folder::new();
    let input = folder.file("in.safetensors", &model().bytes());
    let done = chopi(["inspect"]).arg(&input).output().unwrap();
    assert!(done.status.success());
    let table = String::from_utf8(done.stdout).unwrap();
    assert!(
        table.contains("weight") && table.contains("0 quantized"),
        "{table}"
    );
    let empty = folder.file("none.safetensors", &Model::new().bytes());
    assert!(
        chopi(["inspect"])
            .arg(empty)
            .output()
            .unwrap()
            .status
            .success()
    );
}

#[test]
fn quiet_prints_nothing() {
    let folder = Folder::new();
    let input = folder.file("in.safetensors", &model().bytes());
    assert_eq!(
        convert_well("quantize", &input, &folder.path("q"), &["--quiet"]),
        ""
    );
    let quantized = folder.path("q");
    assert_eq!(
        convert_well("dequantize", &quantized, &folder.path("b"), &["--quiet"]),
        ""
    );
}

#[test]
fn names_cannot_write_to_the_terminal() {
    let folder = Folder::new();
    let model = Model::new().array("a\u{1b}[2J\nb", &noise::<f32>(&[2, 2]));
    let input = folder.file("in.safetensors", &model.bytes());
    let table = convert_well("quantize", &input, &folder.path("q"), &[]);
    assert!(!table.contains('\u{1b}'));
    assert!(table.contains("a\\u{1b}[2J\\nb"), "{table}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let folder = Folder::new();
    let model = (0..500).fold(Model::new(), |model, i| {
        model.array(
            &format!("tensor {i} with a name that fills pipes"),
            &noise::<f32>(&[1, 1]),
        )
    });
    let input = folder.file("in.safetensors", &model.bytes());
    let mut inspect = chopi(["inspect"]);
    inspect
        .arg(&input)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut child = inspect.spawn().unwrap();
    drop(child.stdout.take());
    let done = child.wait_with_output().unwrap();
    assert!(done.status.success());
    assert_eq!(String::from_utf8(done.stderr).unwrap(), "");
}

/// A model with names as long as those of transformers.
fn model_of_long_names() -> Model {
    let name = |i: usize| format!("model.layers.{i}.self_attn.q_proj.weight");
    let array = |model: Model, i| model.array(&name(i), &noise::<f32>(&[64, 1024]));
    (0..3)
        .fold(Model::new(), array)
        .array("model.norm.weight", &noise::<f32>(&[1024]))
}

#[test]
fn what_is_printed_fits_80_and_120_columns_and_has_no_colours_where_nobody_looks() {
    let folder = Folder::new();
    let input = folder.file("in.safetensors", &model_of_long_names().bytes());
    let (q, back) = (folder.path("q.safetensors"), folder.path("b.safetensors"));
    let plan = folder.path("plan.json");
    let path = |path: &std::path::Path| path.to_str().unwrap().to_owned();
    let (input, q, back, plan) = (path(&input), path(&q), path(&back), path(&plan));
    let commands: [&[&str]; 6] = [
        &[
            "quantize",
            &input,
            "-o",
            &q,
            "--force",
            "--verbose",
            "--group-size",
            "128",
        ],
        &["dequantize", &q, "-o", &back, "--force", "--verbose"],
        &["inspect", &q],
        &["compare", &input, &q, "--verbose"],
        &[
            "sensitivity",
            &input,
            "--budget",
            "50%",
            "-o",
            &plan,
            "--force",
        ],
        &[
            "quantize",
            &input,
            "-o",
            &q,
            "--force",
            "--bits-from",
            &plan,
        ],
    ];
    for width in [80, 120] {
        for command in commands {
            let mut chopi = chopi(command);
            let done = chopi.env("COLUMNS", width.to_string()).output().unwrap();
            let text = String::from_utf8(done.stdout).unwrap();
            assert!(
                text.contains("model.layers.1.self_attn.q_proj.weight"),
                "{text}"
            );
            assert!(
                text.lines().all(|line| line.chars().count() <= width),
                "{text}"
            );
            assert!(!text.contains('\u{1b}'), "{text}");
        }
    }
    // As wide as it is where nobody says how wide.
    let done = chopi(["inspect", &q])
        .env_remove("COLUMNS")
        .output()
        .unwrap();
    let text = String::from_utf8(done.stdout).unwrap();
    assert!(
        text.lines().any(|line| line.chars().count() > 120),
        "{text}"
    );
}

#[test]
fn shells_and_man_know_every_command() {
    for shell in ["bash", "zsh", "fish", "powershell", "elvish"] {
        let script = chopi(["completions", shell]).output().unwrap().stdout;
        let script = String::from_utf8(script).unwrap();
        assert!(script.contains("compressed-tensors") && script.contains("sensitivity"));
    }
    let folder = Folder::new();
    let man = folder.path("man");
    assert!(chopi(["man"]).arg(&man).output().unwrap().status.success());
    let help = String::from_utf8(chopi(["--help"]).output().unwrap().stdout).unwrap();
    let commands = help
        .split("Commands:")
        .nth(1)
        .unwrap()
        .split("Options:")
        .next()
        .unwrap();
    let commands = commands.lines().filter_map(|line| {
        let name = line.strip_prefix("  ")?.split(' ').next()?;
        (!name.is_empty() && name != "help").then_some(name)
    });
    let commands: Vec<&str> = commands.collect();
    assert!(commands.len() >= 9, "{commands:?}");
    for name in commands {
        let page = man.join(format!("chopi-{name}.1"));
        let page = std::fs::read_to_string(page).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{name}");
    }
    let file = folder.file("file", b"");
    let done = chopi(["man"]).arg(file.join("man")).output().unwrap();
    assert_eq!(done.status.code(), Some(1));
}

#[test]
fn help_lists_the_conventions_and_what_a_code_takes() {
    let help = String::from_utf8(chopi(["quantize", "--help"]).output().unwrap().stdout).unwrap();
    for convention in chopi::Convention::ALL {
        assert!(help.contains(convention.name()), "{convention:?}");
    }
    assert!(help.contains("one byte (8 bits)"), "{help}");
}
