//! Convolutions with packed weights.

use chopi_core::backend::{repeated, try_collected};

use super::{ConvGeometry, ConvParams};
use crate::broadcast;
use crate::output::{UNBOUNDED, clamped};
use crate::requantize::{Code, Multiplier, OutputCodes, requantize_row};
use crate::{CodeSlice, Error, Matrix, Order, PackedMatrix, Result};

/// The weights of a convolution, packed once, and what it does with them.
///
/// ```
/// # mod chopi { pub use chopi_matmul as matmul; }
/// use chopi::matmul::conv::{ConvInput, ConvParams, PackedConv};
///
/// // One channel to one, a kernel of 2: y[o] = (x[o] − 100)·1 + (x[o + 1] − 100)·−1.
/// let conv = PackedConv::new(&[1_i8, -1][..], &[1, 1, 2], ConvParams::new(1), &[0])?;
/// let input = ConvInput { codes: [100_u8, 102, 99, 99][..].into(), shape: &[1, 1, 4], zero_point: 100 };
/// let mut output = vec![0; conv.geometry(input.shape)?.output_len()];
/// conv.convolve(&input, &mut output)?;
/// assert_eq!(output, [-2, 3, 0]);
/// # Ok::<(), chopi_matmul::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct PackedConv {
    /// The weights of each group, [depth, channels of the group].
    groups: Vec<PackedMatrix>,
    shape: Vec<usize>,
    params: ConvParams,
}

/// The input of a convolution.
#[derive(Clone, Copy, Debug)]
pub struct ConvInput<'a> {
    /// The codes, row-major.
    pub codes: CodeSlice<'a>,
    /// \[N, C, D_1, …\].
    pub shape: &'a [usize],
    /// The zero point, which is the code of what lies in the padding.
    pub zero_point: i32,
}

impl PackedConv {
    /// Packs weights of shape \[M, C/groups, K_1, …\], with one zero point or one for each of the M
    /// output channels.
    ///
    /// # Errors
    /// [`Error::Length`] and [`Error::Each`] where a length differs; [`Error::Convolution`] where the
    /// groups do not divide M.
    pub fn new<'a>(
        codes: impl Into<CodeSlice<'a>>,
        shape: &[usize],
        params: ConvParams,
        zero_points: &[i32],
    ) -> Result<Self> {
        let codes = codes.into();
        let [channels, kernel @ ..] = shape else {
            return Err(refused(
                shape,
                "weights need at least three axes".to_owned(),
            ));
        };
        let (&channels, groups) = (channels, params.groups);
        if groups == 0 || channels % groups != 0 || groups > channels.max(1) {
            let reason = format!("{groups} groups do not divide {channels} output channels");
            return Err(refused(shape, reason));
        }
        let depth = kernel
            .iter()
            .try_fold(1_usize, |depth, &n| depth.checked_mul(n));
        let depth = depth.ok_or_else(|| refused(shape, "they are too large".to_owned()))?;
        let len = depth.saturating_mul(channels);
        Error::check_length("the weights", codes.len(), len)?;
        Error::check_each(
            "the zero points of the weights",
            zero_points.len(),
            channels,
        )?;
        let group_channels = channels / groups;
        let pack = |group: usize| {
            let rows = group * group_channels..(group + 1) * group_channels;
            let zero_points = match zero_points {
                [one] => std::slice::from_ref(one),
                each => &each[rows.clone()],
            };
            PackedMatrix::new(
                codes.part(rows.start * depth..rows.end * depth),
                depth,
                group_channels,
                Order::ColumnMajor,
                zero_points,
            )
        };
        Ok(Self {
            groups: try_collected((0..groups).map(pack))?,
            shape: shape.to_vec(),
            params,
        })
    }

    /// The shape of the weights.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// What the convolution does with them.
    pub fn params(&self) -> &ConvParams {
        &self.params
    }

    /// The shapes for an input of this shape, \[N, C, D_1, …\].
    ///
    /// # Errors
    /// [`Error::Convolution`] where it does not fit.
    pub fn geometry(&self, input: &[usize]) -> Result<ConvGeometry> {
        ConvGeometry::new(input, &self.shape, &self.params)
    }

    /// Writes the exact sums, row-major, of the shape that [`geometry`](Self::geometry) says.
    ///
    /// # Errors
    /// [`Error::Convolution`] for an input that does not fit; [`Error::Length`] where the length of
    /// the input or the output differs; [`Error::Padding`] where there is padding, and the zero point
    /// of the input is not a code; [`Error::Overflow`] where a sum might not fit `i32`.
    pub fn convolve(&self, input: &ConvInput<'_>, out: &mut [i32]) -> Result<()> {
        self.channels(input, out, |_, sums, out| {
            out.copy_from_slice(sums);
            Ok(())
        })
    }

    /// Writes floats, row-major: clamp(Σ · m\[channel\] + bias\[channel\]), every operation rounded
    /// to `f32`, the conversion of Σ too. m is the product of the scales of the input and of the
    /// weights.
    ///
    /// # Errors
    /// The errors of [`convolve`](Self::convolve), and [`Error::Each`] for scales, multipliers or a bias of another length.
    pub fn convolve_dequantized(
        &self,
        input: &ConvInput<'_>,
        scales: &[f32],
        bias: Option<&[f32]>,
        clamp: Option<(f32, f32)>,
        out: &mut [f32],
    ) -> Result<()> {
        let channels = self.shape[0];
        Error::check_each("the scales", scales.len(), channels)?;
        if let Some(bias) = bias {
            Error::check_length("the bias", bias.len(), channels)?;
        }
        let bounds = clamp.unwrap_or(UNBOUNDED);
        self.channels(input, out, |channel, sums, out| {
            let scale = broadcast::of(scales, channel);
            // x + (−0) is x, whatever x is.
            let bias = bias.map_or(-0.0, |bias| bias[channel]);
            for (out, &sum) in out.iter_mut().zip(sums) {
                *out = clamped(sum as f32 * scale + bias, bounds);
            }
            Ok(())
        })
    }

    /// Writes codes, row-major: [`code`](Multiplier::code)(Σ + bias\[channel\]) with the multiplier
    /// of the channel, the sum with the bias saturated to `i32`.
    ///
    /// # Errors
    /// The errors of [`convolve`](Self::convolve), and [`Error::Each`] for scales, multipliers or a bias of another length.
    pub fn convolve_requantized<M: Multiplier, Q: Code>(
        &self,
        input: &ConvInput<'_>,
        bias: Option<&[i32]>,
        multipliers: &[M],
        codes: OutputCodes<Q>,
        out: &mut [Q],
    ) -> Result<()> {
        let channels = self.shape[0];
        Error::check_each("the multipliers", multipliers.len(), channels)?;
        if let Some(bias) = bias {
            Error::check_length("the bias", bias.len(), channels)?;
        }
        self.channels(input, out, |channel, sums, out| {
            let bias = bias.map(|bias| &bias[channel..=channel]);
            let multiplier = [broadcast::of(multipliers, channel)];
            requantize_row(sums, bias, &multiplier, codes, out)
        })
    }

    /// Calls `write` with parts of the output: a channel, sums of it at consecutive positions, and
    /// the elements of the output that are made of them.
    fn channels<T>(
        &self,
        input: &ConvInput<'_>,
        out: &mut [T],
        mut write: impl FnMut(usize, &[i32], &mut [T]) -> Result<()>,
    ) -> Result<()> {
        let geometry = self.geometry(input.shape)?;
        Error::check_length("the input", input.codes.len(), geometry.input_len())?;
        Error::check_length("the output", out.len(), geometry.output_len())?;
        if out.is_empty() {
            // However many images or positions there are.
            return Ok(());
        }
        let zero = input.zero_point;
        match input.codes {
            CodeSlice::U8(codes) => self.blocks(&geometry, (codes, zero), out, &mut write),
            CodeSlice::I8(codes) => self.blocks(&geometry, (codes, zero), out, &mut write),
        }
    }

    /// The code of what lies in the padding; any where there is none.
    fn padding<C: TryFrom<i32> + Default>(&self, zero_point: i32) -> Result<C> {
        match C::try_from(zero_point) {
            Ok(code) => Ok(code),
            Err(_) if self.params.padding.iter().all(|&padding| padding == (0, 0)) => {
                Ok(C::default())
            }
            Err(_) => Err(Error::Padding { zero_point }),
        }
    }

    /// One group of one image after the other, in blocks of positions.
    fn blocks<C: Copy + Default + TryFrom<i32>, T>(
        &self,
        geometry: &ConvGeometry,
        (input, zero_point): (&[C], i32),
        out: &mut [T],
        write: &mut impl FnMut(usize, &[i32], &mut [T]) -> Result<()>,
    ) -> Result<()>
    where
        for<'a> &'a [C]: Into<CodeSlice<'a>>,
    {
        let padding = self.padding(zero_point)?;
        let (depth, positions) = (geometry.depth(), geometry.positions());
        let channels = geometry.group_channels();
        let block = (BLOCK_LEN / depth.max(channels).max(1)).clamp(1, positions.max(1));
        // What overflows has no element, or more than memory holds.
        let mut patches = repeated(C::default(), block.saturating_mul(depth))?;
        let mut sums = repeated(0, block.saturating_mul(channels))?;
        let mut of_channel = repeated(0, block)?;
        for image in 0..geometry.batch() {
            for (group, weights) in self.groups.iter().enumerate() {
                for start in (0..positions).step_by(block) {
                    let rows = block.min(positions - start);
                    let (patches, sums) =
                        (&mut patches[..rows * depth], &mut sums[..rows * channels]);
                    let range = start..start + rows;
                    geometry.patches(input, (image, group), range, padding, patches);
                    let zero_points = [zero_point];
                    let left = Matrix::new(&*patches, rows, depth, &zero_points)?;
                    weights.multiply(&left, sums)?;
                    for c in 0..channels {
                        let of_channel = &mut of_channel[..rows];
                        for (to, sums) in of_channel.iter_mut().zip(sums.chunks_exact(channels)) {
                            *to = sums[c];
                        }
                        let channel = group * channels + c;
                        let at = (image * geometry.out_channels() + channel) * positions + start;
                        write(channel, of_channel, &mut out[at..at + rows])?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// About as many patch elements, and sums, are there at once.
const BLOCK_LEN: usize = 1 << 20;

fn refused(weights: &[usize], reason: String) -> Error {
    Error::Convolution {
        input: Vec::new(),
        weights: weights.to_vec(),
        reason,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::conv::im2col_tests::{geometries, indices, met, offset};
    use crate::requantize::{DoubleRounded, FixedMultiplier, FloatMultiplier};

    /// The definition, and the output channel of each element.
    fn definition(
        (input, weights, params): &(Vec<usize>, Vec<usize>, ConvParams),
        output: &[usize],
        x: impl Fn(usize) -> i64,
        w: impl Fn(usize, usize) -> i64,
    ) -> Vec<(usize, i32)> {
        let sum = |index: Vec<usize>| {
            let (image, m) = (index[0], index[1]);
            let group = m / (weights[0] / params.groups);
            let products = indices(&weights[1..]).into_iter().map(|k| {
                let channel = group * weights[1] + k[0];
                let met = met(input, params, (image, channel), &index[2..], &k[1..]);
                let whole: Vec<usize> = [m].into_iter().chain(k).collect();
                met.map_or(0, |at| x(at) * w(offset(weights, &whole), m))
            });
            (m, products.sum::<i64>() as i32)
        };
        indices(output).into_iter().map(sum).collect()
    }

    fn len(shape: &[usize]) -> usize {
        shape.iter().product()
    }

    fn bytes(len: usize) -> impl Strategy<Value = Vec<u8>> {
        prop::collection::vec(
            prop_oneof![2 => any::<u8>(), 1 => prop::sample::select(vec![0_u8, 127, 128, 255])],
            len,
        )
    }

    proptest! {
        #[test]
        fn convolutions_are_those_of_the_definition(
            (shapes, x, w, zeros) in geometries().prop_flat_map(|shapes| {
                let (x, w, m) = (len(&shapes.0), len(&shapes.1), shapes.1[0]);
                (Just(shapes), bytes(x), bytes(w), prop_oneof![bytes(m), bytes(1)])
            }),
            x_signed: bool, w_signed: bool, x_zero: u8,
        ) {
            let (input, weights, params) = &shapes;
            let number = |byte: u8, signed| if signed { i32::from(byte as i8) } else { byte.into() };
            let signed = |bytes: &[u8]| bytes.iter().map(|&byte| byte as i8).collect::<Vec<_>>();
            let (x_i8, w_i8) = (signed(&x), signed(&w));
            let codes = |u8: bool, a, b| if u8 { CodeSlice::I8(b) } else { CodeSlice::U8(a) };
            let (x_codes, w_codes) = (codes(x_signed, &x, &x_i8), codes(w_signed, &w, &w_i8));
            let zeros: Vec<i32> = zeros.iter().map(|&zero| number(zero, w_signed)).collect();
            let zero_point = number(x_zero, x_signed);
            let conv = PackedConv::new(w_codes, weights, params.clone(), &zeros).unwrap();
            let shape = conv.geometry(input).unwrap().output_shape();
            let expected = definition(
                &shapes,
                &shape,
                |at| (number(x[at], x_signed) - zero_point).into(),
                |at, m| (number(w[at], w_signed) - zeros[m % zeros.len()]).into(),
            );
            let input = ConvInput { codes: x_codes, shape: input, zero_point };

            let mut sums = vec![0; expected.len()];
            conv.convolve(&input, &mut sums).unwrap();
            let exact: Vec<i32> = expected.iter().map(|(_, sum)| *sum).collect();
            prop_assert_eq!(&sums, &exact);

            let channels = weights[0];
            let scales: Vec<f32> = (0..channels).map(|m| 0.1 / (m as f32 + 1.0)).collect();
            let biases: Vec<f32> = (0..channels).map(|m| 100.5 - 77.0 * m as f32).collect();
            let mut floats = vec![0.0; expected.len()];
            let clamp = Some((-3000.0, 3000.0));
            conv.convolve_dequantized(&input, &scales, Some(&biases), clamp, &mut floats)
                .unwrap();
            for (&got, &(m, sum)) in floats.iter().zip(&expected) {
                prop_assert_eq!(got, (sum as f32 * scales[m] + biases[m]).clamp(-3000.0, 3000.0));
            }

            let bias: Vec<i32> = (0..channels as i32).map(|m| 1000 - 300 * m).collect();
            let codes = OutputCodes::new(-5_i8);
            let mut out = vec![0; expected.len()];
            let one = FloatMultiplier::new(0.01).unwrap();
            conv.convolve_requantized(&input, None, &[one], codes, &mut out).unwrap();
            for (&got, &(_, sum)) in out.iter().zip(&expected) {
                prop_assert_eq!(got, one.code(sum, codes));
            }
            let each = |m: usize| DoubleRounded(FixedMultiplier::from_real(0.02 / (m + 1) as f64).unwrap());
            let each: Vec<_> = (0..channels).map(each).collect();
            conv.convolve_requantized(&input, Some(&bias), &each, codes, &mut out).unwrap();
            for (&got, &(m, sum)) in out.iter().zip(&expected) {
                prop_assert_eq!(got, each[m].code(sum + bias[m], codes));
            }
        }
    }

    #[test]
    fn many_positions_are_worked_on_in_blocks() {
        let shapes = (vec![1, 2, 700, 1000], vec![1, 2, 1, 1], ConvParams::new(2));
        let x: Vec<u8> = (0..1_400_000_u32).map(|i| (i % 251) as u8).collect();
        let conv = PackedConv::new(&[3_i8, -2][..], &shapes.1, shapes.2.clone(), &[0]).unwrap();
        let input = ConvInput {
            codes: CodeSlice::U8(&x),
            shape: &shapes.0,
            zero_point: 7,
        };
        let mut sums = vec![0; 700_000];
        conv.convolve(&input, &mut sums).unwrap();
        for (position, sum) in sums.into_iter().enumerate() {
            let number = |at: usize| i32::from(x[at]) - 7;
            assert_eq!(sum, 3 * number(position) - 2 * number(position + 700_000));
        }
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let conv = |padding| {
            let params = ConvParams {
                padding: vec![padding],
                ..ConvParams::new(1)
            };
            PackedConv::new(&[1_i8, 1][..], &[2, 1, 1], params, &[0]).unwrap()
        };
        let input = ConvInput {
            codes: CodeSlice::U8(&[1, 2]),
            shape: &[1, 1, 2],
            zero_point: 300,
        };
        assert!(conv((0, 0)).convolve(&input, &mut [0; 4]).is_ok());
        let error = conv((1, 0)).convolve(&input, &mut [0; 6]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the zero point of the padded input is 300, which is not one of its codes"
        );
        let error = conv((0, 0)).convolve(&input, &mut [0; 3]).unwrap_err();
        assert_eq!(error.to_string(), "the output has 3 elements, expected 4");
        let short = ConvInput {
            codes: CodeSlice::U8(&[1]),
            ..input
        };
        let error = conv((0, 0)).convolve(&short, &mut [0; 4]).unwrap_err();
        assert_eq!(error.to_string(), "the input has 1 elements, expected 2");
        let params = ConvParams {
            groups: 3,
            ..ConvParams::new(1)
        };
        assert!(PackedConv::new(&[1_i8, 1][..], &[2, 1, 1], params, &[0]).is_err());
    }
}
