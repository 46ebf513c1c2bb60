//! The smallest backend: a vector with a shape. It shows how little one needs.

use std::marker::PhantomData;

use chopi_conformance::{Fixture, Memory};
use chopi_core::{
    Result,
    backend::{
        Backend, Fill, Float, FloatSliceMut, FloatTensor, FloatType, HostFloats, HostInts,
        HostOnly, Int, IntSliceMut, IntTensor, Layout,
    },
};

struct Vectors;

impl Backend for Vectors {
    const NAME: &'static str = "vec";
}

/// Elements in row-major order and the shape that they have.
struct VecTensor<T> {
    data: Vec<T>,
    shape: Vec<usize>,
}

/// Codes, which remember the float type that they came from.
struct VecCodes<F>(VecTensor<i64>, PhantomData<F>);

impl<F: Float> FloatTensor<Vectors> for VecTensor<F> {
    type Owned = VecTensor<F>;
    type Int = VecCodes<F>;
    type Device = HostOnly<Self::Owned, Self::Int>;

    fn rank(&self) -> usize {
        self.shape.len()
    }

    fn with_host<R>(&self, f: impl FnOnce(HostFloats<'_>) -> Result<R>) -> Result<R> {
        let layout = Layout::row_major(&self.shape);
        f(HostFloats::new(F::slice(&self.data), layout)?)
    }

    fn int_like(
        &self,
        _: (i64, i64),
        layout: &Layout,
        fill: Fill<impl FnOnce(IntSliceMut<'_>) -> Result<()>>,
    ) -> Result<VecCodes<F>> {
        let (data, shape) = (fill.into_ints()?, layout.shape().to_vec());
        Ok(VecCodes(VecTensor { data, shape }, PhantomData))
    }

    fn float_like(
        &self,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<VecTensor<F>> {
        let (data, shape) = (fill.into_floats()?, layout.shape().to_vec());
        Ok(VecTensor { data, shape })
    }
}

impl<F: Float> IntTensor<Vectors> for VecCodes<F> {
    type Float = VecTensor<F>;
    type Device = HostOnly<VecTensor<F>, Self>;

    fn with_host<R>(&self, f: impl FnOnce(HostInts<'_>) -> Result<R>) -> Result<R> {
        let layout = Layout::row_major(&self.0.shape);
        f(HostInts::new(i64::slice(&self.0.data), layout)?)
    }

    fn float_like(
        &self,
        _: FloatType,
        layout: &Layout,
        fill: Fill<impl FnOnce(FloatSliceMut<'_>) -> Result<()>>,
    ) -> Result<VecTensor<F>> {
        let (data, shape) = (fill.into_floats()?, layout.shape().to_vec());
        Ok(VecTensor { data, shape })
    }
}

// That is all of the backend. What follows makes its tensors for the suite.

struct OnVectors;

impl Fixture for OnVectors {
    type Backend = Vectors;
    type Tensor<F: Float> = VecTensor<F>;

    fn tensor<F: Float>(data: &[F], shape: &[usize], _: &Memory) -> VecTensor<F> {
        VecTensor {
            data: data.to_vec(),
            shape: shape.to_vec(),
        }
    }

    fn floats<F: Float>(tensor: &VecTensor<F>) -> (Vec<usize>, Vec<F>) {
        (tensor.shape.clone(), tensor.data.clone())
    }

    fn codes<F: Float>(tensor: &VecCodes<F>) -> (Vec<usize>, Vec<i64>) {
        (tensor.0.shape.clone(), tensor.0.data.clone())
    }

    fn int_tensor<F: Float>(codes: &[i32], shape: &[usize]) -> VecCodes<F> {
        let data = codes.iter().map(|&code| code.into()).collect();
        VecCodes(
            VecTensor {
                data,
                shape: shape.to_vec(),
            },
            PhantomData,
        )
    }
}

chopi_conformance::suite!(OnVectors);
