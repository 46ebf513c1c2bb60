//! Learned scales (LSQ) and zero points (LSQ+).

use chopi_kernels::memory::{collected, copied, repeated};
use chopi_kernels::{Float, FloatSliceMut, FloatType, GradientRule, Layout, Sums, Tiles};

use crate::backend::{Backend, Fill, FloatTensor, HostFloats, check_len};
use crate::convention::{Convention, ZeroPoints};
use crate::device;
use crate::error::{Error, Result};
use crate::host::{check_type, ordered};
use crate::qparams::QParams;
use crate::recipe::kernel_params;
use crate::scheme::{Granularity, Scheme};
use crate::training::straight_through::in_order;

/// The scale and the zero point of each group as an optimizer holds them, real numbers, and what
/// they mean for one step.
///
/// *Forward*: s is the scale, at least the compute type's smallest normal number; z = RNE(zero
/// point), clamped to [qmin, qmax] in a convention whose zero points must lie there, and not rounded
/// in one whose zero points are real. Then x̂ is that of
/// [`fake_quantize`](crate::Chopi::fake_quantize) with s and z.
///
/// *Backward*, with v = x/s as the convention computes it, q the code, dy = ∂L/∂x̂ and g the
/// [`GradientFactor`]; an element is inside where round(v + z) lies in [qmin, qmax] before it is
/// clamped:
///
/// * ∂L/∂x = dy inside, 0 outside;
/// * ∂L/∂s = g·Σ dy·d with d = (q − z) − v inside, rounded once to the compute type, and
///   d = q − z (where q is qmin or qmax) outside: learned step size quantization
///   (LSQ, Esser et al. 2020);
/// * ∂L/∂z = −g·s·Σ dy over the elements outside: LSQ+ (Bhalgat et al. 2020) with the zero point
///   in steps.
///
/// The sums go over the group, in `f64`, in an order that depends on the layout of `x` alone: on
/// whatever machine and number of threads, the bits are the same. A NaN makes its group's sum NaN.
///
/// [`Convention::TORCH_FAKE`] takes derivatives as PyTorch 2.13's
/// `_fake_quantize_learnable_per_tensor_affine` and `_per_channel_affine` do, each operation rounded
/// to the compute type, inv = 1/s rounded: RNE(fma(x, inv, z)) decides what is inside (not
/// z + RNE(x·inv), as forward); the term of s is ((dy·fma(q − z, s, −x))·inv)·g inside and
/// (dy·(q − z))·g outside, that of z ((−dy)·s)·g outside. Per tensor the backward z is the
/// zero point + 0.5, clamped, without its fraction.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedParams {
    forward: QParams,
    backward: QParams,
    factor: GradientFactor,
}

/// What the gradients of scales and zero points are multiplied with.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[cfg_attr(feature = "serde", serde(rename_all = "snake_case"))]
pub enum GradientFactor {
    /// 1/√(N·qmax) with N the number of elements of the group, as LSQ has it.
    #[default]
    Lsq,
    /// A number of the user's.
    Fixed(f64),
}

/// The gradients of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct LearnedGradients<F> {
    /// ∂L/∂x, in memory order.
    pub x: Vec<F>,
    /// ∂L/∂s of each group, in row-major order.
    pub scale: Vec<f64>,
    /// ∂L/∂z of each group, in row-major order.
    pub zero_point: Vec<f64>,
}

impl LearnedParams {
    /// The parameters for data of type `float`; `shape` as for [`QParams::new`].
    ///
    /// # Errors
    /// The errors of [`QParams::new`]: [`Error::Scale`] for a scale that is NaN or infinite,
    /// [`Error::ZeroPoint`] for a zero point that is NaN.
    pub fn new(
        scheme: &Scheme,
        convention: &Convention,
        float: FloatType,
        shape: &[usize],
        (scale, zero_point): (&[f64], &[f64]),
        factor: GradientFactor,
    ) -> Result<Self> {
        // An integer would be made of it.
        if let Some(group) = zero_point.iter().position(|z| z.is_nan()) {
            return Err(Error::ZeroPoint {
                group,
                zero_point: f64::NAN,
                expected: "a number".to_owned(),
            });
        }
        let floor = float.compute().min_positive();
        // In this order NaN stays NaN, which is refused.
        let scale = scale.iter().map(|&s| if s < floor { floor } else { s });
        let scale: Vec<f64> = collected(scale)?;
        let (qmin, qmax) = (scheme.qmin as f64, scheme.qmax as f64);
        let bounded = convention.has_zero_points_in_range();
        let clamped = |z: f64| if bounded { z.clamp(qmin, qmax) } else { z };
        let params = |z: &dyn Fn(f64) -> f64| {
            let z = zero_point.iter().map(|&zero| z(zero));
            let (scheme, convention, shape) = (scheme.clone(), *convention, shape.to_vec());
            let scale = copied(&scale)?;
            match convention.zero_points(&scheme) {
                ZeroPoints::Real => {
                    let z = collected(z)?;
                    QParams::with_real_zero_points(scheme, convention, float, shape, scale, z)
                }
                _ => {
                    let z = collected(z.map(|z| clamped(z.round_ties_even()) as i64))?;
                    QParams::new(scheme, convention, float, shape, scale, z)
                }
            }
        };
        let forward = params(&|z| z)?;
        let backward = match (convention.has_torch_gradients(), scheme.granularity) {
            (true, Granularity::PerTensor) => {
                params(&|z| float.compute().round(z + 0.5).clamp(qmin, qmax).trunc())?
            }
            _ => forward.try_clone()?,
        };
        Ok(Self {
            forward,
            backward,
            factor,
        })
    }

    /// A copy, as [`Clone`] makes it.
    ///
    /// # Errors
    /// [`Error::Memory`] where there is none for it.
    pub fn try_clone(&self) -> Result<Self> {
        Ok(Self {
            forward: self.forward.try_clone()?,
            backward: self.backward.try_clone()?,
            factor: self.factor,
        })
    }

    /// The parameters of the forward pass.
    pub fn params(&self) -> &QParams {
        &self.forward
    }

    /// The factor of the gradients of each group of a tensor of this layout.
    ///
    /// # Errors
    /// [`Error::ParamsShape`] where the parameters are for another shape.
    pub fn factors(&self, layout: &Layout) -> Result<Vec<f64>> {
        let kernel = kernel_params(&self.forward, self.forward.float_type(), layout)?;
        let factors = self.factors_of(kernel.tiles())?;
        Ok(kernel.tiles().into_row_major(factors)?)
    }

    /// The factor of the gradients of each group, in memory order.
    fn factors_of(&self, tiles: &Tiles) -> Result<Vec<f64>> {
        let groups = tiles.groups();
        Ok(match self.factor {
            GradientFactor::Fixed(factor) => repeated(factor, groups)?,
            GradientFactor::Lsq => {
                let steps = self.forward.scheme().qmax.max(1) as f64;
                let factor = |n: usize| 1.0 / (n.max(1) as f64 * steps).sqrt();
                match self.forward.scheme().granularity {
                    Granularity::PerGroup { .. } => {
                        collected(tiles.elements_per_group()?.into_iter().map(factor))?
                    }
                    _ => repeated(factor(tiles.len() / groups.max(1)), groups)?,
                }
            }
        })
    }

    /// The gradients for the gradient `dy` of what `x` became.
    ///
    /// # Errors
    /// [`Error::Elements`] where `x` or `dy` is not as long as the layout says;
    /// [`Error::ParamsShape`] where the parameters are for another shape.
    pub fn gradients<F: Float>(
        &self,
        x: &[F],
        dy: &[F],
        layout: &Layout,
    ) -> Result<LearnedGradients<F>> {
        check_len(x.len(), layout)?;
        check_len(dy.len(), layout)?;
        let rounding = self.forward.scheme().rounding;
        let (x, order) = ordered(x, layout, rounding)?;
        let (dy, _) = ordered(dy, layout, rounding)?;
        let kernel = kernel_params(&self.backward, F::TYPE, &order)?;
        let tiles = kernel.tiles();
        let factors = self.factors_of(tiles)?;
        let rule = match self.backward.convention().has_torch_gradients() {
            false => GradientRule::Exact,
            true => GradientRule::Torch {
                factor: factors.first().copied().unwrap_or(1.0),
            },
        };
        let mut sums = None;
        let dx = |out: FloatSliceMut<'_>| {
            let (x, dy) = (F::slice(&x), F::slice(&dy));
            sums = Some(chopi_kernels::learned(x, dy, &kernel, rule, out)?);
            Ok(())
        };
        let dx = Fill::new(x.len(), dx).into_floats()?;
        let Sums {
            mut scale,
            mut zero_point,
        } = sums.unwrap_or_else(|| Sums {
            scale: Vec::new(),
            zero_point: Vec::new(),
        });
        let compute = F::TYPE.compute();
        if rule == GradientRule::Exact {
            let scales = tiles.to_memory_order(self.backward.scale())?;
            let groups = scale.iter_mut().zip(&mut zero_point);
            for ((ds, dz), (factor, s)) in groups.zip(factors.iter().zip(&*scales)) {
                *ds *= factor;
                *dz *= -factor * s;
            }
        }
        let of_groups = |mut sums: Vec<f64>| {
            sums.iter_mut().for_each(|sum| *sum = compute.round(*sum));
            tiles.into_row_major(sums)
        };
        Ok(LearnedGradients {
            x: in_order(dx, &order, layout)?,
            scale: of_groups(scale)?,
            zero_point: of_groups(zero_point)?,
        })
    }

    /// d = ∂x̂/∂s of each element, in the dtype of `x`: for a framework that composes the gradients.
    /// It is exact to the formula for `f32` and `f64`, and rounded for halves; widen them first.
    ///
    /// # Errors
    /// [`Error::ParamsShape`] where the parameters are for another shape; [`Error::Unsupported`] in
    /// [`Convention::TORCH_FAKE`], whose gradients are not of the form dy·d.
    pub fn scale_derivative<B: Backend, T: FloatTensor<B> + ?Sized>(
        &self,
        x: &T,
    ) -> Result<T::Owned> {
        let params = &self.backward;
        if params.convention().has_torch_gradients() {
            return Err(Error::Unsupported {
                convention: params.convention().name().to_owned(),
                what: "learned scales but in candle on the CPU and in libtorch".to_owned(),
            });
        }
        if let Some(x) = x.on_device() {
            return device::scale_derivative(&x, params);
        }
        x.with_host(|host| {
            host.ordered_for(params.scheme().rounding, |host| {
                let layout = host.layout();
                let values = |out: FloatSliceMut<'_>| derivatives(&host, params, out);
                x.float_like(layout, Fill::new(layout.len(), values))
            })
        })
    }
}

fn derivatives(x: &HostFloats<'_>, params: &QParams, out: FloatSliceMut<'_>) -> Result<()> {
    let kernel = kernel_params(params, x.float_type(), x.layout())?;
    check_type(x, &out)?;
    Ok(chopi_kernels::scale_derivatives(x.data(), &kernel, out)?)
}
