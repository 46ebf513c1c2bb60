//! Weights as they are read from such a folder.

use std::ops::Range;

use chopi_core::{Convention, QParams, Scheme, Symmetry, backend::FloatType, packing::Packing};
use safetensors::Dtype;

use super::schemes::CompressedSchemes;
use super::{WEIGHT, params_shape, unpack_columns};
use crate::archive::{Archive, Entry};
use crate::codes::{Codes, Ints, PackedCodes, unpacked_rows};
use crate::dtype::float_type;
use crate::element::FloatElement;
use crate::error::{Fault, Result};
use crate::with_float;

/// The tensors of a quantized weight, found to be of the dtypes and shapes that the scheme asks for.
#[derive(Clone, Debug)]
pub struct CompressedWeight {
    /// The weight's name, `NAME.weight`.
    pub name: String,
    /// The original shape, [out, in].
    pub shape: [usize; 2],
    /// The scheme of its group.
    pub scheme: Scheme,
    /// The original type: that of the scales.
    pub float: FloatType,
    codes: Entry,
    packing: Option<Packing>,
    original_shape: Option<Entry>,
    scale: Entry,
    zero_point: Option<Entry>,
}

const PACKED: &str = "_packed";
const SCALE: &str = "_scale";

impl CompressedWeight {
    /// The weight whose codes are in this tensor, if it is a quantized one.
    ///
    /// # Errors
    /// Where the file does not hold what belongs to it.
    pub fn of(
        codes: &Entry,
        archive: &Archive,
        schemes: &CompressedSchemes,
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
        name: &str,
        codes: &Entry,
        archive: &Archive,
        scheme: &Scheme,
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
                let lengths = tensor.elements::<i64>()?;
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
            name: name.to_owned(),
            shape: [out, width],
            scheme: scheme.clone(),
            float: float_type(scale.dtype).unwrap_or(FloatType::F32),
            codes: codes.clone(),
            packing,
            original_shape: original_shape.cloned(),
            scale: scale.clone(),
            zero_point: zero_point.cloned(),
        })
    }

    /// The tensors that it consists of.
    pub fn parts(&self) -> impl Iterator<Item = &Entry> {
        [&self.codes, &self.scale]
            .into_iter()
            .chain(&self.original_shape)
            .chain(&self.zero_point)
    }

    /// How the codes are packed, if they are.
    pub fn packing(&self) -> Option<Packing> {
        self.packing
    }

    /// Reads the parameters.
    ///
    /// # Errors
    /// Where they cannot be read, or are not numbers that a calibration can give.
    pub fn params(&self) -> std::result::Result<QParams, Fault> {
        let scale = with_float!(self.float, F => {
            let scale = self.scale.elements::<F>()?;
            let mut values = vec![0.0; scale.len()];
            F::widen_to_f64(&scale, &mut values);
            values
        });
        let [out, _] = self.shape;
        let zero_point = match (&self.zero_point, self.packing) {
            (None, _) => vec![0; scale.len()],
            (Some(words), Some(packing)) if words.dtype == Dtype::I32 => {
                unpack_columns(packing, &words.bytes()?, out)?
            }
            (Some(codes), _) => {
                let codes = codes.elements::<i8>()?;
                codes.iter().map(|&z| i64::from(z)).collect()
            }
        };
        let convention = Convention::COMPRESSED_TENSORS;
        let granularity = convention.granularity_for(self.scheme.granularity, 2);
        let shape = granularity.params_shape(&self.shape)?;
        Ok(QParams::new(
            self.scheme.clone(),
            convention,
            self.float,
            shape,
            scale,
            zero_point,
        )?)
    }

    /// Reads some of the codes: whole rows where they are packed.
    pub(crate) fn codes_of(&self, elements: Range<usize>) -> std::result::Result<Ints, Fault> {
        match self.packing {
            None => Ok(Ints::I8(self.codes.elements_of(elements)?)),
            Some(packing) => unpacked_rows(&self.codes, packing, self.shape[1], elements),
        }
    }

    /// The codes, row-major.
    ///
    /// # Errors
    /// Where they cannot be read, or are not as many as the shape says.
    pub fn codes(&self) -> std::result::Result<Codes, Fault> {
        let [out, width] = self.shape;
        match self.packing {
            None => Ok(Codes::Ints(Ints::I8(self.codes.elements()?))),
            Some(packing) => {
                let packed = PackedCodes::new(packing, self.codes.bytes()?, out, width)?;
                Ok(Codes::Packed(packed))
            }
        }
    }
}

/// Checks a tensor that belongs to a weight.
fn expect(tensor: &Entry, dtypes: &[Dtype], shape: &[usize]) -> std::result::Result<(), Fault> {
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
