// The examples of the README use ndarray.
#![cfg_attr(feature = "ndarray", doc = include_str!("../../../README.md"))]
#![cfg_attr(
    not(feature = "ndarray"),
    doc = "Integer quantization for Rust tensors, exact to the last bit."
)]
#![cfg_attr(docsrs, feature(doc_cfg))]

pub use chopi_core::{
    Calibration, CodeRange, Convention, Error, Granularity, NanPolicy, Observer, Result, Rounding,
    Scheme, SchemeFields, Symmetry, Zero,
};
pub use chopi_core::{backend, convention, cpu, model, packing, training};

/// Quantizes the tensors of every framework to integers and back.
///
/// ```
/// # #[cfg(feature = "ndarray")] {
/// use chopi::Chopi;
/// use ndarray::array;
///
/// let x = array![[0.1_f32, -0.2], [0.3, 0.4]];
/// let mut chopi = Chopi::new(8)?; // asymmetric, per tensor
/// let q = chopi.quantize(&x)?; // calibrates on first use
/// assert_eq!(format!("{q:?}"), "[[128, 0],\n [212, 255]] u8");
/// let y = chopi.dequantize(&q)?;
/// assert_eq!(y, chopi.fake_quantize(&x)?);
/// # }
/// # Ok::<(), chopi::Error>(())
/// ```
pub use chopi_core::Chopi;

/// The settings of a quantizer, one method each.
///
/// ```
/// use chopi::{Chopi, Convention};
///
/// let weights = Chopi::builder().num_bits(4).symmetric(true).per_group(32, -1).build()?;
/// assert_eq!((weights.qmin(), weights.qmax()), (-8, 7));
/// let narrow = Chopi::builder().num_bits(4).symmetric(true).range(-7..=7).build()?;
/// assert_eq!((narrow.qmin(), narrow.qmax()), (-7, 7));
/// let torch = Chopi::builder().num_bits(8).convention(Convention::TORCH).build()?;
/// assert!(Chopi::builder().num_bits(1).build().is_err());
/// # Ok::<(), chopi::Error>(())
/// ```
pub use chopi_core::Builder;

/// Scales and zero points, which quantize and dequantize by `&self`, on any thread and in any framework.
///
/// ```
/// # #[cfg(feature = "ndarray")] {
/// use chopi::{Chopi, QParams};
/// use ndarray::array;
///
/// let mut chopi = Chopi::builder().num_bits(8).symmetric(true).per_channel(0).build()?;
/// chopi.calibrate(&array![[0.1_f32, -0.2], [0.3, 0.4]])?;
/// let params: &QParams = chopi.params().expect("it is calibrated");
/// assert_eq!((params.scale().len(), params.zero_point()), (2, &[0, 0][..]));
/// let q = params.quantize(&array![[0.2_f32, 0.0], [0.4, -0.4]])?;
/// assert_eq!(format!("{q:?}"), "[[127, 0],\n [127, -127]] i8");
/// # }
/// # Ok::<(), chopi::Error>(())
/// ```
pub use chopi_core::QParams;

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
///
/// ```
/// # #[cfg(feature = "ndarray")] {
/// use chopi::Chopi;
/// use chopi::matmul::{Activations, QuantizedLinear};
/// use ndarray::Array2;
///
/// let weight = Array2::from_shape_fn((16, 32), |(i, j)| ((32 * i + j) as f32).sin());
/// let mut codes = Chopi::builder().num_bits(8).symmetric(true).per_channel(0).build()?;
/// let q = codes.quantize(&weight)?;
/// let params = codes.params().expect("it is calibrated");
/// let layer = QuantizedLinear::new(&q, params, Activations::default())?; // each row by its own range
/// let y = layer.forward(&Array2::from_elem((4, 32), 0.5_f32))?;
/// assert_eq!(y.dim(), (4, 16));
/// # }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
