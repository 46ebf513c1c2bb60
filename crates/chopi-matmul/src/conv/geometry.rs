//! The shapes of a convolution.

use crate::{Error, Result};

/// What a convolution does with its kernel, along each spatial axis.
///
/// ```
/// # mod chopi { pub use chopi_matmul as matmul; }
/// use chopi::matmul::conv::{ConvGeometry, ConvParams};
///
/// let params = ConvParams { padding: vec![(1, 1); 2], ..ConvParams::new(2) };
/// let geometry = ConvGeometry::new(&[8, 3, 32, 32], &[16, 3, 3, 3], &params)?;
/// assert_eq!(geometry.output_shape(), [8, 16, 32, 32]);
/// # Ok::<(), chopi_matmul::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvParams {
    /// How far the kernel moves from one output to the next: at least 1.
    pub strides: Vec<usize>,
    /// How many zeros lie before and after the input.
    pub padding: Vec<(usize, usize)>,
    /// The distance of the kernel's elements in the input: at least 1.
    pub dilations: Vec<usize>,
    /// Into how many groups the channels of the input and of the output are divided.
    pub groups: usize,
}

impl ConvParams {
    /// Strides and dilations of 1, no padding and one group, for so many spatial axes.
    pub fn new(axes: usize) -> Self {
        Self {
            strides: vec![1; axes],
            padding: vec![(0, 0); axes],
            dilations: vec![1; axes],
            groups: 1,
        }
    }
}

/// The shapes of a convolution, which fit each other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvGeometry {
    batch: usize,
    in_channels: usize,
    out_channels: usize,
    groups: usize,
    pub(super) axes: Vec<Axis>,
    /// The lengths of all that is allocated for it fit `usize`.
    lengths: Lengths,
}

/// One spatial axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Axis {
    pub input: usize,
    pub kernel: usize,
    pub output: usize,
    pub stride: usize,
    pub dilation: usize,
    /// The zeros before the input.
    pub before: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Lengths {
    input: usize,
    weights: usize,
    output: usize,
    /// Of the spatial axes alone.
    plane: usize,
    kernel: usize,
    positions: usize,
}

impl ConvGeometry {
    /// The convolution of an input of shape \[N, C, D_1, …\] with weights of shape
    /// \[M, C/groups, K_1, …\]. Along each spatial axis the output has length
    ///
    /// O = ⌊(D + before + after − ((K − 1)·dilation + 1))/stride⌋ + 1
    ///
    /// # Errors
    /// [`Error::Convolution`] where shapes and parameters do not fit each other.
    pub fn new(input: &[usize], weights: &[usize], params: &ConvParams) -> Result<Self> {
        let refused = |reason: String| Error::Convolution {
            input: input.to_vec(),
            weights: weights.to_vec(),
            reason,
        };
        let (&[batch, in_channels, ref spatial @ ..], &[out_channels, depth, ref kernel @ ..]) =
            (input, weights)
        else {
            return Err(refused("both need at least three axes".to_owned()));
        };
        let rank = spatial.len();
        if rank == 0 || kernel.len() != rank {
            return Err(refused("both need the same three axes or more".to_owned()));
        }
        let ConvParams {
            strides,
            padding,
            dilations,
            groups,
        } = params;
        for (what, len) in [
            ("strides", strides.len()),
            ("paddings", padding.len()),
            ("dilations", dilations.len()),
        ] {
            if len != rank {
                return Err(refused(format!(
                    "there are {len} {what}, expected one for each of {rank} spatial axes"
                )));
            }
        }
        let groups = *groups;
        if groups == 0 || out_channels % groups != 0 || groups > out_channels.max(1) {
            return Err(refused(format!(
                "{groups} groups do not divide {out_channels} output channels"
            )));
        }
        if depth.checked_mul(groups) != Some(in_channels) {
            return Err(refused(format!(
                "{in_channels} input channels in {groups} groups do not make {depth} a group"
            )));
        }
        let mut axes = Vec::with_capacity(rank);
        for axis in 0..rank {
            let (stride, dilation) = (strides[axis], dilations[axis]);
            if stride == 0 || dilation == 0 || kernel[axis] == 0 {
                return Err(refused(format!(
                    "along spatial axis {axis} the stride is {stride}, the dilation {dilation} and \
                     the kernel of length {}, expected at least 1",
                    kernel[axis]
                )));
            }
            let (before, after) = padding[axis];
            let padded = spatial[axis].checked_add(before);
            let padded = padded.and_then(|padded| padded.checked_add(after));
            let span = (kernel[axis] - 1).checked_mul(dilation);
            let span = span.and_then(|span| span.checked_add(1));
            // Positions are computed as signed numbers.
            let (Some(padded @ ..=MAX_LENGTH), Some(span)) = (padded, span) else {
                return Err(refused(format!("spatial axis {axis} is too long")));
            };
            if span > padded {
                return Err(refused(format!(
                    "along spatial axis {axis} the kernel spans {span}, more than the {padded} of \
                     the padded input"
                )));
            }
            axes.push(Axis {
                input: spatial[axis],
                kernel: kernel[axis],
                output: (padded - span) / stride + 1,
                stride,
                dilation,
                before,
            });
        }
        let lengths = Lengths::new((batch, in_channels, out_channels, depth), &axes);
        Ok(Self {
            batch,
            in_channels,
            out_channels,
            groups,
            lengths: lengths.ok_or_else(|| refused("they are too large".to_owned()))?,
            axes,
        })
    }

    /// \[N, M, O_1, …\].
    pub fn output_shape(&self) -> Vec<usize> {
        let spatial = self.axes.iter().map(|axis| axis.output);
        [self.batch, self.out_channels]
            .into_iter()
            .chain(spatial)
            .collect()
    }

    /// N.
    pub fn batch(&self) -> usize {
        self.batch
    }

    /// The number of groups.
    pub fn groups(&self) -> usize {
        self.groups
    }

    /// The output channels of one group.
    pub fn group_channels(&self) -> usize {
        self.out_channels / self.groups
    }

    /// M.
    pub fn out_channels(&self) -> usize {
        self.out_channels
    }

    /// C/groups · K_1 · …: over how many products an element of the output sums.
    pub fn depth(&self) -> usize {
        self.in_channels / self.groups * self.lengths.kernel
    }

    /// O_1 · …: the number of positions that the kernel takes.
    pub fn positions(&self) -> usize {
        self.lengths.positions
    }

    /// The number of elements of the input.
    pub fn input_len(&self) -> usize {
        self.lengths.input
    }

    /// The number of elements of the weights.
    pub fn weights_len(&self) -> usize {
        self.lengths.weights
    }

    /// The number of elements of the output.
    pub fn output_len(&self) -> usize {
        self.lengths.output
    }

    /// The elements of the input that group `group` of image `image` takes.
    pub(super) fn image<'a, T>(&self, input: &'a [T], image: usize, group: usize) -> &'a [T] {
        let channels = self.in_channels / self.groups;
        let len = channels * self.lengths.plane;
        &input[(image * self.groups + group) * len..][..len]
    }

    /// The index of an element of the output.
    pub(crate) fn output_index(
        &self,
        image: usize,
        channel: usize,
        mut position: usize,
    ) -> Vec<usize> {
        let mut index = vec![0; self.axes.len()];
        for (index, axis) in index.iter_mut().zip(&self.axes).rev() {
            *index = position % axis.output;
            position /= axis.output;
        }
        [image, channel].into_iter().chain(index).collect()
    }

    /// D_1 · …
    pub(super) fn plane(&self) -> usize {
        self.lengths.plane
    }
}

const MAX_LENGTH: usize = isize::MAX as usize;

impl Lengths {
    /// None where one of them is more than memory can hold.
    fn new(
        (batch, in_channels, out_channels, depth): (usize, usize, usize, usize),
        axes: &[Axis],
    ) -> Option<Self> {
        let product = |mut factors: Vec<usize>, of: fn(&Axis) -> usize| {
            factors.extend(axes.iter().map(of));
            // Also where another factor is 0.
            let mut nonzero = factors.iter().filter(|factor| **factor > 0);
            let bound = nonzero.try_fold(1_usize, |product, &factor| product.checked_mul(factor));
            bound.filter(|bound| *bound <= MAX_LENGTH)?;
            Some(factors.iter().product())
        };
        product(vec![depth], |axis| axis.kernel)?;
        Some(Self {
            input: product(vec![batch, in_channels], |axis| axis.input)?,
            weights: product(vec![out_channels, depth], |axis| axis.kernel)?,
            output: product(vec![batch, out_channels], |axis| axis.output)?,
            plane: product(vec![], |axis| axis.input)?,
            kernel: product(vec![], |axis| axis.kernel)?,
            positions: product(vec![], |axis| axis.output)?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(input: &[usize], weights: &[usize], params: &ConvParams) -> String {
        ConvGeometry::new(input, weights, params)
            .unwrap_err()
            .to_string()
    }

    #[test]
    fn shapes_that_do_not_fit_are_refused() {
        let (input, weights) = ([1, 4, 5, 6], [8, 4, 3, 3]);
        let begin = "an input of shape [1, 4, 5, 6] and weights of shape [8, 4, 3, 3]: ";
        let both = |params: &ConvParams, end: &str| {
            assert_eq!(refused(&input, &weights, params), format!("{begin}{end}"));
        };
        let params = ConvParams::new(2);
        both(
            &ConvParams::new(1),
            "there are 1 strides, expected one for each of 2 spatial axes",
        );
        both(
            &ConvParams {
                groups: 3,
                ..params.clone()
            },
            "3 groups do not divide 8 output channels",
        );
        both(
            &ConvParams {
                groups: 0,
                ..params.clone()
            },
            "0 groups do not divide 8 output channels",
        );
        both(
            &ConvParams {
                groups: 2,
                ..params.clone()
            },
            "4 input channels in 2 groups do not make 4 a group",
        );
        both(
            &ConvParams {
                strides: vec![1, 0],
                ..params.clone()
            },
            "along spatial axis 1 the stride is 0, the dilation 1 and the kernel of length 3, \
             expected at least 1",
        );
        both(
            &ConvParams {
                dilations: vec![3, 1],
                ..params.clone()
            },
            "along spatial axis 0 the kernel spans 7, more than the 5 of the padded input",
        );
        both(
            &ConvParams {
                padding: vec![(usize::MAX, 1), (0, 0)],
                ..params.clone()
            },
            "spatial axis 0 is too long",
        );
        both(
            &ConvParams {
                padding: vec![(1 << 40, 0); 2],
                ..params.clone()
            },
            "they are too large",
        );
        for (input, weights) in [(&[1, 2][..], &[2, 2][..]), (&[1, 2, 3, 4], &[1, 2, 3])] {
            assert!(ConvGeometry::new(input, weights, &params).is_err());
        }
    }

    #[test]
    fn empty_tensors_are_convolved_to_empty_or_zero_ones() {
        let params = ConvParams::new(1);
        let none = ConvGeometry::new(&[0, 2, 4], &[3, 2, 2], &params).unwrap();
        assert_eq!((none.output_shape(), none.output_len()), (vec![0, 3, 3], 0));
        let flat = ConvGeometry::new(&[1, 0, 4], &[3, 0, 2], &params).unwrap();
        assert_eq!((flat.depth(), flat.output_len()), (0, 9));
    }
}
