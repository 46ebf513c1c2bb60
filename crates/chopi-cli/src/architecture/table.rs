//! The table of what is special in each architecture: `architectures.json`, made from transformers' own
//! modules by `cargo xtask architectures`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::LazyLock;

use serde::Deserialize;

/// The whole table. Modules are named by templates, with `#` for a number, and without the prefix that the
/// base model has in models with a head.
#[derive(Debug, Deserialize)]
pub struct Table {
    /// Last components of names that are linear layers in nearly every architecture that has them.
    pub linear: BTreeSet<String>,
    /// Last components of names that are linear layers in no architecture, and what they are.
    pub other: BTreeMap<String, String>,
    /// By the `model_type` of `config.json`.
    pub types: BTreeMap<String, Facts>,
}

/// What is special in one architecture. A matrix of which nothing is said here is what its last component
/// says.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Facts {
    /// Another type whose facts are the same.
    pub same_as: Option<String>,
    /// What stands before the names of the base model's modules in models with a head.
    pub prefixes: Vec<String>,
    /// Linear layers.
    pub linear: Vec<String>,
    /// What is no linear layer, by what it is.
    pub other: BTreeMap<String, Vec<String>>,
    /// Matrices that are stacked to one tensor for all experts of a layer on loading.
    pub experts: Vec<String>,
    /// Weights that are split, merged or permuted on loading as they lie in the file.
    pub converted: Vec<String>,
    /// Weights that are lost on loading as soon as any weight of the model is quantized.
    pub lost: Vec<String>,
    /// Whether transformers cannot load any quantized weight into such a model.
    pub unopenable: bool,
    /// Linear layers whose weight other modules initialize while it is loaded, so that it must be there under its
    /// own name.
    pub whole: Vec<String>,
    /// Linear layers that stand on the base model, and are not in it.
    pub heads: Vec<String>,
    /// Linear layers that share their weight by default.
    pub tied: Vec<String>,
    /// Linear layers that share their weight where `config.json` says so.
    pub may_tie: Vec<String>,
    /// Linear layers whose weight no tensor of the file is, because it is tied or made on loading.
    pub implicit: Vec<String>,
    /// Names in files that are others in the model, and there others in each class.
    pub renamed: BTreeMap<String, Vec<String>>,
}

static TABLE: LazyLock<Table> = LazyLock::new(|| {
    serde_json::from_str(include_str!("architectures.json")).unwrap_or_else(|_| Table {
        linear: BTreeSet::new(),
        other: BTreeMap::new(),
        types: BTreeMap::new(),
    })
});

impl Table {
    /// The table that is built in.
    pub fn built_in() -> &'static Self {
        &TABLE
    }

    /// What is said of a `model_type`.
    pub fn facts(&self, model_type: &str) -> Option<&Facts> {
        let facts = self.types.get(model_type)?;
        match &facts.same_as {
            Some(other) => self.types.get(other),
            None => Some(facts),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_that_is_built_in_is_whole() {
        let table: Table = serde_json::from_str(include_str!("architectures.json")).unwrap();
        assert!(table.types.len() > 500, "{}", table.types.len());
        for (name, facts) in &table.types {
            let found = table.facts(name).map(|facts| facts.same_as.is_none());
            assert_eq!(found, Some(true), "{name}: {:?}", facts.same_as);
        }
        let both = table
            .linear
            .iter()
            .filter(|name| table.other.contains_key(*name));
        assert_eq!(both.count(), 0);
        assert!(table.linear.contains("q_proj"));
    }
}
