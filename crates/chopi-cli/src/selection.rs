//! Which tensors of a file are quantized.

use std::path::Path;

use chopi::backend::FloatType;
use chopi::model::is_matrix_weight;
use globset::{Glob, GlobMatcher, GlobSet, GlobSetBuilder};

use crate::archive::Entry;
use crate::error::Error;
use chopi::formats::dtype::float_type;

/// The tensors that the command line asks for.
#[derive(Debug)]
pub struct Selection {
    ranks: Ranks,
    include: Vec<GlobMatcher>,
    exclude: GlobSet,
}

/// The numbers of dimensions that a tensor may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranks {
    /// Weights, not biases.
    TwoOrMore,
    All,
    /// Weights of linear layers, which the model's architecture tells from others.
    Linear,
}

/// What the user says of a tensor's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Chosen {
    Excluded,
    /// Others are included, and this one is not.
    NotIncluded,
    /// A plan has the bits of others.
    NotPlanned,
    /// A glob or a plan names it.
    Named,
    /// It is one of all.
    Taken,
}

impl Selection {
    /// # Errors
    /// A glob that is too large.
    pub fn new(ranks: Ranks, include: &[Glob], exclude: &[Glob]) -> Result<Self, globset::Error> {
        let set = |globs: &[Glob]| {
            let mut set = GlobSetBuilder::new();
            for glob in globs {
                set.add(glob.clone());
            }
            set.build()
        };
        Ok(Self {
            ranks,
            include: include.iter().map(Glob::compile_matcher).collect(),
            exclude: set(exclude)?,
        })
    }

    /// The float type of a tensor that is to be quantized. Tensors without elements are not: they
    /// have no range.
    pub fn float_type_of(&self, tensor: &Entry) -> Option<FloatType> {
        let enough_axes = match self.ranks {
            Ranks::All => true,
            Ranks::TwoOrMore => tensor.shape.len() >= 2,
            Ranks::Linear => is_matrix_weight(&tensor.name, &tensor.shape),
        };
        let matching = self.include.iter().any(|glob| glob.is_match(&tensor.name));
        let included = matching || !self.is_explicit();
        let excluded = self.excludes(&tensor.name);
        let wanted = enough_axes && included && !excluded && !tensor.data.is_empty();
        float_type(tensor.dtype).filter(|_| wanted)
    }

    /// What a tensor must be to be taken, if its name is not excluded.
    pub fn expected(&self) -> &'static str {
        match self.ranks {
            Ranks::All => "a tensor of F16, BF16, F32 or F64 with elements",
            Ranks::TwoOrMore => {
                "a tensor of F16, BF16, F32 or F64, of two or more dimensions, with elements"
            }
            Ranks::Linear => {
                "the weight of a linear layer: a matrix of F16, BF16, F32 or F64 named *.weight"
            }
        }
    }

    /// The numbers of dimensions that a tensor may have.
    pub fn ranks(&self) -> Ranks {
        self.ranks
    }

    /// What the user says of a tensor's name.
    pub fn chosen(&self, name: &str) -> Chosen {
        if self.excludes(name) {
            Chosen::Excluded
        } else if !self.is_explicit() {
            Chosen::Taken
        } else if self.included().any(|glob| glob.is_match(name)) {
            Chosen::Named
        } else {
            Chosen::NotIncluded
        }
    }

    /// The error where no tensor of a model is taken: those that `--include` names, or all, and what a tensor
    /// must be.
    pub fn nothing<'a>(&self, path: &Path, tensors: impl Iterator<Item = &'a Entry>) -> Error {
        let named = |name: &str| matches!(self.chosen(name), Chosen::Named | Chosen::Taken);
        let tensors: Vec<_> = tensors.filter(|tensor| named(&tensor.name)).collect();
        let shown = tensors.iter().take(3).map(|tensor| {
            let (name, dtype, shape) = (&tensor.name, tensor.dtype, &tensor.shape);
            format!("{name:?} is {dtype} {shape:?}")
        });
        let shown = shown.collect::<Vec<_>>().join(", ");
        let expected = self.expected();
        Error::NothingQuantized {
            path: path.to_owned(),
            found: match tensors.len() {
                0 => format!("no tensor has such a name, expected {expected}"),
                1..=3 => format!("{shown}, expected {expected}"),
                count => format!("{shown}, and {} others, expected {expected}", count - 3),
            },
            explicit: self.is_explicit(),
        }
    }

    /// Whether the command line names tensors to take.
    pub fn is_explicit(&self) -> bool {
        !self.include.is_empty()
    }

    /// The globs of `--include`.
    pub fn included(&self) -> impl Iterator<Item = &GlobMatcher> {
        self.include.iter()
    }

    /// Whether `--exclude` names a tensor.
    pub fn excludes(&self, name: &str) -> bool {
        self.exclude.is_match(name)
    }
}
