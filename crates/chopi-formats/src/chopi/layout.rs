//! How a quantized tensor is written.

use chopi_core::backend::IntType;
use chopi_core::convention;
use safetensors::Dtype;
use serde_json::Value;

use super::record::{KEY, Record, Spec};
use super::{Names, packing};
use crate::codes::rows_of;
use crate::dtype::{float_dtype, int_dtype};
use crate::error::Fault;
use crate::format::{Format, Keep, TensorPlan, plain};
use crate::header::Header;
use crate::parts::{CodeParts, Parts, ZeroPoints};

/// chopi's own layout: a safetensors file with a [`Record`] in its metadata.
#[derive(Clone, Copy, Debug, Default)]
pub struct Chopi;

impl Spec {
    /// The spec of a tensor that is to be written: codes of 2 to 7 bits are packed.
    pub fn new(
        scheme: chopi_core::Scheme,
        convention: chopi_core::Convention,
        dtype: chopi_core::backend::FloatType,
    ) -> Self {
        Self {
            packed: packing(&scheme).is_some(),
            scheme,
            convention,
            dtype,
        }
    }
}

impl Format for Chopi {
    fn plan(&self, tensor: &TensorPlan, header: &mut Header) -> Result<Parts, Fault> {
        match &tensor.keep {
            Keep::Plain(dtype) => plain(tensor, *dtype, header),
            Keep::Codes { spec, zero_point } => {
                codes(tensor, spec, *zero_point, header).map(Parts::Codes)
            }
            Keep::Blocks(block_type) => Err(Fault::NoSuchKeep {
                keep: format!("blocks of {block_type}"),
                format: "chopi",
            }),
        }
    }

    fn describe(
        &self,
        tensors: &[TensorPlan],
        header: &mut Header,
    ) -> serde_json::Result<Option<Value>> {
        let quantized = tensors.iter().filter_map(|tensor| match &tensor.keep {
            Keep::Codes { spec, .. } => {
                Some((tensor.name.clone(), tensor.shape.clone(), spec.clone()))
            }
            Keep::Plain(_) | Keep::Blocks(_) => None,
        });
        let record = serde_json::to_string(&Record::new(quantized))?;
        header.set_metadata(KEY, record);
        Ok(None)
    }
}

fn codes(
    tensor: &TensorPlan,
    spec: &Spec,
    zero_point: IntType,
    header: &mut Header,
) -> Result<CodeParts, Fault> {
    let (scheme, shape) = (&spec.scheme, &*tensor.shape);
    let granularity = spec
        .convention
        .granularity_for(scheme.granularity, shape.len());
    let params_shape = granularity.params_shape(shape)?;
    let names = Names::new(&tensor.name);
    let int = IntType::smallest((scheme.qmin, scheme.qmax));
    let (rows, row) = rows_of(shape);
    let packing = packing(scheme).filter(|_| spec.packed);
    let mut bytes = 0;
    let mut add = |name: &str, dtype: Dtype, shape: &[usize]| {
        let len = shape.iter().product::<usize>() * dtype.bitsize() / 8;
        bytes += len;
        header.add(name, dtype, shape, len)
    };
    let (slot, dtype) = match packing {
        None => (add(&names.codes, int_dtype(int), shape)?, int_dtype(int)),
        Some(packing) => {
            let packed = [rows, packing.row_bytes(row)];
            (add(&names.codes, Dtype::U8, &packed)?, Dtype::U8)
        }
    };
    let float = spec.dtype.compute();
    let scale = add(&names.scale, float_dtype(float), &params_shape)?;
    let kept = match spec.convention.zero_points(scheme) {
        convention::ZeroPoints::None => None,
        convention::ZeroPoints::Integers => {
            Some((int_dtype(zero_point), ZeroPoints::Ints(zero_point)))
        }
        convention::ZeroPoints::Real => Some((float_dtype(float), ZeroPoints::Reals)),
    };
    let zero_point = match kept {
        None => None,
        Some((dtype, kept)) => Some((add(&names.zero_point, dtype, &params_shape)?, kept)),
    };
    Ok(CodeParts {
        codes: slot,
        int,
        packing,
        row,
        shape: None,
        scale: (scale, float),
        zero_point,
        dtype,
        bytes,
        count: (rows * row, params_shape.iter().product()),
    })
}
