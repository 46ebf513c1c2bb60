//! The parameters of a tensor.

use chopi::{
    Calibration, Error, Observer, QParams,
    backend::{FloatType, IntType},
    observer::Ranges,
};

use crate::archive::{Entry, Reader};
use crate::args::{Parameters, Settings};
use crate::chunks::Chunks;
use crate::element::FloatElement;
use crate::error::Fault;
use crate::framework::Framework;
use chopi::formats::with_float;

/// The parameters of a tensor, and the largest |x| of its ranges, from one piece after the other.
///
/// # Errors
/// NaN and infinities, whether the parameters are calibrated or given; numbers that the convention
/// cannot represent; a file that cannot be read.
pub fn calibrate<K: Framework, F: FloatElement>(
    elements: &mut Reader<'_, F>,
    chunks: &Chunks<'_>,
    settings: &Settings,
) -> Result<(QParams, f64), Fault> {
    let (scheme, convention) = (&settings.scheme, &settings.convention);
    let calibration = match settings.parameters {
        Parameters::Calibrated(calibration) => calibration,
        Parameters::Given { .. } => Calibration::MinMax,
    };
    let whole;
    let chunks = match chunks.cuts_channels() && calibration != Calibration::MinMax {
        // The histograms of all channels at once take more memory than most tensors.
        true => {
            whole = chunks.whole();
            &whole
        }
        false => chunks,
    };

    let mut seen = Observer::new(scheme.clone(), *convention, calibration)?;
    let mut ranges = Vec::new();
    let mut non_finite = None;
    for chunk in chunks.iter() {
        let x = K::floats(
            elements.read(chunk.elements.clone())?,
            &chunks.shape(&chunk),
        )?;
        let observed = match chunks.cuts_groups() {
            true => seen.observe(&x),
            false => calibration
                .observe(&x, scheme, convention)
                .map(|found| ranges.push(found)),
        };
        match (observed, &mut non_finite) {
            (Err(Error::NonFinite { count, .. }), Some((_, _, all))) => *all += count,
            (
                Err(Error::NonFinite {
                    index,
                    value,
                    count,
                }),
                None,
            ) => non_finite = Some((chunks.index(&chunk, index), value, count)),
            (observed, _) => observed?,
        }
    }
    if let Some((index, value, count)) = non_finite {
        return Err(Fault::NonFinite {
            index,
            value,
            count,
        });
    }
    if chunks.cuts_groups() {
        ranges.push(seen.ranges()?);
    }

    let params = match settings.parameters {
        Parameters::Calibrated(_) => joined(&ranges, chunks, settings)?,
        Parameters::Given { scale, zero_point } => QParams::new(
            scheme.clone(),
            *convention,
            F::TYPE,
            vec![1],
            vec![scale],
            vec![zero_point],
        )?,
    };
    let ends = ranges.iter().flat_map(|r| r.min().iter().chain(r.max()));
    let abs_max = ends.fold(0.0, |largest: f64, end| largest.max(end.abs()));
    Ok((params, abs_max))
}

/// The parameters of a tensor from the ranges of its pieces, each of which has groups of its own.
fn joined(ranges: &[Ranges], chunks: &Chunks<'_>, settings: &Settings) -> chopi::Result<QParams> {
    let (scheme, convention) = (&settings.scheme, &settings.convention);
    let first = match ranges {
        [] => Err(Error::NotCalibrated),
        [all] => return QParams::from_ranges(all, scheme, convention),
        [first, ..] => Ok(first),
    }?;
    let (mut scale, mut integers, mut reals) = (Vec::new(), Vec::new(), Vec::new());
    for ranges in ranges {
        let before = scale.len();
        let params = QParams::from_ranges(ranges, scheme, convention);
        let params = params.map_err(|error| of_group(error, before))?;
        scale.extend(params.scale());
        match params.real_zero_point() {
            Some(zero_points) => reals.extend(zero_points),
            None => integers.extend(params.zero_point()),
        }
    }
    let (scheme, float) = (scheme.clone(), first.float_type());
    let shape = chunks.params_shape()?;
    match reals.is_empty() {
        true => QParams::new(scheme, *convention, float, shape, scale, integers),
        false => QParams::with_real_zero_points(scheme, *convention, float, shape, scale, reals),
    }
}

/// The error in a piece of a tensor, `before` groups into it.
fn of_group(error: Error, before: usize) -> Error {
    match error {
        Error::Scale {
            group,
            scale,
            float,
        } => Error::Scale {
            group: before + group,
            scale,
            float,
        },
        Error::SymmetricRange {
            group,
            min,
            qmin,
            qmax,
        } => Error::SymmetricRange {
            group: before + group,
            min,
            qmin,
            qmax,
        },
        Error::ZeroPoint {
            group,
            zero_point,
            expected,
        } => Error::ZeroPoint {
            group: before + group,
            zero_point,
            expected,
        },
        other => other,
    }
}

/// The type of a tensor's zero points: I32, or I64 where one does not fit it.
///
/// # Errors
/// The errors of [`calibrate`].
pub fn zero_point_type<K: Framework>(
    tensor: &Entry,
    float: FloatType,
    chunks: &Chunks<'_>,
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
                calibrate::<K, F>(&mut Reader::new(tensor), chunks, settings)?.0
            });
            params.zero_point().iter().all(fits)
        }
    };
    Ok(if fit { IntType::I32 } else { IntType::I64 })
}

#[cfg(test)]
mod tests {
    use chopi::ndarray::NdArray;
    use chopi::{Chopi, Convention, Granularity};
    use proptest::prelude::*;
    use safetensors::Dtype;

    use super::*;
    use crate::archive::Data;
    use crate::element::bytes;

    fn granularity() -> impl Strategy<Value = Granularity> {
        prop_oneof![
            Just(Granularity::PerTensor),
            (-2_isize..2).prop_map(|axis| Granularity::PerChannel { axis }),
            (-2_isize..2, 1_usize..6).prop_map(|(axis, size)| Granularity::PerGroup { axis, size }),
        ]
    }

    proptest! {
        #[test]
        fn the_parameters_from_pieces_are_those_from_the_whole(
            shape in [1_usize..9, 1_usize..9],
            granularity in granularity(),
            calibration in prop::sample::select(vec![
                Calibration::MinMax,
                Calibration::Percentile(90.0),
                Calibration::MeanSquaredError,
            ]),
            convention in prop::sample::select(Convention::ALL),
            symmetric in any::<bool>(),
            elements in 1_usize..30,
            bad in prop::collection::vec(any::<prop::sample::Index>(), 0..3),
            seed in any::<u32>(),
        ) {
            let count = shape[0] * shape[1];
            let number = |i: u32| (i.wrapping_mul(2_654_435_761) ^ seed) as f32 / 1e9 - 2.0;
            let mut x: Vec<f32> = (0..count as u32).map(number).collect();
            for index in bad {
                x[index.index(count)] = f32::NAN;
            }
            let builder = Chopi::builder().num_bits(5).symmetric(symmetric).granularity(granularity);
            let Ok(scheme) = builder.convention(convention).scheme() else { return Ok(()) };
            let granularity = convention.granularity_for(scheme.granularity, 2);
            let settings = Settings {
                scheme,
                convention,
                parameters: Parameters::Calibrated(calibration),
            };
            let tensor = Entry {
                name: "x".to_owned(),
                dtype: Dtype::F32,
                shape: shape.to_vec(),
                data: Data::from(bytes(&x).into_owned()),
            };
            let calibrated = |chunks: Chunks<'_>| {
                let mut elements = Reader::<f32>::new(&tensor);
                let found = calibrate::<NdArray, f32>(&mut elements, &chunks, &settings);
                let found = found.map_err(|fault| fault.to_string());
                found.map(|(params, abs_max)| {
                    let zero_point = params.zero_point().to_vec();
                    let reals = params.real_zero_point().map(<[f64]>::to_vec);
                    let shape = params.shape().to_vec();
                    (shape, params.scale().to_vec(), zero_point, reals, abs_max)
                })
            };
            let pieces = calibrated(Chunks::of_at_most(elements, &shape, granularity));
            prop_assert_eq!(pieces, calibrated(Chunks::of_at_most(count, &shape, granularity)));
        }
    }
}
