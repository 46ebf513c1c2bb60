//! How a quantized weight is written.

use chopi_core::backend::{FloatType, IntType};
use chopi_core::packing::Packing;
use chopi_core::{Calibration, Granularity, Scheme, Symmetry};
use safetensors::Dtype;
use serde_json::Value;

use super::config::{Group, quantization};
use super::{WEIGHT, params_shape};
use crate::dtype::float_dtype;
use crate::error::Fault;
use crate::format::{Format, Keep, TensorPlan, plain};
use crate::header::{Header, Slot};
use crate::parts::{CodeParts, Parts, ZeroPoints};

/// How the format keeps the codes of a weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum CodeFormat {
    /// `int-quantized`: each in a byte of its own.
    IntQuantized,
    /// `pack-quantized`: without gaps, in words of 32 bits.
    PackQuantized,
}

impl CodeFormat {
    /// The one that is made for codes of so many bits.
    pub fn of(bits: u32) -> Self {
        match bits {
            8 => Self::IntQuantized,
            _ => Self::PackQuantized,
        }
    }

    /// The format's name for it.
    pub fn name(self) -> &'static str {
        match self {
            Self::IntQuantized => "int-quantized",
            Self::PackQuantized => "pack-quantized",
        }
    }

    /// What stands after the weight's name in the names of its parts, but for codes that have the weight's name.
    pub fn suffixes(self, symmetry: Symmetry) -> impl Iterator<Item = &'static str> {
        let codes: &[&str] = match self {
            Self::IntQuantized => &["_scale"],
            Self::PackQuantized => &["_packed", "_shape", "_scale"],
        };
        let zero_point = (symmetry == Symmetry::Asymmetric).then_some("_zero_point");
        codes.iter().copied().chain(zero_point)
    }

    /// Adds the parts of a weight to the header of its file.
    ///
    /// # Errors
    /// [`Fault::NoMatrix`] for other tensors than matrices; bits that cannot be packed.
    pub fn plan(
        self,
        tensor: &TensorPlan,
        scheme: &Scheme,
        float: FloatType,
        header: &mut Header,
    ) -> Result<CodeParts, Fault> {
        let [out, width] = tensor.shape[..] else {
            let shape = tensor.shape.clone();
            return Err(Fault::NoMatrix { shape });
        };
        let groups = params_shape(scheme.granularity, [out, width]);
        let mut parts = PartsOf {
            tensor,
            header,
            bytes: 0,
        };
        let packing = match self {
            Self::IntQuantized => None,
            Self::PackQuantized => Some(Packing::compressed_tensors(scheme.bits)?),
        };
        let (slot, shape, dtype) = match packing {
            None => (parts.add("", Dtype::I8, &tensor.shape)?, None, Dtype::I8),
            Some(packing) => {
                let words = packing.row_bytes(width) / 4;
                let codes = parts.add("_packed", Dtype::I32, &[out, words])?;
                let shape = parts.add("_shape", Dtype::I64, &[2])?;
                (codes, Some(shape), Dtype::I32)
            }
        };
        let scale = parts.add("_scale", float_dtype(float), &groups)?;
        let zero_point = match (scheme.symmetry, packing) {
            (Symmetry::Symmetric, _) => None,
            (_, Some(packing)) if scheme.granularity != Granularity::PerTensor => {
                let words = packing.row_bytes(out) / 4;
                let columns = groups.get(1).copied().unwrap_or(1);
                let slot = parts.add("_zero_point", Dtype::I32, &[words, columns])?;
                Some((slot, ZeroPoints::Columns { packing, rows: out }))
            }
            _ => {
                let slot = parts.add("_zero_point", Dtype::I8, &groups)?;
                Some((slot, ZeroPoints::Ints(IntType::I8)))
            }
        };
        Ok(CodeParts {
            codes: slot,
            int: IntType::I8,
            packing,
            row: width,
            shape: shape.map(|slot| (slot, [out, width])),
            scale: (scale, float),
            zero_point,
            dtype,
            bytes: parts.bytes,
            count: (out * width, groups.iter().product()),
        })
    }
}

/// The parts of a tensor, as they are added.
struct PartsOf<'a, 'h> {
    tensor: &'a TensorPlan,
    header: &'h mut Header,
    bytes: usize,
}

impl PartsOf<'_, '_> {
    fn add(&mut self, suffix: &str, dtype: Dtype, shape: &[usize]) -> Result<Slot, Fault> {
        let name = format!("{}{suffix}", self.tensor.name);
        let bytes = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        self.bytes += bytes;
        self.header.add(&name, dtype, shape, bytes)
    }
}

/// The folders of compressed-tensors, as [`CodeFormat::of`] chooses the format of each weight.
///
/// Only matrices named `*.weight` can be quantized, by [`Convention::COMPRESSED_TENSORS`](chopi_core::Convention).
/// The groups of `quantization_config` name each module; whoever knows the architecture makes patterns of these
/// with [`quantization`].
#[derive(Clone, Copy, Debug, Default)]
pub struct CompressedTensors;

impl Format for CompressedTensors {
    fn plan(&self, tensor: &TensorPlan, header: &mut Header) -> Result<Parts, Fault> {
        let refuse = |keep: String| Fault::NoSuchKeep {
            keep,
            format: "compressed-tensors",
        };
        match &tensor.keep {
            Keep::Plain(dtype) => plain(tensor, *dtype, header),
            Keep::Codes { spec, .. } => {
                if spec.convention != chopi_core::Convention::COMPRESSED_TENSORS {
                    return Err(refuse(format!("codes of {}", spec.convention.name())));
                }
                if !tensor.name.ends_with(WEIGHT) {
                    return Err(refuse("codes of what is not named *.weight".to_owned()));
                }
                let format = CodeFormat::of(spec.scheme.bits);
                let parts = format.plan(tensor, &spec.scheme, spec.dtype, header);
                parts.map(Parts::Codes)
            }
            Keep::Blocks(block_type) => Err(refuse(format!("blocks of {block_type}"))),
        }
    }

    fn describe(
        &self,
        tensors: &[TensorPlan],
        header: &mut Header,
    ) -> serde_json::Result<Option<Value>> {
        // transformers asks for it.
        header.set_metadata("format", "pt".to_owned());
        let mut groups: Vec<(&Scheme, Vec<String>)> = Vec::new();
        let mut ignore = Vec::new();
        for tensor in tensors {
            let Some(module) = tensor.name.strip_suffix(WEIGHT) else {
                continue;
            };
            let module = module.to_owned();
            match &tensor.keep {
                Keep::Codes { spec, .. } => {
                    let known = groups
                        .iter_mut()
                        .find(|(scheme, _)| *scheme == &spec.scheme);
                    match known {
                        Some((_, modules)) => modules.push(module),
                        None => groups.push((&spec.scheme, vec![module])),
                    }
                }
                Keep::Plain(_) if tensor.shape.len() == 2 => ignore.push(module),
                Keep::Plain(_) | Keep::Blocks(_) => {}
            }
        }
        let groups: Vec<Group<'_>> = groups
            .into_iter()
            .map(|(scheme, targets)| Group {
                scheme,
                observer: Calibration::MinMax,
                format: CodeFormat::of(scheme.bits),
                targets,
            })
            .collect();
        Ok(Some(quantization(&groups, &ignore)))
    }
}
