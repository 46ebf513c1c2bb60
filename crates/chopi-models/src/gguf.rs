//! Decoders in GGUF files, by the names and in the layout that llama.cpp gives their tensors.

use std::collections::BTreeMap;

use chopi_formats::gguf::Value;
use chopi_formats::{Fault, Plain, Tensor};

use crate::config::Config;
use crate::error::{Error, Result};

/// Where a GGUF file has the tensors of a decoder.
#[derive(Debug)]
pub(crate) struct Layout {
    /// The name in the file of the tensor that Hugging Face calls so.
    names: BTreeMap<String, String>,
    /// The heads of queries and of keys, where the rows of each head are kept as pairs that are rotated together.
    pairs: Option<[usize; 2]>,
}

/// What llama.cpp calls tensors outside of the layers, and Hugging Face.
const OUTSIDE: [(&str, &str); 3] = [
    ("token_embd", "model.embed_tokens"),
    ("output_norm", "model.norm"),
    ("output", "lm_head"),
];
/// What both call tensors of a layer.
const IN_LAYER: [(&str, &str); 11] = [
    ("attn_norm", "input_layernorm"),
    ("attn_q", "self_attn.q_proj"),
    ("attn_k", "self_attn.k_proj"),
    ("attn_v", "self_attn.v_proj"),
    ("attn_output", "self_attn.o_proj"),
    ("attn_q_norm", "self_attn.q_norm"),
    ("attn_k_norm", "self_attn.k_norm"),
    ("ffn_norm", "post_attention_layernorm"),
    ("ffn_gate", "mlp.gate_proj"),
    ("ffn_up", "mlp.up_proj"),
    ("ffn_down", "mlp.down_proj"),
];

impl Layout {
    /// The layout of the model in `files`, unless it has the names of Hugging Face already.
    ///
    /// # Errors
    /// A configuration without heads.
    pub(crate) fn of(files: &chopi_formats::Model, config: &Config) -> Result<Option<Self>> {
        let Some(metadata) = files.gguf_metadata() else {
            return Ok(None);
        };
        let names: BTreeMap<String, String> = files
            .tensors()
            .filter_map(|tensor| Some((hugging_face(tensor.name())?, tensor.name().to_owned())))
            .collect();
        if names.is_empty() {
            return Ok(None);
        }
        let is_llama = matches!(metadata.get("general.architecture"), Some(Value::String(name)) if name == "llama");
        let pairs = match is_llama {
            true => {
                let heads = config.size("num_attention_heads")?;
                Some([heads, config.size_or("num_key_value_heads", heads)?])
            }
            false => None,
        };
        Ok(Some(Self { names, pairs }))
    }

    /// All names of Hugging Face, with the names in the file.
    pub(crate) fn names(&self) -> &BTreeMap<String, String> {
        &self.names
    }

    /// A tensor as Hugging Face has it: floats, and the rows of a head in two halves, of which the i-th of the first
    /// is rotated with the i-th of the second. llama.cpp keeps the two rows of a pair beside each other.
    pub(crate) fn restored(&self, name: &str, tensor: Tensor) -> Result<Tensor> {
        let values = |fault: Fault| Error::Values {
            name: name.to_owned(),
            fault: Box::new(fault),
        };
        let plain = tensor.dequantize().map_err(values)?;
        let heads = self.pairs.and_then(|[queries, keys]| {
            let is = |of: &str| name.contains(&format!("self_attn.{of}."));
            match (is("q_proj"), is("k_proj")) {
                (true, _) => Some(queries),
                (_, true) => Some(keys),
                _ => None,
            }
        });
        let Some(heads) = heads else {
            return Ok(Tensor::Plain(plain));
        };
        let (dtype, shape) = (plain.dtype(), plain.shape().to_vec());
        let rows = shape.first().copied().unwrap_or_default();
        if rows == 0 || !rows.is_multiple_of(2 * heads) {
            let expected = format!("a divisor of half the {rows} rows of {name}");
            return Err(Error::config("num_attention_heads", heads, expected));
        }
        let (head, row) = (rows / heads, plain.bytes().len() / rows);
        let mut bytes = Vec::with_capacity(plain.bytes().len());
        for to in 0..rows {
            let (start, half, i) = (to / head * head, to % head / (head / 2), to % (head / 2));
            let from = start + 2 * i + half;
            bytes.extend_from_slice(&plain.bytes()[from * row..][..row]);
        }
        Ok(Tensor::Plain(
            Plain::new(dtype, shape, bytes).map_err(values)?,
        ))
    }
}

/// What Hugging Face calls a tensor of a GGUF file.
fn hugging_face(name: &str) -> Option<String> {
    let (path, kind) = name.rsplit_once('.')?;
    let find = |table: &[(&'static str, &'static str)], of: &str| {
        table
            .iter()
            .find(|(gguf, _)| *gguf == of)
            .map(|&(_, name)| name)
    };
    let Some(rest) = path.strip_prefix("blk.") else {
        return Some(format!("{}.{kind}", find(&OUTSIDE, path)?));
    };
    let (layer, of) = rest.split_once('.')?;
    let layer: usize = layer.parse().ok()?;
    Some(format!(
        "model.layers.{layer}.{}.{kind}",
        find(&IN_LAYER, of)?
    ))
}
