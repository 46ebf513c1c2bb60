//! What `config.json` and its like say.

use std::path::{Path, PathBuf};

use candle_core::Tensor;
use chopi_formats::json;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::gelu::gelu;

/// A file with one JSON object.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    path: PathBuf,
    values: Map<String, Value>,
    /// The values with the numbers as they are written in the file.
    written: Map<String, Value>,
}

impl Config {
    /// Reads a file of the model's folder.
    pub(crate) fn read(path: PathBuf) -> Result<Self> {
        let written = json::object(&path)?;
        let plain = |(key, value): (&String, &Value)| (key.clone(), json::plain(value));
        Ok(Self {
            path,
            values: written.iter().map(plain).collect(),
            written,
        })
    }

    /// Reads a file that may be absent.
    pub(crate) fn read_optional(path: PathBuf) -> Result<Option<Self>> {
        match path.exists() {
            true => Self::read(path).map(Some),
            false => Ok(None),
        }
    }

    /// The file.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// All keys with their values, the numbers as they are written in the file.
    pub(crate) fn written(&self) -> &Map<String, Value> {
        &self.written
    }

    /// The value of a key, unless it is absent or null.
    pub(crate) fn value(&self, key: &str) -> Option<&Value> {
        self.values.get(key).filter(|value| !value.is_null())
    }

    /// The value of a key, unless it is absent or null; `expected` says what else it has to be.
    pub(crate) fn optional<T: DeserializeOwned>(
        &self,
        key: &str,
        expected: &str,
    ) -> Result<Option<T>> {
        let Some(value) = self.value(key) else {
            return Ok(None);
        };
        let read = serde_json::from_value(value.clone());
        read.map(Some)
            .map_err(|_| Error::config(key, value, expected))
    }

    /// The value of a key that has to be there.
    pub(crate) fn needed<T: DeserializeOwned>(&self, key: &str, expected: &str) -> Result<T> {
        let value = self.optional(key, expected)?;
        value.ok_or_else(|| Error::config(key, "absent", expected))
    }

    /// The value of a key that has to be there, a length or a count.
    pub(crate) fn size(&self, key: &str) -> Result<usize> {
        match self.needed(key, SIZE)? {
            size if (1..=LARGEST).contains(&size) => Ok(size),
            size => Err(Error::config(key, size, SIZE)),
        }
    }

    /// The value of a key, a length or a count, or what it is where the key is absent.
    pub(crate) fn size_or(&self, key: &str, default: usize) -> Result<usize> {
        match self.value(key) {
            None => Ok(default),
            Some(_) => self.size(key),
        }
    }

    /// Whether the value of a key is true; `default` where it is absent.
    pub(crate) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        Ok(self.optional(key, "true or false")?.unwrap_or(default))
    }

    /// The value of a key that has to be there, a small positive number.
    pub(crate) fn epsilon(&self, key: &str) -> Result<f64> {
        let expected = "a number from 0 to 1";
        match self.needed(key, expected)? {
            epsilon if (0.0..=1.0).contains(&epsilon) => Ok(epsilon),
            epsilon => Err(Error::config(key, epsilon, expected)),
        }
    }

    /// The activation function that a key names.
    pub(crate) fn activation(&self, key: &str) -> Result<Activation> {
        let name: String = self.needed(key, Activation::NAMES)?;
        match &*name {
            "silu" | "swish" => Ok(Activation::Silu),
            "gelu" => Ok(Activation::Gelu),
            "gelu_new" | "gelu_pytorch_tanh" => Ok(Activation::GeluTanh),
            "relu" => Ok(Activation::Relu),
            _ => Err(Error::config(key, name, Activation::NAMES)),
        }
    }
}

/// The largest length that is believed: products of three do not overflow 64 bits.
const LARGEST: usize = 1 << 20;
const SIZE: &str = "an integer from 1 to 1048576";

/// An activation function.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Activation {
    /// x·σ(x).
    Silu,
    /// x·Φ(x).
    Gelu,
    /// x·Φ(x), approximated by a hyperbolic tangent.
    GeluTanh,
    /// max(x, 0).
    Relu,
}

impl Activation {
    const NAMES: &str = "silu, gelu, gelu_new, gelu_pytorch_tanh or relu";

    /// The function of each element.
    pub(crate) fn apply(self, x: &Tensor) -> candle_core::Result<Tensor> {
        match self {
            Self::Silu => x.silu(),
            Self::Gelu => gelu(x),
            Self::GeluTanh => x.gelu(),
            Self::Relu => x.relu(),
        }
    }
}
