//! The parameters of a tensor.

use chopi::{
    Granularity, QParams,
    backend::{FloatType, IntType},
    observer::Ranges,
};

use crate::archive::Tensor;
use crate::args::{Parameters, Settings};
use crate::element::{FloatElement, elements, with_float};
use crate::error::Fault;
use crate::framework::Framework;

/// The parameters of a tensor, and the largest |x| of its ranges.
///
/// # Errors
/// NaN and infinities, whether the parameters are calibrated or given; numbers that the convention
/// cannot represent.
pub fn calibrate<K: Framework, F: FloatElement>(
    data: &[F],
    tensor: &Tensor<'_>,
    granularity: Granularity,
    settings: &Settings,
) -> Result<(QParams, f64), Fault> {
    let x = K::floats(data, &tensor.shape)?;
    let scheme = &settings.scheme;
    let convention = &settings.convention;
    let observed = match settings.parameters {
        Parameters::Calibrated(calibration) => calibration.observe(&x, scheme, convention),
        Parameters::Given { .. } => Ranges::observe(&x, granularity),
    };
    let ranges = match observed {
        Err(chopi::Error::NonFinite {
            index,
            value,
            count,
        }) => {
            return Err(Fault::NonFinite {
                index,
                value,
                count,
            });
        }
        ranges => ranges?,
    };
    let params = match settings.parameters {
        Parameters::Calibrated(_) => QParams::from_ranges(&ranges, scheme, convention)?,
        Parameters::Given { scale, zero_point } => QParams::new(
            scheme.clone(),
            *convention,
            F::TYPE,
            vec![1],
            vec![scale],
            vec![zero_point],
        )?,
    };
    let ends = ranges.min().iter().chain(ranges.max());
    let abs_max = ends.fold(0.0, |largest: f64, end| largest.max(end.abs()));
    Ok((params, abs_max))
}

/// The type of a tensor's zero points: I32, or I64 where one does not fit it.
///
/// # Errors
/// The errors of [`calibrate`].
pub fn zero_point_type<K: Framework>(
    tensor: &Tensor<'_>,
    float: FloatType,
    granularity: Granularity,
    settings: &Settings,
) -> Result<IntType, Fault> {
    let fits = |z: &i64| i32::try_from(*z).is_ok();
    let scheme = &settings.scheme;
    let fit = match settings.parameters {
        Parameters::Given { zero_point, .. } => fits(&zero_point),
        // A zero point is a code, or lies within 2^30 + 1 of the smallest one.
        Parameters::Calibrated(_)
            if scheme.qmin.abs() < 1 << 30 && scheme.qmax <= i32::MAX.into() =>
        {
            true
        }
        Parameters::Calibrated(_) => {
            let params = with_float!(float, F => {
                calibrate::<K, F>(&elements(tensor.data), tensor, granularity, settings)?.0
            });
            params.zero_point().iter().all(fits)
        }
    };
    Ok(if fit { IntType::I32 } else { IntType::I64 })
}
