//! Layers that were written to a file compute the bits of those that were made of floats.
#![cfg(feature = "formats")]

use candle_core::{Device, Tensor};
use candle_nn::{Conv1d, Conv2d, Conv2dConfig, Embedding, Linear, Module};
use chopi_candle::{LayerReader, LayerWriter, QuantizedConv, QuantizedEmbedding, QuantizedLinear};
use chopi_core::{Chopi, QParams};
use chopi_matmul::Activations;

fn tensor(shape: &[usize]) -> Tensor {
    let len: usize = shape.iter().product();
    let values = (0..len).map(|i| ((i * 37 + len) as f32 * 0.731).sin());
    Tensor::from_vec(values.collect::<Vec<_>>(), shape, &Device::Cpu).unwrap()
}

fn bits(tensor: &Tensor) -> Vec<u32> {
    let values = tensor.flatten_all().unwrap().to_vec1::<f32>().unwrap();
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

fn activations(input: Option<QParams>) -> Activations {
    input.map_or_else(Activations::default, Activations::Static)
}

#[test]
fn layers_come_back_with_the_same_bits() {
    let folder = tempfile::tempdir().unwrap();
    let linear = Linear::new(tensor(&[6, 16]), Some(tensor(&[6])));
    let grouped = || {
        let builder = Chopi::builder().num_bits(4).per_group(8, 1);
        builder.build().unwrap()
    };
    let strided = Conv2dConfig {
        stride: 2,
        padding: 1,
        ..Conv2dConfig::default()
    };
    let conv1d = Conv1d::new(tensor(&[4, 3, 3]), None, Default::default());
    let conv2d = Conv2d::new(tensor(&[4, 2, 3, 3]), Some(tensor(&[4])), strided);
    let embedding = Embedding::new(tensor(&[7, 5]), 5);

    for (number, calibrated) in [None, Some(input())].into_iter().enumerate() {
        let mut writer = LayerWriter::new();
        let input = || calibrated.clone();
        writer
            .linear("linear", &linear, weights(8), input())
            .unwrap();
        writer
            .linear("grouped", &linear, grouped(), input())
            .unwrap();
        writer
            .conv1d("a.conv1d", &conv1d, weights(8), input())
            .unwrap();
        writer
            .conv2d("a.conv2d", &conv2d, weights(7), input())
            .unwrap();
        writer
            .embedding("embedding", &embedding, weights(8))
            .unwrap();
        writer.tensor("norm", &tensor(&[3])).unwrap();
        let path = folder.path().join(format!("{number}.safetensors"));
        writer.save(&path).unwrap();
        assert!(writer.save(&path).is_err(), "nothing is replaced");

        let reader = LayerReader::open(&path).unwrap();
        let same = |found: &dyn Module, expected: &dyn Module, x: &Tensor| {
            let (found, expected) = (found.forward(x).unwrap(), expected.forward(x).unwrap());
            assert_eq!(found.dims(), expected.dims());
            assert_eq!(bits(&found), bits(&expected));
        };
        let rows = tensor(&[3, 16]);
        let of = |quantizer| {
            QuantizedLinear::from_float(&linear, quantizer, activations(input())).unwrap()
        };
        same(&reader.linear("linear").unwrap(), &of(weights(8)), &rows);
        same(&reader.linear("grouped").unwrap(), &of(grouped()), &rows);
        let expected =
            QuantizedConv::from_conv1d(&conv1d, weights(8), activations(input())).unwrap();
        let found = reader.conv1d("a.conv1d", conv1d.config()).unwrap();
        same(&found, &expected, &tensor(&[2, 3, 9]));
        let expected =
            QuantizedConv::from_conv2d(&conv2d, weights(7), activations(input())).unwrap();
        let found = reader.conv2d("a.conv2d", &strided).unwrap();
        same(&found, &expected, &tensor(&[2, 2, 8, 8]));
        let expected = QuantizedEmbedding::from_table(embedding.embeddings(), weights(8)).unwrap();
        let indices = Tensor::new(&[6_u32, 0, 3], &Device::Cpu).unwrap();
        same(&reader.embedding("embedding").unwrap(), &expected, &indices);
        assert_eq!(bits(&reader.tensor("norm").unwrap()), bits(&tensor(&[3])));

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
    writer.save(&path).unwrap();
    let error = LayerReader::open(&path).unwrap().linear("fc").unwrap_err();
    assert!(
        error.to_string().contains("fc.weight is not quantized"),
        "{error}"
    );
    assert!(LayerReader::open(folder.path().join("absent")).is_err());
    let integers = Tensor::new(&[1_u32], &Device::Cpu).unwrap();
    assert!(writer.tensor("ids", &integers).is_err());
}
