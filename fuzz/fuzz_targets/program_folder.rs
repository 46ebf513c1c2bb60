//! A model's folder, well made or not, given to the commands that take one.
//!
//! The input is the number of a command and the files, with a zero byte after each: config.json, the index,
//! the headers of two shards. An empty one is not there. Without an index the first shard is the model.

#![no_main]

use chopi_fuzz::planted;
use chopi_fuzz::program::{Folder, model, safetensors, succeeds, writes};
use libfuzzer_sys::fuzz_target;

const FORMAT: [&str; 4] = ["quantize", "--quiet", "--format", "compressed-tensors"];

fuzz_target!(|input: &[u8]| {
    let [command, rest @ ..] = input else { return };
    let mut files = rest.split(|&byte| byte == 0);
    let mut file = || files.next().unwrap_or(&[]);
    let (config, index, shards) = (file(), file(), [file(), file()]);
    let folder = Folder::new();
    let write = |name: &str, bytes: &[u8]| {
        folder.write(&format!("model/{name}"), bytes);
    };
    write("tokenizer.json", b"{}");
    if !config.is_empty() {
        write("config.json", config);
    }
    let names = match index.is_empty() {
        true => ["model.safetensors", "other.safetensors"],
        false => {
            write("model.safetensors.index.json", index);
            [
                "model-00001-of-00002.safetensors",
                "model-00002-of-00002.safetensors",
            ]
        }
    };
    for (name, header) in names.into_iter().zip(shards) {
        if !header.is_empty() {
            write(name, &safetensors(header, &[]));
        }
    }
    let path = folder.path("model");
    let args: &[&str] = match command % 8 {
        0 => &["--symmetric", "--bits", "4", "--group-size", "4"],
        1 => &["--per-channel", "0", "--calibration", "mse"],
        2 => &["--bits", "3", "--include", "*", "--threads", "1"],
        3 => {
            let plan = folder.write(
                "plan.json",
                br#"{"a.weight":4,"model.layers.0.mlp.up_proj.weight":8}"#,
            );
            writes(
                &folder,
                &[&FORMAT[..], &["--bits-from", plan.to_str().unwrap()]].concat(),
                &[&path],
                "q",
            );
            return;
        }
        4 => {
            let out = folder.path("q");
            let out = ["--dry-run", "--output", out.to_str().unwrap()];
            // Not with --quiet, so that what it prints is made.
            succeeds(&[&FORMAT[..1], &FORMAT[2..], &out].concat(), &[&path]);
            assert_eq!(folder.names(), ["model"]);
            return;
        }
        5 => {
            succeeds(&["sensitivity", "--json"], &[&path]);
            writes(
                &folder,
                &["sensitivity", "--quiet", "--budget", "30%"],
                &[&path],
                "plan.json",
            );
            return;
        }
        6 => {
            let float = folder.write("float.safetensors", &model());
            writes(
                &folder,
                &["report", "--quiet"],
                &[&float, &path],
                "report.html",
            );
            return;
        }
        _ => {
            writes(
                &folder,
                &["report", "--quiet"],
                &[&path, &path],
                "report.html",
            );
            return;
        }
    };
    if writes(&folder, &[&FORMAT[..], args].concat(), &[&path], "q") {
        // What it writes, it reads.
        let report = writes(
            &folder,
            &["report", "--quiet"],
            &[&path, &folder.path("q")],
            "report.html",
        );
        assert!(report && !planted(config.len() % 2 == 0), "it is not read");
    }
});
