//! What a convolution multiplies its weights with.

use std::ops::Range;

use chopi_core::backend::{Backend, FloatTensor};
use chopi_kernels::memory::with_room;

use super::{Moments, ROWS, check_finite, with_values};
use crate::error::{Error, Result};

/// The window of a convolution: heights before widths.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patches {
    /// The height and the width of the kernel.
    pub kernel: [usize; 2],
    /// The distance of two windows.
    pub stride: [usize; 2],
    /// The rows and columns of zeros at each side of the input.
    pub padding: [usize; 2],
    /// The distance of two elements of a window.
    pub dilation: [usize; 2],
}

impl Patches {
    /// The windows of a kernel of this height and width, one at each place, without padding or dilation.
    pub fn new(kernel: [usize; 2]) -> Self {
        Self {
            kernel,
            stride: [1, 1],
            padding: [0, 0],
            dilation: [1, 1],
        }
    }

    /// The number of windows along each axis of an image of this height and width.
    fn outputs(&self, image: [usize; 2]) -> Result<[usize; 2]> {
        let mut outputs = [0; 2];
        for axis in 0..2 {
            let at_least_1 = [
                ("the kernel", self.kernel),
                ("the stride", self.stride),
                ("the dilation", self.dilation),
            ];
            if let Some((what, value)) = at_least_1.into_iter().find(|(_, value)| value[axis] == 0)
            {
                let (value, expected) = (value.to_vec(), "at least 1 along each axis".to_owned());
                return Err(Error::Window {
                    what,
                    value,
                    expected,
                });
            }
            let span = (self.kernel[axis] - 1).checked_mul(self.dilation[axis]);
            let padded = self.padding[axis]
                .checked_mul(2)
                .and_then(|p| p.checked_add(image[axis]));
            let last = padded
                .zip(span)
                .and_then(|(padded, span)| padded.checked_sub(span)?.checked_sub(1));
            let Some(last) = last else {
                return Err(Error::Window {
                    what: "the kernel",
                    value: self.kernel.to_vec(),
                    expected: format!(
                        "a kernel that fits an image of {image:?} with padding {:?} and dilation {:?}",
                        self.padding, self.dilation
                    ),
                });
            };
            outputs[axis] = last / self.stride[axis] + 1;
        }
        Ok(outputs)
    }
}

impl Moments {
    /// Takes in a batch of inputs of a convolution, \[images, channels, height, width\]: a row is what one window
    /// holds, in the order of the weights of one output, \[channels, kernel height, kernel width\]. Windows follow one
    /// another by image, then by height, then by width, and the pieces of rows go on over images.
    ///
    /// `channels` are the input channels of one group of the convolution, all of them where there is
    /// one group; each group has moments of its own, as it has weights of its own.
    ///
    /// # Errors
    /// [`Error::Shape`] for a tensor without four axes; [`Error::Window`] for a window that does not fit; the errors
    /// of [`observe`](Self::observe).
    pub fn observe_patches<B: Backend, T: FloatTensor<B> + ?Sized>(
        &mut self,
        inputs: &T,
        patches: &Patches,
        channels: Range<usize>,
    ) -> Result<()> {
        with_values(inputs, |values, shape| {
            let &[images, depth, height, width] = shape else {
                return Err(Error::Shape {
                    what: "the input of a convolution",
                    shape: shape.to_vec(),
                    expected: "[images, channels, height, width]",
                });
            };
            if channels.start >= channels.end || channels.end > depth {
                return Err(Error::Window {
                    what: "the range of channels",
                    value: vec![channels.start, channels.end],
                    expected: format!("a part of 0..{depth}"),
                });
            }
            let outputs = patches.outputs([height, width])?;
            let [kernel_h, kernel_w] = patches.kernel;
            let length = channels
                .len()
                .checked_mul(kernel_h)
                .and_then(|n| n.checked_mul(kernel_w));
            let length = length.unwrap_or(usize::MAX);
            self.check_channels("a window on a tensor", shape, length)?;
            check_finite(values, shape)?;
            let windows = images
                .checked_mul(outputs[0])
                .and_then(|n| n.checked_mul(outputs[1]));
            let windows = windows.ok_or_else(|| Error::Window {
                what: "the padding",
                value: patches.padding.to_vec(),
                expected: "fewer windows than memory has bytes".to_owned(),
            })?;
            self.check_rows_of_patches(values, windows as u64)?;
            let image = [depth, height, width];
            let mut rows = with_room(ROWS.min(windows).saturating_mul(length))?;
            for window in 0..windows {
                let (n, place) = (
                    window / (outputs[0] * outputs[1]),
                    window % (outputs[0] * outputs[1]),
                );
                let place = [place / outputs[1], place % outputs[1]];
                let values = &values[n * depth * height * width..][..depth * height * width];
                unfold(values, image, patches, channels.clone(), place, &mut rows);
                if rows.len() == ROWS * length {
                    self.add_rows(&rows, shape)?;
                    rows.clear();
                }
            }
            self.add_rows(&rows, shape)
        })
    }

    /// Checks that so many more rows of these values cannot overflow, so that none is added if not all can be.
    fn check_rows_of_patches(&self, values: &[f64], rows: u64) -> Result<()> {
        let largest = values
            .iter()
            .fold(0.0_f64, |largest, x| largest.max(x.abs()));
        let abs_max: Vec<f64> = self.abs_max.iter().map(|x| x.max(largest)).collect();
        self.checked_rows(rows, &abs_max).map(|_| ())
    }
}

/// Appends what the window at a place of an image holds.
fn unfold(
    values: &[f64],
    [_, height, width]: [usize; 3],
    patches: &Patches,
    channels: Range<usize>,
    place: [usize; 2],
    row: &mut Vec<f64>,
) {
    // The index along an axis, if it is not in the padding.
    let index = |axis: usize, k: usize, length: usize| {
        let padded = place[axis] * patches.stride[axis] + k * patches.dilation[axis];
        padded
            .checked_sub(patches.padding[axis])
            .filter(|&i| i < length)
    };
    for channel in channels {
        for k in 0..patches.kernel[0] {
            let y = index(0, k, height);
            for l in 0..patches.kernel[1] {
                let at = y.zip(index(1, l, width));
                row.push(at.map_or(0.0, |(y, x)| values[(channel * height + y) * width + x]));
            }
        }
    }
}
