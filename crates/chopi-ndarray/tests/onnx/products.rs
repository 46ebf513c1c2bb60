//! The operators that multiply, against their definitions, on arrays that lie in memory in any way; and
//! what they refuse.

use chopi_ndarray::onnx::{
    self, AutoPad, ConvAttributes, Error, Quantized, conv_integer, matmul_integer, qlinear_conv,
    qlinear_matmul,
};
use ndarray::{Array, Array3, ArrayD, Dimension, IxDyn, arr0, array};
use proptest::prelude::*;

use crate::case::{Memory, laid_out};

fn tensor(shape: &[usize]) -> impl Strategy<Value = ArrayD<u8>> + use<> {
    let shape = shape.to_vec();
    prop::collection::vec(any::<u8>(), shape.iter().product::<usize>())
        .prop_map(move |bytes| ArrayD::from_shape_vec(shape.as_slice(), bytes).unwrap())
}

fn memories() -> impl Strategy<Value = Memory> {
    prop::sample::select(vec![
        Memory::RowMajor,
        Memory::Fortran,
        Memory::Strided,
        Memory::Reversed,
    ])
}

/// Two operands and parameters of theirs, as `numpy.matmul` takes them.
fn products() -> impl Strategy<Value = [ArrayD<u8>; 4]> {
    let axes = prop::collection::vec((1..4_usize, 0..4_u8), 0..=2);
    (axes, 0..5_usize, 0..6_usize, 0..5_usize, any::<[u8; 4]>()).prop_flat_map(
        |(batch, m, k, n, [a_rank, b_rank, a_each, b_each])| {
            let batch_of = |side: u8, rank: u8| {
                // A batch axis is 1 on one side, or there on both; leading ones may lack.
                let lengths = batch
                    .iter()
                    .map(move |&(n, kind)| if kind == side { 1 } else { n });
                let lengths: Vec<usize> = lengths.collect();
                lengths[usize::from(rank) % (lengths.len() + 1)..].to_vec()
            };
            let mut a = [batch_of(0, a_rank), vec![m, k]].concat();
            let mut b = [batch_of(1, b_rank), vec![k, n]].concat();
            if a_rank > 230 {
                a = vec![k];
            }
            if b_rank > 230 {
                b = vec![k];
            }
            let each = |operand: &[usize], depth_from_end: usize, kind: u8| {
                let rank = operand.len();
                match kind % 4 {
                    0 => vec![],
                    1 => vec![1],
                    2 if rank == 2 => vec![operand[2 - depth_from_end % 2 - 1]],
                    _ if rank < 2 => vec![],
                    _ => {
                        let mut each = operand.to_vec();
                        each[rank - depth_from_end] = 1;
                        each
                    }
                }
            };
            let (a_each, b_each) = (each(&a, 1, a_each), each(&b, 2, b_each));
            (tensor(&a), tensor(&b), tensor(&a_each), tensor(&b_each))
                .prop_map(|(a, b, c, d)| [a, b, c, d])
        },
    )
}

/// The element of an operand, or of its parameters, for an index of the operand.
fn at(array: &ArrayD<u8>, index: &[usize], line: usize) -> i64 {
    let index: Vec<usize> = match array.ndim() {
        1 if index.len() == 2 && array.len() > 1 => vec![index[line]],
        _ => {
            let skipped = index.len().saturating_sub(array.ndim());
            let index = index[skipped..].iter().zip(array.shape());
            index.map(|(&i, &n)| if n == 1 { 0 } else { i }).collect()
        }
    };
    array[IxDyn(&index)].into()
}

/// MatMulInteger, one sum after the other.
fn definition([a, b, a_zero, b_zero]: &[ArrayD<u8>; 4]) -> ArrayD<i32> {
    let matrix = |shape: &[usize], column| match *shape {
        [k] if column => vec![k, 1],
        [k] => vec![1, k],
        _ => shape.to_vec(),
    };
    let (left, right) = (matrix(a.shape(), false), matrix(b.shape(), true));
    let reshape = |array: &ArrayD<u8>, shape: &[usize]| array.to_shape(shape).unwrap().to_owned();
    let (a2, b2) = (reshape(a, &left), reshape(b, &right));
    let rank = left.len().max(right.len());
    let (m, k, n) = (
        left[left.len() - 2],
        left[left.len() - 1],
        right[right.len() - 1],
    );
    let length = |shape: &[usize], axis: usize| {
        (axis + shape.len())
            .checked_sub(rank)
            .map_or(1, |axis| shape[axis])
    };
    let batch = (0..rank - 2).map(|axis| match length(&left, axis) {
        1 => length(&right, axis),
        n => n,
    });
    let shape: Vec<usize> = batch.chain([m, n]).collect();
    let y = ArrayD::from_shape_fn(shape.as_slice(), |index| {
        let index = index.slice();
        let with = |shape: &[usize], i, j| {
            let skipped = rank - shape.len();
            let batch = index[skipped..rank - 2].iter().zip(shape);
            let batch = batch.map(|(&i, &n)| if n == 1 { 0 } else { i });
            batch.chain([i, j]).collect::<Vec<usize>>()
        };
        let (i, j) = (index[rank - 2], index[rank - 1]);
        let product = |t| {
            let (a_at, b_at) = (with(&left, i, t), with(&right, t, j));
            (at(&a2, &a_at, 0) - at(a_zero, &a_at, 0)) * (at(&b2, &b_at, 1) - at(b_zero, &b_at, 1))
        };
        (0..k).map(product).sum::<i64>() as i32
    });
    let rows = (a.ndim() > 1).then_some(m);
    let columns = (b.ndim() > 1).then_some(n);
    let batch = shape[..rank - 2].iter().copied();
    let shape: Vec<usize> = batch.chain(rows).chain(columns).collect();
    y.into_shape_with_order(shape).unwrap()
}

proptest! {
    #[test]
    fn products_are_those_of_the_definition_in_any_memory_order(
        inputs in products(), left in memories(), right in memories(),
    ) {
        let [a, b, a_zero, b_zero] = &inputs;
        let y = laid_out(a, left, |a| {
            laid_out(b, right, |b| matmul_integer(&a, &b, Some(a_zero), Some(b_zero)))
        });
        prop_assert_eq!(y.unwrap(), definition(&inputs));
    }

    #[test]
    fn requantized_products_are_requantized_sums(
        inputs in products(), scales in prop::collection::vec(-4.0..4.0_f32, 3), zero_point: i8,
    ) {
        let [a, b, a_zero, b_zero] = &inputs;
        let scale = |zeros: &ArrayD<u8>, base: f32| {
            let mut number = 0.0;
            zeros.map(|_| {
                number += 1.0;
                (base / number).exp2()
            })
        };
        let (a_scale, b_scale) = (scale(a_zero, scales[0]), scale(b_zero, scales[1]));
        let y_scale = (scales[2] + 10.0).exp2();
        let left = Quantized { codes: &**a, scale: &*a_scale, zero_point: &**a_zero };
        let right = Quantized { codes: &**b, scale: &*b_scale, zero_point: &**b_zero };
        let y = qlinear_matmul(&left, &right, y_scale, zero_point).unwrap();
        let sums = definition(&inputs);
        prop_assert_eq!(y.shape(), sums.shape());
        if a_scale.len() == 1 && b_scale.len() == 1 {
            let m = a_scale.first().unwrap() * b_scale.first().unwrap() / y_scale;
            let expected = sums.mapv(|sum| {
                let scaled = (sum as f32 * m).round_ties_even() + f32::from(zero_point);
                scaled.clamp(-128.0, 127.0) as i8
            });
            prop_assert_eq!(y, expected);
        }
    }

    #[test]
    fn same_padding_gives_the_length_of_the_input_over_the_stride(
        d in 1..12_usize, k in 1..5_usize, stride in 1..5_usize, dilation in 1..3_usize,
    ) {
        let x = Array3::<u8>::ones((1, 1, d));
        let w = Array3::<i8>::ones((1, 1, k));
        let run = |auto_pad| {
            let (strides, dilations) = (vec![stride], vec![dilation]);
            let attributes = ConvAttributes { auto_pad, strides, dilations, ..Default::default() };
            conv_integer(&x, &w, None, None, &attributes).unwrap()
        };
        let (upper, lower) = (run(AutoPad::SameUpper), run(AutoPad::SameLower));
        prop_assert_eq!(upper.len(), d.div_ceil(stride));
        // One is the other of the mirrored input where the kernel stops at both ends.
        if (d - 1) % stride == 0 {
            let mut mirrored = lower.clone();
            mirrored.invert_axis(ndarray::Axis(2));
            prop_assert_eq!(upper, mirrored);
        }
    }
}

#[test]
fn each_row_and_column_has_its_scale() {
    let (a, b) = (array![[10_u8, 20], [30, 40]], array![[1_i8, 2], [3, 4]]);
    let (a_scale, b_scale) = (
        array![[1.0_f32], [0.5]].into_dyn(),
        array![1.0_f32, 0.25].into_dyn(),
    );
    let (a_zero, b_zero) = (array![[0_u8], [10]].into_dyn(), array![0_i8, 1].into_dyn());
    let left = Quantized {
        codes: &*a,
        scale: &*a_scale,
        zero_point: &*a_zero,
    };
    let right = Quantized {
        codes: &*b,
        scale: &*b_scale,
        zero_point: &*b_zero,
    };
    // The sums are [[70, 70], [110, 110]].
    let y = qlinear_matmul(&left, &right, 1.0, 0_u8).unwrap();
    assert_eq!(y, array![[70, 18], [55, 14]].into_dyn());
}

/// The message of the error.
fn refused<T: std::fmt::Debug>(result: onnx::Result<T>) -> String {
    result.unwrap_err().to_string()
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    let zeros = |shape: &[usize]| ArrayD::<u8>::zeros(shape);
    let product =
        |a: &[usize], b: &[usize]| refused(matmul_integer(&zeros(a), &zeros(b), None, None));
    assert_eq!(
        product(&[2, 3], &[2, 3]),
        "a has shape [2, 3] and b has shape [2, 3]: the rows of the one are not as long as the columns \
         of the other"
    );
    assert!(product(&[], &[2, 3]).ends_with("both need at least one axis"));
    assert!(product(&[2, 1, 3], &[3, 3, 1]).ends_with("cannot be broadcast"));
    let parameters = |zero: &[usize]| {
        refused(matmul_integer(
            &zeros(&[2, 4, 3]),
            &zeros(&[3]),
            Some(&zeros(zero)),
            None,
        ))
    };
    let expected = "but an operand of shape [2, 4, 3] needs a scalar or [2, 4, 1]";
    assert_eq!(
        parameters(&[4]),
        format!("a_zero_point has shape [4], {expected}")
    );
    let vector = refused(matmul_integer(
        &zeros(&[2, 3]),
        &zeros(&[3, 4]),
        None,
        Some(&zeros(&[3])),
    ));
    assert_eq!(
        vector,
        "b_zero_point has shape [3], but an operand of shape [3, 4] needs a scalar, [4] or [1, 4]"
    );
}

#[test]
fn sums_that_might_not_fit_are_refused() {
    let (a, b) = (
        ArrayD::from_elem(vec![1, 40_000], 255_u8),
        ArrayD::from_elem(vec![40_000, 1], 255_u8),
    );
    assert!(matches!(
        matmul_integer(&a, &b, None, None),
        Err(Error::Product(chopi_matmul::Error::Overflow { .. }))
    ));
}

#[test]
fn attributes_that_do_not_fit_are_refused() {
    let (x, w) = (
        Array::zeros((1, 2, 5, 5)),
        Array::<i8, _>::zeros((3, 2, 3, 3)),
    );
    let run = |attributes: ConvAttributes| {
        let x: Array<u8, _> = x.clone();
        refused(conv_integer(&x, &w, None, None, &attributes))
    };
    let none = ConvAttributes::default;
    assert_eq!(
        run(ConvAttributes {
            kernel_shape: vec![3, 2],
            ..none()
        }),
        "kernel_shape is [3, 2], expected that of the weights, [3, 3]"
    );
    assert_eq!(
        run(ConvAttributes {
            pads: vec![1, 1],
            ..none()
        }),
        "pads is [1, 1], expected two for each of 2 spatial axes"
    );
    assert_eq!(
        run(ConvAttributes {
            pads: vec![0; 4],
            auto_pad: AutoPad::Valid,
            ..none()
        }),
        "pads is [0, 0, 0, 0], expected none together with auto_pad"
    );
    assert_eq!(
        run(ConvAttributes {
            strides: vec![1],
            ..none()
        }),
        "strides is [1], expected one for each of 2 spatial axes"
    );
    let groups = run(ConvAttributes { group: 2, ..none() });
    assert!(
        groups.ends_with("2 groups do not divide 3 output channels"),
        "{groups}"
    );
    assert!(
        run(ConvAttributes {
            strides: vec![0, 1],
            ..none()
        })
        .contains("the stride is 0")
    );
    let flat = Array::<u8, _>::zeros((5, 5));
    assert!(conv_integer(&flat, &flat, None, None, &none()).is_err());
    let x = Array::<u8, _>::zeros((1, 2, 5, 5));
    let per_row = arr0(0_i8).into_dyn().broadcast(vec![2]).unwrap().to_owned();
    assert_eq!(
        refused(conv_integer(&x, &w, None, Some(&per_row), &none())),
        "w_zero_point has shape [2], but an operand of shape [3, 2, 3, 3] needs a scalar or [3]"
    );
    let (scales, zeros) = (array![1.0_f32, 1.0].into_dyn(), array![0_u8, 0].into_dyn());
    let (one, zero) = (arr0(1.0_f32).into_dyn(), arr0(0_i8).into_dyn());
    let x = Quantized {
        codes: &*x,
        scale: &*scales,
        zero_point: &*zeros,
    };
    let w = Quantized {
        codes: &*w,
        scale: &*one,
        zero_point: &*zero,
    };
    assert_eq!(
        refused(qlinear_conv(&x, &w, 1.0, 0_u8, None, &none())),
        "x_scale has shape [2], but an operand of shape [1, 2, 5, 5] needs a scalar"
    );
}
