//! The same result composed from primitive tensor operations, for tensors that have no host memory.
//!
//! A framework implements [`DeviceTensor`]; everything here is written once on top of it, and gives
//! the bits that the kernels give.

mod composed;
mod parts;
mod tensor;
mod values;

pub(crate) use composed::{
    dequantize, fake_quantize, fake_quantize_with_mask, observe, quantize, scale_derivative,
};
pub use tensor::{DeviceTensor, HostOnly};
