//! The patterns by which `quantization_config` names modules.
//!
//! A pattern begins with `re:`; the rest is a regular expression, which must match a module's name from its
//! beginning. What is named is the part of the name that a model with a head and the base model in it share,
//! with anything before it, so that the same pattern is right in both.

use std::collections::{BTreeMap, BTreeSet};

use crate::architecture::{Architecture, NUMBER, fill, suffixes, template};

/// Modules by the group that they are quantized in; [`None`] for those that are not.
#[derive(Debug, Default)]
pub struct Targets {
    /// By template: the numbers of each module, and its group.
    modules: BTreeMap<String, BTreeMap<Vec<String>, Option<usize>>>,
    /// The templates of modules that are named by other targets.
    others: BTreeSet<String>,
    prefixes: BTreeSet<String>,
}

impl Targets {
    pub fn new(architecture: &Architecture) -> Self {
        Self {
            modules: BTreeMap::new(),
            others: BTreeSet::new(),
            prefixes: architecture.prefixes().map(str::to_owned).collect(),
        }
    }

    /// Adds a module by its name in a model with a head, and in the base model.
    pub fn add_in_base(&mut self, module: &str, in_base: &str, group: Option<usize>) {
        let prefix = module
            .strip_suffix(in_base)
            .and_then(|prefix| prefix.strip_suffix('.'));
        self.prefixes.extend(prefix.map(str::to_owned));
        self.add(in_base, group);
    }

    /// Adds a module, named as in the base model.
    fn add(&mut self, module: &str, group: Option<usize>) {
        let (template, numbers) = template(module);
        let numbers = numbers.into_iter().map(str::to_owned).collect();
        let modules = self.modules.entry(template).or_default();
        // What is quantized stays so, where two names of the file are one in the model.
        let entry = modules.entry(numbers).or_default();
        *entry = entry.or(group);
    }

    /// The same modules by other names, where these are not the names of modules in `targets` already.
    pub fn beside(mut self, targets: &Self) -> Self {
        self.modules
            .retain(|template, _| !targets.modules.contains_key(template));
        self.others.extend(targets.modules.keys().cloned());
        self
    }

    /// Adds the modules of a template, of which the file has no tensor. Where it has some of which one is
    /// quantized, none is added: what is ignored is never quantized.
    pub fn add_template(&mut self, template: &str) {
        let modules = self.modules.entry(template.to_owned()).or_default();
        if modules.values().all(Option::is_none) {
            modules.insert(Vec::new(), None);
        }
    }

    /// The patterns that match the modules of a group, and no other module; and a head by its name alone, which
    /// some readers look for.
    pub fn of(&self, group: Option<usize>) -> Vec<String> {
        const HEAD: &str = "lm_head";
        let head = self.modules.get(HEAD);
        let head = head.is_some_and(|head| head.values().any(|of| *of == group));
        let patterns = self.modules.keys();
        let patterns = patterns.filter_map(|template| self.pattern(template, group));
        let head = head.then(|| HEAD.to_owned());
        patterns.chain(head).collect()
    }

    fn pattern(&self, template: &str, group: Option<usize>) -> Option<String> {
        let modules = &self.modules[template];
        let chosen: BTreeSet<&[String]> = modules
            .iter()
            .filter(|(_, of)| **of == group)
            .map(|(numbers, _)| &**numbers)
            .collect();
        if chosen.is_empty() {
            return None;
        }
        let body = match chosen.len() == modules.len() {
            true => regex(template, |_| r"\d+".to_owned()),
            false => some(template, &chosen, modules),
        };
        Some(format!("re:{}{body}$", self.before(template)))
    }

    /// What may stand before the name: anything, unless another module's name ends in this one.
    fn before(&self, template: &str) -> String {
        let mut others = self.modules.keys().chain(&self.others);
        let is_end = |other: &String| suffixes(other).skip(1).any(|end| end == template);
        match others.any(is_end) {
            false => r"(?:.*\.)?".to_owned(),
            true if self.prefixes.is_empty() => String::new(),
            true => {
                let prefixes: Vec<String> = self.prefixes.iter().map(|p| escape(p)).collect();
                format!(r"(?:(?:{})\.)?", prefixes.join("|"))
            }
        }
    }
}

/// The regular expression for some of the modules of a template.
fn some(
    template: &str,
    chosen: &BTreeSet<&[String]>,
    modules: &BTreeMap<Vec<String>, Option<usize>>,
) -> String {
    let first = |numbers: &[String]| numbers.first().cloned().unwrap_or_default();
    let layers: BTreeSet<String> = chosen.iter().map(|numbers| first(numbers)).collect();
    let whole = modules
        .keys()
        .filter(|numbers| layers.contains(&first(numbers)))
        .all(|numbers| chosen.contains(&**numbers));
    if whole {
        let mut layers: Vec<String> = layers.into_iter().collect();
        layers.sort_by_key(|layer| (layer.len(), layer.clone()));
        let layers = match &layers[..] {
            [layer] => layer.clone(),
            layers => format!("(?:{})", layers.join("|")),
        };
        return regex(template, |place| match place {
            0 => layers.clone(),
            _ => r"\d+".to_owned(),
        });
    }
    let names = chosen.iter().filter_map(|numbers| {
        let numbers: Vec<&str> = numbers.iter().map(String::as_str).collect();
        Some(escape(&fill(template, &numbers)?))
    });
    let names: Vec<String> = names.collect();
    format!("(?:{})", names.join("|"))
}

/// A template as a regular expression, each number by its place.
fn regex(template: &str, number: impl Fn(usize) -> String) -> String {
    let mut place = 0;
    let parts = template.split('.').map(|part| match part {
        NUMBER => {
            place += 1;
            number(place - 1)
        }
        _ => escape(part),
    });
    parts.collect::<Vec<_>>().join(r"\.")
}

/// Text that a regular expression takes literally.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_ascii_punctuation() && !"_-".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use regex::Regex;

    use super::*;

    fn matches(patterns: &[String], name: &str) -> bool {
        patterns
            .iter()
            .any(|pattern| match pattern.strip_prefix("re:") {
                Some(regex) => Regex::new(&format!("^(?:{regex})")).unwrap().is_match(name),
                None => pattern == name,
            })
    }

    fn targets(modules: &[(&str, Option<usize>)]) -> Targets {
        let mut targets = Targets::default();
        for &(module, group) in modules {
            targets.add(module, group);
        }
        targets
    }

    #[test]
    fn each_module_is_matched_by_its_own_group_with_and_without_a_prefix() {
        let modules = [
            ("layers.0.mlp.up", Some(0)),
            ("layers.1.mlp.up", Some(1)),
            ("layers.10.mlp.up", Some(0)),
            ("layers.0.mlp.down", Some(0)),
            ("layers.1.mlp.down", Some(0)),
            ("layers.10.mlp.down", Some(0)),
            ("layers.0.experts.0.w1", Some(0)),
            ("layers.0.experts.1.w1", Some(0)),
            ("layers.1.experts.0.w1", Some(1)),
            ("layers.1.experts.1.w1", None),
            ("pooler.dense", None),
            ("lm_head", None),
        ];
        let targets = targets(&modules);
        for group in [None, Some(0), Some(1)] {
            let patterns = targets.of(group);
            for (module, of) in modules {
                let prefixed = format!("model.{module}");
                assert_eq!(
                    matches(&patterns, module),
                    group == of,
                    "{module} {patterns:?}"
                );
                if module != "lm_head" {
                    assert_eq!(matches(&patterns, &prefixed), group == of, "{patterns:?}");
                }
                assert!(!matches(&patterns, &format!("{module}x")), "{patterns:?}");
            }
        }
        assert_eq!(
            targets.of(Some(0))[2],
            r"re:(?:.*\.)?layers\.(?:0|10)\.mlp\.up$"
        );
        assert_eq!(
            targets.of(Some(0))[1],
            r"re:(?:.*\.)?layers\.\d+\.mlp\.down$"
        );
    }

    #[test]
    fn a_name_that_ends_as_another_one_is_matched_alone() {
        let targets = targets(&[("layers.0.up", Some(0)), ("vision.layers.0.up", None)]);
        let patterns = targets.of(Some(0));
        assert!(matches(&patterns, "layers.0.up"));
        assert!(!matches(&patterns, "vision.layers.0.up"));
        assert!(matches(&targets.of(None), "model.vision.layers.0.up"));
    }

    #[test]
    fn a_template_stands_for_all_of_its_modules() {
        let mut targets = targets(&[("head.0.fc", None)]);
        targets.add_template("bbox.#.fc");
        targets.add_template("cls.decoder");
        targets.add_template("head.#.fc");
        let patterns = targets.of(None);
        for name in [
            "bbox.3.fc",
            "cls.decoder",
            "head.0.fc",
            "head.1.fc",
            "bert.cls.decoder",
        ] {
            assert!(matches(&patterns, name), "{name} {patterns:?}");
        }
        assert!(targets.of(Some(0)).is_empty());
    }
}
