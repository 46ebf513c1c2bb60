//! What `config.json` says of a decoder.

use serde_json::Value;

use super::rotary::{Rotary, Scaling};
use crate::config::{Activation, Config};
use crate::error::{Error, Result};
use crate::save::TIED;

/// The shape of a decoder, and what is special in its `model_type`.
#[derive(Clone, Debug)]
pub(crate) struct DecoderConfig {
    pub(crate) vocabulary: usize,
    pub(crate) hidden: usize,
    pub(crate) intermediate: usize,
    pub(crate) layers: usize,
    pub(crate) heads: usize,
    pub(crate) kv_heads: usize,
    pub(crate) head: usize,
    pub(crate) positions: usize,
    pub(crate) epsilon: f64,
    pub(crate) activation: Activation,
    pub(crate) rotary: Rotary,
    /// Whether the head has the weights of the embedding.
    pub(crate) tied: bool,
    /// Whether the projections to queries, keys and values have a bias.
    pub(crate) qkv_bias: bool,
    /// Whether the projection of what attention gives has a bias.
    pub(crate) output_bias: bool,
    /// Whether the linear layers between have a bias.
    pub(crate) mlp_bias: bool,
    /// Whether queries and keys are normalized, head by head.
    pub(crate) qk_norm: bool,
    /// For each layer, to how many tokens before and with its own a token attends, where not to all.
    pub(crate) windows: Vec<Option<usize>>,
}

/// The `model_type`s of decoders.
pub(crate) const MODEL_TYPES: [&str; 4] = ["llama", "mistral", "qwen2", "qwen3"];

impl DecoderConfig {
    /// Reads the configuration of a `model_type` among [`MODEL_TYPES`].
    pub(crate) fn new(config: &Config, model_type: &str) -> Result<Self> {
        let (hidden, heads) = (
            config.size("hidden_size")?,
            config.size("num_attention_heads")?,
        );
        let kv_heads = config.size_or("num_key_value_heads", heads)?;
        if !heads.is_multiple_of(kv_heads) {
            let expected = format!("a divisor of num_attention_heads, {heads}");
            return Err(Error::config("num_key_value_heads", kv_heads, expected));
        }
        let default_head = match model_type {
            "qwen3" => 128,
            _ => hidden / heads,
        };
        let head = config.size_or("head_dim", default_head)?;
        if !head.is_multiple_of(2) {
            return Err(Error::config("head_dim", head, "an even number"));
        }
        let layers = config.size("num_hidden_layers")?;
        let attention_bias = match model_type {
            "llama" | "qwen3" => config.flag("attention_bias", false)?,
            _ => false,
        };
        Ok(Self {
            vocabulary: config.size("vocab_size")?,
            hidden,
            intermediate: config.size("intermediate_size")?,
            layers,
            heads,
            kv_heads,
            head,
            positions: config.size("max_position_embeddings")?,
            epsilon: config.epsilon("rms_norm_eps")?,
            activation: config.activation("hidden_act")?,
            rotary: rotary(config, head)?,
            tied: config.flag(TIED, false)?,
            qkv_bias: attention_bias || model_type == "qwen2",
            output_bias: attention_bias,
            mlp_bias: model_type == "llama" && config.flag("mlp_bias", false)?,
            qk_norm: model_type == "qwen3",
            windows: windows(config, model_type, layers)?,
        })
    }
}

/// The rotation of queries and keys, from `rope_parameters`, or from the older `rope_theta` and
/// `rope_scaling`.
fn rotary(config: &Config, head: usize) -> Result<Rotary> {
    let (key, values) = match config.value("rope_parameters") {
        Some(values) => ("rope_parameters", Some(values)),
        None => ("rope_scaling", config.value("rope_scaling")),
    };
    let of = |name: &str| values.and_then(|values| values.get(name));
    let number = |name: &str| {
        let value = of(name).unwrap_or(&Value::Null);
        let number = value
            .as_f64()
            .filter(|&number| number > 0.0 && number.is_finite());
        let key = format!("{key}.{name}");
        number.ok_or_else(|| Error::config(key, value, "a positive number"))
    };
    let theta = match of("rope_theta") {
        Some(_) => number("rope_theta")?,
        None => config
            .optional("rope_theta", "a positive number")?
            .unwrap_or(10_000.0),
    };
    if !(theta > 0.0 && theta < f64::INFINITY) {
        return Err(Error::config("rope_theta", theta, "a positive number"));
    }
    if let Some(part) = of("partial_rotary_factor").or(config.value("partial_rotary_factor"))
        && part.as_f64() != Some(1.0)
    {
        return Err(Error::config("partial_rotary_factor", part, "1"));
    }
    let kind = of("rope_type").or_else(|| of("type"));
    let kind = kind.map_or(Some("default"), Value::as_str);
    let scaling = match kind {
        Some("default") => Scaling::None,
        Some("linear") => Scaling::Linear {
            factor: number("factor")?,
        },
        Some("llama3") => {
            let (low, high) = (number("low_freq_factor")?, number("high_freq_factor")?);
            if low >= high {
                let expected = format!("more than low_freq_factor, {low}");
                let key = format!("{key}.high_freq_factor");
                return Err(Error::config(key, high, expected));
            }
            Scaling::Llama3 {
                factor: number("factor")?,
                low,
                high,
                original: number("original_max_position_embeddings")?,
            }
        }
        _ => {
            let found = of("rope_type")
                .or_else(|| of("type"))
                .unwrap_or(&Value::Null);
            let key = format!("{key}.rope_type");
            return Err(Error::config(key, found, "default, linear or llama3"));
        }
    };
    Ok(Rotary::new(head, theta, scaling))
}

/// The window of each layer.
fn windows(config: &Config, model_type: &str, layers: usize) -> Result<Vec<Option<usize>>> {
    let window = match (model_type, config.value("sliding_window")) {
        ("llama", _) | (_, None) => None,
        ("mistral", _) => Some(config.size("sliding_window")?),
        (_, Some(_)) if config.flag("use_sliding_window", false)? => {
            Some(config.size("sliding_window")?)
        }
        _ => None,
    };
    if model_type == "mistral" || window.is_none() {
        return Ok(vec![window; layers]);
    }
    let expected = "full_attention or sliding_attention for each layer";
    let types: Vec<String> = match config.optional("layer_types", expected)? {
        Some(types) => types,
        None => {
            let first: usize = config.needed("max_window_layers", "a number of layers")?;
            let name = |layer| match layer >= first {
                true => "sliding_attention",
                false => "full_attention",
            };
            (0..layers).map(|layer| name(layer).to_owned()).collect()
        }
    };
    let each = types.iter().map(|name| match &**name {
        "full_attention" => Ok(None),
        "sliding_attention" => Ok(window),
        _ => Err(Error::config("layer_types", name, expected)),
    });
    let each = each.collect::<Result<Vec<_>>>()?;
    match each.len() == layers {
        true => Ok(each),
        false => {
            let expected = format!("one for each of the {layers} layers");
            let found = format!("{} names", each.len());
            Err(Error::config("layer_types", found, expected))
        }
    }
}
