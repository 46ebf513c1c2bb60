//! What the kernels compute, composed from primitive tensor operations, for tensors that are not in host
//! memory.
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
