//! Tensors that are no plain memory: they are read as libtorch reads them, or refused.

use chopi_core::backend::DeviceTensor;
use chopi_core::training::{CheckpointTensor, FakeQuantizer, Phase, Ste};
use chopi_core::{Chopi, QParams, observer::Ranges};
use chopi_tch::OnDevice;
use chopi_tch::nn::fake_quantize;
use tch::{Device, Kind, Tensor};

fn calibrated() -> QParams {
    let x = Tensor::from_slice(&[-4.0_f32, 3.0, 1.5, 0.25]);
    let mut chopi = Chopi::new(8).unwrap();
    chopi.calibrate(&x).unwrap();
    chopi.into_params().unwrap()
}

/// What libtorch itself says that the elements are.
fn plain(x: &Tensor) -> Tensor {
    let mut plain = Tensor::zeros(x.size(), (x.kind(), Device::Cpu));
    plain.copy_(&x.detach());
    plain
}

fn equal(a: &Tensor, b: &Tensor) -> bool {
    a.kind() == b.kind() && a.size() == b.size() && a.equal(b)
}

#[test]
fn marked_tensors_have_the_elements_that_libtorch_says() {
    let complex = Tensor::complex(
        &Tensor::from_slice(&[1.0_f32, 2.0, -3.0]),
        &Tensor::from_slice(&[2.0_f32, -0.5, 0.75]),
    );
    let negated = complex.conj().imag();
    assert!(negated.is_neg());
    // With gaps, dense, of no memory, with a gradient, and of several at once.
    let dense = Tensor::from_slice(&[2.0_f32, 1.0]).internal_neg_view();
    let transposed = Tensor::from_slice(&[2.0_f32, 1.0, -3.0, 0.5])
        .reshape([2, 2])
        .tr();
    let zeros = Tensor::internal_efficientzerotensor([2, 3], (Kind::Float, Device::Cpu));
    let learned = Tensor::from_slice(&[1.0_f32, -2.0]).set_requires_grad(true);
    assert!(zeros.internal_is_zerotensor() && dense.is_neg());
    let params = calibrated();
    for x in [
        negated,
        dense,
        transposed.internal_neg_view(),
        zeros,
        learned,
    ] {
        let expected = plain(&x);
        let codes = params.quantize(&x).unwrap();
        assert!(equal(&codes, &params.quantize(&expected).unwrap()), "{x:?}");
        let values = params.fake_quantize(&x).unwrap();
        assert!(
            equal(&values, &params.fake_quantize(&expected).unwrap()),
            "{x:?}"
        );
        let ranges = Ranges::observe(&x, params.scheme().granularity).unwrap();
        assert_eq!(ranges.min()[0], expected.min().double_value(&[]));
        let y = fake_quantize(&x, &params, Ste::Clipped).unwrap();
        assert!(equal(&y.detach(), &values), "{x:?}");
    }
    // Codes too.
    let codes = Tensor::from_slice(&[-3_i64, -200]).internal_neg_view();
    let values = params.dequantize(&codes).unwrap();
    assert!(equal(&values, &params.dequantize(&plain(&codes)).unwrap()));
}

#[test]
fn what_has_no_strides_or_no_elements_is_refused() {
    let x = Tensor::from_slice(&[1.0_f32, 0.0, -2.0, 0.5]).reshape([2, 2]);
    let none: Option<i64> = None;
    let blocks: Option<&[i64]> = None;
    let mut all = vec![
        ("undefined", Tensor::new()),
        ("sparse", x.to_sparse(None, blocks, none)),
        ("csr", x.to_sparse_csr(none)),
        ("quantized", x.quantize_per_tensor(0.5, 3, Kind::QUInt8)),
        ("complex", Tensor::complex(&x, &x)),
        ("bool", x.gt(0.0)),
    ];
    if let Ok(mkldnn) = x.f_to_mkldnn(None) {
        all.push(("mkldnn", mkldnn));
    }
    // A column of two numbers, and one of three.
    let table = |numbers: [i64; 4]| Tensor::from_slice(&numbers).reshape([2, 2]);
    let buffer = Tensor::from_slice(&[1.0_f32, 2.0, 3.0, 4.0, 5.0]);
    let (sizes, strides) = (table([2, 1, 3, 1]), table([1, 1, 1, 1]));
    let starts = Tensor::from_slice(&[0_i64, 2]);
    let nested = buffer.internal_nested_view_from_buffer(&sizes, &strides, &starts);
    all.push(("nested", nested));
    let params = calibrated();
    for (name, x) in &all {
        let mut chopi = Chopi::new(8).unwrap();
        let errors = [
            chopi.calibrate(x).unwrap_err(),
            chopi.quantize(x).unwrap_err(),
            params.quantize(x).unwrap_err(),
            params.fake_quantize(x).unwrap_err(),
            params.dequantize(x).unwrap_err(),
            Ranges::observe(x, params.scheme().granularity).unwrap_err(),
            fake_quantize(x, &params, Ste::Clipped).unwrap_err(),
            FakeQuantizer::new(Chopi::new(8).unwrap())
                .step(x, Phase::Training)
                .unwrap_err(),
        ];
        for error in errors {
            assert!(!error.to_string().is_empty(), "{name}");
        }
        assert!(chopi.params().is_none(), "{name}");
    }
    assert!(all.len() >= 8, "{}", all.len());
}

#[test]
fn marked_tensors_on_other_devices_and_as_indices_are_read_as_libtorch_reads_them() {
    let marked = |kind| {
        [
            Tensor::internal_efficientzerotensor([4], (kind, Device::Cpu)),
            Tensor::from_slice(&[-1_i64, -2, 0])
                .to_kind(kind)
                .internal_neg_view(),
        ]
    };
    for x in marked(Kind::Double) {
        let expected = Vec::<f64>::try_from(plain(&x)).unwrap();
        assert_eq!(OnDevice(x.shallow_clone()).to_host().unwrap(), expected);
        let bytes: Vec<u8> = expected.iter().flat_map(|x| x.to_ne_bytes()).collect();
        assert_eq!(OnDevice(x).to_bytes().unwrap(), bytes);
    }
    let error = OnDevice(Tensor::new()).to_host().unwrap_err().to_string();
    assert!(error.contains("undefined tensor"), "{error}");
}

#[cfg(feature = "matmul")]
#[test]
fn marked_indices_name_the_rows_that_libtorch_says() {
    use chopi_tch::QuantizedEmbedding;
    let table = Tensor::from_slice(&[1.0_f32, 2.0, 3.0]).reshape([3, 1]);
    let embedding = QuantizedEmbedding::from_table(&table, Chopi::new(8).unwrap()).unwrap();
    for indices in [
        Tensor::internal_efficientzerotensor([4], (Kind::Int64, Device::Cpu)),
        Tensor::from_slice(&[-1_i64, -2, 0]).internal_neg_view(),
    ] {
        let rows = embedding.f_forward(&indices).unwrap();
        let expected = embedding.f_forward(&plain(&indices)).unwrap();
        assert!(equal(&rows, &expected), "{indices:?}");
    }
}
