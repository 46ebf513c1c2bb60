//! Parameters as the kernels read them.

use std::ops::Range;

use smallvec::SmallVec;

use crate::convention::{Arithmetic, Scaling, ZeroPointAdd};
use crate::dtype::{Compute, FloatType};
use crate::kernel::vector::MAX_LANES;
use crate::qparams::QParams;
use crate::scheme::Granularity;
use crate::tiles::Tiles;

/// The parameters of each group, an array for each number, in the memory order of the tensor and
/// repeated as its tiles say.
#[derive(Debug)]
pub(crate) struct Lanes<C> {
    /// s.
    pub scale: PerGroup<C>,
    /// 1/s, rounded; empty where the convention divides.
    pub inverse: PerGroup<C>,
    /// z.
    pub zero: PerGroup<C>,
}

/// A number for each group; one is kept without an allocation.
pub(crate) type PerGroup<C> = SmallVec<[C; 1]>;

/// How a convention scales and adds, as the kernels see it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Steps {
    /// Whether x is multiplied by 1/s, not divided by s.
    pub reciprocal: bool,
    pub sum: Sum,
}

/// Where the zero point is added, once the types are known.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sum {
    /// Before rounding, exactly.
    Exact,
    /// Before rounding, the sum rounded to the compute type.
    Rounded,
    /// Before rounding, product and sum rounded together.
    Fused,
    /// After rounding.
    After,
}

impl Sum {
    /// Whether v holds z already when it is clamped.
    pub fn before_clamp(self) -> bool {
        matches!(self, Self::Rounded | Self::Fused)
    }
}

impl Steps {
    pub fn new(params: &QParams, float: FloatType) -> Self {
        let sum = match zero_point_add(params) {
            ZeroPointAdd::Exact => Sum::Exact,
            // The f64 sum of an f32 quotient and an integer is exact wherever it is not clamped.
            ZeroPointAdd::InF64 if float != FloatType::F64 => Sum::Exact,
            ZeroPointAdd::InF64 | ZeroPointAdd::Rounded => Sum::Rounded,
            ZeroPointAdd::Fused => Sum::Fused,
            ZeroPointAdd::AfterRounding => Sum::After,
        };
        Self {
            reciprocal: params.convention().scaling != Scaling::Divide,
            sum,
        }
    }
}

fn zero_point_add(params: &QParams) -> ZeroPointAdd {
    match params.scheme().granularity {
        Granularity::PerTensor => params.convention().zero_point_add,
        _ => params.convention().zero_point_add_grouped,
    }
}

/// 1/s as the convention takes it for data of type `float`.
pub(crate) fn inverse(params: &QParams, float: FloatType, scale: f64) -> f64 {
    let inverse = float.compute().round(1.0 / scale);
    match params.convention().scaling {
        Scaling::Divide | Scaling::Reciprocal => inverse,
        Scaling::ReciprocalOfF16 if float == FloatType::F16 => float.round(inverse),
        Scaling::ReciprocalOfF16 => inverse,
        Scaling::ReciprocalOfF32 => FloatType::F32.round(1.0 / scale),
        Scaling::ReciprocalOfElement => match float.round(inverse) {
            rounded if rounded.is_infinite() => 1.0,
            rounded => rounded,
        },
    }
}

/// Whether each operation is rounded to the element type, a half.
pub(crate) fn is_native_half(params: &QParams, float: FloatType) -> bool {
    params.convention().arithmetic == Arithmetic::Element && float != float.compute()
}

/// Whether (q − z)·s is rounded to `f32` though the compute type is `f64`.
pub(crate) fn is_narrow_product(params: &QParams, float: FloatType) -> bool {
    let convention = params.convention();
    let value = match params.scheme().granularity {
        Granularity::PerTensor => convention.value,
        _ => convention.value_grouped,
    };
    value.of(float) == FloatType::F32 && float == FloatType::F64
}

/// Whether values can be computed from codes in the compute type, each step rounded to it or to the
/// element type.
pub(crate) fn values_fit(params: &QParams, float: FloatType) -> bool {
    integers_fit(params, float) && !is_narrow_product(params, float)
}

/// Whether q − z is rounded to the element type, a half.
pub(crate) fn is_native_difference(params: &QParams, float: FloatType) -> bool {
    is_native_half(params, float) && zero_point_add(params) != ZeroPointAdd::InF64
}

/// Whether (q − z)·s is rounded once, however far away z is; else q − z is rounded too.
pub(crate) fn is_exact_difference(params: &QParams) -> bool {
    zero_point_add(params) != ZeroPointAdd::Rounded
}

/// Whether the codes, the zero points and their differences are all small in the compute type, so
/// that codes can be computed in it: see [`super`].
pub(crate) fn integers_fit(params: &QParams, float: FloatType) -> bool {
    let limit = match float {
        FloatType::F64 => f64::MAGIC_LIMIT,
        _ => f32::MAGIC_LIMIT,
    };
    let small = |n: i64| n.abs() <= limit;
    let scheme = params.scheme();
    let zero_points_are_small = params.zero_points().all(|z| z.abs() <= limit as f64);
    small(scheme.qmin) && small(scheme.qmax) && zero_points_are_small
}

impl<C: Compute> Lanes<C> {
    /// The parameters for data of type `float`.
    pub fn new(params: &QParams, tiles: &Tiles, float: FloatType) -> Self {
        let Steps { reciprocal, .. } = Steps::new(params, float);
        let repeat = tiles.repeat();
        let scale = tiles.to_memory_order(params.scale());
        let zero = per_group(params.scale().len(), params.zero_points());
        let zero = tiles.to_memory_order(&zero);
        let inverse = match reciprocal {
            false => PerGroup::new(),
            true => each(&scale, repeat, |s| C::from_f64(inverse(params, float, s))),
        };
        Self {
            scale: each(&scale, repeat, C::from_f64),
            inverse,
            zero: each(&zero, repeat, C::from_f64),
        }
    }
}

/// `count` numbers; one without a loop, which took a good part of a small tensor's time.
fn per_group<C: Copy>(count: usize, mut values: impl Iterator<Item = C>) -> PerGroup<C> {
    match (count, values.next()) {
        (1, Some(value)) => PerGroup::from_buf([value]),
        (_, first) => first.into_iter().chain(values).collect(),
    }
}

/// `f` of each value, each result `repeat` times.
fn each<C: Copy>(values: &[f64], repeat: usize, f: impl Fn(f64) -> C) -> PerGroup<C> {
    if repeat == 1 {
        return per_group(values.len(), values.iter().map(|&v| f(v)));
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
    /// Empty where the convention divides.
    pub inverse: &'a [C],
    pub zero: &'a [C],
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
            zero: &self.zero[params],
        }
    }
}

/// The parameters of a block that is shorter than a vector, made as long, if they are one for each
/// element.
pub(crate) struct PaddedBlock<C> {
    scale: [C; MAX_LANES],
    inverse: [C; MAX_LANES],
    zero: [C; MAX_LANES],
    lanes: usize,
    has_inverse: bool,
}

impl<C: Compute> LaneBlock<'_, C> {
    /// The parameters, for `lanes` elements.
    pub fn padded(&self, lanes: usize) -> PaddedBlock<C> {
        let padded = |values: &[C]| {
            let mut padded = [C::one(); MAX_LANES];
            padded[..values.len()].copy_from_slice(values);
            padded
        };
        PaddedBlock {
            scale: padded(self.scale),
            inverse: padded(self.inverse),
            zero: padded(self.zero),
            lanes: if self.zero.len() == 1 { 1 } else { lanes },
            has_inverse: !self.inverse.is_empty(),
        }
    }
}

impl<C> PaddedBlock<C> {
    pub fn block(&self) -> LaneBlock<'_, C> {
        LaneBlock {
            scale: &self.scale[..self.lanes],
            inverse: &self.inverse[..if self.has_inverse { self.lanes } else { 0 }],
            zero: &self.zero[..self.lanes],
        }
    }
}

/// Calls `f(elements, params)` for each block of the runs of a piece of a tensor, in order: blocks
/// are at most `size` elements long, and their parameters are one or as many. `piece` is its range
/// in the tensor, `elements` a range in the piece.
#[inline(always)]
pub(crate) fn for_each_block(
    tiles: &Tiles,
    piece: Range<usize>,
    size: usize,
    mut f: impl FnMut(Range<usize>, Range<usize>),
) {
    let first = piece.start;
    for run in tiles.runs(piece) {
        let uniform = run.params.len() == 1;
        let (mut start, mut param) = (run.elements.start, run.params.start);
        while start < run.elements.end {
            let end = run.elements.end.min(start + size);
            let params = if uniform { 1 } else { end - start };
            f(start - first..end - first, param..param + params);
            if !uniform {
                param += params;
            }
            start = end;
        }
    }
}
