//! The metadata of a GGUF file: keys and values.

use std::fmt;

use super::cursor::{Cursor, Stop};

/// A value of the metadata.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // The names are the types.
pub enum Value {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    F32(f32),
    Bool(bool),
    String(String),
    Array(Array),
    U64(u64),
    I64(i64),
    F64(f64),
}

/// Values of one type. Arrays of arrays are not read.
#[derive(Clone, Debug, PartialEq)]
#[allow(missing_docs)] // The names are the types.
pub enum Array {
    U8(Vec<u8>),
    I8(Vec<i8>),
    U16(Vec<u16>),
    I16(Vec<i16>),
    U32(Vec<u32>),
    I32(Vec<i32>),
    F32(Vec<f32>),
    Bool(Vec<bool>),
    String(Vec<String>),
    U64(Vec<u64>),
    I64(Vec<i64>),
    F64(Vec<f64>),
}

/// The number of the type of an array.
pub(super) const ARRAY: u32 = 9;

/// A type of values in the order of bytes of the file.
pub(super) trait Scalar: Sized {
    /// The fewest bytes that a value takes.
    const LEN: usize;
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Stop>;
    fn write(&self, bytes: &mut Vec<u8>);
}

macro_rules! numbers {
    ($($t:ident),*) => {$(
        impl Scalar for $t {
            const LEN: usize = size_of::<Self>();
            fn read(cursor: &mut Cursor<'_>) -> Result<Self, Stop> {
                Ok(Self::from_le_bytes(cursor.array()?))
            }
            fn write(&self, bytes: &mut Vec<u8>) {
                bytes.extend(self.to_le_bytes());
            }
        }
    )*};
}

numbers!(u8, i8, u16, i16, u32, i32, f32, u64, i64, f64);

impl Scalar for bool {
    const LEN: usize = 1;
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Stop> {
        match cursor.array()? {
            [0] => Ok(false),
            [1] => Ok(true),
            [other] => Err(cursor.wrong(format!("a boolean is {other}, expected 0 or 1"))),
        }
    }
    fn write(&self, bytes: &mut Vec<u8>) {
        bytes.push(u8::from(*self));
    }
}

impl Scalar for String {
    const LEN: usize = 8;
    fn read(cursor: &mut Cursor<'_>) -> Result<Self, Stop> {
        let len = u64::read(cursor)?;
        let bytes = cursor.bytes(len)?;
        Self::from_utf8(bytes).map_err(|e| cursor.wrong(format!("a string is not UTF-8: {e}")))
    }
    fn write(&self, bytes: &mut Vec<u8>) {
        (self.len() as u64).write(bytes);
        bytes.extend(self.as_bytes());
    }
}

macro_rules! impl_value {
    ($($name:ident $t:ident $number:literal),*) => {
        impl Value {
            /// Reads a value of the type of this number.
            pub(super) fn read(
                number: u32,
                cursor: &mut Cursor<'_>,
            ) -> Result<Self, Stop> {
                match number {
                    $($number => Ok(Self::$name($t::read(cursor)?)),)*
                    ARRAY => Ok(Self::Array(Array::read(cursor)?)),
                    other => Err(cursor.wrong(format!("a value has type {other}, which is unknown"))),
                }
            }

            /// Writes the number of its type, and the value.
            pub(super) fn write(&self, bytes: &mut Vec<u8>) {
                match self {
                    $(Self::$name(value) => {
                        let number: u32 = $number;
                        number.write(bytes);
                        value.write(bytes);
                    })*
                    Self::Array(array) => {
                        ARRAY.write(bytes);
                        array.write(bytes);
                    }
                }
            }
        }

        impl Array {
            fn read(cursor: &mut Cursor<'_>) -> Result<Self, Stop> {
                let number = u32::read(cursor)?;
                let len = u64::read(cursor)?;
                match number {
                    $($number => {
                        let len = cursor.count(len, $t::LEN)?;
                        let values = (0..len).map(|_| $t::read(cursor));
                        Ok(Self::$name(values.collect::<Result<_, _>>()?))
                    })*
                    ARRAY => Err(cursor.wrong("an array holds arrays, which are not read")),
                    other => Err(cursor.wrong(format!("an array has values of type {other}, which is unknown"))),
                }
            }

            fn write(&self, bytes: &mut Vec<u8>) {
                match self {
                    $(Self::$name(values) => {
                        let number: u32 = $number;
                        number.write(bytes);
                        (values.len() as u64).write(bytes);
                        values.iter().for_each(|value| value.write(bytes));
                    })*
                }
            }

            /// The number of values.
            pub fn len(&self) -> usize {
                match self {
                    $(Self::$name(values) => values.len(),)*
                }
            }
        }
    };
}

impl_value! {
    U8 u8 0, I8 i8 1, U16 u16 2, I16 i16 3, U32 u32 4, I32 i32 5, F32 f32 6, Bool bool 7, String String 8, U64 u64 10,
    I64 i64 11, F64 f64 12
}

impl Array {
    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A number, a boolean or a string as it is; of an array how many values it has.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::U8(x) => x.fmt(f),
            Self::I8(x) => x.fmt(f),
            Self::U16(x) => x.fmt(f),
            Self::I16(x) => x.fmt(f),
            Self::U32(x) => x.fmt(f),
            Self::I32(x) => x.fmt(f),
            Self::F32(x) => x.fmt(f),
            Self::Bool(x) => x.fmt(f),
            Self::String(x) => x.fmt(f),
            Self::Array(array) => write!(f, "an array of {} values", array.len()),
            Self::U64(x) => x.fmt(f),
            Self::I64(x) => x.fmt(f),
            Self::F64(x) => x.fmt(f),
        }
    }
}
