//! The tensor frameworks that can do the work.
//!
//! A framework is one implementation of [`Framework`] in a file here, one [`FrameworkName`], and
//! one arm of [`with_framework`]; the rest of the program is generic.

#[cfg(feature = "candle")]
mod on_candle;
mod on_ndarray;
#[cfg(feature = "tch")]
mod on_tch;

use chopi::{
    Result,
    backend::{Backend, FloatTensor, IntSlice, IntTensor},
};

use crate::element::FloatElement;

/// A framework whose tensors can be made from host memory.
pub trait Framework: Backend + Sized {
    type Floats<'a, F: FloatElement>: FloatTensor<Self, Owned: FloatTensor<Self>>;
    type CodeTensor<F: FloatElement>: IntTensor<Self, Float: FloatTensor<Self>>;

    /// The tensor of these elements, row-major.
    fn floats<'a, F: FloatElement>(data: &'a [F], shape: &[usize]) -> Result<Self::Floats<'a, F>>;

    /// The tensor of these codes of numbers of type `F`, row-major.
    fn codes<F: FloatElement>(data: IntSlice<'_>, shape: &[usize]) -> Result<Self::CodeTensor<F>>;
}

/// A framework that is compiled in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameworkName {
    NdArray,
    #[cfg(feature = "candle")]
    Candle,
    #[cfg(feature = "tch")]
    LibTorch,
}

impl FrameworkName {
    /// The names of frameworks that a build can have.
    const KNOWN: [&str; 3] = ["ndarray", "candle", "tch"];

    /// A line for each name that a build can have.
    pub fn list() -> String {
        let line = |name: &str| match chopi::backends().contains(&name) {
            true => name.to_owned(),
            false => format!("{name}  (not built in: build chopi-cli with --features {name})"),
        };
        Self::KNOWN.map(line).join("\n")
    }

    /// # Errors
    /// The feature to build with, or the names that there are.
    pub fn parse(name: &str) -> std::result::Result<Self, String> {
        let compiled_in = chopi::backends().join(", ");
        match name {
            "ndarray" => Ok(Self::NdArray),
            #[cfg(feature = "candle")]
            "candle" => Ok(Self::Candle),
            #[cfg(feature = "tch")]
            "tch" => Ok(Self::LibTorch),
            _ if Self::KNOWN.contains(&name) => Err(format!(
                "this program was built without it: build chopi-cli with --features {name} \
                 (built in: {compiled_in})"
            )),
            _ => Err(format!("expected one of: {compiled_in}")),
        }
    }
}

/// Evaluates an expression in which `$K` is the framework of a [`FrameworkName`].
macro_rules! with_framework {
    ($name:expr, $K:ident => $body:expr) => {
        match $name {
            crate::framework::FrameworkName::NdArray => {
                type $K = chopi::ndarray::NdArray;
                $body
            }
            #[cfg(feature = "candle")]
            crate::framework::FrameworkName::Candle => {
                type $K = chopi::candle::Candle;
                $body
            }
            #[cfg(feature = "tch")]
            crate::framework::FrameworkName::LibTorch => {
                type $K = chopi::tch::LibTorch;
                $body
            }
        }
    };
}
pub(crate) use with_framework;
