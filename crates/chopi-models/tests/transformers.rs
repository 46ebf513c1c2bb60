//! Small models with random weights say what transformers says; `cargo xtask check-models --write` makes them.

use std::path::{Path, PathBuf};

use candle_core::{Device, Tensor};
use chopi_models::{Decoder, Network, load};

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

/// The tokens, and what transformers' model says of each: [tokens, width].
fn vectors(name: &str) -> (Vec<u32>, Tensor) {
    let file = folder(name).join("vectors.st");
    let tensors = candle_core::safetensors::load(file, &Device::Cpu).unwrap();
    (
        tensors["tokens"].to_vec1().unwrap(),
        tensors["output"].clone(),
    )
}

/// The largest difference, where both have numbers of about 1.
fn assert_close(found: &Tensor, expected: &Tensor, what: &str) {
    assert_eq!(found.dims(), expected.dims(), "{what}");
    let difference = (found - expected).unwrap().abs().unwrap();
    let largest = |x: &Tensor| x.flatten_all().unwrap().max(0).unwrap();
    let difference = largest(&difference).to_scalar::<f32>().unwrap();
    let size = largest(&expected.abs().unwrap())
        .to_scalar::<f32>()
        .unwrap();
    assert!(
        difference < 1e-5 * size,
        "{what}: {difference} of at most {size}"
    );
}

fn logits(decoder: &Decoder, parts: &[&[u32]]) -> Tensor {
    let mut cache = decoder.cache();
    let logits = parts.iter().map(|part| {
        let hidden = decoder.hidden(part, &mut cache, &mut ()).unwrap();
        decoder.logits(&hidden, &mut ()).unwrap()
    });
    Tensor::cat(&logits.collect::<Vec<_>>(), 0).unwrap()
}

#[test]
fn decoders_give_the_logits_of_transformers_in_one_piece_and_in_any_others() {
    for name in ["llama", "llama-tied", "mistral", "qwen2", "qwen3"] {
        let model = load(folder(name)).unwrap();
        let Network::Decoder(decoder) = model.network() else {
            panic!("{name} is a decoder");
        };
        let (tokens, expected) = vectors(name);
        assert_close(&logits(decoder, &[&tokens]), &expected, name);
        let one_by_one: Vec<&[u32]> = tokens.chunks(1).collect();
        assert_close(&logits(decoder, &one_by_one), &expected, name);
        let (start, end) = tokens.split_at(7);
        assert_close(&logits(decoder, &[start, end]), &expected, name);
    }
}

#[test]
fn encoders_give_the_hidden_states_of_transformers_whatever_other_texts_there_are() {
    for name in ["bert", "roberta"] {
        let model = load(folder(name)).unwrap();
        let Network::Encoder(encoder) = model.network() else {
            panic!("{name} is an encoder");
        };
        let (tokens, expected) = vectors(name);
        let hidden = encoder
            .hidden(&[&tokens[3..], &tokens, &tokens[..1]], &mut ())
            .unwrap();
        assert_eq!(hidden.len(), 3);
        assert_close(&hidden[1], &expected, name);
    }
}
