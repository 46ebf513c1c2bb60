//! Integer layers give the same bits on ndarray, candle and libtorch, and those of their definition.

use candle_core::Tensor;
use chopi::matmul::{Activations, Error, IntegerOnlyLinear, QuantizedEmbedding, QuantizedLinear};
use chopi::ndarray::IntArray;
use chopi::{Chopi, Convention, Granularity, QParams, backend::FloatType};
use ndarray::{Array2, Array3, ArrayD, Ix2, ShapeBuilder};
use proptest::prelude::*;

/// Weights [outputs, inputs], inputs [batch, rows, inputs], and how both are quantized.
#[derive(Clone, Debug)]
struct Case {
    weights: Array2<f32>,
    x: Array3<f32>,
    bias: Option<Vec<f32>>,
    relu: bool,
    granularity: Granularity,
    symmetric_weights: bool,
    is_static: bool,
    bits: u32,
}

fn array(shape: &[usize]) -> impl Strategy<Value = ArrayD<f32>> + use<> {
    let shape = shape.to_vec();
    let values = prop::collection::vec(-3.0..3.0_f32, shape.iter().product::<usize>());
    values.prop_map(move |values| ArrayD::from_shape_vec(shape.clone(), values).unwrap())
}

fn cases() -> impl Strategy<Value = Case> {
    (1_usize..4, 1_usize..20, 1_usize..40, 1_usize..40).prop_flat_map(
        |(batch, rows, inputs, outputs)| {
            let weights = array(&[outputs, inputs]);
            let x = array(&[batch, rows, inputs]);
            let bias = prop::option::of(prop::collection::vec(-1.0..1.0_f32, outputs));
            let flags = (any::<bool>(), any::<bool>(), any::<bool>(), 2_u32..=8);
            let granularity = prop_oneof![
                Just(Granularity::PerTensor),
                Just(Granularity::PerChannel { axis: 0 }),
                Just(Granularity::PerGroup { axis: 1, size: 16 }),
            ];
            (weights, x, bias, flags, granularity).prop_map(
                |(weights, x, bias, flags, granularity)| Case {
                    weights: weights.into_dimensionality().unwrap(),
                    x: x.into_dimensionality().unwrap(),
                    bias,
                    relu: flags.0,
                    granularity,
                    symmetric_weights: flags.1,
                    is_static: flags.2,
                    bits: flags.3,
                },
            )
        },
    )
}

impl Case {
    fn weight_quantizer(&self) -> Chopi {
        let builder = Chopi::builder()
            .num_bits(self.bits)
            .symmetric(self.symmetric_weights);
        builder.granularity(self.granularity).build().unwrap()
    }

    fn activations(&self) -> Activations {
        match (self.is_static, self.symmetric_weights) {
            (false, true) => return Activations::default(),
            (false, false) => return Activations::Dynamic(Chopi::builder()),
            (true, _) => {}
        }
        let mut quantizer = Chopi::builder()
            .num_bits(8)
            .symmetric(false)
            .build()
            .unwrap();
        quantizer.calibrate(&self.x).unwrap();
        Activations::Static(quantizer.params().unwrap().clone())
    }

    fn finish(&self, layer: QuantizedLinear) -> QuantizedLinear {
        let layer = match &self.bias {
            Some(bias) => layer.with_bias(bias.clone()).unwrap(),
            None => layer,
        };
        match self.relu {
            true => layer.with_clamp(0.0, f32::INFINITY),
            false => layer,
        }
    }

    /// The definition: quantize, multiply in 64 bits, scale in f32.
    fn expected(&self) -> Vec<f32> {
        let (inputs, outputs) = (self.weights.ncols(), self.weights.nrows());
        let mut weight_quantizer = self.weight_quantizer();
        let weights = codes(&weight_quantizer.quantize(&self.weights).unwrap());
        let weight_params = weight_quantizer.params().unwrap();
        // Where the scale of an output begins, and over how many inputs each goes.
        let of = |j: usize| match self.granularity {
            Granularity::PerTensor => (0, inputs),
            Granularity::PerChannel { .. } => (j, inputs),
            Granularity::PerGroup { size, .. } => (j * inputs.div_ceil(size), size),
        };
        let mut expected = Vec::new();
        for row in self
            .x
            .as_standard_layout()
            .as_slice()
            .unwrap()
            .chunks(inputs)
        {
            let row = Array2::from_shape_vec((1, inputs), row.to_vec()).unwrap();
            let params = match self.activations() {
                Activations::Static(params) => params,
                Activations::Dynamic(builder) => {
                    let mut quantizer = builder.per_tensor().build().unwrap();
                    quantizer.calibrate(&row).unwrap();
                    quantizer.into_params().unwrap()
                }
            };
            let x = codes(&params.quantize(&row).unwrap());
            let (scale, zero) = only(&params);
            for j in 0..outputs {
                let (first, size) = of(j);
                let sum = |group: usize| {
                    let zero_w = weight_params.zero_point()[first + group];
                    let depths = group * size..inputs.min((group + 1) * size);
                    let product = |k: usize| (x[k] - zero) * (weights[j * inputs + k] - zero_w);
                    depths.map(product).sum::<i64>() as f32
                };
                let scale_w = |group: usize| weight_params.scale()[first + group] as f32;
                let bias = self.bias.as_ref().map_or(-0.0, |bias| bias[j]);
                let y = match self.granularity {
                    Granularity::PerGroup { .. } => {
                        let groups = 0..inputs.div_ceil(size);
                        let total = groups.fold(0.0, |total, g| total + sum(g) * scale_w(g));
                        total * scale as f32 + bias
                    }
                    _ => sum(0) * (scale as f32 * scale_w(0)) + bias,
                };
                expected.push(if self.relu && y < 0.0 { 0.0 } else { y });
            }
        }
        expected
    }
}

fn only(params: &QParams) -> (f64, i64) {
    (params.scale()[0], params.zero_point()[0])
}

fn codes(codes: &IntArray<f32, Ix2>) -> Vec<i64> {
    let codes = codes.to_i64();
    codes.iter().copied().collect()
}

fn assert_bits(found: &[f32], expected: &[f32], who: &str) {
    let bits = |values: &[f32]| values.iter().map(|y| y.to_bits()).collect::<Vec<_>>();
    assert_eq!(bits(found), bits(expected), "{who}");
}

proptest! {
    #[test]
    fn every_backend_gives_the_bits_of_the_definition(case in cases()) {
        let expected = case.expected();
        let mut quantizer = case.weight_quantizer();
        let weights = quantizer.quantize(&case.weights).unwrap();
        let params = quantizer.params().unwrap();
        let layer = case.finish(QuantizedLinear::new(&weights, params, case.activations()).unwrap());

        let y = layer.forward(&case.x).unwrap();
        prop_assert_eq!(y.shape(), [case.x.dim().0, case.x.dim().1, case.weights.nrows()]);
        assert_bits(y.as_slice().unwrap(), &expected, "ndarray");

        // The same numbers in another memory order.
        let mut other = Array3::zeros(case.x.raw_dim().f());
        other.assign(&case.x);
        let y = layer.forward(&other).unwrap();
        let y: Vec<f32> = y.iter().copied().collect();
        assert_bits(&y, &expected, "ndarray, column-major");

        let device = candle_core::Device::Cpu;
        let to_candle = |values: Vec<f32>, shape: &[usize]| Tensor::from_vec(values, shape, &device);
        let weights = to_candle(case.weights.iter().copied().collect(), case.weights.shape()).unwrap();
        let codes = case.weight_quantizer().quantize(&weights).unwrap();
        let of_candle = case.finish(QuantizedLinear::new(&codes, params, case.activations()).unwrap());
        let x = to_candle(case.x.iter().copied().collect(), case.x.shape()).unwrap();
        let y = of_candle.forward(&x).unwrap();
        let y = y.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_bits(&y, &expected, "candle");

        #[cfg(feature = "tch")]
        {
            let values: Vec<f32> = case.x.iter().copied().collect();
            let shape: Vec<i64> = case.x.shape().iter().map(|&n| n as i64).collect();
            let x = tch::Tensor::from_slice(&values).reshape(&shape);
            let y = of_candle.forward(&x).unwrap();
            let y = Vec::<f32>::try_from(y.reshape([-1])).unwrap();
            assert_bits(&y, &expected, "libtorch");
        }
    }
}

#[test]
fn a_trained_layer_becomes_one_of_integers() {
    use candle_core::{DType, Device};
    use candle_nn::{Module, ModuleT, VarBuilder, VarMap};
    use chopi::candle;
    use chopi::candle::nn::QatLinear;
    use chopi::training::{FakeQuantizer, QatConfig, Quantizers};

    let weights = Chopi::builder()
        .num_bits(8)
        .symmetric(true)
        .per_channel(0)
        .build()
        .unwrap();
    let config = QatConfig::new()
        .weights(FakeQuantizer::new(weights))
        .activations(FakeQuantizer::new(Chopi::new(8).unwrap()));
    let (variables, quantizers) = (VarMap::new(), Quantizers::new());
    let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
    let trained = QatLinear::new(24, 10, &config, vb, &quantizers).unwrap();
    let x = Tensor::randn(0_f32, 1.0, (5, 24), &Device::Cpu).unwrap();
    trained.forward_t(&x, true).unwrap();
    let expected = trained.forward_t(&x, false).unwrap();
    let integer = candle::QuantizedLinear::from_converted(&trained.convert().unwrap()).unwrap();
    let difference = (integer.forward(&x).unwrap() - expected)
        .unwrap()
        .abs()
        .unwrap();
    // The same numbers, summed exactly here and in floats there.
    assert!(difference.max_all().unwrap().to_scalar::<f32>().unwrap() < 1e-5);
}

#[test]
fn an_embedding_gives_the_rows_of_the_dequantized_table() {
    use candle_nn::Module;
    use chopi::candle;

    let table = Array2::from_shape_fn((7, 5), |(i, j)| (i * 5 + j) as f32 / 3.0 - 4.0);
    for (bits, symmetric, granularity) in [
        (8, true, Granularity::PerChannel { axis: 0 }),
        (8, false, Granularity::PerChannel { axis: 0 }),
        (8, false, Granularity::PerTensor),
        (8, true, Granularity::PerGroup { axis: 1, size: 2 }),
        (4, true, Granularity::PerChannel { axis: 0 }),
        (4, false, Granularity::PerTensor),
        (4, false, Granularity::PerGroup { axis: -1, size: 3 }),
        (3, true, Granularity::PerGroup { axis: 1, size: 4 }),
        (2, true, Granularity::PerGroup { axis: 1, size: 9 }),
        (5, false, Granularity::PerGroup { axis: 1, size: 1 }),
    ] {
        let builder = Chopi::builder()
            .num_bits(bits)
            .symmetric(symmetric)
            .granularity(granularity);
        let mut quantizer = builder.clone().build().unwrap();
        let codes = quantizer.quantize(&table).unwrap();
        let dequantized = quantizer.dequantize(&codes).unwrap();
        let indices = [6_u32, 0, 3, 3];
        let expected: Vec<f32> = indices
            .iter()
            .flat_map(|&i| dequantized.row(i as usize).to_vec())
            .collect();
        let embedding = QuantizedEmbedding::new(&codes, quantizer.params().unwrap()).unwrap();
        let mut rows = vec![0.0; expected.len()];
        embedding.lookup(&indices, &mut rows).unwrap();
        assert_bits(&rows, &expected, "slices");

        let device = candle_core::Device::Cpu;
        let values = table.iter().copied().collect();
        let table = Tensor::from_vec(values, table.shape(), &device).unwrap();
        let module =
            candle::QuantizedEmbedding::from_table(&table, builder.build().unwrap()).unwrap();
        let indices = Tensor::new(&[[6_i64, 0], [3, 3]], &device).unwrap();
        let rows = module.forward(&indices).unwrap();
        assert_eq!(rows.dims(), [2, 2, 5]);
        let rows = rows.flatten_all().unwrap().to_vec1::<f32>().unwrap();
        assert_bits(&rows, &expected, "candle");
        for wrong in [7_i64, -1] {
            let wrong = Tensor::new(&[wrong], &device).unwrap();
            assert!(module.forward(&wrong).is_err());
        }
        let error = embedding.lookup(&[7], &mut [0.0; 5]).unwrap_err();
        assert_eq!(error.to_string(), "row 7 of a table of 7 rows");
    }
}

#[test]
fn other_float_types_are_rounded_from_f32() {
    let weights = Array2::from_shape_fn((3, 4), |(i, j)| (i as f32 - j as f32) / 7.0);
    let x = Array2::from_shape_fn((2, 4), |(i, j)| {
        chopi::backend::f16::from_f32((i * 4 + j) as f32 / 5.0)
    });
    let mut quantizer = Chopi::new(8).unwrap();
    let codes = quantizer.quantize(&weights).unwrap();
    let params = quantizer.params().unwrap();
    let layer = QuantizedLinear::new(&codes, params, Activations::default()).unwrap();
    let wide = layer.forward(&x.mapv(f32::from)).unwrap();
    let narrow = layer.forward(&x).unwrap();
    // The scale of f16 data is the one of the same numbers in f32.
    assert_eq!(narrow, wide.mapv(chopi::backend::f16::from_f32));
}

#[test]
fn what_does_not_fit_is_refused() {
    let mut quantizer = Chopi::builder().num_bits(8).per_channel(0).build().unwrap();
    let codes = quantizer.quantize(&Array2::<f32>::ones((3, 4))).unwrap();
    let params = quantizer.params().unwrap();
    let layer = QuantizedLinear::new(&codes, params, Activations::default()).unwrap();
    let error = layer.forward(&Array2::<f32>::ones((2, 5))).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the input has shape [2, 5], expected [..., 4]"
    );
    let error = layer
        .forward(&ndarray::arr1(&[1.0_f32, f32::NAN, 0.0, 0.0]))
        .unwrap_err();
    assert!(
        matches!(error, Error::Quantization(chopi::Error::NonFinite { .. })),
        "{error}"
    );
    let error = layer.with_bias(vec![0.0; 2]).unwrap_err().to_string();
    assert_eq!(error, "the bias has 2 elements, expected 3");

    let mut wide = Chopi::new(9).unwrap();
    let codes = wide.quantize(&Array2::<f32>::ones((3, 4))).unwrap();
    let error =
        QuantizedLinear::new(&codes, wide.params().unwrap(), Activations::default()).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the weights are quantized to 0..=511, expected codes of 8 bits"
    );
    let activations = Activations::Static(params.clone());
    let mut quantizer = Chopi::new(8).unwrap();
    let codes = quantizer.quantize(&Array2::<f32>::ones((3, 4))).unwrap();
    let error = QuantizedLinear::new(&codes, quantizer.params().unwrap(), activations).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the activations have 3 scales, expected one for the whole tensor"
    );
}

#[test]
fn parameters_along_another_axis_are_refused() {
    let weights = Array2::from_shape_fn((2, 2), |(i, j)| [[1.0_f32, 100.0], [2.0, -50.0]][i][j]);
    let layers = |axis| {
        let builder = Chopi::builder().symmetric(true).per_channel(axis);
        let mut quantizer = builder.build().unwrap();
        let codes = quantizer.quantize(&weights).unwrap();
        let params = quantizer.params().unwrap();
        let linear = QuantizedLinear::new(&codes, params, Activations::default());
        let integer = IntegerOnlyLinear::new(&codes, params, None, &input(0), 1.0);
        (linear, integer, QuantizedEmbedding::new(&codes, params))
    };
    for axis in [0, -2] {
        let (linear, integer, embedding) = layers(axis);
        assert!(linear.is_ok() && integer.is_ok() && embedding.is_ok());
    }
    for axis in [1, -1] {
        let (linear, integer, embedding) = layers(axis);
        let error = linear.unwrap_err().to_string();
        let expected = format!(
            "weights of shape [2, 2] with parameters of shape [2], per_channel(axis {axis}), expected \
             [outputs, inputs] with one for all, one for each output, or one for each group of inputs"
        );
        assert_eq!(error, expected);
        assert!(matches!(integer, Err(Error::Weights { .. })));
        assert!(matches!(embedding, Err(Error::Weights { .. })));
    }
}

/// Parameters of 8 bits, per tensor, that come from elsewhere.
fn input(zero_point: i64) -> QParams {
    let scheme = Chopi::builder().scheme().unwrap();
    let (convention, float) = (Convention::CHOPI, FloatType::F32);
    QParams::new(
        scheme,
        convention,
        float,
        vec![1],
        vec![0.5],
        vec![zero_point],
    )
    .unwrap()
}

#[test]
fn zero_points_beyond_32_bits_are_refused() {
    let mut quantizer = Chopi::builder().symmetric(true).build().unwrap();
    let codes = quantizer.quantize(&Array2::<f32>::ones((3, 4))).unwrap();
    let params = quantizer.params().unwrap();
    let wide = input(1 << 32);
    let refused = "have a zero point of 4294967296, expected one that 32 bits hold";
    let activations = Activations::Static(wide.clone());
    let error = QuantizedLinear::new(&codes, params, activations).unwrap_err();
    assert_eq!(error.to_string(), format!("the activations {refused}"));
    let error = IntegerOnlyLinear::new(&codes, params, None, &wide, 1.0).unwrap_err();
    assert_eq!(error.to_string(), format!("the input {refused}"));
    let weights = IntArray::<f32, Ix2>::from(Array2::<u8>::ones((3, 4)));
    let error = QuantizedLinear::new(&weights, &wide, Activations::default()).unwrap_err();
    assert_eq!(error.to_string(), format!("the weights {refused}"));
}

#[test]
fn scales_of_the_output_are_positive_numbers() {
    let mut quantizer = Chopi::builder().symmetric(true).build().unwrap();
    let codes = quantizer.quantize(&Array2::<f32>::ones((3, 4))).unwrap();
    let params = quantizer.params().unwrap();
    for scale in [0.0, -1.0, f64::INFINITY, f64::NAN] {
        let layer = IntegerOnlyLinear::new(&codes, params, None, &input(0), scale);
        assert!(matches!(layer, Err(Error::OutputScale { .. })), "{scale}");
    }
}

#[test]
fn by_default_no_row_overflows() {
    let weights = Array2::from_shape_fn((2, 1536), |(i, j)| ((i + j * 37) % 201) as f32 - 100.0);
    let mut quantizer = Chopi::builder()
        .symmetric(true)
        .per_channel(0)
        .build()
        .unwrap();
    let codes = quantizer.quantize(&weights).unwrap();
    let layer =
        |activations| QuantizedLinear::new(&codes, quantizer.params().unwrap(), activations);
    // Far from zero for its range.
    let x = Array2::from_shape_fn((1, 1536), |(_, j)| 300.0 + (j % 7) as f32 / 100.0);
    let y = layer(Activations::default()).unwrap().forward(&x).unwrap();
    let error = (&y - &x.dot(&weights.t())).mapv(f32::abs);
    // Each of 1536 products is off by half a step of either operand at most.
    let most = 1536.0 * (100.0 * 300.06 / 255.0 / 2.0 + 300.06 * 100.0 / 127.0 / 2.0);
    assert!(error.iter().all(|&error| error < most), "{error}");
    let tight = layer(Activations::Dynamic(Chopi::builder())).unwrap();
    assert!(matches!(tight.forward(&x), Err(Error::Overflow { .. })));
}
