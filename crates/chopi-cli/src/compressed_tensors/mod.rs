//! The format of compressed-tensors 0.20: a folder that Hugging Face transformers opens.
//!
//! The weight `NAME.weight` of a linear layer, of shape [out, in], becomes
//!
//! | | `int-quantized`, 8 bits | `pack-quantized`, fewer bits |
//! |---|---|---|
//! | codes | `NAME.weight` I8 [out, in] | `NAME.weight_packed` I32 [out, ⌈in·bits/32⌉] and `NAME.weight_shape` I64 [2] |
//! | scales | `NAME.weight_scale` [1], [out, 1] or [out, groups], of the weight's dtype | likewise |
//! | zero points, asymmetric | `NAME.weight_zero_point` I8, like the scales | I32 [⌈out·bits/32⌉, 1 or groups], packed along the first axis; per tensor I8 [1] |
//!
//! `quantization_config` in `config.json` says how, in groups of modules that are quantized alike: one for
//! all linear layers, or where a plan has the bits one for each number of bits, with the names of its
//! modules. Groups of both formats make the model's `mixed-precision`.

mod config;
mod folder;
mod schemes;
mod stored;
mod weight;

pub use schemes::CompressedSchemes;
pub use stored::CompressedWeight;

use std::collections::BTreeMap;
use std::time::Instant;

use chopi::model::is_matrix_weight;
use indicatif::ProgressBar;
use serde_json::{Map, Value};

use crate::archive::{Archive, Mapped, Tensor};
use crate::args::QuantizeArgs;
use crate::choice::Choice;
use crate::error::{Error, Result};
use crate::framework::{Framework, with_framework};
use crate::header::Header;
use crate::model::Model;
use crate::output::Target;
use crate::quantize::row::QuantizeRow;
use crate::report::Report;
use crate::workers;
use folder::OutputFolder;
use weight::{Shared, Task};

/// The end of the name of a weight, after that of its module.
const WEIGHT: &str = ".weight";

/// Quantizes a model's folder, or a file, into a folder.
///
/// # Errors
/// What is wrong with the input or the output.
pub fn quantize(args: &QuantizeArgs, choice: &Choice) -> Result<()> {
    let start = Instant::now();
    let model = Model::open(&args.files.input)?;
    let folder = OutputFolder::create(&args.files)?;
    check(&model, choice)?;
    let progress = workers::progress(model.bytes()?, args.print.quiet);
    let mut rows = Vec::new();
    let mut modules = BTreeMap::new();
    let mut index = Index::default();
    for shard in &model.shards {
        let mapped = Mapped::open(&model.folder.join(shard))?;
        let archive = mapped.parse()?;
        modules.extend(modules_of(&archive, choice));
        let written = with_framework!(args.work.backend, K => {
            write_shard::<K>(&archive, args, choice, &folder, shard, &progress)?
        });
        index.add(shard, &written.names, written.bytes);
        rows.extend(written.rows);
    }
    progress.finish_and_clear();
    if choice.is_explicit() && !rows.iter().any(QuantizeRow::is_quantized) {
        return Err(Error::NothingIncluded { path: model.input });
    }
    model.copy_others(folder.path())?;
    if let Some(name) = &model.index {
        folder.write_json(name, &index.json())?;
    }
    let config = config::config(model.config()?, choice, &modules);
    folder.write_json("config.json", &config)?;
    folder.persist()?;
    Report::new(rows, start).print(&args.print)
}

/// Checks all shards for what a plan names, before the first is written.
fn check(model: &Model, choice: &Choice) -> Result<()> {
    let files = model.map()?;
    let archives = files.iter().map(Mapped::parse);
    choice.check(&model.input, &archives.collect::<Result<Vec<_>>>()?)
}

/// The modules of an archive that might be linear layers, and whether they are quantized.
fn modules_of(archive: &Archive<'_>, choice: &Choice) -> BTreeMap<String, bool> {
    let matrices = archive.tensors.values();
    let matrices = matrices.filter(|tensor| is_matrix_weight(&tensor.name, &tensor.shape));
    let module = |tensor: &Tensor<'_>| {
        let module = tensor.name.strip_suffix(WEIGHT)?;
        Some((module.to_owned(), choice.of(tensor).is_some()))
    };
    matrices.filter_map(module).collect()
}

/// What a shard's file holds.
struct Written {
    names: Vec<String>,
    bytes: usize,
    rows: Vec<QuantizeRow>,
}

fn write_shard<K: Framework>(
    archive: &Archive<'_>,
    args: &QuantizeArgs,
    choice: &Choice,
    folder: &OutputFolder,
    shard: &str,
    progress: &ProgressBar,
) -> Result<Written> {
    let mut metadata = archive.metadata.clone();
    if metadata.contains_key(crate::format::KEY) {
        return Err(Error::AlreadyQuantized {
            path: archive.path.to_owned(),
        });
    }
    // transformers asks for it.
    metadata
        .entry("format".to_owned())
        .or_insert("pt".to_owned());
    let mut header = Header::new(metadata);
    let mut tasks = Vec::with_capacity(archive.tensors.len());
    for tensor in archive.tensors.values() {
        tasks.push(match choice.of(tensor) {
            None => Task::copy(tensor, &mut header),
            Some(how) => Task::quantize(archive, tensor, how, &mut header)
                .map_err(|fault| archive.fault(&tensor.name, fault))?,
        });
    }
    let output = Target::new_file(folder.path().join(shard)).create(&header)?;
    let rows = workers::run(&tasks, Task::size, args.work.threads, |task| {
        task.run::<K>(Shared {
            archive,
            output: &output,
            progress,
        })
    })?;
    output.persist()?;
    Ok(Written {
        names: header.names().map(str::to_owned).collect(),
        bytes: header.data_len(),
        rows,
    })
}

/// The index of a model in shards: which file holds which tensor.
#[derive(Default)]
struct Index {
    weight_map: BTreeMap<String, Value>,
    total_size: usize,
}

impl Index {
    fn add(&mut self, shard: &str, names: &[String], bytes: usize) {
        for name in names {
            self.weight_map.insert(name.clone(), shard.into());
        }
        self.total_size += bytes;
    }

    fn json(self) -> Value {
        let mut metadata = Map::new();
        metadata.insert("total_size".to_owned(), self.total_size.into());
        let mut index = Map::new();
        index.insert("metadata".to_owned(), metadata.into());
        let weight_map: Map<String, Value> = self.weight_map.into_iter().collect();
        index.insert("weight_map".to_owned(), weight_map.into());
        index.into()
    }
}
