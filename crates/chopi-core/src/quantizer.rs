//! The quantizer that users hold.

use crate::backend::{
    Backend, FloatTensor, FloatTensorMut, HostFloats, HostFloatsMut, HostInts, IntTensor,
    IntTensorMut,
};
use crate::buffer::{Fill, FloatSlice, FloatSliceMut, IntSliceMut};
use crate::convention::Convention;
use crate::dtype::{Float, Int};
use crate::dynamic::{self, Setting};
use crate::error::{Error, Result};
use crate::layout::Layout;
use crate::qparams::QParams;
use crate::ranges::Ranges;
use crate::scheme::{
    CodeRange, Granularity, NanPolicy, Rounding, Scheme, Symmetry, Zero, check_bits,
};
use crate::{device, match_float, match_int, slices};

/// A quantizer to b-bit integers, for the tensors of every framework.
///
/// It is calibrated by [`calibrate`](Self::calibrate) or by the first
/// [`quantize`](Self::quantize) or [`fake_quantize`](Self::fake_quantize), and keeps its parameters
/// until it is calibrated again or [`reset`](Self::reset).
///
/// What is computed stands at [`Convention`].
#[derive(Clone, Debug, PartialEq)]
pub struct Chopi {
    scheme: Scheme,
    convention: Convention,
    nan: NanPolicy,
    params: Option<QParams>,
}

/// Makes a [`Chopi`]; [`Chopi::builder`] gives one.
#[derive(Clone, Debug)]
#[must_use]
pub struct Builder {
    bits: u32,
    symmetry: Symmetry,
    granularity: Granularity,
    range: CodeRange,
    zero: Zero,
    rounding: Option<Rounding>,
    pub(crate) convention: Convention,
    nan: NanPolicy,
}

impl Builder {
    /// The width of a code in bits, 2..=32. The default is 8.
    pub fn num_bits(mut self, bits: u32) -> Self {
        self.bits = bits;
        self
    }

    /// [`Symmetry::Symmetric`] or [`Symmetry::Asymmetric`], the default.
    pub fn symmetric(mut self, symmetric: bool) -> Self {
        self.symmetry = if symmetric {
            Symmetry::Symmetric
        } else {
            Symmetry::Asymmetric
        };
        self
    }

    /// One scale and zero point for all of the tensor, the default.
    pub fn per_tensor(self) -> Self {
        self.granularity(Granularity::PerTensor)
    }

    /// A scale and a zero point for each index along an axis; -1 is the last axis.
    pub fn per_channel(self, axis: isize) -> Self {
        self.granularity(Granularity::PerChannel { axis })
    }

    /// A scale and a zero point for each `size` consecutive elements along an axis.
    pub fn per_group(self, size: usize, axis: isize) -> Self {
        self.granularity(Granularity::PerGroup { axis, size })
    }

    /// Which elements share a scale and a zero point.
    pub fn granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// The integers that codes are taken from. By default the convention's for the symmetry.
    pub fn range(mut self, range: CodeRange) -> Self {
        self.range = range;
        self
    }

    /// Extends the calibrated range to hold 0.0.
    pub fn include_zero(mut self) -> Self {
        self.zero = Zero::Included;
        self
    }

    /// How x/s becomes an integer. By default the convention's rounding, mostly to nearest even.
    pub fn rounding(mut self, rounding: Rounding) -> Self {
        self.rounding = Some(rounding);
        self
    }

    /// Whose numbers to compute. The default is [`Convention::CHOPI`].
    pub fn convention(mut self, convention: Convention) -> Self {
        self.convention = convention;
        self
    }

    /// What becomes of NaN in `quantize`. By default it is an error.
    pub fn nan_policy(mut self, nan: NanPolicy) -> Self {
        self.nan = nan;
        self
    }

    /// The scheme that the settings describe.
    ///
    /// # Errors
    /// [`Error::Bits`], [`Error::Range`] and [`Error::GroupSize`] where they make no sense.
    pub fn scheme(&self) -> Result<Scheme> {
        check_bits(self.bits)?;
        let default = self.convention.default_range(self.bits, self.symmetry);
        let (qmin, qmax) = self.range.bounds(self.bits, default);
        let scheme = Scheme {
            bits: self.bits,
            symmetry: self.symmetry,
            granularity: self.granularity,
            qmin,
            qmax,
            zero: self.zero,
            rounding: (self.rounding).unwrap_or_else(|| self.convention.default_rounding()),
        };
        self.convention.check_scheme(&scheme)?;
        Ok(scheme)
    }

    /// The quantizer, not calibrated.
    ///
    /// # Errors
    /// Those of [`scheme`](Self::scheme).
    pub fn build(self) -> Result<Chopi> {
        let scheme = self.scheme()?;
        Ok(Chopi {
            scheme,
            convention: self.convention,
            nan: self.nan,
            params: None,
        })
    }
}

impl Chopi {
    /// A quantizer to `num_bits` bits with the defaults: asymmetric, per tensor,
    /// [`Convention::CHOPI`].
    ///
    /// # Errors
    /// [`Error::Bits`] where `num_bits` is not in 2..=32.
    pub fn new(num_bits: u32) -> Result<Self> {
        Self::builder().num_bits(num_bits).build()
    }

    /// A builder, for everything but the defaults.
    pub fn builder() -> Builder {
        Builder {
            bits: 8,
            symmetry: Symmetry::default(),
            granularity: Granularity::default(),
            range: CodeRange::default(),
            zero: Zero::default(),
            rounding: None,
            convention: Convention::CHOPI,
            nan: NanPolicy::default(),
        }
    }

    /// A quantizer that is calibrated already.
    pub fn from_params(params: QParams) -> Self {
        Self {
            scheme: params.scheme().clone(),
            convention: *params.convention(),
            nan: NanPolicy::default(),
            params: Some(params),
        }
    }

    /// Takes the parameters from the data; any earlier ones are forgotten.
    ///
    /// # Errors
    /// [`Error::Empty`] for a tensor without elements; [`Error::NonFinite`] for NaN or infinity;
    /// [`Error::Axis`] for an axis that the tensor does not have; [`Error::Scale`] and
    /// [`Error::ZeroPoint`] for data that the convention cannot represent. The earlier parameters
    /// are kept then.
    pub fn calibrate<B: Backend, T: FloatTensor<B> + ?Sized>(&mut self, x: &T) -> Result<()> {
        let granularity = self
            .convention
            .granularity_for(self.scheme.granularity, x.rank());
        let ranges = Ranges::observe(x, granularity)?;
        self.params = Some(QParams::from_ranges(
            &ranges,
            &self.scheme,
            &self.convention,
        )?);
        Ok(())
    }

    /// The codes of a tensor, in the framework's smallest integer type that holds their range.
    ///
    /// Calibrates on `x` if there are no parameters yet.
    ///
    /// # Errors
    /// [`Error::NaN`] for NaN, unless the policy has a code for it; [`Error::ParamsShape`] where the
    /// parameters are for another shape; those of [`calibrate`](Self::calibrate).
    pub fn quantize<B: Backend, T: FloatTensor<B> + ?Sized>(&mut self, x: &T) -> Result<T::Int> {
        if let Some(device) = x.on_device() {
            self.calibrate_if_needed(x)?;
            return device::quantize(&device, self.calibrated()?, self.nan);
        }
        let bounds = (self.scheme.qmin, self.scheme.qmax);
        x.with_host(|HostFloats { data, layout }| {
            match_float!(FloatSlice, data, data => {
                let (data, layout) = slices::ordered(data, layout, self.scheme.rounding);
                let codes = |out: IntSliceMut<'_>| {
                    self.quantize_slice(Float::slice(&data), &layout, out)
                };
                x.int_like(bounds, &layout, Fill::new(codes))
            })
        })
    }

    /// Writes the codes; calibrates in the same pass if there are no parameters yet.
    fn quantize_slice(
        &mut self,
        x: FloatSlice<'_>,
        layout: &Layout,
        out: IntSliceMut<'_>,
    ) -> Result<()> {
        if let Some(params) = &self.params {
            return slices::quantize(x, layout, params, self.nan, out);
        }
        let setting = Setting {
            scheme: &self.scheme,
            convention: &self.convention,
            nan: self.nan,
        };
        self.params = Some(dynamic::quantize(x, layout, setting, out)?);
        Ok(())
    }

    /// The codes of a tensor, written into one that is there: of the same shape, dense, of any
    /// integer type that holds the range.
    ///
    /// Nothing is allocated where the two lie in memory in the same order, but for a list of the
    /// parameters where there are several groups.
    ///
    /// # Errors
    /// Those of [`quantize`](Self::quantize), which leave codes without meaning;
    /// [`Error::OutputShape`], [`Error::OutputType`] and [`Error::OutputLayout`].
    pub fn quantize_into<B, T, Q>(&mut self, x: &T, out: &mut Q) -> Result<()>
    where
        B: Backend,
        T: FloatTensor<B> + ?Sized,
        Q: IntTensorMut<B> + ?Sized,
    {
        let (qmin, qmax) = (self.scheme.qmin, self.scheme.qmax);
        x.with_host(|HostFloats { data, layout }| {
            out.with_host_mut(|out| {
                check_output(&out.layout, &layout, self.scheme.rounding)?;
                let int = out.data.int_type();
                if !int.holds(qmin, qmax) {
                    return Err(Error::OutputType {
                        dtype: int.to_string(),
                        expected: format!("a type that holds {qmin}..={qmax}"),
                    });
                }
                match_float!(FloatSlice, data, data => {
                    let data = layout.reordered(data, &out.layout);
                    self.quantize_slice(Float::slice(&data), &out.layout, out.data)
                })
            })
        })
    }

    /// The values of codes: x̂ = (q − z)·s.
    ///
    /// # Errors
    /// [`Error::NotCalibrated`]; [`Error::ParamsShape`] where the parameters are for another shape;
    /// [`Error::Code`] for a code outside of the scheme's range.
    pub fn dequantize<B: Backend, Q: IntTensor<B> + ?Sized>(&self, q: &Q) -> Result<Q::Float> {
        let params = self.calibrated()?;
        if let Some(q) = q.on_device() {
            return device::dequantize(&q, params);
        }
        q.with_host(|HostInts { data, layout }| {
            let values = |out: FloatSliceMut<'_>| slices::dequantize(data, &layout, params, out);
            q.float_like(params.float_type(), &layout, Fill::new(values))
        })
    }

    /// The values of codes, written into a tensor that is there: of the same shape, dense, of any
    /// float type.
    ///
    /// # Errors
    /// Those of [`dequantize`](Self::dequantize), which leave `out` as it was;
    /// [`Error::OutputShape`] and [`Error::OutputLayout`].
    pub fn dequantize_into<B, Q, T>(&self, q: &Q, out: &mut T) -> Result<()>
    where
        B: Backend,
        Q: IntTensor<B> + ?Sized,
        T: FloatTensorMut<B> + ?Sized,
    {
        let params = self.calibrated()?;
        q.with_host(|HostInts { data, layout }| {
            out.with_host_mut(
                |HostFloatsMut {
                     data: out,
                     layout: to,
                 }| {
                    check_output(&to, &layout, Rounding::NearestEven)?;
                    match_int!(IntSlice, data, codes => {
                        let codes = layout.reordered(codes, &to);
                        slices::dequantize(Int::slice(&codes), &to, params, out)
                    })
                },
            )
        })
    }

    /// Quantizes and dequantizes in one pass: the bits of `dequantize(quantize(x))`, but for NaN,
    /// which stays NaN, or has the value of qmin in [`Convention::TORCH_FAKE`].
    ///
    /// Calibrates on `x` if there are no parameters yet.
    ///
    /// # Errors
    /// [`Error::ParamsShape`] where the parameters are for another shape; those of
    /// [`calibrate`](Self::calibrate).
    pub fn fake_quantize<B: Backend, T: FloatTensor<B> + ?Sized>(
        &mut self,
        x: &T,
    ) -> Result<T::Owned> {
        self.calibrate_if_needed(x)?;
        let params = self.calibrated()?;
        if let Some(x) = x.on_device() {
            return device::fake_quantize(&x, params);
        }
        x.with_host(|HostFloats { data, layout }| {
            match_float!(FloatSlice, data, data => {
                let (data, layout) = slices::ordered(data, layout, params.scheme().rounding);
                let values = |out: FloatSliceMut<'_>| {
                    slices::fake_quantize(Float::slice(&data), &layout, params, out)
                };
                x.float_like(&layout, Fill::new(values))
            })
        })
    }

    /// The same, written into a tensor that is there: of the same shape and type, dense.
    ///
    /// # Errors
    /// Those of [`fake_quantize`](Self::fake_quantize); [`Error::OutputShape`],
    /// [`Error::OutputType`] and [`Error::OutputLayout`].
    pub fn fake_quantize_into<B, T, U>(&mut self, x: &T, out: &mut U) -> Result<()>
    where
        B: Backend,
        T: FloatTensor<B> + ?Sized,
        U: FloatTensorMut<B> + ?Sized,
    {
        self.calibrate_if_needed(x)?;
        let params = self.calibrated()?;
        x.with_host(|HostFloats { data, layout }| {
            out.with_host_mut(|out| {
                check_output(&out.layout, &layout, params.scheme().rounding)?;
                let (float, expected) = (out.data.float_type(), data.float_type());
                if float != expected {
                    return Err(Error::OutputType {
                        dtype: float.to_string(),
                        expected: expected.to_string(),
                    });
                }
                match_float!(FloatSlice, data, data => {
                    let data = layout.reordered(data, &out.layout);
                    slices::fake_quantize(Float::slice(&data), &out.layout, params, out.data)
                })
            })
        })
    }

    /// [`fake_quantize`](Self::fake_quantize), and the mask of the straight-through estimator: a tensor of `u8` that holds 1 where
    /// the code lies in qmin..=qmax before it is clamped, else 0, and 0 for NaN.
    ///
    /// # Errors
    /// Those of [`fake_quantize`](Self::fake_quantize).
    pub fn fake_quantize_with_mask<B: Backend, T: FloatTensor<B> + ?Sized>(
        &mut self,
        x: &T,
    ) -> Result<(T::Owned, T::Int)> {
        self.calibrate_if_needed(x)?;
        let params = self.calibrated()?;
        if let Some(x) = x.on_device() {
            return device::fake_quantize_with_mask(&x, params);
        }
        x.with_host(|HostFloats { data, layout }| {
            match_float!(FloatSlice, data, data => {
                let (data, layout) = slices::ordered(data, layout, params.scheme().rounding);
                let mut mask = None;
                // Both tensors are written in one pass, so the one is made while the other is.
                let values = |out: FloatSliceMut<'_>| {
                    let inside = |mask: IntSliceMut<'_>| {
                        slices::fake_quantize_with_mask(Float::slice(&data), &layout, params, out, mask)
                    };
                    mask = Some(x.int_like((0, 255), &layout, Fill::new(inside))?);
                    Ok(())
                };
                let values = x.float_like(&layout, Fill::new(values))?;
                let mask = mask.ok_or_else(|| Error::Framework {
                    backend: B::NAME,
                    source: "the framework made a tensor without writing it".into(),
                })?;
                Ok((values, mask))
            })
        })
    }

    /// Forgets the parameters.
    pub fn reset(&mut self) {
        self.params = None;
    }

    /// The parameters, once calibrated.
    pub fn params(&self) -> Option<&QParams> {
        self.params.as_ref()
    }

    /// The scale of each group, once calibrated.
    pub fn scale(&self) -> Option<&[f64]> {
        self.params().map(QParams::scale)
    }

    /// The zero point of each group, once calibrated; empty in a convention whose zero points are
    /// real, which [`QParams::real_zero_point`] gives.
    pub fn zero_point(&self) -> Option<&[i64]> {
        self.params().map(QParams::zero_point)
    }

    /// The smallest code.
    pub fn qmin(&self) -> i64 {
        self.scheme.qmin
    }

    /// The largest code.
    pub fn qmax(&self) -> i64 {
        self.scheme.qmax
    }

    /// The scheme.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The convention.
    pub fn convention(&self) -> &Convention {
        &self.convention
    }

    /// Sets what becomes of NaN in `quantize`.
    pub fn set_nan_policy(&mut self, nan: NanPolicy) {
        self.nan = nan;
    }

    fn calibrate_if_needed<B: Backend, T: FloatTensor<B> + ?Sized>(&mut self, x: &T) -> Result<()> {
        if self.params.is_none() {
            self.calibrate(x)
        } else {
            Ok(())
        }
    }

    fn calibrated(&self) -> Result<&QParams> {
        self.params.as_ref().ok_or(Error::NotCalibrated)
    }
}

/// Whether a result of layout `expected` can be written to an output of layout `out`.
fn check_output(out: &Layout, expected: &Layout, rounding: Rounding) -> Result<()> {
    if out.shape() != expected.shape() {
        return Err(Error::OutputShape {
            shape: out.shape().to_vec(),
            expected: expected.shape().to_vec(),
        });
    }
    if matches!(rounding, Rounding::Stochastic { .. }) && out.order().is_some() {
        return Err(Error::OutputLayout {
            shape: out.shape().to_vec(),
            expected: "in row-major order, by which stochastic rounding goes",
        });
    }
    Ok(())
}
