//! Tensors cut into parts in which all groups have one length, so that parameters broadcast.

use std::ops::Range;

use super::DeviceTensor;
use crate::error::Result;
use crate::scheme::{Granularity, resolve_axis};
use chopi_kernels::FloatType;
use chopi_kernels::memory::{collected, with_room};

/// A part of a tensor in which every group has the same length, with an axis for the groups and one
/// for their elements, and which parameters belong to it.
pub(super) struct Part {
    /// The part along the group axis; `None` for the whole tensor.
    pub narrow: Option<(usize, Range<usize>)>,
    /// The shape in which parameters broadcast.
    pub shape: Vec<usize>,
    /// The indices of the part's parameters, in row-major order.
    pub params: Vec<usize>,
    /// Their shape.
    pub params_shape: Vec<usize>,
}

impl Part {
    /// The elements of a tensor that are in the part, in its shape.
    pub fn tensor<T: DeviceTensor>(&self, tensor: &T) -> Result<T> {
        match &self.narrow {
            None => tensor.reshape(&self.shape),
            Some((axis, range)) => tensor.narrow(*axis, range.clone())?.reshape(&self.shape),
        }
    }

    /// One number a group, as a tensor that broadcasts to the part.
    pub fn constant<T: DeviceTensor>(
        &self,
        like: &T,
        float: FloatType,
        number: impl Fn(usize) -> f64,
    ) -> Result<T> {
        let values: Vec<f64> = collected(self.params.iter().map(|&group| number(group)))?;
        like.constant(&values, &self.params_shape, float)
    }
}

/// The parts of a tensor: two where the last group along an axis is shorter, else one.
pub(super) fn parts(shape: &[usize], granularity: Granularity) -> Result<Vec<Part>> {
    let rank = shape.len();
    match granularity {
        Granularity::PerTensor => Ok(vec![Part {
            narrow: None,
            shape: shape.to_vec(),
            params: vec![0],
            params_shape: vec![1; rank],
        }]),
        Granularity::PerChannel { axis } => {
            let axis = resolve_axis(axis, shape)?;
            let mut params_shape = vec![1; rank];
            params_shape[axis] = shape[axis];
            let params = collected(0..shape[axis])?;
            Ok(vec![Part {
                narrow: None,
                shape: shape.to_vec(),
                params,
                params_shape,
            }])
        }
        Granularity::PerGroup { axis, size } => {
            let axis = resolve_axis(axis, shape)?;
            let (length, groups) = (shape[axis], shape[axis].div_ceil(size));
            let outer: usize = shape[..axis].iter().product();
            let inner: usize = shape[axis + 1..].iter().product();
            let whole = length / size;
            let part = |first: usize, count: usize, size: usize, start: usize| -> Result<Part> {
                let split = |size: usize| {
                    let mut split = shape.to_vec();
                    split.splice(axis..=axis, [count, size]);
                    split
                };
                let of_outer = |o: usize| {
                    let (from, to) = (o * groups + first, o * groups + first + count);
                    from * inner..to * inner
                };
                let mut params = with_room(outer.saturating_mul(count).saturating_mul(inner))?;
                params.extend((0..outer).flat_map(of_outer));
                Ok(Part {
                    narrow: Some((axis, start..start + count * size)),
                    shape: split(size),
                    params,
                    params_shape: split(1),
                })
            };
            let mut parts = Vec::new();
            if whole > 0 || length == 0 {
                parts.push(part(0, whole, size, 0)?);
            }
            if length % size > 0 {
                parts.push(part(whole, 1, length % size, whole * size)?);
            }
            Ok(parts)
        }
    }
}

/// `f` of each part of the tensor, put together again.
pub(super) fn by_parts<T: DeviceTensor>(
    shape: &[usize],
    granularity: Granularity,
    f: impl Fn(&Part) -> Result<T>,
) -> Result<T> {
    let parts = parts(shape, granularity)?;
    let mut results = Vec::with_capacity(parts.len());
    let mut axis = 0;
    for part in &parts {
        let mut part_shape = shape.to_vec();
        if let Some((a, range)) = &part.narrow {
            axis = *a;
            part_shape[axis] = range.len();
        }
        results.push(f(part)?.reshape(&part_shape)?);
    }
    match results.len() {
        1 => Ok(results.swap_remove(0)),
        _ => T::cat(results, axis),
    }
}
