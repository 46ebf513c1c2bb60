//! Products of quantized matrices, computed in integers: exact, and faster than in floats.
//!
//! Everything here works on slices of host memory, with no tensor framework; `chopi-ndarray` and
//! `chopi-candle` put arrays and modules around it.

pub mod conv;
pub mod emulate;
mod error;
pub mod requantize;

pub use error::{Error, Result};
