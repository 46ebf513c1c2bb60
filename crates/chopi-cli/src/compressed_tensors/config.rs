//! What `config.json` says of the quantization.

use std::collections::{BTreeMap, BTreeSet};

use chopi::{Calibration, Granularity, Symmetry};
use serde_json::{Map, Value, json};

use super::WEIGHT;
use crate::args::{Parameters, Settings};
use crate::choice::{Choice, Group};

/// The name of the format of codes of this many bits.
fn format(bits: u32) -> &'static str {
    match bits {
        8 => "int-quantized",
        _ => "pack-quantized",
    }
}

/// The model's configuration with `quantization_config`. `modules` are those that are linear layers, or
/// might be, and whether they are quantized.
pub fn config(
    mut config: Map<String, Value>,
    choice: &Choice,
    modules: &BTreeMap<String, bool>,
) -> Value {
    let left = modules.iter().filter(|(_, quantized)| !**quantized);
    let mut ignore: Vec<&str> = left.map(|(module, _)| &**module).collect();
    // A head that shares the embedding's weight has no tensor of its own.
    if !modules.contains_key("lm_head") {
        ignore.push("lm_head");
    }
    let groups = choice.groups();
    let formats = groups
        .iter()
        .map(|group| format(group.settings.scheme.bits));
    let formats: BTreeSet<&str> = formats.collect();
    let format = match formats.first() {
        Some(format) if formats.len() == 1 => format,
        _ => "mixed-precision",
    };
    let numbered = groups.iter().enumerate();
    let groups: Map<String, Value> = numbered
        .map(|(i, group)| (format!("group_{i}"), group_json(group)))
        .collect();
    let quantization = json!({
        "quant_method": "compressed-tensors",
        "version": "0.20.0",
        "format": format,
        "quantization_status": "compressed",
        "global_compression_ratio": null,
        "kv_cache_scheme": null,
        "ignore": ignore,
        "config_groups": groups,
    });
    config.insert("quantization_config".to_owned(), quantization);
    config.into()
}

fn group_json(group: &Group<'_>) -> Value {
    let Settings {
        scheme, parameters, ..
    } = group.settings;
    let targets = match &group.names {
        None => vec!["Linear"],
        Some(names) => names
            .iter()
            .filter_map(|n| n.strip_suffix(WEIGHT))
            .collect(),
    };
    let (strategy, group_size) = match scheme.granularity {
        Granularity::PerTensor => ("tensor", None),
        Granularity::PerChannel { .. } => ("channel", None),
        Granularity::PerGroup { size, .. } => ("group", Some(size)),
    };
    let observer = match parameters {
        Parameters::Calibrated(calibration) => *calibration,
        // The format goes without given parameters.
        Parameters::Given { .. } => Calibration::MinMax,
    };
    json!({
        "targets": targets,
        // Without it transformers takes 8-bit weights for packed ones.
        "format": format(scheme.bits),
        "weights": {
            "num_bits": scheme.bits,
            "type": "int",
            "symmetric": scheme.symmetry == Symmetry::Symmetric,
            "strategy": strategy,
            "group_size": group_size,
            "block_structure": null,
            "dynamic": false,
            "actorder": null,
            "observer": observer.to_string(),
            "observer_kwargs": {},
        },
        "input_activations": null,
        "output_activations": null,
    })
}
