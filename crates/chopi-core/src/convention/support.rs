//! What a library has at all.

use super::{Convention, ZeroPointRule};
use crate::calibrate::symmetric_zero;
use crate::dtype::FloatType;
use crate::error::{Error, Result};
use crate::scheme::{Granularity, Scheme, Symmetry, resolve_axis};

/// What a library has at all: a scheme or a tensor beyond it is refused, not approximated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Support {
    /// The element types.
    pub floats: &'static [FloatType],
    /// The numbers of bits, or none for all of 2..=32.
    pub bits: &'static [u32],
    /// Whether there are integer ranges other than the default ones.
    pub any_range: bool,
    /// Whether asymmetric schemes may have signed codes and symmetric ones unsigned codes, of the
    /// full width.
    pub any_sign: bool,
    /// The numbers of bits for which there are symmetric schemes only.
    pub symmetric_only: &'static [u32],
    /// Whether there are other roundings than the default one.
    pub any_rounding: bool,
    /// Whether there are per-group schemes.
    pub groups: Groups,
    /// Whether z must lie in [qmin, qmax].
    pub zero_point_in_range: bool,
}

/// Whether a library has per-group schemes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Groups {
    /// No.
    None,
    /// Yes, if the size divides the axis.
    Whole,
    /// Yes; the last group may be shorter.
    Ragged,
}

impl Convention {
    fn unsupported<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(Error::Unsupported {
            convention: self.name.to_string(),
            what: what.into(),
        })
    }

    /// Checks that the library has such schemes.
    ///
    /// # Errors
    /// What [`Scheme::check`] says; [`Error::Unsupported`], with what the library does not have.
    pub fn check_scheme(&self, scheme: &Scheme) -> Result<()> {
        scheme.check()?;
        let support = &self.support;
        let Scheme {
            bits,
            symmetry,
            qmin,
            qmax,
            ..
        } = *scheme;
        if !support.bits.is_empty() && !support.bits.contains(&bits) {
            return self.unsupported(format!("{bits} bits, only {:?}", support.bits));
        }
        if symmetry == Symmetry::Asymmetric && support.symmetric_only.contains(&bits) {
            return self.unsupported(format!("asymmetric schemes of {bits} bits"));
        }
        let half = 1_i64 << (bits - 1);
        let full = [(-half, half - 1), (0, 2 * half - 1)].contains(&(qmin, qmax));
        let default = (qmin, qmax) == self.default_range(bits, symmetry);
        let has_range = default || support.any_range || full && support.any_sign;
        if !has_range {
            let symmetry = match symmetry {
                Symmetry::Asymmetric => "an asymmetric",
                Symmetry::Symmetric => "a symmetric",
            };
            return self.unsupported(format!("the range {qmin}..={qmax} in {symmetry} scheme"));
        }
        if scheme.rounding != self.rounding && !support.any_rounding {
            return self.unsupported(format!("the rounding {:?}", scheme.rounding));
        }
        if support.groups == Groups::None
            && matches!(scheme.granularity, Granularity::PerGroup { .. })
        {
            return self.unsupported("per-group schemes");
        }
        Ok(())
    }

    /// Checks that the library has such schemes for this element type.
    pub(crate) fn check_float(&self, scheme: &Scheme, float: FloatType) -> Result<()> {
        if !self.support.floats.contains(&float) {
            return self.unsupported(format!("{float} tensors"));
        }
        // Where the library computes in the element type, its bounds must be numbers of it.
        let exact = |bound: i64| float.round(bound as f64) == bound as f64;
        let native = self.arithmetic == super::Arithmetic::Element;
        if native && !(exact(scheme.qmin) && exact(scheme.qmax)) {
            return self.unsupported(format!("{} bits for {float} tensors", scheme.bits));
        }
        Ok(())
    }

    /// Checks that the library has such groups of a tensor of this shape.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it has not; [`Error::Axis`] where there is no such axis.
    pub fn check_groups(&self, scheme: &Scheme, shape: &[usize]) -> Result<()> {
        if let (Groups::Whole, Granularity::PerGroup { axis, size }) =
            (self.support.groups, scheme.granularity)
        {
            let length = shape[resolve_axis(axis, shape)?];
            if !length.is_multiple_of(size) {
                return self.unsupported(format!("groups of {size} along an axis of {length}"));
            }
        }
        Ok(())
    }

    /// What the zero points of such schemes are.
    pub fn zero_points(&self, scheme: &Scheme) -> ZeroPoints {
        match scheme.symmetry {
            Symmetry::Symmetric if symmetric_zero(self.parameters.symmetric_zero, scheme) == 0 => {
                ZeroPoints::None
            }
            Symmetry::Asymmetric if self.parameters.zero_point == ZeroPointRule::Real => {
                ZeroPoints::Real
            }
            _ => ZeroPoints::Integers,
        }
    }
}

/// What the zero points of a scheme are under a convention.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ZeroPoints {
    /// All 0.
    None,
    /// Integers.
    Integers,
    /// Real numbers of the data's compute type.
    Real,
}
