//! Writing a model to a folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use chopi_formats::write::OutputFolder;
use chopi_formats::{Plan, Tensor, TensorPlan};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::model::{Model, Network};
use crate::scheme::Inputs;
use crate::weights::INPUTS;

/// What files of a model's folder are copied, by their extensions: tokenizers and configurations.
const COPIED: [&str; 4] = ["json", "txt", "model", "jinja"];

/// The key of `config.json` that says whether the head has the weights of the embedding.
pub(crate) const TIED: &str = "tie_word_embeddings";

impl Model {
    /// Writes the model to a folder that [`load`](crate::load) reads, which then computes the same bits: the tensors
    /// in chopi's own layout, `config.json`, and the tokenizer and other files of the folder that the model comes
    /// from. Tensors that were not quantized since are read from there, one at a time. The folder appears whole or
    /// not at all.
    ///
    /// # Errors
    /// A folder that exists and is not empty; what cannot be read or written; [`Error::TiedHead`].
    pub fn save(&self, folder: impl AsRef<Path>) -> Result<()> {
        if let Network::Decoder(decoder) = &self.network {
            decoder.check_head()?;
        }
        let output = OutputFolder::create(folder.as_ref(), &[self.folder().to_owned()], false)?;
        self.write_tensors(&output.path().join("model.safetensors"))?;
        self.copy_files(output.path())?;
        output.write_json("config.json", &self.config_with_inputs())?;
        Ok(output.persist()?)
    }

    /// The tensors that are not as in the model's files, by their names: codes, and floats that scales were moved to.
    pub fn changed(&self) -> BTreeMap<String, Arc<Tensor>> {
        let changed = match &self.network {
            Network::Encoder(encoder) => encoder.changed(),
            Network::Decoder(decoder) => decoder.changed(),
        };
        changed
            .into_iter()
            .map(|(name, tensor)| (name, tensor.clone()))
            .collect()
    }

    fn write_tensors(&self, file: &Path) -> Result<()> {
        let made = self.changed();
        // A head that had the weights of the embedding may have its own now.
        let names: BTreeSet<&str> = self
            .weights
            .names()
            .into_iter()
            .chain(made.keys().map(String::as_str))
            .collect();
        let mut plan = Plan::new(&chopi_formats::chopi::Chopi);
        let each = |act: &mut dyn FnMut(&str, &Tensor) -> Result<()>| {
            names.iter().try_for_each(|&name| match made.get(name) {
                Some(tensor) => act(name, tensor),
                None => act(name, &self.weights.tensor(name)?),
            })
        };
        each(&mut |name, tensor| {
            plan.add(TensorPlan::of(name, tensor));
            Ok(())
        })?;
        let writer = plan.create(file, false)?;
        each(&mut |name, tensor| Ok(writer.write(name, tensor)?))?;
        Ok(writer.finish()?)
    }

    /// `config.json` with what becomes of inputs, and without what it said of the quantization of the old files.
    fn config_with_inputs(&self) -> Value {
        let mut config = self.config.written().clone();
        config.remove("quantization_config");
        config.remove(INPUTS);
        let other = self
            .linears()
            .filter(|linear| *linear.inputs() != Inputs::default());
        let inputs: BTreeMap<&str, &Inputs> = other
            .map(|linear| (linear.name(), linear.inputs()))
            .collect();
        if let Network::Decoder(decoder) = &self.network
            && !decoder.is_tied()
            && config.get(TIED).is_some_and(|tied| tied == true)
        {
            config.insert(TIED.to_owned(), false.into());
        }
        if !inputs.is_empty() {
            config.insert(INPUTS.to_owned(), serde_json::json!(inputs));
        }
        Value::Object(config)
    }

    /// Copies the tokenizer and other files, but for `config.json`, and those of modules. Links that lead nowhere,
    /// pipes and devices are none that a model is read from, and are left out.
    fn copy_files(&self, target: &Path) -> Result<()> {
        let source = self.folder();
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| Error::File { path, source }
        };
        for entry in fs::read_dir(source).map_err(failed(source))? {
            let path = entry.map_err(failed(source))?.path();
            let Some(name) = path.file_name() else {
                continue;
            };
            let target = target.join(name);
            if path.is_dir() {
                // A module of sentence-transformers.
                let config = path.join("config.json");
                if config.is_file() {
                    fs::create_dir(&target).map_err(failed(&target))?;
                    let copied = fs::copy(&config, target.join("config.json"));
                    copied.map_err(failed(&config))?;
                }
                continue;
            }
            let kind = path.extension().and_then(|kind| kind.to_str());
            let is_index = name.to_string_lossy().ends_with(".index.json");
            let is_copied = kind.is_some_and(|kind| COPIED.contains(&kind));
            if is_copied && !is_index && name != "config.json" && path.is_file() {
                fs::copy(&path, &target).map_err(failed(&path))?;
            }
        }
        Ok(())
    }
}
