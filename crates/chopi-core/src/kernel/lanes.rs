//! Parameters as the kernels read them.

use std::ops::Range;

use crate::convention::{Arithmetic, Scaling, ZeroPointAdd};
use crate::dtype::{Compute, FloatType};
use crate::qparams::QParams;
use crate::scheme::Rounding;
use crate::tiles::Tiles;

/// The parameters of each group, an array for each number, in the memory order of the tensor and
/// repeated as its tiles say.
///
/// With v the scaled element, M = [`Compute::MAGIC`] and each sum in the convention's order:
///
/// | zero point added | `low`, `high` | `magic` | code |
/// |---|---|---|---|
/// | exactly, before rounding | qmin − z, qmax − z | M + z | clamp(v) + magic − M |
/// | after rounding | qmin − z, qmax − z | M | clamp(v) + magic − M + z |
/// | rounded, before rounding | qmin, qmax | M | clamp(v + z) + magic − M |
///
/// The floating-point sum with `magic` is exact but for one rounding, to an integer, half to even:
/// it *is* the rounding. Clamping before it equals clamping after it, since the bounds are integers.
#[derive(Debug)]
pub(crate) struct Lanes<C> {
    /// s.
    pub scale: Vec<C>,
    /// 1/s, rounded; empty where the convention divides.
    pub inverse: Vec<C>,
    /// z.
    pub zero: Vec<C>,
    pub low: Vec<C>,
    pub high: Vec<C>,
    pub magic: Vec<C>,
}

/// How a convention scales and adds, as the kernels see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    pub scaling: Scaling,
    pub sum: Sum,
}

/// Where the zero point is added, once the types are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    /// Before rounding, exactly.
    Exact,
    /// Before rounding, the sum rounded to the compute type.
    Rounded,
    /// After rounding.
    After,
}

impl Steps {
    pub fn new(params: &QParams, float: FloatType) -> Self {
        let convention = params.convention();
        let sum = match convention.zero_point_add {
            ZeroPointAdd::Exact => Sum::Exact,
            // The f64 sum of an f32 quotient and an integer is exact wherever it is not clamped.
            ZeroPointAdd::InF64 if float != FloatType::F64 => Sum::Exact,
            ZeroPointAdd::InF64 | ZeroPointAdd::Rounded => Sum::Rounded,
            ZeroPointAdd::AfterRounding => Sum::After,
        };
        Self {
            scaling: convention.scaling,
            sum,
        }
    }
}

/// Whether each operation is rounded to the element type, a half.
pub(crate) fn is_native_half(params: &QParams, float: FloatType) -> bool {
    params.convention().arithmetic == Arithmetic::Element && float != float.compute()
}

/// Whether codes can be computed in the compute type itself: see [`super`].
pub(crate) fn is_fast(params: &QParams, float: FloatType) -> bool {
    params.scheme().rounding == Rounding::NearestEven
        && !is_native_half(params, float)
        && integers_fit(params, float)
}

/// Whether the codes, the zero points and their differences are all small in the compute type.
pub(crate) fn integers_fit(params: &QParams, float: FloatType) -> bool {
    let limit = match float {
        FloatType::F64 => f64::MAGIC_LIMIT,
        _ => f32::MAGIC_LIMIT,
    };
    let small = |n: i64| n.abs() <= limit;
    let scheme = params.scheme();
    small(scheme.qmin) && small(scheme.qmax) && params.zero_point().iter().all(|&z| small(z))
}

impl<C: Compute> Lanes<C> {
    pub fn new(params: &QParams, tiles: &Tiles, sum: Sum) -> Self {
        let scheme = params.scheme();
        let scale = tiles.to_memory_order(params.scale());
        let zero = tiles.to_memory_order(params.zero_point());
        let repeat = tiles.repeat();
        let scales = |f: &dyn Fn(C) -> C| each(&scale, repeat, |s| f(C::from_f64(s)));
        let zeros = |f: &dyn Fn(i64) -> i64| each(&zero, repeat, |z| C::from_i64(f(z)));
        let (low, high) = match sum {
            Sum::Rounded => (zeros(&|_| scheme.qmin), zeros(&|_| scheme.qmax)),
            _ => (zeros(&|z| scheme.qmin - z), zeros(&|z| scheme.qmax - z)),
        };
        let magic = each(&zero, repeat, |z| match sum {
            Sum::Exact => C::MAGIC + C::from_i64(z),
            _ => C::MAGIC,
        });
        let inverse = match params.convention().scaling {
            Scaling::Divide => Vec::new(),
            Scaling::Reciprocal => scales(&|s| C::one() / s),
        };
        Self {
            scale: scales(&|s| s),
            inverse,
            zero: zeros(&|z| z),
            low,
            high,
            magic,
        }
    }
}

/// `f` of each value, each result `repeat` times.
fn each<T: Copy, U: Copy>(values: &[T], repeat: usize, f: impl Fn(T) -> U) -> Vec<U> {
    if repeat == 1 {
        return values.iter().map(|&v| f(v)).collect();
    }
    values
        .iter()
        .flat_map(|&v| std::iter::repeat_n(f(v), repeat))
        .collect()
}

/// The parameters of the elements of a block, one for all or one for each.
#[derive(Clone, Copy, Debug)]
pub(crate) struct LaneBlock<'a, C> {
    pub scale: &'a [C],
    pub inverse: &'a [C],
    pub zero: &'a [C],
    pub low: &'a [C],
    pub high: &'a [C],
    pub magic: &'a [C],
}

impl<C: Compute> Lanes<C> {
    #[inline(always)]
    pub fn block(&self, params: Range<usize>) -> LaneBlock<'_, C> {
        LaneBlock {
            scale: &self.scale[params.clone()],
            inverse: if self.inverse.is_empty() {
                &[]
            } else {
                &self.inverse[params.clone()]
            },
            zero: &self.zero[params.clone()],
            low: &self.low[params.clone()],
            high: &self.high[params.clone()],
            magic: &self.magic[params],
        }
    }
}

/// Calls `f(elements, params)` for each block of each tile, in order: blocks are at most
/// `size` elements long, and their parameters are one or as many.
#[inline(always)]
pub(crate) fn for_each_block(
    tiles: &Tiles,
    size: usize,
    mut f: impl FnMut(Range<usize>, Range<usize>),
) {
    for i in 0..tiles.count() {
        let tile = tiles.tile(i);
        let uniform = tile.params.len() == 1;
        let mut start = tile.elements.start;
        while start < tile.elements.end {
            let end = tile.elements.end.min(start + size);
            let skipped = start - tile.elements.start;
            let params = match uniform {
                true => tile.params.clone(),
                false => tile.params.start + skipped..tile.params.start + skipped + end - start,
            };
            f(start..end, params);
            start = end;
        }
    }
}
