//! Convolutions in integers give the same bits on ndarray and candle, and those of their definition.

use candle_core::{Device, Tensor};
use candle_nn::{Conv1d, Conv1dConfig, Conv2d, Conv2dConfig, Module};
use chopi::candle::{self, conv1d_params, conv2d_params};
use chopi::matmul::conv::{ConvParams, QuantizedConv};
use chopi::matmul::{Activations, Error};
use chopi::{Chopi, Convention};
use ndarray::{Array4, ArrayD, Axis};
use proptest::prelude::*;

/// A convolution along two axes; along one where the last lengths are 1.
#[derive(Clone, Debug)]
struct Case {
    x: Array4<f32>,
    weights: Array4<f32>,
    bias: Option<Vec<f32>>,
    config: Conv2dConfig,
    per_channel: bool,
    is_static: bool,
    relu: bool,
}

fn array(shape: [usize; 4]) -> impl Strategy<Value = Array4<f32>> {
    let values = prop::collection::vec(-3.0..3.0_f32, shape.iter().product::<usize>());
    values.prop_map(move |values| Array4::from_shape_vec(shape, values).unwrap())
}

fn cases() -> impl Strategy<Value = Case> {
    let sizes = (
        1_usize..4,
        1_usize..3,
        1_usize..4,
        1_usize..3,
        1_usize..4,
        0_usize..4,
    );
    let config = (0_usize..2, 1_usize..3, 1_usize..3);
    (sizes, config, any::<[bool; 4]>()).prop_flat_map(
        |((batch, groups, depth, channels, kernel, extra), (padding, stride, dilation), flags)| {
            let side = (kernel - 1) * dilation + 1 + extra;
            let channels = channels * groups;
            let config = Conv2dConfig {
                padding,
                stride,
                dilation,
                groups,
                ..Default::default()
            };
            (
                array([batch, depth * groups, side, side + 1]),
                array([channels, depth, kernel, kernel]),
                prop::collection::vec(-2.0..2.0_f32, channels),
            )
                .prop_map(move |(x, weights, bias)| Case {
                    x,
                    weights,
                    bias: flags[0].then_some(bias),
                    config,
                    per_channel: flags[1],
                    is_static: flags[2],
                    relu: flags[3],
                })
        },
    )
}

fn tensor<D: ndarray::Dimension>(x: &ndarray::Array<f32, D>) -> Tensor {
    let x = x.as_standard_layout();
    Tensor::from_slice(x.as_slice().unwrap(), x.shape(), &Device::Cpu).unwrap()
}

impl Case {
    fn weight_quantizer(&self) -> Chopi {
        let builder = Chopi::builder().num_bits(8).symmetric(true);
        let builder = match self.per_channel {
            true => builder.per_channel(0),
            false => builder.per_tensor(),
        };
        builder.build().unwrap()
    }

    /// For an image of its own.
    fn input_quantizer(&self, image: &ArrayD<f32>) -> Chopi {
        let builder = Chopi::builder().num_bits(8).symmetric(false);
        let builder = match self.is_static || self.config.padding > 0 {
            true => builder.include_zero(),
            false => builder,
        };
        let mut quantizer = builder.build().unwrap();
        match self.is_static {
            true => quantizer.calibrate(&self.x).unwrap(),
            false => quantizer.calibrate(image).unwrap(),
        }
        quantizer
    }

    fn activations(&self) -> Activations {
        match self.is_static {
            true => {
                let quantizer = self.input_quantizer(&self.x.clone().into_dyn());
                Activations::Static(quantizer.params().unwrap().clone())
            }
            false => Activations::Dynamic(Chopi::builder()),
        }
    }

    /// Sums of 64 bits, scaled in `f32`.
    fn definition(&self) -> Vec<f32> {
        let mut weights = self.weight_quantizer();
        let w = weights.quantize(&self.weights).unwrap().to_i64();
        let w_params = weights.params().unwrap();
        let Conv2dConfig {
            padding,
            stride,
            dilation,
            groups,
            ..
        } = self.config;
        let (channels, depth, kernel, _) = self.weights.dim();
        let (_, _, height, width) = self.x.dim();
        let span = (kernel - 1) * dilation + 1;
        let out = |len: usize| (len + 2 * padding - span) / stride + 1;
        let mut y = Vec::new();
        for image in self.x.axis_iter(Axis(0)) {
            let image = image.to_owned().into_dyn();
            let mut quantizer = self.input_quantizer(&image);
            let x = quantizer.quantize(&image).unwrap().to_i64();
            let params = quantizer.params().unwrap();
            for m in 0..channels {
                let group = if w_params.scale().len() == 1 { 0 } else { m };
                for (i, j) in (0..out(height)).flat_map(|i| (0..out(width)).map(move |j| (i, j))) {
                    let mut sum = 0;
                    for ((c, k, l), &w) in w.index_axis(Axis(0), m).indexed_iter() {
                        let row = (i * stride + k * dilation).wrapping_sub(padding);
                        let column = (j * stride + l * dilation).wrapping_sub(padding);
                        if row < height && column < width {
                            let channel = m / (channels / groups) * depth + c;
                            sum += (x[[channel, row, column]] - params.zero_point()[0]) * w;
                        }
                    }
                    let scale = params.scale()[0] as f32 * w_params.scale()[group] as f32;
                    let value = sum as f32 * scale;
                    let value = self.bias.as_ref().map_or(value, |bias| value + bias[m]);
                    y.push(if self.relu && value < 0.0 { 0.0 } else { value });
                }
            }
        }
        y
    }

    fn params(&self) -> ConvParams {
        conv2d_params(&self.config)
    }
}

proptest! {
    #[test]
    fn convolutions_are_those_of_the_definition_on_every_backend(case in cases()) {
        let expected = case.definition();
        let mut weights = case.weight_quantizer();
        let codes = weights.quantize(&case.weights).unwrap();
        let params = weights.params().unwrap();
        let layer = QuantizedConv::new(&codes, params, case.params(), case.activations()).unwrap();
        let layer = match &case.bias {
            Some(bias) => layer.with_bias(bias.clone()).unwrap(),
            None => layer,
        };
        let layer = if case.relu { layer.with_clamp(0.0, f32::INFINITY) } else { layer };
        let y = layer.forward(&case.x).unwrap();
        prop_assert_eq!(y.iter().copied().collect::<Vec<f32>>(), expected.clone());
        // Another order in memory.
        let reversed = case.x.t().as_standard_layout().into_owned();
        prop_assert_eq!(&layer.forward(&reversed.t()).unwrap(), &y);

        let bias = case.bias.as_ref().map(|bias| Tensor::new(bias.as_slice(), &Device::Cpu).unwrap());
        let float = Conv2d::new(tensor(&case.weights), bias, case.config);
        let module = candle::QuantizedConv::from_conv2d(&float, case.weight_quantizer(), case.activations()).unwrap();
        let module = if case.relu { module.with_clamp(0.0, f32::INFINITY) } else { module };
        let y = module.forward(&tensor(&case.x)).unwrap();
        prop_assert_eq!(y.flatten_all().unwrap().to_vec1::<f32>().unwrap(), expected);
    }
}

#[test]
fn a_convolution_along_one_axis_is_that_along_two_of_which_one_has_length_one() {
    let x = Array4::from_shape_fn((2, 4, 1, 9), |(n, c, _, i)| {
        ((n + 3 * c + 5 * i) % 7) as f32 - 2.5
    });
    let w = Array4::from_shape_fn((6, 2, 1, 3), |(m, c, _, k)| {
        ((m + 2 * c + 3 * k) % 5) as f32 - 1.5
    });
    let (x1, w1) = (
        tensor(&x).squeeze(2).unwrap(),
        tensor(&w).squeeze(2).unwrap(),
    );
    let config = Conv1dConfig {
        stride: 2,
        groups: 2,
        ..Default::default()
    };
    let weights = || {
        let builder = Chopi::builder().num_bits(8).symmetric(true).per_channel(0);
        builder.build().unwrap()
    };
    let layer = Conv1d::new(w1, None, config);
    let one =
        candle::QuantizedConv::from_conv1d(&layer, weights(), Activations::default()).unwrap();
    let params = ConvParams {
        strides: vec![1, 2],
        groups: 2,
        ..ConvParams::new(2)
    };
    assert_eq!(conv1d_params(&config).strides, [2]);
    let mut quantizer = weights();
    let codes = quantizer.quantize(&w).unwrap();
    let two = QuantizedConv::new(
        &codes,
        quantizer.params().unwrap(),
        params,
        Activations::default(),
    )
    .unwrap();
    let one = one.forward(&x1).unwrap();
    assert_eq!(one.dims(), [2, 6, 4]);
    let two: Vec<f32> = two.forward(&x).unwrap().into_iter().collect();
    assert_eq!(one.flatten_all().unwrap().to_vec1::<f32>().unwrap(), two);
}

#[test]
fn inputs_whose_zero_points_would_be_real_are_refused() {
    let weights = Array4::from_elem((1, 1, 1, 1), 1.0_f32);
    let mut quantizer = Chopi::builder().symmetric(true).build().unwrap();
    let codes = quantizer.quantize(&weights).unwrap();
    let params = quantizer.params().unwrap();
    let pychop = || Chopi::builder().convention(Convention::PYCHOP_TORCH);
    let layer = |inputs| QuantizedConv::new(&codes, params, ConvParams::new(2), inputs);
    let error = layer(Activations::Dynamic(pychop())).unwrap_err();
    assert!(matches!(error, Error::RealZeroPoints { .. }), "{error}");
    layer(Activations::Dynamic(pychop().symmetric(true))).unwrap();
}

#[test]
fn parameters_along_another_axis_are_refused() {
    let weights = Array4::from_shape_fn((2, 2, 1, 1), |(i, j, ..)| (3 * i + j) as f32 - 1.0);
    for (axis, fits) in [(0, true), (-4, true), (1, false), (-3, false)] {
        let builder = Chopi::builder().symmetric(true).per_channel(axis);
        let mut quantizer = builder.build().unwrap();
        let codes = quantizer.quantize(&weights).unwrap();
        let (params, activations) = (quantizer.params().unwrap(), Activations::default());
        let layer = QuantizedConv::new(&codes, params, ConvParams::new(2), activations);
        match fits {
            true => assert!(layer.is_ok()),
            false => assert!(matches!(layer, Err(Error::Weights { .. }))),
        }
    }
}
