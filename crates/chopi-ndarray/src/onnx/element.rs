//! The integer types of ONNX's tensors.

use std::fmt;

use chopi_core::backend::{Int, IntType};

/// An integer type that QuantizeLinear quantizes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum QuantizedType {
    /// −2..=1, in an `i8`.
    Int2,
    /// 0..=3, in a `u8`.
    Uint2,
    /// −8..=7, in an `i8`.
    Int4,
    /// 0..=15, in a `u8`.
    Uint4,
    /// `i8`.
    Int8,
    /// `u8`.
    Uint8,
    /// `i16`.
    Int16,
    /// `u16`.
    Uint16,
}

impl QuantizedType {
    /// The width of a code in bits.
    pub fn bits(self) -> u32 {
        match self {
            Self::Int2 | Self::Uint2 => 2,
            Self::Int4 | Self::Uint4 => 4,
            Self::Int8 | Self::Uint8 => 8,
            Self::Int16 | Self::Uint16 => 16,
        }
    }

    /// The smallest and the largest code: [−2^(b−1), 2^(b−1) − 1] or [0, 2^b − 1].
    pub fn bounds(self) -> (i64, i64) {
        let half = 1_i64 << (self.bits() - 1);
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 | Self::Int16 => (-half, half - 1),
            Self::Uint2 | Self::Uint4 | Self::Uint8 | Self::Uint16 => (0, 2 * half - 1),
        }
    }

    /// The type of the array's elements: of the same sign, and of 8 bits at least.
    pub fn element(self) -> IntType {
        match self {
            Self::Int2 | Self::Int4 | Self::Int8 => IntType::I8,
            Self::Uint2 | Self::Uint4 | Self::Uint8 => IntType::U8,
            Self::Int16 => IntType::I16,
            Self::Uint16 => IntType::U16,
        }
    }
}

/// The specification's name: `int4`.
impl fmt::Display for QuantizedType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Int2 => "int2",
            Self::Uint2 => "uint2",
            Self::Int4 => "int4",
            Self::Uint4 => "uint4",
            Self::Int8 => "int8",
            Self::Uint8 => "uint8",
            Self::Int16 => "int16",
            Self::Uint16 => "uint16",
        })
    }
}

/// An element type of quantized arrays: `i8`, `u8`, `i16` or `u16`.
#[diagnostic::on_unimplemented(
    message = "QuantizeLinear does not quantize to `{Self}`",
    note = "codes are i8, u8, i16 or u16; those of 4 and 2 bits are i8 or u8, by `output_dtype`"
)]
pub trait QuantizedElement: DequantizableElement {
    /// The type whose codes are all the values of `Self`.
    const QUANTIZED: QuantizedType;
}

/// An element type of arrays that can be dequantized: `i8`, `u8`, `i16`, `u16` or `i32`.
#[diagnostic::on_unimplemented(
    message = "DequantizeLinear does not take `{Self}`",
    note = "codes are i8, u8, i16, u16 or i32"
)]
pub trait DequantizableElement: Int {}

macro_rules! impl_quantized {
    ($($t:ident $quantized:ident),*) => {$(
        impl DequantizableElement for $t {}
        impl QuantizedElement for $t {
            const QUANTIZED: QuantizedType = QuantizedType::$quantized;
        }
    )*};
}

impl_quantized!(i8 Int8, u8 Uint8, i16 Int16, u16 Uint16);
impl DequantizableElement for i32 {}
