//! Convolutions of codes, as products: the shapes, and the matrix whose rows are the patches.
//!
//! Tensors are row-major and lie as ONNX, PyTorch and candle have them: the input
//! \[N, C, D_1, …\], the weights \[M, C/groups, K_1, …\], the output \[N, M, O_1, …\], with one or
//! more spatial axes.
//!
//! y\[n, m, o\] = Σ_c Σ_k (x\[n, c, o·stride + k·dilation − padding\] − z_x) · (w\[m, c, k\] − z_w\[m\])
//!
//! over the channels c of m's group and all positions k of the kernel; where the index of x lies
//! outside, x is z_x, the code of 0.

mod geometry;
mod im2col;
mod layer;
mod packed;

pub use geometry::{ConvGeometry, ConvParams};
pub use layer::QuantizedConv;
pub use packed::{ConvInput, PackedConv};

#[cfg(test)]
pub(crate) use im2col::tests as im2col_tests;
