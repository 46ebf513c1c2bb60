//! What `config.json` says of the quantization.

use chopi::{Calibration, Granularity, Symmetry};
use serde_json::{Map, Value, json};

use crate::args::{Parameters, Settings};

/// The name of the format of codes of this many bits.
pub fn format(bits: u32) -> &'static str {
    match bits {
        8 => "int-quantized",
        _ => "pack-quantized",
    }
}

/// The model's configuration with `quantization_config`. The modules that are ignored are linear
/// layers, or might be, that are not quantized.
pub fn config(mut config: Map<String, Value>, settings: &Settings, ignored: Vec<String>) -> Value {
    let scheme = &settings.scheme;
    let format = format(scheme.bits);
    let (strategy, group_size) = match scheme.granularity {
        Granularity::PerTensor => ("tensor", None),
        Granularity::PerChannel { .. } => ("channel", None),
        Granularity::PerGroup { size, .. } => ("group", Some(size)),
    };
    let observer = match settings.parameters {
        Parameters::Calibrated(calibration) => calibration,
        // The format goes without given parameters.
        Parameters::Given { .. } => Calibration::MinMax,
    };
    let mut ignore = ignored;
    // A head that shares the embedding's weight has no tensor of its own.
    if !ignore.iter().any(|name| name == "lm_head") {
        ignore.push("lm_head".to_owned());
    }
    let quantization = json!({
        "quant_method": "compressed-tensors",
        "version": "0.20.0",
        "format": format,
        "quantization_status": "compressed",
        "global_compression_ratio": null,
        "kv_cache_scheme": null,
        "ignore": ignore,
        "config_groups": {
            "group_0": {
                "targets": ["Linear"],
                // Without it transformers takes 8-bit weights for packed ones.
                "format": format,
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
            },
        },
    });
    config.insert("quantization_config".to_owned(), quantization);
    config.into()
}
