//! The schemes that stand in the `config.json` of such a folder.

use std::collections::BTreeMap;
use std::path::Path;

use chopi_core::{Chopi, Convention, Scheme};
use regex::Regex;
use serde::Deserialize;
use serde_json::Value;

use crate::error::{Error, Result};
use crate::files::QUANTIZATION;
use crate::json;

/// How the weights of a folder are quantized, by the targets of the groups: the names of modules, patterns
/// that begin with `re:`, or `Linear` for the others.
#[derive(Clone, Debug, Default)]
pub struct CompressedSchemes {
    names: BTreeMap<String, Scheme>,
    patterns: Vec<(Regex, Scheme)>,
}

const PATTERN: &str = "re:";

const LINEAR: &str = "Linear";

/// What stands in `config.json`.
#[derive(Deserialize)]
struct Quantization {
    quant_method: String,
    // Other methods have none.
    #[serde(default)]
    config_groups: BTreeMap<String, Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    targets: Vec<String>,
    weights: Weights,
}

#[derive(Deserialize)]
struct Weights {
    num_bits: u32,
    r#type: String,
    symmetric: bool,
    strategy: String,
    group_size: Option<usize>,
}

impl CompressedSchemes {
    /// The schemes in a `config.json`, if it has any.
    ///
    /// # Errors
    /// What is not as chopi and compressed-tensors write it.
    pub fn of(config: &Path) -> Result<Option<Self>> {
        let mut json = json::object(config)?;
        let quantization = json.remove(QUANTIZATION).filter(|value| !value.is_null());
        let Some(quantization) = quantization else {
            return Ok(None);
        };
        let schemes = Self::parse(quantization).map_err(|reason| Error::QuantizationConfig {
            path: config.to_owned(),
            reason,
        })?;
        Ok(Some(schemes))
    }

    /// The scheme of a module's weight, if a group is for it.
    pub fn of_module(&self, module: &str) -> Option<&Scheme> {
        let pattern = || {
            let mut patterns = self.patterns.iter();
            patterns.find_map(|(regex, scheme)| regex.is_match(module).then_some(scheme))
        };
        let named = self.names.get(module).or_else(pattern);
        named.or_else(|| self.names.get(LINEAR))
    }

    fn parse(json: Value) -> std::result::Result<Self, String> {
        let Quantization {
            quant_method,
            config_groups,
        } = serde_json::from_value(json).map_err(|e| e.to_string())?;
        if quant_method != "compressed-tensors" {
            return Err(format!(
                "\"quant_method\" is {quant_method:?}, expected \"compressed-tensors\""
            ));
        }
        // A group alone is for all weights, however it names them.
        if config_groups.len() == 1 {
            let schemes = config_groups.into_values();
            let schemes = schemes.map(|group| Ok((LINEAR.to_owned(), group.weights.scheme()?)));
            return Ok(Self {
                names: schemes.collect::<std::result::Result<_, String>>()?,
                patterns: Vec::new(),
            });
        }
        if config_groups.is_empty() {
            return Err("no group in \"config_groups\", expected at least one".to_owned());
        }
        let mut schemes = Self::default();
        for (name, Group { targets, weights }) in config_groups {
            let scheme = weights.scheme().map_err(|e| format!("{name}: {e}"))?;
            for target in targets {
                if let Some(pattern) = target.strip_prefix(PATTERN) {
                    // A module's name must match from its beginning.
                    let regex = Regex::new(&format!("^(?:{pattern})")).map_err(|_| {
                        format!(
                            "{name}: the target {target:?}, expected a regular expression without \
                             look-around"
                        )
                    })?;
                    schemes.patterns.push((regex, scheme.clone()));
                    continue;
                }
                if schemes.names.contains_key(&target) {
                    return Err(format!("{name}: the target {target:?} is there twice"));
                }
                schemes.names.insert(target, scheme.clone());
            }
        }
        Ok(schemes)
    }
}

impl Weights {
    fn scheme(self) -> std::result::Result<Scheme, String> {
        if self.r#type != "int" || !(2..=8).contains(&self.num_bits) {
            return Err(format!(
                "weights of {} bits of type {:?}, expected 2 to 8 bits of \"int\"",
                self.num_bits, self.r#type
            ));
        }
        let builder = Chopi::builder()
            .num_bits(self.num_bits)
            .symmetric(self.symmetric)
            .convention(Convention::COMPRESSED_TENSORS);
        let builder = match (&*self.strategy, self.group_size) {
            ("tensor", _) => builder,
            ("channel", _) => builder.per_channel(0),
            ("group", Some(size)) => builder.per_group(size, -1),
            (strategy, _) => {
                return Err(format!(
                    "the strategy {strategy:?}, expected \"tensor\", \"channel\" or \"group\" with \
                     a \"group_size\""
                ));
            }
        };
        builder.scheme().map_err(|e| e.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_that_is_not_understood_is_refused() {
        let weights = serde_json::json!({
            "num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32,
        });
        let config = |change: &dyn Fn(&mut Value)| {
            let mut config = serde_json::json!({
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": weights}},
            });
            change(&mut config);
            CompressedSchemes::parse(config)
        };
        let one = config(&|_| ()).unwrap();
        assert_eq!(one.of_module("any").unwrap().bits, 4);
        let refused = |change: &dyn Fn(&mut Value)| config(change).unwrap_err();
        let weights = |c: &mut Value, key: &str, value: Value| {
            c["config_groups"]["group_0"]["weights"][key] = value;
        };
        assert!(refused(&|c| c["quant_method"] = "gptq".into()).contains("gptq"));
        assert!(refused(&|c| weights(c, "type", "float".into())).contains("float"));
        assert!(refused(&|c| weights(c, "num_bits", 16.into())).contains("16 bits"));
        assert!(refused(&|c| weights(c, "strategy", "block".into())).contains("block"));
        assert!(refused(&|c| weights(c, "group_size", Value::Null)).contains("group_size"));
        assert!(refused(&|c| c["config_groups"] = serde_json::json!({})).contains("no group"));
        let two = |c: &mut Value, targets: [&[&str]; 2]| {
            let mut group = c["config_groups"]["group_0"].clone();
            c["config_groups"]["group_0"]["targets"] = targets[0].into();
            group["targets"] = targets[1].into();
            group["weights"]["num_bits"] = 8.into();
            c["config_groups"]["group_1"] = group;
        };
        let both = config(&|c| two(c, [&["Linear"], &["a", "b"]])).unwrap();
        let bits = |module| both.of_module(module).map(|scheme| scheme.bits);
        assert_eq!(
            (bits("a"), bits("b"), bits("c")),
            (Some(8), Some(8), Some(4))
        );
        let named = config(&|c| two(c, [&["c"], &["a", "b"]])).unwrap();
        assert!(named.of_module("d").is_none());
        assert!(
            refused(&|c| two(c, [&["a"], &["b", "a"]])).contains("the target \"a\" is there twice")
        );
        let patterns = config(&|c| two(c, [&["re:.*a$"], &["re:.*b"]])).unwrap();
        let bits = |module| patterns.of_module(module).map(|scheme| scheme.bits);
        let found = ["x.a", "x.b.y", "x.ac"].map(bits);
        assert_eq!(found, [Some(4), Some(8), None]);
        assert!(
            refused(&|c| two(c, [&["a"], &["re:(?!x)b"]])).contains("the target \"re:(?!x)b\"")
        );
    }
}
