//! The named conventions give the bits of the real libraries.
//!
//! `conformance/make_vectors.py` wrote `conformance/<convention>.safetensors` with those libraries.
//! Every backend that is compiled in computes every case, and so does the path composed from device
//! operations. `CHOPI_VECTORS` names another folder of such files.

use std::fmt::Display;

use chopi::{
    Backend, Chopi, CodeRange, Convention, Float, FloatTensor, FloatType, Granularity, IntTensor,
    QParams, bf16, f16,
};
use chopi_conformance::data::to;
use ndarray::ArrayD;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

/// The settings of a case.
#[derive(Debug, Deserialize)]
struct Settings {
    float: String,
    bits: u32,
    symmetric: bool,
    qmin: i64,
    qmax: i64,
    granularity: Option<String>,
    axis: Option<isize>,
    size: Option<usize>,
    shape: Vec<usize>,
}

/// Elements in row-major order, as the `f64` that equal them.
#[derive(Clone, Debug)]
struct Values {
    shape: Vec<usize>,
    data: Vec<f64>,
}

/// A case: inputs, and what the library gave.
#[derive(Debug)]
struct Case {
    settings: Settings,
    float: FloatType,
    /// What to calibrate on, or none where the parameters are given.
    data: Option<Values>,
    x: Values,
    scale: Vec<f64>,
    zero_point: Vec<f64>,
    codes: Option<Vec<f64>>,
    dequantized: Option<Vec<f64>>,
    fake_quantized: Option<Vec<f64>>,
}

/// What chopi gives.
struct Outcome {
    codes: Vec<f64>,
    dequantized: Vec<f64>,
    fake_quantized: Vec<f64>,
}

/// The numbers of a tensor; none of its types has one that `f64` does not.
fn values(tensors: &SafeTensors<'_>, name: &str) -> Option<Values> {
    fn read<const N: usize>(bytes: &[u8], number: impl Fn([u8; N]) -> f64) -> Vec<f64> {
        let (numbers, _) = bytes.as_chunks();
        numbers.iter().map(|&bytes| number(bytes)).collect()
    }
    let tensor = tensors.tensor(name).ok()?;
    let bytes = tensor.data();
    let data = match tensor.dtype() {
        Dtype::F16 => read(bytes, |b| f16::from_le_bytes(b).to_f64()),
        Dtype::BF16 => read(bytes, |b| bf16::from_le_bytes(b).to_f64()),
        Dtype::F32 => read(bytes, |b| f32::from_le_bytes(b).into()),
        Dtype::F64 => read(bytes, f64::from_le_bytes),
        Dtype::I8 => read(bytes, |b| i8::from_le_bytes(b).into()),
        Dtype::U8 => read(bytes, |b| u8::from_le_bytes(b).into()),
        Dtype::I16 => read(bytes, |b| i16::from_le_bytes(b).into()),
        Dtype::U16 => read(bytes, |b| u16::from_le_bytes(b).into()),
        Dtype::I32 => read(bytes, |b| i32::from_le_bytes(b).into()),
        other => panic!("{name} is of type {other}"),
    };
    Some(Values {
        shape: tensor.shape().to_vec(),
        data,
    })
}

/// The cases of a convention.
fn cases(convention: &Convention) -> Vec<Case> {
    let folder = std::env::var("CHOPI_VECTORS")
        .unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance").to_owned());
    let bytes = std::fs::read(format!("{folder}/{}.safetensors", convention.name)).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&bytes).unwrap();
    let settings: Vec<Settings> =
        serde_json::from_str(&metadata.metadata().as_ref().unwrap()["cases"]).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let case = |(index, settings): (usize, Settings)| {
        let get = |name: &str| values(&tensors, &format!("{index}.{name}"));
        let data = |name: &str| get(name).map(|values| values.data);
        let float = match settings.float.as_str() {
            "f16" => FloatType::F16,
            "bf16" => FloatType::BF16,
            "f32" => FloatType::F32,
            _ => FloatType::F64,
        };
        Case {
            settings,
            float,
            data: get("data"),
            x: get("x").unwrap(),
            scale: data("scale").unwrap(),
            zero_point: data("zero_point").unwrap(),
            codes: data("codes"),
            dequantized: data("dequantized"),
            fake_quantized: data("fake_quantized"),
        }
    };
    settings.into_iter().enumerate().map(case).collect()
}

impl Case {
    /// The quantizer, not calibrated.
    fn chopi(&self, convention: Convention) -> Chopi {
        let Settings {
            bits,
            symmetric,
            qmin,
            qmax,
            axis,
            size,
            ..
        } = self.settings;
        let axis = axis.unwrap_or(0);
        let granularity = match self.settings.granularity.as_deref() {
            None => Granularity::PerTensor,
            Some("channel") => Granularity::PerChannel { axis },
            _ => Granularity::PerGroup {
                axis,
                size: size.unwrap(),
            },
        };
        Chopi::builder()
            .num_bits(bits)
            .symmetric(symmetric)
            .range(CodeRange::Custom { qmin, qmax })
            .granularity(granularity)
            .convention(convention)
            .build()
            .unwrap()
    }

    /// The quantizer with the library's parameters.
    fn with_given_parameters(&self, convention: Convention) -> chopi::Result<Chopi> {
        let scheme = self.chopi(convention).scheme().clone();
        let (shape, scale) = (self.settings.shape.clone(), self.scale.clone());
        let zeros = self.zero_point.clone();
        let real = convention == Convention::PYCHOP_TORCH && !self.settings.symmetric;
        let params = if real {
            QParams::with_real_zero_points(scheme, convention, self.float, shape, scale, zeros)
        } else {
            let zeros = zeros.into_iter().map(|z| z as i64).collect();
            QParams::new(scheme, convention, self.float, shape, scale, zeros)
        };
        params.map(Chopi::from_params)
    }

    /// The scale and the zero point of the group of the element at this index.
    fn parameters_at(&self, index: usize) -> (f64, f64) {
        let shape = &self.x.shape;
        let axis = self.settings.axis.unwrap_or(0) as usize;
        let inner: usize = shape[axis + 1..].iter().product();
        let position = index / inner % shape[axis];
        let group = match (self.settings.granularity.as_deref(), self.settings.size) {
            (None, _) => 0,
            (_, None) => position,
            (_, Some(size)) => {
                let groups = shape[axis].div_ceil(size);
                let outer = index / inner / shape[axis];
                (outer * groups + position / size) * inner + index % inner
            }
        };
        (self.scale[group], self.zero_point[group])
    }
}

/// What differs, as one line each; at most a few of a kind.
#[derive(Default)]
struct Differences {
    values: usize,
    count: usize,
    lines: Vec<String>,
}

impl Differences {
    fn add(&mut self, line: impl Display) {
        self.count += 1;
        if self.lines.len() < 12 {
            self.lines.push(line.to_string());
        }
    }

    /// Compares to the bit.
    fn compare(&mut self, at: &str, what: &str, case: &Case, got: &[f64], expected: &[f64]) {
        if got.len() != expected.len() {
            return self.add(format!(
                "{at}: {what}: {} values for {}",
                got.len(),
                expected.len()
            ));
        }
        self.values += got.len();
        for (index, (got, expected)) in got.iter().zip(expected).enumerate() {
            if got.to_bits() != expected.to_bits() {
                let (s, z) = case.parameters_at(index);
                let x = case.x.data[index];
                self.add(format!(
                    "{at}: {what}[{index}]: x {x:e}, s {s:e}, z {z}: {got:e}, not {expected:e}"
                ));
            }
        }
    }

    fn compare_parameters(&mut self, at: &str, case: &Case, params: &QParams) {
        let zeros: Vec<f64> = match params.real_zero_point() {
            Some(reals) => reals.to_vec(),
            None => params.zero_point().iter().map(|&z| z as f64).collect(),
        };
        for (what, got, expected) in [
            ("scale", params.scale(), &case.scale),
            ("zero point", &zeros, &case.zero_point),
        ] {
            self.values += got.len();
            // Zero points are numbers: the sign of a zero does not count.
            if got != expected {
                let at = format!("{at}: {what}");
                match got.iter().zip(expected).position(|(got, e)| got != e) {
                    Some(group) => self.add(format!(
                        "{at} {group}: {:e}, not {:e}",
                        got[group], expected[group]
                    )),
                    None => self.add(format!("{at}: {} for {}", got.len(), expected.len())),
                }
            }
        }
    }

    fn compare_outcome(&mut self, at: &str, case: &Case, got: chopi::Result<Outcome>) {
        let got = match got {
            Ok(got) => got,
            Err(error) => return self.add(format!("{at}: {error}")),
        };
        // A library may have one of the two only; they are equal.
        let both = [&case.dequantized, &case.fake_quantized];
        let of = |at: usize| both[at].as_ref().or(both[1 - at].as_ref());
        for (what, got, expected) in [
            ("codes", &got.codes, case.codes.as_ref()),
            ("dequantized", &got.dequantized, of(0)),
            ("fake-quantized", &got.fake_quantized, of(1)),
        ] {
            if let Some(expected) = expected {
                self.compare(at, what, case, got, expected);
            }
        }
    }
}

/// Quantizes, dequantizes and fake-quantizes on one backend, given how to read its tensors.
fn run<B: Backend, T: FloatTensor<B>>(
    chopi: &mut Chopi,
    x: &T,
    codes: impl Fn(&T::Int) -> Vec<f64>,
    floats: impl Fn(&<T::Int as IntTensor<B>>::Float) -> Vec<f64>,
) -> chopi::Result<Outcome> {
    let q = chopi.quantize(x)?;
    Ok(Outcome {
        codes: codes(&q),
        dequantized: floats(&chopi.dequantize(&q)?),
        fake_quantized: floats(&chopi.fake_quantize(x)?),
    })
}

fn array<F: Float>(values: &Values) -> ArrayD<F> {
    let data = values.data.iter().map(|&x| to(x)).collect();
    ArrayD::from_shape_vec(values.shape.as_slice(), data).unwrap()
}

fn on_ndarray<F: Float>(
    case: &Case,
    convention: Convention,
    at: &str,
    differences: &mut Differences,
) {
    use chopi::Compute;

    let given = case.with_given_parameters(convention);
    let mut chopi = match given {
        Ok(chopi) => chopi,
        Err(error) => return differences.add(format!("{at}: given parameters: {error}")),
    };
    if let Some(data) = &case.data {
        let mut calibrated = case.chopi(convention);
        match calibrated.calibrate(&array::<F>(data)) {
            Ok(()) => differences.compare_parameters(at, case, calibrated.params().unwrap()),
            Err(error) => differences.add(format!("{at}: calibration: {error}")),
        }
    }
    let outcome = run(
        &mut chopi,
        &array::<F>(&case.x),
        |q| q.to_i64().iter().map(|&q| q as f64).collect(),
        |y: &ArrayD<F>| y.iter().map(|y| y.widen().as_f64()).collect(),
    );
    differences.compare_outcome(at, case, outcome);
}

#[cfg(feature = "candle")]
mod on_candle {
    use candle_core::{DType, Device, Tensor};
    use chopi::candle::{Candle, OnDevice};
    use chopi_conformance::{Composed, OnDevice as NoHost};

    use super::*;

    fn read(tensor: &Tensor) -> Vec<f64> {
        let tensor = tensor.to_dtype(DType::F64).unwrap();
        tensor.flatten_all().unwrap().to_vec1().unwrap()
    }

    pub fn compare(case: &Case, chopi: &mut Chopi, at: &str, differences: &mut Differences) {
        let dtype = match case.float {
            FloatType::F16 => DType::F16,
            FloatType::BF16 => DType::BF16,
            FloatType::F32 => DType::F32,
            FloatType::F64 => DType::F64,
        };
        let Values { shape, data } = case.x.clone();
        let x = Tensor::from_vec(data, shape, &Device::Cpu).unwrap();
        let x = x.to_dtype(dtype).unwrap();
        let outcome = run(chopi, &x, read, read);
        differences.compare_outcome(&format!("{at}, candle"), case, outcome);
        let x = Composed(OnDevice(x));
        let outcome = run::<NoHost<Candle>, _>(chopi, &x, |q| read(&q.0.0), |y| read(&y.0.0));
        differences.compare_outcome(&format!("{at}, candle, composed"), case, outcome);
    }
}

#[cfg(feature = "tch")]
mod on_tch {
    use chopi::tch::{LibTorch, OnDevice};
    use chopi_conformance::{Composed, OnDevice as NoHost};
    use tch::{Kind, Tensor};

    use super::*;

    fn read(tensor: &Tensor) -> Vec<f64> {
        let tensor = tensor.to_kind(Kind::Double).contiguous().view(-1);
        tensor.try_into().unwrap()
    }

    pub fn compare(case: &Case, chopi: &mut Chopi, at: &str, differences: &mut Differences) {
        let kind = match case.float {
            FloatType::F16 => Kind::Half,
            FloatType::BF16 => Kind::BFloat16,
            FloatType::F32 => Kind::Float,
            FloatType::F64 => Kind::Double,
        };
        let shape: Vec<i64> = case.x.shape.iter().map(|&n| n as i64).collect();
        let x = Tensor::from_slice(&case.x.data).reshape(&shape);
        let x = x.to_kind(kind);
        let outcome = run(chopi, &x, read, read);
        differences.compare_outcome(&format!("{at}, tch"), case, outcome);
        let x = Composed(OnDevice(x));
        let outcome = run::<NoHost<LibTorch>, _>(chopi, &x, |q| read(&q.0.0), |y| read(&y.0.0));
        differences.compare_outcome(&format!("{at}, tch, composed"), case, outcome);
    }
}

fn check(convention: Convention) {
    let mut differences = Differences::default();
    let cases = cases(&convention);
    assert!(!cases.is_empty());
    for (index, case) in cases.iter().enumerate() {
        let at = format!("case {index} ({:?})", case.settings);
        let on_array = match case.float {
            FloatType::F16 => on_ndarray::<f16>,
            FloatType::BF16 => on_ndarray::<bf16>,
            FloatType::F32 => on_ndarray::<f32>,
            FloatType::F64 => on_ndarray::<f64>,
        };
        on_array(case, convention, &at, &mut differences);
        #[cfg(any(feature = "candle", feature = "tch"))]
        if let Ok(mut chopi) = case.with_given_parameters(convention) {
            #[cfg(feature = "candle")]
            on_candle::compare(case, &mut chopi, &at, &mut differences);
            #[cfg(feature = "tch")]
            on_tch::compare(case, &mut chopi, &at, &mut differences);
        }
    }
    let Differences {
        values,
        count,
        lines,
    } = differences;
    println!(
        "{}: {} cases, {values} numbers, {count} differences",
        convention.name,
        cases.len()
    );
    assert_eq!(count, 0, "{}:\n{}", convention.name, lines.join("\n"));
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
        assert!(!cases(convention).is_empty(), "{}", convention.name);
    }
}
