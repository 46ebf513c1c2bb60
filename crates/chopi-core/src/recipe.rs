//! From parameters to what the kernels need to know, but for the numbers of each group.

use crate::dtype::{Compute, FloatType};
use crate::kernel::steps::{Steps, Sum};
use crate::qparams::QParams;
use crate::scheme::Rounding;

/// What is done with every element of a tensor of one type under some parameters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Recipe {
    pub steps: Steps,
    pub rounding: Rounding,
    /// Whether the result of each operation is rounded to the element type, a half; else to the compute
    /// type.
    pub native: bool,
    /// Whether (q − z)·s is rounded to `f32` though the compute type is `f64`.
    pub narrow_product: bool,
    /// Whether fake-quantize takes NaN for less than any number.
    pub nan_is_smallest: bool,
    pub qmin: i64,
    pub qmax: i64,
}

impl Recipe {
    /// The recipe for data of type `float`.
    pub fn new(params: &QParams, float: FloatType) -> Self {
        let (library, scheme) = (params.convention().library(), params.scheme());
        Self {
            steps: library.steps(scheme, float),
            rounding: scheme.rounding,
            native: library.computes_in_element_type() && float != float.compute(),
            narrow_product: library.has_f32_values(scheme) && float == FloatType::F64,
            nan_is_smallest: library.nan_is_smallest(),
            qmin: scheme.qmin,
            qmax: scheme.qmax,
        }
    }

    /// Whether q − z is rounded to the element type, a half.
    pub fn has_native_difference(&self) -> bool {
        self.native && self.steps.sum() == Sum::Rounded
    }

    /// Whether (q − z)·s is rounded once, however far away z is; else q − z is rounded too. (For `f64`
    /// data that is the same.)
    pub fn has_exact_difference(&self) -> bool {
        self.steps.sum() != Sum::Rounded
    }
}

/// 1/s as the convention takes it for data of type `float`, where its steps multiply.
pub(crate) fn reciprocal(params: &QParams, float: FloatType, scale: f64) -> f64 {
    params.convention().library().reciprocal(float, scale)
}

/// Whether the codes, the zero points and their differences are all small in the compute type of
/// `float`, so that codes can be computed in it: see [`kernel`](crate::kernel).
pub(crate) fn integers_fit(params: &QParams, float: FloatType) -> bool {
    let limit = match float {
        FloatType::F64 => f64::MAGIC_LIMIT,
        _ => f32::MAGIC_LIMIT,
    };
    let small = |n: i64| n.abs() <= limit;
    let (qmin, qmax) = params.bounds();
    let zero_points_are_small = params.zero_points().all(|z| z.abs() <= limit as f64);
    small(qmin) && small(qmax) && zero_points_are_small
}

/// Whether values can be computed from codes in the compute type of `float`, each step rounded to it or
/// to the element type.
pub(crate) fn values_fit(params: &QParams, float: FloatType) -> bool {
    integers_fit(params, float) && !Recipe::new(params, float).narrow_product
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convention::Convention;
    use crate::quantizer::Chopi;
    use FloatType::{F16, F32, F64};

    fn recipe(convention: Convention, float: FloatType, channels: bool) -> Recipe {
        let builder = Chopi::builder().convention(convention).symmetric(true);
        let builder = match channels {
            true => builder.per_channel(0),
            false => builder.per_tensor(),
        };
        let scheme = builder.scheme().unwrap();
        let params = QParams::new(scheme, convention, float, vec![1], vec![0.5], vec![0]).unwrap();
        Recipe::new(&params, float)
    }

    #[test]
    fn steps_depend_on_the_granularity_in_torch_and_on_the_type_in_pychop() {
        let steps = |convention, float, channels| recipe(convention, float, channels).steps;
        assert_eq!(steps(Convention::TORCH, F32, false), Steps::Fused);
        assert_eq!(steps(Convention::TORCH, F32, true), Steps::MultiplyRounded);
        assert_eq!(steps(Convention::PYCHOP, F16, false), Steps::DivideExact);
        assert_eq!(steps(Convention::PYCHOP, F32, false), Steps::DivideExact);
        assert_eq!(steps(Convention::PYCHOP, F64, false), Steps::DivideRounded);
    }

    #[test]
    fn differences_are_rounded_to_halves_where_sums_are() {
        assert!(!recipe(Convention::PYCHOP, F16, false).has_native_difference());
        assert!(recipe(Convention::PYCHOP_TORCH, F16, false).has_native_difference());
        assert!(!recipe(Convention::PYCHOP_TORCH, F32, false).has_native_difference());
        assert!(recipe(Convention::PYCHOP, F16, false).has_exact_difference());
        assert!(!recipe(Convention::PYCHOP_TORCH, F32, false).has_exact_difference());
    }

    #[test]
    fn products_of_f64_data_are_rounded_to_f32_per_tensor_only() {
        assert!(recipe(Convention::TORCH_FAKE, F64, false).narrow_product);
        assert!(!recipe(Convention::TORCH_FAKE, F64, true).narrow_product);
        assert!(!recipe(Convention::TORCH_FAKE, F32, false).narrow_product);
    }
}
