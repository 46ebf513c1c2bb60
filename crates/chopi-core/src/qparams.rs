//! The result of calibration.

use crate::calibrate::scale_and_zero_point;
use crate::convention::Convention;
use crate::dtype::{FloatType, IntType};
use crate::error::{Error, Result};
use crate::ranges::Ranges;
use crate::scheme::{Granularity, Scheme, Symmetry};

/// A scale and a zero point for each group, with the scheme and the convention that they belong to.
///
/// Parameters live in host memory and belong to no framework: calibrated on one tensor type, they
/// serve every other.
///
/// A scale is kept as the `f64` that equals it; it is a number of the compute type of the data that
/// it was calibrated on (`f32` for `f16`, `bf16` and `f32` data).
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(try_from = "Unchecked"))]
pub struct QParams {
    scheme: Scheme,
    convention: Convention,
    float: FloatType,
    shape: Vec<usize>,
    scale: Vec<f64>,
    zero_point: Vec<i64>,
}

/// What a saved [`QParams`] says, before it is checked.
#[cfg(feature = "serde")]
#[derive(serde::Deserialize)]
struct Unchecked {
    scheme: Scheme,
    convention: Convention,
    float: FloatType,
    shape: Vec<usize>,
    scale: Vec<f64>,
    zero_point: Vec<i64>,
}

#[cfg(feature = "serde")]
impl TryFrom<Unchecked> for QParams {
    type Error = Error;

    fn try_from(saved: Unchecked) -> Result<Self> {
        let Unchecked {
            scheme,
            convention,
            float,
            shape,
            scale,
            zero_point,
        } = saved;
        Self::new(scheme, convention, float, shape, scale, zero_point)
    }
}

impl QParams {
    /// The farthest a zero point may lie from 0. The farthest that a calibration gives is
    /// 2^32 + 2^30.
    pub const ZERO_POINT_LIMIT: i64 = 1 << 33;

    /// Parameters that come from elsewhere than a calibration.
    ///
    /// `float` is the type of the data that they are meant for; `shape` is `[1]`, `[channels]`, or
    /// for groups the tensor's shape with the axis replaced by the number of groups; `scale` and
    /// `zero_point` are in its row-major order.
    ///
    /// # Errors
    /// What [`Scheme::check`] says; [`Error::ParamsCount`] where the numbers do not fit the shape;
    /// [`Error::Scale`] where a scale is not a positive finite number once it is rounded to the
    /// compute type; [`Error::ZeroPoint`] where a zero point is beyond
    /// [`ZERO_POINT_LIMIT`](Self::ZERO_POINT_LIMIT), or not 0 in a symmetric scheme.
    pub fn new(
        scheme: Scheme,
        convention: Convention,
        float: FloatType,
        shape: Vec<usize>,
        scale: Vec<f64>,
        zero_point: Vec<i64>,
    ) -> Result<Self> {
        scheme.check()?;
        let groups = shape.iter().product::<usize>();
        if scale.len() != groups || zero_point.len() != groups {
            let (scales, zero_points) = (scale.len(), zero_point.len());
            return Err(Error::ParamsCount {
                scales,
                zero_points,
                shape,
            });
        }
        let compute = float.compute();
        let scale = scale
            .into_iter()
            .enumerate()
            .map(|(group, scale)| check_scale(group, scale, compute))
            .collect::<Result<_>>()?;
        let limit = match scheme.symmetry {
            Symmetry::Symmetric => 0,
            Symmetry::Asymmetric => Self::ZERO_POINT_LIMIT,
        };
        if let Some(group) = zero_point
            .iter()
            .position(|z| z.unsigned_abs() > limit as u64)
        {
            return Err(Error::ZeroPoint {
                group,
                zero_point: zero_point[group] as f64,
                expected: match limit {
                    0 => "0 in a symmetric scheme".to_owned(),
                    _ => format!("within ±{limit}"),
                },
            });
        }
        Ok(Self {
            scheme,
            convention,
            float,
            shape,
            scale,
            zero_point,
        })
    }

    /// The parameters for observed ranges.
    ///
    /// # Errors
    /// What [`Scheme::check`] says; [`Error::Scale`] where a range is too wide for the compute
    /// type; [`Error::ZeroPoint`] where the convention cannot represent a zero point.
    pub fn from_ranges(ranges: &Ranges, scheme: &Scheme, convention: &Convention) -> Result<Self> {
        scheme.check()?;
        let groups = ranges.min().iter().zip(ranges.max());
        let (mut scale, mut zero_point) = (Vec::new(), Vec::new());
        for (group, (&min, &max)) in groups.enumerate() {
            let params =
                scale_and_zero_point((min, max), scheme, convention, ranges.float_type(), group)?;
            scale.push(check_scale(
                group,
                params.scale,
                ranges.float_type().compute(),
            )?);
            zero_point.push(params.zero_point);
        }
        Ok(Self {
            scheme: scheme.clone(),
            convention: convention.clone(),
            float: ranges.float_type(),
            shape: ranges.shape().to_vec(),
            scale,
            zero_point,
        })
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

    /// The zero point of each group, in row-major order.
    pub fn zero_point(&self) -> &[i64] {
        &self.zero_point
    }

    /// The smallest and the largest code.
    pub fn bounds(&self) -> (i64, i64) {
        (self.scheme.qmin, self.scheme.qmax)
    }

    /// The smallest integer type that holds the codes.
    pub fn int_type(&self) -> IntType {
        IntType::smallest(self.bounds())
    }

    /// The granularity on a tensor of this shape.
    ///
    /// # Errors
    /// [`Error::ParamsShape`] where the parameters are for another shape.
    pub(crate) fn granularity_for(&self, shape: &[usize]) -> Result<Granularity> {
        let granularity = self
            .convention
            .granularity_for(self.scheme.granularity, shape.len());
        let expected = granularity.params_shape(shape)?;
        if expected == self.shape {
            Ok(granularity)
        } else {
            Err(Error::ParamsShape {
                params: self.shape.clone(),
                expected,
                shape: shape.to_vec(),
            })
        }
    }
}

/// The scale rounded to the compute type, if it is a positive finite number there.
fn check_scale(group: usize, scale: f64, compute: FloatType) -> Result<f64> {
    let rounded = compute.round(scale);
    if rounded > 0.0 && rounded.is_finite() {
        Ok(rounded)
    } else {
        Err(Error::Scale {
            group,
            scale,
            float: compute,
        })
    }
}
