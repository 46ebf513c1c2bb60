//! The dtypes of safetensors and the types of chopi.

use chopi_core::backend::{FloatType, IntType};
use safetensors::Dtype;

/// The dtype of the scales of a tensor of this type: they are numbers of its compute type.
pub fn scale_dtype(float: FloatType) -> Dtype {
    float_dtype(float.compute())
}

/// The float type of a dtype that chopi quantizes.
pub fn float_type(dtype: Dtype) -> Option<FloatType> {
    match dtype {
        Dtype::F16 => Some(FloatType::F16),
        Dtype::BF16 => Some(FloatType::BF16),
        Dtype::F32 => Some(FloatType::F32),
        Dtype::F64 => Some(FloatType::F64),
        _ => None,
    }
}

/// The dtype of a float type.
pub fn float_dtype(float: FloatType) -> Dtype {
    match float {
        FloatType::F16 => Dtype::F16,
        FloatType::BF16 => Dtype::BF16,
        FloatType::F32 => Dtype::F32,
        FloatType::F64 => Dtype::F64,
    }
}

/// The dtype of an integer type.
pub fn int_dtype(int: IntType) -> Dtype {
    match int {
        IntType::I8 => Dtype::I8,
        IntType::U8 => Dtype::U8,
        IntType::I16 => Dtype::I16,
        IntType::U16 => Dtype::U16,
        IntType::I32 => Dtype::I32,
        IntType::U32 => Dtype::U32,
        IntType::I64 => Dtype::I64,
    }
}
