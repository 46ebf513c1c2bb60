//! The format of compressed-tensors 0.20: a folder that Hugging Face transformers opens.
//!
//! The weight `NAME.weight` of a linear layer, of shape [out, in], becomes
//!
//! | | `int-quantized` | `pack-quantized` |
//! |---|---|---|
//! | codes | `NAME.weight` I8 [out, in] | `NAME.weight_packed` I32 [out, ⌈in·bits/32⌉] and `NAME.weight_shape` I64 [2] |
//! | scales | `NAME.weight_scale` [1], [out, 1] or [out, groups], of the weight's dtype | likewise |
//! | zero points, asymmetric | `NAME.weight_zero_point` I8, like the scales | I32 [⌈out·bits/32⌉, 1 or groups], packed along the first axis; per tensor I8 [1] |
//!
//! Codes of 8 bits lie in `int-quantized`, those of fewer bits in `pack-quantized`; but weights that the model
//! stacks on loading are always packed, and those whose name is asked for on loading never ([`linear`]).
//!
//! `quantization_config` in `config.json` says how, in groups of modules that are quantized alike, which are
//! named by patterns that match in the base model and in a model with a head ([`targets`]). Groups of both
//! formats make the model's `mixed-precision`. What becomes of each tensor is decided from the headers of all
//! files ([`plan`]); then the files are written.

mod linear;
mod plan;
mod quantized;
mod refusal;
mod targets;

pub use linear::{Loaded, Weights};
pub use quantized::check as check_floats;
pub use quantized::check_of as check_floats_of;

use std::collections::BTreeMap;
use std::time::Instant;

use indicatif::ProgressBar;
use serde_json::{Map, Value, json};

use crate::archive::Archive;
use crate::args::QuantizeArgs;
use crate::choice::Choice;
use crate::error::Result;
use crate::files::{Files, QUANTIZATION};
use crate::framework::{Framework, with_framework};
use crate::header::Header;
use crate::interrupt;
use crate::others;
use crate::print::print_json;
use crate::quantize::chooser::Chooser;
use crate::quantize::made::Made;
use crate::quantize::make;
use crate::quantize::row::QuantizeRow;
use crate::quantize::task::{self, How, Shared, Task};
use crate::report::Report;
use crate::workers;
use crate::write::OutputFolder;
use chopi::backend::FloatType;
use chopi::formats::compressed_tensors::{CompressedTensors, quantization};
use chopi::formats::{Format, Parts};
use plan::{Decision, FolderPlan};

/// Quantizes a model's folder, or a file, into a folder.
///
/// # Errors
/// What is wrong with the input or the output.
pub fn quantize(args: &QuantizeArgs, choice: &Choice) -> Result<()> {
    let start = Instant::now();
    let model = Files::open(&args.files.input)?;
    let mut config = model.config()?;
    let archives = model.archives()?;
    let plan = FolderPlan::new(&model, &config, &archives, choice)?;
    let (groups, ignore) = plan.groups();
    let quantization = quantization(&groups, &ignore);
    if args.dry_run {
        return print_json(&outline(&plan, &quantization));
    }
    let mut inputs = model.inputs();
    inputs.extend(args.inputs());
    let create = || OutputFolder::create(&args.files.output, &inputs, args.files.force);
    // What cannot be created is said before a method works for hours.
    interrupt::watch();
    drop(create()?);
    let made = Made {
        chooser: Chooser::new(args, &archives, &config)?,
        ..make(args, &|name| plan.settings_of(name))?
    };
    let folder = create()?;
    let progress = workers::progress(model.bytes()?, args.print.quiet);
    let mut rows = Vec::new();
    let mut index = Index::default();
    for (shard, archive) in model.shards.iter().zip(&archives) {
        let shard = match archive.is_gguf {
            true => "model.safetensors",
            false => shard,
        };
        let written = with_framework!(args.work.backend, K => {
            write_shard::<K>(archive, args, &plan, &made, &folder, shard, &progress)?
        });
        index.add(shard, &written.names, written.bytes);
        rows.extend(written.rows);
    }
    progress.finish_and_clear();
    let left_out = others::copy(&model, folder.path(), folder.target())?;
    if let Some(name) = &model.index {
        folder.write_json(name, &index.json())?;
    }
    config.insert(QUANTIZATION.to_owned(), quantization);
    folder.write_json("config.json", &config.into())?;
    folder.persist()?;
    Report::new(rows, start)
        .left_out(left_out, &args.print)
        .held_out(made.held_out)
        .print(&args.print, args.verbose)
}

/// What would be done: the bits and the format of each tensor that would be quantized, the reason of the
/// others, and what `config.json` would say.
fn outline(plan: &FolderPlan<'_>, quantization: &Value) -> Value {
    let tensors: Map<String, Value> = plan
        .tensors()
        .map(|(name, decision)| {
            let said = match decision {
                Decision::Quantize(how) => {
                    json!({"bits": how.settings.scheme.bits, "format": how.format.name()})
                }
                Decision::Keep(reason) => json!({"reason": reason.to_string()}),
            };
            (name.to_owned(), said)
        })
        .collect();
    json!({"tensors": tensors, QUANTIZATION: quantization})
}

/// What a shard's file holds.
struct Written {
    names: Vec<String>,
    bytes: usize,
    rows: Vec<QuantizeRow>,
}

fn write_shard<K: Framework>(
    archive: &Archive,
    args: &QuantizeArgs,
    plan: &FolderPlan<'_>,
    made: &Made,
    folder: &OutputFolder,
    shard: &str,
    progress: &ProgressBar,
) -> Result<Written> {
    let mut metadata = archive.metadata.clone();
    // transformers asks for it.
    metadata
        .entry("format".to_owned())
        .or_insert("pt".to_owned());
    let mut header = Header::new(metadata);
    let mut tasks = Vec::with_capacity(archive.tensors.len());
    for tensor in archive.tensors.values() {
        let fault = |fault| archive.fault(&tensor.name, fault);
        tasks.push(match plan.of(tensor) {
            Decision::Keep(reason) => {
                let kept = match made.get(&tensor.name) {
                    Some(made) => How::Made(made, None),
                    None => How::Copy(Some(reason.to_string())),
                };
                let planned = task::plan::<K>(tensor, &kept).map_err(fault)?;
                let parts = CompressedTensors.plan(&planned, &mut header);
                Task::new(&archive.path, tensor, kept, parts.map_err(fault)?)
            }
            Decision::Quantize(how) => {
                let (codes, float) = match made.get(&tensor.name) {
                    Some(made) => (How::Made(made, Some(how.settings)), FloatType::F32),
                    None => (How::Codes(how.float, how.settings), how.float),
                };
                let planned = task::plan::<K>(tensor, &codes).map_err(fault)?;
                let scheme = &how.settings.scheme;
                let parts = how.format.plan(&planned, scheme, float, &mut header);
                let parts = Parts::Codes(parts.map_err(fault)?);
                Task::new(&archive.path, tensor, codes, parts)
            }
        });
    }
    let output = folder.file(shard).create(&header)?;
    let rows = workers::run(&tasks, Task::size, args.work.threads, |task| {
        task.run::<K>(Shared {
            made,
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
