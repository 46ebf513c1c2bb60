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

use std::path::Path;

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
