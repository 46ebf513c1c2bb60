//! Elements as they lie in a file: little-endian, at any alignment.

use std::borrow::Cow;

use bytemuck::Pod;
pub use chopi_core::backend::{FloatType, IntType, bf16, f16};

use chopi_core::backend::{Float, FloatSlice, Int, IntSlice};
use half::slice::HalfFloatSliceExt;

/// A number that a file holds.
pub trait Element: Pod {
    /// The number in these bytes, as many as it has.
    fn from_le(bytes: &[u8]) -> Self;
    /// Adds its bytes to `bytes`.
    fn push_le(self, bytes: &mut Vec<u8>);
}

/// A float that is quantized.
pub trait FloatElement: Element + Float {
    /// Writes the values of `src` to `out`, which is as long.
    fn widen_to_f64(src: &[Self], out: &mut [f64]);
}

/// An integer that codes are stored in.
pub trait IntElement: Element + Int {
    /// The value, which the type must hold.
    fn of(code: i64) -> Self;
}

macro_rules! impl_element {
    ($($t:ident),*) => {$(
        impl Element for $t {
            fn from_le(bytes: &[u8]) -> Self {
                let mut number = [0; size_of::<Self>()];
                number.copy_from_slice(bytes);
                Self::from_le_bytes(number)
            }
            fn push_le(self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }
        }
    )*};
}

impl_element!(f16, bf16, f32, f64, i8, u8, i16, u16, i32, u32, i64, u64);

macro_rules! impl_float {
    ($t:ident, $src:ident, $out:ident => $widen:expr) => {
        impl FloatElement for $t {
            fn widen_to_f64($src: &[Self], $out: &mut [f64]) {
                $widen
            }
        }
    };
}

impl_float!(f16, src, out => src.convert_to_f64_slice(out));
impl_float!(bf16, src, out => src.convert_to_f64_slice(out));
impl_float!(f32, src, out => {
    for (out, &x) in out.iter_mut().zip(src) {
        *out = f64::from(x);
    }
});
impl_float!(f64, src, out => out.copy_from_slice(src));

macro_rules! impl_int {
    ($($t:ident),*) => {$(
        impl IntElement for $t {
            fn of(code: i64) -> Self {
                code as Self
            }
        }
    )*};
}

impl_int!(i8, u8, i16, u16, i32, u32, i64);

/// Evaluates an expression in which `$F` is the type that a [`FloatType`](crate::element::FloatType) stands for.
#[macro_export]
macro_rules! with_float {
    ($float:expr, $F:ident => $body:expr) => {
        match $float {
            $crate::element::FloatType::F16 => {
                type $F = $crate::element::f16;
                $body
            }
            $crate::element::FloatType::BF16 => {
                type $F = $crate::element::bf16;
                $body
            }
            $crate::element::FloatType::F32 => {
                type $F = f32;
                $body
            }
            $crate::element::FloatType::F64 => {
                type $F = f64;
                $body
            }
        }
    };
}
/// Evaluates an expression in which `$I` is the type that an [`IntType`](crate::element::IntType) stands for.
#[macro_export]
macro_rules! with_int {
    ($int:expr, $I:ident => $body:expr) => {
        match $int {
            $crate::element::IntType::I8 => {
                type $I = i8;
                $body
            }
            $crate::element::IntType::U8 => {
                type $I = u8;
                $body
            }
            $crate::element::IntType::I16 => {
                type $I = i16;
                $body
            }
            $crate::element::IntType::U16 => {
                type $I = u16;
                $body
            }
            $crate::element::IntType::I32 => {
                type $I = i32;
                $body
            }
            $crate::element::IntType::U32 => {
                type $I = u32;
                $body
            }
            $crate::element::IntType::I64 => {
                type $I = i64;
                $body
            }
        }
    };
}
/// The elements of these bytes: borrowed where the machine can read them where they lie.
pub fn elements<T: Element>(bytes: &[u8]) -> Cow<'_, [T]> {
    if cfg!(target_endian = "little")
        && let Ok(elements) = bytemuck::try_cast_slice(bytes)
    {
        return Cow::Borrowed(elements);
    }
    bytes
        .chunks_exact(size_of::<T>())
        .map(T::from_le)
        .collect::<Vec<_>>()
        .into()
}

/// The memory of these elements, for the bytes of a file.
pub fn bytes_mut<T: Element>(elements: &mut [T]) -> &mut [u8] {
    bytemuck::cast_slice_mut(elements)
}

/// Makes elements of what the bytes of a file have put in their memory.
pub fn from_file_order<T: Element>(elements: &mut [T]) {
    if cfg!(target_endian = "big") {
        for element in elements {
            *element = T::from_le(bytemuck::bytes_of(element));
        }
    }
}

/// The bytes of these elements.
pub fn bytes<T: Element>(elements: &[T]) -> Cow<'_, [u8]> {
    if cfg!(target_endian = "little") {
        return Cow::Borrowed(bytemuck::cast_slice(elements));
    }
    let mut bytes = Vec::with_capacity(size_of_val(elements));
    for &element in elements {
        element.push_le(&mut bytes);
    }
    bytes.into()
}

/// The bytes of these codes as integers of type `int`, which holds them. A framework that lacks
/// the type has computed them in a wider one.
pub fn code_bytes(codes: IntSlice<'_>, int: IntType) -> Cow<'_, [u8]> {
    chopi_core::backend::match_int!(IntSlice, codes, codes => {
        if Int::slice(codes).int_type() == int {
            bytes(codes)
        } else {
            with_int!(int, I => {
                let codes: Vec<I> = codes.iter().map(|q| I::of(q.to_i64())).collect();
                bytes(&codes).into_owned().into()
            })
        }
    })
}

/// The bytes of these floats.
pub fn float_bytes(data: FloatSlice<'_>) -> Cow<'_, [u8]> {
    chopi_core::backend::match_float!(FloatSlice, data, data => bytes(data))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn elements_are_read_at_any_alignment() {
        let numbers = [1.5_f64, -2.25, 1e-300];
        let mut shifted = vec![0];
        shifted.extend_from_slice(&bytes(&numbers));
        assert_eq!(*elements::<f64>(&shifted[1..]), numbers);
        assert_eq!(*elements::<f64>(&bytes(&numbers)), numbers);
    }

    #[test]
    fn codes_computed_in_a_wider_type_are_stored_in_the_smallest() {
        let wide = [-128_i16, 0, 127];
        let narrow = code_bytes(Int::slice(&wide), IntType::I8);
        assert_eq!(*elements::<i8>(&narrow), [-128, 0, 127]);
    }
}
