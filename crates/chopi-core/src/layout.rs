//! How a tensor's elements lie in memory.

use std::borrow::Cow;

use smallvec::SmallVec;

/// A number for each axis; those of a few axes are kept without an allocation.
pub(crate) type Axes = SmallVec<[usize; 6]>;

/// The order in which the elements of a dense tensor lie in one slice.
///
/// A dense tensor fills its slice without gaps or overlaps; its axes may lie in any order. A
/// row-major tensor has its last axis innermost, a Fortran-order one its first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Axes,
    /// The axes from outermost to innermost; `None` for row-major.
    order: Option<Axes>,
}

impl Layout {
    /// The row-major layout of a shape.
    pub fn row_major(shape: &[usize]) -> Self {
        Self {
            shape: shape.into(),
            order: None,
        }
    }

    /// The layout of a tensor with these strides, in elements, if it is dense.
    ///
    /// The strides of axes of length 1, and of all axes of an empty tensor, mean nothing.
    pub fn dense(shape: &[usize], strides: &[isize]) -> Option<Self> {
        let is_dense = |axes: &mut dyn Iterator<Item = usize>| {
            let mut expected = 1;
            axes.filter(|&axis| shape[axis] != 1).all(|axis| {
                let fits = strides[axis] == expected;
                expected *= shape[axis] as isize;
                fits
            })
        };
        if shape.contains(&0) || is_dense(&mut (0..shape.len()).rev()) {
            return Some(Self::row_major(shape));
        }
        let mut order: Axes = (0..shape.len()).collect();
        // Axes of length 1 go outermost; the sort is stable, so equal keys stay row-major.
        order.sort_by_key(|&axis| {
            std::cmp::Reverse(if shape[axis] == 1 {
                isize::MAX
            } else {
                strides[axis]
            })
        });
        is_dense(&mut order.iter().rev().copied()).then(|| Self {
            shape: shape.into(),
            order: Some(order),
        })
    }

    /// The tensor's shape.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements.
    pub fn len(&self) -> usize {
        self.shape.iter().product()
    }

    /// Whether there is no element.
    pub fn is_empty(&self) -> bool {
        self.shape.contains(&0)
    }

    /// The axes from outermost to innermost where the order is not row-major.
    pub fn order(&self) -> Option<&[usize]> {
        self.order.as_deref()
    }

    /// The shape in memory order, outermost first.
    pub fn memory_shape(&self) -> Cow<'_, [usize]> {
        match &self.order {
            None => Cow::Borrowed(&self.shape),
            Some(order) => order.iter().map(|&axis| self.shape[axis]).collect(),
        }
    }

    /// The permutation that takes a tensor of shape [`memory_shape`](Self::memory_shape) to one of
    /// this shape: axis `i` of the tensor is axis `inverse[i]` in memory.
    pub fn inverse_order(&self) -> Option<Vec<usize>> {
        self.order.as_ref().map(|order| {
            let mut inverse = vec![0; order.len()];
            for (position, &axis) in order.iter().enumerate() {
                inverse[axis] = position;
            }
            inverse
        })
    }

    /// The lengths (outer, axis, inner) of memory split at an axis of the tensor.
    pub(crate) fn split(&self, axis: usize) -> (usize, usize, usize) {
        let position = match &self.order {
            None => axis,
            Some(order) => order.iter().take_while(|&&a| a != axis).count(),
        };
        let shape = self.memory_shape();
        (
            shape[..position].iter().product(),
            shape[position],
            shape[position + 1..].iter().product(),
        )
    }

    /// The same axes in the same order, with one axis of another length.
    pub(crate) fn with_axis(&self, axis: usize, len: usize) -> Self {
        let mut layout = self.clone();
        layout.shape[axis] = len;
        layout
    }

    /// The coordinates of the element at an offset in memory.
    pub(crate) fn index(&self, mut offset: usize) -> Vec<usize> {
        let mut index = vec![0; self.shape.len()];
        for position in (0..self.shape.len()).rev() {
            let axis = self
                .order
                .as_ref()
                .map_or(position, |order| order[position]);
            index[axis] = offset % self.shape[axis];
            offset /= self.shape[axis];
        }
        index
    }

    /// Elements in the memory order of this layout, put into that of another of the same shape.
    pub(crate) fn reordered<'a, T: Copy>(&self, data: &'a [T], to: &Self) -> Cow<'a, [T]> {
        if self.order == to.order {
            return Cow::Borrowed(data);
        }
        match self.to_row_major(data) {
            Cow::Borrowed(data) => to.to_memory_order(data),
            Cow::Owned(data) => Cow::Owned(to.to_memory_order(&data).into_owned()),
        }
    }

    /// Elements in memory order, put into row-major order.
    pub fn to_row_major<'a, T: Copy>(&self, data: &'a [T]) -> Cow<'a, [T]> {
        let Some(inverse) = self.inverse_order() else {
            return Cow::Borrowed(data);
        };
        let mut strides = vec![1; self.shape.len()];
        let memory = self.memory_shape();
        for position in (1..memory.len()).rev() {
            strides[position - 1] = strides[position] * memory[position];
        }
        let strides: Vec<usize> = inverse.iter().map(|&position| strides[position]).collect();
        gather(&self.shape, &strides, data)
    }

    /// Elements in row-major order, put into memory order.
    pub(crate) fn to_memory_order<'a, T: Copy>(&self, data: &'a [T]) -> Cow<'a, [T]> {
        let Some(order) = &self.order else {
            return Cow::Borrowed(data);
        };
        let mut strides = vec![1; self.shape.len()];
        for axis in (1..self.shape.len()).rev() {
            strides[axis - 1] = strides[axis] * self.shape[axis];
        }
        let strides: Vec<usize> = order.iter().map(|&axis| strides[axis]).collect();
        gather(&self.memory_shape(), &strides, data)
    }
}

/// The elements of a strided tensor in the row-major order of its shape.
fn gather<'a, T: Copy>(shape: &[usize], strides: &[usize], data: &[T]) -> Cow<'a, [T]> {
    let mut out = Vec::with_capacity(data.len());
    let mut index = vec![0; shape.len()];
    let mut offset = 0;
    for _ in 0..data.len() {
        out.push(data[offset]);
        for axis in (0..shape.len()).rev() {
            index[axis] += 1;
            offset += strides[axis];
            if index[axis] < shape[axis] {
                break;
            }
            offset -= strides[axis] * shape[axis];
            index[axis] = 0;
        }
    }
    Cow::Owned(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_layouts_are_recognized_whatever_their_axis_order() {
        let dense = |shape: &[usize], strides: &[isize]| Layout::dense(shape, strides);
        assert_eq!(dense(&[2, 3], &[3, 1]), Some(Layout::row_major(&[2, 3])));
        assert_eq!(dense(&[2, 3], &[1, 2]).unwrap().order(), Some(&[1, 0][..]));
        assert_eq!(dense(&[2, 1, 3], &[3, 77, 1]).unwrap().order(), None);
        assert_eq!(dense(&[], &[]), Some(Layout::row_major(&[])));
        assert_eq!(dense(&[0, 3], &[9, 9]).unwrap().order(), None);
        for strides in [[4, 1], [3, -1], [0, 1], [3, 2]] {
            assert_eq!(dense(&[2, 3], &strides), None, "{strides:?}");
        }
    }

    #[test]
    fn memory_order_and_row_major_order_are_inverse() {
        let layout = Layout::dense(&[2, 3, 4], &[4, 8, 1]).unwrap();
        let memory: Vec<usize> = (0..24).collect();
        let row_major = layout.to_row_major(&memory);
        assert_eq!(row_major[4], 8);
        assert_eq!(layout.to_memory_order(&row_major), &memory[..]);
        for offset in 0..24 {
            let [i, j, k] = layout.index(offset)[..] else {
                unreachable!()
            };
            assert_eq!(row_major[(i * 3 + j) * 4 + k], offset);
        }
    }
}
