//! What `quantize` writes is what the library computes, and `dequantize` undoes it.

use std::fs;
use std::path::Path;

use chopi::ndarray::NdArray;
use chopi::{
    Chopi, CodeRange, Convention, Granularity,
    backend::{FloatTensor, FloatType, Int, IntTensor, bf16, f16},
    convention::{Groups, ZeroPoints},
};
use ndarray::ArrayD;
use safetensors::{Dtype, SafeTensors};

use crate::model::{
    Folder, Model, Stored, codes as codes_of, convert_well, elements, integers, metadata, noise,
};

const SHAPES: [&[usize]; 4] = [&[5, 7], &[3, 4, 5], &[1, 9], &[2, 1, 3, 70]];

fn name<F: Stored>(shape: &[usize]) -> String {
    format!("{}.{shape:?}", F::DTYPE)
}

fn add<F: Stored>(model: Model) -> Model {
    SHAPES.iter().fold(model, |model, shape| {
        model.array(&name::<F>(shape), &noise::<F>(shape))
    })
}

/// Arguments, the quantizer that they describe, and the types of the tensors that they take.
type Case = (Vec<String>, chopi::Builder, Vec<FloatType>);

fn cases() -> Vec<Case> {
    let granularities = [
        (vec![], Granularity::PerTensor),
        (
            vec!["--per-channel", "0"],
            Granularity::PerChannel { axis: 0 },
        ),
        (
            vec!["--per-channel", "-1"],
            Granularity::PerChannel { axis: -1 },
        ),
        (
            vec!["--group-size", "3"],
            Granularity::PerGroup { axis: -1, size: 3 },
        ),
        (
            vec!["--group-size", "2", "--axis", "0"],
            Granularity::PerGroup { axis: 0, size: 2 },
        ),
        (
            vec!["--group-size", "100", "--axis", "-2"],
            Granularity::PerGroup {
                axis: -2,
                size: 100,
            },
        ),
    ];
    let mut cases = Vec::new();
    for (args, granularity) in granularities {
        for bits in [2, 4, 8, 16, 32] {
            for symmetric in [false, true] {
                for &convention in Convention::ALL {
                    let builder = Chopi::builder()
                        .num_bits(bits)
                        .symmetric(symmetric)
                        .granularity(granularity)
                        .convention(convention);
                    let whole_groups = matches!(granularity, Granularity::PerGroup { .. })
                        && convention.groups() != Groups::Ragged;
                    // In groups of one element pychop's scale is 10^-5/(2^(b-1) - 1), and zero
                    // points soon do not fit 32 bits; nor does F16, which it computes with.
                    let pychop = convention.name().starts_with("pychop");
                    if builder.scheme().is_err() || whole_groups || pychop && bits > 8 {
                        continue;
                    }
                    let mut args: Vec<String> = args.iter().map(ToString::to_string).collect();
                    args.extend(["--bits".to_owned(), bits.to_string()]);
                    args.extend(["--convention".to_owned(), convention.name().to_owned()]);
                    if symmetric {
                        args.push("--symmetric".to_owned());
                    }
                    let floats = convention.float_types().iter().copied();
                    let floats: Vec<FloatType> = floats
                        .filter(|&float| !(pychop && float.compute() != float))
                        .collect();
                    for float in &floats {
                        args.extend(["--include".to_owned(), format!("{float}.*").to_uppercase()]);
                    }
                    cases.push((args, builder, floats));
                }
            }
        }
    }
    cases
}

/// Quantizes and dequantizes a file; calls `check` with the two results.
fn round_trip(
    folder: &Folder,
    input: &Path,
    args: &[&str],
    check: impl FnOnce(&SafeTensors<'_>, &SafeTensors<'_>),
) {
    let (quantized, back) = (
        folder.path("q.safetensors"),
        folder.path("back.safetensors"),
    );
    convert_well(
        "quantize",
        input,
        &quantized,
        &[args, &["--force", "--quiet"]].concat(),
    );
    convert_well("dequantize", &quantized, &back, &["--force", "--quiet"]);
    let (quantized, back) = (fs::read(quantized).unwrap(), fs::read(back).unwrap());
    check(
        &SafeTensors::deserialize(&quantized).unwrap(),
        &SafeTensors::deserialize(&back).unwrap(),
    );
}

/// Compares a tensor of both files with what the library makes of `x`.
fn check<F: Stored>(
    name: &str,
    x: &ArrayD<F>,
    builder: &chopi::Builder,
    quantized: &SafeTensors<'_>,
    back: &SafeTensors<'_>,
) where
    ArrayD<F>: FloatTensor<NdArray, Owned = ArrayD<F>>,
    <ArrayD<F> as FloatTensor<NdArray>>::Int: IntTensor<NdArray>,
{
    let mut chopi = builder.clone().build().unwrap();
    let codes = chopi.quantize(x).unwrap();
    let mut expected = Vec::new();
    IntTensor::with_host(&codes, |host| {
        chopi::backend::match_int!(IntSlice, host.data(), data => {
            expected.extend(data.iter().map(|&q| q.to_i64()));
        });
        Ok(())
    })
    .unwrap();
    let params = chopi.params().unwrap();
    let (bits, signed) = (params.scheme().bits, params.scheme().qmin < 0);
    let stored = codes_of(quantized, name, x.shape(), bits, signed);
    assert_eq!(stored, expected, "{name} {builder:?}");
    // Nothing that a loader could take for the floats.
    assert!(quantized.tensor(name).is_err());

    let scale = format!("{name}.scale");
    assert_eq!(quantized.tensor(&scale).unwrap().shape(), params.shape());
    let floats = |name: &str| match F::DTYPE {
        Dtype::F64 => elements::<f64>(quantized, name),
        _ => elements::<f32>(quantized, name)
            .into_iter()
            .map(f64::from)
            .collect(),
    };
    assert_eq!(floats(&scale), params.scale());

    let zero_point = format!("{name}.zero_point");
    match (
        params.convention().zero_points(params.scheme()),
        params.real_zero_point(),
    ) {
        (ZeroPoints::None, _) => assert!(quantized.tensor(&zero_point).is_err()),
        (_, Some(reals)) => assert_eq!(floats(&zero_point), reals),
        (_, None) => assert_eq!(integers(quantized, &zero_point), params.zero_point()),
    }
    if let Ok(tensor) = quantized.tensor(&zero_point) {
        assert_eq!(tensor.shape(), params.shape());
    }

    let fake: Vec<Vec<u8>> = chopi
        .fake_quantize(x)
        .unwrap()
        .iter()
        .map(|&v| v.le())
        .collect();
    let given: Vec<Vec<u8>> = elements::<F>(back, name).into_iter().map(F::le).collect();
    assert_eq!(given, fake, "{name} {builder:?}");
    assert!(back.tensor(&format!("{name}.scale")).is_err());
    assert!(back.tensor(&zero_point).is_err());
}

fn check_noise<F: Stored>(
    shape: &[usize],
    builder: &chopi::Builder,
    quantized: &SafeTensors<'_>,
    back: &SafeTensors<'_>,
) where
    ArrayD<F>: FloatTensor<NdArray, Owned = ArrayD<F>>,
    <ArrayD<F> as FloatTensor<NdArray>>::Int: IntTensor<NdArray>,
{
    check(
        &name::<F>(shape),
        &noise::<F>(shape),
        builder,
        quantized,
        back,
    );
}

#[test]
fn dequantize_gives_the_bits_of_fake_quantize_for_every_dtype_and_scheme() {
    let folder = Folder::new();
    let model = add::<f64>(add::<bf16>(add::<f16>(add::<f32>(Model::new()))));
    let input = folder.file("in.safetensors", &model.bytes());
    for (args, builder, floats) in cases() {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        round_trip(&folder, &input, &args, |quantized, back| {
            for (shape, &float) in SHAPES
                .iter()
                .flat_map(|s| floats.iter().map(move |f| (*s, f)))
            {
                match float {
                    FloatType::F16 => check_noise::<f16>(shape, &builder, quantized, back),
                    FloatType::BF16 => check_noise::<bf16>(shape, &builder, quantized, back),
                    FloatType::F32 => check_noise::<f32>(shape, &builder, quantized, back),
                    FloatType::F64 => check_noise::<f64>(shape, &builder, quantized, back),
                }
            }
        });
    }
}

#[test]
fn ranges_are_those_of_the_command_line() {
    let folder = Folder::new();
    let x = noise::<f32>(&[4, 6]);
    let input = folder.file("in.safetensors", &Model::new().array("x", &x).bytes());
    for (range, code_range, dtype) in [
        ("unsigned", CodeRange::Unsigned, Dtype::U8),
        ("signed", CodeRange::Signed, Dtype::I8),
        ("narrow", CodeRange::Narrow, Dtype::I8),
        (
            "-100:100",
            CodeRange::Custom {
                qmin: -100,
                qmax: 100,
            },
            Dtype::I8,
        ),
        (
            "1000:1200",
            CodeRange::Custom {
                qmin: 1000,
                qmax: 1200,
            },
            Dtype::I16,
        ),
    ] {
        let builder = Chopi::builder().range(code_range);
        round_trip(&folder, &input, &["--range", range], |quantized, back| {
            assert_eq!(quantized.tensor("x.codes").unwrap().dtype(), dtype);
            check("x", &x, &builder, quantized, back);
        });
    }
}

#[test]
fn zero_points_beyond_32_bits_are_stored_in_64() {
    let folder = Folder::new();
    let near = noise::<f64>(&[3, 5]);
    let far = near.mapv(|v| v + 10.0);
    let model = Model::new().array("near", &near).array("far", &far);
    let input = folder.file("in.safetensors", &model.bytes());
    let builder = Chopi::builder().num_bits(32).range(CodeRange::Signed);
    let args = ["--bits", "32", "--range", "signed"];
    round_trip(&folder, &input, &args, |quantized, back| {
        let dtype = |name| quantized.tensor(name).unwrap().dtype();
        assert_eq!(dtype("near.zero_point"), Dtype::I32);
        assert_eq!(dtype("far.zero_point"), Dtype::I64);
        check("near", &near, &builder, quantized, back);
        check("far", &far, &builder, quantized, back);
    });
}

#[test]
fn given_parameters_are_used_as_they_are() {
    let folder = Folder::new();
    let model = Model::new().floats("x", &[1, 4], &[-10.0, 0.0, 0.5, 100.0]);
    let input = folder.file("in.safetensors", &model.bytes());
    let args = ["--scale", "0.5", "--zero-point", "3"];
    round_trip(&folder, &input, &args, |quantized, back| {
        assert_eq!(integers(quantized, "x.codes"), [0, 3, 4, 203]);
        assert_eq!(elements::<f32>(quantized, "x.scale"), [0.5]);
        assert_eq!(integers(quantized, "x.zero_point"), [3]);
        assert_eq!(elements::<f32>(back, "x"), [-1.5, 0.0, 0.5, 100.0]);
    });
    round_trip(
        &folder,
        &input,
        &["--scale", "2", "--symmetric"],
        |quantized, _| {
            assert_eq!(integers(quantized, "x.codes"), [-5, 0, 0, 50]);
            assert!(quantized.tensor("x.zero_point").is_err());
        },
    );
}

#[test]
fn other_tensors_and_metadata_come_through_unchanged() {
    let folder = Folder::new();
    let model = Model::new()
        .metadata("format", "pt")
        .metadata("naïve \"key\"", "line\nline")
        .array("weight", &noise::<f32>(&[8, 3]))
        .array("bias", &noise::<f32>(&[8]))
        .array("empty", &noise::<f32>(&[0, 4]))
        .raw("ids", Dtype::I64, &[2, 2], (0..32).collect())
        .raw("fp8", Dtype::F8_E4M3, &[3, 1], vec![1, 2, 3])
        .raw("fp4", Dtype::F4, &[1, 4], vec![9, 8])
        .raw("mask", Dtype::BOOL, &[], vec![1]);
    let input = folder.file("in.safetensors", &model.bytes());
    let original = model.bytes();
    let original = SafeTensors::deserialize(&original).unwrap();
    round_trip(&folder, &input, &[], |quantized, back| {
        for name in ["bias", "empty", "ids", "fp8", "fp4", "mask"] {
            assert_eq!(
                quantized.tensor(name).unwrap(),
                original.tensor(name).unwrap()
            );
            assert_eq!(back.tensor(name).unwrap(), original.tensor(name).unwrap());
        }
        assert_eq!(quantized.len(), original.len() + 2);
        assert_eq!(back.len(), original.len());
    });
    let mut kept = metadata(&fs::read(folder.path("q.safetensors")).unwrap());
    assert!(kept.remove("chopi").is_some());
    assert_eq!(kept, metadata(&model.bytes()));
    let back = metadata(&fs::read(folder.path("back.safetensors")).unwrap());
    assert_eq!(back, metadata(&model.bytes()));
}

#[test]
fn the_output_is_the_same_on_any_number_of_threads() {
    let folder = Folder::new();
    // The first is long enough to be taken in pieces.
    let model = (0..6).fold(
        Model::new().array("large", &noise::<f32>(&[700, 1000])),
        |model, i| model.array(&format!("t{i}"), &noise::<f64>(&[40 + i, 9])),
    );
    let input = folder.file("in.safetensors", &model.bytes());
    let run = |threads: &str| {
        let args = ["--per-channel", "0", "--json", "--threads", threads];
        let (output, back) = (folder.path(threads), folder.path("back"));
        let json = convert_well("quantize", &input, &output, &args);
        convert_well(
            "dequantize",
            &output,
            &back,
            &["--force", "--threads", threads],
        );
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        (
            fs::read(output).unwrap(),
            fs::read(back).unwrap(),
            json["tensors"].clone(),
        )
    };
    let alone = run("1");
    assert_eq!(run("2"), alone);
    assert_eq!(run("5"), alone);
    let x = noise::<f32>(&[700, 1000]);
    let builder = Chopi::builder().per_channel(0);
    check(
        "large",
        &x,
        &builder,
        &SafeTensors::deserialize(&alone.0).unwrap(),
        &SafeTensors::deserialize(&alone.1).unwrap(),
    );
}

#[test]
fn data_at_any_alignment_are_read() {
    let folder = Folder::new();
    let x = noise::<f64>(&[3, 4]);
    let bytes = Model::new().array("x", &x).bytes();
    // The same file with one more space at the end of its header.
    let len = u64::from_le_bytes(bytes[..8].try_into().unwrap());
    let mut shifted = (len + 1).to_le_bytes().to_vec();
    shifted.extend(&bytes[8..8 + len as usize]);
    shifted.push(b' ');
    shifted.extend(&bytes[8 + len as usize..]);
    let input = folder.file("in.safetensors", &shifted);
    round_trip(&folder, &input, &[], |quantized, back| {
        check("x", &x, &Chopi::builder(), quantized, back);
    });
}
