//! The quantized model, in either format.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use chopi::ndarray::NdArray;
use chopi::{
    QParams, Scheme,
    backend::{FloatTensor, FloatType, Int},
};
use safetensors::Dtype;

use crate::archive::{Archive, Tensor};
use crate::compressed_tensors::{CompressedSchemes, CompressedWeight};
use crate::element::{FloatElement, with_int};
use crate::error::{Error, Fault, Result};
use crate::format::{Record, Stored, float_dtype};
use crate::framework::Framework;
use crate::model::Model;

/// The files of a quantized model, and what they say of themselves.
#[derive(Debug)]
pub struct QuantizedModel<'a> {
    files: Vec<(&'a Archive<'a>, Option<Record>)>,
    compressed: Option<CompressedSchemes>,
}

/// How a tensor is kept.
#[derive(Debug)]
pub struct Kept<'a> {
    /// The file that it is in.
    pub path: &'a Path,
    form: Form<'a>,
}

#[derive(Debug)]
enum Form<'a> {
    /// A tensor that was not quantized.
    Plain(&'a Tensor<'a>),
    /// A tensor in chopi's format, as `chopi dequantize` reads it.
    Chopi(Stored<'a>),
    /// A weight as compressed-tensors defines it.
    Compressed(CompressedWeight<'a>),
}

impl<'a> QuantizedModel<'a> {
    /// # Errors
    /// A model that is not quantized; what is wrong with what it says of itself.
    pub fn read(model: &Model, archives: &'a [Archive<'a>]) -> Result<Self> {
        let files = archives
            .iter()
            .map(|archive| Ok((archive, Record::of(archive)?)))
            .collect::<Result<Vec<_>>>()?;
        let compressed = match model.config_path() {
            Some(config) => CompressedSchemes::of(&config)?,
            None => None,
        };
        if compressed.is_none() && files.iter().all(|(_, record)| record.is_none()) {
            let path = model.input.clone();
            return Err(Error::NoQuantizedModel { path });
        }
        Ok(Self { files, compressed })
    }

    /// The tensors, by the names that they have in the float model.
    ///
    /// # Errors
    /// Where the files do not hold what they say.
    pub fn tensors(&'a self) -> Result<BTreeMap<&'a str, Kept<'a>>> {
        let mut tensors = BTreeMap::new();
        for (archive, record) in &self.files {
            let mut parts = BTreeSet::new();
            let mut forms = Vec::new();
            for name in record.iter().flat_map(Record::names) {
                let Some(record) = record else { continue };
                let stored = Stored::find(archive, record, name)?;
                parts.insert(&*stored.codes.name);
                parts.extend(stored.companions().map(|part| &*part.name));
                forms.push((name, Form::Chopi(stored)));
            }
            if let (None, Some(schemes)) = (record, &self.compressed) {
                for codes in archive.tensors.values() {
                    if let Some(weight) = CompressedWeight::of(codes, archive, schemes)? {
                        parts.extend(weight.parts().map(|part| &*part.name));
                        forms.push((weight.name, Form::Compressed(weight)));
                    }
                }
            }
            let plain = archive.tensors.values();
            let plain = plain.filter(|tensor| !parts.contains(&*tensor.name));
            forms.extend(plain.map(|tensor| (&*tensor.name, Form::Plain(tensor))));
            let path = archive.path;
            tensors.extend(
                forms
                    .into_iter()
                    .map(|(name, form)| (name, Kept { path, form })),
            );
        }
        Ok(tensors)
    }
}

impl<'a> Kept<'a> {
    /// The original dtype and shape.
    fn original(&self) -> (Dtype, &[usize]) {
        match &self.form {
            Form::Plain(tensor) => (tensor.dtype, &tensor.shape),
            Form::Chopi(stored) => (float_dtype(stored.float), &stored.codes.shape),
            Form::Compressed(weight) => (float_dtype(weight.float), &weight.shape),
        }
    }

    /// Checks that a tensor can be the original of this one.
    ///
    /// # Errors
    /// Where it has another dtype or shape.
    pub fn check(&self, tensor: &Tensor<'_>) -> std::result::Result<(), Fault> {
        let (dtype, shape) = self.original();
        if (dtype, shape) == (tensor.dtype, &*tensor.shape) {
            return Ok(());
        }
        let said = |dtype: Dtype, shape: &[usize]| format!("{dtype} {shape:?}");
        Err(Fault::OtherTensor {
            found: said(tensor.dtype, &tensor.shape),
            expected: said(dtype, shape),
            path: self.path.to_owned(),
        })
    }

    /// The tensor, if it is not quantized.
    pub fn plain(&self) -> Option<&'a Tensor<'a>> {
        match self.form {
            Form::Plain(tensor) => Some(tensor),
            Form::Chopi(_) | Form::Compressed(_) => None,
        }
    }

    /// The scheme of a quantized tensor, and the dtype of its codes.
    pub fn scheme(&self) -> Option<(&Scheme, Dtype)> {
        match &self.form {
            Form::Plain(_) => None,
            Form::Chopi(stored) => Some((stored.scheme, stored.codes.dtype)),
            Form::Compressed(weight) => Some((weight.scheme, weight.dtype())),
        }
    }

    /// The bytes of all that is kept.
    pub fn len(&self) -> usize {
        match &self.form {
            Form::Plain(tensor) => tensor.data.len(),
            Form::Chopi(stored) => stored.len(),
            Form::Compressed(weight) => weight.parts().map(|part| part.data.len()).sum(),
        }
    }

    /// The parameters of a quantized tensor.
    ///
    /// # Errors
    /// Where they cannot be read, or are not numbers that a calibration can give.
    pub fn params(&self) -> std::result::Result<Option<(QParams, FloatType)>, Fault> {
        let params = match &self.form {
            Form::Plain(_) => return Ok(None),
            Form::Chopi(stored) => stored.params()?,
            Form::Compressed(weight) => weight.params()?,
        };
        let float = params.float_type();
        Ok(Some((params, float)))
    }

    /// The values of the codes of a quantized tensor, row-major; of one that is not, its elements.
    ///
    /// # Errors
    /// A code out of range; a file that cannot be read.
    pub fn dequantized<F: FloatElement>(
        &self,
        params: &QParams,
    ) -> std::result::Result<Vec<F>, Fault> {
        let codes = match &self.form {
            Form::Plain(tensor) => return tensor.elements(),
            Form::Chopi(Stored { codes, .. }) => with_int!(params.int_type(), I => {
                let numbers = codes.elements::<I>()?;
                NdArray::codes::<F>(Int::slice(&numbers), &codes.shape)?
            }),
            Form::Compressed(weight) => {
                NdArray::codes::<F>(Int::slice(&weight.codes()?), &weight.shape)?
            }
        };
        let values = params.dequantize(&codes)?;
        Ok(FloatTensor::with_host(&values, |host| {
            Ok(F::from_slice(host.data()).unwrap_or_default().to_vec())
        })?)
    }
}
