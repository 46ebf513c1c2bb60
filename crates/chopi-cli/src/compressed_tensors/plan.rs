//! What becomes of each tensor of a model, decided from the headers of its files before any is written.

use std::collections::BTreeMap;

use chopi::{Granularity, Symmetry, backend::FloatType};
use serde_json::{Map, Value};

use super::linear::{Linear, Loaded, Reason, Weights};
use super::refusal::Refusal;
use super::targets::Targets;
use crate::architecture::{Role, WEIGHT};
use crate::archive::{Archive, Entry};
use crate::args::Settings;
use crate::choice::Choice;
use crate::error::{Error, Fault, Result};
use crate::files::Files;
use chopi::formats::compressed_tensors::{CodeFormat, Group};

/// What becomes of the tensors of a model.
#[derive(Debug)]
pub struct FolderPlan<'a> {
    weights: Weights<'a>,
    tensors: BTreeMap<&'a str, Decision<'a>>,
}

/// What becomes of one tensor.
#[derive(Clone, Debug)]
pub enum Decision<'a> {
    Quantize(How<'a>),
    /// It is copied.
    Keep(Reason),
}

/// How a tensor is quantized.
#[derive(Clone, Copy, Debug)]
pub struct How<'a> {
    pub float: FloatType,
    pub settings: &'a Settings,
    pub format: CodeFormat,
    loaded: Loaded,
}

/// The format of codes of so many bits. Of weights that are stacked on loading transformers reads packed codes
/// only, and never those of weights whose name is asked for.
fn code_format(bits: u32, loaded: Loaded) -> CodeFormat {
    match loaded {
        Loaded::Stacked => CodeFormat::PackQuantized,
        Loaded::Named => CodeFormat::IntQuantized,
        Loaded::Alone => CodeFormat::of(bits),
    }
}

impl<'a> FolderPlan<'a> {
    /// # Errors
    /// Everything that keeps the model from being quantized as it is asked for: what is wrong with the plan of
    /// bits, and all tensors at once that cannot be quantized so.
    pub fn new(
        model: &Files,
        config: &Map<String, Value>,
        archives: &'a [Archive],
        choice: &'a Choice,
    ) -> Result<Self> {
        super::quantized::check(archives)?;
        let weights = Weights::new(archives, config);
        if let Some(model_type) = weights.architecture().unopenable() {
            return Err(Error::Unopenable {
                path: model.input.clone(),
                model_type: model_type.to_owned(),
            });
        }
        let mut refusal = Refusal::new(&model.input);
        let mut tensors = BTreeMap::new();
        for tensor in weights.iter() {
            let name = &*tensor.name;
            let linear = weights.linear(tensor, choice.chosen(name));
            let decision = match (linear, choice.settings_of(name)) {
                (Err(reason), _) => Decision::Keep(reason),
                (Ok(_), None) => Decision::Keep(Reason::NotPlanned),
                (Ok(Linear { float, loaded }), Some(settings)) => {
                    let how = How {
                        float,
                        settings,
                        format: code_format(settings.scheme.bits, loaded),
                        loaded,
                    };
                    if let Err(fault) = how.check(tensor, &weights) {
                        refusal.add(name, how.is_expert(), fault);
                    }
                    Decision::Quantize(how)
                }
            };
            tensors.insert(name, decision);
        }
        let plan = Self { weights, tensors };
        plan.check_named(model, choice, &mut refusal)?;
        plan.check_loading(&mut refusal);
        let quantized = plan
            .tensors()
            .filter(|(_, decision)| decision.is_quantized());
        refusal.finish(quantized.map(|(name, _)| name).collect())?;
        if !plan.tensors.values().any(Decision::is_quantized) {
            return Err(plan.nothing(model, choice));
        }
        Ok(plan)
    }

    /// What becomes of a tensor.
    pub fn of(&self, tensor: &Entry) -> &Decision<'a> {
        const COPIED: &Decision<'_> = &Decision::Keep(Reason::NoWeight);
        self.tensors.get(&*tensor.name).unwrap_or(COPIED)
    }

    /// How a tensor of this name is quantized, if it is.
    pub fn settings_of(&self, name: &str) -> Option<&'a Settings> {
        self.tensors
            .get(name)
            .and_then(Decision::how)
            .map(|how| how.settings)
    }

    /// All tensors, and what becomes of them.
    pub fn tensors(&self) -> impl Iterator<Item = (&'a str, &Decision<'a>)> {
        self.tensors
            .iter()
            .map(|(name, decision)| (*name, decision))
    }

    /// Modules that are quantized alike, and the linear layers that are not quantized. transformers takes the
    /// first group that names experts for that of all stacked experts, so theirs comes first.
    pub fn groups(&self) -> (Vec<Group<'a>>, Vec<String>) {
        let mut groups: Vec<(bool, &How<'a>)> = Vec::new();
        let same = |a: &How<'_>, b: &How<'_>| a.group() == b.group();
        for how in self.tensors.values().filter_map(Decision::how) {
            match groups.iter_mut().find(|(_, group)| same(group, how)) {
                Some((is_expert, _)) => *is_expert |= how.is_expert(),
                None => groups.push((how.is_expert(), how)),
            }
        }
        groups.sort_by_key(|(is_expert, how)| (!is_expert, how.group()));
        let group_of = |how: &How<'_>| groups.iter().position(|(_, group)| same(group, how));
        let architecture = self.weights.architecture();
        let mut in_model = Targets::new(architecture);
        let mut in_file = Targets::new(architecture);
        for (name, decision) in &self.tensors {
            let Some(module) = name.strip_suffix(WEIGHT) else {
                continue;
            };
            let group = match decision {
                Decision::Quantize(how) => group_of(how),
                Decision::Keep(reason) if reason.may_be_linear() => None,
                Decision::Keep(_) => continue,
            };
            let loaded = architecture.modules(module);
            for loaded in &loaded {
                in_model.add_in_base(loaded, architecture.without_prefix(loaded), group);
            }
            // Other readers know the names of the file.
            if group.is_some() && !loaded.iter().any(|loaded| loaded == module) {
                in_file.add_in_base(module, architecture.without_prefix(module), group);
            }
        }
        for template in architecture.implicit() {
            in_model.add_template(template);
        }
        let in_file = in_file.beside(&in_model);
        let numbered = groups.iter().enumerate();
        let numbered = numbered.map(|(i, (_, how))| {
            let mut targets = in_model.of(Some(i));
            targets.extend(in_file.of(Some(i)));
            Group {
                scheme: &how.settings.scheme,
                observer: how.settings.observer(),
                format: how.format,
                targets,
            }
        });
        (numbered.collect(), in_model.of(None))
    }

    /// Checks what the command line and the plan of bits name.
    fn check_named(&self, model: &Files, choice: &Choice, refusal: &mut Refusal) -> Result<()> {
        for name in choice.planned_names() {
            match self.tensors.get(name) {
                Some(Decision::Keep(reason)) => refusal.add_named(name, reason),
                Some(Decision::Quantize(_)) => {}
                None => return Err(choice.not_there(name, &model.input)),
            }
        }
        for glob in choice.included() {
            let named = self.tensors.iter().filter(|(name, _)| glob.is_match(name));
            let taken = |decision: &Decision<'_>| match decision {
                Decision::Quantize(_) | Decision::Keep(Reason::Excluded) => true,
                Decision::Keep(_) => false,
            };
            if !named.clone().any(|(_, decision)| taken(decision)) {
                for (name, decision) in named {
                    if let Decision::Keep(reason) = decision {
                        refusal.add_named(name, reason);
                    }
                }
            }
        }
        Ok(())
    }

    /// Checks that transformers loads the weights that it converts beside quantized ones, and the zero points.
    fn check_loading(&self, refusal: &mut Refusal) {
        let quantized = self.tensors.values().filter_map(Decision::how);
        if quantized.clone().next().is_none() {
            return;
        }
        let experts = quantized.clone().find(|how| how.is_expert());
        let first = quantized.clone().next().map(How::group);
        let is_mixed = quantized.clone().any(|how| Some(how.group()) != first);
        for (name, decision) in &self.tensors {
            let tensor = self.weights.get(name);
            match (
                decision,
                tensor.and_then(|tensor| self.weights.role(tensor)),
            ) {
                (_, Some(Role::Lost)) => refusal.add_lost(name),
                (Decision::Keep(_), Some(Role::Expert)) => refusal.add_left_expert(name),
                (Decision::Quantize(how), _) if how.is_expert() => {
                    let bits = |how: &How<'_>| how.settings.scheme.bits;
                    if let Some(first) = experts.filter(|first| bits(first) != bits(how)) {
                        refusal.add_other_bits(name, bits(how), bits(first));
                    }
                    if how.settings.scheme.symmetry == Symmetry::Asymmetric {
                        refusal.add_asymmetric(name);
                    }
                }
                (Decision::Quantize(how), _) if is_mixed && how.packs_zero_points() => {
                    refusal.add_mixed_asymmetric(name);
                }
                _ => {}
            }
        }
    }

    /// The error where nothing is quantized: what there was, and why it was not taken.
    fn nothing(&self, model: &Files, choice: &Choice) -> Error {
        let mut reasons: BTreeMap<String, (usize, &str)> = BTreeMap::new();
        for (name, decision) in &self.tensors {
            if let Decision::Keep(reason) = decision {
                let (count, _) = reasons.entry(reason.to_string()).or_insert((0, name));
                *count += 1;
            }
        }
        let mut reasons: Vec<_> = reasons.into_iter().collect();
        reasons.sort_by_key(|(_, (count, _))| std::cmp::Reverse(*count));
        let shown = reasons
            .iter()
            .take(6)
            .map(|(reason, (count, name))| match count {
                1 => format!("{name:?} ({reason})"),
                _ => format!("{count} such as {name:?} ({reason})"),
            });
        Error::NothingQuantized {
            path: model.input.clone(),
            found: shown.collect::<Vec<_>>().join("; "),
            explicit: choice.is_explicit(),
        }
    }
}

impl<'a> Decision<'a> {
    pub fn is_quantized(&self) -> bool {
        matches!(self, Self::Quantize(_))
    }

    fn how(&self) -> Option<&How<'a>> {
        match self {
            Self::Quantize(how) => Some(how),
            Self::Keep(_) => None,
        }
    }
}

impl How<'_> {
    /// Whether it is one of the matrices that are stacked for all experts of a layer on loading.
    fn is_expert(&self) -> bool {
        self.loaded == Loaded::Stacked
    }

    /// What the weights of one group share.
    fn group(&self) -> (u32, CodeFormat) {
        (self.settings.scheme.bits, self.format)
    }

    /// Whether zero points are packed. transformers reads those only where it dequantizes all weights on loading
    /// (`CompressedTensorsConfig(dequantize=True)`), by the scheme of one group.
    fn packs_zero_points(&self) -> bool {
        let scheme = &self.settings.scheme;
        self.format == CodeFormat::PackQuantized
            && scheme.symmetry == Symmetry::Asymmetric
            && scheme.granularity != Granularity::PerTensor
    }

    /// Checks that the scheme fits a tensor, and that the names of its parts are free.
    fn check(&self, tensor: &Entry, all: &Weights<'_>) -> std::result::Result<(), Fault> {
        let Settings {
            scheme, convention, ..
        } = self.settings;
        convention.check_groups(scheme, &tensor.shape)?;
        if let (Granularity::PerGroup { size, .. }, &[rows, width]) =
            (scheme.granularity, &*tensor.shape)
            && self.packs_zero_points()
            && scheme.bits == 4
            && rows <= 8
            && size < width
        {
            // A single row of words, which its fast path for 4 bits transposes and cannot view as bytes.
            return Err(Fault::FewZeroPoints { rows });
        }
        for suffix in self.format.suffixes(scheme.symmetry) {
            let name = format!("{}{suffix}", tensor.name);
            if !suffix.is_empty() && all.get(&name).is_some() {
                return Err(Fault::NameTaken { name });
            }
        }
        Ok(())
    }
}
