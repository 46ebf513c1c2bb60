//! Files, names and folders that were made to do harm, or that nobody thought of.

use std::fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::model::{Folder, Model, chopi, convert, convert_well, failure, names, noise, row};

const FORMAT: [&str; 3] = ["--format", "compressed-tensors", "--symmetric"];

fn weights() -> Model {
    Model::new().array("layers.0.weight", &noise::<f32>(&[16, 32]))
}

fn folder_of(folder: &Folder, config: &str) -> PathBuf {
    let path = folder.path("model");
    fs::create_dir(&path).unwrap();
    fs::write(path.join("model.safetensors"), weights().bytes()).unwrap();
    fs::write(path.join("config.json"), config).unwrap();
    path
}

/// What a command gives, which may not wait for anything.
fn soon(command: &mut Command) -> Output {
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.stdin(Stdio::null()).spawn().unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > Duration::from_secs(60) {
            child.kill().unwrap();
            panic!("{command:?} hangs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().unwrap()
}

fn make_pipe(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

/// What a folder's conversion says on standard error; it must succeed.
fn warnings(input: &Path, output: &Path) -> String {
    let mut command = chopi(["quantize"]);
    command.args(FORMAT).arg(input).arg("-o").arg(output);
    let done = soon(&mut command);
    let stderr = String::from_utf8(done.stderr).unwrap();
    assert!(done.status.success(), "{stderr}");
    stderr
}

#[test]
fn what_cannot_be_read_is_named_and_left_out() {
    let folder = Folder::new();
    let model = folder_of(&folder, "{}");
    symlink("nowhere", model.join("broken.json")).unwrap();
    symlink("itself", model.join("itself")).unwrap();
    make_pipe(&model.join("pipe.txt"));
    let _socket = UnixListener::bind(model.join("socket")).unwrap();
    fs::write(folder.path("elsewhere.txt"), "linked").unwrap();
    symlink("../elsewhere.txt", model.join("vocab.txt")).unwrap();
    let out = folder.path("out");
    let stderr = warnings(&model, &out);
    for line in [
        "broken.json: not copied: a link that leads nowhere",
        "itself: not copied: a link that leads nowhere",
        "pipe.txt: not copied: neither a file nor a folder",
        "socket: not copied: neither a file nor a folder",
    ] {
        assert!(stderr.contains(line), "{stderr}");
    }
    assert_eq!(
        names(&out),
        ["config.json", "model.safetensors", "vocab.txt"]
    );
    assert!(!out.join("vocab.txt").is_symlink());
    assert_eq!(fs::read(out.join("vocab.txt")).unwrap(), b"linked");
}

#[test]
fn links_to_folders_are_followed_once_and_never_in_circles() {
    let folder = Folder::new();
    let model = folder_of(&folder, "{}");
    fs::create_dir(model.join("a")).unwrap();
    fs::write(model.join("a/file"), "").unwrap();
    symlink(".", model.join("self")).unwrap();
    symlink("..", model.join("a/up")).unwrap();
    symlink("/", model.join("root")).unwrap();
    fs::create_dir(folder.path("shared")).unwrap();
    fs::write(folder.path("shared/file"), "").unwrap();
    symlink("../shared", folder.path("shared/again")).unwrap();
    symlink("../shared", model.join("first")).unwrap();
    symlink("../shared", model.join("second")).unwrap();
    let out = folder.path("out");
    let stderr = warnings(&model, &out);
    assert_eq!(stderr.matches("not copied").count(), 5, "{stderr}");
    assert_eq!(
        names(&out),
        ["a", "config.json", "first", "model.safetensors"]
    );
    assert_eq!(
        (names(&out.join("a")), names(&out.join("first"))),
        (vec!["file".into()], vec!["file".into()])
    );
}

#[test]
fn an_output_in_the_input_is_not_copied_into_the_next_one() {
    let folder = Folder::new();
    let model = folder_of(&folder, "{}");
    let (first, second) = (model.join("first"), model.join("second"));
    assert_eq!(warnings(&model, &first), "");
    let stderr = warnings(&model, &second);
    assert!(stderr.contains("first: not copied: the folder of a quantized model"));
    assert_eq!(names(&second), ["config.json", "model.safetensors"]);
    // Nor is it copied into itself.
    let mut command = chopi(["quantize", "--force"]);
    command.args(FORMAT).arg(&model).arg("-o").arg(&first);
    assert!(soon(&mut command).status.success());
    assert_eq!(names(&first), ["config.json", "model.safetensors"]);
}

#[test]
fn numbers_of_a_configuration_stay_as_they_are() {
    let folder = Folder::new();
    let numbers = "[18446744073709551616, -170141183460469231731687303715884105728, 1e-05, 1E400, \
                   0.30000000000000000001, -0, NaN]";
    let model = folder_of(&folder, &format!("{{\"numbers\": {numbers}}}"));
    let out = folder.path("out");
    assert_eq!(warnings(&model, &out), "");
    let config = fs::read_to_string(out.join("config.json")).unwrap();
    let compact: String = config.split_whitespace().collect();
    let expected: String = numbers.split_whitespace().collect();
    assert!(
        compact.contains(&format!("\"numbers\":{expected}")),
        "{config}"
    );
}

#[test]
fn pipes_and_devices_do_not_make_it_wait() {
    let folder = Folder::new();
    let (pipe, out) = (folder.path("pipe"), folder.path("out"));
    make_pipe(&pipe);
    let input = folder.file("in", &weights().bytes());
    let model = folder_of(&folder, "{}");
    let path = |path: &Path| path.to_str().unwrap().to_owned();
    let (pipe, out, input) = (path(&pipe), path(&out), path(&input));
    for special in [&*pipe, "/dev/zero"] {
        for args in [
            &["quantize", special, "-o", &out][..],
            &["dequantize", special, "-o", &out],
            &["inspect", special],
            &["compare", special, &input],
            &["compare", &input, special],
            &["sensitivity", special],
            &["report", special, &input, "-o", &out],
            &["report", &input, special, "-o", &out],
            &["quantize", &input, "-o", special],
            &["quantize", &input, "-o", special, "--force"],
            &["quantize", &input, "-o", &out, "--bits-from", special],
        ] {
            let message = failure(soon(&mut chopi(args)), 1);
            assert!(
                message.contains("not a regular file"),
                "{args:?}: {message}"
            );
        }
    }
    for file in [
        "config.json",
        "model.safetensors",
        "model.safetensors.index.json",
    ] {
        let path = model.join(file);
        let kept = fs::read(&path).ok();
        if file.ends_with("index.json") {
            fs::remove_file(model.join("model.safetensors")).unwrap();
        }
        let _ = fs::remove_file(&path);
        make_pipe(&path);
        let mut command = chopi(["quantize", "-o", &out]);
        failure(soon(command.args(FORMAT).arg(&model)), 1);
        fs::remove_file(&path).unwrap();
        if let Some(bytes) = kept {
            fs::write(&path, bytes).unwrap();
        }
    }
    fs::write(model.join("model.safetensors"), weights().bytes()).unwrap();
    make_pipe(&model.join("modules.json"));
    let stderr = warnings(&model, Path::new(&out));
    assert!(stderr.contains("modules.json: not copied"), "{stderr}");
}

#[test]
fn no_output_takes_the_place_of_what_is_read() {
    let folder = Folder::new();
    let model = folder_of(&folder, "{}");
    let q = folder.path("q");
    assert_eq!(warnings(&model, &q), "");
    let plan = folder.file("plan.json", br#"{"layers.0.weight": 4}"#);
    fs::hard_link(&plan, folder.path("hard")).unwrap();
    symlink("model", folder.path("soft")).unwrap();
    let text = |path: PathBuf| path.to_str().unwrap().to_owned();
    let file = text(model.join("model.safetensors"));
    let plan = text(plan);
    let refused = |args: &[&str]| {
        let message = failure(chopi(args).arg("--force").output().unwrap(), 1);
        assert!(
            message.contains("the output is the input"),
            "{args:?}: {message}"
        );
    };
    let hard = text(folder.path("hard"));
    refused(&["quantize", &file, "-o", &hard, "--bits-from", &plan]);
    let (model_name, q_name) = (text(model.clone()), text(q.clone()));
    for read in ["config.json", "model.safetensors"] {
        let dotted = text(folder.path("soft/../soft/.").join(read));
        refused(&["report", &model_name, &q_name, "-o", &dotted]);
        refused(&["sensitivity", &model_name, "--budget", "50%", "-o", &dotted]);
        refused(&["report", &model_name, &q_name, "-o", &text(q.join(read))]);
    }
    for output in [
        text(folder.path("soft")),
        text(folder.path("./model/../model/")),
    ] {
        refused(&[&["quantize", &model_name, "-o", &output], &FORMAT[..]].concat());
    }
    // A plan, and a shard by way of a link, in the folder that would be replaced.
    let in_q = text(q.join("plan.json"));
    fs::copy(&plan, &in_q).unwrap();
    refused(
        &[
            &["quantize", &model_name, "-o", &q_name, "--bits-from", &in_q],
            &FORMAT[..],
        ]
        .concat(),
    );
    let linked = folder.path("linked");
    fs::create_dir(&linked).unwrap();
    symlink("../q/model.safetensors", linked.join("model.safetensors")).unwrap();
    fs::write(q.join("model.safetensors"), weights().bytes()).unwrap();
    refused(&[&["quantize", &text(linked), "-o", &q_name], &FORMAT[..]].concat());
}

#[test]
fn a_link_to_a_folder_stays_when_the_folder_is_replaced() {
    let folder = Folder::new();
    let model = folder_of(&folder, "{}");
    let q = folder.path("q");
    assert_eq!(warnings(&model, &q), "");
    symlink("q", folder.path("link")).unwrap();
    let args = [&FORMAT[..], &["--force", "--bits", "4"]].concat();
    convert_well("quantize", &model, &folder.path("link"), &args);
    assert!(folder.path("link").is_symlink());
    let config = fs::read_to_string(q.join("config.json")).unwrap();
    assert!(config.contains("pack-quantized"));
    assert_eq!(folder.names(), ["link", "model", "q"]);
}

#[test]
fn an_index_names_only_files_beside_it() {
    let folder = Folder::new();
    let model = folder_of(&folder, "{}");
    let elsewhere = folder.file("elsewhere.safetensors", &weights().bytes());
    fs::remove_file(model.join("model.safetensors")).unwrap();
    fs::create_dir(model.join("sub")).unwrap();
    fs::copy(&elsewhere, model.join("sub/w.safetensors")).unwrap();
    let index = |name: &str| {
        let map = serde_json::json!({"weight_map": {"layers.0.weight": name}});
        let path = model.join("model.safetensors.index.json");
        fs::write(path, map.to_string()).unwrap();
        let done = convert("quantize", &model, &folder.path("out"), &FORMAT);
        let _ = fs::remove_dir_all(folder.path("out"));
        done
    };
    for name in [
        elsewhere.to_str().unwrap(),
        "../elsewhere.safetensors",
        "sub/w.safetensors",
        "sub/../../elsewhere.safetensors",
        "..",
        ".",
        "",
        "/",
    ] {
        let message = failure(index(name), 1);
        assert!(
            message.contains("is not the name of a file beside it"),
            "{message}"
        );
    }
    failure(index("nul\0.safetensors"), 1);
    // Model caches keep their files elsewhere: a link beside it is read, and a file of its own is written.
    symlink("../elsewhere.safetensors", model.join("w.safetensors")).unwrap();
    let before = fs::read(&elsewhere).unwrap();
    assert!(index("w.safetensors").status.success());
    assert_eq!(fs::read(&elsewhere).unwrap(), before);
}

/// Characters that a terminal or a browser may do something with.
const SPECIAL: [char; 18] = [
    '\u{7}', '\u{1b}', '\n', '\u{7f}', '\u{80}', '\u{85}', '\u{9b}', '\u{9f}', '\u{61c}',
    '\u{200e}', '\u{200f}', '\u{202a}', '\u{202e}', '\u{2028}', '\u{2029}', '\u{2066}', '\u{2069}',
    '\r',
];

#[test]
fn special_characters_of_names_are_never_printed() {
    let folder = Folder::new();
    let name: String = SPECIAL.iter().flat_map(|&c| [c, 'x']).collect();
    let weight = format!("{name}.weight");
    let model = Model::new()
        .metadata(&name, &name)
        .array(&weight, &noise::<f32>(&[16, 32]));
    let input = folder.file(&format!("in{name}"), &model.bytes());
    let bad = Model::new().floats(&weight, &[1, 2], &[1.0, f32::NAN]);
    let bad = folder.file(&format!("bad{name}"), &bad.bytes());
    let (q, page) = (folder.path(&format!("q{name}")), folder.path("page.html"));
    let model = folder.path("model");
    fs::create_dir(&model).unwrap();
    fs::copy(&input, model.join("model.safetensors")).unwrap();
    fs::write(model.join(format!("{name}.bin")), "").unwrap();
    symlink("nowhere", model.join(format!("{name}.json"))).unwrap();

    let said = |command: &mut Command| {
        let done = command.output().unwrap();
        let out = String::from_utf8([done.stdout.clone(), done.stderr].concat()).unwrap();
        for c in SPECIAL.into_iter().filter(|&c| c != '\n') {
            assert!(!out.contains(c), "{command:?} prints {c:?}");
        }
        // An end of a line in a name begins no line.
        assert!(!out.contains("\nx"), "{command:?}");
        String::from_utf8(done.stdout).unwrap()
    };
    let json = |command: &mut Command| -> Value {
        let report = serde_json::from_str(&said(command.arg("--json"))).unwrap();
        row(&report, &weight);
        report
    };
    said(chopi(["quantize", "-o"]).args([&q, &input]));
    json(chopi(["quantize", "--force", "-o"]).args([&q, &input]));
    said(chopi(["inspect"]).arg(&q));
    let inspected = json(chopi(["inspect"]).arg(&input));
    assert_eq!(inspected["metadata"][&name], *name);
    said(chopi(["compare"]).args([&input, &q]));
    json(chopi(["compare"]).args([&input, &q]));
    said(chopi(["sensitivity"]).arg(&input));
    json(chopi(["sensitivity"]).arg(&input));
    said(chopi(["report", "-o"]).args([&page, &input, &q]));
    said(chopi(["quantize", "-o"]).args([&folder.path("no"), &bad]));
    let args = [&FORMAT[..], &["--include", "*"]].concat();
    let out = folder.path("out");
    let table = said(
        chopi(["quantize"])
            .args(&args)
            .arg("-o")
            .args([&out, &model]),
    );
    assert!(table.contains("other weights, not copied"), "{table}");
    said(
        chopi(["quantize", "--dry-run"])
            .args(&args)
            .arg("-o")
            .args([&folder.path("no"), &model]),
    );
    said(
        chopi(["quantize", "--json"])
            .args(&args)
            .arg("-o")
            .args([&folder.path("again"), &model]),
    );

    let page = fs::read_to_string(page).unwrap();
    for c in SPECIAL.into_iter().filter(|&c| c != '\n') {
        assert!(!page.contains(c), "the page holds {c:?}");
    }
}

/// A shell puts names of files where a pattern stands.
#[test]
fn special_characters_of_arguments_are_never_printed() {
    let special: String = SPECIAL.into_iter().filter(|&c| c != '\n').collect();
    let name = format!("a{special}");
    let message = failure(chopi(["inspect", "in", &name]).output().unwrap(), 2);
    assert!(message.contains("unexpected argument 'a"), "{message}");
    assert!(
        !message.contains(|c: char| special.contains(c)),
        "{message}"
    );
}

#[cfg(feature = "models")]
#[test]
fn special_characters_of_texts_are_never_printed_with_their_embeddings() {
    let folder = Folder::new();
    let special: String = SPECIAL.into_iter().filter(|&c| c != '\n').collect();
    let name = format!("a{special}b");
    let text = folder.file("texts.txt", name.as_bytes());
    let done = chopi(["embed"])
        .arg(crate::model::small("bert"))
        .arg(text)
        .output()
        .unwrap();
    let line = String::from_utf8(done.stdout).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["text"], *name);
    assert!(!line.contains(|c: char| special.contains(c)), "{line}");
}
