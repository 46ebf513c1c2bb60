//! A safetensors file, well made or not, given to each command of the program.
//!
//! The input is the number of a command, a byte of options, and the file: the header as text up to a zero
//! byte, then data. The file's length is made to fit, unless the options ask for the bytes as they are.

#![no_main]

use chopi_fuzz::planted;
use chopi_fuzz::program::{Folder, model, safetensors, succeeds, writes};
use libfuzzer_sys::fuzz_target;

/// Ways to quantize.
const QUANTIZE: [&[&str]; 8] = [
    &["--all"],
    &[
        "--all",
        "--group-size",
        "2",
        "--axis",
        "0",
        "--bits",
        "4",
        "--calibration",
        "mse",
    ],
    &[
        "--per-channel",
        "0",
        "--symmetric",
        "--calibration",
        "kl",
        "--bits",
        "8",
    ],
    &["--all", "--convention", "pychop"],
    &["--all", "--convention", "torch-fake", "--symmetric"],
    &[
        "--all",
        "--calibration",
        "percentile:99",
        "--bits",
        "2",
        "--range",
        "signed",
    ],
    &["--scale", "0.05", "--zero-point", "12", "--bits", "16"],
    &[
        "--per-channel",
        "-1",
        "--bits",
        "32",
        "--exclude",
        "*.bias",
        "--json",
    ],
];

fuzz_target!(|input: &[u8]| {
    let [command, options, rest @ ..] = input else {
        return;
    };
    let (header, data) = match rest.iter().position(|&byte| byte == 0) {
        Some(end) => (&rest[..end], &rest[end + 1..]),
        None => (rest, &[][..]),
    };
    let folder = Folder::new();
    let bytes = match options & 1 {
        1 => rest.to_vec(),
        _ => safetensors(header, data),
    };
    let file = folder.write("in.safetensors", &bytes);
    let threads = if options & 2 == 0 { "1" } else { "2" };
    match command % 16 {
        how @ 0..8 => {
            let args = ["quantize", "--quiet", "--threads", threads];
            let args: Vec<&str> = args
                .into_iter()
                .chain(QUANTIZE[usize::from(how)].iter().copied())
                .collect();
            let args: Vec<&str> = match args.contains(&"--json") {
                true => args.into_iter().filter(|arg| *arg != "--quiet").collect(),
                false => args,
            };
            if writes(&folder, &args, &[&file], "q.safetensors") {
                // What it writes, it reads.
                let q = folder.path("q.safetensors");
                let dequantize = ["dequantize", "--quiet", "--threads", threads];
                let back = writes(&folder, &dequantize, &[&q], "back.safetensors");
                assert!(
                    back && !planted((1..100).contains(&data.len())),
                    "it is not read"
                );
                assert!(succeeds(&["inspect", "--json"], &[&q]));
                succeeds(
                    &["compare", "--json"],
                    &[&file, &folder.path("back.safetensors")],
                );
            }
        }
        8 => {
            let args = ["dequantize", "--quiet", "--threads", threads];
            writes(&folder, &args, &[&file], "back.safetensors");
        }
        9 => {
            let inspected = succeeds(&["inspect"], &[&file]);
            assert_eq!(succeeds(&["inspect", "--json"], &[&file]), inspected);
            // A file equals itself where it can be read at all; its metadata are not compared.
            assert!(!inspected || succeeds(&["compare", "--quiet"], &[&file, &file]));
        }
        10 => {
            let other = folder.write("model.safetensors", &model());
            succeeds(&["compare"], &[&other, &file]);
            succeeds(&["compare", "--json"], &[&file, &other]);
        }
        11 => {
            let other = folder.write("model.safetensors", &model());
            writes(
                &folder,
                &["report", "--quiet"],
                &[&other, &file],
                "report.html",
            );
        }
        12 => {
            writes(
                &folder,
                &["report", "--quiet"],
                &[&file, &file],
                "report.html",
            );
        }
        13 => {
            let args = [
                "sensitivity",
                "--all",
                "--quiet",
                "--bits",
                "2,8",
                "--budget",
                "20%",
            ];
            if writes(&folder, &args, &[&file], "plan.json") {
                let plan = folder.path("plan.json");
                let plan = plan.to_str().unwrap();
                writes(
                    &folder,
                    &["quantize", "--quiet", "--bits-from", plan],
                    &[&file],
                    "q.safetensors",
                );
            }
        }
        14 => {
            let format = [
                "quantize",
                "--format",
                "compressed-tensors",
                "--include",
                "*",
            ];
            if options & 4 == 0 {
                let args = [
                    &format[..],
                    &["--quiet", "--symmetric", "--bits", "4", "--group-size", "4"],
                ];
                writes(&folder, &args.concat(), &[&file], "model-q");
            } else {
                let out = folder.path("model-q");
                let args = [
                    &format[..],
                    &["--dry-run", "--output", out.to_str().unwrap()],
                ]
                .concat();
                succeeds(&args, &[&file]);
                assert_eq!(folder.names(), ["in.safetensors"]);
            }
        }
        _ => {
            succeeds(&["sensitivity", "--all", "--per-channel", "0"], &[&file]);
        }
    }
});
