//! Products, layers and ONNX operators.

use chopi::backend::IntSlice;
use chopi::matmul::conv::{ConvParams, QuantizedConv};
use chopi::matmul::emulate::{self, Accumulator, Overflow};
use chopi::matmul::requantize::OutputCodes;
use chopi::matmul::{Activations, IntegerOnlyLinear, QuantizedEmbedding, QuantizedLinear};
use chopi::ndarray::onnx;
use chopi::{Builder, Chopi, QParams, ndarray::IntArray};
use chopi_conformance::{alone, for_each_failure};
use ndarray::{Array, Array1, Array2, Array3, Ix2, arr0};

use crate::array;

fn quantized(builder: Builder, shape: (usize, usize)) -> (IntArray<f32, Ix2>, QParams) {
    let mut quantizer = builder.build().unwrap();
    let codes = quantizer.quantize(&array(shape)).unwrap();
    (codes, quantizer.into_params().unwrap())
}

fn weights() -> Builder {
    Chopi::builder().num_bits(8).symmetric(true)
}

#[test]
fn linear_layers_give_results_or_an_error() {
    let _alone = alone();
    let (outputs, inputs) = (1100, 64);
    let x = array((80, inputs));
    for (name, builder) in [
        ("per channel", weights().per_channel(0)),
        ("in groups", weights().num_bits(4).per_group(8, 1)),
        ("asymmetric", Chopi::builder().per_channel(0)),
    ] {
        let (codes, params) = quantized(builder, (outputs, inputs));
        for_each_failure(name, || {
            QuantizedLinear::new(&codes, &params, Activations::default()).map(|_| ())
        });
        let layer = QuantizedLinear::new(&codes, &params, Activations::default()).unwrap();
        for_each_failure(name, || layer.forward(&x));
        let wide = x.mapv(f64::from);
        for_each_failure(name, || layer.forward(&wide));
    }
}

#[test]
fn layers_of_integers_give_results_or_an_error() {
    let _alone = alone();
    let (outputs, inputs) = (1100, 64);
    let (codes, params) = quantized(weights().per_channel(0), (outputs, inputs));
    let (x, of_x) = quantized(Chopi::builder().num_bits(8), (80, inputs));
    let bias = vec![0.25; outputs];
    let new = || IntegerOnlyLinear::new(&codes, &params, Some(&bias), &of_x, 0.5);
    for_each_failure("integers only", || new().map(|_| ()));
    let layer = new().unwrap();
    for_each_failure("codes", || layer.forward(&x, OutputCodes::new(3_u8)));
    for_each_failure("wide", || layer.forward_wide(&x));
    let few_bits = weights().num_bits(4).per_group(8, 1);
    for (codes, params) in [(codes, params), quantized(few_bits, (outputs, inputs))] {
        for_each_failure("embedding", || {
            QuantizedEmbedding::new(&codes, &params).map(|_| ())
        });
    }
}

#[test]
fn convolutions_give_results_or_an_error() {
    let _alone = alone();
    let w = Array3::from_shape_fn((600, 6, 3), |(i, j, k)| crate::number(i * 18 + j * 3 + k));
    let x = Array3::from_shape_fn((2, 6, 700), |(i, j, k)| {
        crate::number(i * 4200 + j * 700 + k)
    });
    let mut quantizer = weights().per_channel(0).build().unwrap();
    let codes = quantizer.quantize(&w).unwrap();
    let params = quantizer.params().unwrap();
    let new = || QuantizedConv::new(&codes, params, ConvParams::new(1), Activations::default());
    for_each_failure("convolution", || new().map(|_| ()));
    let layer = new().unwrap();
    for_each_failure("convolve", || layer.forward(&x));
}

#[test]
fn emulated_products_are_computed_or_there_is_an_error() {
    let _alone = alone();
    let (a, b) = (vec![3_i16; 70 * 80], vec![-5_i16; 80 * 600]);
    let matrix = |codes, shape| emulate::Matrix {
        codes: IntSlice::I16(codes),
        shape,
        range: (-100, 100),
        zero_points: &[1],
    };
    let bias = vec![7; 600];
    let accumulator = Accumulator::new(24, Overflow::Saturate).unwrap();
    for bias in [None, Some(&bias[..])] {
        for_each_failure("emulated", || {
            let (a, b) = (matrix(&a, (70, 80)), matrix(&b, (80, 600)));
            emulate::matmul(&a, &b, bias, accumulator)
        });
    }
}

/// Integers of any kind.
fn codes<T: TryFrom<i64>>(shape: (usize, usize)) -> Array2<T> {
    Array2::from_shape_fn(shape, |(i, j)| {
        let code = (i * 31 + j * 7) as i64 % 100;
        T::try_from(code).unwrap_or_else(|_| unreachable!())
    })
}

#[test]
fn operators_on_elements_give_results_or_an_error() {
    let _alone = alone();
    let x = array((1200, 32));
    let positive = Array1::from_elem(1200, 0.5_f32);
    let negative = positive.mapv(|s| -s);
    let blocks = Array2::from_elem((1200, 4), -0.5_f32);
    let attributes = |axis, block_size| onnx::QuantizeAttributes {
        axis,
        block_size,
        ..Default::default()
    };
    for scale in [&positive, &negative] {
        let how = attributes(0, 0);
        let quantize = || onnx::quantize_linear::<f32, f32, i8, _, _>(&x, scale, None, &how);
        for_each_failure("QuantizeLinear", quantize);
        let q = quantize().unwrap();
        for_each_failure("DequantizeLinear", || {
            onnx::dequantize_linear::<i8, f32, f32, _, _>(&q, scale, None, &how.groups())
        });
    }
    let how = attributes(1, 8);
    for_each_failure("blocks", || {
        onnx::quantize_linear::<f32, f32, i8, _, _>(&x, &blocks, None, &how)
    });
    for_each_failure("DynamicQuantizeLinear", || {
        onnx::dynamic_quantize_linear(&x)
    });
}

#[test]
fn operators_on_matrices_give_results_or_an_error() {
    let _alone = alone();
    let (a, b) = (codes::<u8>((90, 70)), codes::<i8>((70, 1200)));
    for_each_failure("MatMulInteger", || onnx::matmul_integer(&a, &b, None, None));
    let turned = a.t().to_owned();
    for_each_failure("MatMulInteger, turned", || {
        onnx::matmul_integer(&turned.t(), &b, None, None)
    });
    let one = (arr0(0.5_f32).into_dyn(), arr0(3_u8).into_dyn());
    let each = (
        Array1::from_elem(1200, 0.25_f32).into_dyn(),
        Array1::from_elem(1200, 1_i8).into_dyn(),
    );
    for_each_failure("QLinearMatMul", || {
        let a = onnx::Quantized {
            codes: &*a,
            scale: &*one.0,
            zero_point: &*one.1,
        };
        let b = onnx::Quantized {
            codes: &*b,
            scale: &*each.0,
            zero_point: &*each.1,
        };
        onnx::qlinear_matmul(&a, &b, 100.0, 5_u8)
    });
}

#[test]
fn operators_of_convolution_give_results_or_an_error() {
    let _alone = alone();
    let x = Array::from_shape_fn((2, 6, 700), |(i, j, k)| ((i + j * 3 + k * 7) % 200) as u8);
    let w = Array::from_shape_fn((600, 6, 3), |(i, j, k)| ((i + j * 3 + k * 7) % 90) as i8);
    let how = onnx::ConvAttributes::default();
    for_each_failure("ConvInteger", || {
        onnx::conv_integer(&x, &w, Some(3), None, &how)
    });
    let of_x = (arr0(0.5_f32).into_dyn(), arr0(3_u8).into_dyn());
    let of_w = (
        Array1::from_elem(600, 0.25_f32).into_dyn(),
        Array1::from_elem(600, 1_i8).into_dyn(),
    );
    let bias = Array1::from_elem(600, 12);
    for_each_failure("QLinearConv", || {
        let x = onnx::Quantized {
            codes: &*x,
            scale: &*of_x.0,
            zero_point: &*of_x.1,
        };
        let w = onnx::Quantized {
            codes: &*w,
            scale: &*of_w.0,
            zero_point: &*of_w.1,
        };
        onnx::qlinear_conv(&x, &w, 100.0, 5_u8, Some(&bias), &how)
    });
}
