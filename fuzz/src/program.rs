//! The program in this process, on files made of an input.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};

use chopi_cli::CommandLine;
use serde_json::Value;

/// The most bytes of data that are made up for the tensors of a header.
const MOST_DATA: usize = 1 << 16;

/// A folder for the files of one input, in memory where the system has such folders.
///
/// Its path is that of the last one, which is gone, so that the command lines of all inputs are a few, and are read once:
/// reading one takes longer than most commands.
pub struct Folder(PathBuf);

/// How many folders there are.
static FOLDERS: AtomicUsize = AtomicUsize::new(0);

impl Folder {
    #[expect(clippy::new_without_default, reason = "a folder is no plain value")]
    pub fn new() -> Self {
        let shared = Path::new("/dev/shm");
        let parent = match shared.is_dir() {
            true => shared.to_owned(),
            false => std::env::temp_dir(),
        };
        let number = FOLDERS.fetch_add(1, Ordering::Relaxed);
        let path = parent.join(format!("chopi-fuzz-{}-{number}", std::process::id()));
        // That of another process that had this number, and was killed.
        if path.exists() {
            fs::remove_dir_all(&path).expect("a folder for temporary files");
        }
        fs::create_dir(&path).expect("a folder for temporary files");
        Self(path)
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, bytes).unwrap();
        path
    }

    /// Everything that lies in the folder itself, sorted.
    pub fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(&self.0).unwrap();
        let mut names: Vec<String> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        FOLDERS.fetch_sub(1, Ordering::Relaxed);
        // The next one removes what is left.
        let _ = fs::remove_dir_all(&self.0);
    }
}

thread_local! {
    /// The command lines that were read.
    static LINES: RefCell<HashMap<Vec<OsString>, Rc<CommandLine>>> = RefCell::default();
}

/// Runs the program, and says whether it succeeded. Its status must be 0 or 1: the command lines of the
/// targets are right.
pub fn succeeds(args: &[&str], paths: &[&Path]) -> bool {
    let words = ["chopi"].iter().chain(args).map(|word| word.into());
    let paths = paths.iter().map(|path| path.as_os_str().to_owned());
    let words: Vec<OsString> = words.chain(paths).collect();
    let line = LINES.with_borrow_mut(|lines| {
        let line = lines.entry(words).or_insert_with_key(|words| {
            let line = CommandLine::new(words);
            Rc::new(line.unwrap_or_else(|_| panic!("{words:?} is no command line")))
        });
        Rc::clone(line)
    });
    let status = line.run();
    assert!(
        status == ExitCode::SUCCESS || status == ExitCode::FAILURE,
        "{args:?}: {status:?}"
    );
    status == ExitCode::SUCCESS
}

/// Runs a command that writes the file or folder `output` where it succeeds, and nothing where it does not.
pub fn writes(folder: &Folder, args: &[&str], inputs: &[&Path], output: &str) -> bool {
    let before = folder.names();
    let out = folder.path(output);
    let out = out.to_str().expect("temporary folders have plain names");
    let done = succeeds(&[args, &["--output", out]].concat(), inputs);
    let mut expected = before;
    if done {
        expected.push(output.to_owned());
        expected.sort();
    }
    assert_eq!(folder.names(), expected, "{args:?}");
    done
}

/// A safetensors file with this header, and with data: those given, and where they end a pattern, as many
/// bytes as the header says there are.
pub fn safetensors(header: &[u8], data: &[u8]) -> Vec<u8> {
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header);
    bytes.extend_from_slice(data);
    let pattern = (0..).map(|i: usize| (i * 37 % 251) as u8);
    let made_up = data_len(header).saturating_sub(data.len());
    bytes.extend(pattern.take(made_up));
    bytes
}

/// Where the data end, by a header, or the most that are made up.
pub fn data_len(header: &[u8]) -> usize {
    let end = || {
        let header: Value = serde_json::from_slice(header).ok()?;
        let ends = header
            .as_object()?
            .values()
            .filter_map(|tensor| tensor["data_offsets"][1].as_u64());
        usize::try_from(ends.max()?).ok()
    };
    end().unwrap_or(0).min(MOST_DATA)
}

/// The header and the data of a safetensors file.
pub fn parts(file: &[u8]) -> (&[u8], &[u8]) {
    let (len, rest) = file.split_first_chunk().expect("a length");
    rest.split_at(u64::from_le_bytes(*len) as usize)
}

/// A float model of three tensors, for commands that take a second file.
pub fn model() -> Vec<u8> {
    let header = br#"{"__metadata__":{"format":"pt"},"a.weight":{"dtype":"F32","shape":[4,8],"data_offsets":[0,128]},"b.weight":{"dtype":"F16","shape":[2,8],"data_offsets":[128,160]},"c.bias":{"dtype":"F64","shape":[3],"data_offsets":[160,184]}}"#;
    let mut data = Vec::new();
    for i in 0..32 {
        data.extend((((i * 7 % 13) as f32 - 6.0) / 8.0).to_le_bytes());
    }
    for i in 0..16_i32 {
        data.extend(chopi::backend::f16::from_f32((i % 5 - 2) as f32).to_le_bytes());
    }
    for i in 0..3 {
        data.extend(f64::from(i).to_le_bytes());
    }
    safetensors(header, &data)
}
