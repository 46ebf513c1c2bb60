//! The algorithm of [chopi](https://docs.rs/chopi): integer quantization of tensors, exact to the
//! last bit, with no tensor framework.
//!
//! Data flows one way:
//!
//! ```text
//! tensor ──observe──▶ Ranges ──Scheme + Convention──▶ QParams ──kernel──▶ integer tensor
//!                                                        └──────kernel──▶ float tensor
//! ```
//!
//! Users hold a [`Chopi`], most often through the facade crate `chopi`, whose features choose the
//! frameworks. A framework is a [`Backend`](backend::Backend) whose tensors implement
//! [`FloatTensor`](backend::FloatTensor) and [`IntTensor`](backend::IntTensor). What is computed, to
//! the bit, stands at [`Convention`].

pub mod backend;
mod builder;
pub mod convention;
pub mod cpu;
mod device;
mod dynamic;
mod error;
mod fill;
mod groups;
mod host;
pub mod metrics;
pub mod model;
pub mod observer;
pub mod packing;
mod qparams;
mod quantizer;
mod recipe;
mod scheme;
pub mod training;

pub use builder::Builder;
pub use convention::Convention;
pub use error::{Error, Result};
pub use observer::{Calibration, Observer};
pub use qparams::QParams;
pub use quantizer::Chopi;
pub use scheme::{
    CodeRange, Granularity, NanPolicy, Rounding, Scheme, SchemeFields, Symmetry, Zero,
};
