//! The operators equal their definitions.

use chopi_core::{
    NanPolicy,
    backend::{Float, FloatType, bf16, f16},
};
use chopi_ndarray::onnx::{
    DequantizableElement, DequantizeAttributes, Error, QuantizeAttributes, QuantizedElement,
    QuantizedType, dequantize_linear, dynamic_quantize_linear, quantize_linear,
};
use ndarray::{Array, Array1, ArrayD, Axis, Dimension, IxDyn, arr0, array};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

use crate::case::{Case, cases, laid_out};
use crate::definition::{code, round, wide};

/// QuantizeLinear equals its definition, and its errors say where the first NaN is.
fn quantizes<A, S, Z>(case: &Case, output: QuantizedType) -> TestCaseResult
where
    A: Float<Compute = f32>,
    S: Float<Compute = f32>,
    Z: QuantizedElement + TryFrom<i64>,
{
    let scale = case.scale::<S>();
    let zeros = case.zero_point(output.bounds());
    let x = case.x::<A>(&scale.mapv(wide), output);
    let precision = case.precision.unwrap_or(S::TYPE);
    let to_precision = |x: f64| round(x, precision);
    let expected: Vec<(IxDyn, Option<i64>, i64)> = x
        .indexed_iter()
        .map(|(index, &x)| {
            let group = case.group(&index);
            let zero = zeros.as_ref().map_or(0, |zeros| zeros[&group]);
            let quotient = to_precision(to_precision(wide(x)) / to_precision(wide(scale[&group])));
            (index, code(quotient, zero, output), zero)
        })
        .collect();
    let zero_point = zeros.map(|zeros| zeros.mapv(|z| Z::try_from(z).ok().unwrap()));
    let attributes = QuantizeAttributes {
        axis: case.axis,
        block_size: case.block_size,
        output_dtype: Some(output),
        precision: case.precision,
        nan: NanPolicy::Error,
    };
    let run = |nan| {
        let attributes = QuantizeAttributes { nan, ..attributes };
        laid_out(&x, case.memory, |x| {
            quantize_linear::<_, _, Z, _, _>(&x, &scale, zero_point.as_deref(), &attributes)
        })
    };
    let nans: Vec<&IxDyn> = expected
        .iter()
        .filter(|e| e.1.is_none())
        .map(|e| &e.0)
        .collect();
    match (run(NanPolicy::Error), nans.first()) {
        (Ok(_), None) => {}
        (Err(Error::Core(chopi_core::Error::NaN { index, count })), Some(first)) => {
            prop_assert_eq!((&index[..], count), (first.slice(), nans.len()));
        }
        (other, _) => prop_assert!(false, "{:?}, with NaN at {:?}", other, nans),
    }
    let codes = run(NanPolicy::ZeroPoint).unwrap();
    prop_assert_eq!(codes.shape(), x.shape());
    for (index, expected, zero) in expected {
        let x = x[&index];
        prop_assert_eq!(
            codes[&index].to_i64(),
            expected.unwrap_or(zero),
            "{:?} at {:?}",
            x,
            index
        );
    }
    Ok(())
}

/// DequantizeLinear equals its definition.
fn dequantizes<I, S, O>(case: &Case, bounds: (i64, i64)) -> TestCaseResult
where
    I: DequantizableElement + TryFrom<i64>,
    S: Float<Compute = f32>,
    O: Float<Compute = f32>,
{
    let scale = case.scale::<S>();
    let zeros = match bounds.1 > 65535 {
        true => case.zero_point((0, 0)),
        false => case.zero_point(bounds),
    };
    let mut seeds = case.x.iter();
    let x = ArrayD::from_shape_fn(case.shape.as_slice(), |_| {
        let &(steps, ..) = seeds.next().unwrap();
        ((steps * bounds.1 as f64) as i64).clamp(bounds.0, bounds.1)
    });
    let zero_point = zeros
        .as_ref()
        .map(|zeros| zeros.mapv(|z| I::try_from(z).ok().unwrap()));
    let attributes = DequantizeAttributes {
        axis: case.axis,
        block_size: case.block_size,
    };
    let codes = x.mapv(|q| I::try_from(q).ok().unwrap());
    let values: ArrayD<O> = laid_out(&codes, case.memory, |codes| {
        dequantize_linear(&codes, &scale, zero_point.as_deref(), &attributes).unwrap()
    });
    prop_assert_eq!(values.shape(), x.shape());
    for (index, &q) in x.indexed_iter() {
        let group = case.group(&index);
        let zero = zeros.as_ref().map_or(0, |zeros| zeros[&group]);
        let difference = round((q - zero) as f64, FloatType::F32);
        let product = round(difference * wide(scale[&group]), FloatType::F32);
        let (got, expected) = (wide(values[&index]), round(product, O::TYPE));
        let equal = got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan();
        prop_assert!(equal, "{:e}, not {:e} at {:?}", got, expected, index);
    }
    Ok(())
}

proptest! {
    #[test]
    fn quantize_linear_equals_its_definition(case in cases()) {
        use QuantizedType::*;
        quantizes::<f32, f32, i8>(&case, Int8)?;
        quantizes::<f32, f32, u8>(&case, Uint8)?;
        quantizes::<f32, f32, u16>(&case, Uint16)?;
        quantizes::<f32, f32, i8>(&case, Int4)?;
        quantizes::<f32, f32, u8>(&case, Uint2)?;
        quantizes::<f16, f16, i16>(&case, Int16)?;
        quantizes::<f16, f16, u8>(&case, Uint8)?;
        quantizes::<f16, f32, u8>(&case, Uint4)?;
        quantizes::<bf16, bf16, i8>(&case, Int8)?;
        quantizes::<bf16, f16, i8>(&case, Int2)?;
        quantizes::<f32, f16, u16>(&case, Uint16)?;
    }

    #[test]
    fn dequantize_linear_equals_its_definition(case in cases()) {
        dequantizes::<i8, f32, f32>(&case, (-128, 127))?;
        dequantizes::<u8, f16, f16>(&case, (0, 255))?;
        dequantizes::<u16, f16, f32>(&case, (0, 65535))?;
        dequantizes::<i16, f32, f16>(&case, (-32768, 32767))?;
        dequantizes::<i8, bf16, bf16>(&case, (-8, 7))?;
        dequantizes::<i32, f32, f32>(&case, (i32::MIN.into(), i32::MAX.into()))?;
        dequantizes::<i32, f32, f16>(&case, (i32::MIN.into(), i32::MAX.into()))?;
    }

    #[test]
    fn narrower_codes_are_those_of_8_bits_saturated(case in cases()) {
        let scale = case.scale::<f32>();
        let x = case.x::<f32>(&scale.mapv(wide), QuantizedType::Int8);
        let zeros = case.zero_point((-2, 1)).map(|zeros| zeros.mapv(|z| z as i8));
        let codes = |output| {
            let attributes = QuantizeAttributes {
                axis: case.axis,
                block_size: case.block_size,
                output_dtype: Some(output),
                nan: NanPolicy::ZeroPoint,
                ..Default::default()
            };
            quantize_linear::<_, _, i8, _, _>(&x, &scale, zeros.as_deref(), &attributes).unwrap()
        };
        let wide = codes(QuantizedType::Int8);
        prop_assert_eq!(codes(QuantizedType::Int4), wide.mapv(|q| q.clamp(-8, 7)));
        prop_assert_eq!(codes(QuantizedType::Int2), wide.mapv(|q| q.clamp(-2, 1)));
    }

    #[test]
    fn dynamic_quantize_linear_equals_its_definition(
        data in prop::collection::vec(-1.0..1.0_f32, 1..40),
        exponent in -140..127_i32,
        offset in prop::sample::select(vec![0.0_f32, 1.0, -1.0, 5.0]),
        ties in any::<bool>(),
    ) {
        let size = 2_f64.powi(exponent);
        let mut x = Array1::from_vec(data).mapv(|x| (f64::from(x + offset) * size / 8.0) as f32);
        let min = x.fold(0.0_f32, |a, &b| a.min(b));
        let max = x.fold(0.0_f32, |a, &b| a.max(b));
        let all_zero = min == max;
        let s = if all_zero { 1.0 } else { (max - min) / 255.0 };
        prop_assume!(s > 0.0 && s.is_finite());
        if ties && !all_zero {
            x.mapv_inplace(|x| (((x / s).floor() + 0.5) * s).clamp(min, max));
            // The range stays.
            x = ndarray::concatenate![Axis(0), x, array![min, max]];
        }
        let z = if all_zero { 0.0 } else { (0.0 - min / s).clamp(0.0, 255.0).round_ties_even() };
        let (codes, scale, zero_point) = dynamic_quantize_linear(&x).unwrap();
        prop_assert_eq!((scale, f32::from(zero_point)), (s, z));
        let expected = x.mapv(|x| ((x / s).round_ties_even() + z).clamp(0.0, 255.0) as u8);
        prop_assert_eq!(&codes, &expected);
        // It is QuantizeLinear with these parameters.
        let attributes = QuantizeAttributes::default();
        let again = quantize_linear(&x, &arr0(scale), Some(&arr0(zero_point)), &attributes).unwrap();
        prop_assert_eq!(codes, again);
    }
}

#[test]
fn nothing_and_zeros_have_the_scale_1() {
    let empty = Array::<f32, _>::zeros((0, 3));
    assert_eq!(
        dynamic_quantize_linear(&empty).unwrap(),
        (Array::zeros((0, 3)), 1.0, 0)
    );
    let zeros = array![0.0_f32, -0.0];
    assert_eq!(
        dynamic_quantize_linear(&zeros).unwrap(),
        (array![0, 0], 1.0, 0)
    );
}

#[test]
fn blocks_of_a_tensor_without_elements_are_taken_in_every_precision() {
    let x = Array::<f16, _>::zeros((38, 0));
    let scale = Array::<f16, _>::zeros((13, 0));
    for precision in [None, Some(FloatType::F16), Some(FloatType::F32)] {
        let attributes = QuantizeAttributes {
            axis: 0,
            block_size: 3,
            precision,
            ..Default::default()
        };
        let codes: Array<i16, _> = quantize_linear(&x, &scale, None, &attributes).unwrap();
        assert_eq!(codes.dim(), (38, 0));
        let values: Array<f16, _> =
            dequantize_linear(&codes, &scale, None, &attributes.groups()).unwrap();
        assert_eq!(values.dim(), (38, 0));
        let codes = codes.mapv(i32::from);
        let values: Array<f16, _> =
            dequantize_linear(&codes, &scale, None, &attributes.groups()).unwrap();
        assert_eq!(values.dim(), (38, 0));
    }
}

#[test]
fn the_precision_of_halves_is_seen() {
    // ONNX's reference evaluator gives the codes of f16, ONNX Runtime those of f32, whatever the
    // attribute. From 2048 every second integer is an f16.
    let x = array![f16::from_f32(2050.0), f16::from_f32(1000.0)];
    let scale = arr0(f16::from_f32(0.3));
    let quantize = |precision| -> Array1<u16> {
        let attributes = QuantizeAttributes {
            precision,
            ..Default::default()
        };
        quantize_linear(&x, &scale, None, &attributes).unwrap()
    };
    assert_eq!(quantize(None), quantize(Some(FloatType::F16)));
    assert_eq!(quantize(Some(FloatType::F16)), array![6832, 3332]);
    assert_eq!(quantize(Some(FloatType::F32)), array![6832, 3333]);
}
