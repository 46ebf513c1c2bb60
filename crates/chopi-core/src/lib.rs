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
//! frameworks. A framework is a [`Backend`] whose tensors implement [`FloatTensor`] and
//! [`IntTensor`]. What is computed, to the bit, stands at [`Convention`].

pub mod backend;
mod buffer;
mod convention;
pub mod device;
mod dtype;
mod dynamic;
mod error;
mod groups;
mod kernel;
mod layout;
mod metrics;
pub mod model;
mod moving_average;
mod observer;
mod packing;
pub mod parallel;
mod qparams;
mod quantizer;
mod ranges;
mod recipe;
mod scheme;
mod slices;
mod tiles;
pub mod training;

pub use backend::{
    Backend, FloatTensor, FloatTensorMut, HostFloats, HostFloatsMut, HostInts, HostIntsMut,
    IntTensor, IntTensorMut,
};
pub use buffer::{Fill, FloatSlice, FloatSliceMut, IntSlice, IntSliceMut};
pub use convention::{Convention, Groups, ZeroPoints};
pub use device::{DeviceTensor, HostOnly};
pub use dtype::{Compute, Float, FloatType, Int, IntType};
pub use error::{Error, Result};
pub use half::{bf16, f16};
pub use kernel::isa::Isa;
pub use layout::Layout;
pub use metrics::{Metrics, compare, quantization_metrics};
pub use moving_average::MovingAverage;
pub use observer::{Bin, Calibration, Histogram, Histograms, Observer};
pub use packing::{Field, Packing};
pub use qparams::QParams;
pub use quantizer::{Builder, Chopi};
pub use ranges::Ranges;
pub use scheme::{CodeRange, Granularity, NanPolicy, Rounding, Scheme, Symmetry, Zero};
