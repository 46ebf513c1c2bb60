//! The operators of `chopi::ndarray::onnx` that multiply give the bits of ONNX's reference evaluator and
//! of ONNX Runtime, but where the evaluator rounds otherwise, as their documentation says.
//!
//! `onnx/make_onnx_products.py` wrote `onnx/onnx-products.safetensors` with them.
//! `CHOPI_VECTORS` names another folder of such a file.

use std::collections::BTreeMap;

use chopi::backend::{Float, FloatType, f16};
use chopi::matmul::requantize::Code;
use chopi::ndarray::onnx::{
    AutoPad, ConvAttributes, Quantized, conv_integer, matmul_integer, qlinear_conv, qlinear_matmul,
};
use chopi_conformance::data::to;
use ndarray::{Array1, ArrayD, Dimension, Ix3, Ix4, Ix5, IxDyn};
use serde::Deserialize;

use vectors::Pools;

mod vectors;

/// The settings of a case.
#[derive(Clone, Debug, Deserialize)]
struct Settings {
    operator: String,
    a: String,
    b: String,
    shapes: [Vec<usize>; 2],
    /// The shapes of the scales and zero points, if there are any.
    parameters: [Option<Vec<usize>>; 2],
    #[serde(default)]
    scale: String,
    /// The type of the output.
    #[serde(default)]
    y: String,
    #[serde(default)]
    bias: bool,
    #[serde(default)]
    attributes: Attributes,
    peers: Vec<String>,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
struct Attributes {
    auto_pad: Option<String>,
    dilations: Vec<usize>,
    group: Option<usize>,
    kernel_shape: Vec<usize>,
    pads: Vec<usize>,
    strides: Vec<usize>,
}

impl From<Attributes> for ConvAttributes {
    fn from(attributes: Attributes) -> Self {
        Self {
            auto_pad: match attributes.auto_pad.as_deref() {
                None | Some("NOTSET") => AutoPad::NotSet,
                Some("SAME_UPPER") => AutoPad::SameUpper,
                Some("SAME_LOWER") => AutoPad::SameLower,
                Some("VALID") => AutoPad::Valid,
                Some(other) => panic!("{other}"),
            },
            dilations: attributes.dilations,
            group: attributes.group.unwrap_or(1),
            kernel_shape: attributes.kernel_shape,
            pads: attributes.pads,
            strides: attributes.strides,
        }
    }
}

/// An operand, as numbers.
struct Operand {
    codes: ArrayD<f64>,
    scale: Option<ArrayD<f64>>,
    zero_point: Option<ArrayD<f64>>,
}

fn integers<I: TryFrom<i32, Error: std::fmt::Debug>>(numbers: &ArrayD<f64>) -> ArrayD<I> {
    numbers.mapv(|n| I::try_from(n as i32).unwrap())
}

fn numbers<I: Copy + Into<i32>, D: Dimension>(integers: &ndarray::Array<I, D>) -> ArrayD<f64> {
    let integers: ArrayD<I> = integers.clone().into_dyn();
    integers.mapv(|n| f64::from(n.into()))
}

/// An operand with its types.
struct Typed<T, S> {
    codes: ArrayD<T>,
    scale: ArrayD<S>,
    zero_point: ArrayD<T>,
}

impl Operand {
    fn typed<T: Code + TryFrom<i32, Error: std::fmt::Debug>, S: Float>(&self) -> Typed<T, S> {
        Typed {
            codes: integers(&self.codes),
            scale: self.scale.as_ref().unwrap().mapv(to),
            zero_point: integers(self.zero_point.as_ref().unwrap()),
        }
    }
}

/// What the output of a case is computed from.
struct Inputs {
    a: Operand,
    b: Operand,
    y: Option<(f64, f64)>,
    bias: Option<ArrayD<f64>>,
}

impl Settings {
    /// Takes what `make_onnx_products.py` says, in the order of the operator's inputs.
    fn inputs(&self, pools: &mut Pools) -> Inputs {
        let quantized = self.operator.starts_with("QLinear");
        let [a_shape, b_shape] = &self.shapes;
        let [a_each, b_each] = &self.parameters;
        if !quantized {
            let (a, b) = (pools.take(&self.a, a_shape), pools.take(&self.b, b_shape));
            let operand = |codes, zero_point| Operand {
                codes,
                scale: None,
                zero_point,
            };
            let a_zero = a_each.as_ref().map(|each| pools.take(&self.a, each));
            let b_zero = b_each.as_ref().map(|each| pools.take(&self.b, each));
            return Inputs {
                a: operand(a, a_zero),
                b: operand(b, b_zero),
                y: None,
                bias: None,
            };
        }
        let mut operand = |kind: &str, shape: &[usize], each: &Option<Vec<usize>>| {
            let each = each.as_ref().unwrap();
            Operand {
                codes: pools.take(kind, shape),
                scale: Some(pools.take(&self.scale, each)),
                zero_point: Some(pools.take(kind, each)),
            }
        };
        let (a, b) = (
            operand(&self.a, a_shape, a_each),
            operand(&self.b, b_shape, b_each),
        );
        let y = (
            pools.take(&self.scale, &[])[IxDyn(&[])],
            pools.take(&self.y, &[])[IxDyn(&[])],
        );
        let bias = self.bias.then(|| pools.take("int32", &b_shape[..1]));
        Inputs {
            a,
            b,
            y: Some(y),
            bias,
        }
    }
}

/// Evaluates with `$T` the integer type of this name.
macro_rules! with_code {
    ($name:expr, $T:ident => $value:expr) => {
        if $name == "int8" {
            type $T = i8;
            $value
        } else {
            type $T = u8;
            $value
        }
    };
}

/// Evaluates with the arrays in the dimension type of convolutions of this rank.
macro_rules! with_rank {
    ($rank:expr, $D:ident => $value:expr) => {
        match $rank {
            3 => {
                type $D = Ix3;
                $value
            }
            4 => {
                type $D = Ix4;
                $value
            }
            5 => {
                type $D = Ix5;
                $value
            }
            rank => panic!("{rank} axes"),
        }
    };
}

/// The exact sums of the operator that they are of.
fn sums(settings: &Settings, inputs: &Inputs) -> ArrayD<f64> {
    with_code!(settings.a, A => with_code!(settings.b, B => {
        let (a, b) = (integers::<A>(&inputs.a.codes), integers::<B>(&inputs.b.codes));
        let a_zero = inputs.a.zero_point.as_ref().map(integers::<A>);
        let b_zero = inputs.b.zero_point.as_ref().map(integers::<B>);
        if settings.operator.ends_with("MatMul") || settings.operator == "MatMulInteger" {
            let y = matmul_integer(&a, &b, a_zero.as_deref(), b_zero.as_deref()).unwrap();
            return numbers(&y);
        }
        let attributes = settings.attributes.clone().into();
        let a_zero = a_zero.map(|zero| zero[IxDyn(&[])]);
        with_rank!(a.ndim(), D => {
            let a = a.into_dimensionality::<D>().unwrap();
            let b = b.into_dimensionality::<D>().unwrap();
            numbers(&conv_integer(&a, &b, a_zero, b_zero.as_deref(), &attributes).unwrap())
        })
    }))
}

fn requantized<A, B, Y, S>(settings: &Settings, inputs: &Inputs) -> ArrayD<f64>
where
    A: Code + TryFrom<i32, Error: std::fmt::Debug>,
    B: Code + TryFrom<i32, Error: std::fmt::Debug>,
    Y: Code + TryFrom<i32, Error: std::fmt::Debug>,
    S: Float<Compute = f32>,
{
    let (a, b) = (inputs.a.typed::<A, S>(), inputs.b.typed::<B, S>());
    let (y_scale, y_zero) = inputs.y.unwrap();
    let (y_scale, y_zero): (S, Y) = (to(y_scale), Y::try_from(y_zero as i32).unwrap());
    if settings.operator == "QLinearMatMul" {
        let quantized = Quantized {
            codes: &*a.codes,
            scale: &*a.scale,
            zero_point: &*a.zero_point,
        };
        let right = Quantized {
            codes: &*b.codes,
            scale: &*b.scale,
            zero_point: &*b.zero_point,
        };
        return numbers(&qlinear_matmul(&quantized, &right, y_scale, y_zero).unwrap());
    }
    let bias = inputs.bias.as_ref();
    let bias = bias.map(|bias| bias.iter().map(|&b| b as i32).collect::<Array1<i32>>());
    let attributes = settings.attributes.clone().into();
    with_rank!(a.codes.ndim(), D => {
        let x = a.codes.into_dimensionality::<D>().unwrap();
        let w = b.codes.into_dimensionality::<D>().unwrap();
        let x = Quantized { codes: &*x, scale: &*a.scale, zero_point: &*a.zero_point };
        let w = Quantized { codes: &*w, scale: &*b.scale, zero_point: &*b.zero_point };
        numbers(&qlinear_conv(&x, &w, y_scale, y_zero, bias.as_deref(), &attributes).unwrap())
    })
}

/// What the reference evaluator computes of the exact sums: RNE(C·m + z_y) in `f64`, with m rounded to
/// the type of the scales. Only where the parameters are those of the whole operands, or of columns or
/// channels.
fn reference(settings: &Settings, inputs: &Inputs, sums: &ArrayD<f64>) -> ArrayD<f64> {
    let float = match &*settings.scale {
        "f16" => FloatType::F16,
        _ => FloatType::F32,
    };
    let (y_scale, y_zero) = inputs.y.unwrap();
    let (a, b) = (
        inputs.a.scale.as_ref().unwrap(),
        inputs.b.scale.as_ref().unwrap(),
    );
    let conv = settings.operator == "QLinearConv";
    let b = match conv && b.len() > 1 {
        true => b.to_shape(IxDyn(&[1, b.len(), 1, 1])).unwrap().to_owned(),
        false => b.clone(),
    };
    let m = (a * &b).mapv(|product| float.round(float.round(product) / y_scale));
    let bias = inputs.bias.as_ref().map(|bias| {
        let shape: Vec<usize> = (0..sums.ndim())
            .map(|axis| if axis == 1 { bias.len() } else { 1 })
            .collect();
        bias.to_shape(shape).unwrap().to_owned()
    });
    let sums = bias.map_or_else(|| sums.clone(), |bias| sums + &bias);
    let (min, max) = match &*settings.y {
        "int8" => (-128.0, 127.0),
        _ => (0.0, 255.0),
    };
    (&sums * &m).mapv(|product| (product + y_zero).round_ties_even().clamp(min, max))
}

/// What was compared.
#[derive(Debug, Default)]
struct Tally {
    comparisons: usize,
    values: usize,
    /// How many differ as the documentation says.
    documented: usize,
    differences: usize,
}

#[test]
fn products_give_the_bits_of_the_reference_evaluator_and_of_onnx_runtime() {
    let (cases, mut pools) = vectors::load::<Settings>("onnx-products");
    assert!(!cases.is_empty());
    let (mut tallies, mut lines) = (BTreeMap::<String, Tally>::new(), Vec::new());
    for (number, settings) in cases.iter().enumerate() {
        let inputs = settings.inputs(&mut pools);
        let sums = sums(settings, &inputs);
        let quantized = inputs.y.is_some();
        let got = match (quantized, &*settings.scale) {
            (false, _) => sums.clone(),
            (true, scale) => {
                with_code!(settings.a, A => with_code!(settings.b, B => with_code!(settings.y, Y => {
                    match scale {
                        "f16" => requantized::<A, B, Y, f16>(settings, &inputs),
                        _ => requantized::<A, B, Y, f32>(settings, &inputs),
                    }
                })))
            }
        };
        let kind = if quantized { &*settings.y } else { "int32" };
        for peers in &settings.peers {
            let expected = pools.take(kind, got.shape());
            for peer in peers.split('=') {
                let evaluator =
                    (quantized && peer == "reference").then(|| reference(settings, &inputs, &sums));
                let row = format!("{} {peer} {} {}", settings.operator, settings.a, settings.b);
                let tally = tallies.entry(row).or_default();
                tally.comparisons += 1;
                tally.values += got.len();
                for (index, &got) in got.indexed_iter() {
                    let given = expected[&index];
                    match &evaluator {
                        _ if got == given && evaluator.is_none() => {}
                        Some(evaluator) if evaluator[&index] == given => {
                            tally.documented += usize::from(got != given);
                        }
                        _ => {
                            tally.differences += 1;
                            lines.push(format!(
                                "case {number} ({settings:?}), {peer}, at {index:?}: {got}, not {given}"
                            ));
                        }
                    }
                }
            }
        }
    }
    assert!(pools.is_empty());
    for (row, tally) in &tallies {
        let Tally {
            comparisons,
            values,
            documented,
            differences,
        } = tally;
        println!(
            "{row}: {comparisons} comparisons, {values} values, {differences} differences, \
             {documented} documented ones"
        );
    }
    lines.truncate(12);
    assert!(lines.is_empty(), "{lines:#?}");
}
