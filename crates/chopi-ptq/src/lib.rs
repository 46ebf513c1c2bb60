//! Weights chosen with calibration data: what [chopi](https://docs.rs/chopi) has beyond the nearest codes.
//!
//! The nearest code of each weight is not the best one: what counts is the error of the layer's output, and which
//! errors matter there, the inputs say. [`Moments`] collects what has to be known of them, from tensors of any framework;
//! [`quantize`] gives codes and parameters by a [`Method`], as a tensor of the weight's framework:
//!
//! ```
//! # mod chopi { pub use chopi_core::*; pub use chopi_ptq as ptq; }
//! use chopi::ptq::{Moments, quantize};
//! use chopi::{Chopi, Convention};
//! # use chopi_ndarray as _;
//! use ndarray::Array2;
//!
//! // Inputs of a layer, batch by batch: [rows, channels], of which neighbours are alike.
//! let mut moments = Moments::new(64)?;
//! for batch in 0..4 {
//!     let inputs = Array2::from_shape_fn((128, 64), |(i, j)| {
//!         let row = (batch * 128 + i) as f32;
//!         (row * 0.37 + (j / 4) as f32).sin() + 0.3 * (row * 1.7 * j as f32).cos()
//!     });
//!     moments.observe(&inputs)?;
//! }
//!
//! let weights = Array2::from_shape_fn((16, 64), |(i, j)| ((i * 64 + j) as f32 * 0.73).sin() * 0.1);
//! let scheme = Chopi::builder().num_bits(4).symmetric(true).per_group(32, 1).scheme()?;
//! let method = "gptq+weighted".parse()?;
//! let quantized = quantize(&weights, &moments, &scheme, &Convention::CHOPI, &method)?;
//!
//! // Codes and parameters as chopi has them: whatever reads the nearest codes reads these.
//! let values = quantized.params.dequantize(&quantized.codes)?;
//! assert_eq!(values.dim(), (16, 64));
//! // The error of the layer's output, and what it is with the nearest codes.
//! assert!(quantized.error.chosen < 0.7 * quantized.error.nearest);
//! # Ok::<(), chopi_ptq::Error>(())
//! ```
//!
//! | what | how |
//! |---|---|
//! | statistics of inputs, by layer, in a file | [`Moments`], [`Statistics`], [`StatisticsFile`] |
//! | the error of a layer's output with other weights | [`Inputs::output_error`] |
//! | codes by a method, for one layer; for several that take the same inputs | [`quantize`]; [`Inputs::quantize`] |
//! | scales of input channels, to be folded into what precedes the layer | [`awq_scales`], [`smooth_scales`] |
//! | scales between two layers | [`equalization_scales`] |
//! | ranges by what the codes in them cost | [`weighted_ranges`], [`half_quadratic_ranges`] |
//! | a bias that keeps the mean of the output | [`bias_correction`] |
//!
//! No method makes a layer worse than the nearest codes do, as far as the moments tell: see [`Choice`]. A model may
//! become worse even so, as its layers see each other's errors, and other data than those of the calibration. Whoever
//! holds the model should quantize its layers in order, and collect the moments of each with the layers before it
//! quantized already, and compare the whole on data that were not used.
//!
//! The linear algebra is that of [`faer`](https://docs.rs/faer), in `f64`. Nothing depends on the number of threads:
//! with the feature `rayon`, fixed parts of the work are given to the threads of the current pool.

mod cholesky;
mod columns;
mod descent;
mod error;
mod factor;
mod gptq;
mod inputs;
mod matrix;
mod method;
mod moments;
mod parallel;
mod quantize;
mod ranges;
mod scales;
mod slice;

pub use error::{Error, Result};
pub use inputs::{Inputs, OutputError};
pub use method::{Gptq, Method, Order, RangeMethod, Rotation, Rounding, Scaling};
pub use moments::{Moments, Patches, Statistics, StatisticsFile};
pub use quantize::{Choice, LayerError, Quantization, quantize};
pub use ranges::{half_quadratic_ranges, weighted_ranges};
pub use scales::{awq_scales, bias_correction, equalization_scales, smooth_scales};
