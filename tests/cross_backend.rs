//! ndarray, candle and libtorch give equal integers, equal float bits and the same kind of error.
//!
//! Each case draws a tensor, a scheme and a memory layout; every backend that is compiled in runs
//! it, and so does the path composed from device operations. `CHOPI_CASES` sets the number of cases.

use std::mem::{Discriminant, discriminant};

use candle_core::{DType, Tensor};
use chopi::{
    Chopi, CodeRange, Convention, Error, Granularity, NanPolicy, Rounding,
    backend::{Backend, Float, FloatTensor, FloatType, IntTensor, bf16, f16},
    convention::Groups,
};
use chopi_conformance::{Composed, data::to};
use ndarray::{ArrayD, Axis, Slice};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

/// A tensor by its elements in row-major order, how a quantizer is made for it, and how it lies in
/// memory.
#[derive(Clone, Debug)]
struct Case {
    float: FloatType,
    shape: Vec<usize>,
    data: Vec<f64>,
    builder: chopi::Builder,
    layout: Layout,
}

#[derive(Clone, Copy, Debug)]
enum Layout {
    RowMajor,
    Transposed,
    EverySecond,
}

fn cases() -> impl Strategy<Value = Case> {
    let floats = [
        FloatType::F16,
        FloatType::BF16,
        FloatType::F32,
        FloatType::F64,
    ];
    let ranges = [
        CodeRange::Default,
        CodeRange::Signed,
        CodeRange::Unsigned,
        CodeRange::Narrow,
    ];
    let roundings = [
        Rounding::NearestEven,
        Rounding::NearestEven,
        Rounding::NearestAway,
        Rounding::TowardZero,
        Rounding::Floor,
        Rounding::Ceiling,
        Rounding::Stochastic { seed: 11 },
    ];
    let layouts = [Layout::RowMajor, Layout::Transposed, Layout::EverySecond];
    let mut conventions = Convention::ALL.to_vec();
    conventions.extend([Convention::CHOPI; 8]);
    let element = prop_oneof![
        20 => -4.0..4.0_f64,
        4 => (-40..40_i32).prop_map(|x| f64::from(x) / 4.0),
        2 => 280.0..310.0_f64,
        2 => prop::num::f32::NORMAL.prop_map(f64::from),
        2 => Just(0.0),
        1 => prop::num::f32::SUBNORMAL.prop_map(f64::from),
    ];
    let scheme = (
        2_u32..=32,
        any::<bool>(),
        prop::sample::select(ranges.to_vec()),
        prop::sample::select(roundings.to_vec()),
        prop::sample::select(conventions),
        0..3,
        1_usize..6,
        -4_isize..4,
    );
    (
        prop::sample::select(floats.to_vec()),
        prop::sample::select(layouts.to_vec()),
        scheme,
        prop::collection::vec(prop_oneof![40 => 1_usize..7, 1 => Just(0)], 0..=4),
        prop_oneof![30 => Just(None), 1 => Just(Some(f64::NAN)), 1 => Just(Some(f64::INFINITY))],
    )
        .prop_flat_map(move |(float, layout, scheme, shape, special)| {
            let (bits, symmetric, range, rounding, convention, granularity, size, axis) = scheme;
            // What the convention has of what was drawn.
            let of_convention = convention.bits();
            let bits = of_convention[bits as usize % of_convention.len()];
            let granularity = match granularity {
                0 => Granularity::PerTensor,
                2 if convention.groups() != Groups::None => Granularity::PerGroup { axis, size },
                _ => Granularity::PerChannel { axis },
            };
            let mut builder = Chopi::builder()
                .num_bits(bits)
                .symmetric(symmetric)
                .convention(convention)
                .granularity(granularity);
            if builder.scheme().is_err() {
                builder = builder.symmetric(true);
            }
            for more in [
                builder.clone().range(range),
                builder.clone().rounding(rounding),
                builder.clone().range(range).rounding(rounding),
            ] {
                if more.scheme().is_ok() {
                    builder = more;
                }
            }
            let count = shape.iter().product::<usize>();
            prop::collection::vec(element.clone(), count).prop_map(move |mut data| {
                if let (Some(special), Some(last)) = (special, data.last_mut()) {
                    *last = special;
                }
                // Numbers of the type, so that every framework's conversion is exact.
                data.iter_mut().for_each(|x| *x = float.round(*x));
                let (builder, shape) = (builder.clone(), shape.clone());
                Case {
                    float,
                    shape,
                    data,
                    builder,
                    layout,
                }
            })
        })
}

/// What a backend gives: parameters, codes and the bits of values, or the kind of the error.
#[derive(Debug, PartialEq)]
struct Outcome {
    calibrated: Result<(Vec<u64>, Vec<i64>), Discriminant<Error>>,
    codes: Result<Vec<i64>, Discriminant<Error>>,
    values: Option<Vec<Option<u64>>>,
    fake: Result<Vec<Option<u64>>, Discriminant<Error>>,
    mask: Result<Vec<i64>, Discriminant<Error>>,
    with_nan: Result<Vec<i64>, Discriminant<Error>>,
}

/// Runs a case on one backend, given how to read its tensors.
fn run<B: Backend, T: FloatTensor<B>>(
    case: &Case,
    x: &T,
    codes: impl Fn(&T::Int) -> Vec<i64>,
    floats: impl Fn(&<T::Int as IntTensor<B>>::Float) -> Vec<f64>,
) -> Result<Outcome, TestCaseError> {
    let bits = |values: Vec<f64>| -> Vec<Option<u64>> {
        values
            .into_iter()
            .map(|x| (!x.is_nan()).then(|| x.to_bits()))
            .collect()
    };
    let mut chopi = case
        .builder
        .clone()
        .build()
        .map_err(|e| TestCaseError::Reject(e.to_string().into()))?;
    let calibrated = chopi.calibrate(x).map_err(|e| discriminant(&e));
    if calibrated.is_err() {
        // Other parameters, so that quantizing sees the special values too.
        let _ = match case.float {
            FloatType::F16 => chopi.calibrate(&ordinary::<f16>(case)),
            FloatType::BF16 => chopi.calibrate(&ordinary::<bf16>(case)),
            FloatType::F32 => chopi.calibrate(&ordinary::<f32>(case)),
            FloatType::F64 => chopi.calibrate(&ordinary::<f64>(case)),
        };
    }
    let calibrated = calibrated.map(|()| {
        let scale = chopi.scale().unwrap().iter().map(|s| s.to_bits()).collect();
        (scale, chopi.zero_point().unwrap().to_vec())
    });
    let quantized = chopi.quantize(x);
    let values = quantized
        .as_ref()
        .ok()
        .map(|q| bits(floats(&chopi.dequantize(q).unwrap())));
    let fake = chopi.fake_quantize(x).map(|y| bits(floats(&y)));
    let masked = chopi.fake_quantize_with_mask(x);
    let masked = masked.map(|(y, mask)| (bits(floats(&y)), codes(&mask)));
    if let (Ok(fake), Ok((masked, mask))) = (&fake, &masked) {
        prop_assert_eq!(fake, masked, "the values beside the mask");
        let inside = |(y, &m): (&Option<u64>, &i64)| m == 0 || y.is_some();
        prop_assert!(fake.iter().zip(mask).all(inside), "NaN in the mask");
    }
    let codes_of = |q: chopi::Result<T::Int>| q.map(|q| codes(&q)).map_err(|e| discriminant(&e));
    chopi.set_nan_policy(NanPolicy::ZeroPoint);
    Ok(Outcome {
        calibrated,
        codes: codes_of(quantized),
        values,
        fake: fake.map_err(|e| discriminant(&e)),
        mask: masked.map(|(_, mask)| mask).map_err(|e| discriminant(&e)),
        with_nan: codes_of(chopi.quantize(x)),
    })
}

/// An array of the case's shape that every convention can calibrate on, if it has elements.
fn ordinary<F: Float>(case: &Case) -> ArrayD<F> {
    let mut count = 0.0;
    ArrayD::from_shape_simple_fn(case.shape.as_slice(), || {
        count += 1.0;
        to((count * 0.7) % 3.0 - 1.0)
    })
}

fn on_ndarray<F: Float>(case: &Case) -> Result<Outcome, TestCaseError> {
    let data: Vec<F> = case.data.iter().map(|&x| to(x)).collect();
    let row_major = ArrayD::from_shape_vec(case.shape.as_slice(), data).unwrap();
    let array = match case.layout {
        Layout::EverySecond if !case.shape.is_empty() => {
            let mut wide = case.shape.clone();
            wide[0] *= 2;
            let mut wide = ArrayD::from_elem(wide, F::default());
            wide.slice_axis_mut(Axis(0), Slice::new(0, None, 2))
                .assign(&row_major);
            wide.slice_axis_inplace(Axis(0), Slice::new(0, None, 2));
            wide
        }
        Layout::Transposed => {
            let turned = row_major.t().as_standard_layout().into_owned();
            turned.reversed_axes()
        }
        _ => row_major,
    };
    let floats = |y: &ArrayD<F>| {
        use chopi::backend::Compute;
        y.iter().map(|x| x.widen().as_f64()).collect()
    };
    run(
        case,
        &array,
        |q| q.to_i64().iter().copied().collect(),
        floats,
    )
}

fn candle_tensor(case: &Case) -> candle_core::Result<Tensor> {
    let dtype = match case.float {
        FloatType::F16 => DType::F16,
        FloatType::BF16 => DType::BF16,
        FloatType::F32 => DType::F32,
        FloatType::F64 => DType::F64,
    };
    let device = candle_core::Device::Cpu;
    let tensor =
        Tensor::from_vec(case.data.clone(), case.shape.clone(), &device)?.to_dtype(dtype)?;
    let rank = case.shape.len();
    match case.layout {
        Layout::EverySecond if rank > 0 && !case.data.is_empty() => {
            let column = tensor.unsqueeze(1)?;
            Tensor::cat(&[&column, &column.zeros_like()?], 1)?
                .narrow(1, 0, 1)?
                .squeeze(1)
        }
        Layout::Transposed if rank > 0 && !case.data.is_empty() => {
            let reversed: Vec<usize> = (0..rank).rev().collect();
            tensor
                .permute(reversed.clone())?
                .contiguous()?
                .permute(reversed)
        }
        _ => Ok(tensor),
    }
}

fn candle_floats(y: &Tensor) -> Vec<f64> {
    y.to_dtype(DType::F64)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

fn candle_codes(q: &Tensor) -> Vec<i64> {
    q.to_dtype(DType::I64)
        .unwrap()
        .flatten_all()
        .unwrap()
        .to_vec1()
        .unwrap()
}

#[cfg(feature = "tch")]
mod on_tch {
    use super::*;
    use tch::{Kind, Tensor};

    pub fn tensor(case: &Case) -> Tensor {
        let kind = match case.float {
            FloatType::F16 => Kind::Half,
            FloatType::BF16 => Kind::BFloat16,
            FloatType::F32 => Kind::Float,
            FloatType::F64 => Kind::Double,
        };
        let shape: Vec<i64> = case.shape.iter().map(|&length| length as i64).collect();
        let tensor = Tensor::from_slice(&case.data).reshape(&shape).to_kind(kind);
        match case.layout {
            Layout::EverySecond if !shape.is_empty() => {
                Tensor::stack(&[&tensor, &tensor.zeros_like()], 1).select(1, 0)
            }
            Layout::Transposed => {
                let reversed: Vec<i64> = (0..shape.len() as i64).rev().collect();
                tensor.permute(&reversed).contiguous().permute(&reversed)
            }
            _ => tensor,
        }
    }

    pub fn floats(y: &Tensor) -> Vec<f64> {
        y.to_kind(Kind::Double)
            .contiguous()
            .view(-1)
            .try_into()
            .unwrap()
    }

    pub fn codes(q: &Tensor) -> Vec<i64> {
        q.to_kind(Kind::Int64)
            .contiguous()
            .view(-1)
            .try_into()
            .unwrap()
    }
}

fn agree(case: &Case) -> TestCaseResult {
    let expected = match case.float {
        FloatType::F16 => on_ndarray::<f16>(case),
        FloatType::BF16 => on_ndarray::<bf16>(case),
        FloatType::F32 => on_ndarray::<f32>(case),
        FloatType::F64 => on_ndarray::<f64>(case),
    }?;
    let x = candle_tensor(case).unwrap();
    prop_assert_eq!(
        &run(case, &x, candle_codes, candle_floats)?,
        &expected,
        "candle"
    );
    let x = Composed(chopi::candle::OnDevice(x));
    let composed = run::<chopi_conformance::OnDevice<chopi::candle::Candle>, _>(
        case,
        &x,
        |q| candle_codes(&q.0.0),
        |y| candle_floats(&y.0.0),
    )?;
    prop_assert_eq!(&composed, &expected, "candle, composed");
    #[cfg(feature = "tch")]
    {
        let x = on_tch::tensor(case);
        prop_assert_eq!(
            &run(case, &x, on_tch::codes, on_tch::floats)?,
            &expected,
            "tch"
        );
        let x = Composed(chopi::tch::OnDevice(x));
        let composed = run::<chopi_conformance::OnDevice<chopi::tch::LibTorch>, _>(
            case,
            &x,
            |q| on_tch::codes(&q.0.0),
            |y| on_tch::floats(&y.0.0),
        )?;
        prop_assert_eq!(&composed, &expected, "tch, composed");
    }
    Ok(())
}

fn case_count() -> u32 {
    std::env::var("CHOPI_CASES")
        .ok()
        .and_then(|count| count.parse().ok())
        .unwrap_or(10_000)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: case_count(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn backends_agree_on_integers_float_bits_and_errors(case in cases()) {
        agree(&case)?;
    }
}

#[test]
fn a_calibration_made_on_one_framework_serves_the_others() {
    let x = ndarray::array![[0.1_f32, -0.2], [0.3, 0.4]];
    let mut chopi = Chopi::builder().per_channel(0).build().unwrap();
    let expected = chopi.quantize(&x).unwrap().to_i64();
    let t = Tensor::new(&[[0.1_f32, -0.2], [0.3, 0.4]], &candle_core::Device::Cpu).unwrap();
    let q = chopi.quantize(&t).unwrap();
    assert_eq!(
        candle_codes(&q),
        expected.iter().copied().collect::<Vec<_>>()
    );
    assert_eq!(
        candle_floats(&chopi.dequantize(&q).unwrap()),
        chopi
            .fake_quantize(&x)
            .unwrap()
            .mapv(f64::from)
            .iter()
            .copied()
            .collect::<Vec<_>>()
    );
}
