//! The operators of `chopi::ndarray::onnx` give the bits of ONNX's reference evaluator and of ONNX
//! Runtime, but where those two disagree as its documentation says.
//!
//! `onnx/make_onnx_operators.py` wrote `onnx/onnx-operators.safetensors` with them.
//! `CHOPI_VECTORS` names another folder of such a file.

use std::collections::BTreeMap;
use std::fmt::Debug;

use chopi::ndarray::onnx::{
    DequantizableElement, DequantizeAttributes, QuantizeAttributes, QuantizedElement,
    QuantizedType, dequantize_linear, dynamic_quantize_linear, quantize_linear,
};
use chopi::{
    NanPolicy,
    backend::{Float, FloatType, bf16, f16},
};
use chopi_conformance::data::to;
use ndarray::{ArrayD, Dimension, IxDyn};
use serde::Deserialize;

use vectors::Pools;

mod vectors;

/// The settings of a case.
#[derive(Clone, Debug, Deserialize)]
struct Settings {
    operator: String,
    shape: Vec<usize>,
    #[serde(default)]
    x: String,
    #[serde(default)]
    scale: String,
    #[serde(default)]
    scale_shape: Vec<usize>,
    #[serde(default)]
    no_zero_point: bool,
    /// What QuantizeLinear quantizes to.
    #[serde(default)]
    codes: String,
    /// What DequantizeLinear dequantizes to.
    #[serde(default)]
    y: String,
    axis: Option<isize>,
    #[serde(default)]
    block_size: usize,
    precision: Option<String>,
    peers: Vec<String>,
}

fn floats<F: Float>(numbers: &ArrayD<f64>) -> ArrayD<F> {
    numbers.mapv(to)
}

/// An integer type of the operators' arrays.
trait Integer: DequantizableElement + TryFrom<i64, Error: Debug> {}
impl<I: DequantizableElement + TryFrom<i64, Error: Debug>> Integer for I {}

fn integers<I: Integer>(numbers: &ArrayD<f64>) -> ArrayD<I> {
    numbers.mapv(|n| I::try_from(n as i64).unwrap())
}

fn float_type(name: &str) -> FloatType {
    match name {
        "f16" => FloatType::F16,
        "bf16" => FloatType::BF16,
        "f32" => FloatType::F32,
        other => panic!("{other}"),
    }
}

fn quantized_type(name: &str) -> QuantizedType {
    use QuantizedType::*;
    let all = [Int2, Uint2, Int4, Uint4, Int8, Uint8, Int16, Uint16];
    all.into_iter().find(|t| t.to_string() == name).unwrap()
}

/// The inputs of QuantizeLinear and DequantizeLinear.
struct Inputs {
    x: ArrayD<f64>,
    scale: ArrayD<f64>,
    zero_point: Option<ArrayD<f64>>,
}

impl Settings {
    fn inputs(&self, pools: &mut Pools) -> Inputs {
        let zero_type = if self.operator == "QuantizeLinear" {
            &self.codes
        } else {
            &self.x
        };
        Inputs {
            x: pools.take(&self.x, &self.shape),
            scale: pools.take(&self.scale, &self.scale_shape),
            zero_point: (!self.no_zero_point).then(|| pools.take(zero_type, &self.scale_shape)),
        }
    }

    fn axis(&self) -> isize {
        self.axis.unwrap_or(DequantizeAttributes::default().axis)
    }

    /// The type that this peer rounds x/s to.
    fn precision_of(&self, peer: &str) -> Option<FloatType> {
        match (&self.precision, peer) {
            (_, "onnxruntime") => Some(FloatType::F32),
            (Some(name), _) => Some(float_type(name)),
            (None, _) if self.x == self.scale => None,
            (None, _) => Some(FloatType::F32),
        }
    }

    /// Whether the kernel that ONNX Runtime takes saturates beyond 2^31.
    fn saturates(&self) -> bool {
        let rows = self.block_size == 0
            || self.axis().rem_euclid(self.shape.len() as isize) + 1 == self.shape.len() as isize;
        self.x == "f32" && rows && quantized_type(&self.codes).bits() >= 8
    }
}

/// What was compared, and what differs.
#[derive(Default)]
struct Tally {
    comparisons: usize,
    values: usize,
    /// How many differ as the documentation says.
    documented: usize,
    /// How many differ otherwise.
    differences: usize,
    lines: Vec<String>,
}

impl Tally {
    /// Compares to the bit, but for the payloads of NaN. `documented` says whether the documentation
    /// has the peer give this number at this index.
    fn compare(
        &mut self,
        at: &str,
        got: &ArrayD<f64>,
        expected: &ArrayD<f64>,
        documented: impl Fn(&IxDyn, f64) -> bool,
    ) {
        assert_eq!(got.shape(), expected.shape(), "{at}");
        self.comparisons += 1;
        self.values += got.len();
        for (index, got) in got.indexed_iter() {
            let expected = expected[&index];
            if got.to_bits() == expected.to_bits() || got.is_nan() && expected.is_nan() {
                continue;
            }
            if documented(&index, expected) {
                self.documented += 1;
                continue;
            }
            self.differences += 1;
            if self.lines.len() < 12 {
                let index = index.slice();
                let line = format!("{at}: at {index:?}: {got:e}, not {expected:e}");
                self.lines.push(line);
            }
        }
    }
}

/// Evaluates with `$F` the float type, or `$I` the integer type, of this name.
macro_rules! with_float {
    ($name:expr, $F:ident => $value:expr) => {
        match float_type($name) {
            FloatType::F16 => {
                type $F = f16;
                $value
            }
            FloatType::BF16 => {
                type $F = bf16;
                $value
            }
            _ => {
                type $F = f32;
                $value
            }
        }
    };
}
macro_rules! with_integer {
    ($name:expr, $I:ident => $value:expr) => {
        match $name {
            "int8" | "int4" | "int2" => {
                type $I = i8;
                $value
            }
            "uint8" | "uint4" | "uint2" => {
                type $I = u8;
                $value
            }
            "int16" => {
                type $I = i16;
                $value
            }
            _ => {
                type $I = u16;
                $value
            }
        }
    };
}

fn quantize<A, S, Z>(
    settings: &Settings,
    inputs: &Inputs,
    precision: Option<FloatType>,
) -> ArrayD<f64>
where
    A: Float<Compute = f32>,
    S: Float<Compute = f32>,
    Z: Integer + QuantizedElement,
{
    let output = quantized_type(&settings.codes);
    let attributes = QuantizeAttributes {
        axis: settings.axis(),
        block_size: settings.block_size,
        output_dtype: (output != Z::QUANTIZED).then_some(output),
        precision,
        nan: NanPolicy::ZeroPoint,
    };
    let zero_point = inputs.zero_point.as_ref().map(integers::<Z>);
    let (x, scale) = (floats::<A>(&inputs.x), floats::<S>(&inputs.scale));
    let codes: ArrayD<Z> = quantize_linear(&x, &scale, zero_point.as_deref(), &attributes).unwrap();
    codes.mapv(|q| q.to_i64() as f64)
}

fn dequantize<I, S, O>(settings: &Settings, inputs: &Inputs) -> ArrayD<f64>
where
    I: Integer,
    S: Float<Compute = f32>,
    O: Float<Compute = f32>,
{
    let attributes = DequantizeAttributes {
        axis: settings.axis(),
        block_size: settings.block_size,
    };
    let zero_point = inputs.zero_point.as_ref().map(integers::<I>);
    let (x, scale) = (integers::<I>(&inputs.x), floats::<S>(&inputs.scale));
    let values: ArrayD<O> =
        dequantize_linear(&x, &scale, zero_point.as_deref(), &attributes).unwrap();
    values.mapv(|y| y.widen().into())
}

/// For each element the number of its group.
fn spread(settings: &Settings, groups: &ArrayD<f64>) -> ArrayD<f64> {
    let axis = settings.axis();
    ArrayD::from_shape_fn(settings.shape.as_slice(), |mut index| {
        if settings.block_size == 0 {
            let axis = axis.rem_euclid(index.ndim().max(1) as isize) as usize;
            let group = if groups.len() == 1 { 0 } else { index[axis] };
            return *groups.iter().nth(group).unwrap();
        }
        let axis = axis.rem_euclid(index.ndim() as isize) as usize;
        index[axis] /= settings.block_size;
        groups[index]
    })
}

/// What the kernels that do not saturate give: the conversion to int32 turns NaN and what int32
/// does not hold into its smallest number, and the sum wraps around.
fn wrapped(v: f64, z: f64, (qmin, qmax): (i64, i64)) -> f64 {
    let v = v.round_ties_even();
    let held = (-2_f64.powi(31)..2_f64.powi(31)).contains(&v);
    let v = if held { v as i32 } else { i32::MIN };
    let sum = i64::from(v.wrapping_add(z as i32));
    sum.clamp(qmin, qmax) as f64
}

fn check_quantize(
    at: &str,
    settings: &Settings,
    pools: &mut Pools,
    tallies: &mut BTreeMap<String, Tally>,
) {
    let inputs = settings.inputs(pools);
    let bounds = quantized_type(&settings.codes).bounds();
    let scales = spread(settings, &inputs.scale);
    let zeros = match &inputs.zero_point {
        Some(zero_point) => spread(settings, zero_point),
        None => ArrayD::zeros(inputs.x.shape()),
    };
    for peers in &settings.peers {
        let expected = pools.take(&settings.codes, &settings.shape);
        for peer in peers.split('=') {
            let precision = settings.precision_of(peer);
            let v = {
                let precision = precision.unwrap_or(float_type(&settings.scale));
                let rounded = |numbers: &ArrayD<f64>| numbers.mapv(|n| precision.round(n));
                (rounded(&inputs.x) / rounded(&scales)).mapv(|v| precision.round(v))
            };
            let got = with_float!(&settings.x, A => with_float!(&settings.scale, S => {
                with_integer!(&*settings.codes, Z => quantize::<A, S, Z>(settings, &inputs, precision))
            }));
            let documented = |index: &IxDyn, given: f64| {
                let v = v[index];
                let nan_is_qmin = v.is_nan() && given == bounds.0 as f64;
                let saturates = peer == "onnxruntime" && settings.saturates();
                let beyond = v.is_nan() || v.abs() >= f64::from(1 << 30);
                let wraps = beyond && !saturates && given == wrapped(v, zeros[index], bounds);
                nan_is_qmin || wraps
            };
            let tally = tallies
                .entry(format!(
                    "QuantizeLinear {peer} {} {}",
                    settings.x, settings.codes
                ))
                .or_default();
            tally.compare(&format!("{at}, {peer}"), &got, &expected, documented);
        }
    }
}

fn check_dequantize(
    at: &str,
    settings: &Settings,
    pools: &mut Pools,
    tallies: &mut BTreeMap<String, Tally>,
) {
    let inputs = settings.inputs(pools);
    let got = with_float!(&settings.scale, S => with_float!(&settings.y, O => match &*settings.x {
        "int32" => dequantize::<i32, S, O>(settings, &inputs),
        codes => with_integer!(codes, I => dequantize::<I, S, O>(settings, &inputs)),
    }));
    for peers in &settings.peers {
        let expected = pools.take(&settings.y, &settings.shape);
        for peer in peers.split('=') {
            let tally = tallies
                .entry(format!(
                    "DequantizeLinear {peer} {} {}",
                    settings.x, settings.y
                ))
                .or_default();
            tally.compare(&format!("{at}, {peer}"), &got, &expected, |_, _| false);
        }
    }
}

fn check_dynamic(
    at: &str,
    settings: &Settings,
    pools: &mut Pools,
    tallies: &mut BTreeMap<String, Tally>,
) {
    let x = pools.take("f32", &settings.shape);
    let (y, scale, zero_point) = dynamic_quantize_linear(&floats::<f32>(&x)).unwrap();
    let number = |n: f64| ArrayD::from_elem(IxDyn(&[]), n);
    // The reference evaluator's scale is 1/255 there.
    let all_zero = |peer: &str| peer == "reference" && x.iter().all(|&x| x == 0.0);
    for peers in &settings.peers {
        let expected = ["uint8", "f32", "uint8"];
        let shapes = [&*settings.shape, &[], &[]];
        let [codes, scales, zeros] = [0, 1, 2].map(|i| pools.take(expected[i], shapes[i]));
        for peer in peers.split('=') {
            let at = format!("{at}, {peer}");
            let tally = tallies
                .entry(format!("DynamicQuantizeLinear {peer}"))
                .or_default();
            tally.compare(&at, &y.mapv(f64::from), &codes, |_, _| false);
            tally.compare(&at, &number(scale.into()), &scales, |_, _| all_zero(peer));
            tally.compare(&at, &number(zero_point.into()), &zeros, |_, _| false);
        }
    }
}

#[test]
fn operators_give_the_bits_of_the_reference_evaluator_and_of_onnx_runtime() {
    let (cases, mut pools) = vectors::load::<Settings>("onnx-operators");
    assert!(!cases.is_empty());
    let mut tallies = BTreeMap::new();
    for (index, settings) in cases.iter().enumerate() {
        let at = format!("case {index} ({settings:?})");
        let check = match &*settings.operator {
            "QuantizeLinear" => check_quantize,
            "DequantizeLinear" => check_dequantize,
            _ => check_dynamic,
        };
        check(&at, settings, &mut pools, &mut tallies);
    }
    assert!(pools.is_empty());
    let mut lines = Vec::new();
    for (row, tally) in &tallies {
        let Tally {
            comparisons,
            values,
            documented,
            differences,
            ..
        } = tally;
        println!(
            "{row}: {comparisons} comparisons, {values} values, {differences} differences, \
             {documented} documented ones"
        );
        lines.extend(&tally.lines);
    }
    let sum = |of: fn(&Tally) -> usize| tallies.values().map(of).sum::<usize>();
    println!(
        "{} cases, {} values, {} differences, {} documented ones",
        cases.len(),
        sum(|t| t.values),
        sum(|t| t.differences),
        sum(|t| t.documented)
    );
    assert!(lines.is_empty(), "{lines:#?}");
}
