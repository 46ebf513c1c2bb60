//! Which tensors of a file are quantized.

use chopi::backend::FloatType;
use chopi::model::{is_linear_weight, is_matrix_weight};
use globset::{Glob, GlobSet, GlobSetBuilder};

use crate::archive::Tensor;
use crate::format::float_type;

/// The tensors that the command line asks for.
#[derive(Debug)]
pub struct Selection {
    ranks: Ranks,
    include: Option<GlobSet>,
    exclude: GlobSet,
}

/// The numbers of dimensions that a tensor may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ranks {
    /// Weights, not biases.
    TwoOrMore,
    All,
    /// Weights of linear layers, by their shape and name.
    Linear,
    /// Matrices that are the weight of a layer of any kind.
    Matrices,
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
            include: match include {
                [] => None,
                globs => Some(set(globs)?),
            },
            exclude: set(exclude)?,
        })
    }

    /// The float type of a tensor that is to be quantized. Tensors without elements are not: they
    /// have no range.
    pub fn float_type_of(&self, tensor: &Tensor<'_>) -> Option<FloatType> {
        let enough_axes = match self.ranks {
            Ranks::All => true,
            Ranks::TwoOrMore => tensor.shape.len() >= 2,
            Ranks::Linear if !self.is_explicit() => is_linear_weight(&tensor.name, &tensor.shape),
            Ranks::Linear | Ranks::Matrices => is_matrix_weight(&tensor.name, &tensor.shape),
        };
        let included = self
            .include
            .as_ref()
            .is_none_or(|set| set.is_match(&tensor.name));
        let excluded = self.exclude.is_match(&tensor.name);
        let wanted = enough_axes && included && !excluded && !tensor.data.is_empty();
        float_type(tensor.dtype).filter(|_| wanted)
    }

    /// What a tensor must be to be taken, if its name is not excluded.
    pub fn expected(&self) -> &'static str {
        match self.ranks {
            Ranks::All => "a float tensor with elements",
            Ranks::TwoOrMore => "a float tensor of two or more dimensions with elements",
            Ranks::Linear | Ranks::Matrices => "a float matrix with elements, named *.weight",
        }
    }

    /// Whether the command line names tensors to take.
    pub fn is_explicit(&self) -> bool {
        self.include.is_some()
    }
}
