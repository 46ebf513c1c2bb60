//! Pages on how to use chopi, a module each.

#[doc = include_str!("../../../docs/first-hour.md")]
pub mod first_hour {}

// Its example uses ndarray.
#[cfg_attr(feature = "ndarray", doc = include_str!("../../../docs/python.md"))]
#[cfg_attr(not(feature = "ndarray"), doc = "For users of Python.")]
pub mod python {}

#[doc = include_str!("../../../docs/conventions.md")]
pub mod conventions {}

// Its example uses ndarray.
#[cfg_attr(feature = "ndarray", doc = include_str!("../../../docs/calibration.md"))]
#[cfg_attr(not(feature = "ndarray"), doc = "Calibration.")]
pub mod calibration {}

#[doc = include_str!("../../../docs/ptq.md")]
pub mod ptq {}

#[doc = include_str!("../../../docs/qat.md")]
pub mod qat {}

#[doc = include_str!("../../../docs/integer-products.md")]
pub mod integer_products {}

#[doc = include_str!("../../../docs/models.md")]
pub mod models {}

#[doc = include_str!("../../../docs/formats.md")]
pub mod formats {}

#[doc = include_str!("../../../docs/cli.md")]
pub mod cli {}

// Its example uses ndarray.
#[cfg_attr(feature = "ndarray", doc = include_str!("../../../docs/onnx.md"))]
#[cfg_attr(not(feature = "ndarray"), doc = "ONNX's operators.")]
pub mod onnx {}

#[doc = include_str!("../../../docs/from-pychop.md")]
pub mod from_pychop {}

#[doc = include_str!("../../../docs/performance.md")]
pub mod performance {}
