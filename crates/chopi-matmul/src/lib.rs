//! Products of quantized matrices, computed exactly in integers.
//!
//! ```
//! # mod chopi { pub use chopi_matmul as matmul; }
//! use chopi::matmul::{Matrix, Order, PackedMatrix};
//!
//! // Weights, [outputs, inputs], packed once.
//! let weights = [1_i8, -2, 3, -4, 5, -6];
//! let packed = PackedMatrix::new(&weights[..], 3, 2, Order::ColumnMajor, &[0])?;
//!
//! // Activations: one row, whose zero point is 10.
//! let x = Matrix::new(&[11_u8, 12, 13][..], 1, 3, &[10])?;
//! let mut y = [0; 2];
//! packed.multiply(&x, &mut y)?;
//! assert_eq!(y, [1 - 4 + 9, -4 + 10 - 18]);
//! # Ok::<(), chopi_matmul::Error>(())
//! ```
//!
//! | what | how |
//! |---|---|
//! | 8-bit codes, signed or unsigned on either side, zero points for all or for each row and column | [`PackedMatrix`]: to `i32`, to floats, or to 8-bit codes |
//! | weights of few bits with a scale for each group | [`GroupedMatrix`] |
//! | linear layers with integer weights, floats in and out, on tensors of any framework | [`QuantizedLinear`] |
//! | integer-only linear layers, codes in and out, with no float operation | [`IntegerOnlyLinear`] |
//! | convolutions of codes; with floats in and out | [`conv::PackedConv`]; [`conv::QuantizedConv`] |
//! | embeddings with an integer table, indices in and floats out | [`QuantizedEmbedding`] |
//! | from sums to codes, by a float multiplier or as gemmlowp and TensorFlow Lite do it | [`requantize`] |
//! | operands of 2 to 16 bits and accumulators of 2 to 32 bits, as in hardware | [`emulate`] |
//!
//! The sums are exact, or the product is refused: a depth at which an `i32` sum could overflow is an
//! [`Error::Overflow`]. Every CPU gives the same bits. The kernel is chosen at run time: AVX-512 VNNI, AVX-512,
//! AVX-VNNI or AVX2 on x86-64; NEON, with dot products where the CPU has them, on 64-bit ARM; plain Rust elsewhere.
//! No kernel uses a saturating instruction. With the feature `rayon`, large products run on the threads of the
//! current pool.
//!
//! Everything but the layers works on slices of host memory.

mod broadcast;
mod codes;
pub mod conv;
mod convert;
mod embedding;
pub mod emulate;
mod error;
mod grouped;
mod integer_only_linear;
mod kernel;
mod linear;
mod output;
mod packed;
mod product;
pub mod requantize;
mod tiled;
mod walk;
mod window;

pub use codes::{CodeSlice, Matrix};
pub use embedding::QuantizedEmbedding;
pub use error::{Error, Result};
pub use grouped::GroupedMatrix;
pub use integer_only_linear::{FixedRounding, IntegerOnlyLinear};
pub use linear::{Activations, QuantizedLinear};
pub use output::{Dequantize, Requantize};
pub use packed::{Order, PackedMatrix};
