//! Blocks against the Python package `gguf`, and what holds of all of them.
//!
//! `vectors/gguf.json` is made by `xtask/python/gguf_vectors.py`; `cargo xtask check-gguf` compares many more numbers.

use chopi_core::backend::FloatType;
use chopi_core::{Chopi, CodeRange, Convention, QParams};
use chopi_formats::gguf::{BlockType, Blocks};
use chopi_formats::{Codes, Fault, Ints, Quantized};
use half::f16;
use proptest::prelude::*;
use serde_json::Value;

fn bytes(hex: &Value) -> Vec<u8> {
    let hex = hex.as_str().unwrap();
    let byte = |i| u8::from_str_radix(&hex[i..i + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(byte).collect()
}

fn floats(bytes: &[u8]) -> Vec<f32> {
    let float = |b: &[u8]| f32::from_le_bytes(b.try_into().unwrap());
    bytes.chunks_exact(4).map(float).collect()
}

#[test]
fn blocks_and_their_values_are_those_of_gguf_to_the_bit() {
    let vectors: Value = serde_json::from_str(include_str!("vectors/gguf.json")).unwrap();
    let vectors = vectors.as_object().unwrap();
    // Q8_K, which no file has, is not in the package.
    assert_eq!(vectors.len(), BlockType::ALL.len() - 1);
    for (name, rows) in vectors {
        let block_type = BlockType::from_name(name).unwrap();
        for row in rows.as_array().unwrap() {
            let block = bytes(&row["block"]);
            if !row["x"].is_null() {
                let x = floats(&bytes(&row["x"]));
                let quantized = Blocks::quantize(&x, &[32], block_type).unwrap();
                assert_eq!(quantized.bytes(), block, "{name} of {x:?}");
            }
            let shape = vec![block_type.elements()];
            let values = Blocks::new(block_type, shape, block)
                .unwrap()
                .dequantize()
                .unwrap();
            assert_eq!(values.bytes(), bytes(&row["values"]), "{name}");
        }
    }
}

#[test]
fn the_values_of_q8_k_are_the_codes_times_the_scale() {
    let mut block = 0.3_f32.to_le_bytes().to_vec();
    block.extend((0..=255_u8).chain([0; 32]));
    let values = Blocks::new(BlockType::Q8_K, vec![256], block)
        .unwrap()
        .dequantize()
        .unwrap();
    let expected: Vec<f32> = (0..=255_u8).map(|q| 0.3 * f32::from(q as i8)).collect();
    assert_eq!(*values.elements::<f32>().unwrap(), expected);
}

#[test]
fn what_has_no_blocks_is_refused() {
    let refused = |x: &[f32], shape: &[usize], block_type| {
        Blocks::quantize(x, shape, block_type).unwrap_err()
    };
    let x = [1.0_f32; 64];
    assert!(matches!(
        refused(&x, &[2, 32], BlockType::Q4_K),
        Fault::NoBlocks { .. }
    ));
    assert!(matches!(
        refused(&x, &[4, 16], BlockType::Q4_0),
        Fault::Rows { .. }
    ));
    assert!(matches!(
        refused(&x, &[32], BlockType::Q4_0),
        Fault::Rows { .. }
    ));
    for value in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
        let mut x = x;
        x[40] = value;
        let fault = refused(&x, &[64], BlockType::Q8_0);
        assert!(
            matches!(fault, Fault::NonFiniteBlock { index: 1, .. }),
            "{fault}"
        );
    }
    // 65520 · 127 is the first scale that rounds to infinity in f16.
    for (block_type, steps) in [
        (BlockType::Q8_0, 127.0),
        (BlockType::Q4_0, 8.0),
        (BlockType::Q5_0, 16.0),
    ] {
        let mut x = x;
        x[3] = 65_519.0 * steps;
        assert!(Blocks::quantize(&x, &[64], block_type).is_ok());
        x[3] = 65_520.0 * steps;
        let fault = refused(&x, &[64], block_type);
        assert!(
            matches!(fault, Fault::BlockScale { index: 0, .. }),
            "{fault}"
        );
    }
    let fault = refused(&[-1e5; 32], &[32], BlockType::Q4_1);
    assert!(
        matches!(fault, Fault::BlockScale { index: 0, .. }),
        "{fault}"
    );
    assert!(Blocks::new(BlockType::Q4_0, vec![32], vec![0; 17]).is_err());
}

#[test]
fn a_scale_whose_reciprocal_is_infinite_gives_zeros() {
    for block_type in BlockType::QUANTIZED {
        for x in [f32::from_bits(1), -1e-41, 0.0, -0.0] {
            let blocks = Blocks::quantize(&[x; 32], &[32], block_type).unwrap();
            let values = blocks.dequantize().unwrap();
            assert!(
                values.elements::<f32>().unwrap().iter().all(|&v| v == 0.0),
                "{block_type} {x:e}"
            );
        }
    }
}

fn blocks() -> impl Strategy<Value = Vec<f32>> {
    let size = prop_oneof![Just(1e-3_f32), Just(1.0), Just(1e3)];
    (size, proptest::collection::vec(-1.0_f32..1.0, 96))
        .prop_map(|(size, x)| x.into_iter().map(|x| x * size).collect())
}

proptest! {
    #[test]
    fn a_value_is_half_a_step_away_at_most(x in blocks(), block_type in prop::sample::select(&BlockType::QUANTIZED)) {
        let blocks = Blocks::quantize(&x, &[3, 32], block_type).unwrap();
        let values = blocks.dequantize().unwrap();
        let values = values.elements::<f32>().unwrap();
        for ((x, y), block) in x.chunks(32).zip(values.chunks(32)).zip(blocks.bytes().chunks(block_type.bytes())) {
            let d = f32::from(f16::from_le_bytes([block[0], block[1]])).abs();
            let largest = x.iter().fold(0.0_f32, |m, x| m.max(x.abs()));
            for (x, y) in x.iter().zip(y) {
                // d and m are rounded to 11 bits after the codes were computed, or to 2^-25 where they are small;
                // the codes of Q4_0 and Q5_0 end a step before the largest |x| of the other sign.
                let symmetric = matches!(block_type, BlockType::Q4_0 | BlockType::Q5_0);
                let steps = if symmetric { 1.0 } else { 0.5 };
                let bound = steps * d + largest / 1024.0 + 255.0 * 2_f32.powi(-24);
                prop_assert!((x - y).abs() <= bound, "{block_type}: {x} {y} {d}");
            }
        }
    }

    #[test]
    fn blocks_do_not_know_each_other(x in blocks(), block_type in prop::sample::select(&BlockType::QUANTIZED)) {
        let all = Blocks::quantize(&x, &[3, 32], block_type).unwrap();
        let each = x.chunks(32).flat_map(|x| Blocks::quantize(x, &[32], block_type).unwrap().bytes().to_vec());
        prop_assert_eq!(all.bytes(), each.collect::<Vec<u8>>());
    }

    #[test]
    fn values_of_q8_0_are_those_of_codes_with_the_scale_of_the_block(x in blocks()) {
        let blocks = Blocks::quantize(&x, &[3, 32], BlockType::Q8_0).unwrap();
        let scheme = Chopi::builder().symmetric(true).range(CodeRange::Signed).per_group(32, -1).scheme().unwrap();
        let each = || blocks.bytes().chunks(34);
        let scale: Vec<f64> = each().map(|b| f16::from_le_bytes([b[0], b[1]]).to_f64()).collect();
        prop_assume!(scale.iter().all(|&s| s > 0.0));
        let codes: Vec<i8> = each().flat_map(|b| b[2..].iter().map(|&q| q as i8)).collect();
        let params = QParams::new(scheme, Convention::CHOPI, FloatType::F32, vec![3, 1], scale, vec![0; 3]).unwrap();
        let codes = Codes::Ints(Ints::I8(codes));
        let same = Quantized::new(vec![3, 32], params, codes).unwrap().dequantize().unwrap();
        prop_assert_eq!(same, blocks.dequantize().unwrap());
    }
}
