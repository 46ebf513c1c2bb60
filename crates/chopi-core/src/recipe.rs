//! From parameters to what the kernels need to know.

use chopi_kernels::memory::fill_per_group;
use chopi_kernels::{Compute, FloatType, Layout, Params, PerGroup, Recipe};

use crate::error::Result;
use crate::qparams::QParams;

/// What is done with every element of a tensor of type `float` under these parameters, but for the
/// numbers of its group.
#[inline]
pub(crate) fn recipe(params: &QParams, float: FloatType) -> Recipe {
    let (library, scheme) = (params.convention().library(), params.scheme());
    Recipe {
        steps: library.steps(scheme, float),
        rounding: scheme.rounding,
        native: library.computes_in_element_type() && float != float.compute(),
        narrow_product: library.has_f32_values(scheme) && float == FloatType::F64,
        nan_is_smallest: library.nan_is_smallest(),
        qmin: scheme.qmin,
        qmax: scheme.qmax,
    }
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
    let granularity = params.granularity_for(float, layout.shape())?;
    let tiles = granularity.tiles(layout)?;
    let recipe = recipe(params, float);
    let scale = params.scale();
    let multiplies = recipe.steps.multiplies();
    // One group, without a loop and an allocation, which took a good part of a small tensor's time.
    if let [scale_of_all] = *scale {
        let reciprocals = match multiplies {
            true => PerGroup::from_buf([reciprocal(params, float, scale_of_all)]),
            false => PerGroup::new(),
        };
        let zero_points = PerGroup::from_buf([params.zero_point_of(0)]);
        return Ok(Params::new(recipe, tiles, scale, reciprocals, zero_points));
    }
    let (mut reciprocals, mut zero_points) = (PerGroup::new(), PerGroup::new());
    if multiplies {
        let each = scale.iter().map(|&s| reciprocal(params, float, s));
        fill_per_group(&mut reciprocals, each)?;
    }
    params.fill_zero_points(&mut zero_points)?;
    Ok(Params::new(recipe, tiles, scale, reciprocals, zero_points))
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
    use chopi_kernels::Steps;

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
