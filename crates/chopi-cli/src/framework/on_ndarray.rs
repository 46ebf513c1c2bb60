//! ndarray: tensors borrow the elements that were read.

use chopi::ndarray::{IntArray, NdArray};
use chopi::{
    Error, Result,
    backend::{Backend, IntSlice},
};
use ndarray::{Array, ArrayViewD, IxDyn, ShapeError};

use super::Framework;
use crate::element::FloatElement;

impl Framework for NdArray {
    type Floats<'a, F: FloatElement> = ArrayViewD<'a, F>;
    type CodeTensor<F: FloatElement> = IntArray<F, IxDyn>;

    fn floats<'a, F: FloatElement>(data: &'a [F], shape: &[usize]) -> Result<ArrayViewD<'a, F>> {
        ArrayViewD::from_shape(shape, data).map_err(framework)
    }

    fn codes<F: FloatElement>(data: IntSlice<'_>, shape: &[usize]) -> Result<IntArray<F, IxDyn>> {
        chopi::backend::match_int!(IntSlice, data, data => {
            let array = Array::from_shape_vec(shape, data.to_vec()).map_err(framework)?;
            Ok(array.into())
        })
    }
}

fn framework(source: ShapeError) -> Error {
    Error::Framework {
        backend: NdArray::NAME,
        source: source.into(),
    }
}
