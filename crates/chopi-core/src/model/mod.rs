//! Whole models: their tensors by name.
//!
//! - [`WeightQuantizer`] quantizes and dequantizes the weights of a model that is loaded, without a
//!   change to the model's code; the frameworks' crates put it between a model and its variables.
//! - [`ObservationPoints`] calibrate activations at the points of a forward pass that name themselves.
//! - [`Sensitivity`] is what quantizing one tensor costs and saves, and [`allocate_bits`] gives each
//!   tensor its bits under a budget.

mod bits;
mod linear;
mod points;
mod sensitivity;
mod weights;

pub use bits::{Allocation, allocate_bits};
pub use linear::{is_linear_weight, is_matrix_weight};
pub use points::ObservationPoints;
pub use sensitivity::{Choice, Sensitivity, rank};
pub use weights::{QuantizedWeight, WeightQuantizer};

use crate::error::{Error, Result};

/// A result with the name of the tensor that it is about.
fn named<T>(name: &str, result: Result<T>) -> Result<T> {
    result.map_err(|source| Error::Tensor {
        name: name.to_owned(),
        source: Box::new(source),
    })
}
