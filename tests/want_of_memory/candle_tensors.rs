//! Quantizers on candle's tensors: what chopi allocates for them. (What candle allocates itself, such as the
//! copy of a tensor with gaps, chopi asks for first; between that and candle's own allocation another
//! thread may still take the memory.)

use candle_core::{Device, Tensor};
use chopi::Chopi;
use chopi_conformance::{alone, for_each_change, for_each_failure};

use crate::array;

const GROUPS: usize = 2048;

fn tensor() -> Tensor {
    let x = array((GROUPS, 16));
    Tensor::from_slice(x.as_slice().unwrap(), (GROUPS, 16), &Device::Cpu).unwrap()
}

/// A tensor's elements, in row-major order.
fn elements(x: &Tensor) -> Vec<f64> {
    let x = x.to_dtype(candle_core::DType::F64).unwrap();
    x.flatten_all().unwrap().to_vec1().unwrap()
}

/// The result of an operation, of which nothing is read while memory is scarce.
#[derive(Debug)]
struct Result(Tensor);

impl PartialEq for Result {
    fn eq(&self, other: &Self) -> bool {
        elements(&self.0) == elements(&other.0)
    }
}

#[test]
fn quantizers_give_results_or_an_error() {
    let _alone = alone();
    let x = tensor();
    for builder in [
        Chopi::builder().num_bits(8),
        Chopi::builder().num_bits(8).per_channel(0),
        Chopi::builder().num_bits(16).per_group(3, 1),
    ] {
        let new = builder.build().unwrap();
        for x in [x.clone(), x.t().unwrap().contiguous().unwrap().t().unwrap()] {
            for_each_change("first quantize", &new, |q| q.quantize(&x).map(Result));
            let mut quantizer = new.clone();
            let q = quantizer.quantize(&x).unwrap();
            let params = quantizer.params().unwrap();
            for_each_failure("dequantize", || params.dequantize(&q).map(Result));
            for_each_failure("fake-quantize", || params.fake_quantize(&x).map(Result));
            for_each_failure("with mask", || {
                let both = params.fake_quantize_with_mask(&x);
                both.map(|(y, mask)| (Result(y), Result(mask)))
            });
        }
    }
}

#[test]
fn a_tensor_with_gaps_is_asked_for_before_it_is_copied() {
    let _alone = alone();
    let x = tensor();
    // 2^44 elements, of which candle would allocate a copy.
    let large = x.narrow(1, 0, 1).unwrap().narrow(0, 0, 1).unwrap();
    // And 2^80, which no number of the machine counts.
    for axis in [1 << 22, 1 << 40] {
        let large = large.broadcast_as((axis, axis)).unwrap();
        let mut quantizer = Chopi::new(8).unwrap();
        let error = quantizer.quantize(&large).unwrap_err().to_string();
        assert!(error.contains("there is no memory for"), "{error}");
    }
}
