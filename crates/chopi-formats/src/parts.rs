//! Where the parts of a quantized tensor lie in the file that is written, and how they are.

use chopi_core::QParams;
use chopi_core::backend::{Compute, Float, FloatType, IntSlice, IntType, match_int};
use chopi_core::packing::Packing;
use safetensors::Dtype;

use crate::compressed_tensors::pack_columns;
use crate::element::{FloatElement, bytes, code_bytes};
use crate::error::{Error, Fault, Result};
use crate::gguf::BlockType;
use crate::header::Slot;
use crate::tensor::{Quantized, Tensor};
use crate::with_float;
use crate::write::Output;

/// What a tensor takes in a file.
#[derive(Clone, Debug)]
pub enum Parts {
    /// Its elements as they are.
    Plain(Slot),
    /// Its codes and its parameters.
    Codes(CodeParts),
    /// Its blocks.
    Blocks(Slot, BlockType),
}

/// Where the codes and the parameters of a tensor lie.
#[derive(Clone, Debug)]
pub struct CodeParts {
    pub(crate) codes: Slot,
    /// The type of codes that are not packed.
    pub(crate) int: IntType,
    pub(crate) packing: Option<Packing>,
    /// The codes in a row: what lies at one index of the first axis.
    pub(crate) row: usize,
    /// The shape as a tensor.
    pub(crate) shape: Option<(Slot, [usize; 2])>,
    /// The scales, and their type.
    pub(crate) scale: (Slot, FloatType),
    pub(crate) zero_point: Option<(Slot, ZeroPoints)>,
    /// The dtype of the codes in the file.
    pub(crate) dtype: Dtype,
    pub(crate) bytes: usize,
    /// How many codes and how many groups there are.
    pub(crate) count: (usize, usize),
}

/// How zero points are kept.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ZeroPoints {
    Ints(IntType),
    /// Real numbers of the type of the scales.
    Reals,
    /// Codes of a matrix of so many rows, packed along the first axis.
    Columns {
        packing: Packing,
        rows: usize,
    },
}

impl Parts {
    /// Writes all of a tensor.
    ///
    /// # Errors
    /// A file that cannot be read or written; [`Fault::Planned`] for a tensor that was planned otherwise.
    pub fn write(
        &self,
        tensor: &Tensor,
        output: &Output,
        fault: &dyn Fn(Fault) -> Error,
    ) -> Result<()> {
        match (self, tensor) {
            (Self::Plain(slot), Tensor::Plain(plain)) => {
                check(*slot, plain.bytes().len(), output).map_err(fault)?;
                output.write(*slot, 0, plain.bytes())
            }
            (Self::Blocks(slot, block_type), Tensor::Blocks(blocks))
                if *block_type == blocks.block_type() =>
            {
                check(*slot, blocks.bytes().len(), output).map_err(fault)?;
                output.write(*slot, 0, blocks.bytes())
            }
            (Self::Codes(parts), Tensor::Quantized(quantized)) => {
                parts.check(quantized).map_err(fault)?;
                let codes = quantized.codes().unpacked().map_err(|e| fault(e.into()))?;
                parts.write_params(quantized.params(), output, fault)?;
                parts.write_codes(0, codes.as_slice(), output, fault)
            }
            (planned, found) => Err(fault(Fault::Planned {
                found: found.kind().to_owned(),
                planned: planned.kind().to_owned(),
            })),
        }
    }

    fn kind(&self) -> &'static str {
        match self {
            Self::Plain(_) => "plain elements",
            Self::Codes(_) => "codes",
            Self::Blocks(..) => "blocks",
        }
    }
}

/// Checks that a tensor has as many bytes as were planned.
fn check(slot: Slot, bytes: usize, output: &Output) -> std::result::Result<(), Fault> {
    let planned = output.len_of(slot);
    match planned == bytes {
        true => Ok(()),
        false => Err(Fault::Planned {
            found: format!("{bytes} bytes"),
            planned: format!("{planned} bytes"),
        }),
    }
}

impl CodeParts {
    /// The dtype of the codes in the file.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Checks that a tensor has as many codes and groups as were planned.
    fn check(&self, quantized: &Quantized) -> std::result::Result<(), Fault> {
        let codes = quantized.shape().iter().product::<usize>();
        let found = (codes, quantized.params().scale().len());
        let said = |(codes, groups)| format!("{codes} codes in {groups} groups");
        match found == self.count {
            true => Ok(()),
            false => Err(Fault::Planned {
                found: said(found),
                planned: said(self.count),
            }),
        }
    }

    /// The bytes of the codes and the parameters.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether codes are written in whole rows only, each of what lies at one index of the first axis.
    pub fn is_packed(&self) -> bool {
        self.packing.is_some()
    }

    /// Writes the parameters. `fault` makes the error of the tensor.
    ///
    /// # Errors
    /// A file that cannot be read or written; a zero point that the codes' bits do not hold.
    pub fn write_params(
        &self,
        params: &QParams,
        output: &Output,
        fault: impl Fn(Fault) -> Error,
    ) -> Result<()> {
        let (scale, float) = self.scale;
        let floats = |slot, numbers: &[f64]| with_float!(float, F => output.write(slot, 0, &bytes(&narrowed::<F>(numbers))));
        floats(scale, params.scale())?;
        if let Some((slot, shape)) = self.shape {
            output.write(slot, 0, &bytes(&shape.map(|len| len as i64)))?;
        }
        let Some((slot, kept)) = self.zero_point else {
            return Ok(());
        };
        let integers = params.zero_point();
        match kept {
            ZeroPoints::Reals => floats(slot, params.real_zero_point().unwrap_or_default()),
            ZeroPoints::Ints(int) => {
                output.write(slot, 0, &code_bytes(IntSlice::I64(integers), int))
            }
            ZeroPoints::Columns { packing, rows } => {
                let packed = pack_columns(packing, integers, rows);
                output.write(slot, 0, &packed.map_err(|e| fault(e.into()))?)
            }
        }
    }

    /// Writes codes, row-major, of which the first is element `start` of the tensor: whole rows where they are
    /// [packed](Self::is_packed). `fault` makes the error of the tensor.
    ///
    /// # Errors
    /// A file that cannot be read or written; a code that the bits do not hold, a part of a row.
    pub fn write_codes(
        &self,
        start: usize,
        codes: IntSlice<'_>,
        output: &Output,
        fault: impl Fn(Fault) -> Error,
    ) -> Result<()> {
        let Some(packing) = self.packing else {
            let bytes = code_bytes(codes, self.int);
            return output.write(self.codes, start * self.int.size(), &bytes);
        };
        let row = self.row.max(1);
        let packed = match_int!(IntSlice, codes, codes => packing.pack(codes, row));
        let packed = packed.map_err(|e| fault(e.into()))?;
        output.write(self.codes, start / row * packing.row_bytes(row), &packed)
    }
}

/// Numbers of the type already.
fn narrowed<F: FloatElement>(numbers: &[f64]) -> Vec<F> {
    let narrow = |&number: &f64| F::narrow(<F as Float>::Compute::from_f64(number));
    numbers.iter().map(narrow).collect()
}
