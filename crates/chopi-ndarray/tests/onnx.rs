//! ONNX's operators equal their definitions, evaluated one element at a time.

use chopi_core::{Float, FloatType, NanPolicy, bf16, f16};
use chopi_ndarray::onnx::{
    self, DequantizableElement, DequantizeAttributes, Error, QuantizeAttributes, QuantizedElement,
    QuantizedType, dequantize_linear, dynamic_quantize_linear, quantize_linear,
};
use ndarray::{Array, Array1, ArrayD, ArrayViewD, Axis, Dimension, IxDyn, Slice, arr0, array};
use proptest::prelude::*;
use proptest::test_runner::TestCaseResult;

// ---------------------------------------------------------------------------------- the definitions

/// A number rounded to a type of so many bits of precision, to nearest even: scaled so that the
/// type's numbers beside it are integers.
fn round(x: f64, float: FloatType) -> f64 {
    let (digits, least, largest) = match float {
        FloatType::F16 => (11, -14, 65504.0),
        FloatType::BF16 => (8, -126, f64::from(f32::from_bits(0x7f7f_0000))),
        FloatType::F32 => (24, -126, f64::from(f32::MAX)),
        FloatType::F64 => return x,
    };
    if x == 0.0 || !x.is_finite() {
        return x;
    }
    let exponent = ((x.to_bits() >> 52 & 0x7ff) as i32 - 1023).max(least);
    let step = 2_f64.powi(exponent - (digits - 1));
    let rounded = (x / step).round_ties_even() * step;
    match rounded.abs() > largest {
        true => f64::INFINITY.copysign(x),
        false => rounded,
    }
}

fn wide<F: Float<Compute = f32>>(x: F) -> f64 {
    x.widen().into()
}

/// The index in the scale of the element at this index of the tensor.
fn group(index: &IxDyn, scale: &[usize], axis: isize, block_size: usize) -> IxDyn {
    let axis = |rank: usize| axis.rem_euclid(rank as isize) as usize;
    let mut group = index.clone();
    match scale {
        [] => IxDyn(&[]),
        [1] if block_size == 0 => IxDyn(&[0]),
        [_] if block_size == 0 => IxDyn(&[index[axis(index.ndim())]]),
        _ => {
            group[axis(index.ndim())] /= block_size;
            group
        }
    }
}

/// The code of a quotient; none for NaN.
fn code(quotient: f64, zero_point: i64, codes: QuantizedType) -> Option<i64> {
    let (qmin, qmax) = codes.bounds();
    let sum = quotient.round_ties_even() + zero_point as f64;
    (!sum.is_nan()).then(|| sum.clamp(qmin as f64, qmax as f64) as i64)
}

// ---------------------------------------------------------------------------------------- the cases

/// Inputs of QuantizeLinear and DequantizeLinear that fit each other.
#[derive(Clone, Debug)]
struct Case {
    shape: Vec<usize>,
    scale_shape: Vec<usize>,
    axis: isize,
    block_size: usize,
    /// Seeds of the elements: how many scales from the zero point, and what kind of number.
    x: Vec<(f64, u8, f32)>,
    scale: Vec<f64>,
    /// In 0..1 of the range of the codes.
    zero_point: Option<Vec<f64>>,
    precision: Option<FloatType>,
    memory: Memory,
}

/// How an array lies in memory.
#[derive(Clone, Copy, Debug)]
enum Memory {
    RowMajor,
    Fortran,
    Strided,
    Reversed,
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        12 => prop::collection::vec(1_usize..7, 0..=4),
        2 => prop::collection::vec(1_usize..200, 1..=1),
        1 => prop::collection::vec(0_usize..3, 1..=3),
    ]
}

fn cases() -> impl Strategy<Value = Case> {
    let scales = prop_oneof![
        8 => (-13.0..8.0_f64).prop_map(f64::exp2),
        4 => prop::sample::select(vec![1.0, 0.5, 0.1, 2_f64.powi(-7), 0.00214854861, 7.77]),
        1 => (-160.0..128.0_f64).prop_map(f64::exp2),
        1 => (-13.0..8.0_f64).prop_map(|e| -e.exp2()),
    ];
    // One in some cases is a number that divides nothing well.
    let odd = prop::sample::select(vec![0.0, -0.0, f64::INFINITY, 1e-45, 6e-8]);
    let precisions = [
        None,
        Some(FloatType::F32),
        Some(FloatType::F16),
        Some(FloatType::BF16),
    ];
    let memories = [
        Memory::RowMajor,
        Memory::Fortran,
        Memory::Strided,
        Memory::Reversed,
    ];
    (
        shapes(),
        0..5_u8,
        any::<prop::sample::Index>(),
        any::<bool>(),
        1_usize..9,
    )
        .prop_flat_map(move |(shape, kind, axis, negative, size)| {
            let rank = shape.len();
            let axis = if rank == 0 { 0 } else { axis.index(rank) };
            let (scale_shape, block_size) = match kind {
                0 => (vec![], 0),
                1 => (vec![1], 0),
                _ if rank == 0 => (vec![], 0),
                2 => (vec![shape[axis]], 0),
                _ => {
                    let mut scale = shape.clone();
                    scale[axis] = shape[axis].div_ceil(size);
                    (scale, size)
                }
            };
            let axis = axis as isize - if negative { rank as isize } else { 0 };
            let (count, groups) = (
                shape.iter().product::<usize>(),
                scale_shape.iter().product::<usize>(),
            );
            let zeros =
                prop::collection::vec(prop_oneof![0.0..=1.0_f64, Just(0.0), Just(1.0)], groups);
            (
                prop::collection::vec((-1.2..1.2_f64, any::<u8>(), any::<f32>()), count),
                prop::collection::vec(scales.clone(), groups),
                prop::option::weighted(0.05, odd.clone()),
                prop::option::weighted(0.8, zeros),
                prop::sample::select(precisions.to_vec()),
                prop::sample::select(memories.to_vec()),
            )
                .prop_map(move |(x, mut scale, odd, zero_point, precision, memory)| {
                    if let (Some(odd), Some(first)) = (odd, scale.first_mut()) {
                        *first = odd;
                    }
                    Case {
                        shape: shape.clone(),
                        scale_shape: scale_shape.clone(),
                        axis,
                        block_size,
                        x,
                        scale,
                        zero_point,
                        precision,
                        memory,
                    }
                })
        })
}

/// An array with these elements that lies in memory so, and a view of it.
fn laid_out<T: Clone, R>(
    array: &ArrayD<T>,
    memory: Memory,
    f: impl FnOnce(ArrayViewD<'_, T>) -> R,
) -> R {
    match memory {
        _ if array.ndim() == 0 || array.is_empty() => f(array.view()),
        Memory::RowMajor => f(array.view()),
        Memory::Fortran => {
            let transposed = array.t().as_standard_layout().into_owned();
            f(transposed.t())
        }
        Memory::Strided => {
            let last = Axis(array.ndim() - 1);
            let twice: Vec<usize> = (0..2 * array.len_of(last)).map(|i| i / 2).collect();
            let array = array.select(last, &twice);
            f(array.slice_axis(last, Slice::new(0, None, 2)))
        }
        Memory::Reversed => {
            let mut array = array.clone();
            array.invert_axis(Axis(0));
            let mut array = array.as_standard_layout().into_owned();
            array.invert_axis(Axis(0));
            f(array.view())
        }
    }
}

impl Case {
    fn scale<S: Float<Compute = f32>>(&self) -> ArrayD<S> {
        let scale = self.scale.iter().map(|&s| S::narrow(s as f32)).collect();
        Array::from_shape_vec(self.scale_shape.as_slice(), scale).unwrap()
    }

    fn zero_point(&self, (qmin, qmax): (i64, i64)) -> Option<ArrayD<i64>> {
        let in_range = |&z: &f64| qmin + (z * (qmax - qmin) as f64).round() as i64;
        let zeros = self.zero_point.as_ref()?.iter().map(in_range).collect();
        Some(Array::from_shape_vec(self.scale_shape.as_slice(), zeros).unwrap())
    }

    fn group(&self, index: &IxDyn) -> IxDyn {
        group(index, &self.scale_shape, self.axis, self.block_size)
    }

    /// Elements at and beside ties, in and beyond the range, and any others.
    fn x<A: Float<Compute = f32>>(&self, scale: &ArrayD<f64>, codes: QuantizedType) -> ArrayD<A> {
        let (qmin, qmax) = codes.bounds();
        let mut seeds = self.x.iter();
        ArrayD::from_shape_fn(self.shape.as_slice(), |index| {
            let &(steps, kind, any) = seeds.next().unwrap();
            let s = scale[self.group(&index)];
            let steps = (steps * (qmax - qmin) as f64).floor();
            let tie = ((steps + 0.5) * s) as f32;
            A::narrow(match kind % 16 {
                0..5 => tie,
                5..7 => tie.next_up(),
                7..9 => tie.next_down(),
                9..11 => (steps * s) as f32,
                11..13 => ((steps + f64::from(any.fract())) * s) as f32,
                13 => {
                    [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX][usize::from(kind / 64)]
                }
                14 => 65504_f32.copysign(any),
                _ if kind == 255 => f32::NAN,
                _ => any,
            })
        })
    }
}

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

// ------------------------------------------------------------------------------------ bounds, errors

/// Whether S blocks of B cut an axis of D, in the specification's words: B is in
/// [ceil(D/S), ceil(D/(S−1)) − 1].
fn fits(d: usize, s: usize, b: usize) -> bool {
    let least = |s: usize| d.div_ceil(s);
    match s {
        0 => d == 0,
        1 => d > 0 && least(1) <= b,
        _ => least(s) <= b && b + 1 <= least(s - 1),
    }
}

#[test]
fn block_sizes_are_those_of_the_specification() {
    for d in 0..14 {
        let x = Array::from_elem((2, d), 1.0_f32);
        for s in 0..16 {
            let scale = Array::from_elem((2, s), 1.0_f32);
            let sizes = (1..20).filter(|&block_size| {
                let attributes = QuantizeAttributes {
                    block_size,
                    ..Default::default()
                };
                let codes: onnx::Result<Array<u8, _>> =
                    quantize_linear(&x, &scale, None, &attributes);
                match codes {
                    Ok(codes) => {
                        assert!(fits(d, s, block_size), "{s} blocks of {block_size} of {d}");
                        assert_eq!(codes, Array::from_elem((2, d), 1));
                        true
                    }
                    Err(Error::BlockSize { .. }) => {
                        assert!(!fits(d, s, block_size), "{s} blocks of {block_size} of {d}");
                        false
                    }
                    Err(other) => panic!("{other}"),
                }
            });
            let sizes: Vec<usize> = sizes.collect();
            assert!(sizes.is_sorted());
        }
    }
}

#[test]
fn block_size_errors_name_the_sizes_that_fit() {
    let x = Array::from_elem((1, 10), 1.0_f32);
    for (blocks, block_size, expected) in [
        (1, 4, "10 or more"),
        (2, 4, "5..=9"),
        (3, 3, "4..=4"),
        (4, 4, "3..=3"),
        (6, 2, "impossible: no block size gives so many"),
        (0, 3, "impossible: no block size gives so many"),
    ] {
        let scale = Array::from_elem((1, blocks), 1.0_f32);
        let attributes = QuantizeAttributes {
            block_size,
            ..Default::default()
        };
        let codes: onnx::Result<Array<u8, _>> = quantize_linear(&x, &scale, None, &attributes);
        let error = codes.unwrap_err().to_string();
        let whole = format!(
            "block_size is {block_size}, but with {blocks} scales for an axis of length 10 it must \
             be {expected}"
        );
        assert_eq!(error, whole);
    }
}

/// The message of the error.
fn refused<T: std::fmt::Debug>(result: onnx::Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let x = ArrayD::<f32>::zeros(IxDyn(&[3, 4]));
    let quantize = |scale: &[usize], zero_point: &[usize], axis, block_size| {
        let attributes = QuantizeAttributes {
            axis,
            block_size,
            ..Default::default()
        };
        let (scale, zeros) = (
            ArrayD::from_elem(scale, 1.0_f32),
            ArrayD::<i8>::zeros(zero_point),
        );
        refused(quantize_linear(&x, &scale, Some(&*zeros), &attributes))
    };
    let dequantize = |scale: &[usize], zero_point: &[usize], axis, block_size| {
        let attributes = DequantizeAttributes { axis, block_size };
        let (scale, zeros) = (
            ArrayD::from_elem(scale, 1.0_f32),
            ArrayD::<i8>::zeros(zero_point),
        );
        let values: onnx::Result<ArrayD<f32>> = dequantize_linear(
            &ArrayD::<i8>::zeros(x.raw_dim()),
            &scale,
            Some(&*zeros),
            &attributes,
        );
        refused(values)
    };
    let cases: [(&[usize], &[usize], isize, usize, &str); 12] = [
        (
            &[3],
            &[3],
            1,
            0,
            "the scale has shape [3], but a tensor of shape [3, 4] needs a scalar, or [4] along axis 1",
        ),
        (
            &[0],
            &[0],
            0,
            0,
            "the scale has shape [0], but a tensor of shape [3, 4] needs a scalar, or [3] along axis 0",
        ),
        (
            &[3, 4],
            &[3, 4],
            1,
            0,
            "the scale has shape [3, 4], but a tensor of shape [3, 4] needs a scalar, a scale of one axis, or a block_size",
        ),
        (
            &[1, 1],
            &[1, 1],
            1,
            0,
            "the scale has shape [1, 1], but a tensor of shape [3, 4] needs a scalar, a scale of one axis, or a block_size",
        ),
        (
            &[4],
            &[4],
            2,
            0,
            "axis 2 is out of range for a tensor of shape [3, 4], expected -2..=1",
        ),
        (
            &[4],
            &[4],
            isize::MIN,
            0,
            "axis -9223372036854775808 is out of range for a tensor of shape [3, 4], expected -2..=1",
        ),
        (
            &[3, 2],
            &[3, 2],
            -3,
            2,
            "axis -3 is out of range for a tensor of shape [3, 4], expected -2..=1",
        ),
        (
            &[],
            &[],
            1,
            2,
            "the scale has shape [], but a tensor of shape [3, 4] needs [3, 2] in blocks of 2 along axis 1",
        ),
        (
            &[2, 2],
            &[2, 2],
            -1,
            2,
            "the scale has shape [2, 2], but a tensor of shape [3, 4] needs [3, 2] in blocks of 2 along axis 1",
        ),
        (
            &[3, 2],
            &[3, 2],
            1,
            4,
            "block_size is 4, but with 2 scales for an axis of length 4 it must be 2..=3",
        ),
        (
            &[4],
            &[3],
            1,
            0,
            "the zero point has shape [3], expected the scale's, [4]",
        ),
        (
            &[1],
            &[],
            1,
            0,
            "the zero point has shape [], expected the scale's, [1]",
        ),
    ];
    for (scale, zero_point, axis, block_size, message) in cases {
        assert_eq!(quantize(scale, zero_point, axis, block_size), message);
        assert_eq!(dequantize(scale, zero_point, axis, block_size), message);
    }
    let attributes = QuantizeAttributes {
        axis: 0,
        block_size: 1,
        ..Default::default()
    };
    let codes = quantize_linear(
        &arr0(1.0_f32),
        &arr0(1.0_f32),
        Some(&arr0(1_u8)),
        &attributes,
    );
    assert_eq!(
        refused(codes),
        "axis 0 is out of range for a tensor of shape [], expected a tensor of at least one dimension"
    );
    // With a scalar the axis is not used.
    let attributes = QuantizeAttributes {
        axis: 7,
        ..Default::default()
    };
    assert!(quantize_linear(&x, &arr0(1.0_f32), Some(&arr0(1_u8)), &attributes).is_ok());
}

#[test]
fn types_that_do_not_fit_are_refused() {
    let x = array![1.0_f32];
    let quantize = |zero_point: i8, output_dtype, precision| {
        let attributes = QuantizeAttributes {
            output_dtype,
            precision,
            ..Default::default()
        };
        refused(quantize_linear(
            &x,
            &arr0(1.0_f32),
            Some(&arr0(zero_point)),
            &attributes,
        ))
    };
    assert_eq!(
        quantize(0, Some(QuantizedType::Uint4), None),
        "output_dtype is uint4, whose codes are elements of type u8, not i8"
    );
    assert_eq!(
        quantize(0, Some(QuantizedType::Int16), None),
        "output_dtype is int16, whose codes are elements of type i16, not i8"
    );
    assert_eq!(
        quantize(8, Some(QuantizedType::Int4), None),
        "the zero point of group 0 is 8, expected -8..=7 for int4"
    );
    assert_eq!(
        quantize(0, None, Some(FloatType::F64)),
        "precision is f64, expected f32, f16 or bf16"
    );
    let attributes = DequantizeAttributes {
        axis: 0,
        block_size: 0,
    };
    let values: onnx::Result<Array1<f32>> = dequantize_linear(
        &array![1, 2],
        &array![1.0_f32, 1.0],
        Some(&array![0, 5]),
        &attributes,
    );
    assert_eq!(
        refused(values),
        "the zero point of group 1 is 5, expected 0 for int32"
    );
}

#[test]
fn nan_quotients_are_refused_with_their_index() {
    let x = array![[1.0_f32, 0.0], [f32::INFINITY, f32::NAN]];
    let quantize = |scale: f32| {
        let attributes = QuantizeAttributes::default();
        refused(quantize_linear(
            &x,
            &arr0(scale),
            Some(&arr0(1_u8)),
            &attributes,
        ))
    };
    assert_eq!(
        quantize(1.0),
        "cannot quantize NaN: the first of 1 is at index [1, 1]"
    );
    assert_eq!(
        quantize(0.0),
        "cannot quantize NaN: the first of 2 is at index [0, 1]"
    );
    assert_eq!(
        quantize(f32::INFINITY),
        "cannot quantize NaN: the first of 2 is at index [1, 0]"
    );
    assert_eq!(
        quantize(f32::NAN),
        "cannot quantize NaN: the first of 4 is at index [0, 0]"
    );
}

#[test]
fn ranges_that_f32_cannot_divide_are_refused() {
    let least = f32::from_bits(1);
    let run = |x: [f32; 2]| refused(dynamic_quantize_linear(&array![x[0], x[1]]));
    assert_eq!(
        run([3e38, -3e38]),
        "the scale of group 0 is inf, expected a positive finite f32"
    );
    assert_eq!(
        run([least, 0.0]),
        "the scale of group 0 is 0, expected a positive finite f32"
    );
    assert_eq!(
        run([0.0, f32::NEG_INFINITY]),
        "cannot calibrate on NaN or infinity: the first of 1 is -inf at index [1]"
    );
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
