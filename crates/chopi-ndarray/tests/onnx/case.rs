//! Inputs that fit each other, drawn by proptest.

use chopi_core::backend::{Float, FloatType};
use chopi_ndarray::onnx::QuantizedType;
use ndarray::{Array, ArrayD, ArrayViewD, Axis, IxDyn, Slice};
use proptest::prelude::*;

use crate::definition::group;

/// Inputs of QuantizeLinear and DequantizeLinear that fit each other.
#[derive(Clone, Debug)]
pub struct Case {
    pub shape: Vec<usize>,
    pub scale_shape: Vec<usize>,
    pub axis: isize,
    pub block_size: usize,
    /// Seeds of the elements: how many scales from the zero point, and what kind of number.
    pub x: Vec<(f64, u8, f32)>,
    pub scale: Vec<f64>,
    /// In 0..1 of the range of the codes.
    pub zero_point: Option<Vec<f64>>,
    pub precision: Option<FloatType>,
    pub memory: Memory,
}

/// How an array lies in memory.
#[derive(Clone, Copy, Debug)]
pub enum Memory {
    RowMajor,
    Fortran,
    Strided,
    Reversed,
}

fn shapes() -> impl Strategy<Value = Vec<usize>> {
    prop_oneof![
        12 => prop::collection::vec(1_usize..7, 0..=4),
        2 => prop::collection::vec(1_usize..200, 1..=1),
        1 => prop::collection::vec(0_usize..3, 1..=3),
    ]
}

pub fn cases() -> impl Strategy<Value = Case> {
    let scales = prop_oneof![
        8 => (-13.0..8.0_f64).prop_map(f64::exp2),
        4 => prop::sample::select(vec![1.0, 0.5, 0.1, 2_f64.powi(-7), 0.00214854861, 7.77]),
        1 => (-160.0..128.0_f64).prop_map(f64::exp2),
        1 => (-13.0..8.0_f64).prop_map(|e| -e.exp2()),
    ];
    // One in some cases is a number that divides nothing well.
    let odd = prop::sample::select(vec![0.0, -0.0, f64::INFINITY, 1e-45, 6e-8]);
    let precisions = [
        None,
        Some(FloatType::F32),
        Some(FloatType::F16),
        Some(FloatType::BF16),
    ];
    let memories = [
        Memory::RowMajor,
        Memory::Fortran,
        Memory::Strided,
        Memory::Reversed,
    ];
    (
        shapes(),
        0..5_u8,
        any::<prop::sample::Index>(),
        any::<bool>(),
        1_usize..9,
    )
        .prop_flat_map(move |(shape, kind, axis, negative, size)| {
            let rank = shape.len();
            let axis = if rank == 0 { 0 } else { axis.index(rank) };
            let (scale_shape, block_size) = match kind {
                0 => (vec![], 0),
                1 => (vec![1], 0),
                _ if rank == 0 => (vec![], 0),
                2 => (vec![shape[axis]], 0),
                _ => {
                    let mut scale = shape.clone();
                    scale[axis] = shape[axis].div_ceil(size);
                    (scale, size)
                }
            };
            let axis = axis as isize - if negative { rank as isize } else { 0 };
            let (count, groups) = (
                shape.iter().product::<usize>(),
                scale_shape.iter().product::<usize>(),
            );
            let zeros =
                prop::collection::vec(prop_oneof![0.0..=1.0_f64, Just(0.0), Just(1.0)], groups);
            (
                prop::collection::vec((-1.2..1.2_f64, any::<u8>(), any::<f32>()), count),
                prop::collection::vec(scales.clone(), groups),
                prop::option::weighted(0.05, odd.clone()),
                prop::option::weighted(0.8, zeros),
                prop::sample::select(precisions.to_vec()),
                prop::sample::select(memories.to_vec()),
            )
                .prop_map(move |(x, mut scale, odd, zero_point, precision, memory)| {
                    if let (Some(odd), Some(first)) = (odd, scale.first_mut()) {
                        *first = odd;
                    }
                    Case {
                        shape: shape.clone(),
                        scale_shape: scale_shape.clone(),
                        axis,
                        block_size,
                        x,
                        scale,
                        zero_point,
                        precision,
                        memory,
                    }
                })
        })
}

/// An array with these elements that lies in memory so, and a view of it.
pub fn laid_out<T: Clone, R>(
    array: &ArrayD<T>,
    memory: Memory,
    f: impl FnOnce(ArrayViewD<'_, T>) -> R,
) -> R {
    match memory {
        _ if array.ndim() == 0 || array.is_empty() => f(array.view()),
        Memory::RowMajor => f(array.view()),
        Memory::Fortran => {
            let transposed = array.t().as_standard_layout().into_owned();
            f(transposed.t())
        }
        Memory::Strided => {
            let last = Axis(array.ndim() - 1);
            let twice: Vec<usize> = (0..2 * array.len_of(last)).map(|i| i / 2).collect();
            let array = array.select(last, &twice);
            f(array.slice_axis(last, Slice::new(0, None, 2)))
        }
        Memory::Reversed => {
            let mut array = array.clone();
            array.invert_axis(Axis(0));
            let mut array = array.as_standard_layout().into_owned();
            array.invert_axis(Axis(0));
            f(array.view())
        }
    }
}

impl Case {
    pub fn scale<S: Float<Compute = f32>>(&self) -> ArrayD<S> {
        let scale = self.scale.iter().map(|&s| S::narrow(s as f32)).collect();
        Array::from_shape_vec(self.scale_shape.as_slice(), scale).unwrap()
    }

    pub fn zero_point(&self, (qmin, qmax): (i64, i64)) -> Option<ArrayD<i64>> {
        let in_range = |&z: &f64| qmin + (z * (qmax - qmin) as f64).round() as i64;
        let zeros = self.zero_point.as_ref()?.iter().map(in_range).collect();
        Some(Array::from_shape_vec(self.scale_shape.as_slice(), zeros).unwrap())
    }

    pub fn group(&self, index: &IxDyn) -> IxDyn {
        group(index, &self.scale_shape, self.axis, self.block_size)
    }

    /// Elements at and beside ties, in and beyond the range, and any others.
    pub fn x<A: Float<Compute = f32>>(
        &self,
        scale: &ArrayD<f64>,
        codes: QuantizedType,
    ) -> ArrayD<A> {
        let (qmin, qmax) = codes.bounds();
        let mut seeds = self.x.iter();
        ArrayD::from_shape_fn(self.shape.as_slice(), |index| {
            let &(steps, kind, any) = seeds.next().unwrap();
            let s = scale[self.group(&index)];
            let steps = (steps * (qmax - qmin) as f64).floor();
            let tie = ((steps + 0.5) * s) as f32;
            A::narrow(match kind % 16 {
                0..5 => tie,
                5..7 => tie.next_up(),
                7..9 => tie.next_down(),
                9..11 => (steps * s) as f32,
                11..13 => ((steps + f64::from(any.fract())) * s) as f32,
                13 => {
                    [0.0, -0.0, f32::INFINITY, f32::NEG_INFINITY, f32::MAX][usize::from(kind / 64)]
                }
                14 => 65504_f32.copysign(any),
                _ if kind == 255 => f32::NAN,
                _ => any,
            })
        })
    }
}
