//! The result of calibration, and what it does with tensors.

pub(crate) mod apply;
mod debug;

use std::ops::Range;

use crate::convention::{Convention, ZeroPoints};
use crate::error::{Error, Result};
use crate::observer::Ranges;
use crate::recipe::{Arithmetic, recipe, reciprocal};
#[cfg(feature = "serde")]
use crate::scheme::resolve_axis;
use crate::scheme::{Granularity, NanPolicy, Scheme, Symmetry};
use chopi_kernels::memory::{NoMemory, collected, copied, with_room};
use chopi_kernels::{FloatType, IntType, Recipe, ZeroPointSlice};

/// A scale and a zero point for each group, with the scheme and the convention that they belong to.
///
/// Parameters live in host memory and belong to no framework: calibrated on one tensor type, they
/// serve every other.
///
/// A scale is kept as the `f64` that equals it; it is a number of the compute type of the data that
/// it was calibrated on (`f32` for `f16`, `bf16` and `f32` data).
#[derive(Clone, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked"))]
pub struct QParams {
    scheme: Scheme,
    convention: Convention,
    float: FloatType,
    shape: Vec<usize>,
    /// The length of the axis that is split into groups, if one is and it is known.
    #[cfg_attr(
        feature = "serde",
        serde(default, skip_serializing_if = "Option::is_none")
    )]
    length: Option<usize>,
    scale: Vec<f64>,
    zero_point: Values,
    /// It says how to quantize, not what the parameters are, and is not saved.
    #[cfg_attr(feature = "serde", serde(skip))]
    nan: NanPolicy,
    /// For tensors of type `float`, where the convention has such: it follows from the rest, and is asked for
    /// with every tensor.
    #[cfg_attr(feature = "serde", serde(skip))]
    arithmetic: Option<Arithmetic>,
}

/// The zero points of all groups.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(untagged))]
pub(crate) enum Values {
    Integer(Vec<i64>),
    /// In conventions whose zero points are real numbers.
    Real(Vec<f64>),
}

impl Values {
    /// The zero points of these groups.
    fn of(&self, groups: Range<usize>) -> std::result::Result<Self, NoMemory> {
        Ok(match self {
            Self::Integer(integers) => Self::Integer(copied(&integers[groups])?),
            Self::Real(reals) => Self::Real(copied(&reals[groups])?),
        })
    }
}

/// What a saved [`QParams`] says, before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Unchecked {
    scheme: Scheme,
    convention: Convention,
    float: FloatType,
    shape: Vec<usize>,
    #[serde(default)]
    length: Option<usize>,
    scale: Vec<f64>,
    zero_point: Values,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for QParams {
    type Error = Error;

    fn try_from(saved: Unchecked) -> Result<Self> {
        if let (Granularity::PerGroup { axis, .. }, Some(length)) =
            (saved.scheme.granularity, saved.length)
        {
            let mut shape = saved.shape.clone();
            shape[resolve_axis(axis, &saved.shape)?] = length;
            let expected = saved.scheme.granularity.params_shape(&shape)?;
            if expected != saved.shape {
                let params = saved.shape;
                return Err(Error::ParamsShape {
                    params,
                    expected,
                    shape,
                });
            }
        }
        let params = Self::checked(
            saved.scheme,
            saved.convention,
            saved.float,
            saved.shape,
            saved.scale,
            saved.zero_point,
        )?;
        Ok(params.with_grouped_length(saved.length))
    }
}

impl QParams {
    /// The farthest an integer zero point may lie from 0. The farthest that a calibration gives is
    /// 2^32 + 2^30. (Real ones may be any finite number of the compute type.)
    pub const ZERO_POINT_LIMIT: i64 = 1 << 33;

    /// Parameters that come from elsewhere than a calibration.
    ///
    /// `float` is the type of the data that they are meant for; `shape` is `[1]`, `[channels]`, or
    /// for groups the tensor's shape with the axis replaced by the number of groups; `scale` and
    /// `zero_point` are in its row-major order.
    ///
    /// # Errors
    /// The errors of [`Convention::check_scheme`]; [`Error::ParamsCount`] where the
    /// numbers do not fit the shape; [`Error::Scale`] where a scale is not a positive finite number
    /// once it is rounded to the compute type; [`Error::ZeroPoint`] where a zero point is beyond
    /// [`ZERO_POINT_LIMIT`](Self::ZERO_POINT_LIMIT), or not what a symmetric scheme has (0 but for
    /// the unsigned codes of some conventions), or outside of the integer range in a convention that
    /// needs it inside.
    pub fn new(
        scheme: Scheme,
        convention: Convention,
        float: FloatType,
        shape: Vec<usize>,
        scale: Vec<f64>,
        zero_point: Vec<i64>,
    ) -> Result<Self> {
        let zero_point = match convention.zero_points(&scheme) {
            ZeroPoints::Real => Values::Real(collected(zero_point.into_iter().map(|z| z as f64))?),
            _ => Values::Integer(zero_point),
        };
        Self::checked(scheme, convention, float, shape, scale, zero_point)
    }

    /// Parameters that come from elsewhere than a calibration, in a convention whose zero points are real
    /// numbers; the arguments are as for [`new`](Self::new).
    ///
    /// # Errors
    /// The errors of [`new`](Self::new); [`Error::ZeroPoint`] where the convention's are integers.
    pub fn with_real_zero_points(
        scheme: Scheme,
        convention: Convention,
        float: FloatType,
        shape: Vec<usize>,
        scale: Vec<f64>,
        zero_point: Vec<f64>,
    ) -> Result<Self> {
        let zero_point = Values::Real(zero_point);
        Self::checked(scheme, convention, float, shape, scale, zero_point)
    }

    /// The parameters for observed ranges.
    ///
    /// # Errors
    /// The errors of [`Convention::check_scheme`]; [`Error::Settings`] for ranges of another granularity than the
    /// scheme's; [`Error::Unsupported`] for a float type that the convention does not have; [`Error::Scale`] where a range is too wide for
    /// the compute type; [`Error::ZeroPoint`] where the convention cannot represent a zero point.
    pub fn from_ranges(ranges: &Ranges, scheme: &Scheme, convention: &Convention) -> Result<Self> {
        convention.check_scheme(scheme)?;
        convention.check_float(scheme, ranges.float_type())?;
        // A scheme may have another granularity on tensors of few axes.
        let of_few_axes = convention.granularity_for(scheme.granularity, 0);
        let fits = |expected: Granularity| expected.may_be(ranges.granularity());
        if ![scheme.granularity, of_few_axes].into_iter().any(fits) {
            let what = "the ranges";
            return Err(Error::Settings { what });
        }
        let groups = ranges.min().iter().zip(ranges.max());
        let count = ranges.min().len();
        let (mut scale, mut zero_point) = (with_room(count)?, with_room(count)?);
        for (group, (&min, &max)) in groups.enumerate() {
            let float = ranges.float_type();
            let params = convention.scale_and_zero_point((min, max), scheme, float, group)?;
            scale.push(params.scale);
            zero_point.push(params.zero_point);
        }
        let (float, shape) = (ranges.float_type(), ranges.shape().to_vec());
        let params = Self::from_values(scheme, convention, float, shape, scale, zero_point)?;
        Ok(params.with_grouped_length(ranges.grouped_length()))
    }

    /// The parameters of groups along an axis of this length.
    pub(crate) fn with_grouped_length(self, length: Option<usize>) -> Self {
        Self { length, ..self }
    }

    /// Calibrated parameters, whose zero points are integers but for conventions of real ones.
    pub(crate) fn from_values(
        scheme: &Scheme,
        convention: &Convention,
        float: FloatType,
        shape: Vec<usize>,
        scale: Vec<f64>,
        zero_point: Vec<f64>,
    ) -> Result<Self> {
        let zero_point = match convention.zero_points(scheme) {
            ZeroPoints::Real => Values::Real(zero_point),
            _ => Values::Integer(collected(zero_point.into_iter().map(|z| z as i64))?),
        };
        Self::checked(scheme.clone(), *convention, float, shape, scale, zero_point)
    }

    /// The parameters, if they can be used.
    fn checked(
        scheme: Scheme,
        convention: Convention,
        float: FloatType,
        shape: Vec<usize>,
        scale: Vec<f64>,
        zero_point: Values,
    ) -> Result<Self> {
        let mut params = Self {
            scheme,
            convention,
            float,
            shape,
            length: None,
            scale,
            zero_point,
            nan: NanPolicy::default(),
            arithmetic: None,
        };
        params.check()?;
        let supported = params.convention.check_float(&params.scheme, params.float);
        params.arithmetic = supported
            .ok()
            .map(|()| Arithmetic::new(&params, params.float));
        Ok(params)
    }

    /// Rounds the scales to the compute type, and says what of the parameters cannot be used.
    fn check(&mut self) -> Result<()> {
        self.convention.check_scheme(&self.scheme)?;
        let groups = self
            .shape
            .iter()
            .try_fold(1, |n: usize, &len| n.checked_mul(len));
        let zero_points = match &self.zero_point {
            Values::Integer(integers) => integers.len(),
            Values::Real(reals) => reals.len(),
        };
        if [self.scale.len(), zero_points].map(Some) != [groups; 2] {
            return Err(Error::ParamsCount {
                scales: self.scale.len(),
                zero_points,
                shape: self.shape.clone(),
            });
        }
        let library = self.convention.library();
        let compute = library.scale_type(self.float);
        for (group, scale) in self.scale.iter_mut().enumerate() {
            let rounded = compute.round(*scale);
            if !(rounded > 0.0 && rounded.is_finite()) {
                return Err(Error::Scale {
                    group,
                    scale: *scale,
                    float: compute,
                });
            }
            *scale = rounded;
        }
        let infinite = |&scale: &f64| reciprocal(self, self.float, scale).is_infinite();
        if recipe(self, self.float).steps.multiplies()
            && let Some(group) = self.scale.iter().position(infinite)
        {
            return Err(Error::Scale {
                group,
                scale: self.scale[group],
                float: compute,
            });
        }
        let real = self.has_real_zero_points();
        let symmetric = self.scheme.symmetry == Symmetry::Symmetric;
        let (low, high) = if symmetric {
            let zero = library.symmetric_zero_point(&self.scheme);
            // Libraries that move the zero point to the middle have data for which they do not.
            (zero.min(0) as f64, zero as f64)
        } else if library.has_zero_points_in_range() {
            (self.scheme.qmin as f64, self.scheme.qmax as f64)
        } else if real {
            (-compute.max(), compute.max())
        } else {
            let limit = Self::ZERO_POINT_LIMIT as f64;
            (-limit, limit)
        };
        for group in 0..zero_points {
            let zero_point = self.zero_point_of(group);
            let wrong_kind =
                real != (self.convention.zero_points(&self.scheme) == ZeroPoints::Real);
            if wrong_kind || !(low..=high).contains(&zero_point) {
                let kind = if real == wrong_kind {
                    "an integer"
                } else {
                    "a number"
                };
                let expected = match symmetric {
                    true => format!("{high} in a symmetric scheme"),
                    false => format!("{kind} in {low}..={high}"),
                };
                return Err(Error::ZeroPoint {
                    group,
                    zero_point,
                    expected,
                });
            }
        }
        Ok(())
    }

    /// Whether the zero points are real numbers, not integers.
    pub(crate) fn has_real_zero_points(&self) -> bool {
        matches!(self.zero_point, Values::Real(_))
    }

    /// The zero point of a group, whether an integer or not; there is such a group.
    #[inline]
    pub(crate) fn zero_point_of(&self, group: usize) -> f64 {
        match &self.zero_point {
            Values::Integer(integers) => integers[group] as f64,
            Values::Real(reals) => reals[group],
        }
    }

    /// The zero point of each group, whether integers or not.
    #[inline]
    pub(crate) fn zero_point_slice(&self) -> ZeroPointSlice<'_> {
        match &self.zero_point {
            Values::Integer(integers) => ZeroPointSlice::Integers(integers),
            Values::Real(reals) => ZeroPointSlice::Reals(reals),
        }
    }

    /// A copy, as [`Clone`] makes it.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is none for it.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            scheme: self.scheme.clone(),
            shape: self.shape.clone(),
            scale: copied(&self.scale)?,
            zero_point: self.zero_point.of(0..self.scale.len())?,
            ..*self
        })
    }

    /// The parameters with another policy for NaN in `quantize`, where it is an error by default.
    #[must_use]
    pub fn with_nan_policy(mut self, nan: NanPolicy) -> Self {
        self.nan = nan;
        self
    }

    /// What becomes of NaN in `quantize`.
    pub fn nan_policy(&self) -> NanPolicy {
        self.nan
    }

    /// The parameters of some of the groups, for a part of the tensor.
    ///
    /// # Errors
    /// [`Error::ParamsCount`] where `shape` does not have as many groups, or not all of them exist.
    pub fn part(&self, shape: Vec<usize>, groups: Range<usize>) -> Result<Self> {
        if self.scale.get(groups.clone()).is_none() {
            let groups = self.scale.len();
            return Err(Error::ParamsCount {
                scales: groups,
                zero_points: groups,
                shape,
            });
        }
        let zero_point = self.zero_point.of(groups.clone())?;
        let scale = copied(&self.scale[groups])?;
        let scheme = self.scheme.clone();
        Self::checked(
            scheme,
            self.convention,
            self.float,
            shape,
            scale,
            zero_point,
        )
        .map(|params| params.with_nan_policy(self.nan))
    }

    /// The scheme.
    pub fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The convention.
    pub fn convention(&self) -> &Convention {
        &self.convention
    }

    /// The type of the data that the parameters were calibrated on.
    pub fn float_type(&self) -> FloatType {
        self.float
    }

    /// The shape of the parameters: `[1]`, `[channels]`, or the tensor's with one axis in groups.
    pub fn shape(&self) -> &[usize] {
        &self.shape
    }

    /// The scale of each group, in row-major order.
    pub fn scale(&self) -> &[f64] {
        &self.scale
    }

    /// The zero point of each group, in row-major order; empty where zero points are real.
    pub fn zero_point(&self) -> &[i64] {
        match &self.zero_point {
            Values::Integer(integers) => integers,
            Values::Real(_) => &[],
        }
    }

    /// The zero point of each group, in row-major order, in a convention whose zero points are real.
    pub fn real_zero_point(&self) -> Option<&[f64]> {
        match &self.zero_point {
            Values::Integer(_) => None,
            Values::Real(reals) => Some(reals),
        }
    }

    /// The smallest and the largest code.
    pub fn bounds(&self) -> (i64, i64) {
        (self.scheme.qmin, self.scheme.qmax)
    }

    /// The smallest integer type that holds the codes.
    #[doc(alias("intType"))]
    pub fn int_type(&self) -> IntType {
        IntType::smallest(self.bounds())
    }

    /// What is done with every element of a tensor of this type.
    ///
    /// # Errors
    /// [`Error::Unsupported`] where the convention does not have such tensors.
    #[inline]
    pub(crate) fn recipe_for(&self, float: FloatType) -> Result<Recipe> {
        match self.arithmetic {
            Some(arithmetic) if float == self.float => Ok(arithmetic.recipe(&self.scheme)),
            _ => {
                self.convention.check_float(&self.scheme, float)?;
                Ok(recipe(self, float))
            }
        }
    }

    /// The granularity on a tensor of this type and shape.
    ///
    /// # Errors
    /// The errors of [`granularity_on`](Self::granularity_on) and [`recipe_for`](Self::recipe_for).
    pub(crate) fn granularity_for(&self, float: FloatType, shape: &[usize]) -> Result<Granularity> {
        self.recipe_for(float)?;
        self.granularity_on(shape)
    }

    /// The granularity on a tensor of this shape.
    ///
    /// # Errors
    /// [`Error::ParamsShape`] and [`Error::GroupedAxis`] where the parameters are for another shape,
    /// [`Error::Unsupported`] where the convention does not have such groups.
    pub(crate) fn granularity_on(&self, shape: &[usize]) -> Result<Granularity> {
        let granularity = self
            .convention
            .granularity_for(self.scheme.granularity, shape.len());
        self.convention.check_groups(&self.scheme, shape)?;
        if !granularity.has_params_shape(shape, &self.shape)? {
            return Err(Error::ParamsShape {
                params: self.shape.clone(),
                expected: granularity.params_shape(shape)?,
                shape: shape.to_vec(),
            });
        }
        granularity.check_grouped(self.length, granularity.grouped_length(shape))?;
        Ok(granularity)
    }
}
