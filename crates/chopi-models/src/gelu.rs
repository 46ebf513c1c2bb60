//! The activation function x·Φ(x), by vectors.

use candle_core::{CpuStorage, CustomOp1, Layout, Result, Shape, Tensor};
use chopi_kernels::isa::{Loop, dispatch};
use chopi_kernels::vector::Arch;

/// x·Φ(x) = x/2·(1 + erf(x/√2)) of each element of `f32`, at most 2^−21·max(1, |x|) off, where candle computes
/// one element at a time by the error function of libm.
pub(crate) fn gelu(x: &Tensor) -> Result<Tensor> {
    x.contiguous()?.apply_op1_no_bwd(&Gelu)
}

struct Gelu;

impl CustomOp1 for Gelu {
    fn name(&self) -> &'static str {
        "gelu"
    }

    fn cpu_fwd(&self, storage: &CpuStorage, layout: &Layout) -> Result<(CpuStorage, Shape)> {
        let (x, Some((start, end))) = (storage.as_slice::<f32>()?, layout.contiguous_offsets())
        else {
            candle_core::bail!("gelu of a tensor that is not contiguous")
        };
        let mut values = x[start..end].to_vec();
        dispatch(InPlace(&mut values));
        Ok((CpuStorage::F32(values), layout.shape().clone()))
    }
}

struct InPlace<'a>(&'a mut [f32]);

impl Loop for InPlace<'_> {
    type Output = ();
    const IS_PLAIN: bool = true;

    #[inline(always)]
    fn run<A: Arch>(self, _: A) {
        for x in self.0 {
            *x = 0.5 * *x * (1.0 + erf(*x * std::f32::consts::FRAC_1_SQRT_2));
        }
    }
}

/// The error function, by the quotient of two polynomials that Eigen and XLA use for `f32`: x·P(x²)/Q(x²) in
/// [−4, 4], beyond which erf(x) is 1 or −1 in `f32`.
#[inline(always)]
fn erf(x: f32) -> f32 {
    const P: [f32; 7] = [
        -2.726_142_4e-10,
        2.770_681_4e-8,
        -2.101_024e-6,
        -5.692_506_4e-5,
        -7.349_906_3e-4,
        -2.954_6e-3,
        -1.609_603_3e-2,
    ];
    const Q: [f32; 5] = [
        -1.456_607_2e-5,
        -2.133_740_6e-4,
        -1.682_827e-3,
        -7.373_329_2e-3,
        -1.426_473_9e-2,
    ];
    // In this order, NaN stays NaN.
    let x = if x > 4.0 { 4.0 } else { x };
    let x = if x < -4.0 { -4.0 } else { x };
    let square = x * x;
    let p = P.into_iter().fold(0.0, |sum, factor| sum * square + factor);
    let q = Q.into_iter().fold(0.0, |sum, factor| sum * square + factor);
    x * p / q
}

#[cfg(test)]
mod tests {
    use candle_core::Device;

    use super::*;

    #[test]
    fn it_is_that_of_the_error_function() {
        let x: Vec<f32> = (-60_000..=60_000).map(|i| i as f32 / 8192.0).collect();
        let tensor = Tensor::new(&x[..], &Device::Cpu).unwrap();
        let wide = tensor.to_dtype(candle_core::DType::F64).unwrap();
        let expected: Vec<f64> = wide.gelu_erf().unwrap().to_vec1().unwrap();
        let actual: Vec<f32> = gelu(&tensor).unwrap().to_vec1().unwrap();
        for ((x, expected), actual) in x.into_iter().zip(expected).zip(actual) {
            let error = (f64::from(actual) - expected).abs() / f64::from(x.abs()).max(1.0);
            assert!(
                error <= 2_f64.powi(-21),
                "{x}: {actual}, expected {expected}"
            );
        }
        let special = [f32::INFINITY, f32::NEG_INFINITY, f32::NAN, -0.0];
        let tensor = Tensor::new(&special, &Device::Cpu).unwrap();
        let values: Vec<f32> = gelu(&tensor).unwrap().to_vec1().unwrap();
        assert_eq!(values[0], f32::INFINITY);
        assert!(values[2].is_nan());
        assert_eq!(values[3].to_bits(), (-0.0_f32).to_bits());
    }

    #[test]
    fn it_takes_any_layout() {
        let x = Tensor::arange(-3.0_f32, 3.0, &Device::Cpu).unwrap();
        let turned = x.reshape((2, 3)).unwrap().t().unwrap();
        let expected = gelu(&x).unwrap().reshape((2, 3)).unwrap().t().unwrap();
        let actual: Vec<Vec<f32>> = gelu(&turned).unwrap().to_vec2().unwrap();
        assert_eq!(actual, expected.to_vec2::<f32>().unwrap());
    }
}
