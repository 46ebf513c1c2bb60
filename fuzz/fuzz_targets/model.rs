//! A model's folder, well made or not, given to the commands that run models.
//!
//! The input is the number of a command and three texts, with a zero byte after each: config.json, tokenizer.json
//! and the header of model.safetensors, whose data follow.

#![no_main]

use chopi_fuzz::planted;
use chopi_fuzz::program::{Folder, data_len, safetensors, succeeds, writes};
use libfuzzer_sys::fuzz_target;

const PLAIN: &str = "temporary folders have plain names";

fuzz_target!(|input: &[u8]| {
    let [command, rest @ ..] = input else { return };
    let mut parts = rest.splitn(4, |&byte| byte == 0);
    let mut part = || parts.next().unwrap_or(&[]);
    let (config, tokenizer, header, data) = (part(), part(), part(), part());
    let folder = Folder::new();
    folder.write("model/config.json", config);
    folder.write("model/tokenizer.json", tokenizer);
    folder.write(
        "model/model.safetensors",
        &safetensors(header, &floats(header, data)),
    );
    let model = folder.path("model");
    let file = folder.write("text.txt", b"w3 w4 w5 w6 w7\nw8 w9 w30 w1 w2\n");
    let bits: &[&str] = match command / 4 % 4 {
        0 | 1 => &["--threads", "1"],
        2 => &["--threads", "1", "--bits", "8"],
        _ => &["--threads", "1", "--bits", "4"],
    };
    match command % 4 {
        0 => {
            let run = ["run", "--json", "--prompt", "w3 w5", "--max-tokens", "3"];
            let done = succeeds(&[&run, bits].concat(), &[&model]);
            assert!(!(done && planted(header.len() > 100)), "it ran");
        }
        1 => {
            succeeds(&[&["embed"], bits].concat(), &[&model, &file]);
        }
        2 => {
            let text = ["--text", file.to_str().expect(PLAIN)];
            let evaluate = ["evaluate", "--json", "--window", "4"];
            succeeds(&[&evaluate, &text[..], bits].concat(), &[&model]);
        }
        _ => {
            let text = folder.write("calibration.txt", &b"w3 w4 w5 w6 w7 w8 w9 w30\n".repeat(12));
            let text = ["--calibration-text", text.to_str().expect(PLAIN)];
            let quantize = ["quantize", "--quiet", "--method", "gptq", "--format"];
            let how = ["compressed-tensors", "--bits", "4", "--threads", "1"];
            if writes(
                &folder,
                &[&quantize, &how, &text[..]].concat(),
                &[&model],
                "q",
            ) {
                // What it writes, it runs.
                let run = ["run", "--json", "--prompt", "w3", "--max-tokens", "2"];
                let embed = ["embed"];
                let path = folder.path("q");
                assert!(
                    succeeds(&run, &[&path]) || succeeds(&embed, &[&path, &file]),
                    "it does not run"
                );
            }
        }
    }
});

/// These bytes, or where there are none, those of small numbers of `f32`, as many as the header says.
fn floats(header: &[u8], data: &[u8]) -> Vec<u8> {
    match data {
        [] => (0..data_len(header) / 4)
            .flat_map(|i| (((i * 7 % 29) as f32 - 14.0) / 32.0).to_le_bytes())
            .collect(),
        _ => data.to_vec(),
    }
}
