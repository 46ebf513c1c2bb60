//! Bits for each tensor, in a file: a JSON object from names to numbers,
//! `{"layers.0.weight": 4, "layers.1.weight": 8}`.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::file;
use crate::write::Target;

/// The bits of the tensors that are to be quantized. The others stay in float.
#[derive(Debug)]
pub struct Plan {
    path: PathBuf,
    /// The bits of each tensor, by name.
    pub bits: BTreeMap<String, u32>,
}

impl Plan {
    /// # Errors
    /// Where the file cannot be read, is not such an object, names a tensor twice or none, or has bits
    /// that are not a whole number from 2 to 32.
    pub fn read(path: &Path) -> Result<Self> {
        let text = file::read(path)?;
        let bits = serde_json::from_slice::<Bits>(&text).map(|Bits(bits)| bits);
        let path = path.to_owned();
        match bits {
            Ok(bits) if bits.is_empty() => Err(Error::Plan {
                path,
                reason: "it names no tensor, expected at least one".to_owned(),
            }),
            Ok(bits) => Ok(Self { path, bits }),
            Err(error) => Err(Error::Plan {
                path,
                reason: error.to_string(),
            }),
        }
    }

    /// Writes such a file.
    ///
    /// # Errors
    /// What the system says.
    pub fn write(bits: &BTreeMap<String, u32>, target: Target) -> Result<()> {
        Ok(target.write(format!("{:#}\n", serde_json::json!(bits)).as_bytes())?)
    }

    /// The error that says what is wrong with a tensor of the plan.
    pub fn fault(&self, tensor: &str, reason: impl fmt::Display) -> Error {
        Error::Plan {
            path: self.path.clone(),
            reason: format!("tensor {tensor:?}: {reason}"),
        }
    }
}

/// The object, whose names must differ.
struct Bits(BTreeMap<String, u32>);

impl<'de> Deserialize<'de> for Bits {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        struct Entries;

        impl<'de> Visitor<'de> for Entries {
            type Value = Bits;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object from names of tensors to their bits")
            }

            fn visit_map<A: MapAccess<'de>>(
                self,
                mut entries: A,
            ) -> std::result::Result<Bits, A::Error> {
                let mut all = BTreeMap::new();
                while let Some((name, value)) = entries.next_entry::<String, Value>()? {
                    let bits = value.as_u64().and_then(|bits| u32::try_from(bits).ok());
                    let Some(bits) = bits.filter(|bits| (2..=32).contains(bits)) else {
                        return Err(A::Error::custom(format_args!(
                            "tensor {name:?}: its bits are {value}, expected a whole number from 2 \
                             to 32"
                        )));
                    };
                    if all.contains_key(&name) {
                        return Err(A::Error::custom(format_args!(
                            "tensor {name:?}: is named twice, expected once"
                        )));
                    }
                    all.insert(name, bits);
                }
                Ok(Bits(all))
            }
        }

        deserializer.deserialize_map(Entries)
    }
}
