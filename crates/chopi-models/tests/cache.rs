//! Keys and values that are kept as codes, on small models with random weights.

use std::path::Path;

use chopi_models::{CacheFormat, Model, Network, Windows, load};

const DECODERS: [&str; 5] = ["llama", "llama-tied", "mistral", "qwen2", "qwen3"];

fn small(name: &str) -> Model {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
    load(folder.join(name)).unwrap()
}

const TOKENS: [u32; 12] = [3, 9, 27, 17, 2, 30, 4, 4, 11, 8, 1, 19];

/// The logits after all tokens, which are given some at a time, and the bytes of the cache.
fn logits(model: &Model, at_once: usize) -> (Vec<f32>, usize) {
    let Network::Decoder(decoder) = model.network() else {
        unreachable!("it is a decoder");
    };
    let mut cache = decoder.cache();
    let mut last = Vec::new();
    for tokens in TOKENS.chunks(at_once) {
        let hidden = decoder.hidden(tokens, &mut cache, &mut ()).unwrap();
        let row = hidden.narrow(0, tokens.len() - 1, 1).unwrap();
        let logits = decoder.logits(&row, &mut ()).unwrap();
        last = logits.flatten_all().unwrap().to_vec1().unwrap();
    }
    assert_eq!(cache.tokens(), TOKENS.len());
    (last, cache.bytes())
}

/// ‖a − b‖/‖b‖.
fn apart(a: &[f32], b: &[f32]) -> f64 {
    let square = |x: f32| f64::from(x) * f64::from(x);
    let error: f64 = a.iter().zip(b).map(|(a, b)| square(a - b)).sum();
    (error / b.iter().copied().map(square).sum::<f64>()).sqrt()
}

#[test]
fn codes_are_near_floats_and_nearer_with_more_bits() {
    for name in DECODERS {
        let float = small(name);
        let (expected, _) = logits(&float, TOKENS.len());
        let of = |format| {
            let model = float.clone().with_cache(format).unwrap();
            apart(&logits(&model, TOKENS.len()).0, &expected)
        };
        assert_eq!(of(CacheFormat::Float), 0.0);
        let (eight, four) = (of(CacheFormat::Bits8), of(CacheFormat::Bits4));
        // A step of 4 bits is 17 times one of 8.
        assert!(
            0.0 < eight && eight < four / 5.0 && four < 0.5,
            "{name}: {eight} {four}"
        );
    }
}

#[test]
fn what_is_kept_of_a_token_does_not_depend_on_what_came_with_it() {
    for name in DECODERS {
        for format in [CacheFormat::Float, CacheFormat::Bits8, CacheFormat::Bits4] {
            let model = small(name).with_cache(format).unwrap();
            let (expected, bytes) = logits(&model, TOKENS.len());
            for at_once in [1, 5] {
                let (found, same_bytes) = logits(&model, at_once);
                // Products sum in another order for other numbers of rows, so that a code may be its neighbour.
                let apart = apart(&found, &expected);
                assert!(apart < 2e-2, "{name} {format:?}: {apart}");
                assert_eq!(same_bytes, bytes);
            }
        }
    }
}

#[test]
fn the_bytes_are_those_of_codes_and_parameters() {
    // 2 layers with 2 heads of 4 elements of keys and of values.
    let rows = 2 * 2 * 2 * TOKENS.len();
    for (format, of_row) in [
        (CacheFormat::Float, 16),
        (CacheFormat::Bits8, 4 + 8),
        (CacheFormat::Bits4, 2 + 8),
    ] {
        let model = small("llama").with_cache(format).unwrap();
        assert_eq!(logits(&model, 3).1, rows * of_row, "{format:?}");
    }
}

#[test]
fn texts_and_perplexities_go_by_what_is_kept() {
    let words: Vec<String> = (0..90).map(|i| format!("w{}", i * i % 31)).collect();
    let windows = Windows {
        tokens: 20,
        limit: None,
    };
    let text = words.join(" ");
    let of = |format| {
        let model = small("llama-tied").with_cache(format).unwrap();
        assert!(!model.generate("w3 w4", 5).unwrap().is_empty());
        model
            .perplexity(&text, windows, |_, _| ())
            .unwrap()
            .perplexity
    };
    let [float, eight, four] = [CacheFormat::Float, CacheFormat::Bits8, CacheFormat::Bits4].map(of);
    assert!(float != eight && eight != four);
    assert!((eight / float - 1.0).abs() < 0.01 && (four / float - 1.0).abs() < 0.1);
    let error = small("bert").with_cache(CacheFormat::Bits8).unwrap_err();
    assert_eq!(error.to_string(), "bert is an encoder, expected a decoder");
}
