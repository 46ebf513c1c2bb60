//! A model of candle that gets quantized weights without knowing.

use std::collections::HashMap;

use candle_core::{DType, Device, Result, Tensor};
use candle_nn::{Embedding, Linear, Module, VarBuilder, VarMap};
use chopi_candle::quantized_var_builder;
use chopi_core::model::WeightQuantizer;
use chopi_core::{Calibration, Chopi};

/// A small text classifier, written as any model of candle is.
struct Classifier {
    embedding: Embedding,
    hidden: Linear,
    classifier: Linear,
}

impl Classifier {
    fn load(vb: VarBuilder<'_>) -> Result<Self> {
        Ok(Self {
            embedding: candle_nn::embedding(10, 16, vb.pp("embedding"))?,
            hidden: candle_nn::linear(16, 12, vb.pp("encoder").pp("hidden"))?,
            classifier: candle_nn::linear_no_bias(12, 3, vb.pp("classifier"))?,
        })
    }

    fn forward(&self, ids: &Tensor) -> Result<Tensor> {
        let x = self.embedding.forward(ids)?.mean(1)?;
        self.classifier.forward(&self.hidden.forward(&x)?.relu()?)
    }
}

fn tensors(dtype: DType) -> HashMap<String, Tensor> {
    let tensor = |name: &str, shape: &[usize]| {
        let count: usize = shape.iter().product();
        let value = |i: usize| ((i * 37 + name.len() * 11) % 101) as f32 / 50.0 - 1.0;
        let values: Vec<f32> = (0..count).map(value).collect();
        let tensor = Tensor::from_vec(values, shape, &Device::Cpu).unwrap();
        (name.to_owned(), tensor.to_dtype(dtype).unwrap())
    };
    HashMap::from([
        tensor("embedding.weight", &[10, 16]),
        tensor("encoder.hidden.weight", &[12, 16]),
        tensor("encoder.hidden.bias", &[12]),
        tensor("classifier.weight", &[3, 12]),
    ])
}

fn weights() -> WeightQuantizer {
    let scheme = Chopi::builder().num_bits(3).symmetric(true).per_channel(0);
    WeightQuantizer::new(scheme, Calibration::MinMax).unwrap()
}

fn logits(vb: VarBuilder<'_>) -> Vec<Vec<f32>> {
    let ids = Tensor::new(&[[1_u32, 4, 7], [2, 2, 9]], &Device::Cpu).unwrap();
    let logits = Classifier::load(vb).unwrap().forward(&ids).unwrap();
    logits.to_dtype(DType::F32).unwrap().to_vec2().unwrap()
}

#[test]
fn its_output_is_that_of_weights_quantized_by_hand() {
    for (stored, asked) in [
        (DType::F32, DType::F32),
        (DType::F16, DType::F32),
        (DType::F32, DType::F16),
    ] {
        let weights = weights();
        let tensors = tensors(stored);
        let vb = VarBuilder::from_tensors(tensors.clone(), asked, &Device::Cpu);
        let plain = logits(vb.clone());
        let quantized = logits(quantized_var_builder(vb, &weights));
        assert_ne!(quantized, plain);

        let mut by_hand = tensors;
        let mut chopi = Chopi::builder()
            .num_bits(3)
            .symmetric(true)
            .per_channel(0)
            .build()
            .unwrap();
        let hidden = by_hand["encoder.hidden.weight"].to_dtype(asked).unwrap();
        by_hand.insert(
            "encoder.hidden.weight".to_owned(),
            chopi.fake_quantize(&hidden).unwrap(),
        );
        let vb = VarBuilder::from_tensors(by_hand, asked, &Device::Cpu);
        assert_eq!(quantized, logits(vb));

        let done = weights.quantized();
        // The head and the embedding are left alone by default.
        assert_eq!(done.keys().collect::<Vec<_>>(), ["encoder.hidden.weight"]);
        assert_eq!(Some(&done["encoder.hidden.weight"].params), chopi.params());
    }
}

#[test]
fn names_are_those_under_the_builder_that_is_given() {
    let weights = weights().select(|name, _| name == "hidden.weight");
    let vb = VarBuilder::from_tensors(tensors(DType::F32), DType::F32, &Device::Cpu);
    let vb = quantized_var_builder(vb.pp("encoder"), &weights);
    assert!(vb.contains_tensor("hidden.weight") && !vb.contains_tensor("classifier.weight"));
    candle_nn::linear(16, 12, vb.pp("hidden")).unwrap();
    let unchecked = vb.get_unchecked("hidden.weight").unwrap();
    let checked = vb.get((12, 16), "hidden.weight").unwrap();
    assert_eq!(
        unchecked.to_vec2::<f32>().unwrap(),
        checked.to_vec2::<f32>().unwrap()
    );
    assert_eq!(weights.quantized().len(), 1);
}

#[test]
fn integers_pass_whatever_is_selected() {
    let ids = Tensor::new(&[[1_u32, 2]], &Device::Cpu).unwrap();
    let tensors = HashMap::from([("ids".to_owned(), ids)]);
    let vb = VarBuilder::from_tensors(tensors, DType::U32, &Device::Cpu);
    let weights = weights().select(|_, _| true);
    let vb = quantized_var_builder(vb, &weights);
    let ids = vb.get((1, 2), "ids").unwrap();
    assert_eq!(ids.to_vec2::<u32>().unwrap(), [[1, 2]]);
    assert!(weights.quantized().is_empty());
}

#[test]
fn variables_in_training_are_not_touched() {
    let variables = VarMap::new();
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let layer = candle_nn::linear_no_bias(16, 12, vb.pp("hidden")).unwrap();
    let before = layer.weight().to_vec2::<f32>().unwrap();
    let quantized = quantized_var_builder(vb, &weights());
    let quantized = candle_nn::linear_no_bias(16, 12, quantized.pp("hidden")).unwrap();
    assert_ne!(quantized.weight().to_vec2::<f32>().unwrap(), before);
    assert_eq!(layer.weight().to_vec2::<f32>().unwrap(), before);
    assert!(!quantized.weight().is_variable());
}

#[test]
fn what_is_wrong_comes_out_with_the_name() {
    let vb = VarBuilder::from_tensors(tensors(DType::F32), DType::F32, &Device::Cpu);
    let quantized = quantized_var_builder(vb, &weights());
    let error = quantized
        .get((12, 17), "encoder.hidden.weight")
        .unwrap_err();
    assert!(error.to_string().contains("shape mismatch"), "{error}");
    let bad = Tensor::new(&[[f32::NAN]], &Device::Cpu).unwrap();
    let tensors = HashMap::from([("hidden.weight".to_owned(), bad)]);
    let vb = VarBuilder::from_tensors(tensors, DType::F32, &Device::Cpu);
    let quantized = quantized_var_builder(vb, &weights());
    let error = quantized.get((1, 1), "hidden.weight").unwrap_err();
    assert!(error.to_string().contains("\"hidden.weight\""), "{error}");
}
