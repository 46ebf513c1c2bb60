//! What the modules of a model are, from its architecture.
//!
//! An [`Architecture`] answers one question: what is the matrix of this name and shape to the model that
//! reads it. It knows the modules of the architectures of transformers from a table; of what the table does
//! not know it takes for a linear layer only what surely is one.

mod name;
mod table;
mod words;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use serde_json::{Map, Value};

pub use name::{NUMBER, fill, suffixes, template, without_prefix};
use table::{Facts, Table};
use words::Word;

/// The end of the name of a weight, after that of its module.
pub const WEIGHT: &str = ".weight";

/// What is known of a model from its configuration.
#[derive(Debug)]
pub struct Architecture {
    /// The `model_type`, if the configuration has one.
    model_type: Option<String>,
    /// Whether the table knows it.
    is_known: bool,
    modules: BTreeMap<&'static str, Kind>,
    renamed: BTreeMap<&'static str, &'static [String]>,
    prefixes: BTreeSet<String>,
    tied: BTreeSet<&'static str>,
    implicit: BTreeSet<&'static str>,
    heads: BTreeSet<&'static str>,
    whole: BTreeSet<&'static str>,
    unopenable: Option<String>,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Linear,
    Other(&'static str),
    Expert,
    Converted,
    Lost,
}

/// A matrix in a file that may be a weight.
#[derive(Clone, Copy, Debug)]
pub struct Matrix<'a> {
    /// The name of its module: that of the tensor without [`WEIGHT`].
    pub module: &'a str,
    pub shape: [usize; 2],
    /// The length of the module's bias, if it has one.
    pub bias: Option<usize>,
}

/// What a matrix is to the model that reads it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Role {
    /// The weight of a linear layer, which other layers are made of.
    Linear,
    /// The weight of a linear layer next to the model's input or output, or a matrix of a model of which nothing
    /// is known. It is taken where the user names it.
    Edge,
    /// One of the matrices that are stacked to one tensor for all experts of a layer on loading.
    Expert,
    /// A weight that is lost on loading as soon as any weight of the model is quantized.
    Lost,
    /// Nothing that can be quantized.
    Other(Other),
}

/// Why a matrix is no weight that can be quantized.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Other {
    /// It is something else: an embedding, a module of another class.
    Module(String),
    /// Its rows are the inputs, as the length of the bias says.
    Transposed,
    /// It is split, merged or permuted on loading.
    Converted,
    /// Its linear layer shares it with another module.
    Tied,
    /// Nothing says that it is a linear layer.
    Unknown(String),
}

impl fmt::Display for Other {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Module(what) => write!(f, "{what}, no linear layer"),
            Self::Transposed => {
                f.write_str("its rows are the inputs, as the length of its bias says")
            }
            Self::Converted => f.write_str("it is split, merged or permuted when it is loaded"),
            Self::Tied => f.write_str("its layer shares it with another one"),
            Self::Unknown(model) => {
                write!(f, "nothing says that it is a linear layer of {model:?}")
            }
        }
    }
}

impl Architecture {
    /// What a model's configuration says: its `model_type`, and those of the models in it.
    pub fn of(config: &Map<String, Value>) -> Self {
        let table = Table::built_in();
        let mut types = Vec::new();
        collect(config, "model_type", &mut |value| {
            types.extend(value.as_str())
        });
        let mut ties = Vec::new();
        collect(config, "tie_word_embeddings", &mut |value| {
            ties.extend(value.as_bool())
        });
        let ties = match &ties[..] {
            [] => None,
            ties => Some(ties.contains(&true)),
        };
        let facts = types
            .iter()
            .filter_map(|name| Some((*name, table.facts(name)?)));
        let facts: Vec<(&str, &Facts)> = facts.collect();
        let model_type = config.get("model_type").and_then(Value::as_str);
        let mut found = Self {
            model_type: model_type.map(str::to_owned),
            is_known: model_type.is_some_and(|name| table.facts(name).is_some()),
            modules: BTreeMap::new(),
            renamed: BTreeMap::new(),
            prefixes: BTreeSet::new(),
            tied: BTreeSet::new(),
            implicit: BTreeSet::new(),
            heads: BTreeSet::new(),
            whole: BTreeSet::new(),
            unopenable: None,
        };
        for (name, facts) in facts {
            if facts.unopenable {
                found.unopenable.get_or_insert(name.to_owned());
            }
            found.add(facts, ties);
        }
        found
    }

    /// This architecture with what the names of a model's tensors say where no table does: what stands before
    /// the name of every module with a number is the prefix of the base model. `trunk` is that of
    /// `trunk.blocks.0.up` and `trunk.blocks.1.up`, and `head.weight` has none.
    pub fn with_names<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        if self.is_known {
            return self;
        }
        let mut numbered = names.into_iter().filter(|name| name::has_number(name));
        let prefix = |name: &'a str| {
            let (first, rest) = name.split_once('.')?;
            (!name::starts_with_number(rest)).then_some(first)
        };
        let first = numbered.next().and_then(prefix);
        if let Some(first) = first
            && numbered.all(|name| prefix(name) == Some(first))
        {
            self.prefixes.insert(first.to_owned());
        }
        self
    }

    /// Adds the facts of a type; those that are there already have precedence.
    fn add(&mut self, facts: &'static Facts, ties: Option<bool>) {
        let kinds = [
            (&facts.linear, Kind::Linear),
            (&facts.experts, Kind::Expert),
            (&facts.converted, Kind::Converted),
            (&facts.lost, Kind::Lost),
        ];
        let others = facts.other.iter();
        let others = others.map(|(what, names)| (names, Kind::Other(what)));
        for (names, kind) in kinds.into_iter().chain(others) {
            for name in names {
                self.modules.entry(name).or_insert(kind);
            }
        }
        for (file, module) in &facts.renamed {
            self.renamed.entry(file).or_insert(module);
        }
        self.prefixes.extend(facts.prefixes.iter().cloned());
        self.whole.extend(facts.whole.iter().map(String::as_str));
        self.heads.extend(facts.heads.iter().map(String::as_str));
        let without_tensor = facts
            .implicit
            .iter()
            .chain(&facts.tied)
            .chain(&facts.may_tie);
        self.implicit.extend(without_tensor.map(String::as_str));
        if ties != Some(false) {
            self.tied.extend(facts.tied.iter().map(String::as_str));
        }
        if ties == Some(true) {
            self.tied.extend(facts.may_tie.iter().map(String::as_str));
        }
    }

    /// The type of the model, or of a model in it, into which transformers cannot load any quantized weight.
    pub fn unopenable(&self) -> Option<&str> {
        self.unopenable.as_deref()
    }

    /// What a matrix of the model is.
    pub fn role(&self, matrix: Matrix<'_>) -> Role {
        let (template, _) = template(matrix.module);
        let kind = suffixes(&template).find_map(|name| self.modules.get(name));
        if let Some(Kind::Other(what)) = kind {
            return Role::Other(Other::Module((*what).to_owned()));
        }
        let [out, width] = matrix.shape;
        match matrix.bias {
            Some(len) if len == width && len != out => return Role::Other(Other::Transposed),
            _ => {}
        }
        match kind {
            Some(Kind::Expert) => return Role::Expert,
            Some(Kind::Lost) => return Role::Lost,
            Some(Kind::Converted) => return Role::Other(Other::Converted),
            _ => {}
        }
        if suffixes(&template).any(|name| self.tied.contains(name)) {
            return Role::Other(Other::Tied);
        }
        // The base model's own name may be that of a norm.
        let is_edge = words::is_edge(self.without_prefix(&template));
        let linear = || match self.heads.contains(&*template) || is_edge {
            true => Role::Edge,
            false => Role::Linear,
        };
        let is_doubtful = words::is_router(&template) || words::is_table(&template);
        match (kind, words::word(&template), &self.model_type) {
            (Some(_), _, _) => linear(),
            (None, Word::Linear, _) if self.is_known || !is_doubtful => linear(),
            // Without an architecture there are names, and the user's word.
            (None, Word::Other(_), None) => Role::Edge,
            (None, _, None) if is_doubtful => Role::Edge,
            (None, _, None) => linear(),
            (None, Word::Other(what), _) => Role::Other(Other::Module(what.to_owned())),
            // A bias for each row: its rows are the outputs.
            _ if matrix.bias == Some(out) && out != width && !is_doubtful => linear(),
            (None, _, Some(model_type)) => Role::Other(Other::Unknown(model_type.clone())),
        }
    }

    /// Whether other modules ask for a module's weight while it is loaded, so that it must lie in the file under
    /// its own name and cannot be packed.
    pub fn keeps_name(&self, module: &str) -> bool {
        let (template, _) = template(module);
        suffixes(&template).any(|name| self.whole.contains(name))
    }

    /// The names that a file's module has in the classes of the model.
    pub fn modules(&self, module: &str) -> Vec<String> {
        let (template, numbers) = template(module);
        let filled = |names: &[String], numbers: &[&str]| -> Vec<String> {
            names.iter().filter_map(|to| fill(to, numbers)).collect()
        };
        if let Some(names) = self.renamed.get(&*template) {
            return filled(names, &numbers);
        }
        let mut partly = self
            .renamed
            .iter()
            .filter(|(from, _)| name::has_number(from));
        let named = partly.find_map(|(from, names)| {
            let numbers = name::numbers(from, module)?;
            Some(filled(names, &numbers))
        });
        named.unwrap_or_else(|| vec![module.to_owned()])
    }

    /// A module's name without the prefix that the base model has in models with a head.
    pub fn without_prefix<'a>(&self, module: &'a str) -> &'a str {
        let first = module.split('.').next().unwrap_or_default();
        let is_prefix = match self.is_known {
            true => self.prefixes.contains(first),
            false => self.prefixes.contains(first) || words::is_prefix(first),
        };
        match is_prefix {
            true => without_prefix(module, first).unwrap_or(module),
            false => module,
        }
    }

    /// The prefixes that the base model may have in models with a head.
    pub fn prefixes(&self) -> impl Iterator<Item = &str> {
        self.prefixes.iter().map(String::as_str)
    }

    /// The templates of linear layers that may have no tensor of their own, because they share that of
    /// another module or because it is made on loading.
    pub fn implicit(&self) -> impl Iterator<Item = &str> {
        // A head of which nothing is known, and which no file has, is tied.
        let head = (!self.is_known).then_some("lm_head");
        self.implicit.iter().copied().chain(head)
    }
}

/// Calls `found` with each value of a key in an object and in the objects in it, the outer ones first.
fn collect<'a>(object: &'a Map<String, Value>, key: &str, found: &mut impl FnMut(&'a Value)) {
    object.get(key).into_iter().for_each(&mut *found);
    for inner in object.values().filter_map(Value::as_object) {
        collect(inner, key, found);
    }
}

#[cfg(test)]
mod tests;
