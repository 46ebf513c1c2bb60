//! Values and gradients of fake quantization are those of PyTorch, in every framework with autograd.
//!
//! `conformance/make_gradients.py` wrote `conformance/gradients.safetensors` with PyTorch.
//! `CHOPI_VECTORS` names another folder of such files.

use chopi::training::{GradientFactor, LearnedParams};
use chopi::{Chopi, CodeRange, Convention, Granularity, QParams, Scheme, backend::FloatType};
use chopi_conformance::data::to;
use safetensors::{Dtype, SafeTensors};
use serde::Deserialize;

#[derive(Clone, Debug, Deserialize)]
struct Settings {
    kind: String,
    qmin: i64,
    qmax: i64,
    axis: Option<isize>,
    factor: f64,
    float: String,
}

#[derive(Clone, Debug)]
struct Values {
    shape: Vec<usize>,
    data: Vec<f64>,
}

/// What a framework gives, or PyTorch gave.
#[derive(Debug)]
struct Outcome {
    y: Vec<f64>,
    dx: Vec<f64>,
    /// The gradients of scale and zero point, where they are learned.
    learned: Option<[Vec<f64>; 2]>,
}

struct Case {
    settings: Settings,
    float: FloatType,
    x: Values,
    dy: Values,
    scale: Values,
    zero_point: Values,
    expected: Outcome,
    /// The sums of the magnitudes of the terms of both gradients.
    sums: Option<[Vec<f64>; 2]>,
}

impl Case {
    fn scheme(&self) -> Scheme {
        let Settings {
            qmin, qmax, axis, ..
        } = self.settings;
        let range = CodeRange::Custom { qmin, qmax };
        let granularity = match axis {
            None => Granularity::PerTensor,
            Some(axis) => Granularity::PerChannel { axis },
        };
        let builder = Chopi::builder().convention(Convention::TORCH_FAKE);
        let builder = builder.num_bits(8).range(range);
        builder.granularity(granularity).scheme().unwrap()
    }

    fn params(&self) -> QParams {
        let zero_point = self.zero_point.data.iter().map(|&z| z as i64).collect();
        let (shape, scale) = (self.scale.shape.clone(), self.scale.data.clone());
        let convention = Convention::TORCH_FAKE;
        QParams::new(
            self.scheme(),
            convention,
            self.float,
            shape,
            scale,
            zero_point,
        )
        .unwrap()
    }

    fn learned(&self) -> LearnedParams {
        LearnedParams::new(
            &self.scheme(),
            &Convention::TORCH_FAKE,
            self.float,
            &self.scale.shape,
            (&self.scale.data, &self.zero_point.data),
            GradientFactor::Fixed(self.settings.factor),
        )
        .unwrap()
    }

    fn is_learned(&self) -> bool {
        self.settings.kind == "learned"
    }

    fn check(&self, at: &str, got: &Outcome) {
        assert_eq!(got.y, self.expected.y, "{at}: values");
        assert_eq!(got.dx, self.expected.dx, "{at}: gradients of x");
        let (Some(got), Some(expected)) = (&got.learned, &self.expected.learned) else {
            assert!(!self.is_learned(), "{at}: no gradients");
            return;
        };
        let sums = self.sums.as_ref().expect("of learned scales");
        let elements = self.x.data.len() / self.scale.data.len();
        for (what, ((got, expected), sums)) in ["scale", "zero point"]
            .iter()
            .zip(got.iter().zip(expected).zip(sums))
        {
            for ((got, expected), sum) in got.iter().zip(expected).zip(sums) {
                // One element a channel is one term: the same bits. Otherwise PyTorch sums in f32,
                // and each of its additions may be off by half an ulp of what it has by then.
                let ulp = f64::from(f32::EPSILON) * sum;
                let tolerance = if elements == 1 { 0.0 } else { ulp };
                let difference = (got - expected).abs();
                assert!(
                    difference <= tolerance,
                    "{at}: {what} {got}, PyTorch {expected}"
                );
            }
        }
    }
}

fn cases() -> Vec<Case> {
    let folder = std::env::var("CHOPI_VECTORS");
    let folder =
        folder.unwrap_or_else(|_| concat!(env!("CARGO_MANIFEST_DIR"), "/tests/conformance").into());
    let file = std::fs::read(format!("{folder}/gradients.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&file).unwrap();
    let (_, metadata) = SafeTensors::read_metadata(&file).unwrap();
    let metadata = metadata.metadata().as_ref().unwrap();
    let settings: Vec<Settings> = serde_json::from_str(&metadata["cases"]).unwrap();
    let case = |(index, settings): (usize, Settings)| {
        let values = |name: &str| {
            let tensor = tensors.tensor(&format!("{index}.{name}")).ok()?;
            let bytes = tensor.data();
            let data = match tensor.dtype() {
                Dtype::F64 => bytes
                    .chunks(8)
                    .map(|b| f64::from_le_bytes(b.try_into().unwrap())),
                _ => return Some(narrow(&tensor)),
            };
            Some(Values {
                shape: tensor.shape().to_vec(),
                data: data.collect(),
            })
        };
        let pair = |name: &str, other: &str| Some([values(name)?.data, values(other)?.data]);
        let sums = values("sums").map(|sums| {
            let (scale, zero) = sums.data.split_at(sums.data.len() / 2);
            [scale.to_vec(), zero.to_vec()]
        });
        Case {
            float: match settings.float.as_str() {
                "f16" => FloatType::F16,
                "bf16" => FloatType::BF16,
                "f32" => FloatType::F32,
                _ => FloatType::F64,
            },
            settings,
            x: values("x").unwrap(),
            dy: values("dy").unwrap(),
            scale: values("scale").unwrap(),
            zero_point: values("zero_point").unwrap(),
            expected: Outcome {
                y: values("y").unwrap().data,
                dx: values("dx").unwrap().data,
                learned: pair("dscale", "dzero_point"),
            },
            sums,
        }
    };
    settings.into_iter().enumerate().map(case).collect()
}

/// Elements of a type narrower than f64.
fn narrow(tensor: &safetensors::tensor::TensorView<'_>) -> Values {
    let bytes = tensor.data();
    let halves = || {
        bytes
            .chunks(2)
            .map(|b| u16::from_le_bytes(b.try_into().unwrap()))
    };
    let data = match tensor.dtype() {
        Dtype::F16 => halves()
            .map(|h| chopi::backend::f16::from_bits(h).to_f64())
            .collect(),
        Dtype::BF16 => halves()
            .map(|h| chopi::backend::bf16::from_bits(h).to_f64())
            .collect(),
        Dtype::F32 => bytes
            .chunks(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()).into())
            .collect(),
        dtype => panic!("{dtype:?}"),
    };
    Values {
        shape: tensor.shape().to_vec(),
        data,
    }
}

#[test]
fn gradients_on_slices_are_those_of_pytorch() {
    let mut elements = 0;
    for (index, case) in cases().iter().enumerate() {
        let layout = chopi::backend::Layout::row_major(&case.x.shape);
        let (params, at) = (case.params_for_values(), format!("case {index}"));
        macro_rules! run {
            ($t:ty) => {{
                use chopi::backend::{Compute, Float};
                let of = |v: &Values| v.data.iter().map(|&x| to(x)).collect::<Vec<$t>>();
                let wide = |v: &[$t]| v.iter().map(|x| x.widen().as_f64()).collect::<Vec<f64>>();
                let (x, dy) = (of(&case.x), of(&case.dy));
                let y = chopi::training::fake_quantize(&x, &layout, &params).unwrap();
                let (dx, learned) = if case.is_learned() {
                    let g = case.learned().gradients(&x, &dy, &layout).unwrap();
                    (g.x, Some([g.scale, g.zero_point]))
                } else {
                    let dx = chopi::training::straight_through(&x, &dy, &layout, &params);
                    (dx.unwrap(), None)
                };
                Outcome {
                    y: wide(&y),
                    dx: wide(&dx),
                    learned,
                }
            }};
        }
        let got = match case.float {
            FloatType::F16 => run!(chopi::backend::f16),
            FloatType::BF16 => run!(chopi::backend::bf16),
            FloatType::F32 => run!(f32),
            FloatType::F64 => run!(f64),
        };
        elements += case.x.data.len();
        case.check(&at, &got);
    }
    assert!(elements > 1000);
}

impl Case {
    fn params_for_values(&self) -> QParams {
        match self.is_learned() {
            true => self.learned().params().clone(),
            false => self.params(),
        }
    }
}

#[cfg(feature = "candle")]
#[test]
fn gradients_in_candle_are_those_of_pytorch() {
    use candle_core::{DType, Device, Tensor, Var};
    use chopi::candle::nn::{composed_fake_quantize, fake_quantize, fake_quantize_learned};
    use chopi::training::Ste;

    let read = |t: &Tensor| -> Vec<f64> {
        let wide = t.to_dtype(DType::F64).unwrap();
        wide.flatten_all().unwrap().to_vec1().unwrap()
    };
    for (index, case) in cases().iter().enumerate() {
        let dtype = match case.float {
            FloatType::F16 => DType::F16,
            FloatType::BF16 => DType::BF16,
            FloatType::F32 => DType::F32,
            FloatType::F64 => DType::F64,
        };
        let tensor = |v: &Values, dtype| {
            let host = Tensor::from_vec(v.data.clone(), v.shape.as_slice(), &Device::Cpu);
            host.unwrap().to_dtype(dtype).unwrap()
        };
        let x = Var::from_tensor(&tensor(&case.x, dtype)).unwrap();
        let dy = tensor(&case.dy, dtype);
        let gradients = |y: &Tensor| (y * &dy).unwrap().sum_all().unwrap().backward().unwrap();
        if case.is_learned() {
            let scale = Var::from_tensor(&tensor(&case.scale, DType::F32)).unwrap();
            let zero = Var::from_tensor(&tensor(&case.zero_point, DType::F32)).unwrap();
            let y = fake_quantize_learned(&x, &scale, Some(&zero), &case.learned()).unwrap();
            let g = gradients(&y);
            let of = |v: &Var| read(g.get(v).unwrap());
            let got = Outcome {
                y: read(&y),
                dx: of(&x),
                learned: Some([of(&scale), of(&zero)]),
            };
            case.check(&format!("case {index}"), &got);
            continue;
        }
        for operation in [fake_quantize, composed_fake_quantize] {
            let y = operation(&x, &case.params(), Ste::Clipped).unwrap();
            let got = Outcome {
                y: read(&y),
                dx: read(gradients(&y).get(&x).unwrap()),
                learned: None,
            };
            case.check(&format!("case {index}"), &got);
        }
    }
}

#[cfg(feature = "tch")]
#[test]
fn gradients_in_libtorch_are_those_of_pytorch() {
    use chopi::tch::nn::{fake_quantize, fake_quantize_learned};
    use chopi::training::Ste;
    use tch::{Kind, Tensor};

    let read = |t: &Tensor| -> Vec<f64> {
        t.detach()
            .to_kind(Kind::Double)
            .contiguous()
            .view(-1)
            .try_into()
            .unwrap()
    };
    for (index, case) in cases().iter().enumerate() {
        let kind = match case.float {
            FloatType::F16 => Kind::Half,
            FloatType::BF16 => Kind::BFloat16,
            FloatType::F32 => Kind::Float,
            FloatType::F64 => Kind::Double,
        };
        let tensor = |v: &Values, kind| {
            let shape: Vec<i64> = v.shape.iter().map(|&n| n as i64).collect();
            Tensor::from_slice(&v.data).reshape(shape).to_kind(kind)
        };
        let x = tensor(&case.x, kind).set_requires_grad(true);
        let scale = tensor(&case.scale, Kind::Float).set_requires_grad(true);
        let zero = tensor(&case.zero_point, Kind::Float).set_requires_grad(true);
        let y = match case.is_learned() {
            true => fake_quantize_learned(&x, &scale, Some(&zero), &case.learned()),
            false => fake_quantize(&x, &case.params(), Ste::Clipped),
        };
        let y = y.unwrap();
        (&y * tensor(&case.dy, kind)).sum(kind).backward();
        let got = Outcome {
            y: read(&y),
            dx: read(&x.grad()),
            learned: case
                .is_learned()
                .then(|| [read(&scale.grad()), read(&zero.grad())]),
        };
        case.check(&format!("case {index}"), &got);
    }
}
