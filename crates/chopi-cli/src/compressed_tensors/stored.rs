//! Weights as they are read from such a folder.

use chopi::{Convention, QParams, Scheme, Symmetry, backend::FloatType, packing::Packing};
use safetensors::Dtype;

use super::WEIGHT;
use super::schemes::CompressedSchemes;
use super::weight::params_shape;
use crate::archive::{Archive, Tensor};
use crate::element::{FloatElement, with_float};
use crate::error::{Fault, Result};
use crate::format::float_type;

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
    /// Where they cannot be read, or are not numbers that a calibration can give.
    pub fn params(&self) -> std::result::Result<QParams, Fault> {
        let scale = with_float!(self.float, F => {
            let scale = self.scale.elements::<F>()?;
            let mut values = vec![0.0; scale.len()];
            F::widen_to_f64(&scale, &mut values);
            values
        });
        let [out, _] = self.shape;
        let zero_point = match (self.zero_point, self.packing) {
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

    /// The codes, row-major.
    ///
    /// # Errors
    /// Where they cannot be read, or are not as many as the shape says.
    pub fn codes(&self) -> std::result::Result<Vec<i8>, Fault> {
        let [out, width] = self.shape;
        match self.packing {
            None => Ok(self.codes.elements()?),
            Some(packing) => Ok(packing.unpack(&self.codes.bytes()?, out, width)?),
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
}
