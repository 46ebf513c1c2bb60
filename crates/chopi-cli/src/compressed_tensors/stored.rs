//! Weights as they are read from such a folder.

use std::collections::BTreeMap;
use std::path::Path;

use chopi::{Chopi, Convention, FloatType, Packing, QParams, Scheme, Symmetry};
use safetensors::Dtype;
use serde::Deserialize;
use serde_json::Value;

use super::WEIGHT;
use super::weight::params_shape;
use crate::archive::{Archive, Tensor};
use crate::element::{FloatElement, elements, with_float};
use crate::error::{Error, Fault, Result};
use crate::format::float_type;
use crate::model::json_object;

/// How the weights of a folder are quantized, by the targets of the groups: the names of modules, or
/// [`LINEAR`] for the others.
#[derive(Clone, Debug)]
pub struct CompressedSchemes(BTreeMap<String, Scheme>);

const LINEAR: &str = "Linear";

/// The tensors of a quantized weight, found to be of the dtypes and shapes that the scheme asks for.
#[derive(Debug)]
pub struct CompressedWeight<'a> {
    /// The weight's name, `NAME.weight`.
    pub name: &'a str,
    /// The original shape, [out, in].
    pub shape: [usize; 2],
    pub scheme: &'a Scheme,
    /// The original type: that of the scales.
    pub float: FloatType,
    codes: &'a Tensor<'a>,
    packing: Option<Packing>,
    original_shape: Option<&'a Tensor<'a>>,
    scale: &'a Tensor<'a>,
    zero_point: Option<&'a Tensor<'a>>,
}

/// What stands in `config.json`.
#[derive(Deserialize)]
struct Quantization {
    quant_method: String,
    config_groups: BTreeMap<String, Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    targets: Vec<String>,
    weights: Weights,
}

#[derive(Deserialize)]
struct Weights {
    num_bits: u32,
    r#type: String,
    symmetric: bool,
    strategy: String,
    group_size: Option<usize>,
}

impl CompressedSchemes {
    /// The schemes in a `config.json`, if it has any.
    ///
    /// # Errors
    /// What is not as [`quantize`](super::quantize) writes it.
    pub fn of(config: &Path) -> Result<Option<Self>> {
        let mut json = json_object(config)?;
        let Some(quantization) = json.remove("quantization_config") else {
            return Ok(None);
        };
        let schemes = Self::parse(quantization).map_err(|reason| Error::QuantizationConfig {
            path: config.to_owned(),
            reason,
        })?;
        Ok(Some(schemes))
    }

    /// The scheme of a module's weight, if a group is for it.
    fn of_module(&self, module: &str) -> Option<&Scheme> {
        self.0.get(module).or_else(|| self.0.get(LINEAR))
    }

    fn parse(json: Value) -> std::result::Result<Self, String> {
        let Quantization {
            quant_method,
            config_groups,
        } = serde_json::from_value(json).map_err(|e| e.to_string())?;
        if quant_method != "compressed-tensors" {
            return Err(format!(
                "\"quant_method\" is {quant_method:?}, expected \"compressed-tensors\""
            ));
        }
        // A group alone is for all weights, however it names them.
        if config_groups.len() == 1 {
            let schemes = config_groups.into_values();
            let schemes = schemes.map(|group| Ok((LINEAR.to_owned(), group.weights.scheme()?)));
            return schemes
                .collect::<std::result::Result<_, String>>()
                .map(Self);
        }
        if config_groups.is_empty() {
            return Err("no group in \"config_groups\", expected at least one".to_owned());
        }
        let mut schemes = BTreeMap::new();
        for (name, Group { targets, weights }) in config_groups {
            let scheme = weights.scheme().map_err(|e| format!("{name}: {e}"))?;
            for target in targets {
                if target.starts_with("re:") {
                    return Err(format!(
                        "{name}: the target {target:?}, expected the name of a module or {LINEAR:?}"
                    ));
                }
                if schemes.contains_key(&target) {
                    return Err(format!(
                        "{name}: another group has the target {target:?} too"
                    ));
                }
                schemes.insert(target, scheme.clone());
            }
        }
        Ok(Self(schemes))
    }
}

impl Weights {
    fn scheme(self) -> std::result::Result<Scheme, String> {
        let weights = self;
        if weights.r#type != "int" || !(2..=8).contains(&weights.num_bits) {
            return Err(format!(
                "weights of {} bits of type {:?}, expected 2 to 8 bits of \"int\"",
                weights.num_bits, weights.r#type
            ));
        }
        let builder = Chopi::builder()
            .num_bits(weights.num_bits)
            .symmetric(weights.symmetric)
            .convention(Convention::COMPRESSED_TENSORS);
        let builder = match (&*weights.strategy, weights.group_size) {
            ("tensor", _) => builder,
            ("channel", _) => builder.per_channel(0),
            ("group", Some(size)) => builder.per_group(size, -1),
            (strategy, _) => {
                return Err(format!(
                    "the strategy {strategy:?}, expected \"tensor\", \"channel\" or \"group\" with \
                     a \"group_size\""
                ));
            }
        };
        builder.scheme().map_err(|e| e.to_string())
    }
}

const PACKED: &str = "_packed";
const SCALE: &str = "_scale";

impl<'a> CompressedWeight<'a> {
    /// The weight whose codes are in this tensor, if it is a quantized one.
    ///
    /// # Errors
    /// Where the file does not hold what belongs to it.
    pub fn of(
        codes: &'a Tensor<'a>,
        archive: &'a Archive<'a>,
        schemes: &'a CompressedSchemes,
    ) -> Result<Option<Self>> {
        let name = codes.name.strip_suffix(PACKED).unwrap_or(&codes.name);
        let packed = name != codes.name;
        let has_scale = archive.tensors.contains_key(&format!("{name}{SCALE}"));
        let Some(module) = name.strip_suffix(WEIGHT) else {
            return Ok(None);
        };
        if !has_scale || !packed && codes.dtype != Dtype::I8 {
            return Ok(None);
        }
        let found = match schemes.of_module(module) {
            Some(scheme) => Self::find(name, codes, archive, scheme),
            None => Err(Fault::NoGroup {
                module: module.to_owned(),
            }),
        };
        found.map(Some).map_err(|fault| archive.fault(name, fault))
    }

    fn find(
        name: &'a str,
        codes: &'a Tensor<'a>,
        archive: &'a Archive<'a>,
        scheme: &'a Scheme,
    ) -> std::result::Result<Self, Fault> {
        let get = |suffix: &str| archive.tensors.get(&format!("{name}{suffix}"));
        let need = |suffix: &str| {
            let name = format!("{name}{suffix}");
            get(suffix).ok_or(Fault::Missing { name })
        };
        if let Some(order) = get("_g_idx") {
            let name = order.name.clone();
            return Err(Fault::ActivationOrder { name });
        }
        let (packing, original_shape) = match codes.name == name {
            true => (None, None),
            false => {
                let shape = need("_shape")?;
                expect(shape, &[Dtype::I64], &[2])?;
                (Some(Packing::compressed_tensors(scheme.bits)?), Some(shape))
            }
        };
        let shape = match original_shape {
            None => codes.shape.clone(),
            Some(tensor) => {
                let lengths = elements::<i64>(tensor.data);
                lengths.iter().map(|&len| len.max(0) as usize).collect()
            }
        };
        let &[out, width] = &*shape else {
            return Err(Fault::NoMatrix { shape });
        };
        if out == 0 || width == 0 {
            return Err(Fault::NoElements);
        }
        match packing {
            None => expect(codes, &[Dtype::I8], &shape)?,
            Some(packing) => expect(codes, &[Dtype::I32], &[out, packing.row_bytes(width) / 4])?,
        }
        let groups = params_shape(scheme.granularity, [out, width]);
        let scale = need(SCALE)?;
        let floats = [Dtype::F16, Dtype::BF16, Dtype::F32, Dtype::F64];
        expect(scale, &floats, &groups)?;
        let zero_point = match (scheme.symmetry, packing) {
            (Symmetry::Symmetric, _) => None,
            (Symmetry::Asymmetric, Some(packing)) if groups.len() == 2 => {
                let zero_point = need("_zero_point")?;
                let words = packing.row_bytes(out) / 4;
                expect(zero_point, &[Dtype::I32], &[words, groups[1]])?;
                Some(zero_point)
            }
            (Symmetry::Asymmetric, _) => {
                let zero_point = need("_zero_point")?;
                expect(zero_point, &[Dtype::I8], &groups)?;
                Some(zero_point)
            }
        };
        Ok(Self {
            name,
            shape: [out, width],
            scheme,
            float: float_type(scale.dtype).unwrap_or(FloatType::F32),
            codes,
            packing,
            original_shape,
            scale,
            zero_point,
        })
    }

    /// The tensors that it consists of.
    pub fn parts(&self) -> impl Iterator<Item = &'a Tensor<'a>> {
        [self.codes, self.scale]
            .into_iter()
            .chain(self.original_shape)
            .chain(self.zero_point)
    }

    /// The dtype that the codes have in the file.
    pub fn dtype(&self) -> Dtype {
        self.codes.dtype
    }

    /// Reads the parameters.
    ///
    /// # Errors
    /// Where they are not numbers that a calibration can give.
    pub fn params(&self) -> chopi::Result<QParams> {
        let scale = with_float!(self.float, F => {
            let scale = elements::<F>(self.scale.data);
            let mut values = vec![0.0; scale.len()];
            F::widen_to_f64(&scale, &mut values);
            values
        });
        let [out, _] = self.shape;
        let zero_point = match (self.zero_point, self.packing) {
            (None, _) => vec![0; scale.len()],
            (Some(words), Some(packing)) if words.dtype == Dtype::I32 => {
                unpack_columns(packing, words.data, out)?
            }
            (Some(codes), _) => {
                let codes = elements::<i8>(codes.data);
                codes.iter().map(|&z| i64::from(z)).collect()
            }
        };
        let convention = Convention::COMPRESSED_TENSORS;
        let granularity = convention.granularity_for(self.scheme.granularity, 2);
        let shape = granularity.params_shape(&self.shape)?;
        QParams::new(
            self.scheme.clone(),
            convention,
            self.float,
            shape,
            scale,
            zero_point,
        )
    }

    /// The codes, row-major.
    ///
    /// # Errors
    /// Where there are not as many as the shape says.
    pub fn codes(&self) -> chopi::Result<Vec<i8>> {
        let [out, width] = self.shape;
        match self.packing {
            None => Ok(elements::<i8>(self.codes.data).into_owned()),
            Some(packing) => packing.unpack(self.codes.data, out, width),
        }
    }
}

/// Checks a tensor that belongs to a weight.
fn expect(
    tensor: &Tensor<'_>,
    dtypes: &[Dtype],
    shape: &[usize],
) -> std::result::Result<(), Fault> {
    if !dtypes.contains(&tensor.dtype) {
        let expected: Vec<String> = dtypes.iter().map(Dtype::to_string).collect();
        return Err(Fault::CompanionDtype {
            name: tensor.name.clone(),
            found: tensor.dtype,
            expected: expected.join(" or "),
        });
    }
    if tensor.shape != shape {
        return Err(Fault::CompanionShape {
            name: tensor.name.clone(),
            found: tensor.shape.clone(),
            expected: shape.to_vec(),
        });
    }
    Ok(())
}

/// Unpacks a matrix of `rows` rows that [`pack_columns`](super::weight::pack_columns) has packed.
fn unpack_columns(packing: Packing, packed: &[u8], rows: usize) -> chopi::Result<Vec<i64>> {
    let words = packing.row_bytes(rows) / 4;
    let columns = packed.len() / 4 / words;
    let transposed: Vec<u8> = (0..columns)
        .flat_map(|c| (0..words).map(move |w| w * columns + c))
        .flat_map(|word| packed[4 * word..4 * word + 4].iter().copied())
        .collect();
    let codes: Vec<i8> = packing.unpack(&transposed, columns, rows)?;
    let of_row = |r| (0..columns).map(move |c| c * rows + r);
    let order = (0..rows).flat_map(of_row);
    Ok(order.map(|i| i64::from(codes[i])).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::weight::pack_columns;
    use super::*;

    proptest! {
        #[test]
        fn packed_columns_come_back(
            bits in 2_u32..=8,
            rows in 1_usize..70,
            columns in 1_usize..5,
            seed in any::<u32>(),
        ) {
            let packing = Packing::compressed_tensors(bits).unwrap();
            let (low, high) = packing.bounds();
            let codes: Vec<i64> = (0..(rows * columns) as u32)
                .map(|i| {
                    let hash = i.wrapping_mul(2_654_435_761).wrapping_add(seed);
                    low + i64::from(hash >> 8) % (high - low + 1)
                })
                .collect();
            let packed = pack_columns(packing, &codes, rows).unwrap();
            prop_assert_eq!(unpack_columns(packing, &packed, rows).unwrap(), codes);
        }
    }

    #[test]
    fn a_configuration_that_is_not_understood_is_refused() {
        let weights = serde_json::json!({
            "num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 32,
        });
        let config = |change: &dyn Fn(&mut Value)| {
            let mut config = serde_json::json!({
                "quant_method": "compressed-tensors",
                "config_groups": {"group_0": {"weights": weights}},
            });
            change(&mut config);
            CompressedSchemes::parse(config)
        };
        let one = config(&|_| ()).unwrap();
        assert_eq!(one.of_module("any").unwrap().bits, 4);
        let refused = |change: &dyn Fn(&mut Value)| config(change).unwrap_err();
        let weights = |c: &mut Value, key: &str, value: Value| {
            c["config_groups"]["group_0"]["weights"][key] = value;
        };
        assert!(refused(&|c| c["quant_method"] = "gptq".into()).contains("gptq"));
        assert!(refused(&|c| weights(c, "type", "float".into())).contains("float"));
        assert!(refused(&|c| weights(c, "num_bits", 16.into())).contains("16 bits"));
        assert!(refused(&|c| weights(c, "strategy", "block".into())).contains("block"));
        assert!(refused(&|c| weights(c, "group_size", Value::Null)).contains("group_size"));
        assert!(refused(&|c| c["config_groups"] = serde_json::json!({})).contains("no group"));
        let two = |c: &mut Value, targets: [&[&str]; 2]| {
            let mut group = c["config_groups"]["group_0"].clone();
            c["config_groups"]["group_0"]["targets"] = targets[0].into();
            group["targets"] = targets[1].into();
            group["weights"]["num_bits"] = 8.into();
            c["config_groups"]["group_1"] = group;
        };
        let both = config(&|c| two(c, [&["Linear"], &["a", "b"]])).unwrap();
        let bits = |module| both.of_module(module).map(|scheme| scheme.bits);
        assert_eq!(
            (bits("a"), bits("b"), bits("c")),
            (Some(8), Some(8), Some(4))
        );
        let named = config(&|c| two(c, [&["c"], &["a", "b"]])).unwrap();
        assert!(named.of_module("d").is_none());
        assert!(refused(&|c| two(c, [&["a"], &["b", "a"]])).contains("has the target \"a\" too"));
        assert!(refused(&|c| two(c, [&["a"], &["re:.*b"]])).contains("the target \"re:.*b\""));
    }
}
