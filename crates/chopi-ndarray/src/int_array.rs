//! An array of codes whose element type is chosen at run time.

use std::fmt;
use std::marker::PhantomData;

use chopi_core::backend::IntType;
use ndarray::{Array, Dimension};

/// An array of codes: the smallest of `i8`, `u8`, `i16`, `u16`, `i32`, `u32` that holds them.
///
/// `A` is the float type that they came from and that dequantizing gives; `D` the dimension type.
///
/// ```
/// # mod chopi { pub use chopi_ndarray as ndarray; }
/// use chopi::ndarray::IntArray;
/// use ndarray::{Ix1, array};
///
/// let codes = IntArray::<f32, Ix1>::from(array![1_u8, 2, 255]);
/// assert_eq!(codes.as_array::<u8>(), Some(&array![1, 2, 255]));
/// assert_eq!(codes.as_array::<i8>(), None);
/// assert_eq!(codes.to_i64(), array![1, 2, 255]);
/// ```
#[derive(Clone)]
pub struct IntArray<A, D> {
    codes: Elements<D>,
    float: PhantomData<A>,
}

/// The array, by its element type.
#[derive(Clone)]
pub(crate) enum Elements<D> {
    I8(Array<i8, D>),
    U8(Array<u8, D>),
    I16(Array<i16, D>),
    U16(Array<u16, D>),
    I32(Array<i32, D>),
    U32(Array<u32, D>),
    I64(Array<i64, D>),
}

/// `match` on [`Elements`], the same arm for every element type.
macro_rules! match_codes {
    ($value:expr, $codes:ident => $arm:expr) => {
        match $value {
            crate::int_array::Elements::I8($codes) => $arm,
            crate::int_array::Elements::U8($codes) => $arm,
            crate::int_array::Elements::I16($codes) => $arm,
            crate::int_array::Elements::U16($codes) => $arm,
            crate::int_array::Elements::I32($codes) => $arm,
            crate::int_array::Elements::U32($codes) => $arm,
            crate::int_array::Elements::I64($codes) => $arm,
        }
    };
}
pub(crate) use match_codes;

impl<A, D: Dimension> IntArray<A, D> {
    pub(crate) fn codes(&self) -> &Elements<D> {
        &self.codes
    }

    pub(crate) fn codes_mut(&mut self) -> &mut Elements<D> {
        &mut self.codes
    }

    /// The element type.
    pub fn int_type(&self) -> IntType {
        match self.codes {
            Elements::I8(_) => IntType::I8,
            Elements::U8(_) => IntType::U8,
            Elements::I16(_) => IntType::I16,
            Elements::U16(_) => IntType::U16,
            Elements::I32(_) => IntType::I32,
            Elements::U32(_) => IntType::U32,
            Elements::I64(_) => IntType::I64,
        }
    }

    /// The length of each axis.
    pub fn shape(&self) -> &[usize] {
        match_codes!(&self.codes, codes => codes.shape())
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        match_codes!(&self.codes, codes => codes.len())
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The array, if its elements are of type `I`.
    pub fn as_array<I: CodeElement>(&self) -> Option<&Array<I, D>> {
        I::as_array(self)
    }

    /// The array, if its elements are of type `I`; otherwise `self` again.
    ///
    /// # Errors
    /// `self`, where its elements are of another type.
    pub fn into_array<I: CodeElement>(self) -> Result<Array<I, D>, Self> {
        I::into_array(self)
    }

    /// The codes as 64-bit integers, whatever their type.
    pub fn to_i64(&self) -> Array<i64, D> {
        match_codes!(&self.codes, codes => codes.mapv(i64::from))
    }
}

/// An integer type that the codes of an [`IntArray`] can have.
pub trait CodeElement: chopi_core::backend::Int {
    #[doc(hidden)]
    fn as_array<A, D: Dimension>(array: &IntArray<A, D>) -> Option<&Array<Self, D>>;
    #[doc(hidden)]
    fn into_array<A, D: Dimension>(array: IntArray<A, D>)
    -> Result<Array<Self, D>, IntArray<A, D>>;
}

macro_rules! impl_element {
    ($($t:ident $variant:ident),*) => {$(
        impl CodeElement for $t {
            fn as_array<A, D: Dimension>(array: &IntArray<A, D>) -> Option<&Array<Self, D>> {
                match &array.codes {
                    Elements::$variant(codes) => Some(codes),
                    _ => None,
                }
            }
            fn into_array<A, D: Dimension>(
                array: IntArray<A, D>,
            ) -> Result<Array<Self, D>, IntArray<A, D>> {
                match array.codes {
                    Elements::$variant(codes) => Ok(codes),
                    codes => Err(IntArray { codes, float: PhantomData }),
                }
            }
        }

        impl<A, D> From<Array<$t, D>> for IntArray<A, D> {
            fn from(codes: Array<$t, D>) -> Self {
                Self { codes: Elements::$variant(codes), float: PhantomData }
            }
        }
    )*};
}

impl_element!(i8 I8, u8 U8, i16 I16, u16 U16, i32 I32, u32 U32, i64 I64);

/// Equal where shapes and codes are, whatever the element types.
impl<A, D: Dimension> PartialEq for IntArray<A, D> {
    fn eq(&self, other: &Self) -> bool {
        match (&self.codes, &other.codes) {
            (Elements::U8(a), Elements::U8(b)) => a == b,
            (Elements::I8(a), Elements::I8(b)) => a == b,
            _ => self.shape() == other.shape() && self.to_i64() == other.to_i64(),
        }
    }
}

/// The codes, as `ndarray` prints integers.
impl<A, D: Dimension> fmt::Display for IntArray<A, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match_codes!(&self.codes, codes => codes.fmt(f))
    }
}

/// The codes and their type: `[[128, 0]] u8`.
impl<A, D: Dimension> fmt::Debug for IntArray<A, D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self} {}", self.int_type())
    }
}
