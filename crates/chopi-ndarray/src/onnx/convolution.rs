//! What ConvInteger and QLinearConv have in common: attributes and shapes.

use chopi_core::backend::repeated;
use chopi_matmul::conv::{ConvInput, ConvParams, PackedConv};
use chopi_matmul::requantize::Code;
use ndarray::{Array, ArrayRef, Dimension};

use super::matmul::row_major;
use super::{Error, Result};

/// How the padding is chosen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AutoPad {
    /// The padding is that of the attribute `pads`.
    #[default]
    NotSet,
    /// As many zeros as make the output's length ⌈D/stride⌉; an odd one is added at the end.
    SameUpper,
    /// As many zeros as make the output's length ⌈D/stride⌉; an odd one is added at the beginning.
    SameLower,
    /// No padding.
    Valid,
}

/// The attributes of ConvInteger and QLinearConv; the defaults are the specification's.
///
/// A list has one number for each spatial axis, or none for the default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvAttributes {
    /// How the padding is chosen; by default by `pads`.
    pub auto_pad: AutoPad,
    /// The distance of the kernel's elements; by default 1.
    pub dilations: Vec<usize>,
    /// The number of groups that the channels are divided into; by default 1.
    pub group: usize,
    /// The shape of the kernel, which the weights say too.
    pub kernel_shape: Vec<usize>,
    /// How many zeros lie before the input along each spatial axis, and then how many after it; by
    /// default none. Only where `auto_pad` is [`AutoPad::NotSet`].
    pub pads: Vec<usize>,
    /// How far the kernel moves; by default 1.
    pub strides: Vec<usize>,
}

impl Default for ConvAttributes {
    fn default() -> Self {
        Self {
            auto_pad: AutoPad::default(),
            dilations: Vec::new(),
            group: 1,
            kernel_shape: Vec::new(),
            pads: Vec::new(),
            strides: Vec::new(),
        }
    }
}

impl ConvAttributes {
    /// What the convolution does, for an input and weights of these shapes.
    fn params(&self, x: &[usize], w: &[usize]) -> Result<ConvParams> {
        let refused = |attribute, value: &[usize], expected| Error::ConvAttribute {
            attribute,
            value: value.to_vec(),
            expected,
        };
        let (spatial, kernel) = (x.get(2..).unwrap_or(&[]), w.get(2..).unwrap_or(&[]));
        let axes = spatial.len();
        if !self.kernel_shape.is_empty() && self.kernel_shape != kernel {
            let expected = format!("that of the weights, {kernel:?}");
            return Err(refused("kernel_shape", &self.kernel_shape, expected));
        }
        let one_each = |attribute, values: &[usize]| match values.len() {
            0 => Ok(vec![1; axes]),
            len if len == axes => Ok(values.to_vec()),
            _ => {
                let expected = format!("one for each of {axes} spatial axes");
                Err(refused(attribute, values, expected))
            }
        };
        let strides = one_each("strides", &self.strides)?;
        let dilations = one_each("dilations", &self.dilations)?;
        if self.auto_pad != AutoPad::NotSet && !self.pads.is_empty() {
            let expected = "none together with auto_pad".to_owned();
            return Err(refused("pads", &self.pads, expected));
        }
        let padding = match self.auto_pad {
            AutoPad::NotSet if self.pads.is_empty() => vec![(0, 0); axes],
            AutoPad::NotSet if self.pads.len() == 2 * axes => {
                let (before, after) = self.pads.split_at(axes);
                before.iter().copied().zip(after.iter().copied()).collect()
            }
            AutoPad::NotSet => {
                let expected = format!("two for each of {axes} spatial axes");
                return Err(refused("pads", &self.pads, expected));
            }
            AutoPad::Valid => vec![(0, 0); axes],
            AutoPad::SameUpper | AutoPad::SameLower => {
                let sizes = spatial
                    .iter()
                    .zip(kernel)
                    .zip(strides.iter().zip(&dilations));
                let pad =
                    |((&d, &k), (&stride, &dilation)): ((&usize, &usize), (&usize, &usize))| {
                        // A stride of 0 is refused with the shapes.
                        let steps = d.div_ceil(stride.max(1)).saturating_sub(1);
                        let span = k
                            .saturating_sub(1)
                            .saturating_mul(dilation)
                            .saturating_add(1);
                        let total = (steps * stride).saturating_add(span).saturating_sub(d);
                        let half = total / 2;
                        match self.auto_pad {
                            AutoPad::SameLower => (total - half, half),
                            _ => (half, total - half),
                        }
                    };
                sizes.map(pad).collect()
            }
        };
        Ok(ConvParams {
            strides,
            padding,
            dilations,
            groups: self.group,
        })
    }
}

/// A convolution, with the shape of its output.
pub(super) struct Convolution<D> {
    pub packed: PackedConv,
    output: D,
    /// The number of elements of the output.
    pub len: usize,
}

impl<D: Dimension> Convolution<D> {
    /// The convolution of an input of this shape with weights, which have one zero point or one for each
    /// output channel, as the shape of the zero points says.
    pub fn new<W: Code>(
        x: &[usize],
        w: &ArrayRef<W, D>,
        (zero_points, zero_shape): (&[i32], &[usize]),
        attributes: &ConvAttributes,
    ) -> Result<Self> {
        let shape = w.shape();
        let channels = shape.first().copied().unwrap_or(0);
        if !(zero_shape.is_empty() || *zero_shape == [1] || *zero_shape == [channels]) {
            return Err(Error::ParameterShape {
                name: "w_zero_point",
                shape: zero_shape.to_vec(),
                operand: shape.to_vec(),
                expected: format!("a scalar or [{channels}]"),
            });
        }
        let params = attributes.params(x, shape)?;
        let codes = row_major(w)?;
        let packed = PackedConv::new(W::codes(&codes), shape, params, zero_points)?;
        let geometry = packed.geometry(x)?;
        let mut output = D::zeros(shape.len());
        let lengths = output.slice_mut().iter_mut();
        for (to, len) in lengths.zip(geometry.output_shape()) {
            *to = len;
        }
        Ok(Self {
            packed,
            output,
            len: geometry.output_len(),
        })
    }

    /// The output, whose elements `write` writes, given the input.
    pub fn run<X: Code, T: Clone>(
        self,
        x: &ArrayRef<X, D>,
        zero_point: X,
        fill: T,
        write: impl FnOnce(&PackedConv, &ConvInput<'_>, &mut [T]) -> chopi_matmul::Result<()>,
    ) -> Result<Array<T, D>> {
        let codes = row_major(x)?;
        let input = ConvInput {
            codes: X::codes(&codes),
            shape: x.shape(),
            zero_point: zero_point.into(),
        };
        let mut y = repeated(fill, self.len)?;
        write(&self.packed, &input, &mut y)?;
        let len = y.len();
        Array::from_shape_vec(self.output, y).map_err(|_| {
            chopi_matmul::Error::Length {
                what: "the output",
                len,
                expected: self.len,
            }
            .into()
        })
    }
}
