//! Runs that are stopped at any moment: by signals, by others that write to the same place, by inputs that change.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use crate::model::{Folder, Model, chopi, convert, convert_well, failure, noise};

/// All files of a folder, or a file, with their bytes; none where there is nothing.
pub fn state(path: &Path) -> Option<BTreeMap<String, Vec<u8>>> {
    if path.is_file() {
        return Some([(String::new(), fs::read(path).unwrap())].into());
    }
    let entries = fs::read_dir(path).ok()?;
    let read = |entry: std::io::Result<fs::DirEntry>| {
        let entry = entry.unwrap();
        let name = entry.file_name().into_string().unwrap();
        (name, fs::read(entry.path()).unwrap())
    };
    Some(entries.map(read).collect())
}

/// A model whose quantizing takes long enough to be stopped.
fn model(folder: &Folder) -> PathBuf {
    let path = folder.path("model");
    fs::create_dir(&path).unwrap();
    let names = ["a", "b", "c", "d"].map(|layer| format!("layers.{layer}.weight"));
    let add = |model: Model, name: &String| model.array(name, &noise::<f32>(&[512, 1024]));
    let weights = names.iter().fold(Model::new(), add).bytes();
    fs::write(path.join("model.safetensors"), weights).unwrap();
    fs::write(path.join("config.json"), "{}").unwrap();
    fs::write(path.join("vocab.txt"), "a\n".repeat(100_000)).unwrap();
    path
}

/// Reads the signals that end a program that has not asked for them yet, and those that it says were noted.
pub fn stopped_by(status: ExitStatus) -> Option<i32> {
    let said = status.code().and_then(|code| code.checked_sub(128));
    status.signal().or(said.filter(|&signal| signal > 0))
}

pub fn send(child: &Child, signal: &str) {
    let id = child.id().to_string();
    let mut kill = Command::new("kill");
    kill.args([signal, &id]).stderr(Stdio::null());
    kill.status().unwrap();
}

/// What becomes of an output in many runs that are stopped at random moments. `CHOPI_KILLS` sets how many.
#[test]
fn a_run_that_is_stopped_leaves_the_old_output_or_the_new_one() {
    let runs = std::env::var("CHOPI_KILLS").map_or(32, |runs| runs.parse().unwrap());
    let folder = Folder::new();
    let input = model(&folder);
    let weights = input.join("model.safetensors");
    let compressed = ["--format", "compressed-tensors", "--symmetric", "--quiet"];
    let kinds = [
        (&weights, &["--quiet"][..], "out.safetensors"),
        (&input, &compressed, "out"),
    ];
    let mut outcomes = kinds.map(|(input, args, name)| {
        let reference = |bits: &str| {
            let output = folder.path(&format!("{bits}.{name}"));
            let args = [args, &["--bits", bits]].concat();
            let start = Instant::now();
            convert_well("quantize", input, &output, &args);
            (output, start.elapsed())
        };
        let ((old, _), (new, took)) = (reference("4"), reference("8"));
        (input, args, name, old, state(&new).unwrap(), took)
    });
    let before = folder.names();

    let mut counts = BTreeMap::new();
    let mut random = 7_u64;
    for run in 0..runs {
        let (input, args, name, old, new, took) = &mut outcomes[run % 2];
        let force = run / 2 % 2 == 1;
        let signal = ["-KILL", "-TERM", "-INT"][run / 4 % 3];
        let output = folder.path(name);
        if force {
            let mut copy = Command::new("cp");
            copy.arg("-R").args([old, &output]).status().unwrap();
        }
        let old = state(&output);
        let mut command = chopi(["quantize", "--bits", "8"]);
        command.args(*args).args(force.then_some("--force"));
        command.arg(&**input).arg("-o").arg(&output);
        let mut child = command.stderr(Stdio::null()).spawn().unwrap();
        random = random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        let share = (random >> 40) as f64 / 2_f64.powi(24);
        // Half of them about when the output, which is whole by then, is put in its place.
        let moment = if random >> 33 & 1 == 0 {
            1.2 * share
        } else {
            let started = Instant::now();
            while !folder
                .names()
                .iter()
                .any(|name| is_whole(&folder.path(name), new))
                && started.elapsed() < 2 * *took
            {}
            0.3 * share
        };
        std::thread::sleep(took.mul_f64(moment));
        send(&child, signal);
        let status = child.wait().unwrap();

        let found = state(&output);
        let what = format!("run {run} of {name}, {signal}, --force {force}: {status}");
        let is_new = found.as_ref() == Some(new);
        assert!(is_new || found == old, "{what}: a mixture");
        let left = folder.names().len() - before.len() - usize::from(found.is_some());
        match stopped_by(status) {
            None => assert!(status.success() && is_new, "{what}: no new output"),
            Some(9) => {}
            Some(signal) => {
                assert!([2, 15].contains(&signal), "{what}");
                assert_eq!(left, 0, "{what}: something is left: {:?}", folder.names());
            }
        }
        let state = if is_new { "new" } else { "old" };
        *counts.entry((*name, signal, state, left > 0)).or_insert(0) += 1;

        // Another run works as if nothing had been, and removes what is left.
        let again = [*args, &["--bits", "8", "--force"]].concat();
        let start = Instant::now();
        convert_well("quantize", input, &output, &again);
        *took = start.elapsed();
        assert!(state_is(&output, new), "{what}: the next run");
        match output.is_dir() {
            true => fs::remove_dir_all(&output).unwrap(),
            false => fs::remove_file(&output).unwrap(),
        }
        assert_eq!(folder.names(), before, "{what}: the next run");
    }
    for ((name, signal, state, left), count) in counts {
        println!("{name} {signal}: {state} output, temporary left {left}: {count}");
    }
}

/// Whether a temporary file or folder has all that the output will have.
fn is_whole(path: &Path, new: &BTreeMap<String, Vec<u8>>) -> bool {
    let is_temporary = path
        .file_name()
        .unwrap()
        .as_encoded_bytes()
        .starts_with(b".chopi-");
    let len = new.get("").map_or(0, Vec::len) as u64;
    let file = fs::metadata(path).is_ok_and(|found| found.is_file() && found.len() == len);
    is_temporary && (file || path.join("config.json").is_file())
}

fn state_is(path: &Path, expected: &BTreeMap<String, Vec<u8>>) -> bool {
    state(path).as_ref() == Some(expected)
}

#[test]
fn runs_with_the_same_output_do_not_disturb_each_other() {
    let folder = Folder::new();
    let input = model(&folder);
    let weights = input.join("model.safetensors");
    let compressed = ["--format", "compressed-tensors", "--symmetric"];
    for (input, args, name) in [
        (&weights, &[][..], "out.safetensors"),
        (&input, &compressed, "out"),
    ] {
        let output = folder.path(name);
        convert_well("quantize", input, &output, args);
        let expected = state(&output).unwrap();
        let run = |_| {
            let mut command = chopi(["quantize", "--force", "--quiet"]);
            command.args(args).arg(input).arg("-o").arg(&output);
            command.stderr(Stdio::piped()).spawn().unwrap()
        };
        let runs: Vec<Child> = (0..6).map(run).collect();
        for run in runs {
            let done = run.wait_with_output().unwrap();
            let stderr = String::from_utf8(done.stderr).unwrap();
            assert!(done.status.success(), "{stderr}");
        }
        assert!(state_is(&output, &expected));
    }
    assert_eq!(folder.names(), ["model", "out", "out.safetensors"]);
}

/// A file of zeros with one tensor of this shape, which begins at an odd offset.
fn zeros(folder: &Folder, name: &str, shape: [usize; 2]) -> PathBuf {
    let len = shape.iter().product::<usize>() as u64 * 4;
    let mut header =
        format!(r#"{{"x.weight":{{"dtype":"F32","shape":{shape:?},"data_offsets":[0,{len}]}}}}"#);
    if header.len() % 2 == 0 {
        header.push(' ');
    }
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    let path = folder.file(name, &bytes);
    let file = fs::File::options().write(true).open(&path).unwrap();
    file.set_len(bytes.len() as u64 + len).unwrap();
    path
}

#[test]
fn a_signal_stops_it_soon_and_nothing_is_left() {
    let folder = Folder::new();
    let input = zeros(&folder, "in", [1 << 16, 1024]);
    for (signal, status) in [("-TERM", 143), ("-INT", 130), ("-HUP", 129)] {
        let mut command = chopi(["quantize", "--bits", "32"]);
        command.arg(&input).arg("-o").arg(folder.path("out"));
        let mut child = command
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        while folder.names().len() < 2 && child.try_wait().unwrap().is_none() {}
        send(&child, signal);
        let done = child.wait_with_output().unwrap();
        let message = failure(done, status);
        assert!(message.contains("stopped by signal"), "{message}");
        assert_eq!(folder.names(), ["in"]);
    }
}

#[test]
fn a_signal_that_it_was_started_to_ignore_stays_ignored() {
    let folder = Folder::new();
    let input = model(&folder).join("model.safetensors");
    let mut command = Command::new("sh");
    command.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]);
    command.args([env!("CARGO_BIN_EXE_chopi"), "quantize", "--quiet"]);
    command.arg(&input).arg("-o").arg(folder.path("out"));
    let mut child = command.spawn().unwrap();
    while child.try_wait().unwrap().is_none() {
        if folder.names().len() > 1 {
            send(&child, "-HUP");
        }
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(folder.names(), ["model", "out"]);
}

#[cfg(target_os = "linux")]
#[test]
fn a_tensor_larger_than_the_memory_is_read_at_any_offset() {
    let folder = Folder::new();
    let input = zeros(&folder, "in", [1 << 16, 1024]);
    let compressed = "--format compressed-tensors --symmetric --threads 1";
    for args in [
        "quantize --threads 1",
        "quantize --threads 1 --group-size 32 --calibration percentile:99.9",
        "quantize --threads 1 --exclude *",
        &format!("quantize {compressed} --include *"),
    ] {
        let args: Vec<&str> = args.split(' ').collect();
        let mut command = Command::new("sh");
        // In KiB: less than the 256 MiB of the tensor.
        command.args(["-c", "ulimit -v 240000; exec \"$0\" \"$@\""]);
        command.arg(env!("CARGO_BIN_EXE_chopi")).args(&args);
        let output = folder.path("out");
        let done = command.arg(&input).arg("-o").arg(&output).output().unwrap();
        let stderr = String::from_utf8(done.stderr).unwrap();
        assert!(done.status.success(), "{args:?}: {stderr}");
        match output.is_dir() {
            true => fs::remove_dir_all(output).unwrap(),
            false => fs::remove_file(output).unwrap(),
        }
    }
}

/// Where a row is longer than the memory, that is an error, and the process is not aborted.
#[cfg(target_os = "linux")]
#[test]
fn a_row_larger_than_the_memory_is_an_error() {
    let folder = Folder::new();
    let input = zeros(&folder, "in", [1 << 16, 1024]);
    for args in [
        &["--per-channel", "1", "--calibration", "percentile:99.9"][..],
        &["--per-channel", "1", "--calibration", "mse"],
    ] {
        let mut command = Command::new("sh");
        command.args(["-c", "ulimit -v 240000; exec \"$0\" \"$@\""]);
        command.args([env!("CARGO_BIN_EXE_chopi"), "quantize", "--threads", "1"]);
        command.args(args).arg(&input);
        let done = command.arg("-o").arg(folder.path("out")).output().unwrap();
        let message = failure(done, 1);
        assert!(message.contains("memory"), "{message}");
        assert_eq!(folder.names(), ["in"]);
    }
}

/// Another program cuts a file short while it is read: an error or, where it was read already, none.
#[test]
fn an_input_that_is_cut_short_is_an_error() {
    let folder = Folder::new();
    let whole = model(&folder).join("model.safetensors");
    let q = folder.path("q");
    convert_well("quantize", &whole, &q, &[]);
    let (cut, out) = (folder.path("cut"), folder.path("out"));
    let (out, whole, q) = (
        out.to_str().unwrap(),
        whole.to_str().unwrap(),
        q.to_str().unwrap(),
    );
    let cut_name = cut.to_str().unwrap();
    let commands: [(&str, &[&str]); 8] = [
        (whole, &["quantize", cut_name, "-o", out]),
        (
            whole,
            &["quantize", cut_name, "-o", out, "--calibration", "mse"],
        ),
        (whole, &["sensitivity", cut_name, "--bits", "4"]),
        (whole, &["compare", cut_name, whole]),
        (whole, &["report", cut_name, q, "-o", out]),
        (q, &["report", whole, cut_name, "-o", out]),
        (q, &["dequantize", cut_name, "-o", out]),
        (q, &["inspect", cut_name]),
    ];
    for (of, args) in commands {
        for moment in [0, 5, 10, 20, 40] {
            fs::copy(of, &cut).unwrap();
            let mut command = chopi(args);
            command.stdout(Stdio::null()).stderr(Stdio::piped());
            let child = command.spawn().unwrap();
            std::thread::sleep(Duration::from_millis(moment));
            let file = fs::File::options().write(true).open(&cut).unwrap();
            file.set_len(3000).unwrap();
            let done = child.wait_with_output().unwrap();
            let stderr = String::from_utf8(done.stderr).unwrap();
            match done.status.code() {
                Some(0) => drop(fs::remove_file(out)),
                Some(1) => assert_eq!(stderr.matches('\n').count(), 1, "{stderr}"),
                _ => panic!("{args:?}: {}: {stderr}", done.status),
            }
            assert!(fs::metadata(out).is_err(), "{args:?}");
        }
    }
    assert_eq!(folder.names(), ["cut", "model", "q"]);
}

#[test]
fn a_folder_that_cannot_be_written_whole_is_not_there() {
    let folder = Folder::new();
    let input = model(&folder);
    let output = folder.path("out");
    let mut command = Command::new("sh");
    // In blocks of 512 bytes; the signal is not ignored, as the program does so itself.
    command.args(["-c", "ulimit -f 64; exec \"$0\" \"$@\""]);
    command.args([env!("CARGO_BIN_EXE_chopi"), "quantize", "--symmetric"]);
    command.args(["--format", "compressed-tensors"]);
    let done = command.arg(&input).arg("-o").arg(&output).output().unwrap();
    let message = failure(done, 1);
    assert!(
        message.contains("cannot write") && !message.contains(".chopi-"),
        "{message}"
    );
    assert_eq!(folder.names(), ["model"]);
    // Where nothing can be created.
    let args = ["--format", "compressed-tensors", "--symmetric"];
    for output in ["/proc/out", "/proc/self/out"] {
        let done = convert("quantize", &input, Path::new(output), &args);
        let message = failure(done, 1);
        assert!(
            message.contains("cannot write") && !message.contains(".chopi-"),
            "{message}"
        );
    }
}

#[test]
fn many_threads_are_as_many_as_help() {
    let folder = Folder::new();
    let add = |model: Model, i| model.floats(&format!("t{i}"), &[1, 2], &[1.0, -2.0]);
    let input = folder.file("in", &(0..600).fold(Model::new(), add).bytes());
    let output = folder.path("out");
    let done = convert("quantize", &input, &output, &["--threads", "100000"]);
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{stderr}");
    assert!(
        stderr.contains("threads work, not 100000: 4 for each core"),
        "{stderr}"
    );
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    let quiet = ["--threads", "100000", "--force", "--quiet"];
    assert!(
        convert("quantize", &input, &output, &quiet)
            .stderr
            .is_empty()
    );
}
