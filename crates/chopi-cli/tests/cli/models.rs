//! The commands that run models, on the small models of chopi-models.

use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::Stdio;

use serde_json::Value;

use crate::model::{Folder, chopi, convert_well, failure, small};

/// What a command prints that succeeds, to standard output and to standard error.
fn said(args: &[&str], model: &Path) -> (String, String) {
    let (verb, options) = args.split_first().unwrap();
    let mut command = chopi([verb]);
    let done = command.arg(model).args(options).output().unwrap();
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{args:?}: {stderr}");
    (String::from_utf8(done.stdout).unwrap(), stderr)
}

fn json(args: &[&str], model: &Path) -> Value {
    let (stdout, stderr) = said(args, model);
    assert_eq!(stderr, "");
    serde_json::from_str(&stdout).unwrap()
}

#[test]
fn a_run_streams_its_text_and_says_how_fast_it_was() {
    let options = ["run", "--prompt", "w3 w4", "--max-tokens", "5"];
    let (text, stderr) = said(&options, &small("qwen3"));
    assert!(
        stderr.starts_with("chopi: 2 tokens of the prompt in "),
        "{stderr}"
    );
    assert!(stderr.contains("; 5 tokens, "), "{stderr}");
    let report = json(&[&options[..], &["--json"]].concat(), &small("qwen3"));
    assert_eq!(report["text"].as_str().unwrap().to_owned() + "\n", text);
    assert_eq!(report["tokens"].as_array().unwrap().len(), 5);
    assert_eq!(report["prompt_tokens"], 2);
    assert!(report["tokens_per_second"].as_f64().unwrap() > 0.0);
    if cfg!(target_os = "linux") {
        assert!(report["peak_bytes"].as_u64().unwrap() > 1 << 20);
    }
    for bits in ["8", "4", "3"] {
        let quantized = [&options[..], &["--json", "--bits", bits, "--threads", "1"]].concat();
        let report = json(&quantized, &small("llama"));
        assert!(!report["tokens"].as_array().unwrap().is_empty());
    }
}

#[test]
fn each_line_that_is_not_empty_is_embedded_from_a_file_or_standard_input() {
    let folder = Folder::new();
    let lines = "w1 w2\n\n   \nw3\r\n".to_owned() + &"w4 w5\n".repeat(70);
    let texts = folder.file("texts.txt", lines.as_bytes());
    let (stdout, stderr) = said(&["embed", texts.to_str().unwrap()], &small("bert"));
    assert_eq!(stderr, "");
    let rows: Vec<Value> = stdout
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    assert_eq!(rows.len(), 72);
    assert_eq!(rows[0]["text"], "w1 w2");
    assert_eq!(rows[1]["text"], "w3");
    assert_eq!(rows[0]["embedding"].as_array().unwrap().len(), 16);
    assert!(rows[2..].iter().all(|row| row["text"] == "w4 w5"));

    let mut child = chopi(["embed"])
        .arg(small("bert"))
        .arg("-")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(lines.as_bytes()).unwrap();
    drop(stdin);
    let done = child.wait_with_output().unwrap();
    assert_eq!(String::from_utf8(done.stdout).unwrap(), stdout);
}

#[test]
fn a_decoder_is_evaluated_by_its_perplexity_and_an_encoder_by_its_cosine() {
    let folder = Folder::new();
    let text: String = (0..100).map(|i| format!("w{}\n", i * i % 32)).collect();
    let text = folder.file("text.txt", text.as_bytes());
    let text = text.to_str().unwrap();
    let float = small("llama");
    let against = float.to_str().unwrap();
    let options = ["evaluate", "--text", text, "--window", "10", "--json"];
    let alone = json(&options, &float);
    assert_eq!(alone["model"]["count"], 90);
    assert!(alone.get("against").is_none());
    let same = json(&[&options[..], &["--against", against]].concat(), &float);
    assert_eq!(same["perplexity_ratio"], 1.0);
    assert_eq!(same["model"]["perplexity"], alone["model"]["perplexity"]);
    let other = [
        &options[..],
        &["--against", against, "--bits", "4", "--limit", "3"],
    ]
    .concat();
    let other = json(&other, &float);
    assert_eq!(other["model"]["count"], 27);
    assert_ne!(other["perplexity_ratio"], 1.0);

    let float = small("bert");
    let against = ["--against", float.to_str().unwrap()];
    let same = json(&[&options[..], &against].concat(), &float);
    assert!((same["cosine"]["mean"].as_f64().unwrap() - 1.0).abs() < 1e-6);
    assert_eq!(same["model"]["count"], 100);
    let other = [&options[..], &against, &["--bits", "8"]].concat();
    let other = json(&other, &float);
    let least = other["cosine"]["least"].as_f64().unwrap();
    assert!(least > 0.99 && least < 1.0, "{least}");

    let table = ["evaluate", "--text", text, "--window", "10"];
    let (table, _) = said(&[&table[..], &against].concat(), &float);
    assert!(
        table.contains("texts/s") && table.contains("cosine: 1.000000"),
        "{table}"
    );
    let quiet = ["evaluate", "--text", text, "--window", "10", "--quiet"];
    assert_eq!(said(&quiet, &small("llama")).0, "");
}

#[test]
fn a_folder_that_the_program_has_quantized_runs() {
    let folder = Folder::new();
    let text: String = (0..100).map(|i| format!("w{} ", i * i % 32)).collect();
    let text = folder.file("text.txt", text.as_bytes());
    let float = small("llama");
    for (name, options) in [
        ("w8", "--bits 8 --symmetric --per-channel 0"),
        ("w4", "--bits 4 --symmetric --group-size 8"),
        ("w8-asymmetric", "--bits 8"),
    ] {
        let quantized = folder.path(name);
        let options = options.split(' ').chain(["--format", "compressed-tensors"]);
        convert_well("quantize", &float, &quantized, &options.collect::<Vec<_>>());
        let compare = [
            "evaluate",
            "--text",
            text.to_str().unwrap(),
            "--window",
            "20",
            "--json",
        ];
        let compare = [&compare[..], &["--against", float.to_str().unwrap()]].concat();
        let found = json(&compare, &quantized);
        let ratio = found["perplexity_ratio"].as_f64().unwrap();
        assert!(
            ratio != 1.0 && (0.8..1.25).contains(&ratio),
            "{name}: {ratio}"
        );
        // The same tokens, whatever the process.
        let run = ["run", "--prompt", "w3 w4", "--max-tokens", "9", "--json"];
        let tokens = || json(&run, &quantized)["tokens"].clone();
        assert_eq!(tokens(), tokens());
    }
}

/// The one line that a command says that fails with this status.
fn wrong(args: &[&str], model: &Path, status: i32) -> String {
    let (verb, options) = args.split_first().unwrap();
    let done = chopi([verb]).arg(model).args(options).output().unwrap();
    failure(done, status)
}

#[test]
fn wrong_input_is_said_in_one_line() {
    let folder = Folder::new();
    let texts = folder.file("texts.txt", b"w1 w2\n");
    let texts = texts.to_str().unwrap();
    let latin = folder.file("latin.txt", b"w1 \xe9\n");
    let latin = latin.to_str().unwrap();
    let empty = folder.file("empty.txt", b" \n");
    let empty = empty.to_str().unwrap();
    let absent = folder.path("absent");
    let run = ["run", "--prompt", "w1"];
    let evaluate = |text| ["evaluate", "--text", text];
    let (llama, bert) = (small("llama"), small("bert"));
    let against = |text, other| ["evaluate", "--text", text, "--against", other];
    let cases = [
        (&run[..], &absent, "config.json: cannot read: No such file"),
        (&run, &bert, "bert is an encoder, expected a decoder"),
        (
            &["run", "--prompt", ""],
            &llama,
            "there are 0 tokens, expected at least 1",
        ),
        (
            &["embed", texts],
            &llama,
            "llama is a decoder, expected an encoder",
        ),
        (
            &["embed", absent.to_str().unwrap()],
            &bert,
            "absent: cannot read",
        ),
        (&["embed", latin], &bert, "latin.txt: line 1: "),
        (&evaluate(latin), &llama, "latin.txt: byte 3 is not UTF-8"),
        (
            &evaluate(texts),
            &llama,
            "there are 2 tokens, expected at least 512",
        ),
        (
            &evaluate(texts),
            &bert,
            "is an encoder, which is evaluated --against a float model",
        ),
        (
            &against(empty, bert.to_str().unwrap()),
            &bert,
            "empty.txt: there is no line with text",
        ),
        (
            &against(texts, absent.to_str().unwrap()),
            &bert,
            "config.json: cannot read: No such file",
        ),
        (
            &against(texts, llama.to_str().unwrap()),
            &bert,
            "there are 2 tokens, expected at least 512",
        ),
        (
            &["evaluate", "--text", texts, "--window", "1"],
            &llama,
            "there are 1 tokens, expected at least 2",
        ),
        (
            &["evaluate", "--text", texts, "--window", "65"],
            &llama,
            "expected at least 65",
        ),
    ];
    for (args, model, expected) in cases {
        let said = wrong(args, model, 1);
        assert!(
            said.starts_with("chopi: ") && said.contains(expected),
            "{args:?}: {said}"
        );
    }
    for args in [
        &["run"][..],
        &["run", "--prompt", "w1", "--bits", "9"],
        &["run", "--prompt", "w1", "--threads", "0"],
        &["embed"],
        &["evaluate"],
        &["evaluate", "--text", texts, "--json", "--quiet"],
    ] {
        wrong(args, &llama, 2);
    }

    // A model whose parts are not what they should be.
    let broken = folder.path("broken");
    fs::create_dir(&broken).unwrap();
    for entry in fs::read_dir(&llama).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), broken.join(entry.file_name())).unwrap();
    }
    let weights = fs::read(broken.join("model.safetensors")).unwrap();
    let config = fs::read_to_string(broken.join("config.json")).unwrap();
    for (file, bytes, expected) in [
        (
            "model.safetensors",
            &weights[..weights.len() - 1],
            "model.safetensors: not a valid safetensors file",
        ),
        ("model.safetensors", &weights, ""),
        ("config.json", b"[]", "config.json: "),
        (
            "config.json",
            config.replace("\"llama\"", "\"gpt2\"").as_bytes(),
            "model_type is gpt2, expected one of",
        ),
        (
            "config.json",
            config
                .replace("\"vocab_size\": 32", "\"vocab_size\": 31")
                .as_bytes(),
            "expected [31, 16] by config.json",
        ),
        ("config.json", config.as_bytes(), ""),
        ("tokenizer.json", b"{}", "tokenizer.json: "),
    ] {
        fs::write(broken.join(file), bytes).unwrap();
        if !expected.is_empty() {
            let said = wrong(&run, &broken, 1);
            assert!(said.contains(expected) && said.contains("broken"), "{said}");
        }
    }
}

#[test]
fn a_method_sees_a_text_and_the_models_are_compared_on_what_it_has_not_seen() {
    let folder = Folder::new();
    let text: String = (0..2000)
        .map(|i: u64| format!("w{}\n", i * i * 7 % 31))
        .collect();
    let text = folder.file("text.txt", text.as_bytes());
    let options = [
        "--format",
        "compressed-tensors",
        "--bits",
        "4",
        "--symmetric",
        "--group-size",
        "8",
    ];
    for (name, method, measure) in [
        ("llama-tied", "gptq+weighted", "perplexity"),
        ("qwen3", "awq+gptq", "perplexity"),
        ("llama", "smoothquant", "perplexity"),
        ("llama", "rotation+gptq+weighted", "perplexity"),
        ("bert", "gptq", "cosine"),
    ] {
        let output = folder.path(&format!("{name}-{method}"));
        let mut args = vec![
            "quantize",
            "-o",
            output.to_str().unwrap(),
            "--method",
            method,
        ];
        args.extend([
            "--calibration-text",
            text.to_str().unwrap(),
            "--calibration-windows",
            "8",
            "--json",
        ]);
        args.extend(options);
        let report = json(&args, &small(name));
        let held_out = &report["held_out"];
        assert_eq!(held_out["measure"], measure);
        let number = |key: &str| held_out[key].as_f64().unwrap();
        assert!(number("float") > 0.0 && number("nearest") > 0.0 && number("quantized") > 0.0);
        let rows = report["tensors"].as_array().unwrap();
        let quantized: Vec<_> = rows.iter().filter(|row| !row["bits"].is_null()).collect();
        assert_eq!(quantized.len(), if name == "bert" { 12 } else { 14 });
        for row in quantized {
            let error = |key: &str| row["output_error"][key].as_f64().unwrap();
            assert!(error("chosen") <= error("nearest"), "{row}");
            // What scales were moved into is no longer what it was.
            assert_eq!(
                row["sqnr_db"].is_null(),
                method != "gptq" && method != "gptq+weighted"
            );
        }
        // What was written runs.
        match measure {
            "perplexity" => {
                let run = ["run", "--prompt", "w3 w4", "--max-tokens", "3", "--json"];
                json(&run, &output);
            }
            _ => {
                said(&["embed", text.to_str().unwrap()], &output);
            }
        }
    }
}

#[test]
fn a_method_that_cannot_be_is_refused() {
    let folder = Folder::new();
    let text = folder.file("text.txt", b"w1 w2 w3\n");
    let (text, output) = (text.to_str().unwrap(), folder.path("out"));
    let tried = |options: &[&str], model: &Path| {
        let mut command = chopi(["quantize", "-o", output.to_str().unwrap()]);
        let done = command.arg(model).args(options).output().unwrap();
        assert!(!done.status.success());
        assert!(!output.exists());
        String::from_utf8(done.stderr).unwrap()
    };
    let seen = ["--calibration-text", text];
    for (options, said) in [
        (&["--method", "gptq"][..], "--calibration-text"),
        (
            &["--method", "gptqq", seen[0], seen[1]],
            "\"gptqq\" is unknown",
        ),
        (
            &["--method", "gptq", "--calibration", "mse", seen[0], seen[1]],
            "cannot be used with",
        ),
        (
            &["--method", "gptq", seen[0], seen[1]],
            "there are 3 tokens, expected at least 64",
        ),
        (
            &["--method", "gptq", seen[0], "/nowhere/text"],
            "/nowhere/text",
        ),
    ] {
        let error = tried(options, &small("llama"));
        assert!(error.contains(said), "{options:?}: {error}");
    }
    let long = folder.file("long.txt", "w1 w2 w3 w4 w5 w6 ".repeat(100).as_bytes());
    let rotation = [
        "--method",
        "rotation+gptq",
        "--calibration-text",
        long.to_str().unwrap(),
    ];
    let error = tried(&rotation, &small("llama-tied"));
    assert!(
        error.contains("lm_head cannot be rotated: it has the weights of the embedding"),
        "{error}"
    );
    let error = tried(&rotation, &small("bert"));
    assert!(
        error.contains("bert is an encoder, expected a decoder"),
        "{error}"
    );
    let other = [
        "--method",
        "gptq",
        seen[0],
        long.to_str().unwrap(),
        "--include",
        "model.embed_tokens.weight",
    ];
    let error = tried(&other, &small("llama"));
    assert!(
        error.contains("--method finds no weight of a layer among the tensors that are quantized, such as \"model.layers.0."),
        "{error}"
    );
    let file = small("llama").join("model.safetensors");
    let error = tried(&["--method", "gptq", seen[0], "/nowhere/text"], &file);
    assert!(error.contains("/nowhere/text"), "{error}");
}

#[test]
fn statistics_do_not_replace_what_they_are_made_of() {
    let folder = Folder::new();
    let text = folder.file("text.txt", "w1 w2 w3 w4 w5 w6 ".repeat(100).as_bytes());
    let model = folder.path("model");
    fs::create_dir(&model).unwrap();
    for file in ["config.json", "tokenizer.json", "model.safetensors"] {
        fs::copy(small("llama").join(file), model.join(file)).unwrap();
    }
    for input in [
        &model.join("model.safetensors"),
        &model.join("config.json"),
        &model.join("tokenizer.json"),
        &text,
    ] {
        let before = fs::read(input).unwrap();
        let (text, output) = (text.to_str().unwrap(), input.to_str().unwrap());
        let make = ["statistics", "--text", text, "-o", output, "--force"];
        let error = wrong(&make, &model, 1);
        assert!(error.contains(output), "{error}");
        assert_eq!(fs::read(input).unwrap(), before);
    }
}

#[test]
fn the_statistics_of_a_model_choose_codes_of_its_files() {
    let folder = Folder::new();
    let text: String = (0..2000)
        .map(|i: u64| format!("w{}\n", i * i * 7 % 31))
        .collect();
    let text = folder.file("text.txt", text.as_bytes());
    for (name, layers, nearest) in [("llama-tied", 14, 1), ("bert", 12, 3)] {
        let (model, path) = (small(name), folder.path(name));
        let (text, path) = (text.to_str().unwrap(), path.to_str().unwrap());
        let make = ["statistics", "-o", path, "--text", text, "--windows", "8"];
        let (said_of_it, _) = said(&make, &model);
        let rows = if name == "bert" { "rows" } else { "512 rows" };
        let expected = format!("{layers} layers, ");
        assert!(
            said_of_it.starts_with(&expected) && said_of_it.contains(rows),
            "{said_of_it}"
        );
        let error = wrong(&make, &model, 1);
        assert!(error.contains("--force replaces it"), "{error}");
        assert_eq!(
            said(&[&make[..], &["--force", "--quiet"]].concat(), &model).0,
            ""
        );

        // The first layer takes the same inputs, whatever became of those after it.
        let seen = [
            "--bits",
            "4",
            "--symmetric",
            "--group-size",
            "8",
            "--method",
            "gptq",
            "--json",
        ];
        let on_text = ["--calibration-text", text, "--calibration-windows", "8"];
        let on_file = ["--statistics", path];
        let reports = [&on_text[..], &on_file].map(|data| {
            let output = folder.path(&format!("{name}-{}", data.len()));
            let report = convert_well("quantize", &model, &output, &[&seen[..], data].concat());
            serde_json::from_str::<Value>(&report).unwrap()
        });
        let rows = |report: &Value, has: bool| {
            let rows = report["tensors"].as_array().unwrap().iter();
            let quantized = rows.filter(|row| !row["bits"].is_null());
            let those = quantized.filter(|row| row["output_error"].is_object() == has);
            those.cloned().collect::<Vec<_>>()
        };
        assert_eq!(rows(&reports[1], true).len(), layers);
        assert_eq!(rows(&reports[1], false).len(), nearest);
        let first = |report: &Value| {
            let mut rows = rows(report, true).into_iter();
            let first = rows.find(|row| {
                let name = row["name"].as_str().unwrap();
                name.contains(".0.") && (name.contains("q_proj") || name.contains("query"))
            });
            first.unwrap()["output_error"]["chosen"].as_f64().unwrap()
        };
        // The text is held out in part from the method that sees it, but not the windows that it takes.
        let [on_text, on_file] = [&reports[0], &reports[1]].map(first);
        assert!(
            (on_text / on_file - 1.0).abs() < 1e-6,
            "{on_text} {on_file}"
        );
    }
}

#[test]
fn keys_and_values_in_codes_take_less_and_change_little() {
    let folder = Folder::new();
    let text: String = (0..100).map(|i| format!("w{} ", i * i % 32)).collect();
    let text = folder.file("text.txt", text.as_bytes());
    let llama = small("llama");
    let run = ["run", "--prompt", "w3 w4", "--max-tokens", "5", "--json"];
    let evaluate = [
        "evaluate",
        "--text",
        text.to_str().unwrap(),
        "--window",
        "20",
        "--json",
    ];
    let found = |args: &[&str], cache: &[&str]| json(&[args, cache].concat(), &llama);
    let (float, perplexity) = (found(&run, &[]), found(&evaluate, &[]));
    let bytes = |report: &Value| report["cache_bytes"].as_u64().unwrap();
    let of = |report: &Value| report["model"]["perplexity"].as_f64().unwrap();
    for (bits, apart) in [("8", 0.01), ("4", 0.1)] {
        let cache = ["--cache-bits", bits];
        let report = found(&run, &cache);
        assert_eq!(report["tokens"].as_array().unwrap().len(), 5);
        assert!(bytes(&report) < bytes(&float), "{bits}");
        let ratio = of(&found(&evaluate, &cache)) / of(&perplexity);
        assert!(
            ratio != 1.0 && (ratio - 1.0).abs() < apart,
            "{bits}: {ratio}"
        );
    }
    let error = wrong(&["run", "--prompt", "w3", "--cache-bits", "3"], &llama, 2);
    assert!(error.contains("expected 8 or 4"), "{error}");
    let bert = small("bert");
    let against = ["--against", bert.to_str().unwrap(), "--cache-bits", "8"];
    let error = wrong(&[&evaluate[..], &against].concat(), &bert, 1);
    assert!(
        error.contains("bert is an encoder, expected a decoder"),
        "{error}"
    );
}

#[test]
fn a_method_leaves_alone_what_is_excluded() {
    let folder = Folder::new();
    let text: String = (0..1000).map(|i| format!("w{} ", i * i % 31)).collect();
    let text = folder.file("text.txt", text.as_bytes());
    let args = [
        "--bits",
        "4",
        "--group-size",
        "8",
        "--json",
        "--exclude",
        "*.0.*",
        "--exclude",
        "lm_head*",
    ];
    let seen = [
        "--method",
        "gptq",
        "--calibration-text",
        text.to_str().unwrap(),
        "--calibration-windows",
        "8",
    ];
    let report = convert_well(
        "quantize",
        &small("llama"),
        &folder.path("out"),
        &[&args[..], &seen].concat(),
    );
    let report: Value = serde_json::from_str(&report).unwrap();
    let rows = report["tensors"].as_array().unwrap().iter();
    let by_method = rows.filter(|row| row["output_error"].is_object());
    let names: Vec<_> = by_method.map(|row| row["name"].as_str().unwrap()).collect();
    assert!(
        names.len() == 7 && names.iter().all(|name| name.contains(".1.")),
        "{names:?}"
    );
}
