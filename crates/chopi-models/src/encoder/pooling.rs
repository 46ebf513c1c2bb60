//! From the hidden states of a text's tokens to its embedding, as `sentence-transformers` configures it.

use std::path::{Component, Path};

use candle_core::{D, Tensor};
use serde_json::Value;

use crate::config::Config;
use crate::error::{Error, Result};

/// What makes an embedding of hidden states.
#[derive(Clone, Debug)]
pub(crate) struct Pooling {
    /// What lies one after the other in the embedding.
    modes: Vec<Mode>,
    /// Whether the embedding is divided by its length.
    normalize: bool,
    /// How many tokens of a text are used, where that is said.
    pub(crate) max_tokens: Option<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Mode {
    /// The first token's.
    First,
    /// The last token's.
    Last,
    Mean,
    Max,
    /// The sum divided by the root of the number of tokens.
    MeanSqrtLength,
    /// The mean with the weights 1, 2, 3, …
    WeightedMean,
}

/// The modes by their names in the module's configuration, in the order in which they lie.
const MODES: [(&str, Mode); 6] = [
    ("pooling_mode_cls_token", Mode::First),
    ("pooling_mode_max_tokens", Mode::Max),
    ("pooling_mode_mean_tokens", Mode::Mean),
    ("pooling_mode_mean_sqrt_len_tokens", Mode::MeanSqrtLength),
    ("pooling_mode_weightedmean_tokens", Mode::WeightedMean),
    ("pooling_mode_lasttoken", Mode::Last),
];

impl Pooling {
    /// Reads `modules.json` and what it names, in a model's folder; where it is not there, the mean of the hidden
    /// states is taken as it is.
    pub(crate) fn read(folder: &Path) -> Result<Self> {
        let mut pooling = Self {
            modes: vec![Mode::Mean],
            normalize: false,
            max_tokens: None,
        };
        if let Some(config) = Config::read_optional(folder.join("sentence_bert_config.json"))?
            && config.value("max_seq_length").is_some()
        {
            pooling.max_tokens = Some(config.size("max_seq_length")?);
        }
        let path = folder.join("modules.json");
        if !path.exists() {
            return Ok(pooling);
        }
        let malformed = |what: String| Error::Malformed {
            path: path.clone(),
            what,
        };
        let text = chopi_formats::file::read(&path)?;
        let modules: Vec<Value> =
            serde_json::from_slice(&text).map_err(|error| malformed(error.to_string()))?;
        for module in &modules {
            let of = |key: &str| module.get(key).and_then(Value::as_str).unwrap_or_default();
            let kind = of("type");
            match kind.rsplit('.').next().unwrap_or_default() {
                "Transformer" => {}
                "Pooling" => {
                    let inside = Path::new(of("path"));
                    let stays = |part: Component<'_>| {
                        matches!(part, Component::Normal(_) | Component::CurDir)
                    };
                    if !inside.components().all(stays) {
                        return Err(malformed(format!(
                            "the path of a module is {inside:?}, expected one inside of the folder"
                        )));
                    }
                    pooling.modes = modes(&folder.join(inside).join("config.json"))?;
                }
                "Normalize" => pooling.normalize = true,
                _ => {
                    let expected = "Transformer, Pooling or Normalize";
                    return Err(malformed(format!(
                        "a module is {kind:?}, expected {expected}"
                    )));
                }
            }
        }
        Ok(pooling)
    }

    /// The embedding of a text with these hidden states, \[tokens, hidden\].
    pub(crate) fn apply(&self, hidden: &Tensor) -> Result<Tensor> {
        let parts = self.modes.iter().map(|mode| mode.apply(hidden));
        let parts = parts.collect::<candle_core::Result<Vec<_>>>()?;
        let embedding = Tensor::cat(&parts, 0)?;
        if !self.normalize {
            return Ok(embedding);
        }
        let length = embedding.sqr()?.sum_keepdim(D::Minus1)?.sqrt()?;
        Ok(embedding.broadcast_div(&length.maximum(1e-12)?)?)
    }
}

impl Mode {
    fn apply(self, hidden: &Tensor) -> candle_core::Result<Tensor> {
        let (tokens, _) = hidden.dims2()?;
        match self {
            Self::First => hidden.get(0),
            Self::Last => hidden.get(tokens - 1),
            Self::Mean => hidden.mean(0),
            Self::Max => hidden.max(0),
            Self::MeanSqrtLength => hidden.sum(0)? / (tokens as f64).sqrt(),
            Self::WeightedMean => {
                let weights = Tensor::arange(1_u32, tokens as u32 + 1, hidden.device())?;
                let weights = weights.to_dtype(hidden.dtype())?.unsqueeze(1)?;
                let total = tokens as f64 * (tokens as f64 + 1.0) / 2.0;
                hidden.broadcast_mul(&weights)?.sum(0)? / total
            }
        }
    }
}

/// The modes that a pooling module's configuration asks for.
fn modes(path: &Path) -> Result<Vec<Mode>> {
    let config = Config::read(path.to_owned())?;
    let mut modes = Vec::new();
    for (key, mode) in MODES {
        if config.flag(key, false)? {
            modes.push(mode);
        }
    }
    // Newer configurations name the mode.
    let names = [
        ("cls", Mode::First),
        ("max", Mode::Max),
        ("mean", Mode::Mean),
        ("mean_sqrt_len_tokens", Mode::MeanSqrtLength),
        ("weightedmean", Mode::WeightedMean),
        ("lasttoken", Mode::Last),
    ];
    let expected = "cls, max, mean, mean_sqrt_len_tokens, weightedmean or lasttoken";
    if let Some(name) = config.optional::<String>("pooling_mode", expected)? {
        match names.iter().find(|(known, _)| *known == name) {
            Some(&(_, mode)) => modes.push(mode),
            None => return Err(Error::config("pooling_mode", name, expected)),
        }
    }
    match modes.is_empty() {
        false => Ok(modes),
        true => Err(Error::Malformed {
            path: config.path().to_owned(),
            what: "no pooling mode is true".to_owned(),
        }),
    }
}
