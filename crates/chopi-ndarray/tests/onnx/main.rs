//! ONNX's operators equal their definitions, evaluated one element at a time, and refuse what does
//! not fit.

mod case;
mod definition;
#[cfg(feature = "matmul")]
mod products;
mod properties;
mod refusals;
