//! Layers of integers compute the bits of ndarray's, made of floats and read from a file.
#![cfg(feature = "matmul")]

use candle_core::{Device, Tensor};
use candle_nn::{Conv1d, Conv2d, Conv2dConfig, Embedding, Linear, Module};
use chopi_candle::{
    QuantizedConv, QuantizedEmbedding, QuantizedLinear, conv1d_params, conv2d_params,
};
use chopi_core::{Chopi, QParams};
use chopi_formats::{LayerReader, LayerWriter};
use chopi_matmul::Activations;
use chopi_ndarray as _;
use ndarray::ArrayD;

fn values(shape: &[usize]) -> Vec<f32> {
    let len: usize = shape.iter().product();
    let values = (0..len).map(|i| ((i * 37 + len) as f32 * 0.731).sin());
    values.collect()
}

fn tensor(shape: &[usize]) -> Tensor {
    Tensor::from_vec(values(shape), shape, &Device::Cpu).unwrap()
}

fn array(shape: &[usize]) -> ArrayD<f32> {
    ArrayD::from_shape_vec(shape, values(shape)).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
    values.into_iter().map(f32::to_bits).collect()
}

fn weights(bits: u32) -> Chopi {
    let builder = Chopi::builder().num_bits(bits).symmetric(true);
    builder.per_channel(0).build().unwrap()
}

fn grouped() -> Chopi {
    let builder = Chopi::builder().num_bits(4).per_group(8, 1);
    builder.build().unwrap()
}

fn input() -> QParams {
    let mut quantizer = Chopi::new(8).unwrap();
    quantizer.calibrate(&tensor(&[50])).unwrap();
    quantizer.into_params().unwrap()
}

const STRIDED: Conv2dConfig = Conv2dConfig {
    stride: 2,
    padding: 1,
    dilation: 1,
    groups: 1,
    cudnn_fwd_algo: None,
};

/// Names, the shapes of weights, and their quantizers; those with more than an output have a bias.
fn layers() -> [(&'static str, Vec<usize>, Chopi); 5] {
    [
        ("linear", vec![6, 16], weights(8)),
        ("grouped", vec![6, 16], grouped()),
        ("a.conv1d", vec![4, 3, 3], weights(8)),
        ("a.conv2d", vec![4, 2, 3, 3], weights(7)),
        ("embedding", vec![7, 5], weights(8)),
    ]
}

fn has_bias(name: &str) -> bool {
    !matches!(name, "a.conv1d" | "embedding")
}

/// A writer of all layers, of tensors of candle or of ndarray.
macro_rules! writer {
    ($make:ident, $input:expr) => {{
        let mut writer = LayerWriter::new();
        for (name, shape, weights) in layers() {
            let bias = has_bias(name).then(|| $make(&shape[..1]));
            let layer = writer.layer(name, &$make(&shape), weights).unwrap();
            let layer = layer.bias(bias.as_ref()).unwrap();
            if let Some(input) = $input {
                layer.input(input);
            }
        }
        writer.tensor("norm", &$make(&[3])).unwrap();
        writer
    }};
}

#[test]
fn layers_have_the_bits_of_ndarray_from_floats_and_from_a_file() {
    let folder = tempfile::tempdir().unwrap();
    for (number, input) in [None, Some(input())].into_iter().enumerate() {
        let path = folder.path().join(format!("{number}.safetensors"));
        let writer = writer!(tensor, input.clone());
        writer.save(&path).unwrap();
        assert!(writer.save(&path).is_err(), "nothing is replaced");
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
                let found = layer.forward(x).unwrap();
                assert_eq!(found.dims(), expected.shape(), "{name}");
                let expected: Vec<u32> = expected.iter().map(|y| y.to_bits()).collect();
                assert_eq!(bits(&found), expected, "{name}");
            }
        };
        for (name, weights) in [("linear", weights(8)), ("grouped", grouped())] {
            let linear = Linear::new(tensor(&[6, 16]), Some(tensor(&[6])));
            let of_floats = QuantizedLinear::from_float(&linear, weights, activations()).unwrap();
            let read = reader.linear(name).unwrap();
            let expected = read.forward(&array(&[3, 16])).unwrap();
            let read = QuantizedLinear::from(read);
            equal(name, [&of_floats, &read], &tensor(&[3, 16]), expected);
        }
        let conv = Conv1d::new(tensor(&[4, 3, 3]), None, Default::default());
        let of_floats = QuantizedConv::from_conv1d(&conv, weights(8), activations()).unwrap();
        let read = reader
            .conv("a.conv1d", conv1d_params(conv.config()))
            .unwrap();
        let expected = read.forward(&array(&[2, 3, 9])).unwrap();
        let read = QuantizedConv::from(read);
        equal("conv1d", [&of_floats, &read], &tensor(&[2, 3, 9]), expected);

        let conv = Conv2d::new(tensor(&[4, 2, 3, 3]), Some(tensor(&[4])), STRIDED);
        let of_floats = QuantizedConv::from_conv2d(&conv, weights(7), activations()).unwrap();
        let read = reader.conv("a.conv2d", conv2d_params(&STRIDED)).unwrap();
        let expected = read.forward(&array(&[2, 2, 8, 8])).unwrap();
        let read = QuantizedConv::from(read);
        equal(
            "conv2d",
            [&of_floats, &read],
            &tensor(&[2, 2, 8, 8]),
            expected,
        );

        let table = Embedding::new(tensor(&[7, 5]), 5);
        let of_floats = QuantizedEmbedding::from_table(table.embeddings(), weights(8)).unwrap();
        let read = reader.embedding("embedding").unwrap();
        let rows = read.rows_of(&[6, 0, 3]).unwrap();
        let expected = ArrayD::from_shape_vec(vec![3, 5], rows).unwrap();
        let read = QuantizedEmbedding::from(read);
        let indices = Tensor::new(&[6_u32, 0, 3], &Device::Cpu).unwrap();
        equal("embedding", [&of_floats, &read], &indices, expected);

        let norm = reader.tensor("norm").unwrap();
        assert_eq!(norm.elements::<f32>().unwrap(), values(&[3]));
        let error = reader.linear("absent").unwrap_err().to_string();
        assert!(error.contains("absent.weight"), "{error}");
    }
}

#[test]
fn what_is_no_quantized_layer_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("floats.safetensors");
    let mut writer = LayerWriter::new();
    writer.tensor("fc.weight", &tensor(&[2, 3])).unwrap();
    writer
        .layer("conv", &tensor(&[4, 2, 3]), weights(8))
        .unwrap();
    writer.save(&path).unwrap();
    let reader = LayerReader::open(&path).unwrap();
    let error = reader.linear("fc").unwrap_err().to_string();
    assert!(error.contains("\"fc.weight\": is not quantized"), "{error}");
    let error = reader.linear("conv").unwrap_err().to_string();
    assert!(
        error.contains("the layer \"conv\": weights of shape [4, 2, 3]"),
        "{error}"
    );
    assert!(LayerReader::open(folder.path().join("absent")).is_err());
    let integers = Tensor::new(&[1_u32], &Device::Cpu).unwrap();
    assert!(writer.tensor("ids", &integers).is_err());
}
