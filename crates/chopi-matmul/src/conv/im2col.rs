//! The matrix whose rows are the patches of the input that the kernel meets.

use std::ops::Range;

use super::ConvGeometry;
use super::geometry::Axis;

impl ConvGeometry {
    /// Writes rows of the matrix of patches of one group of one image: row p, for p in `positions`,
    /// holds what the kernel meets at the p-th position of the output, in the order of the weights
    /// (channel, then the kernel's axes), and `padding` where that lies outside.
    ///
    /// `patches` has positions.len()·[depth](Self::depth) elements, `input` those of the geometry.
    pub(crate) fn patches<T: Copy>(
        &self,
        input: &[T],
        (image, group): (usize, usize),
        positions: Range<usize>,
        padding: T,
        patches: &mut [T],
    ) {
        let depth = self.depth();
        if depth == 0 {
            return;
        }
        let input = self.image(input, image, group);
        let (last, outer) = self.axes.split_last().expect("there is a spatial axis");
        // The positions of one row of the output at a time: their patches hold parts of the same
        // rows of the input.
        let (mut start, mut patches) = (positions.start, patches);
        while start < positions.end {
            let column = start % last.output;
            let end = positions.end.min(start - column + last.output);
            let (run, rest) = patches.split_at_mut((end - start) * depth);
            let mut offset = 0;
            for channel in input.chunks_exact(self.plane().max(1)) {
                outer_rows(outer, start / last.output, |row| {
                    let row = row.map(|row| &channel[row * last.input..][..last.input]);
                    let windows = run.chunks_exact_mut(depth);
                    let windows = windows.map(|patch| &mut patch[offset..offset + last.kernel]);
                    last.copy(row, column, padding, windows);
                    offset += last.kernel;
                });
            }
            // An input without elements has channels of padding only.
            for patch in run.chunks_exact_mut(depth) {
                patch[offset..].fill(padding);
            }
            (start, patches) = (end, rest);
        }
    }
}

/// Calls `f`, for each element of the kernel along the outer axes, with the row of the input that it
/// meets, None where that lies in the padding.
fn outer_rows(axes: &[Axis], position: usize, mut f: impl FnMut(Option<usize>)) {
    let count: usize = axes.iter().map(|axis| axis.kernel).product();
    for kernel in 0..count {
        let (mut position, mut kernel) = (position, kernel);
        let (mut row, mut stride) = (Some(0), 1);
        for axis in axes.iter().rev() {
            let index = axis.index(position % axis.output, kernel % axis.kernel);
            row = row.zip(index).map(|(row, index)| row + index * stride);
            stride *= axis.input;
            position /= axis.output;
            kernel /= axis.kernel;
        }
        f(row);
    }
}

impl Axis {
    /// Where in the input the kernel's element `k` is for an output; None in the padding.
    #[inline(always)]
    fn index(&self, output: usize, k: usize) -> Option<usize> {
        let index = (output * self.stride + k * self.dilation).checked_sub(self.before)?;
        (index < self.input).then_some(index)
    }

    /// Copies what the kernel meets in a row of the input, at the outputs from `first` on.
    #[inline(always)]
    fn copy<'a, T: Copy + 'a>(
        &self,
        row: Option<&[T]>,
        first: usize,
        padding: T,
        windows: impl Iterator<Item = &'a mut [T]>,
    ) {
        let Some(row) = row else {
            return windows.for_each(|window| window.fill(padding));
        };
        match (self.kernel, self.dilation) {
            // Of a known length, a copy is a move or two.
            (1, _) => self.copy_short::<T, 1>(row, first, padding, windows),
            (2, 1) => self.copy_short::<T, 2>(row, first, padding, windows),
            (3, 1) => self.copy_short::<T, 3>(row, first, padding, windows),
            (5, 1) => self.copy_short::<T, 5>(row, first, padding, windows),
            (7, 1) => self.copy_short::<T, 7>(row, first, padding, windows),
            _ => {
                for (output, window) in (first..).zip(windows) {
                    self.copy_each(row, output, padding, window);
                }
            }
        }
    }

    #[inline(always)]
    fn copy_short<'a, T: Copy + 'a, const K: usize>(
        &self,
        row: &[T],
        first: usize,
        padding: T,
        windows: impl Iterator<Item = &'a mut [T]>,
    ) {
        for (output, window) in (first..).zip(windows) {
            let start = (output * self.stride).checked_sub(self.before);
            let whole = start.and_then(|start| row.get(start..)?.first_chunk::<K>());
            match (whole, window.first_chunk_mut::<K>()) {
                (Some(whole), Some(window)) => *window = *whole,
                _ => self.copy_each(row, output, padding, window),
            }
        }
    }

    fn copy_each<T: Copy>(&self, row: &[T], output: usize, padding: T, window: &mut [T]) {
        for (k, element) in window.iter_mut().enumerate() {
            *element = self.index(output, k).map_or(padding, |index| row[index]);
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use crate::conv::{ConvGeometry, ConvParams};

    /// Shapes of one to three spatial axes that fit each other.
    pub fn geometries() -> impl Strategy<Value = (Vec<usize>, Vec<usize>, ConvParams)> {
        let kernel = prop_oneof![8 => 1..4_usize, 1 => 4..8_usize];
        let axis = (
            kernel,
            1..3_usize,
            1..4_usize,
            0..4_usize,
            0..3_usize,
            0..5_usize,
        );
        let axes = prop::collection::vec(axis, 1..=3);
        (axes, 0..3_usize, 1..4_usize, 1..4_usize, 1..4_usize).prop_map(
            |(axes, batch, groups, depth, channels)| {
                let mut params = ConvParams::new(axes.len());
                params.groups = groups;
                let mut input = vec![batch, depth * groups];
                let mut weights = vec![channels * groups, depth];
                for (i, (kernel, dilation, stride, before, after, extra)) in
                    axes.into_iter().enumerate()
                {
                    params.strides[i] = stride;
                    params.dilations[i] = dilation;
                    params.padding[i] = (before, after);
                    let span = (kernel - 1) * dilation + 1;
                    input.push(span.saturating_sub(before + after) + extra);
                    weights.push(kernel);
                }
                (input, weights, params)
            },
        )
    }

    /// The number of an element of a row-major tensor.
    pub fn offset(shape: &[usize], index: &[usize]) -> usize {
        shape
            .iter()
            .zip(index)
            .fold(0, |offset, (n, i)| offset * n + i)
    }

    /// All indices of a tensor in row-major order.
    pub fn indices(shape: &[usize]) -> Vec<Vec<usize>> {
        shape.iter().fold(vec![vec![]], |indices, &n| {
            let longer =
                |index: Vec<usize>| (0..n).map(move |i| index.iter().copied().chain([i]).collect());
            indices.into_iter().flat_map(longer).collect()
        })
    }

    /// What the kernel meets, by the formula: the element of x, None in the padding.
    pub fn met(
        x: &[usize],
        params: &ConvParams,
        (image, channel): (usize, usize),
        output: &[usize],
        kernel: &[usize],
    ) -> Option<usize> {
        let mut index = vec![image, channel];
        for axis in 0..output.len() {
            let i = output[axis] * params.strides[axis] + kernel[axis] * params.dilations[axis];
            let i = i as i64 - params.padding[axis].0 as i64;
            if !(0..x[axis + 2] as i64).contains(&i) {
                return None;
            }
            index.push(i as usize);
        }
        Some(offset(x, &index))
    }

    proptest! {
        #[test]
        fn patches_are_what_the_kernel_meets((x, w, params) in geometries(), cut in 0.0..1.0_f64) {
            let geometry = ConvGeometry::new(&x, &w, &params).unwrap();
            let input: Vec<u32> = (0..geometry.input_len() as u32).collect();
            let positions = indices(&geometry.output_shape()[2..]);
            prop_assert_eq!(positions.len(), geometry.positions());
            let first = (cut * positions.len() as f64) as usize;
            for image in 0..geometry.batch() {
                for group in 0..params.groups {
                    let rows = first..positions.len();
                    let mut patches = vec![7; rows.len() * geometry.depth()];
                    let padding = u32::MAX;
                    geometry.patches(&input, (image, group), rows, padding, &mut patches);
                    let mut patches = patches.into_iter();
                    for position in &positions[first..] {
                        for index in indices(&w[1..]) {
                            let channel = group * w[1] + index[0];
                            let met = met(&x, &params, (image, channel), position, &index[1..]);
                            let expected = met.map_or(padding, |i| i as u32);
                            prop_assert_eq!(patches.next(), Some(expected));
                        }
                    }
                    prop_assert_eq!(patches.next(), None);
                }
            }
        }
    }
}
