//! The commands that run models.

mod embed;
mod evaluate;
mod memory;
mod run;
mod statistics;

pub use embed::run as embed;
pub use evaluate::run as evaluate;
pub use run::run;
pub use statistics::run as statistics;

use std::path::{Path, PathBuf};

use chopi::models::{self, CacheFormat, Model, Scheme};
use rayon::ThreadPoolBuilder;

use crate::args::ModelArgs;
use crate::error::{Error, Result};
use crate::workers;

impl ModelArgs {
    /// Does `work` with the model of another folder or its own, quantized where that is asked for, with keys
    /// and values kept as asked for, on as many threads as asked for.
    fn with<R: Send>(
        &self,
        folder: &Path,
        bits: Option<u32>,
        cache: Option<CacheFormat>,
        work: impl FnOnce(&Model) -> Result<R> + Send,
    ) -> Result<R> {
        let threads = workers::count(self.threads);
        let pool = ThreadPoolBuilder::new().num_threads(threads).build()?;
        pool.install(|| {
            let model = models::load(folder).map_err(|error| Error::model(folder, error))?;
            let model = match bits {
                None => model,
                Some(bits) => {
                    let quantized = model.quantize(&Scheme::new(bits));
                    quantized.map_err(|error| Error::model(folder, error))?
                }
            };
            let model = match cache {
                None => model,
                Some(format) => {
                    let model = model.with_cache(format);
                    model.map_err(|error| Error::model(folder, error))?
                }
            };
            work(&model)
        })
    }
}

/// The files of a model's folder that it is read from besides its tensors, as far as it has them.
const READ: [&str; 6] = [
    "1_Pooling/config.json",
    "config.json",
    "generation_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "tokenizer.json",
];

/// The files that a model may be read from besides its tensors: in its folder, or beside its one file.
pub fn beside(model: &Path) -> impl Iterator<Item = PathBuf> {
    let folder = match model.is_dir() {
        true => model,
        false => model.parent().unwrap_or(model),
    };
    READ.into_iter().map(move |name| folder.join(name))
}

/// Reads a text.
pub fn read(path: &Path) -> Result<String> {
    let text = std::fs::read(path).map_err(|source| chopi::formats::Error::Read {
        path: path.to_owned(),
        source,
    })?;
    String::from_utf8(text).map_err(|error| Error::Text {
        path: path.to_owned(),
        reason: format!("byte {} is not UTF-8", error.utf8_error().valid_up_to()),
    })
}
