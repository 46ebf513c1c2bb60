//! A GGUF file, well made or not, given to the library and to the program: what is read can be dequantized, and what
//! is written of it is the same again.
//!
//! The input is a byte of options and the file.

#![no_main]

use chopi::formats::gguf::{BlockType, Gguf, GgufFile};
use chopi::formats::{Format, Plan, Tensor, TensorPlan, open};
use chopi_fuzz::planted;
use chopi_fuzz::program::{Folder, succeeds, writes};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: &[u8]| {
    let [options, bytes @ ..] = input else { return };
    let folder = Folder::new();
    let file = folder.write("in.gguf", bytes);
    let Ok(gguf) = Gguf::open(&file) else {
        // Whatever it is, the program says so.
        succeeds(&["inspect"], &[&file]);
        return;
    };
    let model = open(&file).expect("its header was read");
    let mut read = Vec::new();
    for tensor in model.tensors() {
        let Ok(found) = tensor.read() else { return };
        let values = found.clone().dequantize().expect("blocks have values");
        // Piece by piece it is the same.
        let lazy = tensor.values().expect("there are no parameters");
        assert_eq!(lazy.bytes().expect("it was read"), values.bytes());
        read.push((tensor.name().to_owned(), found));
    }
    again(&folder, &gguf, &read);
    let count = read.len();
    assert!(
        !planted(count == 1 && bytes.len() % 2 == 1),
        "it is not the same"
    );
    match options % 4 {
        0 => {
            assert!(succeeds(&["inspect", "--json"], &[&file]));
            assert!(succeeds(&["compare", "--quiet"], &[&file, &file]));
        }
        1 => {
            assert!(writes(
                &folder,
                &["dequantize", "--quiet"],
                &[&file],
                "back.safetensors"
            ));
            let back = folder.path("back.safetensors");
            assert!(succeeds(&["inspect"], &[&back]));
        }
        2 => {
            let types = BlockType::QUANTIZED.map(|kind| kind.to_string());
            let kind = &types[usize::from(options / 4) % types.len()];
            writes(
                &folder,
                &["quantize", "--quiet", "--gguf", kind],
                &[&file],
                "out.gguf",
            );
        }
        _ => {
            writes(
                &folder,
                &["quantize", "--quiet", "--bits", "4"],
                &[&file],
                "q.safetensors",
            );
        }
    }
});

/// Writes what was read, and reads it again.
fn again(folder: &Folder, gguf: &Gguf, tensors: &[(String, Tensor)]) {
    let path = folder.path("again.gguf");
    let mut header = GgufFile.header();
    let metadata = header.gguf_metadata().expect("it is one of GGUF");
    metadata.extend(gguf.metadata.clone());
    let mut plan = Plan::new(&GgufFile).with_header(header);
    for (name, tensor) in tensors {
        plan.add(TensorPlan::of(name, tensor));
    }
    // Names may be longer than ggml has them.
    let Ok(writer) = plan.create(&path, false) else {
        return;
    };
    for (name, tensor) in tensors {
        writer.write(name, tensor).expect("it was planned");
    }
    writer.finish().expect("the folder can be written");
    let model = open(&path).expect("it was written");
    assert_eq!(model.tensors().count(), tensors.len());
    for (name, tensor) in tensors {
        let found = model.read(name).expect("it was written");
        let bytes = |tensor: &Tensor| match tensor {
            Tensor::Plain(plain) => plain.bytes().to_vec(),
            Tensor::Blocks(blocks) => blocks.bytes().to_vec(),
            other => panic!("{other:?}"),
        };
        assert_eq!(found.shape(), tensor.shape());
        assert_eq!(bytes(&found), bytes(tensor));
    }
    let mut back = model.gguf_metadata().expect("it is one of GGUF").clone();
    let mut before = gguf.metadata.clone();
    // What the writer says of the blocks.
    for key in ["general.quantization_version", "general.file_type"] {
        back.remove(key);
        before.remove(key);
    }
    // NaN is no number that equals itself.
    assert_eq!(format!("{back:?}"), format!("{before:?}"));
    std::fs::remove_file(path).expect("it was written");
}
