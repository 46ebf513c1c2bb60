//! A network of one layer, as the suite trains it.

use std::collections::BTreeMap;
use std::path::Path;

use chopi_conformance::training::{Kind, Layer, Operation, Outcome, Trainee};
use chopi_core::backend::FloatType;
use chopi_core::training::{QatConfig, Quantizers};
use chopi_tch::LibTorch;
use chopi_tch::nn::{
    Adam, AdamConfig, Converted, Convolution, Qat, QatConv1d, QatConv2d, QatConvBn2d, QatEmbedding,
    QatLinear, Weighted, fake_quantize, fake_quantize_learned, load_checkpoint, load_float,
    save_checkpoint,
};
use tch::nn::{self, ConvConfigND, EmbeddingConfig, LinearConfig, VarStore};
use tch::{Device, Kind as Dtype, Tensor, no_grad};

/// A network of one layer.
pub struct Network {
    layer: AnyLayer,
    pub variables: VarStore,
    quantizers: Quantizers,
    pub adam: Adam,
}

enum AnyLayer {
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

fn dtype(float: FloatType) -> Dtype {
    match float {
        FloatType::F16 => Dtype::Half,
        FloatType::BF16 => Dtype::BFloat16,
        FloatType::F32 => Dtype::Float,
        FloatType::F64 => Dtype::Double,
    }
}

fn lengths(shape: &[usize]) -> Vec<i64> {
    shape.iter().map(|&length| length as i64).collect()
}

pub fn read(tensor: &Tensor) -> Vec<f64> {
    let wide = tensor.detach().to_kind(Dtype::Double).contiguous().view(-1);
    wide.try_into().unwrap()
}

pub fn set(variable: &Tensor, value: &Tensor) {
    no_grad(|| variable.shallow_clone().copy_(value));
}

/// Stride 1 and no padding.
fn convolution<const N: usize>(bias: bool) -> ConvConfigND<[i64; N]> {
    let ConvConfigND {
        ws_init,
        bs_init,
        padding_mode,
        ..
    } = ConvConfigND::<i64>::default();
    ConvConfigND {
        stride: [1; N],
        padding: [0; N],
        dilation: [1; N],
        groups: 1,
        bias,
        ws_init,
        bs_init,
        padding_mode,
    }
}

fn make(
    layer: Layer,
    config: &QatConfig,
    path: &nn::Path<'_>,
    quantizers: &Quantizers,
) -> chopi_core::Result<AnyLayer> {
    let [inputs, outputs, kernel] = [layer.inputs, layer.outputs, layer.kernel].map(|n| n as i64);
    let bias = layer.bias;
    let (sizes, square) = ((inputs, outputs, [kernel]), (inputs, outputs, [kernel; 2]));
    Ok(match layer.kind {
        Kind::Linear if bias => {
            AnyLayer::Linear(QatLinear::new(inputs, outputs, config, path, quantizers)?)
        }
        Kind::Linear => {
            let linear = LinearConfig {
                bias,
                ..LinearConfig::default()
            };
            let layer = nn::linear(path, inputs, outputs, linear);
            AnyLayer::Linear(Qat::from_layer(layer, config, path, quantizers)?)
        }
        Kind::Conv1d => AnyLayer::Conv1d(QatConv1d::new(
            sizes,
            convolution(bias),
            config,
            path,
            quantizers,
        )?),
        Kind::Conv2d => AnyLayer::Conv2d(QatConv2d::new(
            square,
            convolution(bias),
            config,
            path,
            quantizers,
        )?),
        Kind::ConvBn2d => {
            let conv = nn::conv(
                path / "conv",
                inputs,
                outputs,
                [kernel; 2],
                convolution(bias),
            );
            let norm_config = nn::BatchNormConfig::default();
            let norm = nn::batch_norm2d(path / "norm", outputs, norm_config);
            AnyLayer::ConvBn2d(QatConvBn2d::from_layers(
                Convolution::new(conv, convolution(bias)),
                (norm, norm_config),
                config,
                &(path / "folded"),
                quantizers,
            )?)
        }
        Kind::Embedding => {
            let embedding = EmbeddingConfig::default();
            AnyLayer::Embedding(QatEmbedding::new(
                inputs, outputs, embedding, config, path, quantizers,
            )?)
        }
    })
}

/// The text of an error and of those behind it.
fn text<T>(result: chopi_core::Result<T>) -> Result<T, String> {
    result.map_err(|error| error.to_string())
}

impl Trainee for Network {
    type Backend = LibTorch;
    type Tensor = Tensor;

    // libtorch sums in another order.
    const DIFFERENCE_OF_SUMS: f64 = 1e-6;

    fn tensor(values: &[f64], shape: &[usize]) -> Tensor {
        let tensor = Tensor::from_slice(values).reshape(lengths(shape));
        tensor.to_kind(Dtype::Float)
    }

    fn indices(values: &[usize]) -> Tensor {
        Tensor::from_slice(&lengths(values))
    }

    fn sqrt(values: &[f32]) -> Vec<f32> {
        Vec::try_from(Tensor::from_slice(values).sqrt()).unwrap()
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
            let tensor = Tensor::from_slice(values).reshape(lengths(shape));
            tensor.to_kind(dtype(float))
        };
        let x = match transposed {
            true => variable(x, shape).tr().contiguous(),
            false => variable(x, shape),
        };
        let x = x.set_requires_grad(true);
        let view = |x: &Tensor| match transposed {
            true => x.tr(),
            false => x.shallow_clone(),
        };
        let (y, learned) = match operation {
            Operation::Fixed(params, ste) => (fake_quantize(&view(&x), params, *ste), None),
            Operation::Learned(params, scale, zero_point) => {
                let of_groups =
                    |values| variable(values, params.params().shape()).set_requires_grad(true);
                let (scale, zero) = (of_groups(scale), of_groups(zero_point));
                let y = fake_quantize_learned(&view(&x), &scale, Some(&zero), params);
                (y, Some((scale, zero)))
            }
        };
        let y = y.unwrap();
        y.square().sum(dtype(float)).backward();
        let learned = learned.map(|(scale, zero)| (read(&scale.grad()), read(&zero.grad())));
        let (scale, zero_point) = learned.unwrap_or_default();
        assert_eq!((y.kind(), x.grad().kind()), (dtype(float), dtype(float)));
        Outcome {
            y: read(&y),
            x: read(&view(&x.grad())),
            scale,
            zero_point,
        }
    }

    fn new(layer: Layer, config: &QatConfig) -> Result<Self, String> {
        let (variables, quantizers) = (VarStore::new(Device::Cpu), Quantizers::new());
        let path = variables.root() / "layer";
        let layer = text(make(layer, config, &path, &quantizers))?;
        let adam = Adam::new(&variables, &quantizers, AdamConfig::default());
        Ok(Self {
            layer,
            adam: text(adam)?,
            variables,
            quantizers,
        })
    }

    fn variables(&self) -> BTreeMap<String, Vec<f64>> {
        let variables = self.variables.variables().into_iter();
        variables.map(|(name, v)| (name, read(&v))).collect()
    }

    fn set(&self, name: &str, values: &[f64]) {
        let variable = &self.variables.variables()[name];
        set(
            variable,
            &Tensor::from_slice(values).reshape(variable.size()),
        );
    }

    fn quantizers(&self) -> &Quantizers {
        &self.quantizers
    }

    fn forward(&self, x: &Tensor, train: bool) -> Result<Tensor, String> {
        text(each!(&self.layer, layer => layer.f_forward_t(x, train)))
    }

    fn float(&self, x: &Tensor, weight: &Tensor, bias: Option<&Tensor>) -> Tensor {
        match &self.layer {
            AnyLayer::Linear(layer) => layer.layer().f_forward_with(x, weight, bias),
            AnyLayer::Conv1d(layer) => layer.layer().f_forward_with(x, weight, bias),
            AnyLayer::Conv2d(layer) => layer.layer().f_forward_with(x, weight, bias),
            AnyLayer::ConvBn2d(layer) => layer.conv().f_forward_with(x, weight, bias),
            AnyLayer::Embedding(layer) => layer.layer().f_forward_with(x, weight, bias),
        }
        .unwrap()
    }

    fn train(&mut self, x: &Tensor) {
        let loss = self.forward(x, true).unwrap().square();
        self.adam.backward_step(&loss.mean(Dtype::Float)).unwrap();
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
