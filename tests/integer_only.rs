//! Layers without a float operation give the codes of their definition, the same on ndarray and candle.

use candle_core::{DType, Device, Tensor};
use chopi::matmul::requantize::{DoubleRounded, FixedMultiplier, OutputCodes, SingleRounded};
use chopi::matmul::{Error, FixedRounding, IntegerOnlyLinear};
use chopi::{Chopi, QParams};
use ndarray::Array2;
use proptest::prelude::*;

/// Weights [outputs, inputs], a bias and an input [rows, inputs].
#[derive(Clone, Debug)]
struct Case {
    weights: Array2<f32>,
    bias: Option<Vec<f32>>,
    x: Array2<f32>,
    per_output: bool,
    symmetric_weights: bool,
    rounding: FixedRounding,
}

fn cases() -> impl Strategy<Value = Case> {
    let array = |rows, columns| {
        let values = prop::collection::vec(-3.0..3.0_f32, rows * columns);
        values.prop_map(move |values| Array2::from_shape_vec((rows, columns), values).unwrap())
    };
    (1_usize..9, 1_usize..40, 1_usize..40).prop_flat_map(move |(rows, inputs, outputs)| {
        (
            array(outputs, inputs),
            prop::option::of(prop::collection::vec(-9.0..9.0_f32, outputs)),
            array(rows, inputs),
            any::<bool>(),
            any::<bool>(),
            prop::sample::select(vec![FixedRounding::Double, FixedRounding::Single]),
        )
            .prop_map(
                |(weights, bias, x, per_output, symmetric_weights, rounding)| Case {
                    weights,
                    bias,
                    x,
                    per_output,
                    symmetric_weights,
                    rounding,
                },
            )
    })
}

fn tensor(x: &Array2<f32>) -> Tensor {
    let x = x.as_standard_layout();
    Tensor::from_slice(x.as_slice().unwrap(), x.dim(), &Device::Cpu).unwrap()
}

impl Case {
    fn weight_quantizer(&self) -> Chopi {
        let builder = Chopi::builder()
            .num_bits(8)
            .symmetric(self.symmetric_weights);
        let builder = match self.per_output {
            true => builder.per_channel(0),
            false => builder.per_tensor(),
        };
        builder.build().unwrap()
    }

    /// The rounded products a·m, one by one.
    fn wide(&self, output_scale: f64) -> Vec<i32> {
        let (mut weights, mut input) = (self.weight_quantizer(), Chopi::new(8).unwrap());
        let w = weights.quantize(&self.weights).unwrap().to_i64();
        let x = input.quantize(&self.x).unwrap().to_i64();
        let (w_params, x_params) = (weights.params().unwrap(), input.params().unwrap());
        let (w_scales, w_zeros) = (w_params.scale(), w_params.zero_point());
        let (x_scale, x_zero) = (x_params.scale()[0], x_params.zero_point()[0]);
        let mut all = Vec::new();
        for row in x.rows() {
            for (j, column) in w.rows().into_iter().enumerate() {
                let group = j % w_scales.len();
                let unit = x_scale * w_scales[group];
                let products = row.iter().zip(&column);
                let sum: i64 = products
                    .map(|(x, w)| (x - x_zero) * (w - w_zeros[group]))
                    .sum();
                let bias = self.bias.as_ref().map_or(0.0, |bias| f64::from(bias[j]));
                let sum = (sum + (bias / unit).round_ties_even() as i64) as i32;
                let m = FixedMultiplier::from_real(unit / output_scale).unwrap();
                all.push(match self.rounding {
                    FixedRounding::Double => DoubleRounded(m).scale(sum),
                    FixedRounding::Single => SingleRounded(m).scale(sum),
                });
            }
        }
        all
    }

    fn layers(&self, output_scale: f64) -> [(IntegerOnlyLinear, QParams); 2] {
        let bias = self.bias.as_deref();
        let mut input = Chopi::new(8).unwrap();
        input.calibrate(&self.x).unwrap();
        let input = input.params().unwrap().clone();
        let mut weights = self.weight_quantizer();
        let on_ndarray = weights.quantize(&self.weights).unwrap();
        let params = weights.params().unwrap().clone();
        let on_candle = weights.quantize(&tensor(&self.weights)).unwrap();
        let first =
            IntegerOnlyLinear::new(&on_ndarray, &params, bias, &input, output_scale).unwrap();
        let second =
            IntegerOnlyLinear::new(&on_candle, &params, bias, &input, output_scale).unwrap();
        let layer = |layer: IntegerOnlyLinear| (layer.with_rounding(self.rounding), input.clone());
        [layer(first), layer(second)]
    }
}

proptest! {
    #[test]
    fn codes_are_those_of_the_definition_on_every_backend(
        case in cases(), output_scale in -6.0..3.0_f64, zero_point: u8, relu: bool,
    ) {
        let output_scale = output_scale.exp2();
        let wide = case.wide(output_scale);
        let [(on_ndarray, input), (on_candle, _)] = case.layers(output_scale);
        let (x, y) = (input.quantize(&case.x).unwrap(), input.quantize(&tensor(&case.x)).unwrap());
        prop_assert_eq!(&on_ndarray.forward_wide(&x).unwrap(), &wide);
        prop_assert_eq!(&on_candle.forward_wide(&y).unwrap(), &wide);

        let codes = OutputCodes::new(zero_point);
        let codes = if relu { codes.clamped(zero_point, 255).unwrap() } else { codes };
        let (min, max) = codes.bounds();
        let expected: Vec<u8> = wide
            .iter()
            .map(|&scaled| (i64::from(scaled) + i64::from(zero_point)).clamp(min.into(), max.into()) as u8)
            .collect();
        prop_assert_eq!(&on_ndarray.forward(&x, codes).unwrap(), &expected);
        prop_assert_eq!(&on_candle.forward(&y, codes).unwrap(), &expected);
    }
}

#[test]
fn a_layer_is_about_what_it_is_in_floats() {
    let case = Case {
        weights: Array2::from_shape_fn((5, 30), |(j, k)| {
            ((7 * j + 3 * k) % 11) as f32 / 11.0 - 0.5
        }),
        bias: Some(vec![0.3, -0.2, 0.0, 1.0, -1.0]),
        x: Array2::from_shape_fn((4, 30), |(i, k)| ((5 * i + k) % 17) as f32 / 17.0 - 0.3),
        per_output: true,
        symmetric_weights: true,
        rounding: FixedRounding::Single,
    };
    let y = case.x.dot(&case.weights.t());
    let y = y + ndarray::aview1(case.bias.as_ref().unwrap());
    let mut output = Chopi::new(8).unwrap();
    let codes = output.quantize(&y).unwrap();
    let params = output.params().unwrap();
    let [(layer, input), _] = case.layers(params.scale()[0]);
    let x = input.quantize(&case.x).unwrap();
    let got = layer
        .forward(&x, OutputCodes::new(params.zero_point()[0] as u8))
        .unwrap();
    for (got, expected) in got.into_iter().zip(codes.to_i64()) {
        assert!((i64::from(got) - expected).abs() <= 2, "{got}, {expected}");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let weights = ndarray::array![[0.5_f32, -1.0], [2.0, 1.0]];
    let mut quantizer = Chopi::builder()
        .num_bits(8)
        .symmetric(true)
        .build()
        .unwrap();
    let codes = quantizer.quantize(&weights).unwrap();
    let params = quantizer.params().unwrap().clone();
    let mut per_row = Chopi::builder().num_bits(8).per_channel(0).build().unwrap();
    per_row.calibrate(&weights).unwrap();
    let mut input = Chopi::new(8).unwrap();
    let x = input.quantize(&weights).unwrap();
    let input = input.params().unwrap().clone();
    let new = |bias: Option<&[f32]>, input: &QParams, scale: f64| {
        IntegerOnlyLinear::new(&codes, &params, bias, input, scale)
    };
    let rows = per_row.params().unwrap();
    assert!(matches!(
        new(None, rows, 1.0),
        Err(Error::StaticActivations { groups: 2 })
    ));
    assert!(matches!(
        new(Some(&[1.0]), &input, 1.0),
        Err(Error::Length { .. })
    ));
    assert!(matches!(
        new(Some(&[1e9, 0.0]), &input, 1.0),
        Err(Error::BiasCode { output: 0, .. })
    ));
    assert!(matches!(
        new(Some(&[0.0, f32::NAN]), &input, 1.0),
        Err(Error::BiasCode { output: 1, .. })
    ));
    assert!(matches!(
        new(None, &input, 0.0),
        Err(Error::OutputScale { .. })
    ));
    let layer = new(None, &input, 1.0).unwrap();
    assert_eq!((layer.inputs(), layer.outputs()), (2, 2));
    assert!(layer.forward_wide(&x).is_ok());
    let wide = Tensor::zeros((2, 3), DType::U8, &Device::Cpu).unwrap();
    assert!(layer.forward_wide(&wide).is_err());
    let outside = Tensor::full(300_i64, (1, 2), &Device::Cpu).unwrap();
    assert!(layer.forward(&outside, OutputCodes::new(u8::MIN)).is_err());
}
