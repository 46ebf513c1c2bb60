//! How a tensor's elements lie in memory.

use std::borrow::Cow;

use smallvec::SmallVec;

use crate::memory::{NoMemory, with_room};

/// A number for each axis; those of a few axes are kept without an allocation.
pub type Axes = SmallVec<[usize; 6]>;

/// The order in which the elements of a dense tensor lie in one slice.
///
/// A dense tensor fills its slice without gaps or overlaps; its axes may lie in any order. A
/// row-major tensor has its last axis innermost, a Fortran-order one its first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layout {
    shape: Axes,
    /// The number of elements.
    len: usize,
    /// The axes from outermost to innermost; empty for row-major. Bytes keep the layout small.
    order: SmallVec<[u8; 16]>,
}

impl Layout {
    /// The row-major layout of a shape.
    #[inline]
    pub fn row_major(shape: &[usize]) -> Self {
        Self {
            shape: Axes::from_slice(shape),
            len: len_of(shape),
            order: SmallVec::new(),
        }
    }

    /// The layout of a tensor with these strides, in elements, if it is dense.
    ///
    /// The strides of axes of length 1, and of all axes of an empty tensor, mean nothing.
    pub fn dense(shape: &[usize], strides: &[isize]) -> Option<Self> {
        if shape.len() != strides.len() {
            return None;
        }
        if shape.contains(&0) || are_dense(shape, strides, (0..shape.len()).rev()) {
            return Some(Self::row_major(shape));
        }
        // Nobody has tensors of more axes; such a one counts as not dense.
        let rank = u8::try_from(shape.len()).ok()?;
        let mut order: SmallVec<[u8; 16]> = (0..rank).collect();
        // Axes of length 1 go outermost; the sort is stable, so equal keys stay row-major.
        order.sort_by_key(|&axis| {
            let axis = usize::from(axis);
            std::cmp::Reverse(if shape[axis] == 1 {
                isize::MAX
            } else {
                strides[axis]
            })
        });
        let innermost_first = order.iter().rev().map(|&axis| usize::from(axis));
        are_dense(shape, strides, innermost_first).then(|| Self {
            shape: Axes::from_slice(shape),
            len: len_of(shape),
            order,
        })
    }

    /// The tensor's shape.
    #[inline]
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The number of elements; `usize::MAX` where there are more, as no memory holds.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no element.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the last axis is innermost, the one before next, and so on.
    #[inline]
    pub fn is_row_major(&self) -> bool {
        self.order.is_empty()
    }

    /// Whether two layouts have their axes in the same order.
    #[inline]
    pub fn has_order_of(&self, other: &Self) -> bool {
        self.order == other.order
    }

    /// The axis at a position in memory, where 0 is outermost.
    pub fn axis_at(&self, position: usize) -> usize {
        match self.order.get(position) {
            Some(&axis) => axis.into(),
            None => position,
        }
    }

    /// The shape in memory order, outermost first.
    pub fn memory_shape(&self) -> Cow<'_, [usize]> {
        match self.is_row_major() {
            true => Cow::Borrowed(&self.shape),
            false => (0..self.shape.len())
                .map(|position| self.shape[self.axis_at(position)])
                .collect(),
        }
    }

    /// The permutation that takes a tensor of shape [`memory_shape`](Self::memory_shape) to one of
    /// this shape: axis `i` of the tensor is axis `inverse[i]` in memory. There is none where the layout is
    /// row-major.
    pub fn inverse_order(&self) -> Option<Vec<usize>> {
        if self.is_row_major() {
            return None;
        }
        let mut inverse = vec![0; self.shape.len()];
        for position in 0..inverse.len() {
            inverse[self.axis_at(position)] = position;
        }
        Some(inverse)
    }

    /// The lengths (outer, axis, inner) of memory split at an axis of the tensor.
    pub fn split(&self, axis: usize) -> (usize, usize, usize) {
        if self.is_row_major() {
            let (outer, inner) = (&self.shape[..axis], &self.shape[axis + 1..]);
            return (len_of(outer), self.shape[axis], len_of(inner));
        }
        let is_before = |&position: &usize| self.axis_at(position) != axis;
        let position = (0..self.shape.len()).take_while(is_before).count();
        let shape = self.memory_shape();
        (
            len_of(&shape[..position]),
            shape[position],
            len_of(&shape[position + 1..]),
        )
    }

    /// This layout with one axis of another length.
    pub fn with_axis(&self, axis: usize, len: usize) -> Self {
        let mut layout = self.clone();
        layout.shape[axis] = len;
        layout.len = len_of(&layout.shape);
        layout
    }

    /// The coordinates of the element at an offset in memory.
    pub fn index(&self, mut offset: usize) -> Vec<usize> {
        let mut index = vec![0; self.shape.len()];
        for position in (0..self.shape.len()).rev() {
            let axis = self.axis_at(position);
            // Where there is no element, none is asked for.
            let length = self.shape[axis].max(1);
            index[axis] = offset % length;
            offset /= length;
        }
        index
    }

    /// Elements in the memory order of this layout, put into that of another of the same shape.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for elements that have to be moved.
    #[inline]
    pub fn reordered<'a, T: Copy>(
        &self,
        data: &'a [T],
        to: &Self,
    ) -> Result<Cow<'a, [T]>, NoMemory> {
        if self.has_order_of(to) {
            return Ok(Cow::Borrowed(data));
        }
        match self.to_row_major(data)? {
            Cow::Borrowed(data) => to.to_memory_order(data),
            Cow::Owned(data) => Ok(Cow::Owned(to.into_memory_order(data)?)),
        }
    }

    /// [`to_memory_order`](Self::to_memory_order) of a vector, which is given back where nothing has to be
    /// moved.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for elements that have to be moved.
    pub fn into_memory_order<T: Copy>(&self, data: Vec<T>) -> Result<Vec<T>, NoMemory> {
        match self.to_memory_order(&data)? {
            Cow::Borrowed(_) => Ok(data),
            Cow::Owned(moved) => Ok(moved),
        }
    }

    /// [`to_row_major`](Self::to_row_major) of a vector, which is given back where nothing has to be moved.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for elements that have to be moved.
    pub fn into_row_major<T: Copy>(&self, data: Vec<T>) -> Result<Vec<T>, NoMemory> {
        match self.to_row_major(&data)? {
            Cow::Borrowed(_) => Ok(data),
            Cow::Owned(moved) => Ok(moved),
        }
    }

    /// Elements in memory order, put into row-major order.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for elements that have to be moved.
    ///
    /// # Panics
    /// Where there are not as many as the layout says, and they have to be moved.
    pub fn to_row_major<'a, T: Copy>(&self, data: &'a [T]) -> Result<Cow<'a, [T]>, NoMemory> {
        let Some(inverse) = self.inverse_order() else {
            return Ok(Cow::Borrowed(data));
        };
        let mut strides = vec![1; self.shape.len()];
        let memory = self.memory_shape();
        for position in (1..memory.len()).rev() {
            strides[position - 1] = usize::saturating_mul(strides[position], memory[position]);
        }
        let strides: Vec<usize> = inverse.iter().map(|&position| strides[position]).collect();
        Ok(Cow::Owned(gather(&self.shape, &strides, data)?))
    }

    /// Elements in row-major order, put into memory order.
    ///
    /// # Errors
    /// [`NoMemory`] where there is none for elements that have to be moved.
    ///
    /// # Panics
    /// Where there are not as many as the layout says, and they have to be moved.
    pub fn to_memory_order<'a, T: Copy>(&self, data: &'a [T]) -> Result<Cow<'a, [T]>, NoMemory> {
        if self.is_row_major() {
            return Ok(Cow::Borrowed(data));
        }
        let mut strides = vec![1; self.shape.len()];
        for axis in (1..self.shape.len()).rev() {
            strides[axis - 1] = usize::saturating_mul(strides[axis], self.shape[axis]);
        }
        let in_memory = (0..strides.len()).map(|position| strides[self.axis_at(position)]);
        let strides: Vec<usize> = in_memory.collect();
        Ok(Cow::Owned(gather(&self.memory_shape(), &strides, data)?))
    }
}

/// Whether a tensor fills its memory without gaps or overlaps, with its axes in this order, the innermost
/// first.
fn are_dense(shape: &[usize], strides: &[isize], mut axes: impl Iterator<Item = usize>) -> bool {
    let mut expected = 1_isize;
    axes.all(|axis| {
        let (length, stride) = (shape[axis], strides[axis]);
        if length == 1 {
            return true;
        }
        let next = isize::try_from(length)
            .ok()
            .and_then(|n| expected.checked_mul(n));
        let fits = stride == expected && next.is_some();
        expected = next.unwrap_or(0);
        fits
    })
}

/// The number of elements of a shape; `usize::MAX` where there are more, as no memory holds.
#[inline]
fn len_of(shape: &[usize]) -> usize {
    // A product that has overflowed is 0 all the same where an axis is.
    let len = |(n, overflows): (usize, bool), &length| {
        let (n, more) = n.overflowing_mul(length);
        (n, overflows | more)
    };
    match shape.iter().fold((1, false), len) {
        (_, true) if !shape.contains(&0) => usize::MAX,
        (_, true) => 0,
        (n, false) => n,
    }
}

/// The elements of a strided tensor in the row-major order of its shape.
fn gather<T: Copy>(shape: &[usize], strides: &[usize], data: &[T]) -> Result<Vec<T>, NoMemory> {
    assert_eq!(data.len(), len_of(shape), "elements of shape {shape:?}");
    let mut out = with_room(data.len())?;
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
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dense_layouts_are_recognized_whatever_their_axis_order() {
        let dense = |shape: &[usize], strides: &[isize]| Layout::dense(shape, strides);
        assert_eq!(dense(&[2, 3], &[3, 1]), Some(Layout::row_major(&[2, 3])));
        let fortran = dense(&[2, 3], &[1, 2]).unwrap();
        assert_eq!([0, 1].map(|position| fortran.axis_at(position)), [1, 0]);
        assert!(dense(&[2, 1, 3], &[3, 77, 1]).unwrap().is_row_major());
        assert_eq!(dense(&[], &[]), Some(Layout::row_major(&[])));
        assert!(dense(&[0, 3], &[9, 9]).unwrap().is_row_major());
        for strides in [[4, 1], [3, -1], [0, 1], [3, 2]] {
            assert_eq!(dense(&[2, 3], &strides), None, "{strides:?}");
        }
    }

    #[test]
    fn huge_axes_and_strides_are_not_computed_with() {
        let most = isize::MAX;
        for strides in [[most, 1], [1, most], [isize::MIN, most], [most; 2]] {
            assert_eq!(Layout::dense(&[2, 3], &strides), None);
            assert_eq!(Layout::dense(&[usize::MAX, 3], &strides), None);
            let empty = Layout::dense(&[usize::MAX, 0], &strides).unwrap();
            assert_eq!((empty.len(), empty.index(0)), (0, vec![0, 0]));
        }
        for shape in [&[2][..], &[2, 3, 4]] {
            assert_eq!(Layout::dense(shape, &[1, 2]), None);
        }
        let empty = Layout::dense(&[2, 3], &[1, 2]).unwrap().with_axis(0, 0);
        let huge = empty.with_axis(1, usize::MAX);
        assert!(huge.to_row_major::<u8>(&[]).unwrap().is_empty());
        assert!(huge.to_memory_order::<u8>(&[]).unwrap().is_empty());
    }

    #[test]
    fn memory_order_and_row_major_order_are_inverse() {
        let layout = Layout::dense(&[2, 3, 4], &[4, 8, 1]).unwrap();
        let memory: Vec<usize> = (0..24).collect();
        let row_major = layout.to_row_major(&memory).unwrap();
        assert_eq!(row_major[4], 8);
        assert_eq!(layout.to_memory_order(&row_major).unwrap(), &memory[..]);
        for offset in 0..24 {
            let [i, j, k] = layout.index(offset)[..] else {
                unreachable!()
            };
            assert_eq!(row_major[(i * 3 + j) * 4 + k], offset);
        }
    }
}
