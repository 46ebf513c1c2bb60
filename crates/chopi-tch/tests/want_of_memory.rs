//! Where there is no memory for what chopi allocates for libtorch's tensors, there is an error. (Their own
//! elements libtorch allocates, which says itself where there is no memory for them.)

use chopi_conformance::{ScarceMemory, alone, for_each_change, for_each_failure};
use chopi_core::Chopi;
use chopi_core::backend::FloatType;
use chopi_core::training::{GradientFactor, LearnedParams, Ste};
use chopi_tch::nn::{fake_quantize, fake_quantize_learned};
use tch::{Kind, Tensor};

#[global_allocator]
static MEMORY: ScarceMemory = ScarceMemory;

const GROUPS: i64 = 2048;

/// A tensor that is equal to another with the same elements.
#[derive(Debug)]
struct Result(Tensor);

impl PartialEq for Result {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

#[test]
fn operations_give_results_or_an_error() {
    let _alone = alone();
    let x = Tensor::arange(GROUPS * 16, (Kind::Float, tch::Device::Cpu)).sin();
    let x = x.reshape([GROUPS, 16]);
    let new = Chopi::builder().num_bits(8).per_channel(0).build().unwrap();
    for x in [&x, &x.tr().contiguous().tr()] {
        for_each_change("first quantize", &new, |q| q.quantize(x).map(Result));
        let mut quantizer = new.clone();
        let q = quantizer.quantize(x).unwrap();
        let params = quantizer.params().unwrap();
        for_each_failure("quantize", || params.quantize(x).map(Result));
        for_each_failure("dequantize", || params.dequantize(&q).map(Result));
        for_each_failure("fake-quantize", || {
            fake_quantize(x, params, Ste::Clipped).map(Result)
        });
        let zeros: Vec<f64> = params.zero_point().iter().map(|&z| z as f64).collect();
        let learned = LearnedParams::new(
            params.scheme(),
            params.convention(),
            FloatType::F32,
            params.shape(),
            (params.scale(), &zeros),
            GradientFactor::Lsq,
        );
        let (scale, zero) = (
            Tensor::from_slice(params.scale()),
            Tensor::from_slice(&zeros),
        );
        let learned = learned.unwrap();
        for_each_failure("learned", || {
            fake_quantize_learned(x, &scale, Some(&zero), &learned).map(Result)
        });
    }
}
