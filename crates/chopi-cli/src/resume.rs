//! Layers that a method has finished, in a folder, so that a run that was stopped goes on.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use chopi::formats::chopi::Chopi;
use chopi::formats::{self, Tensor};
use chopi::models::{Inputs, LayerReport, Linear, Model};
use chopi::ptq::LayerError;
use serde_json::{Map, Value, json};

use crate::architecture::WEIGHT;
use crate::args::{QuantizeArgs, Settings};
use crate::error::{Error, Result};
use crate::files::Files;
use crate::json;
use crate::warn;
use crate::write::{Target, is_temporary};

/// What says of which run the layers are.
const RUN: &str = "run.json";

/// A folder with `run.json` and two files for each layer NAME: `NAME.safetensors`, with its codes, and then
/// `NAME.json`, with the error of its outputs.
#[derive(Debug)]
pub struct Finished {
    folder: PathBuf,
}

impl Finished {
    /// The folder of the command line, if there is one.
    ///
    /// # Errors
    /// A folder of a run on another model or text, or with other options; what the system says.
    pub fn open<'a>(
        args: &QuantizeArgs,
        text: &str,
        settings_of: &dyn Fn(&str) -> Option<&'a Settings>,
    ) -> Result<Option<Self>> {
        let Some(folder) = &args.method.resume else {
            return Ok(None);
        };
        let run = run(args, text, settings_of)?;
        let failed = |source| formats::Error::Write {
            path: folder.clone(),
            source,
        };
        fs::create_dir_all(folder).map_err(failed)?;
        let path = folder.join(RUN);
        if !path.exists() {
            let mut entries = fs::read_dir(folder).map_err(failed)?;
            // What a run leaves that is killed while it writes run.json.
            let is_left = |entry: fs::DirEntry| is_temporary(&entry.file_name().to_string_lossy());
            if !entries.all(|entry| entry.is_ok_and(is_left)) {
                return Err(other_run(folder, "it is not empty, and has no run.json"));
            }
            write(&path, &run.into())?;
        } else {
            let found = json::object(&path)?;
            let differs = |(key, value): &(&String, &Value)| found.get(*key) != Some(value);
            if let Some((key, value)) = run.iter().find(differs) {
                let found = found.get(key).unwrap_or(&Value::Null);
                let reason = format!("{key} is {found}, expected {value}");
                return Err(other_run(folder, reason));
            }
        }
        let folder = folder.clone();
        Ok(Some(Self { folder }))
    }

    /// Gives a model the codes of the layers that are there, and the errors of their outputs, by the names of weights.
    ///
    /// # Errors
    /// What cannot be read.
    pub fn take(&self, model: &mut Model) -> Result<BTreeMap<String, LayerError>> {
        let (mut codes, mut errors) = (BTreeMap::new(), BTreeMap::new());
        for name in model.linears().map(Linear::name) {
            let path = self.error_path(name);
            if !path.exists() {
                continue;
            }
            let found = json::object(&path)?;
            let error: LayerError =
                serde_json::from_value(found.into()).map_err(|error| other_run(&path, error))?;
            let weight = format!("{name}{WEIGHT}");
            let path = self.codes_path(name);
            match formats::open(&path)?.read(&weight)? {
                Tensor::Quantized(found) => codes.insert(name.to_owned(), found),
                _ => return Err(other_run(&path, format!("{weight:?} is not quantized"))),
            };
            errors.insert(weight, error);
        }
        let taken = model.for_each_linear(|linear| match codes.get(linear.name()) {
            None => Ok(()),
            Some(codes) => linear.set_codes(&**codes, codes.params(), Inputs::Float),
        });
        taken.map_err(|error| Error::model(&self.folder, error))?;
        Ok(errors)
    }

    /// Keeps a layer. Where it cannot be kept, that is said, and the run goes on.
    pub fn keep(&self, layer: &LayerReport) {
        if let Err(error) = self.try_keep(layer) {
            warn(
                &self.folder,
                &format!("{} is not kept: {error}", layer.name),
            );
        }
    }

    fn try_keep(&self, layer: &LayerReport) -> Result<()> {
        let (weight, path) = (
            format!("{}{WEIGHT}", layer.name),
            self.codes_path(&layer.name),
        );
        // One that a run was stopped over.
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(formats::Error::Write {
                    path,
                    source: error,
                }
                .into());
            }
            _ => formats::save(&path, &Chopi, [(&*weight, &*layer.weight)])?,
        }
        write(&self.error_path(&layer.name), &json!(layer.error))
    }

    fn codes_path(&self, layer: &str) -> PathBuf {
        self.folder.join(format!("{layer}.safetensors"))
    }

    fn error_path(&self, layer: &str) -> PathBuf {
        self.folder.join(format!("{layer}.json"))
    }
}

/// What two runs must have in common for one to go on with the layers of the other.
fn run<'a>(
    args: &QuantizeArgs,
    text: &str,
    settings_of: &dyn Fn(&str) -> Option<&'a Settings>,
) -> Result<Map<String, Value>> {
    let model = Files::open(&args.files.input)?;
    let mut files = Map::new();
    let mut weights = Map::new();
    for archive in model.archives()? {
        let modified = fs::metadata(&archive.path).and_then(|metadata| metadata.modified());
        let modified = modified.ok().and_then(|time| {
            let since = time.duration_since(std::time::UNIX_EPOCH).ok()?;
            Some(since.as_nanos().to_string())
        });
        let path = archive.path.canonicalize().unwrap_or(archive.path);
        let file = json!({"bytes": archive.len, "modified": modified});
        files.insert(path.display().to_string(), file);
        for name in archive.tensors.into_keys() {
            if let Some(settings) = settings_of(&name) {
                let of = json!([settings.scheme, settings.convention.name()]);
                weights.insert(name, of);
            }
        }
    }
    let run = json!({
        "version": env!("CARGO_PKG_VERSION"),
        "model": files,
        "method": args.method.method,
        "windows": args.method.calibration_windows,
        "text_bytes": text.len(),
        "text_hash": format!("{:016x}", hash(text.as_bytes())),
        "schemes": hash(json!(weights).to_string().as_bytes()).to_string(),
    });
    Ok(run.as_object().cloned().unwrap_or_default())
}

/// FNV-1a, which is the same in every build.
fn hash(bytes: &[u8]) -> u64 {
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

fn write(path: &Path, json: &Value) -> Result<()> {
    Ok(Target::new(path, &[], true)?.write(format!("{json:#}\n").as_bytes())?)
}

fn other_run(path: &Path, reason: impl ToString) -> Error {
    Error::OtherRun {
        path: path.to_owned(),
        reason: reason.to_string(),
    }
}
