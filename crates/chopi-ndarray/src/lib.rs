//! chopi on [`ndarray`] arrays and views of any dimension type, of `f32`, `f64`,
//! [`f16`](chopi_core::backend::f16) and [`bf16`](chopi_core::backend::bf16).
//!
//! ```
//! # use chopi_core as chopi;
//! use chopi::Chopi;
//! use ndarray::array;
//!
//! let x = array![[0.1_f32, -0.2], [0.3, 0.4]];
//! let q = Chopi::new(8)?.quantize(&x.t())?;
//! assert_eq!(q.to_string(), "[[128, 212],\n [0, 255]]");
//! # Ok::<(), chopi_core::Error>(())
//! ```
//!
//! An array that fills its memory, in whatever axis order, is read where it lies, and the result
//! has the same axis order. Any other view (a stride, a reversed axis, a broadcast) is copied first.

mod int_array;
pub mod onnx;
mod tensor;

pub use int_array::IntArray;
pub use tensor::NdArray;
