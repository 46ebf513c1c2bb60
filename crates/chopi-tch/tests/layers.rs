//! Layers of integers compute the bits of ndarray's, made of floats and read from a file.
#![cfg(feature = "matmul")]

use chopi_core::training::{FakeQuantizer, QatConfig, Quantizers, RangeObserver};
use chopi_core::{Chopi, QParams};
use chopi_formats::{LayerReader, LayerWriter};
use chopi_matmul::Activations;
use chopi_ndarray as _;
use chopi_tch::nn::{Convolution, QatLinear};
use chopi_tch::{QuantizedConv, QuantizedEmbedding, QuantizedLinear, conv_params};
use ndarray::ArrayD;
use tch::nn::{self, ConvConfigND, Module, ModuleT, PaddingMode, VarStore};
use tch::{Device, Kind, Tensor, no_grad};

fn values(shape: &[usize]) -> Vec<f32> {
    let len: usize = shape.iter().product();
    let values = (0..len).map(|i| ((i * 37 + len) as f32 * 0.731).sin());
    values.collect()
}

fn tensor(shape: &[usize]) -> Tensor {
    let lengths: Vec<i64> = shape.iter().map(|&length| length as i64).collect();
    Tensor::from_slice(&values(shape)).reshape(lengths)
}

fn array(shape: &[usize]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(shape, values(shape)).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = Vec::<f32>::try_from(tensor.contiguous().view(-1)).unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

fn weights(bits: u32) -> Chopi {
    let builder = Chopi::builder().num_bits(bits).symmetric(true);
    builder.per_channel(0).build().unwrap()
}

fn input() -> QParams {
    let mut quantizer = Chopi::new(8).unwrap();
    quantizer.calibrate(&tensor(&[50])).unwrap();
    quantizer.into_params().unwrap()
}

/// Sets the variables of a network to the values that tests have.
fn set(variables: &VarStore) {
    for (_, mut variable) in variables.variables() {
        let shape: Vec<usize> = variable.size().iter().map(|&n| n as usize).collect();
        no_grad(|| variable.copy_(&tensor(&shape)));
    }
}

fn conv2d(root: &nn::Path<'_>, padding_mode: PaddingMode) -> Convolution<[i64; 2]> {
    let config = ConvConfigND::<[i64; 2]> {
        stride: [2, 1],
        padding: [1, 0],
        padding_mode,
        ..ConvConfigND::default()
    };
    Convolution::new(nn::conv(root / "conv2d", 2, 4, [3, 3], config), config)
}

/// A writer of all layers, of tensors of tch or of ndarray.
macro_rules! writer {
    ($make:ident, $input:expr) => {{
        let mut writer = LayerWriter::new();
        for (name, shape, bits) in [
            ("linear", vec![6, 16], 8),
            ("conv2d", vec![4, 2, 3, 3], 7),
            ("embedding", vec![7, 5], 8),
        ] {
            let bias = (name != "embedding").then(|| $make(&shape[..1]));
            let layer = writer.layer(name, &$make(&shape), weights(bits)).unwrap();
            let layer = layer.bias(bias.as_ref()).unwrap();
            if let Some(input) = $input {
                layer.input(input);
            }
        }
        writer
    }};
}

#[test]
fn layers_have_the_bits_of_ndarray_from_floats_and_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let variables = VarStore::new(Device::Cpu);
    let root = variables.root();
    let linear = nn::linear(&root / "linear", 16, 6, Default::default());
    let conv = conv2d(&root, PaddingMode::Zeros);
    let table = nn::embedding(&root / "embedding", 7, 5, Default::default());
    set(&variables);
    for (number, input) in [None, Some(input())].into_iter().enumerate() {
        let path = folder.path().join(format!("{number}.safetensors"));
        writer!(tensor, input.clone()).save(&path).unwrap();
        let other = folder.path().join(format!("ndarray-{number}.safetensors"));
        writer!(array, input.clone()).save(&other).unwrap();
        let files = [&path, &other].map(|path| std::fs::read(path).unwrap());
        assert_eq!(files[0], files[1]);

        let reader = LayerReader::open(&path).unwrap();
        let activations = || {
            input
                .clone()
                .map_or_else(Default::default, Activations::Static)
        };
        let equal = |name: &str, found: [&dyn Module; 2], x: &Tensor, expected: ArrayD<f32>| {
            for layer in found {
                let found = layer.forward(x);
                let shape: Vec<usize> = found.size().iter().map(|&n| n as usize).collect();
                assert_eq!(shape, expected.shape(), "{name}");
                let expected: Vec<u32> = expected.iter().map(|y| y.to_bits()).collect();
                assert_eq!(bits(&found), expected, "{name}");
                assert!(!found.requires_grad());
            }
        };
        let of_floats = QuantizedLinear::from_float(&linear, weights(8), activations()).unwrap();
        let read = reader.linear("linear").unwrap();
        let expected = read.forward(&array(&[3, 16])).unwrap();
        let read = QuantizedLinear::from(read);
        equal("linear", [&of_floats, &read], &tensor(&[3, 16]), expected);

        let of_floats = QuantizedConv::from_float(&conv, weights(7), activations()).unwrap();
        let params = conv_params(conv.config()).unwrap();
        let read = reader.conv("conv2d", params).unwrap();
        let expected = read.forward(&array(&[2, 2, 8, 8])).unwrap();
        let read = QuantizedConv::from(read);
        equal(
            "conv2d",
            [&of_floats, &read],
            &tensor(&[2, 2, 8, 8]),
            expected,
        );

        let of_floats = QuantizedEmbedding::from_table(&table.ws, weights(8)).unwrap();
        let read = reader.embedding("embedding").unwrap();
        let rows = read.rows_of(&[6, 0, 3, 3]).unwrap();
        let expected = ArrayD::from_shape_vec(vec![2, 2, 5], rows).unwrap();
        let read = QuantizedEmbedding::from(read);
        let indices = Tensor::from_slice(&[6_i64, 0, 3, 3]).reshape([2, 2]);
        equal("embedding", [&of_floats, &read], &indices, expected);
    }
}

#[test]
fn a_trained_layer_becomes_one_of_integers() {
    let (variables, quantizers) = (VarStore::new(Device::Cpu), Quantizers::new());
    let config = QatConfig::new()
        .weights(FakeQuantizer::new(weights(8)).observer(RangeObserver::Latest))
        .activations(FakeQuantizer::new(Chopi::new(8).unwrap()));
    let path = variables.root() / "fc";
    let layer = QatLinear::new(16, 6, &config, &path, &quantizers).unwrap();
    set(&variables);
    let x = tensor(&[3, 16]);
    let _ = layer.forward_t(&x, true);
    let integers = QuantizedLinear::from_converted(&layer.convert().unwrap()).unwrap();
    let difference = integers.forward(&x) - layer.forward_t(&x, false);
    assert!(difference.abs().max().double_value(&[]) < 1e-5);
    let positive = integers.with_clamp(0.0, f32::INFINITY);
    assert_eq!(positive.forward(&x).min().double_value(&[]), 0.0);
}

#[test]
fn what_the_layers_do_not_take_is_refused() {
    let root = VarStore::new(Device::Cpu);
    let conv = conv2d(&root.root(), PaddingMode::Reflect);
    let error = QuantizedConv::from_float(&conv, weights(8), Activations::default()).unwrap_err();
    let text = format!("{error} {error:?}");
    assert!(
        text.contains("the padding mode is Reflect, expected Zeros"),
        "{text}"
    );
    let negative = ConvConfigND::<[i64; 2]> {
        padding: [1, -1],
        ..ConvConfigND::default()
    };
    let text = format!("{:?}", conv_params(&negative).unwrap_err());
    assert!(text.contains("the padding is -1"), "{text}");

    let table = QuantizedEmbedding::from_table(&tensor(&[7, 5]), weights(8)).unwrap();
    for (row, text) in [
        (7_i64, "row 7 of a table of 7 rows"),
        (-1, "row -1 of a table of 7 rows"),
    ] {
        let error = table.f_forward(&Tensor::from_slice(&[row])).unwrap_err();
        assert_eq!(error.to_string(), text);
    }
    let error = table.f_forward(&tensor(&[2])).unwrap_err().to_string();
    assert!(error.contains("Float"), "{error}");
    let linear = nn::linear(root.root() / "fc", 4, 2, Default::default());
    let layer = QuantizedLinear::from_float(&linear, weights(8), Activations::default()).unwrap();
    let error = layer.f_forward(&tensor(&[2, 3])).unwrap_err().to_string();
    assert!(
        error.contains("the input has shape [2, 3], expected [..., 4]"),
        "{error}"
    );
    let nan = Tensor::full([1, 4], f64::NAN, (Kind::Float, Device::Cpu));
    assert!(
        layer
            .f_forward(&nan)
            .unwrap_err()
            .to_string()
            .contains("NaN")
    );
}
