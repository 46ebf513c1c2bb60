//! The quantizer that users hold.

use chopi_kernels::IntSliceMut;

use crate::backend::{
    Backend, Fill, FloatTensor, FloatTensorMut, HostFloats, IntTensor, IntTensorMut,
};
use crate::builder::Builder;
use crate::convention::Convention;
use crate::dynamic;
use crate::error::{Error, Result};
use crate::observer::Ranges;
use crate::qparams::QParams;
use crate::qparams::apply::{check_int_type, check_shape};
use crate::scheme::{NanPolicy, Scheme};

/// A quantizer to b-bit integers, for the tensors of every framework.
///
/// It is calibrated by [`calibrate`](Self::calibrate) or by the first
/// [`quantize`](Self::quantize) or [`fake_quantize`](Self::fake_quantize), and keeps its parameters
/// until it is calibrated again or [`reset`](Self::reset). The parameters do the work: a [`QParams`]
/// quantizes and dequantizes by itself, and many threads can share one.
///
/// What is computed stands at [`Convention`].
#[doc(alias("QuantStub", "Quantizer"))]
#[derive(Clone, PartialEq)]
pub struct Chopi {
    scheme: Scheme,
    convention: Convention,
    nan: NanPolicy,
    params: Option<QParams>,
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
        Builder::default()
    }

    pub(crate) fn new_uncalibrated(scheme: Scheme, convention: Convention, nan: NanPolicy) -> Self {
        Self {
            scheme,
            convention,
            nan,
            params: None,
        }
    }

    /// A quantizer that is calibrated already.
    pub fn from_params(params: QParams) -> Self {
        Self {
            scheme: params.scheme().clone(),
            convention: *params.convention(),
            nan: params.nan_policy(),
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
    #[doc(alias("observer", "observe"))]
    pub fn calibrate<B: Backend, T: FloatTensor<B> + ?Sized>(&mut self, x: &T) -> Result<()> {
        self.params = Some(self.calibration(x)?);
        Ok(())
    }

    /// The parameters that a tensor gives.
    fn calibration<B: Backend, T: FloatTensor<B> + ?Sized>(&self, x: &T) -> Result<QParams> {
        let granularity = self
            .convention
            .granularity_for(self.scheme.granularity, x.rank());
        let ranges = Ranges::observe(x, granularity)?;
        let params = QParams::from_ranges(&ranges, &self.scheme, &self.convention)?;
        Ok(params.with_nan_policy(self.nan))
    }

    /// Does something with the parameters; a tensor gives them if there are none yet, and they are kept if
    /// it succeeds.
    fn with_params<B: Backend, T: FloatTensor<B> + ?Sized, R>(
        &mut self,
        x: &T,
        f: impl FnOnce(&QParams) -> Result<R>,
    ) -> Result<R> {
        if let Some(params) = &self.params {
            return f(params);
        }
        let params = self.calibration(x)?;
        let result = f(&params)?;
        self.params = Some(params);
        Ok(result)
    }

    fn calibrated(&self) -> Result<&QParams> {
        self.params.as_ref().ok_or(Error::NotCalibrated)
    }

    /// [`QParams::quantize`]; calibrates on `x`, in the same pass where the groups lie for it, if there
    /// are no parameters yet.
    ///
    /// # Errors
    /// The errors of [`QParams::quantize`]; the errors of [`calibrate`](Self::calibrate).
    #[doc(alias("quantize_per_tensor", "quantize_per_channel"))]
    pub fn quantize<B: Backend, T: FloatTensor<B> + ?Sized>(&mut self, x: &T) -> Result<T::Int> {
        if self.params.is_some() || x.on_device().is_some() {
            return self.with_params(x, |params| params.quantize(x));
        }
        let bounds = (self.scheme.qmin, self.scheme.qmax);
        let mut params = None;
        let quantized = x.with_host(|host| {
            host.ordered_for(self.scheme.rounding, |host| {
                let layout = host.layout();
                let codes = |out: IntSliceMut<'_>| {
                    params = Some(self.calibrate_and_quantize(&host, out)?);
                    Ok(())
                };
                x.int_like(bounds, layout, Fill::new(layout.len(), codes))
            })
        })?;
        self.params = params;
        Ok(quantized)
    }

    /// Writes the codes, and gives the parameters that they are by, in one pass.
    fn calibrate_and_quantize(&self, x: &HostFloats<'_>, out: IntSliceMut<'_>) -> Result<QParams> {
        dynamic::quantize(x, &self.scheme, &self.convention, self.nan, out)
    }

    /// [`QParams::quantize_into`]; calibrates on `x` in the same pass if there are no parameters yet.
    ///
    /// # Errors
    /// The errors of [`QParams::quantize_into`]; the errors of [`calibrate`](Self::calibrate).
    pub fn quantize_into<B, T, Q>(&mut self, x: &T, out: &mut Q) -> Result<()>
    where
        B: Backend,
        T: FloatTensor<B> + ?Sized,
        Q: IntTensorMut<B> + ?Sized,
    {
        if let Some(params) = &self.params {
            return params.quantize_into(x, out);
        }
        let params = x.with_host(|host| {
            out.with_host_mut(|out| {
                check_shape(&out.layout, host.layout(), self.scheme.rounding)?;
                check_int_type(&out.data, (self.scheme.qmin, self.scheme.qmax))?;
                host.reordered(&out.layout, |host| {
                    self.calibrate_and_quantize(&host, out.data)
                })
            })
        })?;
        self.params = Some(params);
        Ok(())
    }

    /// [`QParams::dequantize`].
    ///
    /// # Errors
    /// [`Error::NotCalibrated`]; the errors of [`QParams::dequantize`].
    #[doc(alias("DeQuantStub"))]
    pub fn dequantize<B: Backend, Q: IntTensor<B> + ?Sized>(&self, q: &Q) -> Result<Q::Float> {
        self.calibrated()?.dequantize(q)
    }

    /// [`QParams::dequantize_into`].
    ///
    /// # Errors
    /// [`Error::NotCalibrated`]; the errors of [`QParams::dequantize_into`].
    pub fn dequantize_into<B, Q, T>(&self, q: &Q, out: &mut T) -> Result<()>
    where
        B: Backend,
        Q: IntTensor<B> + ?Sized,
        T: FloatTensorMut<B> + ?Sized,
    {
        self.calibrated()?.dequantize_into(q, out)
    }

    /// [`QParams::fake_quantize`]; calibrates on `x` if there are no parameters yet.
    ///
    /// # Errors
    /// The errors of [`QParams::fake_quantize`]; the errors of [`calibrate`](Self::calibrate).
    #[doc(alias(
        "forward",
        "fake_quant",
        "fake_quantize_per_tensor_affine",
        "fake_quantize_per_channel_affine"
    ))]
    pub fn fake_quantize<B: Backend, T: FloatTensor<B> + ?Sized>(
        &mut self,
        x: &T,
    ) -> Result<T::Owned> {
        self.with_params(x, |params| params.fake_quantize(x))
    }

    /// [`QParams::fake_quantize_into`]; calibrates on `x` if there are no parameters yet.
    ///
    /// # Errors
    /// The errors of [`QParams::fake_quantize_into`]; the errors of [`calibrate`](Self::calibrate).
    pub fn fake_quantize_into<B, T, U>(&mut self, x: &T, out: &mut U) -> Result<()>
    where
        B: Backend,
        T: FloatTensor<B> + ?Sized,
        U: FloatTensorMut<B> + ?Sized,
    {
        self.with_params(x, |params| params.fake_quantize_into(x, out))
    }

    /// [`QParams::fake_quantize_with_mask`]; calibrates on `x` if there are no parameters yet.
    ///
    /// # Errors
    /// The errors of [`fake_quantize`](Self::fake_quantize).
    pub fn fake_quantize_with_mask<B: Backend, T: FloatTensor<B> + ?Sized>(
        &mut self,
        x: &T,
    ) -> Result<(T::Owned, T::Int)> {
        self.with_params(x, |params| params.fake_quantize_with_mask(x))
    }

    /// Forgets the parameters.
    pub fn reset(&mut self) {
        self.params = None;
    }

    /// The parameters, once calibrated.
    pub fn params(&self) -> Option<&QParams> {
        self.params.as_ref()
    }

    /// The parameters by themselves, once calibrated: they quantize and dequantize without the quantizer.
    pub fn into_params(self) -> Option<QParams> {
        self.params
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
    #[doc(alias("quant_min"))]
    pub fn qmin(&self) -> i64 {
        self.scheme.qmin
    }

    /// The largest code.
    #[doc(alias("quant_max"))]
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
        self.params = self.params.take().map(|params| params.with_nan_policy(nan));
    }
}
