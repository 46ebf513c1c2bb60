//! Products of quantized matrices, computed in integers: exact, and faster than in floats.
//!
//! Everything here works on slices of host memory, with no tensor framework; `chopi-ndarray` and
//! `chopi-candle` put arrays and modules around it.

mod codes;
pub mod conv;
pub mod emulate;
mod error;
mod grouped;
mod integer_linear;
mod kernel;
mod linear;
mod output;
mod packed;
mod product;
pub mod requantize;
mod tiled;
mod walk;

pub use codes::{Codes, Matrix};
pub use error::{Error, Result};
pub use grouped::GroupedMatrix;
pub use integer_linear::{FixedRounding, IntegerLinear};
pub use linear::{Activations, Linear};
pub use output::{Dequantize, Requantize};
pub use packed::{Order, PackedMatrix};
