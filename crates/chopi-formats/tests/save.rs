//! What is saved comes back, in every format.

use std::path::Path;

use chopi_core::backend::{FloatType, IntType};
use chopi_core::{Builder, Chopi as Quantizer, Convention};
use chopi_formats::chopi::{Chopi, Spec};
use chopi_formats::compressed_tensors::CompressedTensors;
use chopi_formats::gguf::{BlockType, Blocks, GgufFile};
use chopi_formats::{
    Dtype, Error, Fault, Format, Keep, Plain, Plan, Quantized, Storage, Tensor, TensorPlan, open,
    save,
};
use chopi_ndarray as _;
use ndarray::ArrayD;
use proptest::prelude::*;

fn array(shape: &[usize], seed: u32) -> ArrayD<f32> {
    let mut state = seed;
    ArrayD::from_shape_simple_fn(shape, || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 8) as f32 / 1e6 - 8.0
    })
}

/// A tensor of codes, and the values of the codes by the library itself.
fn quantized(x: &ArrayD<f32>, builder: &Builder) -> Option<(Tensor, Vec<f32>)> {
    let mut chopi = builder.clone().build().ok()?;
    let codes = chopi.quantize(x).ok()?;
    let params = chopi.params()?;
    let values: ArrayD<f32> = params.dequantize(&codes).unwrap();
    let quantized = Quantized::of(params.clone(), &codes).unwrap();
    Some((
        Tensor::Quantized(Box::new(quantized)),
        values.iter().copied().collect(),
    ))
}

fn values(path: &Path, name: &str) -> Vec<f32> {
    let tensor = open(path).unwrap().read(name).unwrap();
    let plain = tensor.dequantize().unwrap();
    plain.elements::<f32>().unwrap().into_owned()
}

fn plain() -> Tensor {
    Tensor::Plain(Plain::new(Dtype::I32, vec![2], vec![1, 0, 0, 0, 2, 0, 0, 0]).unwrap())
}

proptest! {
    #[test]
    fn codes_of_any_scheme_come_back_to_the_bit(
        shape in proptest::collection::vec(1_usize..9, 0..4),
        bits in 2_u32..=16,
        symmetric in any::<bool>(),
        group in 0_usize..4,
        axis in -2_isize..2,
        convention in prop::sample::select(Convention::ALL),
        seed in any::<u32>(),
    ) {
        let x = array(&shape, seed);
        let builder = Quantizer::builder().num_bits(bits).symmetric(symmetric).convention(convention);
        let builder = match group {
            0 => builder,
            1 => builder.per_channel(axis),
            size => builder.per_group(size, axis),
        };
        let Some((tensor, expected)) = quantized(&x, &builder) else { return Ok(()) };
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.safetensors");
        let other = plain();
        save(&path, &Chopi, [("x", &tensor), ("ids", &other)]).unwrap();
        let bits_of = |values: &[f32]| values.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        prop_assert_eq!(bits_of(&values(&path, "x")), bits_of(&expected));
        // Piece by piece, too.
        let model = open(&path).unwrap();
        let lazy = model.get("x").unwrap().values().unwrap();
        prop_assert_eq!(bits_of(&lazy.elements::<f32>().unwrap()), bits_of(&expected));
        let Tensor::Plain(ids) = model.read("ids").unwrap() else { panic!() };
        prop_assert_eq!(ids.bytes(), [1, 0, 0, 0, 2, 0, 0, 0]);
        // Codes of few bits are packed wherever their range fits.
        if let Storage::Quantized { packing, scheme, .. } = model.get("x").unwrap().storage() {
            prop_assert_eq!(packing.is_some(), scheme.bits < 8);
        }
    }
}

#[test]
fn folders_of_compressed_tensors_come_back_to_the_bit() {
    let x = array(&[24, 64], 5);
    for (bits, symmetric, group) in [
        (8, true, 0),
        (8, false, 32),
        (4, true, 32),
        (4, false, 16),
        (3, false, 0),
    ] {
        let builder = Quantizer::builder()
            .convention(Convention::COMPRESSED_TENSORS)
            .num_bits(bits)
            .symmetric(symmetric);
        let builder = match group {
            0 => builder.per_channel(0),
            size => builder.per_group(size, -1),
        };
        let (tensor, expected) = quantized(&x, &builder).unwrap();
        let (eight, eight_values) = quantized(
            &x,
            &Quantizer::builder().convention(Convention::COMPRESSED_TENSORS),
        )
        .unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("out");
        let ids = plain();
        let tensors = [
            ("a.up.weight", &tensor),
            ("a.down.weight", &eight),
            ("ids", &ids),
        ];
        save(&path, &CompressedTensors, tensors).unwrap();
        assert_eq!(values(&path, "a.up.weight"), expected, "{bits} {symmetric}");
        assert_eq!(values(&path, "a.down.weight"), eight_values);
        assert_eq!(open(&path).unwrap().tensors().count(), 3);
        // What is there is not replaced unasked.
        let again = save(&path, &CompressedTensors, tensors).unwrap_err();
        assert!(matches!(again, Error::OutputExists { .. }), "{again}");
    }
}

#[test]
fn blocks_come_back_to_the_bit() {
    let x: Vec<f32> = array(&[6, 64], 9).into_iter().collect();
    for block_type in BlockType::QUANTIZED {
        let blocks = Blocks::quantize(&x, &[6, 64], block_type).unwrap();
        let expected = blocks.dequantize().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let (tensor, ids) = (Tensor::Blocks(blocks.clone()), plain());
        save(&path, &GgufFile, [("x", &tensor), ("ids", &ids)]).unwrap();
        let model = open(&path).unwrap();
        let Tensor::Blocks(back) = model.read("x").unwrap() else {
            panic!()
        };
        assert_eq!(back, blocks);
        let lazy = model.get("x").unwrap().values().unwrap();
        assert_eq!(lazy.bytes().unwrap(), expected.bytes());
        let metadata = model.gguf_metadata().unwrap();
        assert_eq!(metadata.len(), 2, "{metadata:?}");
    }
}

#[test]
fn what_a_format_does_not_have_is_refused() {
    let x = array(&[4, 32], 1);
    let (codes, _) = quantized(&x, &Quantizer::builder()).unwrap();
    let flat: Vec<f32> = x.iter().copied().collect();
    let blocks = Tensor::Blocks(Blocks::quantize(&flat, &[4, 32], BlockType::Q8_0).unwrap());
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let refused = |format: &dyn Format, name: &str, tensor: &Tensor| {
        let error = save(&path, format, [(name, tensor)])
            .unwrap_err()
            .to_string();
        assert!(error.contains(name), "{error}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
        error
    };
    assert!(refused(&Chopi, "x", &blocks).contains("chopi does not keep blocks of Q8_0"));
    assert!(refused(&CompressedTensors, "x.weight", &codes).contains("codes of chopi"));
    assert!(refused(&GgufFile, "x", &codes).contains("GGUF does not keep codes"));
    let mask = Tensor::Plain(Plain::new(Dtype::BOOL, vec![1], vec![1]).unwrap());
    assert!(refused(&GgufFile, "x", &mask).contains("elements of BOOL"));
    assert!(refused(&GgufFile, &"n".repeat(64), &blocks).contains("64 bytes"));
    let twice = save(&path, &Chopi, [("x", &mask), ("x", &mask)]).unwrap_err();
    assert!(twice.to_string().contains("another tensor has"), "{twice}");
    let taken = save(&path, &Chopi, [("x", &codes), ("x.codes", &mask)]).unwrap_err();
    assert!(taken.to_string().contains("tensor \"x\": "), "{taken}");
}

#[test]
fn a_tensor_that_was_planned_otherwise_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out");
    let mut plan = Plan::new(&Chopi);
    let scheme = Quantizer::builder().scheme().unwrap();
    plan.add(TensorPlan {
        name: "x".to_owned(),
        shape: vec![4, 3],
        keep: Keep::Codes {
            spec: Spec::new(scheme, Convention::CHOPI, FloatType::F32),
            zero_point: IntType::I32,
        },
    });
    let writer = plan.create(&path, false).unwrap();
    let (other, _) = quantized(&array(&[4, 4], 1), &Quantizer::builder()).unwrap();
    for tensor in [plain(), other] {
        let error = writer.write("x", &tensor).unwrap_err();
        assert!(
            matches!(&error, Error::Tensor { fault, .. } if matches!(**fault, Fault::Planned { .. })),
            "{error}"
        );
    }
    assert!(matches!(
        writer.write("y", &plain()),
        Err(Error::NoTensor { .. })
    ));
    drop(writer);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}
