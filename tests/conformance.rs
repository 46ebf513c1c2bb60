//! The named conventions give the bits of the real libraries.
//!
//! `conformance/make_vectors.py` wrote `conformance/<convention>.safetensors` with those libraries.
//! Every backend that is compiled in computes every case, and so does the path composed from device
//! operations. `CHOPI_VECTORS` names another folder of such files.

use chopi::{
    Convention,
    backend::{Compute, Float, FloatType, bf16, f16},
};
use chopi_conformance::data::to;
use chopi_conformance::vectors::{self, Case, Differences, Tensors, Values};
use ndarray::ArrayD;

/// The cases of a convention.
fn cases(convention: &Convention) -> Vec<Case> {
    let folder = std::env::var("CHOPI_VECTORS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance").to_owned());
    let bytes = std::fs::read(format!("{folder}/{}.safetensors", convention.name())).unwrap();
    vectors::read(&bytes).unwrap().1
}

fn on_ndarray<F: Float>(case: &Case, convention: Convention, at: &str) -> Differences {
    let tensors = Tensors {
        make: |values: &Values| {
            let data = values.data.iter().map(|&x| to::<F>(x)).collect();
            ArrayD::from_shape_vec(values.shape.as_slice(), data).unwrap()
        },
        codes: |q: &chopi::ndarray::IntArray<F, _>| {
            q.to_i64().into_iter().map(|q| q as f64).collect()
        },
        floats: |y: &ArrayD<F>| y.iter().map(|y| y.widen().as_f64()).collect(),
    };
    case.compare(convention, tensors, at)
}

#[cfg(feature = "candle")]
mod on_candle {
    use candle_core::{DType, Device, Tensor};
    use chopi::candle::{Candle, OnDevice};
    use chopi_conformance::{Composed, OnDevice as NoHost};

    use super::*;

    fn make(float: FloatType) -> impl Fn(&Values) -> Tensor {
        let dtype = match float {
            FloatType::F16 => DType::F16,
            FloatType::BF16 => DType::BF16,
            FloatType::F32 => DType::F32,
            FloatType::F64 => DType::F64,
        };
        move |values| {
            let Values { shape, data } = values.clone();
            let x = Tensor::from_vec(data, shape, &Device::Cpu).unwrap();
            x.to_dtype(dtype).unwrap()
        }
    }

    fn read(tensor: &Tensor) -> Vec<f64> {
        let tensor = tensor.to_dtype(DType::F64).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    pub fn compare(case: &Case, convention: Convention, at: &str) -> Differences {
        let make = make(case.float);
        let tensors = Tensors {
            make: &make,
            codes: read,
            floats: read,
        };
        let mut differences =
            case.compare::<Candle, _>(convention, tensors, &format!("{at}, candle"));
        let read = |x: &Composed<OnDevice>| read(&x.0.0);
        let tensors = Tensors {
            make: |values: &Values| Composed(OnDevice(make(values))),
            codes: read,
            floats: read,
        };
        let at = format!("{at}, candle, composed");
        differences.add(case.compare::<NoHost<Candle>, _>(convention, tensors, &at));
        differences
    }
}

#[cfg(feature = "tch")]
mod on_tch {
    use chopi::tch::{LibTorch, OnDevice};
    use chopi_conformance::{Composed, OnDevice as NoHost};
    use tch::{Kind, Tensor};

    use super::*;

    fn make(float: FloatType) -> impl Fn(&Values) -> Tensor {
        let kind = match float {
            FloatType::F16 => Kind::Half,
            FloatType::BF16 => Kind::BFloat16,
            FloatType::F32 => Kind::Float,
            FloatType::F64 => Kind::Double,
        };
        move |values| {
            let shape: Vec<i64> = values.shape.iter().map(|&n| n as i64).collect();
            Tensor::from_slice(&values.data)
                .reshape(&shape)
                .to_kind(kind)
        }
    }

    fn read(tensor: &Tensor) -> Vec<f64> {
        let tensor = tensor.to_kind(Kind::Double).contiguous().view(-1);
        tensor.try_into().unwrap()
    }

    pub fn compare(case: &Case, convention: Convention, at: &str) -> Differences {
        let make = make(case.float);
        let tensors = Tensors {
            make: &make,
            codes: read,
            floats: read,
        };
        let mut differences =
            case.compare::<LibTorch, _>(convention, tensors, &format!("{at}, tch"));
        let read = |x: &Composed<OnDevice>| read(&x.0.0);
        let tensors = Tensors {
            make: |values: &Values| Composed(OnDevice(make(values))),
            codes: read,
            floats: read,
        };
        let at = format!("{at}, tch, composed");
        differences.add(case.compare::<NoHost<LibTorch>, _>(convention, tensors, &at));
        differences
    }
}

fn check(convention: Convention) {
    let mut differences = Differences::default();
    for (index, case) in cases(&convention).iter().enumerate() {
        let at = format!("case {index} ({:?})", case.settings);
        let on_array = match case.float {
            FloatType::F16 => on_ndarray::<f16>,
            FloatType::BF16 => on_ndarray::<bf16>,
            FloatType::F32 => on_ndarray::<f32>,
            FloatType::F64 => on_ndarray::<f64>,
        };
        differences.add(on_array(case, convention, &at));
        #[cfg(feature = "candle")]
        differences.add(on_candle::compare(case, convention, &at));
        #[cfg(feature = "tch")]
        differences.add(on_tch::compare(case, convention, &at));
    }
    println!(
        "{}: {} cases, {} values",
        convention.name(),
        differences.cases,
        differences.values
    );
    assert!(differences.values > 0);
    assert!(!differences.any(), "{}:\n{differences}", convention.name());
}

#[test]
fn pychop_is_that_of_its_numpy_backend() {
    check(Convention::PYCHOP);
}

#[test]
fn pychop_torch_is_that_of_its_torch_backend() {
    check(Convention::PYCHOP_TORCH);
}

#[test]
fn pychop_jax_is_that_of_its_jax_backend() {
    check(Convention::PYCHOP_JAX);
}

#[test]
fn torch_is_observers_and_quantize() {
    check(Convention::TORCH);
}

#[test]
fn torch_fake_is_observers_and_fake_quantize() {
    check(Convention::TORCH_FAKE);
}

#[test]
fn onnx_is_onnx_runtime_and_its_tool() {
    check(Convention::ONNX);
}

#[test]
fn compressed_tensors_is_its_quantize_and_fake_quantize() {
    check(Convention::COMPRESSED_TENSORS);
}

#[test]
fn tflite_is_the_converter_and_the_reference_kernel() {
    check(Convention::TFLITE);
}

#[test]
fn aqt_is_its_quantizer_jitted() {
    check(Convention::AQT);
}

#[test]
fn every_convention_but_the_own_has_vectors() {
    for convention in &Convention::ALL[1..] {
        assert!(!cases(convention).is_empty(), "{}", convention.name());
    }
}
