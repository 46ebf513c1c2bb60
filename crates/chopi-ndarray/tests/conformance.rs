//! The suite that every backend passes, on ndarray.

use chopi_conformance::{Fixture, Memory};
use chopi_core::backend::Float;
use chopi_ndarray::{IntArray, NdArray};
use ndarray::{ArrayD, Axis, IxDyn, Slice};

struct OnNdArray;

impl Fixture for OnNdArray {
    type Backend = NdArray;
    type Tensor<F: Float> = ndarray::ArcArray<F, IxDyn>;

    fn tensor<F: Float>(data: &[F], shape: &[usize], memory: &Memory) -> Self::Tensor<F> {
        let array = ArrayD::from_shape_vec(shape, data.to_vec()).unwrap();
        match memory {
            Memory::RowMajor => array.into_shared(),
            Memory::Permuted(order) => {
                let mut inverse = vec![0; order.len()];
                for (position, &axis) in order.iter().enumerate() {
                    inverse[axis] = position;
                }
                let memory = array.permuted_axes(order.as_slice());
                let dense = memory.as_standard_layout().into_owned();
                dense.permuted_axes(inverse).into_shared()
            }
            Memory::Strided => {
                let mut wide = shape.to_vec();
                *wide.last_mut().unwrap() *= 2;
                let mut wide = ArrayD::from_elem(wide, F::default());
                let last = Axis(shape.len() - 1);
                wide.slice_axis_mut(last, Slice::new(0, None, 2))
                    .assign(&array);
                let mut wide = wide.into_shared();
                wide.slice_axis_inplace(last, Slice::new(0, None, 2));
                wide
            }
            Memory::Offset => {
                let mut tall = shape.to_vec();
                tall[0] += 1;
                let mut tall = ArrayD::from_elem(tall, F::default());
                tall.slice_axis_mut(Axis(0), Slice::from(1..))
                    .assign(&array);
                let mut tall = tall.into_shared();
                tall.slice_axis_inplace(Axis(0), Slice::from(1..));
                tall
            }
        }
    }

    fn floats<F: Float>(tensor: &ArrayD<F>) -> (Vec<usize>, Vec<F>) {
        (tensor.shape().to_vec(), tensor.iter().copied().collect())
    }

    fn codes<F: Float>(tensor: &IntArray<F, IxDyn>) -> (Vec<usize>, Vec<i64>) {
        (
            tensor.shape().to_vec(),
            tensor.to_i64().iter().copied().collect(),
        )
    }

    fn int_tensor<F: Float>(codes: &[i32], shape: &[usize]) -> IntArray<F, IxDyn> {
        ArrayD::from_shape_vec(shape, codes.to_vec())
            .unwrap()
            .into()
    }
}

chopi_conformance::suite!(OnNdArray);
