//! Numbers, shapes and schemes drawn from the bytes of an input.

use arbitrary::{Arbitrary, Result, Unstructured};
use chopi::backend::{Compute, Float, FloatType};
use chopi::{CodeRange, Granularity, Rounding};
use ndarray::{Array, ArrayD, ArrayViewD, Axis, IxDyn, ShapeBuilder, Slice};

/// One of several values.
pub fn one_of<T: Copy>(u: &mut Unstructured<'_>, values: &[T]) -> Result<T> {
    u.choose(values).copied()
}

/// Whether something that is to happen once in `n` times happens.
pub fn once_in(u: &mut Unstructured<'_>, n: u8) -> Result<bool> {
    Ok(u8::arbitrary(u)? % n == n - 1)
}

/// Whether something costly is to happen, for one of `n` inputs. A checksum of what is left of the input decides,
/// and not a byte of it: an input that is made of a costly one is as seldom costly as any other.
pub fn rarely(u: &Unstructured<'_>, n: u64) -> bool {
    let rest = u.peek_bytes(u.len()).unwrap_or_default();
    // FNV-1a.
    let hash = rest.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, &byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    (hash >> 32) % n == 0
}

/// The lengths of 0 to 4 axes: short ones most often, none at times, and once in 4,096 times so long that the
/// work is divided among threads.
pub fn shape(u: &mut Unstructured<'_>) -> Result<Vec<usize>> {
    let rank = u.int_in_range(0..=4)?;
    let mut shape = Vec::new();
    for _ in 0..rank {
        shape.push(match u8::arbitrary(u)? % 32 {
            0 => 0,
            n @ 1..=20 => usize::from(n % 7) + 1,
            21..=28 if shape.len() < 2 => u.int_in_range(1..=70)?,
            _ => 1,
        });
    }
    if rank > 0 && rarely(u, 4096) {
        let axis = u.choose_index(rank)?;
        let others: usize = shape
            .iter()
            .enumerate()
            .filter(|(i, _)| *i != axis)
            .map(|(_, n)| n)
            .product();
        // Twice what is worth a thread, and a little more or less.
        shape[axis] = (2 * 128 * 1024 / others.max(1)) + u.int_in_range(0..=9)?;
    }
    Ok(shape)
}

/// A granularity, most often of an axis that the shape has.
pub fn granularity(u: &mut Unstructured<'_>, rank: usize) -> Result<Granularity> {
    let rank = rank as isize;
    let axis = match once_in(u, 32)? {
        true => isize::arbitrary(u)?,
        false => u.int_in_range(-rank..=(rank - 1).max(0))?,
    };
    Ok(match u8::arbitrary(u)? % 4 {
        0 | 1 => Granularity::PerTensor,
        2 => Granularity::PerChannel { axis },
        _ => Granularity::PerGroup {
            axis,
            size: match once_in(u, 32)? {
                true => usize::arbitrary(u)?,
                false => u.int_in_range(1..=40)?,
            },
        },
    })
}

/// A range of codes for so many bits.
pub fn range(u: &mut Unstructured<'_>, bits: u32) -> Result<CodeRange> {
    Ok(match u8::arbitrary(u)? % 8 {
        0..=3 => CodeRange::Default,
        4 => CodeRange::Unsigned,
        5 => CodeRange::Signed,
        6 => CodeRange::Narrow,
        _ => {
            let qmin = one_of(u, &[-(1_i64 << 31), -40_000, -200, -8, -1, 0, 1, 3, 250])?;
            let codes = u.int_in_range(1..=(1_i64 << bits.min(32)) - 1)?;
            CodeRange::Custom {
                qmin,
                qmax: qmin + codes,
            }
        }
    })
}

/// Any rounding, to the nearest even one most often.
pub fn rounding(u: &mut Unstructured<'_>) -> Result<Rounding> {
    Ok(match u8::arbitrary(u)? % 10 {
        0 => Rounding::NearestAway,
        1 => Rounding::TowardZero,
        2 => Rounding::Floor,
        3 => Rounding::Ceiling,
        4 => Rounding::Stochastic {
            seed: u64::arbitrary(u)?,
        },
        _ => Rounding::NearestEven,
    })
}

/// Any number of a type, by its bits: NaN, infinities and subnormal numbers too.
pub fn any_float<F: Float>(u: &mut Unstructured<'_>) -> Result<F> {
    Ok(match F::TYPE {
        FloatType::F64 => narrow(f64::from_bits(u64::arbitrary(u)?)),
        FloatType::F32 => narrow(f64::from(f32::from_bits(u32::arbitrary(u)?))),
        FloatType::F16 => narrow(chopi::backend::f16::from_bits(u16::arbitrary(u)?).into()),
        FloatType::BF16 => narrow(chopi::backend::bf16::from_bits(u16::arbitrary(u)?).into()),
    })
}

/// A number rounded to the compute type and then to the element type.
pub fn narrow<F: Float>(x: f64) -> F {
    F::narrow(<F::Compute as Compute>::from_f64(x))
}

/// A few numbers: plain ones, and whatever bits give; all of them finite if asked.
pub fn palette<F: Float>(u: &mut Unstructured<'_>, finite: bool) -> Result<Vec<F>> {
    let count = u.int_in_range(1..=12)?;
    let mut numbers = Vec::with_capacity(count);
    let largest = chopi_conformance::data::largest(F::TYPE);
    for _ in 0..count {
        let number: F = match u8::arbitrary(u)? % 8 {
            0 => narrow(0.0),
            1 | 2 => narrow(f64::from(i16::arbitrary(u)?) / 256.0),
            3 => narrow(f64::from(i8::arbitrary(u)?)),
            4 => narrow(f64::from(i16::arbitrary(u)?) * 2_f64.powi(u.int_in_range(-160..=120)?)),
            5 => narrow(290.0 + f64::from(i8::arbitrary(u)?) / 16.0),
            6 => narrow(largest * f64::from(i8::arbitrary(u)?) / 128.0),
            _ => any_float(u)?,
        };
        if !finite || number.widen().as_f64().is_finite() {
            numbers.push(number);
        }
    }
    if numbers.is_empty() {
        numbers.push(narrow(1.0));
    }
    Ok(numbers)
}

/// As many elements as a shape has, each of them one of a few numbers; which one, a generator says.
pub fn elements<T: Copy>(
    u: &mut Unstructured<'_>,
    shape: &[usize],
    palette: &[T],
) -> Result<Vec<T>> {
    let mut random = chopi_conformance::data::Random::new(u.arbitrary::<u32>()?.into());
    let count = shape.iter().product();
    Ok((0..count)
        .map(|_| palette[random.bits() as usize % palette.len()])
        .collect())
}

/// How an array lies in memory.
#[derive(Clone, Copy, Debug, Arbitrary)]
pub enum Memory {
    RowMajor,
    ColumnMajor,
    /// The axes rotated by one.
    Rotated,
    Strided,
    Reversed,
}

/// Calls `f` with a view of an array of these elements, in row-major order, that lies in memory so.
pub fn with_view<T: Clone, R>(
    elements: &[T],
    shape: &[usize],
    memory: Memory,
    f: impl FnOnce(ArrayViewD<'_, T>) -> R,
) -> R {
    let array: ArrayD<T> = Array::from_shape_vec(IxDyn(shape), elements.to_vec()).unwrap();
    match memory {
        _ if array.ndim() == 0 || array.is_empty() => f(array.view()),
        Memory::RowMajor => f(array.view()),
        Memory::ColumnMajor => {
            let mut other = Array::from_elem(IxDyn(shape).f(), array.first().unwrap().clone());
            other.assign(&array);
            f(other.view())
        }
        Memory::Rotated => {
            let rank = array.ndim();
            let order: Vec<usize> = (0..rank).map(|axis| (axis + 1) % rank).collect();
            let mut back = vec![0; rank];
            for (position, &axis) in order.iter().enumerate() {
                back[axis] = position;
            }
            let rotated = array.permuted_axes(order).as_standard_layout().into_owned();
            f(rotated.view().permuted_axes(back))
        }
        Memory::Strided => {
            let last = Axis(array.ndim() - 1);
            let twice: Vec<usize> = (0..2 * array.len_of(last)).map(|i| i / 2).collect();
            let wide = array.select(last, &twice);
            f(wide.slice_axis(last, Slice::new(0, None, 2)))
        }
        Memory::Reversed => {
            let mut array = array;
            array.invert_axis(Axis(0));
            let mut array = array.as_standard_layout().into_owned();
            array.invert_axis(Axis(0));
            f(array.view())
        }
    }
}
