//! `chopi quantize --method NAME --calibration-text FILE`: runs that a signal stops, and runs that go on where others were
//! stopped.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::model::{Folder, chopi, convert, convert_well, failure, names, small};
use crate::stopped::{send, state, stopped_by};

/// A text for methods.
fn text(folder: &Folder) -> PathBuf {
    let text: String = (0..2000)
        .map(|i: u64| format!("w{} ", i * i * 7 % 31))
        .collect();
    folder.file("text.txt", text.as_bytes())
}

#[test]
fn a_run_that_was_stopped_goes_on_with_the_layers_that_are_done() {
    let folder = Folder::new();
    let text = text(&folder);
    let work = folder.path("work");
    let scheme = ["--bits", "4", "--symmetric", "--group-size", "8", "--json"];
    let seen = [
        "--method",
        "gptq+weighted",
        "--calibration-text",
        text.to_str().unwrap(),
    ];
    let windows = ["--calibration-windows", "8"];
    let resume = ["--resume", work.to_str().unwrap()];
    let run = |name: &str, more: &[&str]| {
        let output = folder.path(name);
        let args = [&scheme[..], &seen, &windows, more].concat();
        let report = convert_well("quantize", &small("llama"), &output, &args);
        let report: Value = serde_json::from_str(&report).unwrap();
        let errors = report["tensors"].as_array().unwrap().iter();
        let errors: Vec<Value> = errors.map(|row| row["output_error"].clone()).collect();
        (
            fs::read(output).unwrap(),
            errors,
            report["held_out"].clone(),
        )
    };
    let whole = run("whole", &[]);
    assert_eq!(run("kept", &resume), whole);
    // As it is after a stop: some layers are done, and of one there are only the codes.
    let mut files = names(&work);
    assert_eq!(files.len(), 1 + 2 * 15);
    files.retain(|name| name.contains("layers.1.mlp"));
    assert_eq!(files.len(), 6);
    for name in &files {
        fs::remove_file(work.join(name)).unwrap();
    }
    fs::write(
        work.join("model.layers.1.mlp.gate_proj.safetensors"),
        b"cut",
    )
    .unwrap();
    assert_eq!(run("resumed", &resume), whole);
    assert_eq!(run("done", &resume), whole);

    let wrong = |more: &[&str], model: &str, status| {
        let args = [&scheme[..], &seen, &resume, more].concat();
        failure(
            convert("quantize", &small(model), &folder.path("out"), &args),
            status,
        )
    };
    let error = wrong(&windows, "qwen3", 1);
    assert!(
        error.contains("does not hold the layers of this run: model is "),
        "{error}"
    );
    let error = wrong(&["--calibration-windows", "9"], "llama", 1);
    assert!(error.contains("windows is 8, expected 9"), "{error}");
    let error = wrong(
        &[&windows[..], &["--exclude", "*.0.*"]].concat(),
        "llama",
        1,
    );
    assert!(error.contains("schemes is "), "{error}");
    let mut awq = seen;
    awq[1] = "awq+gptq";
    let args = [&awq[..], &resume].concat();
    let error = failure(
        convert("quantize", &small("llama"), &folder.path("out"), &args),
        2,
    );
    assert!(
        error.contains("--method awq+gptq changes more than codes"),
        "{error}"
    );
    let other = folder.path("other");
    fs::create_dir(&other).unwrap();
    fs::write(other.join("file"), b"").unwrap();
    let args = [&seen[..], &["--resume", other.to_str().unwrap()]].concat();
    let error = failure(
        convert("quantize", &small("llama"), &folder.path("out"), &args),
        1,
    );
    assert!(
        error.contains("it is not empty, and has no run.json"),
        "{error}"
    );
}

/// The layers that a run has kept in its folder.
fn kept(work: &Path) -> usize {
    let Ok(entries) = fs::read_dir(work) else {
        return 0;
    };
    let names = entries.filter_map(|entry| entry.unwrap().file_name().into_string().ok());
    names
        .filter(|name| name.ends_with(".json") && name != "run.json")
        .count()
}

/// A method's run that a signal stops, before its first layer is done, between layers, and after the last, with a folder
/// to go on from and without one.
#[test]
fn a_method_that_a_signal_stops_writes_nothing_and_goes_on_as_if_it_had_not_been_stopped() {
    let folder = Folder::new();
    let text = text(&folder);
    let method = ["--method", "gptq+weighted", "--calibration-text"];
    let args = [&method[..], &[text.to_str().unwrap(), "--quiet"]].concat();
    let scheme = ["--bits", "4", "--symmetric", "--group-size", "8"];
    let compressed = ["--format", "compressed-tensors"];
    let formats = [&[][..], &compressed];
    let formats = formats.map(|format| [&scheme, &args[..], format].concat());
    let whole = [0, 1].map(|format| {
        let output = folder.path(&format!("whole{format}"));
        convert_well("quantize", &small("llama"), &output, &formats[format]);
        state(&output).unwrap()
    });
    let before = folder.names();
    let (output, work) = (folder.path("out"), folder.path("work"));
    let resume = ["--resume", work.to_str().unwrap()];
    let mut stopped = 0;
    for (run, (signal, number)) in [("-INT", 2), ("-TERM", 15), ("-HUP", 1), ("-KILL", 9)]
        .repeat(2)
        .into_iter()
        .enumerate()
    {
        // A folder of compressed-tensors keeps the head in floats.
        let (args, whole, layers) = (&formats[run / 4], &whole[run / 4], [15, 14][run / 4]);
        for moment in [None, Some(0), Some(1), Some(7), Some(layers)] {
            let mut command = chopi(["quantize"]);
            command.args(args).args(moment.map_or(&[][..], |_| &resume));
            command.arg(small("llama")).arg("-o").arg(&output);
            command.stdout(Stdio::piped()).stderr(Stdio::piped());
            let mut child = command.spawn().unwrap();
            let is_there = || match moment {
                None => true,
                Some(0) => work.join("run.json").exists(),
                Some(count) => kept(&work) >= count,
            };
            while !is_there() && child.try_wait().unwrap().is_none() {}
            send(&child, signal);
            let done = child.wait_with_output().unwrap();
            let what = format!("{signal} after {moment:?}, {args:?}: {done:?}");
            match stopped_by(done.status) {
                None => assert!(done.status.success(), "{what}"),
                Some(by) => {
                    assert_eq!(by, number, "{what}");
                    stopped += 1;
                }
            }
            match stopped_by(done.status).is_some() {
                // Killed, it leaves what the next run removes.
                true if number == 9 => assert_eq!(state(&output), None, "{what}"),
                true => {
                    let mut names = folder.names();
                    names.retain(|name| name != "work");
                    assert_eq!(names, before, "{what}");
                }
                false => assert_eq!(state(&output).as_ref(), Some(whole), "{what}"),
            }
            if moment.is_some() {
                let taken = kept(&work);
                let args = [&args[..], &resume, &["--force"]].concat();
                convert_well("quantize", &small("llama"), &output, &args);
                assert_eq!(state(&output).as_ref(), Some(whole), "{what}");
                assert!(taken >= moment.unwrap_or(0), "{what}");
                assert_eq!(names(&work).len(), 1 + 2 * layers, "{what}");
                fs::remove_dir_all(&work).unwrap();
            }
            match output.is_dir() {
                true => fs::remove_dir_all(&output).unwrap(),
                false => drop(fs::remove_file(&output)),
            }
        }
    }
    // The runs that got to their end before the signal came are the fewer.
    assert!(stopped > 20, "{stopped}");
}

/// The first that it does is read the text, here from a pipe that nobody has written to yet.
#[test]
fn a_method_that_waits_for_its_text_is_stopped_at_once() {
    let folder = Folder::new();
    let text = folder.path("text");
    let made = Command::new("mkfifo").arg(&text).status().unwrap();
    assert!(made.success());
    for format in ["chopi", "compressed-tensors"] {
        let mut command = chopi(["quantize", "--method", "gptq", "--format", format]);
        command.arg("--calibration-text").arg(&text);
        command
            .arg(small("llama"))
            .arg("-o")
            .arg(folder.path("out"));
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        // Opens the pipe as soon as the program does.
        let pipe = fs::File::options().write(true).open(&text).unwrap();
        send(&child, "-TERM");
        let status = child.wait().unwrap();
        drop(pipe);
        assert_eq!(stopped_by(status), Some(15), "{format}: {status}");
        assert_eq!(folder.names(), ["text"]);
    }
}

#[test]
fn what_a_run_leaves_that_is_killed_before_its_first_layer_is_no_other_run() {
    let folder = Folder::new();
    let (text, work) = (text(&folder), folder.path("work"));
    fs::create_dir(&work).unwrap();
    fs::write(work.join(".chopi-aB3dEf.tmp"), b"{").unwrap();
    let method = ["--method", "gptq", "--calibration-text"];
    let resume = [text.to_str().unwrap(), "--resume", work.to_str().unwrap()];
    let args = [&method[..], &resume].concat();
    convert_well("quantize", &small("llama"), &folder.path("out"), &args);
    assert_eq!(names(&work).len(), 1 + 2 * 15);
}

/// What takes hours is not begun where its output cannot be written, or would replace what is read.
#[test]
fn an_output_that_cannot_be_is_an_error_before_the_method_works() {
    let folder = Folder::new();
    let (text, work) = (text(&folder), folder.path("work"));
    let (text_name, work_name) = (text.to_str().unwrap(), work.to_str().unwrap());
    let method = ["--method", "gptq", "--calibration-text", text_name];
    let resume = ["--resume", work_name];
    let there = folder.path("there");
    fs::create_dir(&there).unwrap();
    fs::write(there.join("file"), b"").unwrap();
    for format in ["chopi", "compressed-tensors"] {
        for (output, force, expected) in [
            (folder.path("nowhere/out"), "--quiet", "cannot write"),
            (there.clone(), "--quiet", "there"),
            (there.clone(), "--force", "there"),
            (text.clone(), "--force", "text.txt"),
        ] {
            let args = [&method[..], &resume, &["--format", format, force]].concat();
            let error = failure(convert("quantize", &small("llama"), &output, &args), 1);
            assert!(error.contains(expected), "{error}");
            assert!(!work.exists(), "{format}: {error}");
        }
    }
    let before = fs::read(&text).unwrap();
    let stats = folder.path("statistics");
    let make = ["--text", text_name, "--quiet"];
    convert_well("statistics", &small("llama"), &stats, &make);
    let by_file = ["--method", "gptq", "--statistics"];
    let args = [&by_file[..], &[stats.to_str().unwrap(), "--force"]].concat();
    let read = fs::read(&stats).unwrap();
    let error = failure(convert("quantize", &small("llama"), &stats, &args), 1);
    assert!(error.contains("is the input"), "{error}");
    assert_eq!(
        [before, read],
        [&text, &stats].map(|path| fs::read(path).unwrap())
    );
    let nowhere = folder.path("nowhere/out");
    let error = failure(convert("statistics", &small("llama"), &nowhere, &make), 1);
    assert!(error.contains("cannot write"), "{error}");
}
