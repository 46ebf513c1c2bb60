//! GPTQ, AWQ and SmoothQuant against NumPy's float64: `data/make_vectors.py` wrote `data/vectors.safetensors` by
//! their definitions. `CHOPI_VECTORS` names a folder with another such file, as the script says.

mod support;

use std::path::{Path, PathBuf};

use chopi_core::{Chopi, Convention, Scheme};
use chopi_formats::archive::Archive;
use chopi_formats::element::Element;
use chopi_ndarray::NdArray;
use chopi_ptq::{Choice, Method, Moments, awq_scales, quantize, smooth_scales};
use ndarray::Array2;
use serde_json::Value;
use support::{second, trace};

struct Vectors(Archive);

impl Vectors {
    fn open() -> Self {
        let committed = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data");
        let folder = std::env::var_os("CHOPI_VECTORS").map_or(committed, PathBuf::from);
        Self(Archive::open(&folder.join("vectors.safetensors")).unwrap())
    }

    fn list<T: Element>(&self, name: &str) -> Vec<T> {
        self.0.tensors[name].elements().unwrap()
    }

    fn matrix<T: Element>(&self, name: &str) -> Array2<T> {
        let shape = &self.0.tensors[name].shape;
        Array2::from_shape_vec((shape[0], shape[1]), self.list(name)).unwrap()
    }

    fn cases(&self) -> Vec<Value> {
        serde_json::from_str(&self.0.metadata["cases"]).unwrap()
    }

    fn moments(&self) -> Moments {
        let x: Array2<f32> = self.matrix("x");
        let mut moments = Moments::new(x.ncols()).unwrap();
        moments.observe(&x).unwrap();
        moments
    }
}

fn scheme_of(case: &Value) -> Scheme {
    let builder = Chopi::builder().num_bits(case["bits"].as_u64().unwrap() as u32);
    let builder = builder.symmetric(case["symmetric"].as_bool().unwrap());
    builder
        .per_group(case["group"].as_u64().unwrap() as usize, 1)
        .scheme()
        .unwrap()
}

/// The cases whose method has a name that begins so, with their indices and methods.
fn cases_of<'a>(cases: &'a [Value], name: &str) -> Vec<(usize, &'a Value, Method)> {
    let named = |case: &&Value| case["method"].as_str().unwrap().to_owned();
    let of_name = cases
        .iter()
        .enumerate()
        .filter(|(_, case)| named(case).starts_with(name));
    of_name
        .map(|(i, case)| (i, case, named(&case).parse().unwrap()))
        .collect()
}

#[test]
fn codes_of_gptq_are_those_of_numpy() {
    let vectors = Vectors::open();
    let (moments, w) = (vectors.moments(), vectors.matrix::<f32>("w"));
    let h = second(&moments);
    let wide = w.mapv(f64::from);
    let cases = vectors.cases();
    let cases = cases_of(&cases, "gptq");
    assert_eq!(cases.len(), 10);
    for (index, case, method) in cases {
        let done = quantize(&w, &moments, &scheme_of(case), &Convention::CHOPI, &method).unwrap();
        assert_eq!(done.choice, Choice::Method, "{case}");
        let expected: Array2<i8> = vectors.matrix(&format!("{index}.codes"));
        let equal = done
            .codes
            .to_i64()
            .iter()
            .zip(&expected)
            .filter(|(a, b)| **a == i64::from(**b))
            .count();
        let values = done.params.dequantize::<NdArray, _>(&done.codes).unwrap();
        let error = trace(&(&wide - &values.mapv(f64::from)), &h) / trace(&wide, &h);
        let theirs: f64 = vectors.list(&format!("{index}.error"))[0];
        println!(
            "{case}: {} of {} codes differ, error {error:.6}, NumPy {theirs:.6}",
            w.len() - equal,
            w.len()
        );
        assert!(
            equal as f64 >= 0.999 * w.len() as f64,
            "{case}: {equal} of {}",
            w.len()
        );
        assert!(
            (error / theirs - 1.0).abs() < 0.005,
            "{case}: {error} {theirs}"
        );
        assert!((done.error.chosen / error - 1.0).abs() < 1e-9, "{case}");
    }
}

#[test]
fn scales_of_awq_are_those_of_numpy() {
    let vectors = Vectors::open();
    let moments = vectors.moments();
    let (w, v) = (vectors.matrix::<f32>("w"), vectors.matrix::<f32>("v"));
    let cases = vectors.cases();
    let cases = cases_of(&cases, "awq");
    assert_eq!(cases.len(), 5);
    for (index, case, method) in cases {
        let scales = awq_scales(
            &[&w, &v],
            &moments,
            &scheme_of(case),
            &Convention::CHOPI,
            &method,
        )
        .unwrap();
        let expected: Vec<f64> = vectors.list(&format!("{index}.scales"));
        for (s, t) in scales.iter().zip(&expected) {
            assert!((s / t - 1.0).abs() < 1e-5, "{case}: {s} {t}");
        }
    }
}

#[test]
fn scales_of_smoothquant_are_those_of_numpy() {
    let vectors = Vectors::open();
    let moments = vectors.moments();
    let (w, v) = (vectors.matrix::<f32>("w"), vectors.matrix::<f32>("v"));
    for (index, case, alpha) in [(15, 0, 0.5), (16, 1, 0.8)] {
        assert_eq!(
            vectors.cases()[index]["method"],
            format!("smoothquant:{alpha}"),
            "{case}"
        );
        let scales = smooth_scales(&[&w, &v], &moments, alpha).unwrap();
        let expected: Vec<f64> = vectors.list(&format!("{index}.scales"));
        for (s, t) in scales.iter().zip(&expected) {
            assert!((s / t - 1.0).abs() < 1e-12, "{s} {t}");
        }
    }
}
