//! The traits of chopi-core on arrays.

use chopi_core::{
    Error, Result,
    backend::{
        Backend, Fill, Float, FloatSliceMut, FloatTensor, FloatTensorMut, FloatType, HostFloats,
        HostFloatsMut, HostInts, HostIntsMut, HostOnly, Int, IntSliceMut, IntTensor, IntTensorMut,
        IntType, Layout, collected,
    },
};
use ndarray::{Array, ArrayBase, Data, DataMut, Dimension};

use crate::int_array::{IntArray, match_codes};

/// The framework `ndarray`.
#[derive(Clone, Copy, Debug)]
pub struct NdArray;

impl Backend for NdArray {
    const NAME: &'static str = "ndarray";
}

// So that an array of integers is told what `FloatTensor` wants and not what `Float` is.
#[diagnostic::do_not_recommend]
impl<A, S, D> FloatTensor<NdArray> for ArrayBase<S, D>
where
    A: Float,
    S: Data<Elem = A>,
    D: Dimension,
{
    type Owned = Array<A, D>;
    type Int = IntArray<A, D>;
    type Device = HostOnly<Array<A, D>, IntArray<A, D>>;

    fn rank(&self) -> usize {
        self.ndim()
    }

    fn with_host<R>(&self, f: impl FnOnce(HostFloats<'_>) -> Result<R>) -> Result<R> {
        with_slice(self, |data, layout| {
            f(HostFloats::new(A::slice(data), layout)?)
        })
    }

    fn int_like(
        &self,
        bounds: (i64, i64),
        layout: &Layout,
        fill: Fill<impl FnOnce(IntSliceMut<'_>) -> Result<()>>,
    ) -> Result<IntArray<A, D>> {
        Ok(match IntType::smallest(bounds) {
            IntType::I8 => from_memory::<i8, D>(fill.into_ints()?, layout)?.into(),
            IntType::U8 => from_memory::<u8, D>(fill.into_ints()?, layout)?.into(),
            IntType::I16 => from_memory::<i16, D>(fill.into_ints()?, layout)?.into(),
            IntType::U16 => from_memory::<u16, D>(fill.into_ints()?, layout)?.into(),
            IntType::I32 => from_memory::<i32, D>(fill.into_ints()?, layout)?.into(),
            IntType::U32 => from_memory::<u32, D>(fill.into_ints()?, layout)?.into(),
            IntType::I64 => from_memory::<i64, D>(fill.into_ints()?, layout)?.into(),
        })
    }

    fn float_like(
        &self,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Array<A, D>> {
        from_memory(fill.into_floats()?, layout)
    }
}

#[diagnostic::do_not_recommend]
impl<A: Float, D: Dimension> IntTensor<NdArray> for IntArray<A, D> {
    type Float = Array<A, D>;
    type Device = HostOnly<Array<A, D>, Self>;

    fn with_host<R>(&self, f: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R> {
        match_codes!(self.codes(), codes => {
            with_slice(codes, |data, layout| f(HostInts::new(Int::slice(data), layout)?))
        })
    }

    fn float_like(
        &self,
        _: FloatType,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<Array<A, D>> {
        from_memory(fill.into_floats()?, layout)
    }
}

impl<A, S, D> FloatTensorMut<NdArray> for ArrayBase<S, D>
where
    A: Float,
    S: DataMut<Elem = A>,
    D: Dimension,
{
    fn with_host_mut<R>(&mut self, f: impl FnOnce(HostFloatsMut<'_>) -> Result<R>) -> Result<R> {
        let (data, layout) = dense_mut(self)?;
        f(HostFloatsMut::new(data, layout)?)
    }
}

impl<I, S, D> IntTensorMut<NdArray> for ArrayBase<S, D>
where
    I: Int,
    S: DataMut<Elem = I>,
    D: Dimension,
{
    fn with_host_mut<R>(&mut self, f: impl FnOnce(HostIntsMut<'_>) -> Result<R>) -> Result<R> {
        let (data, layout) = dense_mut(self)?;
        f(HostIntsMut::new(data, layout)?)
    }
}

impl<A, D: Dimension> IntTensorMut<NdArray> for IntArray<A, D> {
    fn with_host_mut<R>(&mut self, f: impl FnOnce(HostIntsMut<'_>) -> Result<R>) -> Result<R> {
        match_codes!(self.codes_mut(), codes => codes.with_host_mut(f))
    }
}

/// The elements of a dense array, and its layout.
fn dense_mut<A, S, D>(array: &mut ArrayBase<S, D>) -> Result<(&mut [A], Layout)>
where
    S: DataMut<Elem = A>,
    D: Dimension,
{
    let gaps = |shape: &[usize]| Error::OutputLayout {
        shape: shape.to_vec(),
        expected: "densely",
    };
    // The order that most arrays have takes the least time.
    let layout = match array.is_standard_layout() {
        true => Layout::row_major(array.shape()),
        false => match Layout::dense(array.shape(), array.strides()) {
            Some(layout) => layout,
            None => return Err(gaps(array.shape())),
        },
    };
    match array.as_slice_memory_order_mut() {
        Some(data) => Ok((data, layout)),
        None => Err(gaps(layout.shape())),
    }
}

/// Calls `f` with the elements of an array as one slice, and its layout.
pub(crate) fn with_slice<A, S, D, R>(
    array: &ArrayBase<S, D>,
    f: impl FnOnce(&[A], Layout) -> Result<R>,
) -> Result<R>
where
    A: Copy,
    S: Data<Elem = A>,
    D: Dimension,
{
    // The order that most arrays have takes the least time.
    if let Some(data) = array.as_slice() {
        return f(data, Layout::row_major(array.shape()));
    }
    if let Some(layout) = Layout::dense(array.shape(), array.strides())
        && let Some(data) = array.as_slice_memory_order()
    {
        return f(data, layout);
    }
    let data = collected(array.iter().copied())?;
    f(&data, Layout::row_major(array.shape()))
}

/// The array whose elements lie in memory in this layout.
pub(crate) fn from_memory<A, D: Dimension>(data: Vec<A>, layout: &Layout) -> Result<Array<A, D>> {
    let dimension = |lengths: &[usize]| {
        let mut dimension = D::zeros(lengths.len());
        dimension.slice_mut().copy_from_slice(lengths);
        dimension
    };
    let array =
        Array::from_shape_vec(dimension(&layout.memory_shape()), data).map_err(|source| {
            Error::Framework {
                backend: NdArray::NAME,
                source: source.into(),
            }
        })?;
    Ok(match layout.inverse_order() {
        None => array,
        Some(axes) => array.permuted_axes(dimension(&axes)),
    })
}
