//! A network of one layer, as the suite trains it.

use std::collections::BTreeMap;
use std::path::Path;

use candle_core::{DType, Device, Tensor, Var};
use candle_nn::{Conv1dConfig, Conv2dConfig, Module, ModuleT, VarBuilder, VarMap};
use chopi_candle::Candle;
use chopi_candle::nn::{
    Adam, AdamConfig, Converted, Qat, QatConv1d, QatConv2d, QatConvBn2d, QatEmbedding, QatLinear,
    composed_fake_quantize, composed_fake_quantize_learned, fake_quantize, fake_quantize_learned,
    load_checkpoint, load_float, save_checkpoint,
};
use chopi_conformance::training::{Kind, Layer, Operation, Outcome, Trainee};
use chopi_core::backend::FloatType;
use chopi_core::training::{QatConfig, Quantizers};

/// A network whose operations on their own are chopi's kernels, or composed of candle's.
pub struct Network<const COMPOSED: bool> {
    layer: AnyLayer,
    pub variables: VarMap,
    quantizers: Quantizers,
    pub adam: Adam,
}

pub enum AnyLayer {
    Linear(QatLinear),
    Conv1d(QatConv1d),
    Conv2d(QatConv2d),
    ConvBn2d(QatConvBn2d),
    Embedding(QatEmbedding),
}

macro_rules! each {
    ($layer:expr, $name:ident => $result:expr) => {
        match $layer {
            AnyLayer::Linear($name) => $result,
            AnyLayer::Conv1d($name) => $result,
            AnyLayer::Conv2d($name) => $result,
            AnyLayer::ConvBn2d($name) => $result,
            AnyLayer::Embedding($name) => $result,
        }
    };
}

fn dtype(float: FloatType) -> DType {
    match float {
        FloatType::F16 => DType::F16,
        FloatType::BF16 => DType::BF16,
        FloatType::F32 => DType::F32,
        FloatType::F64 => DType::F64,
    }
}

pub fn read(tensor: &Tensor) -> Vec<f64> {
    let wide = tensor.to_dtype(DType::F64).unwrap();
    wide.flatten_all().unwrap().to_vec1().unwrap()
}

pub fn make(
    layer: Layer,
    config: &QatConfig,
    vb: VarBuilder<'_>,
    quantizers: &Quantizers,
) -> candle_core::Result<AnyLayer> {
    let (inputs, outputs, kernel) = (layer.inputs, layer.outputs, layer.kernel);
    let (one, two) = (Conv1dConfig::default(), Conv2dConfig::default());
    let (place, sizes) = (vb.clone(), (inputs, outputs, kernel));
    Ok(match (layer.kind, layer.bias) {
        (Kind::Linear, true) => {
            AnyLayer::Linear(QatLinear::new(inputs, outputs, config, vb, quantizers)?)
        }
        (Kind::Linear, false) => {
            let layer = candle_nn::linear_no_bias(inputs, outputs, vb)?;
            AnyLayer::Linear(Qat::from_layer(layer, config, place, quantizers)?)
        }
        (Kind::Conv1d, true) => {
            AnyLayer::Conv1d(QatConv1d::new(sizes, one, config, vb, quantizers)?)
        }
        (Kind::Conv1d, false) => {
            let layer = candle_nn::conv1d_no_bias(inputs, outputs, kernel, one, vb)?;
            AnyLayer::Conv1d(Qat::from_layer(layer, config, place, quantizers)?)
        }
        (Kind::Conv2d, true) => {
            AnyLayer::Conv2d(QatConv2d::new(sizes, two, config, vb, quantizers)?)
        }
        (Kind::Conv2d, false) => {
            let layer = candle_nn::conv2d_no_bias(inputs, outputs, kernel, two, vb)?;
            AnyLayer::Conv2d(Qat::from_layer(layer, config, place, quantizers)?)
        }
        (Kind::ConvBn2d, bias) => {
            let conv = match bias {
                true => candle_nn::conv2d(inputs, outputs, kernel, two, vb.pp("conv"))?,
                false => candle_nn::conv2d_no_bias(inputs, outputs, kernel, two, vb.pp("conv"))?,
            };
            let norm = candle_nn::batch_norm(outputs, 1e-5, vb.pp("norm"))?;
            let place = vb.pp("folded");
            AnyLayer::ConvBn2d(QatConvBn2d::from_layers(
                conv, norm, config, place, quantizers,
            )?)
        }
        (Kind::Embedding, _) => {
            AnyLayer::Embedding(QatEmbedding::new(inputs, outputs, config, vb, quantizers)?)
        }
    })
}

fn text<T>(result: candle_core::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

impl<const COMPOSED: bool> Trainee for Network<COMPOSED> {
    type Backend = Candle;
    type Tensor = Tensor;

    const DIFFERENCE_OF_SUMS: f64 = if COMPOSED { 1e-6 } else { 0.0 };

    fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
        let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
        tensor.to_dtype(DType::F32).unwrap()
    }

    fn indices(values: &[usize]) -> Tensor {
        let values: Vec<u32> = values.iter().map(|&index| index as u32).collect();
        Tensor::new(values, &Device::Cpu).unwrap()
    }

    fn read(tensor: &Tensor) -> Vec<f64> {
        read(tensor)
    }

    fn operate(
        (x, shape): (&[f64], &[usize]),
        float: FloatType,
        transposed: bool,
        operation: &Operation<'_>,
    ) -> Outcome {
        let variable = |values: &[f64], shape: &[usize]| {
            let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
            let tensor = tensor.to_dtype(dtype(float)).unwrap();
            Var::from_tensor(&match transposed && shape.len() > 1 {
                true => tensor.t().unwrap().contiguous().unwrap(),
                false => tensor,
            })
            .unwrap()
        };
        let view = |x: &Tensor| match transposed {
            true => x.t().unwrap(),
            false => x.clone(),
        };
        let x = variable(x, shape);
        let (y, learned) = match operation {
            Operation::Fixed(params, ste) => {
                let operation = match COMPOSED {
                    true => composed_fake_quantize,
                    false => fake_quantize,
                };
                (operation(&view(&x), params, *ste).unwrap(), None)
            }
            Operation::Learned(params, scale, zero_point) => {
                let operation = match COMPOSED {
                    true => composed_fake_quantize_learned,
                    false => fake_quantize_learned,
                };
                let of_groups = |values: &[f64]| {
                    let shape = params.params().shape();
                    let tensor = Tensor::from_slice(values, shape, &Device::Cpu).unwrap();
                    Var::from_tensor(&tensor.to_dtype(dtype(float)).unwrap()).unwrap()
                };
                let (scale, zero) = (of_groups(scale), of_groups(zero_point));
                let y = operation(&view(&x), &scale, Some(&zero), params).unwrap();
                (y, Some((scale, zero)))
            }
        };
        let gradients = y.sqr().unwrap().sum_all().unwrap().backward().unwrap();
        let of = |variable: &Var| read(gradients.get(variable).unwrap());
        let learned = learned.map(|(scale, zero)| (of(&scale), of(&zero)));
        let (scale, zero_point) = learned.unwrap_or_default();
        Outcome {
            y: read(&y),
            x: read(&view(gradients.get(&x).unwrap())),
            scale,
            zero_point,
        }
    }

    fn new(layer: Layer, config: &QatConfig) -> Result<Self, String> {
        let (variables, quantizers) = (VarMap::new(), Quantizers::new());
        let vb = VarBuilder::from_varmap(&variables, DType::F32, &Device::Cpu);
        let layer = text(make(layer, config, vb.pp("layer"), &quantizers))?;
        let adam = Adam::new(&variables, &quantizers, AdamConfig::default());
        Ok(Self {
            layer,
            adam: text(adam)?,
            variables,
            quantizers,
        })
    }

    fn variables(&self) -> BTreeMap<String, Vec<f64>> {
        let variables = self.variables.data().lock().unwrap();
        let variables = variables.iter().map(|(name, v)| (name.clone(), read(v)));
        variables.collect()
    }

    fn set(&self, name: &str, values: &[f64]) {
        let variable = &self.variables.data().lock().unwrap()[name];
        variable
            .set(&Self::tensor(values, variable.dims()))
            .unwrap();
    }

    fn quantizers(&self) -> &Quantizers {
        &self.quantizers
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, String> {
        let y = text(each!(&self.layer, layer => layer.forward_t(x, train)))?;
        if !train {
            let evaluated = each!(&self.layer, layer => layer.evaluated().forward(x)).unwrap();
            assert_eq!(read(&evaluated), read(&y));
        }
        Ok(y)
    }

    fn float(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        let (weight, bias) = (weight.clone(), bias.cloned());
        match &self.layer {
            AnyLayer::Linear(_) => candle_nn::Linear::new(weight, bias).forward(x),
            AnyLayer::Conv1d(_) => {
                candle_nn::Conv1d::new(weight, bias, Conv1dConfig::default()).forward(x)
            }
            AnyLayer::Conv2d(_) | AnyLayer::ConvBn2d(_) => {
                candle_nn::Conv2d::new(weight, bias, Conv2dConfig::default()).forward(x)
            }
            AnyLayer::Embedding(_) => {
                let columns = weight.dims()[1];
                candle_nn::Embedding::new(weight, columns).forward(x)
            }
        }
        .unwrap()
    }

    fn train(&mut self, x: &Tensor) {
        let loss = self.forward(x, true).unwrap().sqr().unwrap();
        self.adam.backward_step(&loss.mean_all().unwrap()).unwrap();
    }

    fn freeze_statistics(&mut self) {
        if let AnyLayer::ConvBn2d(layer) = &mut self.layer {
            layer.freeze_statistics();
        }
    }

    fn convert(&self) -> Result<Converted, String> {
        text(each!(&self.layer, layer => layer.convert()))
    }

    fn adam(&self) -> AdamConfig {
        *self.adam.config()
    }

    fn set_adam(&mut self, config: AdamConfig) -> Result<(), String> {
        text(self.adam.set_config(config))
    }

    fn steps(&self) -> u32 {
        self.adam.steps()
    }

    fn save(&self, path: &Path, optimizer: bool) -> Result<(), String> {
        let adam = optimizer.then_some(&self.adam);
        text(save_checkpoint(
            path,
            &self.variables,
            &self.quantizers,
            adam,
        ))
    }

    fn load(&mut self, path: &Path, optimizer: bool) -> Result<(), String> {
        let adam = optimizer.then_some(&mut self.adam);
        text(load_checkpoint(
            path,
            &mut self.variables,
            &self.quantizers,
            adam,
        ))
    }

    fn load_float(&self, path: &Path) -> Result<(), String> {
        text(load_float(path, &self.variables, &self.quantizers))
    }
}
