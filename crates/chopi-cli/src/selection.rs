//! Which tensors of a file are quantized.

use chopi::FloatType;
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
            Ranks::Linear => {
                is_matrix_weight(tensor) && (self.is_explicit() || !is_no_linear(&tensor.name))
            }
        };
        let included = self
            .include
            .as_ref()
            .is_none_or(|set| set.is_match(&tensor.name));
        let excluded = self.exclude.is_match(&tensor.name);
        let wanted = enough_axes && included && !excluded && !tensor.data.is_empty();
        float_type(tensor.dtype).filter(|_| wanted)
    }

    /// Whether the command line names tensors to take.
    pub fn is_explicit(&self) -> bool {
        self.include.is_some()
    }
}

/// Whether a tensor has the shape and the name of the weight of a linear layer.
pub fn is_matrix_weight(tensor: &Tensor<'_>) -> bool {
    tensor.shape.len() == 2 && tensor.name.ends_with(".weight")
}

/// Whether a name says that a matrix is an embedding, a norm or a head.
fn is_no_linear(name: &str) -> bool {
    // The names of embeddings that do not say so: GPT-2's, T5's.
    const EMBEDDINGS: [&str; 3] = ["wte", "wpe", "shared"];
    const HEADS: [&str; 3] = ["score", "classifier", "cls"];
    name.split('.').any(|part| {
        let part = part.to_lowercase();
        part.contains("embed")
            || part.contains("norm")
            || part.ends_with("head")
            || EMBEDDINGS.contains(&&*part)
            || HEADS.contains(&&*part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn linear_layers_are_known_by_their_names() {
        for linear in [
            "encoder.layer.0.attention.self.query.weight",
            "model.layers.3.self_attn.q_proj.weight",
            "model.layers.3.mlp.down_proj.weight",
            "pooler.dense.weight",
        ] {
            assert!(!is_no_linear(linear), "{linear}");
        }
        for other in [
            "embeddings.word_embeddings.weight",
            "model.embed_tokens.weight",
            "transformer.wte.weight",
            "lm_head.weight",
            "model.layers.3.input_layernorm.weight",
            "classifier.weight",
        ] {
            assert!(is_no_linear(other), "{other}");
        }
    }
}
