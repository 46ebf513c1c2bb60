//! What `config.json` says of the quantization.

use std::collections::BTreeSet;

use chopi_core::{Calibration, Granularity, Scheme, Symmetry};
use serde_json::{Map, Value, json};

use super::CodeFormat;

/// Modules that are quantized alike.
#[derive(Debug)]
pub struct Group<'a> {
    /// The scheme of their weights.
    pub scheme: &'a Scheme,
    /// How the ranges of the weights were chosen.
    pub observer: Calibration,
    /// How the codes are kept.
    pub format: CodeFormat,
    /// What names the modules: names, or regular expressions after `re:`.
    pub targets: Vec<String>,
}

/// The object `quantization_config`. `ignore` are the patterns of the linear layers that are not quantized.
pub fn quantization(groups: &[Group<'_>], ignore: &[String]) -> Value {
    let formats: BTreeSet<&str> = groups.iter().map(|group| group.format.name()).collect();
    let format = match formats.first() {
        Some(format) if formats.len() == 1 => format,
        _ => "mixed-precision",
    };
    let numbered = groups.iter().enumerate();
    let groups: Map<String, Value> = numbered
        .map(|(i, group)| {
            (
                format!("group_{i:0width$}", width = digits(groups.len())),
                group_json(group),
            )
        })
        .collect();
    json!({
        "quant_method": "compressed-tensors",
        "version": "0.20.0",
        "format": format,
        "quantization_status": "compressed",
        "global_compression_ratio": null,
        "kv_cache_scheme": null,
        "ignore": ignore,
        "config_groups": groups,
    })
}

/// The digits of the numbers below `count`, so that names sort as numbers do.
fn digits(count: usize) -> usize {
    count.saturating_sub(1).to_string().len()
}

fn group_json(group: &Group<'_>) -> Value {
    let scheme = group.scheme;
    let (strategy, group_size) = match scheme.granularity {
        Granularity::PerTensor => ("tensor", None),
        Granularity::PerChannel { .. } => ("channel", None),
        Granularity::PerGroup { size, .. } => ("group", Some(size)),
    };
    json!({
        "targets": group.targets,
        // Without it transformers takes 8-bit weights for packed ones.
        "format": group.format.name(),
        "weights": {
            "num_bits": scheme.bits,
            "type": "int",
            "symmetric": scheme.symmetry == Symmetry::Symmetric,
            "strategy": strategy,
            "group_size": group_size,
            "block_structure": null,
            "dynamic": false,
            "actorder": null,
            "observer": group.observer.to_string(),
            "observer_kwargs": {},
        },
        "input_activations": null,
        "output_activations": null,
    })
}
