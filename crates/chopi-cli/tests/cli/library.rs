//! What the library reads of the files that the program writes.

use chopi::formats::{self, Storage, Tensor};
use chopi::{Builder, Chopi, Convention};

use crate::model::{Folder, Model, Stored, convert_well, noise};

/// The quantizer, the arguments that describe it, and the format.
fn cases() -> Vec<(Builder, Vec<&'static str>)> {
    let folder = || Chopi::builder().convention(Convention::COMPRESSED_TENSORS);
    let in_folder = |args: &[&'static str]| [&["--format", "compressed-tensors"], args].concat();
    vec![
        (Chopi::builder(), vec!["--include", "*"]),
        (
            Chopi::builder()
                .num_bits(4)
                .symmetric(true)
                .per_group(8, -1),
            vec![
                "--bits",
                "4",
                "--symmetric",
                "--group-size",
                "8",
                "--include",
                "*",
            ],
        ),
        (
            Chopi::builder().num_bits(12).per_channel(0),
            vec!["--bits", "12", "--per-channel", "0", "--include", "*"],
        ),
        (
            folder().symmetric(true).per_channel(0),
            in_folder(&["--symmetric", "--per-channel", "0"]),
        ),
        (
            folder().num_bits(4).per_group(8, -1),
            in_folder(&["--bits", "4", "--group-size", "8"]),
        ),
    ]
}

#[test]
fn the_library_reads_what_the_program_writes() {
    let folder = Folder::new();
    let x = noise::<f32>(&[24, 32]);
    let model = Model::new().array("layers.0.up_proj.weight", &x).raw(
        "ids",
        formats::Dtype::I64,
        &[1],
        vec![7; 8],
    );
    let input = folder.file("in.safetensors", &model.bytes());
    for (builder, args) in cases() {
        let output = folder.path("out");
        let _ = std::fs::remove_dir_all(&output);
        let _ = std::fs::remove_file(&output);
        convert_well(
            "quantize",
            &input,
            &output,
            &[&args[..], &["--quiet"]].concat(),
        );
        let model = formats::open(&output).unwrap();
        assert!(model.is_quantized());
        let names: Vec<&str> = model.tensors().map(|tensor| tensor.name()).collect();
        assert_eq!(names, ["ids", "layers.0.up_proj.weight"]);

        let mut chopi = builder.build().unwrap();
        let expected = chopi.fake_quantize(&x).unwrap();
        let stored = model.get("layers.0.up_proj.weight").unwrap();
        let Storage::Quantized { scheme, .. } = stored.storage() else {
            panic!("{:?}", stored.storage())
        };
        assert_eq!(scheme, chopi.params().unwrap().scheme());
        let Tensor::Quantized(quantized) = stored.read().unwrap() else {
            panic!("{args:?}")
        };
        assert_eq!(quantized.params().scale(), chopi.params().unwrap().scale());
        let values = quantized.dequantize().unwrap();
        let expected: Vec<u8> = expected.iter().flat_map(|&x| Stored::le(x)).collect();
        assert_eq!((values.shape(), values.bytes()), (x.shape(), &*expected));
        let Tensor::Plain(ids) = model.read("ids").unwrap() else {
            panic!("{args:?}")
        };
        assert_eq!(
            (ids.dtype(), ids.bytes()),
            (formats::Dtype::I64, &[7; 8][..])
        );
        let said = model.read("other").unwrap_err().to_string();
        assert!(said.contains("has no tensor \"other\""), "{said}");
    }
}
