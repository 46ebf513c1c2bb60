//! What does not fit is refused, with the numbers that explain it.

use chopi_core::backend::FloatType;
use chopi_ndarray::onnx::{
    self, DequantizeAttributes, Error, QuantizeAttributes, QuantizedType, dequantize_linear,
    dynamic_quantize_linear, quantize_linear,
};
use ndarray::{Array, Array1, ArrayD, IxDyn, arr0, array};

/// Whether S blocks of B cut an axis of D, in the specification's words: B is in
/// [ceil(D/S), ceil(D/(S−1)) − 1].
fn fits(d: usize, s: usize, b: usize) -> bool {
    let least = |s: usize| d.div_ceil(s);
    match s {
        0 => d == 0,
        1 => d > 0 && least(1) <= b,
        _ => (least(s)..=least(s - 1).saturating_sub(1)).contains(&b),
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
    let both = |scale: &[usize], zero_point: &[usize], axis, block_size, message: &str| {
        assert_eq!(quantize(scale, zero_point, axis, block_size), message);
        assert_eq!(dequantize(scale, zero_point, axis, block_size), message);
    };
    let scale = |scale: &[usize], axis, block_size, needed: &str| {
        let begin = format!("the scale has shape {scale:?}, but a tensor of shape [3, 4] needs ");
        both(scale, scale, axis, block_size, &(begin + needed));
    };
    scale(&[3], 1, 0, "a scalar, or [4] along axis 1");
    scale(&[0], -2, 0, "a scalar, or [3] along axis 0");
    let no_blocks = "a scalar, a scale of one axis, or a block_size";
    scale(&[3, 4], 1, 0, no_blocks);
    scale(&[1, 1], 1, 0, no_blocks);
    scale(&[], 1, 2, "[3, 2] in blocks of 2 along axis 1");
    scale(&[1], 0, 3, "[1, 4] in blocks of 3 along axis 0");
    scale(&[2, 2], -1, 2, "[3, 2] in blocks of 2 along axis 1");
    let axis = |scale: &[usize], axis, block_size| {
        let message =
            format!("axis {axis} is out of range for a tensor of shape [3, 4], expected -2..=1");
        both(scale, scale, axis, block_size, &message);
    };
    axis(&[4], 2, 0);
    axis(&[4], isize::MIN, 0);
    axis(&[3, 2], -3, 2);
    let block_size = "block_size is 4, but with 2 scales for an axis of length 4 it must be 2..=3";
    both(&[3, 2], &[3, 2], 1, 4, block_size);
    let scales = "the zero point has shape [3], expected the scale's, [4]";
    both(&[4], &[3], 1, 0, scales);
    let scales = "the zero point has shape [], expected the scale's, [1]";
    both(&[1], &[], 1, 0, scales);
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
