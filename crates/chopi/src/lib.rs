// The examples of the README use ndarray.
#![cfg_attr(feature = "ndarray", doc = include_str!("../../../README.md"))]
#![cfg_attr(
    not(feature = "ndarray"),
    doc = "Integer quantization for Rust tensors, exact to the last bit."
)]

pub use chopi_core::{
    Builder, Calibration, Chopi, CodeRange, Convention, Error, Granularity, NanPolicy, Observer,
    QParams, Result, Rounding, Scheme, SchemeFields, Symmetry, Zero,
};
pub use chopi_core::{backend, convention, cpu, model, packing, training};

/// Calibration on data, batch by batch.
///
/// ```
/// # #[cfg(feature = "ndarray")] {
/// use chopi::{Calibration, Chopi, Convention, Observer};
/// use ndarray::array;
///
/// let scheme = Chopi::builder().num_bits(8).scheme()?;
/// let mut observer = Observer::new(scheme, Convention::CHOPI, Calibration::MinMax)?;
/// for batch in [array![[0.1_f32, -0.2]], array![[0.3, 0.4]]] {
///     observer.observe(&batch)?;
/// }
/// let params = observer.params()?; // the range −0.2..=0.4
/// let q = params.quantize(&array![[0.1_f32, -0.2]])?;
/// assert_eq!(format!("{q:?}"), "[[128, 0]] u8");
/// # }
/// # Ok::<(), chopi::Error>(())
/// ```
pub use chopi_core::observer;

/// What quantizing costs, in numbers.
///
/// ```
/// # #[cfg(feature = "ndarray")] {
/// use chopi::Chopi;
/// use chopi::metrics::quantization_metrics;
/// use ndarray::array;
///
/// let x = array![[0.1_f32, -0.2], [0.3, 0.4]];
/// let mut chopi = Chopi::builder().num_bits(8).symmetric(true).per_channel(0).build()?;
/// chopi.calibrate(&x)?;
/// if let Some(params) = chopi.params() {
///     let rows = quantization_metrics(&x, params)?; // one for each channel
///     assert_eq!(rows.len(), 2);
///     assert!(rows.iter().all(|row| row.sqnr_db() > 40.0));
/// }
/// # }
/// # Ok::<(), chopi::Error>(())
/// ```
pub use chopi_core::metrics;

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

/// Products, layers and convolutions of integers: exact, and faster than in floats.
#[cfg(feature = "matmul")]
pub mod matmul {
    pub use chopi_matmul::*;
}

/// Weights chosen with calibration data: second moments, GPTQ, AWQ, SmoothQuant and their like.
#[cfg(feature = "ptq")]
pub mod ptq {
    pub use chopi_ptq::*;
}

/// Files of quantized models, read and written.
#[cfg(feature = "formats")]
pub mod formats {
    pub use chopi_formats::*;
}

/// Sentence encoders and text decoders on candle, in floats or in integers.
#[cfg(feature = "models")]
pub mod models {
    pub use chopi_models::*;
}

pub mod guide;

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
