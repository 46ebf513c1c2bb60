//! From parameters to what the kernels need to know.

use chopi_kernels::memory::collected;
use chopi_kernels::{Compute, FloatType, Layout, Params, PerGroup, Recipe, Steps};

use crate::error::Result;
use crate::qparams::QParams;
use crate::scheme::Scheme;

/// What a convention decides of a recipe, for tensors of one type; the rest stands in the scheme.
#[derive(Clone, Copy, PartialEq)]
pub(crate) struct Arithmetic {
    steps: Steps,
    native: bool,
    narrow_product: bool,
    nan_is_smallest: bool,
}

impl Arithmetic {
    pub(crate) fn new(params: &QParams, float: FloatType) -> Self {
        let (library, scheme) = (params.convention().library(), params.scheme());
        Self {
            steps: library.steps(scheme, float),
            native: library.computes_in_element_type() && float != float.compute(),
            narrow_product: library.has_f32_values(scheme) && float == FloatType::F64,
            nan_is_smallest: library.nan_is_smallest(),
        }
    }

    #[inline]
    pub(crate) fn recipe(self, scheme: &Scheme) -> Recipe {
        Recipe {
            steps: self.steps,
            rounding: scheme.rounding,
            native: self.native,
            narrow_product: self.narrow_product,
            nan_is_smallest: self.nan_is_smallest,
            qmin: scheme.qmin,
            qmax: scheme.qmax,
        }
    }
}

/// What is done with every element of a tensor of type `float` under these parameters, but for the
/// numbers of its group.
pub(crate) fn recipe(params: &QParams, float: FloatType) -> Recipe {
    Arithmetic::new(params, float).recipe(params.scheme())
}

/// 1/s as the convention takes it for data of type `float`, where its steps multiply.
pub(crate) fn reciprocal(params: &QParams, float: FloatType, scale: f64) -> f64 {
    params.convention().library().reciprocal(float, scale)
}

/// The recipe with the numbers of each group, for a tensor of type `float` and this layout.
///
/// # Errors
/// [`Error::ParamsShape`](crate::Error::ParamsShape) where the parameters are for another shape,
/// [`Error::Unsupported`](crate::Error::Unsupported) where the convention does not have such tensors,
/// [`Error::Memory`](crate::Error::Memory) where there is none for the numbers of so many groups.
#[inline]
pub(crate) fn kernel_params<'a>(
    params: &'a QParams,
    float: FloatType,
    layout: &Layout,
) -> Result<Params<'a>> {
    let recipe = params.recipe_for(float)?;
    let tiles = params.granularity_on(layout.shape())?.tiles(layout)?;
    let scale = params.scale();
    let mut reciprocals = PerGroup::new();
    if recipe.steps.multiplies() {
        let number = |&s: &f64| reciprocal(params, float, s);
        match scale {
            // Without an allocation, which would take a good part of a small tensor's time.
            [scale] => reciprocals.push(number(scale)),
            _ => reciprocals = PerGroup::from_vec(collected(scale.iter().map(number))?),
        }
    }
    Ok(Params::new(
        recipe,
        tiles,
        scale,
        reciprocals,
        params.zero_point_slice(),
    ))
}

/// Whether the codes, the zero points and their differences are all small enough for the arithmetic of
/// the compute type of `float` to be exact on them.
pub(crate) fn integers_fit(params: &QParams, float: FloatType) -> bool {
    let limit = match float {
        FloatType::F64 => f64::MAGIC_LIMIT,
        _ => f32::MAGIC_LIMIT,
    };
    let zero_points = (0..params.scale().len()).map(|group| params.zero_point_of(group));
    recipe(params, float).fits(limit, zero_points)
}

#[cfg(test)]
mod tests {
    use FloatType::{F16, F32, F64};

    use super::*;
    use crate::convention::Convention;
    use crate::quantizer::Chopi;

    fn recipe_of(convention: Convention, float: FloatType, channels: bool) -> Recipe {
        let builder = Chopi::builder().convention(convention).symmetric(true);
        let builder = match channels {
            true => builder.per_channel(0),
            false => builder.per_tensor(),
        };
        let scheme = builder.scheme().unwrap();
        let params = QParams::new(scheme, convention, float, vec![1], vec![0.5], vec![0]).unwrap();
        recipe(&params, float)
    }

    #[test]
    fn steps_depend_on_the_granularity_in_torch_and_on_the_type_in_pychop() {
        let steps = |convention, float, channels| recipe_of(convention, float, channels).steps;
        assert_eq!(steps(Convention::TORCH, F32, false), Steps::Fused);
        assert_eq!(steps(Convention::TORCH, F32, true), Steps::MultiplyRounded);
        assert_eq!(steps(Convention::PYCHOP, F16, false), Steps::DivideExact);
        assert_eq!(steps(Convention::PYCHOP, F32, false), Steps::DivideExact);
        assert_eq!(steps(Convention::PYCHOP, F64, false), Steps::DivideRounded);
    }

    #[test]
    fn differences_are_rounded_to_halves_where_sums_are() {
        assert!(!recipe_of(Convention::PYCHOP, F16, false).has_native_difference());
        assert!(recipe_of(Convention::PYCHOP_TORCH, F16, false).has_native_difference());
        assert!(!recipe_of(Convention::PYCHOP_TORCH, F32, false).has_native_difference());
        assert!(recipe_of(Convention::PYCHOP, F16, false).has_exact_difference());
        assert!(!recipe_of(Convention::PYCHOP_TORCH, F32, false).has_exact_difference());
    }

    #[test]
    fn products_of_f64_data_are_rounded_to_f32_per_tensor_only() {
        assert!(recipe_of(Convention::TORCH_FAKE, F64, false).narrow_product);
        assert!(!recipe_of(Convention::TORCH_FAKE, F64, true).narrow_product);
        assert!(!recipe_of(Convention::TORCH_FAKE, F32, false).narrow_product);
    }
}
