//! All that keeps a model from being quantized as it is asked for, said at once.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::{Path, PathBuf};

use globset::Glob;

use crate::architecture::template;
use crate::error::{Error, Fault, Result};

/// What is wrong, gathered while a plan is made.
#[derive(Debug)]
pub struct Refusal {
    path: PathBuf,
    /// Tensors that the scheme does not fit, by the reason.
    unfit: BTreeMap<String, Vec<String>>,
    /// Experts among them, which cannot be left out.
    has_unfit_experts: bool,
    /// Tensors that the user names and that cannot be quantized, by the reason.
    named: BTreeMap<String, Vec<String>>,
    lost: Vec<String>,
    left_experts: Vec<String>,
    other_bits: Vec<String>,
    bits: Option<(u32, u32)>,
    asymmetric: Vec<String>,
    mixed_asymmetric: Vec<String>,
}

/// As many tensors of one template are named one by one.
const FEW: usize = 16;

impl Refusal {
    pub fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            unfit: BTreeMap::new(),
            has_unfit_experts: false,
            named: BTreeMap::new(),
            lost: Vec::new(),
            left_experts: Vec::new(),
            other_bits: Vec::new(),
            bits: None,
            asymmetric: Vec::new(),
            mixed_asymmetric: Vec::new(),
        }
    }

    /// A tensor that the scheme does not fit.
    pub fn add(&mut self, name: &str, is_expert: bool, fault: Fault) {
        self.has_unfit_experts |= is_expert;
        let of_reason = self.unfit.entry(fault.to_string()).or_default();
        of_reason.push(name.to_owned());
    }

    /// A tensor that the user names and that cannot be quantized.
    pub fn add_named(&mut self, name: &str, reason: impl Display) {
        let of_reason = self.named.entry(reason.to_string()).or_default();
        of_reason.push(name.to_owned());
    }

    /// A weight that transformers loses beside quantized ones.
    pub fn add_lost(&mut self, name: &str) {
        self.lost.push(name.to_owned());
    }

    /// One of the experts' matrices that would stay in float.
    pub fn add_left_expert(&mut self, name: &str) {
        self.left_experts.push(name.to_owned());
    }

    /// One of the experts' matrices that would get other bits than the first one.
    pub fn add_other_bits(&mut self, name: &str, bits: u32, first: u32) {
        self.bits = Some((first, bits));
        self.other_bits.push(name.to_owned());
    }

    /// One of the experts' matrices that would get a zero point.
    pub fn add_asymmetric(&mut self, name: &str) {
        self.asymmetric.push(name.to_owned());
    }

    /// A weight that would get packed zero points beside weights of another group.
    pub fn add_mixed_asymmetric(&mut self, name: &str) {
        self.mixed_asymmetric.push(name.to_owned());
    }

    /// `quantized` are the tensors that would be quantized, those that the scheme does not fit among them.
    ///
    /// # Errors
    /// Everything that was added, if anything was.
    pub fn finish(self, quantized: Vec<&str>) -> Result<()> {
        let mut said = Vec::new();
        for (reason, names) in &self.named {
            said.push(format!("{} cannot be quantized: {reason}", list(names)));
        }
        if !self.unfit.is_empty() {
            let all: Vec<&String> = self.unfit.values().flatten().collect();
            for (reason, names) in &self.unfit {
                said.push(format!("{}: {reason}", list(names)));
            }
            said.push(match self.has_unfit_experts {
                true => "the experts of a layer are stacked when they are loaded, so that all are quantized, \
                         in groups that fit, or nothing is"
                    .to_owned(),
                false => format!("to leave them in float: {}", excluding(&all, &quantized)),
            });
        }
        if !self.lost.is_empty() {
            said.push(format!(
                "{}: transformers loses these weights, which it splits or merges on loading, as soon as \
                 any weight of the model is quantized",
                list(&self.lost)
            ));
        }
        let experts =
            "the experts of a layer are stacked when transformers loads them, all by one scheme";
        if !self.left_experts.is_empty() {
            said.push(format!(
                "{} would stay in float beside quantized weights: {experts}, and experts in float are \
                 lost beside them",
                list(&self.left_experts)
            ));
        }
        if let Some((first, other)) = self.bits {
            said.push(format!(
                "{} would get {other} bits and other experts {first}: {experts}",
                list(&self.other_bits)
            ));
        }
        if !self.asymmetric.is_empty() {
            said.push(format!(
                "{} would get zero points, which transformers does not read of experts that it stacks on \
                 loading: --symmetric goes without",
                list(&self.asymmetric)
            ));
        }
        if !self.mixed_asymmetric.is_empty() {
            said.push(format!(
                "{} would get packed zero points beside weights of other bits or another format: transformers \
                 reads such zero points by one scheme for all weights: --symmetric goes without",
                list(&self.mixed_asymmetric)
            ));
        }
        match said.is_empty() {
            true => Ok(()),
            false => Err(Error::Refused {
                path: self.path,
                reasons: said.join("; "),
            }),
        }
    }
}

/// Names, with many of one template as one.
fn list(names: &[String]) -> String {
    let shown = by_template(names)
        .into_iter()
        .flat_map(|(template, names)| {
            if names.len() <= FEW {
                return names.iter().map(|name| format!("{name:?}")).collect();
            }
            let all = template.replace('#', "*");
            vec![format!("{all:?} ({} tensors)", names.len())]
        });
    shown.collect::<Vec<String>>().join(", ")
}

fn by_template<S: AsRef<str>>(names: &[S]) -> BTreeMap<String, Vec<&str>> {
    let mut templates: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for name in names {
        let (template, _) = template(name.as_ref());
        templates.entry(template).or_default().push(name.as_ref());
    }
    templates
}

/// The options that leave tensors out, and no other tensor that is quantized.
fn excluding(unfit: &[&String], quantized: &[&str]) -> String {
    let mut options = Vec::new();
    for (template, names) in by_template(unfit) {
        let glob = template.replace('#', "*");
        let matcher = Glob::new(&glob).map(|glob| glob.compile_matcher());
        let fits = matcher.is_ok_and(|glob| {
            let mut matched = quantized.iter().filter(|name| glob.is_match(name));
            matched.all(|name| unfit.iter().any(|unfit| unfit == name))
        });
        match fits && names.len() > 2 {
            true => options.push(format!("--exclude '{glob}'")),
            false => options.extend(names.iter().map(|name| {
                let name = globset::escape(name);
                format!("--exclude '{name}'")
            })),
        }
    }
    options.join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_said_at_once_with_the_options_that_help() {
        let mut refusal = Refusal::new(Path::new("model"));
        let fault = |reason: &str| Fault::NameTaken {
            name: reason.to_owned(),
        };
        let layers: Vec<String> = (0..20).map(|i| format!("layers.{i}.up.weight")).collect();
        for name in &layers {
            refusal.add(name, false, fault("a"));
        }
        refusal.add("layers.1.down.weight", false, fault("b"));
        let mut quantized: Vec<&str> = layers.iter().map(String::as_str).collect();
        quantized.extend(["layers.1.down.weight", "layers.2.down.weight"]);
        let error = refusal.finish(quantized).unwrap_err().to_string();
        for part in [
            "\"layers.*.up.weight\" (20 tensors)",
            "\"layers.1.down.weight\"",
            "--exclude 'layers.1.down.weight' --exclude 'layers.*.up.weight'",
        ] {
            assert!(error.contains(part), "{error}");
        }
        assert!(Refusal::new(Path::new("model")).finish(Vec::new()).is_ok());
    }
}
