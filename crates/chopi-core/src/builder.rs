//! The settings of a quantizer.

use crate::convention::Convention;
use crate::error::Result;
use crate::quantizer::Chopi;
use crate::scheme::{
    CodeRange, Granularity, NanPolicy, Rounding, Scheme, SchemeFields, Symmetry, Zero, check_bits,
};

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
    #[doc(alias("bits", "dtype"))]
    pub fn num_bits(mut self, bits: u32) -> Self {
        self.bits = bits;
        self
    }

    /// [`Symmetry::Symmetric`] or [`Symmetry::Asymmetric`], the default.
    #[doc(alias("qscheme", "per_tensor_symmetric", "per_channel_symmetric"))]
    pub fn symmetric(mut self, symmetric: bool) -> Self {
        self.symmetry = if symmetric {
            Symmetry::Symmetric
        } else {
            Symmetry::Asymmetric
        };
        self
    }

    /// One scale and zero point for all of the tensor, the default.
    #[doc(alias("per_tensor_affine"))]
    pub fn per_tensor(self) -> Self {
        self.granularity(Granularity::PerTensor)
    }

    /// A scale and a zero point for each index along an axis; -1 is the last axis.
    #[doc(alias("axis", "channel_dim", "ch_axis", "per_channel_affine"))]
    pub fn per_channel(self, axis: isize) -> Self {
        self.granularity(Granularity::PerChannel { axis })
    }

    /// A scale and a zero point for each `size` consecutive elements along an axis.
    #[doc(alias("group_size", "block_size"))]
    pub fn per_group(self, size: usize, axis: isize) -> Self {
        self.granularity(Granularity::PerGroup { axis, size })
    }

    /// Which elements share a scale and a zero point.
    pub fn granularity(mut self, granularity: Granularity) -> Self {
        self.granularity = granularity;
        self
    }

    /// The integers that codes are taken from, a [`CodeRange`] or bounds such as `-8..=7`. By default the
    /// convention's for the symmetry.
    #[doc(alias("quant_min", "quant_max"))]
    pub fn range(mut self, range: impl Into<CodeRange>) -> Self {
        self.range = range.into();
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
    /// [`Error::Bits`](crate::Error::Bits), [`Error::Range`](crate::Error::Range) and
    /// [`Error::GroupSize`](crate::Error::GroupSize) for settings that no scheme can have.
    pub fn scheme(&self) -> Result<Scheme> {
        check_bits(self.bits)?;
        let default = self.convention.default_range(self.bits, self.symmetry);
        let (qmin, qmax) = self.range.bounds(self.bits, default);
        let scheme = Scheme::new(SchemeFields {
            bits: self.bits,
            symmetry: self.symmetry,
            granularity: self.granularity,
            qmin,
            qmax,
            zero: self.zero,
            rounding: (self.rounding).unwrap_or_else(|| self.convention.default_rounding()),
        })?;
        self.convention.check_scheme(&scheme)?;
        Ok(scheme)
    }

    /// The quantizer, not calibrated.
    ///
    /// # Errors
    /// The errors of [`scheme`](Self::scheme).
    pub fn build(self) -> Result<Chopi> {
        let scheme = self.scheme()?;
        Ok(Chopi::new_uncalibrated(scheme, self.convention, self.nan))
    }
}

/// 8 bits, asymmetric, per tensor, [`Convention::CHOPI`].
impl Default for Builder {
    fn default() -> Self {
        Self {
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
}
