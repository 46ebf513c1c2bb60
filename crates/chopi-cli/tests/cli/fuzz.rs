//! No file makes the program panic or leave something behind.

use std::fs;

use proptest::prelude::*;

use crate::model::{Folder, Model, chopi, convert, convert_well, noise};

/// Runs every command on a file. Whatever it holds, the exit status is 0 or 1, and a file appears
/// only with 0.
fn survives(bytes: &[u8]) {
    let folder = Folder::new();
    let input = folder.file("in", bytes);
    let quantize = ["--all", "--group-size", "2", "--axis", "0"];
    for (verb, args) in [("quantize", &quantize[..]), ("dequantize", &[])] {
        let done = convert(verb, &input, &folder.path("out"), args);
        let stderr = String::from_utf8(done.stderr).unwrap();
        match done.status.code() {
            Some(0) => fs::remove_file(folder.path("out")).unwrap(),
            Some(1) => assert_eq!(stderr.matches('\n').count(), 1, "{stderr}"),
            other => panic!("{verb}: status {other:?}: {stderr}"),
        }
        assert_eq!(folder.names(), ["in"]);
    }
    let inspect = chopi(["inspect"]).arg(&input).output().unwrap();
    assert!(matches!(inspect.status.code(), Some(0 | 1)));
    let compare = chopi(["compare"]).args([&input, &input]).output().unwrap();
    match compare.status.code() {
        Some(0) => assert!(compare.stderr.is_empty()),
        other => assert_eq!((other, compare.stdout), (Some(1), vec![])),
    }
}

/// A quantized file.
fn quantized() -> Vec<u8> {
    let folder = Folder::new();
    let model = Model::new()
        .array("a", &noise::<f32>(&[3, 4]))
        .array("b", &noise::<f64>(&[2, 2]))
        .array("c", &noise::<f32>(&[5]));
    let input = folder.file("in", &model.bytes());
    let args = ["--group-size", "3", "--bits", "5"];
    convert_well("quantize", &input, &folder.path("q"), &args);
    fs::read(folder.path("q")).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn random_bytes(bytes in proptest::collection::vec(any::<u8>(), 1..200)) {
        survives(&bytes);
    }

    #[test]
    fn random_headers(
        dtype in "F32|F64|BF16|I8|U8|F4|C64|X",
        shape in proptest::collection::vec(prop_oneof![0_u64..4, any::<u64>()], 0..4),
        start in 0_u64..3,
        end in prop_oneof![0_u64..40, any::<u64>()],
        metadata in "\\PC{0,20}",
        data in 0_usize..40,
    ) {
        let header = serde_json::json!({
            "__metadata__": {"chopi": metadata},
            "a": {"dtype": dtype, "shape": shape, "data_offsets": [start, end]},
        })
        .to_string();
        let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
        bytes.extend(header.as_bytes());
        bytes.extend(vec![1; data]);
        survives(&bytes);
    }

    #[test]
    fn a_quantized_file_with_a_few_bytes_changed(
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        cut in proptest::option::weighted(0.2, any::<prop::sample::Index>()),
    ) {
        let mut bytes = quantized();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Some(cut) = cut {
            bytes.truncate(cut.index(bytes.len()).max(1));
        }
        survives(&bytes);
    }

    #[test]
    fn a_quantized_file_with_other_digits_in_its_header(
        at in any::<prop::sample::Index>(),
        digit in b'0'..=b'9',
    ) {
        let mut bytes = quantized();
        let digits: Vec<usize> = (8..bytes.len()).filter(|&i| bytes[i].is_ascii_digit()).collect();
        bytes[digits[at.index(digits.len())]] = digit;
        survives(&bytes);
    }
}
