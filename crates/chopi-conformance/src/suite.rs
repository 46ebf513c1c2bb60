//! The tests. Each is generic over a [`Fixture`] and named for what holds.

use std::mem::discriminant;

use chopi_core::{
    Chopi, CodeRange, Error, Granularity, NanPolicy, QParams, Rounding, Symmetry,
    backend::{Compute, Float, FloatTensor, bf16, f16},
    observer::Ranges,
};

pub use crate::moments::moments_are_those_of_the_definition;
pub use crate::not_numbers::nan_and_infinities_are_as_documented_in_every_convention;

use crate::data::{Kind, Random, edges, to};
use crate::{Fixture, Memory, oracle};

type Tensor<X, F> = <X as Fixture>::Tensor<F>;
type Owned<X, F> = <Tensor<X, F> as FloatTensor<<X as Fixture>::Backend>>::Owned;
type CodesOf<X, F> = <Tensor<X, F> as FloatTensor<<X as Fixture>::Backend>>::Int;

/// Calls a function generic over the element type with each of the four.
macro_rules! for_each_float {
    ($function:ident::<$fixture:ty>($($argument:expr),*)) => {
        $function::<$fixture, f32>($($argument),*);
        $function::<$fixture, f64>($($argument),*);
        $function::<$fixture, f16>($($argument),*);
        $function::<$fixture, bf16>($($argument),*);
    };
}

fn tensor<X: Fixture, F: Float>(data: &[F], shape: &[usize]) -> Tensor<X, F> {
    X::tensor(data, shape, &Memory::RowMajor)
}

/// The bits of an element, with one NaN for all.
fn bits<F: Float>(x: F) -> Option<u64> {
    let x = x.widen().as_f64();
    (!x.is_nan()).then(|| x.to_bits())
}

fn all_bits<F: Float>(data: &[F]) -> Vec<Option<u64>> {
    data.iter().map(|&x| bits(x)).collect()
}

/// A calibrated quantizer's codes, values and fake-quantized values of a tensor are those of the
/// definition.
fn check_against_oracle<X: Fixture, F: Float>(
    chopi: &mut Chopi,
    data: &[F],
    shape: &[usize],
    memory: &Memory,
    what: &str,
) {
    let x = X::tensor(data, shape, memory);
    let codes = chopi.quantize(&x).unwrap_or_else(|e| panic!("{what}: {e}"));
    let values = chopi
        .dequantize(&codes)
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let fake = chopi
        .fake_quantize(&x)
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let (masked, mask) = chopi
        .fake_quantize_with_mask(&x)
        .unwrap_or_else(|e| panic!("{what}: {e}"));

    let params = chopi.params().unwrap();
    let scheme = params.scheme();
    let groups = oracle::groups(shape, scheme.granularity);
    let (mut expected_codes, mut expected_values) = (Vec::new(), Vec::new());
    let mut expected_mask = Vec::new();
    for (index, (&x, &group)) in data.iter().zip(&groups).enumerate() {
        let (scale, zero) = (params.scale()[group], params.zero_point()[group]);
        let code = oracle::code(x, scale, zero, scheme, index).expect("no NaN here");
        expected_codes.push(code);
        expected_values.push(oracle::value::<F>(code, scale, zero));
        let unclamped = oracle::unclamped_code(x, scale, zero, scheme, index);
        expected_mask.push(i64::from(unclamped == Some(code)));
    }

    let (codes_shape, codes) = X::codes::<F>(&codes);
    assert_eq!(codes_shape, shape, "{what}");
    for (i, (got, expected)) in codes.iter().zip(&expected_codes).enumerate() {
        let group = groups[i];
        assert_eq!(
            got,
            expected,
            "{what}: element {i}, {:?}, s = {:e}, z = {}, {scheme:?}",
            data[i],
            params.scale()[group],
            params.zero_point()[group]
        );
    }
    assert_eq!(
        X::codes::<F>(&mask),
        (shape.to_vec(), expected_mask),
        "{what}: the mask"
    );
    for (name, tensor) in [
        ("dequantize", &values),
        ("fake_quantize", &fake),
        ("fake_quantize_with_mask", &masked),
    ] {
        let (shape_of_values, values) = X::floats::<F>(tensor);
        assert_eq!(shape_of_values, shape, "{what}");
        assert_eq!(values.len(), expected_values.len(), "{what}");
        for (i, (&got, &expected)) in values.iter().zip(&expected_values).enumerate() {
            assert_eq!(
                bits(got),
                bits(expected),
                "{what}: {name} of element {i}, {:?}",
                data[i]
            );
        }
    }
}

/// Calibrates as the definition says, then quantizes the data and a tensor of edges.
fn check_scheme<X: Fixture, F: Float>(
    builder: chopi_core::Builder,
    kind: Kind,
    shape: &[usize],
    memory: &Memory,
    random: &mut Random,
) {
    let what = format!("{} {kind:?} {shape:?} {memory:?} {builder:?}", F::TYPE);
    let mut data: Vec<F> = kind.elements(shape.iter().product(), random);
    let mut chopi = builder.build().unwrap();
    if chopi.scheme().symmetry == Symmetry::Symmetric && chopi.scheme().qmin == 0 {
        if data.iter().any(|x| x.widen().as_f64() < 0.0) {
            let refused = chopi.calibrate(&X::tensor(&data, shape, memory));
            let refused = refused.expect_err("negative values have no codes");
            let is_range = matches!(refused, Error::SymmetricRange { .. });
            assert!(is_range, "{what}: {refused}");
        }
        for x in &mut data {
            *x = to(x.widen().as_f64().abs());
        }
    }
    chopi
        .calibrate(&X::tensor(&data, shape, memory))
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    let params = chopi.params().unwrap().clone();
    let scheme = params.scheme();

    let groups = oracle::groups(shape, scheme.granularity);
    let expected: Vec<(f64, i64)> = oracle::ranges(&data, &groups)
        .into_iter()
        .map(|(min, max)| oracle::params(min, max, scheme, F::TYPE))
        .collect();
    let got: Vec<(f64, i64)> = params
        .scale()
        .iter()
        .copied()
        .zip(params.zero_point().iter().copied())
        .collect();
    assert_eq!(got, expected, "{what}");

    check_against_oracle::<X, F>(&mut chopi, &data, shape, memory, &what);
    let fake = chopi
        .fake_quantize(&X::tensor(&data, shape, memory))
        .unwrap();
    let (_, fake) = X::floats::<F>(&fake);
    assert!(
        fake.iter().all(|x| x.widen().as_f64().is_finite()),
        "{what}: what was calibrated on comes back finite"
    );
    let (scale, zero) = got[got.len() / 2];
    let edges: Vec<F> = edges(scale, zero, scheme.qmin, scheme.qmax);
    let edges: Vec<F> = (0..data.len()).map(|i| edges[i % edges.len()]).collect();
    check_against_oracle::<X, F>(&mut chopi, &edges, shape, memory, &what);
}

fn granularities(shape: &[usize]) -> Vec<Granularity> {
    let mut all = vec![Granularity::PerTensor];
    for axis in 0..shape.len() as isize {
        all.push(Granularity::PerChannel { axis });
        all.push(Granularity::PerChannel {
            axis: axis - shape.len() as isize,
        });
        for size in [1, 3, 32, 1000] {
            all.push(Granularity::PerGroup { axis, size });
        }
    }
    all
}

/// Codes, values and fake-quantized values of every scheme.
pub fn codes_and_values_are_those_of_the_definition<X: Fixture>() {
    fn run<X: Fixture, F: Float>(random: &mut Random) {
        let shapes: [&[usize]; 8] = [
            &[],
            &[1],
            &[311],
            &[5, 67],
            &[67, 5],
            &[40, 3, 3],
            &[2, 3, 4, 13],
            &[2, 1200],
        ];
        for shape in shapes {
            for granularity in granularities(shape) {
                for symmetric in [false, true] {
                    for bits in [4, 8] {
                        let builder = Chopi::builder().granularity(granularity);
                        let builder = builder.symmetric(symmetric).num_bits(bits);
                        let memory = Memory::RowMajor;
                        check_scheme::<X, F>(builder, Kind::Normal, shape, &memory, random);
                    }
                }
            }
        }
        let ranges = [
            CodeRange::Default,
            CodeRange::Unsigned,
            CodeRange::Signed,
            CodeRange::Narrow,
        ];
        for bits in 2..=32 {
            for range in ranges {
                for kind in Kind::ALL {
                    for symmetric in [false, true] {
                        let builder = Chopi::builder().num_bits(bits).symmetric(symmetric);
                        let builder = builder.range(range).per_channel(0);
                        check_scheme::<X, F>(builder, kind, &[3, 97], &Memory::RowMajor, random);
                    }
                }
            }
        }
        for (qmin, qmax) in [(0, 1), (-3, 10), (5, 20), (-200, -100), (-(1 << 31), 0)] {
            let builder = Chopi::builder()
                .num_bits(32)
                .range(CodeRange::Custom { qmin, qmax });
            let include_zero = builder.clone().include_zero();
            for builder in [builder, include_zero] {
                check_scheme::<X, F>(builder, Kind::Offset, &[211], &Memory::RowMajor, random);
            }
        }
    }
    for_each_float!(run::<X>(&mut Random::new(1)));
}

/// Each rounding mode, on ties and beside them.
pub fn every_rounding_is_that_of_the_definition<X: Fixture>() {
    fn run<X: Fixture, F: Float>(random: &mut Random) {
        let roundings = [
            Rounding::NearestEven,
            Rounding::NearestAway,
            Rounding::TowardZero,
            Rounding::Floor,
            Rounding::Ceiling,
            Rounding::Stochastic { seed: 7 },
        ];
        for rounding in roundings {
            for kind in Kind::ALL {
                for bits in [3, 8, 16, 32] {
                    for granularity in granularities(&[6, 35]) {
                        let builder = Chopi::builder().num_bits(bits).rounding(rounding);
                        let builder = builder.granularity(granularity);
                        check_scheme::<X, F>(builder, kind, &[6, 35], &Memory::RowMajor, random);
                    }
                }
            }
        }
    }
    for_each_float!(run::<X>(&mut Random::new(2)));
}

/// Transposed, strided and offset tensors give what row-major ones give.
pub fn the_memory_layout_does_not_matter<X: Fixture>() {
    fn run<X: Fixture, F: Float>(random: &mut Random) {
        let shape = [4, 6, 10];
        let memories = [
            Memory::Permuted(vec![0, 2, 1]),
            Memory::Permuted(vec![1, 0, 2]),
            Memory::Permuted(vec![2, 0, 1]),
            Memory::Permuted(vec![2, 1, 0]),
            Memory::Strided,
            Memory::Offset,
        ];
        for memory in memories {
            for granularity in granularities(&shape) {
                for rounding in [Rounding::NearestEven, Rounding::Stochastic { seed: 3 }] {
                    let builder = Chopi::builder().granularity(granularity).rounding(rounding);
                    check_scheme::<X, F>(builder, Kind::Normal, &shape, &memory, random);
                }
            }
        }
    }
    for_each_float!(run::<X>(&mut Random::new(3)));
}

/// Infinities and the largest numbers take the ends of the range.
pub fn extreme_values_saturate<X: Fixture>() {
    fn run<X: Fixture, F: Float>() {
        for symmetric in [false, true] {
            let mut chopi = Chopi::builder().symmetric(symmetric).build().unwrap();
            chopi
                .calibrate(&tensor::<X, F>(&[to(-1.0), to(1.0)], &[2]))
                .unwrap();
            let most = crate::data::largest(F::TYPE);
            let data: Vec<F> = [f64::INFINITY, most, -most, -f64::INFINITY]
                .map(to)
                .to_vec();
            let codes = chopi.quantize(&tensor::<X, F>(&data, &[4])).unwrap();
            let (qmin, qmax) = (chopi.qmin(), chopi.qmax());
            assert_eq!(X::codes::<F>(&codes).1, [qmax, qmax, qmin, qmin]);
            let fake = chopi.fake_quantize(&tensor::<X, F>(&data, &[4])).unwrap();
            let values = chopi.dequantize(&codes).unwrap();
            assert_eq!(
                all_bits(&X::floats::<F>(&fake).1),
                all_bits(&X::floats::<F>(&values).1)
            );
        }
    }
    for_each_float!(run::<X>());
}

/// A group whose elements are all equal is not changed by quantizing.
pub fn constant_groups_come_back_exactly<X: Fixture>() {
    fn run<X: Fixture, F: Float>() {
        let most = crate::data::largest(F::TYPE);
        let least = F::TYPE.min_positive();
        for c in [
            0.0,
            1.0,
            -1.0,
            0.1,
            -3.7,
            300.0,
            most,
            -most,
            least,
            -least,
            least / 2.0,
        ] {
            for builder in [
                Chopi::builder(),
                Chopi::builder().symmetric(true),
                Chopi::builder().num_bits(2).range(CodeRange::Signed),
                Chopi::builder()
                    .num_bits(4)
                    .range(CodeRange::Custom { qmin: 5, qmax: 20 }),
                Chopi::builder().num_bits(32),
            ] {
                let data: Vec<F> = vec![to(c); 6];
                let mut chopi = builder.clone().build().unwrap();
                let codes = chopi.quantize(&tensor::<X, F>(&data, &[2, 3])).unwrap();
                let back = X::floats::<F>(&chopi.dequantize(&codes).unwrap()).1;
                assert_eq!(all_bits(&back), all_bits(&data), "{c:e} {builder:?}");
            }
        }
    }
    for_each_float!(run::<X>());
}

/// NaN while quantizing.
pub fn nan_is_an_error_that_says_where_or_the_zero_point<X: Fixture>() {
    fn run<X: Fixture, F: Float>() {
        for rounding in [Rounding::NearestEven, Rounding::Floor] {
            for granularity in granularities(&[3, 700]) {
                let builder = Chopi::builder().granularity(granularity).rounding(rounding);
                let mut data: Vec<F> = Kind::Offset.elements(2100, &mut Random::new(5));
                let mut chopi = builder.nan_policy(NanPolicy::Error).build().unwrap();
                chopi.calibrate(&tensor::<X, F>(&data, &[3, 700])).unwrap();
                let clean = chopi.quantize(&tensor::<X, F>(&data, &[3, 700])).unwrap();
                data[1400] = to(f64::NAN);
                data[701] = to(f64::NAN);
                let x = X::tensor(&data, &[3, 700], &Memory::Permuted(vec![1, 0]));
                match chopi.quantize(&x) {
                    Err(Error::NaN { index, count }) => assert_eq!((index, count), (vec![1, 1], 2)),
                    other => panic!("{:?}", other.map(|_| ())),
                }
                chopi.set_nan_policy(NanPolicy::ZeroPoint);
                let codes = X::codes::<F>(&chopi.quantize(&x).unwrap()).1;
                let groups = oracle::groups(&[3, 700], granularity);
                let clean = X::codes::<F>(&clean).1;
                for (i, (&code, &clean)) in codes.iter().zip(&clean).enumerate() {
                    let zero = chopi.zero_point().unwrap()[groups[i]];
                    let zero = zero.clamp(chopi.qmin(), chopi.qmax());
                    assert_eq!(code, if i == 701 || i == 1400 { zero } else { clean });
                }
            }
        }
    }
    for_each_float!(run::<X>());
}

/// NaN is not lost in fake-quantize.
pub fn nan_stays_nan_in_fake_quantize<X: Fixture>() {
    fn run<X: Fixture, F: Float>() {
        for rounding in [Rounding::NearestEven, Rounding::NearestAway] {
            let mut chopi = Chopi::builder().rounding(rounding).build().unwrap();
            chopi
                .calibrate(&tensor::<X, F>(&[to(-1.0), to(1.0)], &[2]))
                .unwrap();
            let data: Vec<F> = [0.5, f64::NAN, -0.5].map(to).to_vec();
            let values = chopi.fake_quantize(&tensor::<X, F>(&data, &[3])).unwrap();
            let nan: Vec<bool> = X::floats::<F>(&values)
                .1
                .iter()
                .map(|&x| bits(x).is_none())
                .collect();
            assert_eq!(nan, [false, true, false]);
        }
    }
    for_each_float!(run::<X>());
}

/// Empty tensors, NaN, infinities, axes that are not there.
pub fn calibration_refuses_what_has_no_range<X: Fixture>() {
    fn run<X: Fixture, F: Float>() {
        for granularity in granularities(&[2, 3]) {
            let mut chopi = Chopi::builder().granularity(granularity).build().unwrap();
            let empty = tensor::<X, F>(&[], &[0, 3]);
            assert!(matches!(chopi.calibrate(&empty), Err(Error::Empty { .. })));
            for bad in [f64::NAN, f64::INFINITY, -f64::INFINITY] {
                let mut data: Vec<F> = Kind::Normal.elements(6, &mut Random::new(6));
                data[4] = to(bad);
                match chopi.calibrate(&tensor::<X, F>(&data, &[2, 3])) {
                    Err(Error::NonFinite {
                        index,
                        value,
                        count,
                    }) => {
                        assert_eq!((index, count), (vec![1, 1], 1));
                        assert!(value == bad || value.is_nan() && bad.is_nan());
                    }
                    other => panic!("{other:?}"),
                }
            }
            assert!(chopi.params().is_none());
        }
        for axis in [-3, 2, isize::MAX, isize::MIN] {
            let x = tensor::<X, F>(&[to(1.0); 6], &[2, 3]);
            for builder in [
                Chopi::builder().per_channel(axis),
                Chopi::builder().per_group(2, axis),
            ] {
                let error = builder.build().unwrap().calibrate(&x).unwrap_err();
                assert!(matches!(error, Error::Axis { .. }), "{error}");
            }
        }
        let scalar = tensor::<X, F>(&[to(1.0)], &[]);
        let error = Chopi::builder()
            .per_channel(0)
            .build()
            .unwrap()
            .calibrate(&scalar)
            .unwrap_err();
        assert!(matches!(error, Error::Axis { .. }), "{error}");
    }
    for_each_float!(run::<X>());
}

/// A tensor without elements has no range, but it has codes.
pub fn empty_tensors_pass_through_a_calibrated_quantizer<X: Fixture>() {
    fn run<X: Fixture, F: Float>() {
        for granularity in [Granularity::PerTensor, Granularity::PerChannel { axis: 1 }] {
            let mut chopi = Chopi::builder().granularity(granularity).build().unwrap();
            chopi
                .calibrate(&tensor::<X, F>(&[0.0, 1.0, 2.0].map(to), &[1, 3]))
                .unwrap();
            let empty = tensor::<X, F>(&[], &[0, 3]);
            let codes = chopi.quantize(&empty).unwrap();
            assert_eq!(X::codes::<F>(&codes), (vec![0, 3], vec![]));
            assert_eq!(X::floats::<F>(&chopi.dequantize(&codes).unwrap()).0, [0, 3]);
            assert_eq!(
                X::floats::<F>(&chopi.fake_quantize(&empty).unwrap()).0,
                [0, 3]
            );
        }
    }
    for_each_float!(run::<X>());
}

/// A per-channel or per-group set used on a tensor with other channels.
pub fn parameters_of_another_shape_are_refused<X: Fixture>() {
    fn run<X: Fixture, F: Float>() {
        let six = tensor::<X, F>(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0].map(to), &[2, 3]);
        let other = tensor::<X, F>(&[0.0, 1.0, 2.0, 3.0].map(to), &[2, 2]);
        for builder in [
            Chopi::builder().per_channel(1),
            Chopi::builder().per_group(1, 1),
            Chopi::builder().per_group(2, -1),
        ] {
            let mut chopi = builder.build().unwrap();
            let codes = chopi.quantize(&six).unwrap();
            let expected = discriminant(&Error::ParamsShape {
                params: vec![],
                expected: vec![],
                shape: vec![],
            });
            assert_eq!(
                discriminant(&chopi.quantize(&other).err().unwrap()),
                expected
            );
            assert_eq!(
                discriminant(&chopi.fake_quantize(&other).err().unwrap()),
                expected
            );
            chopi.calibrate(&other).unwrap();
            assert_eq!(
                discriminant(&chopi.dequantize(&codes).err().unwrap()),
                expected
            );
        }
        // As many groups of 3, but of an axis of another length.
        let four = tensor::<X, F>(&[0.0, 1.0, 2.0, 3.0].map(to), &[1, 4]);
        let six = tensor::<X, F>(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0].map(to), &[1, 6]);
        let mut chopi = Chopi::builder().per_group(3, 1).build().unwrap();
        let codes = chopi.quantize(&six).unwrap();
        chopi.calibrate(&four).unwrap();
        let grouped_axis = |error: Option<Error>| {
            let error = error.expect("the axis is longer").to_string();
            assert_eq!(
                error,
                "groups of 3 along an axis of 4 do not fit an axis of 6"
            );
        };
        grouped_axis(chopi.quantize(&six).err());
        grouped_axis(chopi.fake_quantize(&six).err());
        grouped_axis(chopi.dequantize(&codes).err());
        let granularity = Granularity::PerGroup { axis: 1, size: 3 };
        let mut ranges = Ranges::observe(&four, granularity).unwrap();
        grouped_axis(
            ranges
                .merge(&Ranges::observe(&six, granularity).unwrap())
                .err(),
        );
    }
    for_each_float!(run::<X>());
}

/// Codes that the scheme does not have are not dequantized.
pub fn codes_outside_of_the_range_are_refused<X: Fixture>() {
    fn run<X: Fixture, F: Float>() {
        let mut chopi = Chopi::new(8).unwrap();
        let good: CodesOf<X, F> = X::int_tensor::<F>(&[0, 255, 7, 8], &[2, 2]);
        assert!(matches!(
            chopi.dequantize(&good).err(),
            Some(Error::NotCalibrated)
        ));
        chopi
            .calibrate(&tensor::<X, F>(&[to(-1.0), to(1.0)], &[2]))
            .unwrap();
        let values: Owned<X, F> = chopi.dequantize(&good).unwrap();
        assert_eq!(X::floats::<F>(&values).0, [2, 2]);
        for bad in [-1, 256] {
            let codes: CodesOf<X, F> = X::int_tensor::<F>(&[0, 255, bad, bad], &[2, 2]);
            match chopi.dequantize(&codes).err() {
                Some(Error::Code {
                    index,
                    code,
                    qmin: 0,
                    qmax: 255,
                }) => {
                    assert_eq!((index, code), (vec![1, 0], bad.into()));
                }
                other => panic!("{other:?}"),
            }
        }
    }
    for_each_float!(run::<X>());
}

/// Calibrated once, forgotten on request, moved to another quantizer.
pub fn parameters_are_kept_until_reset<X: Fixture>() {
    fn run<X: Fixture, F: Float>() {
        let small = tensor::<X, F>(&[to(-1.0), to(1.0)], &[2]);
        let large = tensor::<X, F>(&[to(-100.0), to(100.0)], &[2]);
        let mut chopi = Chopi::new(8).unwrap();
        assert!(chopi.scale().is_none() && chopi.zero_point().is_none());
        chopi.quantize(&small).unwrap();
        let scale = chopi.scale().unwrap().to_vec();
        chopi.quantize(&large).unwrap();
        assert_eq!(chopi.scale().unwrap(), scale);

        let params: QParams = chopi.params().unwrap().clone();
        assert_eq!(params.float_type(), F::TYPE);
        let mut other = Chopi::from_params(params);
        let both =
            [&mut chopi, &mut other].map(|chopi| X::codes::<F>(&chopi.quantize(&large).unwrap()));
        assert_eq!(both[0], both[1]);

        chopi.calibrate(&large).unwrap();
        assert_ne!(chopi.scale().unwrap(), scale);
        chopi.reset();
        assert!(chopi.params().is_none());
        chopi.fake_quantize(&small).unwrap();
        assert_eq!(chopi.scale().unwrap(), scale);
    }
    for_each_float!(run::<X>());
}
