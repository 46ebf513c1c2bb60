// The examples of the README use ndarray.
#![cfg_attr(feature = "ndarray", doc = include_str!("../../../README.md"))]
#![cfg_attr(
    not(feature = "ndarray"),
    doc = "Integer quantization for Rust tensors, exact to the last bit."
)]

pub use chopi_core::{
    Builder, Calibration, Chopi, CodeRange, Convention, Error, Granularity, NanPolicy, Observer,
    QParams, Result, Rounding, Scheme, Symmetry, Zero,
};
pub use chopi_core::{backend, convention, cpu, metrics, model, observer, packing, training};

/// chopi on `ndarray`: any array or view of `f32`, `f64`, `f16` or `bf16`.
#[cfg(feature = "ndarray")]
pub mod ndarray {
    pub use chopi_ndarray::*;
}

/// chopi on candle tensors of `f32`, `f64`, `f16` or `bf16`.
#[cfg(feature = "candle")]
pub mod candle {
    pub use chopi_candle::*;
}

/// chopi on libtorch tensors of kind Float, Double, Half or BFloat16.
#[cfg(feature = "tch")]
pub mod tch {
    pub use chopi_tch::*;
}

/// Products and layers in integers, exact and faster than in floats.
#[cfg(feature = "matmul")]
pub mod matmul {
    pub use chopi_matmul::*;
}

#[doc = include_str!("../../../docs/qat.md")]
pub mod qat {}

// Its example uses ndarray.
#[cfg_attr(feature = "ndarray", doc = include_str!("../../../docs/calibration.md"))]
#[cfg_attr(not(feature = "ndarray"), doc = "How to calibrate.")]
pub mod calibration {}

/// The names of the frameworks that are compiled in.
pub fn backends() -> &'static [&'static str] {
    &[
        #[cfg(feature = "ndarray")]
        <ndarray::NdArray as backend::Backend>::NAME,
        #[cfg(feature = "candle")]
        <candle::Candle as backend::Backend>::NAME,
        #[cfg(feature = "tch")]
        <tch::LibTorch as backend::Backend>::NAME,
    ]
}
