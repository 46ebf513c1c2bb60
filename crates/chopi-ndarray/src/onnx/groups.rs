//! Which elements share a scale and a zero point.

use chopi_core::Granularity;
use chopi_core::backend::{Layout, collected, repeated};
use ndarray::{Array, ArrayRef, Axis, CowArray, Dimension, IxDyn};

use super::{Error, Result};
use crate::tensor::from_memory;

/// What `f` makes of each element of an array.
///
/// # Errors
/// [`chopi_core::Error::Memory`] where there is none for it.
pub(super) fn mapped<T, U, D: Dimension>(
    array: &ArrayRef<T, D>,
    f: impl Fn(&T) -> U,
) -> Result<Array<U, D>> {
    let elements = collected(array.iter().map(f))?;
    Ok(from_memory(elements, &Layout::row_major(array.shape()))?)
}

/// An array of this shape, of times the same element.
///
/// # Errors
/// [`chopi_core::Error::Memory`] where there is none for it.
pub(super) fn filled<T: Clone, D: Dimension>(element: T, shape: &[usize]) -> Result<Array<T, D>> {
    let layout = Layout::row_major(shape);
    Ok(from_memory(repeated(element, layout.len())?, &layout)?)
}

/// Which elements of a tensor share a scale and a zero point, as its shape, the scale's shape and
/// the attributes say.
///
/// # Errors
/// [`Error::ScaleShape`], [`Error::ZeroPointShape`], [`Error::BlockSize`], and
/// [`chopi_core::Error::Axis`].
pub(super) fn granularity(
    shape: &[usize],
    scale: &[usize],
    zero_point: Option<&[usize]>,
    axis: isize,
    block_size: usize,
) -> Result<Granularity> {
    if let Some(zero_point) = zero_point
        && zero_point != scale
    {
        return Err(Error::ZeroPointShape {
            zero_point: zero_point.to_vec(),
            scale: scale.to_vec(),
        });
    }
    let wrong = |expected| {
        Err(Error::ScaleShape {
            scale: scale.to_vec(),
            shape: shape.to_vec(),
            expected,
        })
    };
    if block_size > 0 {
        let size = block_size;
        let expected = Granularity::PerGroup { axis, size }.params_shape(shape)?;
        let axis = from_start(axis, shape.len());
        let others = |n: &[usize]| [&n[..axis], &n[axis + 1..]].concat();
        if scale.len() != shape.len() || others(scale) != others(&expected) {
            return wrong(format!(
                "{expected:?} in blocks of {size} along axis {axis}"
            ));
        }
        if scale != expected {
            return Err(Error::BlockSize {
                block_size,
                blocks: scale[axis],
                length: shape[axis],
                expected: block_sizes(shape[axis], scale[axis]),
            });
        }
        let axis = axis as isize;
        return Ok(Granularity::PerGroup { axis, size });
    }
    match *scale {
        [] | [1] => Ok(Granularity::PerTensor),
        [length] => {
            let expected = Granularity::PerChannel { axis }.params_shape(shape)?;
            let axis = from_start(axis, shape.len()) as isize;
            match expected == [length] {
                true => Ok(Granularity::PerChannel { axis }),
                false => wrong(format!("a scalar, or {expected:?} along axis {axis}")),
            }
        }
        _ => wrong("a scalar, a scale of one axis, or a block_size".to_owned()),
    }
}

/// The index of an axis that a tensor of this rank has.
fn from_start(axis: isize, rank: usize) -> usize {
    axis.rem_euclid(rank as isize) as usize
}

/// The block sizes that cut an axis of this length into so many blocks, in words.
fn block_sizes(length: usize, blocks: usize) -> String {
    match blocks {
        1 if length > 0 => format!("{length} or more"),
        2.. if length.div_ceil(blocks - 1) > length.div_ceil(blocks) => {
            let (least, most) = (length.div_ceil(blocks), length.div_ceil(blocks - 1) - 1);
            format!("{least}..={most}")
        }
        _ => "impossible: no block size gives so many".to_owned(),
    }
}

/// One number a group, in a shape that broadcasts to the tensor's.
///
/// # Errors
/// [`chopi_core::Error::Memory`] where there is none for it.
pub(super) fn spread<'a, T: Copy, D: Dimension>(
    numbers: &'a ArrayRef<T, D>,
    granularity: Granularity,
    shape: &[usize],
) -> Result<CowArray<'a, T, IxDyn>> {
    let mut numbers = numbers.view().into_dyn();
    Ok(match granularity {
        Granularity::PerTensor => {
            while numbers.ndim() > 0 {
                numbers = numbers.index_axis_move(Axis(0), 0);
            }
            numbers.into()
        }
        Granularity::PerChannel { axis } => {
            for other in 0..shape.len() {
                if other as isize != axis {
                    numbers = numbers.insert_axis(Axis(other));
                }
            }
            numbers.into()
        }
        Granularity::PerGroup { axis, size } => {
            let axis = Axis(axis as usize);
            let Some(&first) = numbers.first() else {
                // Without a group, there is no element either.
                return Ok(from_memory(Vec::new(), &Layout::row_major(shape))?.into());
            };
            let mut each: Array<T, IxDyn> = filled(first, shape)?;
            for (i, mut each) in each.axis_iter_mut(axis).enumerate() {
                each.assign(&numbers.index_axis(axis, i / size));
            }
            each.into()
        }
    })
}
