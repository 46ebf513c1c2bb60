//! What the suite needs to know of a backend.

use chopi_core::backend::{Backend, Float, FloatTensor};

/// How a tensor of the suite lies in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Memory {
    /// The last axis innermost, no gaps.
    RowMajor,
    /// The axes from outermost to innermost, no gaps.
    Permuted(Vec<usize>),
    /// Row-major, with a gap behind each element.
    Strided,
    /// Row-major, part of a larger tensor: every index of the first axis but its first.
    Offset,
}

/// Makes the tensors of a backend and reads them back.
pub trait Fixture {
    /// The backend.
    type Backend: Backend;
    /// Its float tensor with elements of type `F`.
    type Tensor<F: Float>: FloatTensor<Self::Backend>;

    /// A tensor with these elements, given in row-major order, that lies in memory as `memory`
    /// says, as far as the framework can; `shape` is that of the tensor.
    fn tensor<F: Float>(data: &[F], shape: &[usize], memory: &Memory) -> Self::Tensor<F>;

    /// The shape and the elements of a float tensor, in row-major order.
    fn floats<F: Float>(
        tensor: &<Self::Tensor<F> as FloatTensor<Self::Backend>>::Owned,
    ) -> (Vec<usize>, Vec<F>);

    /// The shape and the codes of an integer tensor, in row-major order.
    fn codes<F: Float>(
        tensor: &<Self::Tensor<F> as FloatTensor<Self::Backend>>::Int,
    ) -> (Vec<usize>, Vec<i64>);

    /// An integer tensor of these codes, of a type that holds 32-bit signed integers.
    fn int_tensor<F: Float>(
        codes: &[i32],
        shape: &[usize],
    ) -> <Self::Tensor<F> as FloatTensor<Self::Backend>>::Int;
}
