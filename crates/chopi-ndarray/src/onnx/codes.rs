//! Arrays for the quantizer whose codes have a static element type.

use std::marker::PhantomData;

use chopi_core::{
    Result,
    backend::{
        Fill, Float, FloatSliceMut, FloatTensor, FloatType, HostFloats, HostInts, HostOnly, Int,
        IntSliceMut, IntTensor, Layout,
    },
};
use ndarray::{Array, ArrayBase, ArrayView, Data, Dimension, OwnedRepr};

use crate::NdArray;
use crate::tensor::{from_memory, with_slice};

/// Codes of type `S::Elem`, whose values are of type `A`.
pub(super) struct TypedCodes<S: Data, A, D> {
    pub array: ArrayBase<S, D>,
    pub values: PhantomData<A>,
}

/// Floats whose codes are to be of type `Z`.
pub(super) struct QuantizedTo<'a, A, Z, D> {
    pub array: ArrayView<'a, A, D>,
    pub codes: PhantomData<Z>,
}

impl<A: Float, Z: Int, D: Dimension> FloatTensor<NdArray> for QuantizedTo<'_, A, Z, D> {
    type Owned = Array<A, D>;
    type Int = TypedCodes<OwnedRepr<Z>, A, D>;
    type Device = HostOnly<Self::Owned, Self::Int>;

    fn rank(&self) -> usize {
        self.array.ndim()
    }

    fn with_host<R>(&self, f: impl FnOnce(HostFloats<'_>) -> Result<R>) -> Result<R> {
        self.array.with_host(f)
    }

    fn int_like(
        &self,
        _: (i64, i64),
        layout: &Layout,
        fill: Fill<impl FnOnce(IntSliceMut<'_>) -> Result<()>>,
    ) -> Result<Self::Int> {
        Ok(TypedCodes {
            array: from_memory(fill.into_ints()?, layout)?,
            values: PhantomData,
        })
    }

    fn float_like(
        &self,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Self::Owned> {
        self.array.float_like(layout, fill)
    }
}

impl<S: Data<Elem: Int>, A: Float, D: Dimension> IntTensor<NdArray> for TypedCodes<S, A, D> {
    type Float = Array<A, D>;
    type Device = HostOnly<Self::Float, Self>;

    fn with_host<R>(&self, f: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R> {
        with_slice(&self.array, |data, layout| {
            f(HostInts::new(S::Elem::slice(data), layout)?)
        })
    }

    fn float_like(
        &self,
        _: FloatType,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Self::Float> {
        from_memory(fill.into_floats()?, layout)
    }
}
