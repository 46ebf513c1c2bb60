//! chopi on [candle](candle_core) tensors of `f32`, `f64`, `f16` and `bf16`.
//!
//! ```
//! # use chopi_core as chopi;
//! use candle_core::{Device, Tensor};
//! # use chopi_candle as _;
//! use chopi::Chopi;
//!
//! let x = Tensor::new(&[[0.1_f32, -0.2], [0.3, 0.4]], &Device::Cpu)?;
//! let mut chopi = Chopi::new(8)?;
//! let q = chopi.quantize(&x)?;
//! assert_eq!(q.to_vec2::<u8>()?, [[128, 0], [212, 255]]);
//! let y = chopi.dequantize(&q)?;
//! # assert_eq!(y.dims(), [2, 2]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Codes are a tensor of `U8` where that holds them, else of the narrowest signed dtype that the
//! device can convert to: `I16`, `I32` or `I64` on the CPU, `I64` on CUDA, which candle cannot
//! convert to the other two.
//!
//! A CPU tensor that fills its memory, in whatever axis order, is read where it lies, and the
//! result has the same axis order; any other CPU tensor is copied first. On other devices the same
//! numbers are composed from candle's own operations, without leaving the device. Where an
//! operation needs `f64` (codes of more than 21 bits, zero points beyond 2^21, roundings other than
//! to nearest even), so does the device, which rules out Metal.

mod device;
#[cfg(feature = "matmul")]
mod integer;
pub mod nn;
mod tensor;
mod weights;

pub use device::OnDevice;
#[cfg(feature = "matmul")]
pub use integer::{
    QuantizedConv, QuantizedEmbedding, QuantizedLinear, conv1d_params, conv2d_params,
};
pub use tensor::Candle;
pub use weights::quantized_var_builder;

/// What candle said, as an error of chopi.
fn framework(source: candle_core::Error) -> chopi_core::Error {
    chopi_core::Error::Framework {
        backend: <Candle as chopi_core::backend::Backend>::NAME,
        source: source.into(),
    }
}
