//! The linear layer in integers.

use std::borrow::Cow;
use std::mem::MaybeUninit;

use chopi_core::{
    Builder, Chopi, Granularity, QParams,
    backend::{
        Backend, Fill, FloatSliceMut, FloatTensor, HostInts, Int, IntSlice, IntTensor, Layout,
        bf16, collected, copied, f16, match_int, repeated,
    },
    convention::ZeroPoints,
};

use crate::codes::{CodeSlice, Matrix};
use crate::error::{Error, Result};
use crate::grouped::GroupedMatrix;
use crate::kernel::Engine;
use crate::output::Dequantize;
use crate::packed::{Order, PackedMatrix};
use crate::window::Memory;

/// How a layer quantizes its input, to at most 8 bits.
#[derive(Clone, Debug)]
pub enum Activations {
    /// Each row, or in a convolution each image, by its own range, found when it comes. The
    /// granularity of the builder is not used.
    ///
    /// Where the range does not include zero and is narrow for its distance from zero, zero points
    /// are large, and sums may not fit into 32 bits: then the product is an [`Error::Overflow`].
    Dynamic(Builder),
    /// All by parameters that were calibrated before, per tensor.
    Static(QParams),
}

impl Default for Activations {
    /// Each row by its own range, extended to hold 0, to 8 bits, asymmetric: as ONNX's
    /// DynamicQuantizeLinear. So zero points are codes, and sums overflow for no data.
    fn default() -> Self {
        Self::Dynamic(Chopi::builder().num_bits(8).include_zero())
    }
}

impl Activations {
    /// Whether the codes fit into 8 bits and the zero points into 32, and static parameters are per
    /// tensor; without data as far as that can be known.
    pub(crate) fn check(&self) -> Result<()> {
        match self {
            Self::Dynamic(builder) => {
                let quantizer = builder.clone().per_tensor().build()?;
                let zero_points = quantizer.convention().zero_points(quantizer.scheme());
                if zero_points == ZeroPoints::Real {
                    return Err(Error::RealZeroPoints { what: ACTIVATIONS });
                }
                check_bounds(ACTIVATIONS, (quantizer.qmin(), quantizer.qmax()))
            }
            Self::Static(params) if params.scale().len() != 1 => Err(Error::StaticActivations {
                groups: params.scale().len(),
            }),
            Self::Static(params) => check_params(ACTIVATIONS, params),
        }
    }

    /// The codes of an input, and their parameters: those of a range for each group where `dynamic`
    /// gives the builder its granularity.
    pub(crate) fn quantize<B: Backend, T: FloatTensor<B> + ?Sized>(
        &self,
        x: &T,
        dynamic: impl FnOnce(Builder) -> Builder,
    ) -> Result<(T::Int, Cow<'_, QParams>)> {
        match self {
            Self::Dynamic(builder) => {
                let mut quantizer = dynamic(builder.clone()).build()?;
                let codes = quantizer.quantize(x)?;
                let params = quantizer.into_params();
                let params = params.ok_or(chopi_core::Error::NotCalibrated)?;
                Ok((codes, Cow::Owned(params)))
            }
            Self::Static(params) => Ok((params.quantize(x)?, Cow::Borrowed(params))),
        }
    }
}

/// What errors call them.
const ACTIVATIONS: &str = "the activations";

/// Whether codes fit into 8 bits.
fn check_bounds(what: &'static str, (qmin, qmax): (i64, i64)) -> Result<()> {
    match qmin >= 0 && qmax <= 255 || qmin >= -128 && qmax <= 127 {
        true => Ok(()),
        false => Err(Error::Range { what, qmin, qmax }),
    }
}

/// Whether codes fit into 8 bits, and zero points are integers of 32 bits.
pub(crate) fn check_params(what: &'static str, params: &QParams) -> Result<()> {
    check_bounds(what, params.bounds())?;
    if params.real_zero_point().is_some() {
        return Err(Error::RealZeroPoints { what });
    }
    let mut zero_points = params.zero_point().iter();
    match zero_points.find(|&&z| i32::try_from(z).is_err()) {
        Some(&zero_point) => Err(Error::ZeroPoint { what, zero_point }),
        None => Ok(()),
    }
}

/// Whether there is one scale for all of a tensor of this shape, or one for each index of its first
/// axis.
pub(crate) fn is_per_output(params: &QParams, shape: &[usize]) -> bool {
    match (params.shape(), params.scheme().granularity) {
        (&[1], _) => true,
        (&[channels], Granularity::PerChannel { axis }) => {
            let first = axis == 0 || axis == -(shape.len() as isize);
            first && shape.first() == Some(&channels)
        }
        _ => false,
    }
}

/// A linear layer with integer weights, on tensors of any framework: floats in and out, the input
/// quantized dynamically row by row or by static parameters, the product one of integers.
///
/// [`IntegerOnlyLinear`](crate::IntegerOnlyLinear) is the layer with codes in and out.
///
/// For an input x of shape \[…, inputs\], row by row, and weights of shape \[outputs, inputs\]:
///
/// y\[j\] = clamp(Σ_k (q_x\[k\] − z_x) · (q_w\[j, k\] − z_w\[j\]) · (s_x · s_w\[j\]) + b\[j\])
///
/// With weights in groups, the part of the sum that a group has is scaled by the group's s_w, these
/// are added in order, and the total is scaled by s_x; see [`GroupedMatrix`].
///
/// The sum is exact. Its conversion to `f32`, and each operation after that, is rounded to `f32`,
/// and the result to the type of x.
#[derive(Clone, Debug)]
pub struct QuantizedLinear {
    weights: Weights,
    bias: Option<Vec<f32>>,
    clamp: Option<(f32, f32)>,
    activations: Activations,
}

/// The weights, packed for the kernels.
#[derive(Clone, Debug)]
enum Weights {
    /// A scale for all or for each output.
    PerOutput(PackedMatrix, Vec<f32>),
    /// Scales for groups of inputs.
    PerGroup(GroupedMatrix),
}

impl Weights {
    /// The number of inputs and of outputs.
    fn shape(&self) -> (usize, usize) {
        match self {
            Self::PerOutput(matrix, _) => (matrix.depth(), matrix.columns()),
            Self::PerGroup(matrix) => (matrix.depth(), matrix.columns()),
        }
    }
}

impl QuantizedLinear {
    /// A layer of the codes of its weights, of shape \[outputs, inputs\], and their parameters: per
    /// tensor, per channel of axis 0, or in groups along axis 1.
    ///
    /// # Errors
    /// [`Error::Weights`] for weights of another shape or granularity; [`Error::Group`] for several
    /// groups of a size that is no multiple of 8; [`Error::Range`], [`Error::RealZeroPoints`] and
    /// [`Error::ZeroPoint`] for weights or activations that are not of 8 bits;
    /// [`Error::StaticActivations`]; an invalid scheme of the activations.
    pub fn new<B: Backend, Q: IntTensor<B> + ?Sized>(
        weights: &Q,
        params: &QParams,
        activations: Activations,
    ) -> Result<Self> {
        activations.check()?;
        let weights = weights.with_host(|codes| Ok(pack(&codes, params)?))?;
        Ok(Self {
            weights,
            bias: None,
            clamp: None,
            activations,
        })
    }

    /// The layer, which now adds a bias, one number for each output.
    ///
    /// # Errors
    /// [`Error::Length`] for another length.
    pub fn with_bias(self, bias: Vec<f32>) -> Result<Self> {
        Error::check_length("the bias", bias.len(), self.outputs())?;
        Ok(Self {
            bias: Some(bias),
            ..self
        })
    }

    /// The layer, whose results are now clamped to \[min, max\]: to \[0, ∞\] for a rectified linear unit.
    #[must_use]
    pub fn with_clamp(self, min: f32, max: f32) -> Self {
        Self {
            clamp: Some((min, max)),
            ..self
        }
    }

    /// The length of the input's last axis.
    pub fn inputs(&self) -> usize {
        self.weights.shape().0
    }

    /// The length of the output's last axis.
    pub fn outputs(&self) -> usize {
        self.weights.shape().1
    }

    /// The output for an input of shape \[…, inputs\].
    ///
    /// # Errors
    /// [`Error::Input`] for another shape; [`Error::Overflow`]; [`Error::Quantization`] for an input that
    /// cannot be quantized, such as one with NaN.
    pub fn forward<B: Backend, T: FloatTensor<B> + ?Sized>(&self, x: &T) -> Result<T::Owned> {
        let rows = |builder: Builder| builder.per_group(self.inputs().max(1), -1);
        let (codes, params) = self.activations.quantize(x, rows)?;
        let output = codes.with_host(|codes| {
            let rows = row_shape(codes.layout().shape(), self.inputs())?;
            let layout = Layout::row_major(&[rows, &[self.outputs()]].concat());
            let rows = row_count(rows)?;
            let product = |out: Memory<'_, f32>| self.product(&codes, rows, &params, out);
            let fill = |out: FloatSliceMut<'_>| match out {
                FloatSliceMut::F32(out) => product(out.into()),
                FloatSliceMut::F64(out) => rounded(product, f64::from, out),
                FloatSliceMut::F16(out) => rounded(product, f16::from_f32, out),
                FloatSliceMut::BF16(out) => rounded(product, bf16::from_f32, out),
            };
            // SAFETY: where `product` gives Ok, the windows that its pieces wrote make up all of `out`,
            // whose length it has checked; `rounded` writes one element for each of those.
            x.float_like(&layout, unsafe { Fill::new_unchecked(layout.len(), fill) })
        });
        Ok(output?)
    }

    /// The product of quantized rows with the weights.
    fn product(
        &self,
        codes: &HostInts<'_>,
        rows: usize,
        params: &QParams,
        out: Memory<'_, f32>,
    ) -> chopi_core::Result<()> {
        let left_scales = to_f32(params.scale())?;
        let zero_points: Vec<i32> = collected(params.zero_point().iter().map(|&z| z as i32))?;
        let row_major = match codes.data() {
            IntSlice::U8(codes_in_order) => Bytes::U8(codes.layout().to_row_major(codes_in_order)?),
            IntSlice::I8(codes_in_order) => Bytes::I8(codes.layout().to_row_major(codes_in_order)?),
            _ => narrow(codes, params.bounds())?,
        };
        let left = Matrix::new(row_major.codes(), rows, self.inputs(), &zero_points)?;
        let (bias, clamp) = (self.bias.as_deref(), self.clamp);
        match &self.weights {
            Weights::PerOutput(matrix, scales) => {
                let scales = Dequantize {
                    left_scales: &left_scales,
                    right_scales: scales,
                    bias,
                    clamp,
                };
                matrix.write_dequantized(&left, &scales, out)?;
            }
            Weights::PerGroup(matrix) => {
                matrix.run(Engine::active(), &left, &left_scales, (bias, clamp), out)?;
            }
        }
        Ok(())
    }
}

/// Packs codes of shape \[outputs, inputs\].
fn pack(host: &HostInts<'_>, params: &QParams) -> Result<Weights> {
    let bounds = params.bounds();
    check_params("the weights", params)?;
    let shape = host.layout().shape();
    let zero_points: Vec<i32> = collected(params.zero_point().iter().map(|&z| z as i32))?;
    let scales = to_f32(params.scale())?;
    let codes = narrow(host, bounds)?;
    match (shape, params.shape(), params.scheme().granularity) {
        (&[outputs, inputs], _, _) if is_per_output(params, shape) => {
            let (codes, order) = (codes.codes(), Order::ColumnMajor);
            let packed = PackedMatrix::new(codes, inputs, outputs, order, &zero_points)?;
            Ok(Weights::PerOutput(packed, scales))
        }
        (&[outputs, inputs], &[of_outputs, groups], Granularity::PerGroup { size, .. })
            if of_outputs == outputs && size > 0 && groups == inputs.div_ceil(size) =>
        {
            let (shape, bounds) = ((outputs, inputs), (bounds.0 as i32, bounds.1 as i32));
            let codes = codes.codes();
            let packed = GroupedMatrix::new(codes, bounds, shape, size, &scales, &zero_points)?;
            Ok(Weights::PerGroup(packed))
        }
        _ => Err(Error::weights(host, params, EXPECTED)),
    }
}

/// What linear layers take.
const EXPECTED: &str = "[outputs, inputs] with one for all, one for each output, or one for each \
                        group of inputs";

/// Packs codes of shape \[outputs, inputs\] with one scale or one for each output, and gives the
/// scales.
pub(crate) fn pack_per_output(
    codes: &HostInts<'_>,
    params: &QParams,
) -> Result<(PackedMatrix, Vec<f64>)> {
    match pack(codes, params)? {
        Weights::PerOutput(packed, _) => Ok((packed, copied(params.scale())?)),
        Weights::PerGroup(_) => {
            let expected = "[outputs, inputs] with one for all, or one for each output";
            Err(Error::weights(codes, params, expected))
        }
    }
}

/// The shape of the rows of an input of this shape: without its last axis.
pub(crate) fn row_shape(shape: &[usize], inputs: usize) -> Result<&[usize]> {
    match shape.split_last() {
        Some((&depth, rows)) if depth == inputs => Ok(rows),
        _ => Err(Error::Input {
            shape: shape.to_vec(),
            inputs,
        }),
    }
}

/// The number of rows of this shape.
///
/// # Errors
/// [`Error::TooManyRows`] where `usize` does not hold it.
pub(crate) fn row_count(shape: &[usize]) -> Result<usize> {
    if shape.contains(&0) {
        return Ok(0);
    }
    let rows = shape.iter().try_fold(1_usize, |n, &len| n.checked_mul(len));
    rows.ok_or_else(|| Error::TooManyRows {
        shape: shape.to_vec(),
    })
}

/// 8-bit codes, row-major.
#[derive(Clone, Debug)]
pub(crate) enum Bytes<'a> {
    U8(Cow<'a, [u8]>),
    I8(Cow<'a, [i8]>),
}

impl Bytes<'_> {
    pub(crate) fn codes(&self) -> CodeSlice<'_> {
        match self {
            Self::U8(codes) => CodeSlice::U8(codes),
            Self::I8(codes) => CodeSlice::I8(codes),
        }
    }
}

/// Codes of a wider type in 8 bits: frameworks do not have all types.
pub(crate) fn narrow(codes: &HostInts<'_>, (qmin, qmax): (i64, i64)) -> Result<Bytes<'static>> {
    match_int!(IntSlice, codes.data(), data => {
        let values = codes.layout().to_row_major(data)?;
        let outside = values.iter().position(|code| !(qmin..=qmax).contains(&code.to_i64()));
        if let Some(place) = outside {
            let (index, code) = (index_of(place, codes.layout().shape()), values[place].to_i64());
            return Err(chopi_core::Error::Code { index, code, qmin, qmax }.into());
        }
        Ok(match qmin >= 0 {
            true => Bytes::U8(collected(values.iter().map(|code| code.to_i64() as u8))?.into()),
            false => Bytes::I8(collected(values.iter().map(|code| code.to_i64() as i8))?.into()),
        })
    })
}

/// The index of an element, from its place in row-major order.
fn index_of(mut place: usize, shape: &[usize]) -> Vec<usize> {
    let mut index = vec![0; shape.len()];
    for (index, &len) in index.iter_mut().zip(shape).rev() {
        *index = place % len;
        place /= len;
    }
    index
}

pub(crate) fn to_f32(scales: &[f64]) -> Result<Vec<f32>> {
    Ok(collected(scales.iter().map(|&scale| scale as f32))?)
}

/// What `product` computes in `f32`, rounded to another type.
fn rounded<T>(
    product: impl Fn(Memory<'_, f32>) -> chopi_core::Result<()>,
    round: impl Fn(f32) -> T,
    out: &mut [MaybeUninit<T>],
) -> chopi_core::Result<()> {
    let mut values = repeated(0.0, out.len())?;
    product(Memory::from(&mut values[..]))?;
    for (out, value) in out.iter_mut().zip(values) {
        out.write(round(value));
    }
    Ok(())
}
