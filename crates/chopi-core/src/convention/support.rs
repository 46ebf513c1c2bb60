//! What a library has: a scheme or a tensor beyond it is refused, not approximated.

use super::Convention;
use super::library::OtherRanges;
use crate::error::{Error, Result};
use crate::scheme::{Granularity, Scheme, SchemeFields, Symmetry, resolve_axis};
use chopi_kernels::FloatType;

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
    /// The element types of the tensors that the library quantizes.
    pub fn float_types(&self) -> &'static [FloatType] {
        self.0.float_types()
    }

    /// The numbers of bits that there are schemes of, in ascending order.
    pub fn bits(&self) -> &'static [u32] {
        self.0.bits()
    }

    /// Whether the library has per-group schemes.
    pub fn groups(&self) -> Groups {
        self.0.groups()
    }

    /// Whether every zero point is one of the codes, an integer in [qmin, qmax].
    pub fn has_zero_points_in_range(&self) -> bool {
        self.0.has_zero_points_in_range()
    }

    fn unsupported<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(Error::Unsupported {
            convention: self.name().to_owned(),
            what: what.into(),
        })
    }

    /// Checks that the library has such schemes.
    ///
    /// # Errors
    /// [`Error::Unsupported`], with what the library does not have.
    pub fn check_scheme(&self, scheme: &Scheme) -> Result<()> {
        let SchemeFields {
            bits,
            symmetry,
            qmin,
            qmax,
            ..
        } = **scheme;
        if !self.bits().contains(&bits) {
            return self.unsupported(format!("{bits} bits, only {:?}", self.bits()));
        }
        if symmetry == Symmetry::Asymmetric && self.0.is_symmetric_only(bits) {
            return self.unsupported(format!("asymmetric schemes of {bits} bits"));
        }
        let half = 1_i64 << (bits - 1);
        let full = [(-half, half - 1), (0, 2 * half - 1)].contains(&(qmin, qmax));
        let default = (qmin, qmax) == self.default_range(bits, symmetry);
        let has_range = match self.0.other_ranges() {
            OtherRanges::None => default,
            OtherRanges::FullWidth => default || full,
            OtherRanges::Any => true,
        };
        if !has_range {
            let symmetry = match symmetry {
                Symmetry::Asymmetric => "an asymmetric",
                Symmetry::Symmetric => "a symmetric",
            };
            return self.unsupported(format!("the range {qmin}..={qmax} in {symmetry} scheme"));
        }
        if scheme.rounding != self.default_rounding() && !self.0.has_other_roundings() {
            return self.unsupported(format!("the rounding {:?}", scheme.rounding));
        }
        if self.groups() == Groups::None
            && matches!(scheme.granularity, Granularity::PerGroup { .. })
        {
            return self.unsupported("per-group schemes");
        }
        Ok(())
    }

    /// Checks that the library has such schemes for this element type.
    pub(crate) fn check_float(&self, scheme: &Scheme, float: FloatType) -> Result<()> {
        if !self.float_types().contains(&float) {
            return self.unsupported(format!("{float} tensors"));
        }
        // Where the library computes in the element type, its bounds must be numbers of it.
        let exact = |bound: i64| float.round(bound as f64) == bound as f64;
        if self.0.computes_in_element_type() && !(exact(scheme.qmin) && exact(scheme.qmax)) {
            return self.unsupported(format!("{} bits for {float} tensors", scheme.bits));
        }
        Ok(())
    }

    /// Checks that the library has such groups of a tensor of this shape.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where it has not; [`Error::Axis`] where there is no such axis.
    #[inline]
    pub fn check_groups(&self, scheme: &Scheme, shape: &[usize]) -> Result<()> {
        if let Granularity::PerGroup { axis, size } = scheme.granularity
            && self.groups() == Groups::Whole
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
            Symmetry::Symmetric if self.0.symmetric_zero_point(scheme) == 0 => ZeroPoints::None,
            Symmetry::Asymmetric if self.0.has_real_zero_points() => ZeroPoints::Real,
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
