//! Properties that hold for every array, drawn by proptest.

use chopi_core::{
    Chopi, CodeRange, Convention, Error, Granularity, QParams,
    backend::{Float, FloatType, bf16, f16},
};
use chopi_ndarray as _; // links its implementations
use ndarray::{ArrayD, ArrayView, ArrayViewD, Axis, Dimension, IxDyn, Slice, array, s};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

/// A scheme, and an array of one to four axes that it fits.
#[derive(Clone, Debug)]
struct Case {
    bits: u32,
    symmetric: bool,
    range: CodeRange,
    granularity: Granularity,
    array: ArrayD<f64>,
}

fn cases(bits: std::ops::RangeInclusive<u32>) -> impl Strategy<Value = Case> {
    let ranges = [CodeRange::Default, CodeRange::Signed, CodeRange::Narrow];
    let elements = prop_oneof![
        4 => -10.0..10.0_f64,
        1 => 280.0..310.0_f64,
        1 => Just(0.0),
        1 => prop::num::f32::NORMAL.prop_map(|x| f64::from(x) * 0.25),
    ];
    (
        bits,
        any::<bool>(),
        prop::sample::select(ranges.to_vec()),
        0..3,
        1_usize..6,
    )
        .prop_flat_map(move |(bits, symmetric, range, granularity, size)| {
            let elements = elements.clone();
            prop::collection::vec(1_usize..7, 1..=4).prop_flat_map(move |shape| {
                let count = shape.iter().product::<usize>();
                let rank = shape.len() as isize;
                let shape = shape.clone();
                (prop::collection::vec(elements.clone(), count), -rank..rank).prop_map(
                    move |(data, axis)| Case {
                        bits,
                        symmetric,
                        range,
                        granularity: match granularity {
                            0 => Granularity::PerTensor,
                            1 => Granularity::PerChannel { axis },
                            _ => Granularity::PerGroup { axis, size },
                        },
                        array: ArrayD::from_shape_vec(shape.as_slice(), data).unwrap(),
                    },
                )
            })
        })
}

impl Case {
    fn quantizer(&self) -> Chopi {
        Chopi::builder()
            .num_bits(self.bits)
            .symmetric(self.symmetric)
            .range(self.range)
            .granularity(self.granularity)
            .build()
            .unwrap()
    }

    /// The array in another element type, kept below half of its largest number so that no value
    /// of the grid overflows.
    fn array<F: Float>(&self) -> ArrayD<F> {
        let limit = match F::TYPE {
            FloatType::F16 => 32_752.0,
            _ => 1.7e38,
        };
        self.array
            .mapv(|x| chopi_conformance::data::to(x.clamp(-limit, limit)))
    }
}

fn wide<F: Float>(x: F) -> f64 {
    use chopi_core::backend::Compute;
    x.widen().as_f64()
}

/// The distance from |x| to the next larger number of the type.
fn ulp<F: Float>(x: F) -> f64 {
    let (digits, least) = match F::TYPE {
        FloatType::F16 => (10, -14),
        FloatType::BF16 => (7, -126),
        FloatType::F32 => (23, -126),
        FloatType::F64 => (52, -1022),
    };
    let exponent = if wide(x) == 0.0 {
        least
    } else {
        (wide(x).abs().log2().floor() as i32).max(least)
    };
    2_f64.powi(exponent - digits)
}

/// For each element, the scale and the zero point of its group.
fn params_of_elements(chopi: &Chopi, shape: &[usize]) -> Vec<(f64, i64)> {
    let groups = chopi_conformance::oracle::groups(shape, chopi.scheme().granularity);
    groups
        .iter()
        .map(|&g| (chopi.scale().unwrap()[g], chopi.zero_point().unwrap()[g]))
        .collect()
}

fn error_is_bounded<F: Float>(case: &Case) -> TestCaseResult {
    let x = case.array::<F>();
    let mut chopi = case.quantizer();
    let y = chopi.fake_quantize(&x).unwrap();
    let params = params_of_elements(&chopi, x.shape());
    for ((&x, &y), (scale, _)) in x.iter().zip(&y).zip(params) {
        let bound = match case.symmetric {
            true => scale / 2.0 + 2.0 * ulp(x),
            false => scale + 3.0 * ulp(x),
        };
        let error = (wide(x) - wide(y)).abs();
        prop_assert!(
            error <= bound,
            "{x:?} -> {y:?}: {error:e} > {bound:e} (s = {scale:e})"
        );
    }
    Ok(())
}

/// Quantizing x̂ gives its codes again where the element type can tell the values of the grid apart:
/// where every |q − z| is below 2^(p − 2), p the bits of its precision.
fn quantizing_is_idempotent<F: Float>(case: &Case) -> TestCaseResult {
    let x = case.array::<F>();
    let mut chopi = case.quantizer();
    let codes = chopi.quantize(&x).unwrap();
    let again = chopi.quantize(&chopi.dequantize(&codes).unwrap()).unwrap();
    let precision = match F::TYPE {
        FloatType::F16 => 11,
        FloatType::BF16 => 8,
        FloatType::F32 => 24,
        FloatType::F64 => 53,
    };
    let params = params_of_elements(&chopi, x.shape());
    for ((&q, &r), (scale, zero)) in codes.to_i64().iter().zip(&again.to_i64()).zip(params) {
        // Subnormal values of the element type have fewer bits.
        let normal = scale >= F::TYPE.min_positive();
        if normal && (q - zero).abs() < 1 << (precision - 2) {
            prop_assert_eq!(q, r);
        }
    }
    Ok(())
}

fn larger_elements_have_larger_codes<F: Float>(case: &Case) -> TestCaseResult {
    let mut elements: Vec<F> = case.array::<F>().iter().copied().collect();
    elements.sort_by(|a, b| wide(*a).total_cmp(&wide(*b)));
    let mut chopi = case.quantizer();
    chopi = Chopi::builder()
        .num_bits(chopi.scheme().bits)
        .symmetric(case.symmetric)
        .range(case.range)
        .build()
        .unwrap();
    let codes = chopi
        .quantize(&ArrayView::from(&elements))
        .unwrap()
        .to_i64();
    prop_assert!(codes.iter().is_sorted());
    Ok(())
}

/// The result for a view is that for the same elements made contiguous.
fn check_view<D: Dimension>(case: &Case, view: ArrayView<'_, f32, D>) -> TestCaseResult {
    let contiguous =
        ndarray::Array::from_shape_vec(view.raw_dim(), view.iter().copied().collect::<Vec<_>>())
            .unwrap();
    let (mut a, mut b) = (case.quantizer(), case.quantizer());
    if let Err(error) = a.calibrate(&view) {
        let other = b.calibrate(&contiguous).unwrap_err();
        prop_assert_eq!(error.to_string(), other.to_string());
        return Ok(());
    }
    let (qa, qb) = (a.quantize(&view).unwrap(), b.quantize(&contiguous).unwrap());
    prop_assert_eq!(a.params(), b.params());
    prop_assert_eq!(&qa, &qb);
    prop_assert_eq!(a.dequantize(&qa).unwrap(), b.dequantize(&qb).unwrap());
    prop_assert_eq!(
        a.fake_quantize(&view).unwrap(),
        b.fake_quantize(&contiguous).unwrap()
    );
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn the_error_is_at_most_half_a_step_symmetric_and_a_step_asymmetric(case in cases(2..=32)) {
        error_is_bounded::<f32>(&case)?;
        error_is_bounded::<f64>(&case)?;
        error_is_bounded::<f16>(&case)?;
        error_is_bounded::<bf16>(&case)?;
    }

    #[test]
    fn quantizing_a_dequantized_tensor_gives_the_same_codes(case in cases(2..=24)) {
        quantizing_is_idempotent::<f32>(&case)?;
        quantizing_is_idempotent::<f64>(&case)?;
        quantizing_is_idempotent::<f16>(&case)?;
        quantizing_is_idempotent::<bf16>(&case)?;
    }

    #[test]
    fn codes_are_monotone(case in cases(2..=32)) {
        larger_elements_have_larger_codes::<f32>(&case)?;
        larger_elements_have_larger_codes::<f64>(&case)?;
        larger_elements_have_larger_codes::<f16>(&case)?;
        larger_elements_have_larger_codes::<bf16>(&case)?;
    }

    #[test]
    fn every_view_gives_what_the_same_elements_made_contiguous_give(
        case in cases(2..=16),
        order in any::<prop::sample::Index>(),
        steps in prop::collection::vec(prop::sample::select(vec![-3_isize, -2, -1, 1, 2]), 4),
        broadcast in 1_usize..4,
    ) {
        let array = case.array::<f32>();
        check_view(&case, array.view())?;
        check_view(&case, array.t())?;

        let mut axes: Vec<usize> = (0..array.ndim()).collect();
        axes.rotate_left(order.index(array.ndim()));
        check_view(&case, array.view().permuted_axes(axes))?;

        let mut sliced: ArrayViewD<'_, f32> = array.view();
        for (axis, &step) in (0..array.ndim()).zip(&steps) {
            sliced.slice_axis_inplace(Axis(axis), Slice::new(0, None, step));
        }
        check_view(&case, sliced)?;

        let mut fortran = ArrayD::zeros(ndarray::ShapeBuilder::f(IxDyn(array.shape())));
        fortran.assign(&array);
        check_view(&case, fortran.view())?;

        let mut wide = vec![broadcast];
        wide.extend(array.shape());
        check_view(&case, array.broadcast(wide).unwrap())?;
    }
}

#[test]
fn static_and_dynamic_dimensions_give_the_same() {
    let array = ndarray::Array::from_shape_fn((3, 4, 5), |(i, j, k)| (i * 7 + j * 3 + k) as f32);
    let mut chopi = Chopi::builder().per_channel(1).build().unwrap();
    let fixed = chopi.quantize(&array).unwrap();
    let dynamic = chopi.quantize(&array.view().into_dyn()).unwrap();
    assert_eq!(fixed.to_i64().into_dyn(), dynamic.to_i64());
    let row = Chopi::new(8)
        .unwrap()
        .quantize(&array.slice(s![0, 1, ..]))
        .unwrap();
    assert_eq!(row.shape(), [5]);
}

#[test]
fn the_result_keeps_the_axis_order_of_a_dense_array() {
    let array = ndarray::Array2::<f32>::from_shape_fn((3, 4), |(i, j)| (i + 2 * j) as f32);
    let mut chopi = Chopi::new(8).unwrap();
    let codes = chopi
        .quantize(&array.t())
        .unwrap()
        .into_array::<u8>()
        .unwrap();
    assert_eq!(codes.strides(), array.t().strides());
    assert_eq!(
        chopi.fake_quantize(&array.t()).unwrap().strides(),
        array.t().strides()
    );
}

/// In `f16` a zero point beyond 65,504 is infinite, and its sum with an infinity may be no number; but the data hold
/// no NaN, and none is reported.
#[test]
fn an_infinity_beside_an_infinite_zero_point_is_not_reported_as_nan() {
    let convention = Convention::PYCHOP_TORCH;
    let scheme = Chopi::builder().convention(convention).scheme().unwrap();
    for zero_point in [-1e5, 1e5, -1e9, 1e9] {
        let (scale, zero_point) = (vec![0.5], vec![zero_point]);
        let params = QParams::with_real_zero_points(
            scheme.clone(),
            convention,
            FloatType::F16,
            vec![1],
            scale,
            zero_point,
        )
        .unwrap();
        let x = array![f16::INFINITY, f16::NEG_INFINITY, f16::MAX, f16::ONE];
        params.quantize(&x).unwrap();
        let error = params.quantize(&array![f16::ONE, f16::NAN]).unwrap_err();
        assert!(
            matches!(&error, Error::NaN { index, count: 1 } if index == &[1]),
            "{error}"
        );
    }
}

/// In `f16` the reciprocal of a large scale is 0, and its product with an infinity is no number; but the data hold no NaN,
/// and none is reported.
#[test]
fn an_infinity_times_a_reciprocal_that_is_zero_is_not_reported_as_nan() {
    for convention in [Convention::AQT, Convention::PYCHOP_JAX] {
        let builder = Chopi::builder().convention(convention).symmetric(true);
        let scheme = builder.scheme().unwrap();
        let float = FloatType::F16;
        for scale in [2_f64.powi(25), 2_f64.powi(30)] {
            let params = QParams::new(
                scheme.clone(),
                convention,
                float,
                vec![1],
                vec![scale],
                vec![0],
            );
            let params = params.unwrap();
            let x = array![f16::INFINITY, f16::NEG_INFINITY, f16::MAX];
            params.quantize(&x).unwrap();
            let fake = params.fake_quantize(&x).unwrap();
            assert!(
                fake[0].is_nan() && fake[1].is_nan(),
                "{convention:?}: {fake}"
            );
            assert_eq!(fake[2], f16::ZERO);
        }
    }
}

/// The range of all f16 in one step or two has a scale that is larger than any f16.
#[test]
fn a_step_that_is_larger_than_the_largest_number() {
    use chopi_conformance::oracle;
    for range in [0..=1, -1..=0, -1..=1, 0..=2, 5..=6] {
        for (min, max) in [
            (f16::MIN, f16::MAX),
            (f16::ZERO, f16::MAX),
            (f16::MIN, f16::ONE),
        ] {
            let mut chopi = Chopi::builder().range(range.clone()).build().unwrap();
            let x = array![min, max, f16::ONE];
            let codes = chopi.quantize(&x).unwrap();
            let scheme = chopi.scheme();
            let ends = (min.to_f64(), max.to_f64());
            let (scale, zero) = oracle::params(ends.0, ends.1, scheme, FloatType::F16);
            assert_eq!(chopi.scale(), Some(&[scale][..]), "{range:?} {ends:?}");
            assert_eq!(chopi.zero_point(), Some(&[zero][..]), "{range:?} {ends:?}");
            let values = chopi.dequantize(&codes).unwrap();
            assert!(
                values.iter().all(|x: &f16| x.is_finite()),
                "{range:?} {values}"
            );
        }
    }
}
