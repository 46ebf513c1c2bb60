//! Which tensors are the weights of linear layers.

/// Whether a tensor has the shape and the name of the weight of a linear layer, or of an embedding: a
/// matrix named `*.weight`.
pub fn is_matrix_weight(name: &str, shape: &[usize]) -> bool {
    shape.len() == 2 && name.ends_with(".weight")
}

/// Whether a tensor is the weight of a linear layer that is usually quantized: a matrix named
/// `*.weight`, unless a part of its name says that it is an embedding, a norm or a head.
///
/// ```
/// # use chopi_core as chopi;
/// use chopi::model::is_linear_weight;
/// assert!(is_linear_weight("model.layers.3.mlp.down_proj.weight", &[64, 256]));
/// assert!(!is_linear_weight("model.layers.3.mlp.down_proj.bias", &[64]));
/// assert!(!is_linear_weight("model.embed_tokens.weight", &[32_000, 64]));
/// assert!(!is_linear_weight("lm_head.weight", &[32_000, 64]));
/// ```
pub fn is_linear_weight(name: &str, shape: &[usize]) -> bool {
    is_matrix_weight(name, shape) && !name.split('.').any(is_no_linear)
}

/// Whether a part of a name says that a matrix is an embedding, a norm or a head.
fn is_no_linear(part: &str) -> bool {
    // The names of embeddings that do not say so: GPT-2's, T5's.
    const EMBEDDINGS: [&str; 3] = ["wte", "wpe", "shared"];
    const HEADS: [&str; 3] = ["score", "classifier", "cls"];
    let part = part.to_lowercase();
    part.contains("embed")
        || part.contains("norm")
        || part.ends_with("head")
        || EMBEDDINGS.contains(&&*part)
        || HEADS.contains(&&*part)
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
            assert!(is_linear_weight(linear, &[8, 8]), "{linear}");
            assert!(!is_linear_weight(linear, &[8]), "{linear}");
        }
        for other in [
            "embeddings.word_embeddings.weight",
            "model.embed_tokens.weight",
            "transformer.wte.weight",
            "lm_head.weight",
            "model.layers.3.input_layernorm.weight",
            "classifier.weight",
            "model.layers.3.self_attn.q_proj.bias",
        ] {
            assert!(!is_linear_weight(other, &[8, 8]), "{other}");
        }
    }
}
