//! chopi on libtorch tensors ([`tch`]) of kind Float, Double, Half and BFloat16.
//!
//! ```
//! # use chopi_core as chopi;
//! use chopi::Chopi;
//! # use chopi_tch as _;
//! use tch::{Kind, Tensor};
//!
//! let x = Tensor::from_slice2(&[[0.1_f32, -0.2], [0.3, 0.4]]);
//! let mut chopi = Chopi::new(8)?;
//! let q = chopi.quantize(&x)?;
//! assert_eq!(q.kind(), Kind::Uint8);
//! assert_eq!(q, Tensor::from_slice2(&[[128_u8, 0], [212, 255]]));
//! let y = chopi.dequantize(&q)?;
//! # assert_eq!(y.kind(), Kind::Float);
//! # Ok::<(), chopi_core::Error>(())
//! ```
//!
//! Codes are a tensor of the smallest of Int8, Uint8, Int16, Int and Int64 that holds them. Results
//! carry no gradient.
//!
//! A CPU tensor that fills its memory, in whatever axis order, is read where it lies, and the
//! result has the same strides; any other CPU tensor is copied first. On other devices the same
//! numbers are composed from libtorch's own operations, without leaving the device. Where an
//! operation needs `f64` (codes of more than 21 bits, zero points beyond 2^21, roundings other than
//! to nearest even), so does the device.

mod device;
#[cfg(feature = "matmul")]
mod integer;
pub mod nn;
mod tensor;
mod weights;

pub use device::OnDevice;
#[cfg(feature = "matmul")]
pub use integer::{QuantizedConv, QuantizedEmbedding, QuantizedLinear, conv_params};
pub use tensor::LibTorch;
pub use weights::quantize_variables;

/// What libtorch said, as an error of chopi.
fn framework(source: tch::TchError) -> chopi_core::Error {
    chopi_core::Error::Framework {
        backend: <LibTorch as chopi_core::backend::Backend>::NAME,
        source: source.into(),
    }
}
