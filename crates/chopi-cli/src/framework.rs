//! The tensor frameworks that can do the work.
//!
//! A framework is one implementation of [`Framework`] here, one [`FrameworkName`], and one arm of
//! [`with_framework`]; the rest of the program is generic.

use chopi::ndarray::{IntArray, NdArray};
use chopi::{Backend, Error, FloatTensor, IntSlice, IntTensor, Result};
use ndarray::{Array, ArrayViewD, IxDyn, ShapeError};

use crate::element::FloatElement;

/// A framework whose tensors can be made from host memory.
pub trait Framework: Backend + Sized {
    type Floats<'a, F: FloatElement>: FloatTensor<Self, Owned: FloatTensor<Self>>;
    type Codes<F: FloatElement>: IntTensor<Self, Float: FloatTensor<Self>>;

    /// The tensor of these elements, row-major.
    fn floats<'a, F: FloatElement>(data: &'a [F], shape: &[usize]) -> Result<Self::Floats<'a, F>>;

    /// The tensor of these codes of numbers of type `F`, row-major.
    fn codes<F: FloatElement>(data: IntSlice<'_>, shape: &[usize]) -> Result<Self::Codes<F>>;
}

impl Framework for NdArray {
    type Floats<'a, F: FloatElement> = ArrayViewD<'a, F>;
    type Codes<F: FloatElement> = IntArray<F, IxDyn>;

    fn floats<'a, F: FloatElement>(data: &'a [F], shape: &[usize]) -> Result<ArrayViewD<'a, F>> {
        ArrayViewD::from_shape(shape, data).map_err(ndarray_error)
    }

    fn codes<F: FloatElement>(data: IntSlice<'_>, shape: &[usize]) -> Result<IntArray<F, IxDyn>> {
        chopi::match_int!(IntSlice, data, data => {
            let array = Array::from_shape_vec(shape, data.to_vec()).map_err(ndarray_error)?;
            Ok(array.into())
        })
    }
}

fn ndarray_error(source: ShapeError) -> Error {
    Error::Framework {
        backend: NdArray::NAME,
        source: source.into(),
    }
}

/// A framework that is compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameworkName {
    NdArray,
}

impl FrameworkName {
    /// The names of frameworks that a build can have.
    const KNOWN: [&str; 3] = ["ndarray", "candle", "tch"];

    /// # Errors
    /// The feature to build with, or the names that there are.
    pub fn parse(name: &str) -> std::result::Result<Self, String> {
        let compiled_in = chopi::backends().join(", ");
        match name {
            "ndarray" => Ok(Self::NdArray),
            _ if Self::KNOWN.contains(&name) => Err(format!(
                "this program was built without it: build chopi-cli with --features {name} \
                 (built in: {compiled_in})"
            )),
            _ => Err(format!("expected one of: {compiled_in}")),
        }
    }
}

/// Evaluates an expression in which `$K` is the framework of a [`FrameworkName`].
macro_rules! with_framework {
    ($name:expr, $K:ident => $body:expr) => {
        match $name {
            crate::framework::FrameworkName::NdArray => {
                type $K = chopi::ndarray::NdArray;
                $body
            }
        }
    };
}
pub(crate) use with_framework;
