//! The elements of two tensors, one by one.

use std::ops::Range;

use chopi::{
    backend::{bf16, f16},
    metrics::Metrics,
};
use safetensors::Dtype;

use super::number::{Difference, FloatNumber, Number};
use crate::archive::Entry;
use crate::element::{Element, FloatElement, elements};
use crate::error::Fault;

/// How the elements a and b of two tensors differ.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Differences {
    /// How many do.
    pub count: usize,
    /// The offset of the first one that does.
    pub first: Option<usize>,
    /// The largest |a − b|, where the elements are numbers.
    pub largest: Option<Difference>,
    /// 10·log10(Σa² / Σ(a − b)²), where they are numbers; infinite where they are equal.
    pub sqnr_db: Option<f64>,
}

/// Compares tensors of the same shape; none where their dtypes have no numbers in common.
///
/// # Errors
/// A file that cannot be read.
pub fn compare(a: &Entry, b: &Entry) -> Result<Option<Differences>, Fault> {
    let same_dtype = a.dtype == b.dtype;
    let floats = if same_dtype { exact_floats } else { floats };
    if let (Some(read_a), Some(read_b)) = (integers(a.dtype), integers(b.dtype)) {
        Pair::new(a, b, read_a, read_b).numbers().map(Some)
    } else if let (Some(read_a), Some(read_b)) = (floats(a.dtype), floats(b.dtype)) {
        Pair::new(a, b, read_a, read_b).numbers().map(Some)
    } else if same_dtype {
        let read = |bytes: &[u8]| patterns(bytes, a.dtype.bitsize());
        let found = Pair::new(a, b, &read, &read).differences()?;
        // Of patterns only whether they differ means something.
        Ok(Some(Differences {
            largest: None,
            ..found
        }))
    } else {
        Ok(None)
    }
}

/// Two tensors of the same shape, and how the bytes of their elements are read as numbers.
struct Pair<'a, R> {
    a: &'a Entry,
    b: &'a Entry,
    read_a: R,
    read_b: R,
}

impl<'a, R> Pair<'a, R> {
    /// The elements that are read at once: whole bytes of any dtype, few enough for the cache.
    const BLOCK: usize = 1 << 14;

    fn new(a: &'a Entry, b: &'a Entry, read_a: R, read_b: R) -> Self {
        Self {
            a,
            b,
            read_a,
            read_b,
        }
    }

    /// All differences between numbers.
    fn numbers<N: Number>(&self) -> Result<Differences, Fault>
    where
        R: Fn(&[u8]) -> Vec<N>,
    {
        let found = self.differences()?;
        let sqnr_db = match found.count {
            0 => f64::INFINITY,
            _ => self.sqnr_db()?,
        };
        Ok(Differences {
            sqnr_db: Some(sqnr_db),
            ..found
        })
    }

    /// The differences but the ratio.
    fn differences<N: Number>(&self) -> Result<Differences, Fault>
    where
        R: Fn(&[u8]) -> Vec<N>,
    {
        let (mut count, mut first, mut largest) = (0, None, N::ZERO);
        let (mut a_bytes, mut b_bytes) = (Vec::new(), Vec::new());
        for block in self.blocks() {
            read(self.a, &block, &mut a_bytes)?;
            read(self.b, &block, &mut b_bytes)?;
            if self.a.dtype == self.b.dtype && a_bytes == b_bytes {
                continue;
            }
            let numbers = (self.read_a)(&a_bytes).into_iter();
            let numbers = numbers.zip((self.read_b)(&b_bytes));
            for (i, (a, b)) in numbers.enumerate() {
                if a.differs(b) {
                    count += 1;
                    first.get_or_insert(block.start + i);
                    largest = largest.max(a.difference(b));
                }
            }
        }
        Ok(Differences {
            count,
            first,
            largest: Some(largest),
            sqnr_db: None,
        })
    }

    /// 10·log10(Σa² / Σ(a − b)²), the first sum over the finite a, as an infinity that both have
    /// is no signal.
    fn sqnr_db<N: Number>(&self) -> Result<f64, Fault>
    where
        R: Fn(&[u8]) -> Vec<N>,
    {
        let signal = |a: N| Some(a.to_f64()).filter(|a| a.is_finite()).unwrap_or(0.0);
        let (mut a_bytes, mut b_bytes) = (Vec::new(), Vec::new());
        let mut abs_max = 0.0_f64;
        for block in self.blocks() {
            read(self.a, &block, &mut a_bytes)?;
            let a = (self.read_a)(&a_bytes);
            abs_max = a.into_iter().fold(abs_max, |m, a| m.max(signal(a).abs()));
        }
        let mut metrics = Metrics::new(abs_max);
        for block in self.blocks() {
            read(self.a, &block, &mut a_bytes)?;
            read(self.b, &block, &mut b_bytes)?;
            let (a, b) = ((self.read_a)(&a_bytes), (self.read_b)(&b_bytes));
            let error = |(&a, &b): (&N, &N)| match a.differs(b) {
                true => a.difference(b).to_f64(),
                false => 0.0,
            };
            let errors: Vec<f64> = a.iter().zip(&b).map(error).collect();
            let signals: Vec<f64> = a.into_iter().map(signal).collect();
            metrics.add_errors(&signals, &errors);
        }
        Ok(metrics.sqnr_db())
    }

    fn blocks(&self) -> impl Iterator<Item = Range<usize>> + use<R> {
        let count = self.a.shape.iter().product();
        let starts = (0..count).step_by(Self::BLOCK);
        starts.map(move |start| start..count.min(start + Self::BLOCK))
    }
}

/// Reads the bytes of these elements.
fn read(tensor: &Entry, block: &Range<usize>, bytes: &mut Vec<u8>) -> Result<(), Fault> {
    let bits = tensor.dtype.bitsize();
    let (start, end) = (block.start * bits / 8, block.end * bits / 8);
    bytes.resize(end - start, 0);
    tensor.data.read(start, bytes)
}

/// How the bytes of elements are read.
type Read<N> = fn(&[u8]) -> Vec<N>;

/// Reads the elements of an integer dtype.
fn integers(dtype: Dtype) -> Option<Read<i128>> {
    fn read<I: Element + Into<i128>>(bytes: &[u8]) -> Vec<i128> {
        elements::<I>(bytes).iter().map(|&x| x.into()).collect()
    }
    Some(match dtype {
        Dtype::I8 => read::<i8>,
        Dtype::U8 => read::<u8>,
        Dtype::I16 => read::<i16>,
        Dtype::U16 => read::<u16>,
        Dtype::I32 => read::<i32>,
        Dtype::U32 => read::<u32>,
        Dtype::I64 => read::<i64>,
        Dtype::U64 => read::<u64>,
        _ => return None,
    })
}

/// Reads the elements of a float dtype, to be compared with those of another one.
fn floats(dtype: Dtype) -> Option<Read<FloatNumber>> {
    fn read<F: FloatElement>(bytes: &[u8]) -> Vec<FloatNumber> {
        let values = values::<F>(bytes).into_iter();
        values.map(FloatNumber::of_value).collect()
    }
    Some(match dtype {
        Dtype::F16 => read::<f16>,
        Dtype::BF16 => read::<bf16>,
        Dtype::F32 => read::<f32>,
        Dtype::F64 => read::<f64>,
        _ => return None,
    })
}

/// Reads the elements of a float dtype with their bits, to be compared with those of the same one.
fn exact_floats(dtype: Dtype) -> Option<Read<FloatNumber>> {
    /// `B` is the unsigned integer as wide as `F`.
    fn read<F: FloatElement, B: Element + Into<u64>>(bytes: &[u8]) -> Vec<FloatNumber> {
        let bits = elements::<B>(bytes);
        let numbers = values::<F>(bytes).into_iter().zip(bits.iter());
        let number = |(value, &bits): (f64, &B)| FloatNumber {
            bits: bits.into(),
            value,
        };
        numbers.map(number).collect()
    }
    Some(match dtype {
        Dtype::F16 => read::<f16, u16>,
        Dtype::BF16 => read::<bf16, u16>,
        Dtype::F32 => read::<f32, u32>,
        Dtype::F64 => read::<f64, u64>,
        _ => return None,
    })
}

fn values<F: FloatElement>(bytes: &[u8]) -> Vec<f64> {
    let floats = elements::<F>(bytes);
    let mut values = vec![0.0; floats.len()];
    F::widen_to_f64(&floats, &mut values);
    values
}

/// Reads the bits of elements of any width up to 128 bits. Of elements that share a byte the first
/// has the lowest bits.
fn patterns(bytes: &[u8], bits: usize) -> Vec<i128> {
    // Eight narrow elements fill as many bytes as they have bits.
    let group_len = if bits < 8 { bits } else { bits / 8 };
    let pattern = u128::MAX >> (128 - bits);
    let mut patterns = Vec::with_capacity(bytes.len() * 8 / bits);
    for group in bytes.chunks(group_len) {
        let push = |word, &byte| word << 8 | u128::from(byte);
        let word = group.iter().rev().fold(0, push);
        let count = group.len() * 8 / bits;
        patterns.extend((0..count).map(|i| (word >> (i * bits) & pattern) as i128));
    }
    patterns
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::archive::Data;

    fn tensor(dtype: Dtype, shape: &[usize], data: &[u8]) -> Entry {
        Entry {
            name: "x".to_owned(),
            dtype,
            shape: shape.to_vec(),
            data: Data::from(data.to_vec()),
        }
    }

    #[test]
    fn narrow_elements_are_read_from_the_lowest_bits_on() {
        assert_eq!(patterns(&[0x21, 0x43], 4), [1, 2, 3, 4]);
        assert_eq!(patterns(&[0x41, 0x20, 0x10], 6), [1, 1, 2, 4]);
        assert_eq!(patterns(&[1, 2], 8), [1, 2]);
        assert_eq!(patterns(&[1, 2], 16), [0x201]);
    }

    #[test]
    fn a_narrow_element_is_found_where_it_is() {
        let (mut data, mut other) = ([0x11; 3000], [0x11; 3000]);
        (data[2999], other[2999]) = (0x12, 0x32);
        let a = tensor(Dtype::F4, &[2, 3000], &data);
        let b = tensor(Dtype::F4, &[2, 3000], &other);
        let found = compare(&a, &b).unwrap().unwrap();
        assert_eq!((found.count, found.first), (1, Some(5999)));
        assert_eq!((found.largest, found.sqnr_db), (None, None));
    }

    proptest! {
        #[test]
        fn bytes_and_the_numbers_in_them_differ_in_the_same_places(
            a in proptest::collection::vec(any::<u8>(), 1..40),
            change in any::<(prop::sample::Index, u8)>(),
        ) {
            let mut b = a.clone();
            b[change.0.index(a.len())] ^= change.1;
            let shape = [a.len()];
            let with = |dtype| {
                let (a, b) = (tensor(dtype, &shape, &a), tensor(dtype, &shape, &b));
                compare(&a, &b).unwrap().unwrap()
            };
            let bytes = with(Dtype::BOOL);
            for dtype in [Dtype::U8, Dtype::I8, Dtype::F8_E4M3] {
                let found = with(dtype);
                prop_assert_eq!((found.count, found.first), (bytes.count, bytes.first));
            }
            prop_assert_eq!(bytes.count, usize::from(change.1 != 0));
        }
    }
}
