//! Every recipe, on every instruction set, against its formula read word by word: one element at a
//! time, in exact arithmetic where the words say exact.

mod oracle;

use std::mem::MaybeUninit;
use std::sync::{Mutex, MutexGuard, PoisonError};

use chopi_kernels::{
    Compute, Float, Int, Isa, Layout, Params, PerGroup, Recipe, Rounding, Steps, Tiles,
    ZeroPointSlice, bf16, dequantize, f16, fake_quantize, fake_quantize_with_mask, quantize,
};

use oracle::{Dice, Numbers, Oracle};

const STEPS: [Steps; 6] = [
    Steps::DivideExact,
    Steps::DivideRounded,
    Steps::DivideAfter,
    Steps::MultiplyRounded,
    Steps::MultiplyAfter,
    Steps::Fused,
];

const ROUNDINGS: [Rounding; 6] = [
    Rounding::NearestEven,
    Rounding::NearestAway,
    Rounding::TowardZero,
    Rounding::Floor,
    Rounding::Ceiling,
    Rounding::Stochastic { seed: 0xdead_beef },
];

/// The instruction set is one for the whole process, so that one test at a time may choose it.
fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn available() -> impl Iterator<Item = Isa> {
    Isa::ALL.into_iter().filter(|isa| isa.is_available())
}

/// A tensor's layout, the tiles of its groups, and the group of each element in memory order.
#[derive(Debug)]
struct Tensor {
    tiles: Tiles,
    groups: Vec<usize>,
}

impl Tensor {
    /// Three axes in any order in memory.
    fn any(dice: &mut Dice, outer: usize) -> Self {
        let mut shape = [1 + dice.below(outer), 1 + dice.below(6), 1 + dice.below(9)];
        let long = dice.below(3);
        shape[long] = dice.of(&[0, 1, 2, 7, 8, 15, 16, 17, 31, 33, 63, 64, 65, 100]);
        let mut order = [0, 1, 2];
        order.swap(0, dice.below(3));
        order.swap(1, 1 + dice.below(2));
        let mut strides = [0; 3];
        let mut next = 1;
        for axis in order {
            strides[axis] = next;
            next *= shape[axis];
        }
        let layout = Layout::dense(&shape, &strides.map(|stride| stride as isize)).unwrap();
        let axis = dice.below(3);
        let size = 1 + dice.below(40);
        // The index of an element along an axis.
        let index = |offset: usize, axis: usize| match layout.is_empty() {
            true => 0,
            false => offset / strides[axis] % shape[axis],
        };
        let elements = 0..layout.len();
        match dice.below(3) {
            0 => Self {
                tiles: Tiles::per_tensor(&layout),
                groups: elements.map(|_| 0).collect(),
            },
            1 => Self {
                tiles: Tiles::per_channel(&layout, axis),
                groups: elements.map(|offset| index(offset, axis)).collect(),
            },
            _ => {
                let mut params = shape;
                params[axis] = shape[axis].div_ceil(size);
                let group = |offset| {
                    (0..3).fold(0, |group, i| {
                        let index = index(offset, i);
                        group * params[i] + if i == axis { index / size } else { index }
                    })
                };
                Self {
                    tiles: Tiles::per_group(&layout, axis, size),
                    groups: elements.map(group).collect(),
                }
            }
        }
    }
}

/// A recipe with bounds and a scale and a zero point for each of `groups` groups.
fn any_numbers<F: Float>(
    dice: &mut Dice,
    (steps, rounding): (Steps, Rounding),
    groups: usize,
) -> (Recipe, Numbers) {
    let native = dice.once_in(3);
    let (qmin, qmax) = dice.of(&[
        (-8, 7),
        (0, 255),
        (-128, 127),
        (-5, 300),
        (0, 65_535),
        (-32_768, 32_767),
        (i32::MIN.into(), i32::MAX.into()),
        (0, u32::MAX.into()),
    ]);
    let recipe = Recipe {
        steps,
        rounding,
        native,
        narrow_product: dice.once_in(3) && F::Compute::TYPE == chopi_kernels::FloatType::F64,
        nan_is_smallest: dice.once_in(3),
        qmin,
        qmax,
    };
    let far = !native && dice.once_in(4);
    // Zero points that are added exactly are integers.
    let real = matches!(steps, Steps::DivideRounded | Steps::MultiplyRounded) && dice.once_in(3);
    let zero = |dice: &mut Dice| match (far, real) {
        // Of 24 bits, as any compute type holds.
        (true, _) => dice.of(&[-(1_i64 << 22), 1 << 22, 1 << 33, -(1 << 31)]) as f64,
        (false, true) => (dice.below(600) as f64 - 300.0) + dice.below(1024) as f64 / 1024.0,
        (false, false) => dice.below(600) as f64 - 300.0,
    };
    // Numbers of the compute type.
    let number = |x: f64| F::Compute::from_f64(x).as_f64();
    let scale: Vec<f64> = (0..groups)
        .map(|_| match dice.once_in(3) {
            true => 0.25,
            false => number(0.001 + dice.unit() * 3.0),
        })
        .collect();
    let zero_point = (0..groups).map(|_| zero(dice)).collect();
    let reciprocal = scale.iter().map(|&s| number(1.0 / s)).collect();
    (
        recipe,
        Numbers {
            scale,
            reciprocal,
            zero_point,
        },
    )
}

/// Elements around the codes, on ties, beyond the bounds, and what is not a number.
fn any_elements<F: Float>(
    dice: &mut Dice,
    recipe: &Recipe,
    numbers: &Numbers,
    groups: &[usize],
) -> Vec<F> {
    let strange = [
        0.0,
        -0.0,
        1e-30,
        -1e-30,
        1e30,
        -1e30,
        5e-324,
        f64::INFINITY,
        f64::NEG_INFINITY,
        f64::NAN,
    ];
    let with_nan = dice.once_in(2);
    groups
        .iter()
        .map(|&group| {
            let (s, z) = (numbers.scale[group], numbers.zero_point[group]);
            let span = (recipe.qmax - recipe.qmin).min(2000) as f64;
            let code = recipe.qmin as f64 - 4.0 + dice.unit() * (span + 8.0);
            let x = match dice.below(6) {
                0 => dice.of(&strange),
                1 => ((code * 2.0).round() / 2.0 - z) * s,
                2 => (dice.unit() - 0.5) * 40.0,
                _ => (code - z) * s,
            };
            let x = if x.is_nan() && !with_nan { 1.0 } else { x };
            F::narrow(F::Compute::from_f64(x))
        })
        .collect()
}

fn written<T: Copy>(memory: Vec<MaybeUninit<T>>) -> Vec<T> {
    // SAFETY: each test makes its memory of elements that are initialized.
    memory.iter().map(|x| unsafe { x.assume_init() }).collect()
}

fn memory<T: Copy>(len: usize, with: T) -> Vec<MaybeUninit<T>> {
    vec![MaybeUninit::new(with); len]
}

/// The bits of a float; all NaNs are one.
fn bits<F: Float>(x: F) -> u64 {
    let x = x.widen().as_f64();
    if x.is_nan() { u64::MAX } else { x.to_bits() }
}

/// The codes of a type, and the values of the codes, as the kernels and as the formula has them.
fn check_codes<F: Float, I: Int + TryFrom<i64>>(
    x: &[F],
    params: &Params<'_>,
    oracle: &Oracle<'_, F>,
) {
    let recipe = params.recipe();
    if !I::TYPE.holds(recipe.qmin, recipe.qmax) {
        return;
    }
    let mut codes = memory(x.len(), I::default());
    let any_nan = quantize(F::slice(x), params, I::slice_mut(&mut codes)).unwrap();
    let codes: Vec<I> = written(codes);
    assert_eq!(any_nan, x.iter().any(|x| bits(*x) == u64::MAX));
    for (i, code) in codes.iter().enumerate() {
        let (actual, expected) = (code.to_i64(), oracle.code(x[i], i));
        assert_eq!(actual, expected, "code of {:?}, {}", x[i], oracle.of(i));
    }
    let mut values = memory(x.len(), F::default());
    dequantize(I::slice(&codes), params, F::slice_mut(&mut values)).unwrap();
    for (i, value) in written(values).into_iter().enumerate() {
        let (q, expected) = (codes[i].to_i64(), oracle.value(codes[i].to_i64(), i));
        assert_eq!(
            bits(value),
            bits(expected),
            "{value:?} of {q}, {}",
            oracle.of(i)
        );
    }
}

fn check<F: Float>(dice: &mut Dice, kind: (Steps, Rounding), outer: usize) {
    let tensor = Tensor::any(dice, outer);
    let (recipe, numbers) = any_numbers::<F>(dice, kind, tensor.tiles.groups());
    let x: Vec<F> = any_elements(dice, &recipe, &numbers, &tensor.groups);
    let reciprocal = match recipe.steps.multiplies() {
        true => PerGroup::from_slice(&numbers.reciprocal),
        false => PerGroup::new(),
    };
    let zero_point = ZeroPointSlice::Reals(&numbers.zero_point);
    let params = Params::new(recipe, tensor.tiles, &numbers.scale, reciprocal, zero_point);
    let oracle = Oracle::<F>::new(recipe, &numbers, &tensor.groups);

    check_codes::<F, i8>(&x, &params, &oracle);
    check_codes::<F, u8>(&x, &params, &oracle);
    check_codes::<F, i16>(&x, &params, &oracle);
    check_codes::<F, u16>(&x, &params, &oracle);
    check_codes::<F, i32>(&x, &params, &oracle);
    check_codes::<F, u32>(&x, &params, &oracle);
    check_codes::<F, i64>(&x, &params, &oracle);

    let mut values = memory(x.len(), F::default());
    fake_quantize(F::slice(&x), &params, F::slice_mut(&mut values)).unwrap();
    let values: Vec<F> = written(values);
    let mut masked = memory(x.len(), F::default());
    let mut mask = memory(x.len(), 7_u8);
    fake_quantize_with_mask(F::slice(&x), &params, F::slice_mut(&mut masked), &mut mask).unwrap();
    let (masked, mask): (Vec<F>, Vec<u8>) = (written(masked), written(mask));
    for i in 0..x.len() {
        let (expected, inside) = oracle.fake_quantized(x[i], i);
        let of = || format!("{:?}, {}", x[i], oracle.of(i));
        assert_eq!(bits(values[i]), bits(expected), "fake-quantized {}", of());
        assert_eq!(bits(masked[i]), bits(expected), "with its mask {}", of());
        assert_eq!(mask[i], u8::from(inside), "the mask of {}", of());
    }
}

/// Every recipe with random groups, `times` times, on every instruction set.
fn check_all<F: Float>(times: u64, outer: usize) {
    let _alone = alone();
    let before = Isa::active();
    for isa in available() {
        isa.force().unwrap();
        for kind in STEPS.iter().flat_map(|&s| ROUNDINGS.map(|r| (s, r))) {
            for seed in 0..times {
                check::<F>(&mut Dice::new(seed), kind, outer);
            }
        }
    }
    before.force().unwrap();
}

#[test]
fn f32_elements_become_what_the_formula_says() {
    check_all::<f32>(30, 5);
    check_all::<f32>(3, 40);
}

#[test]
fn f64_elements_become_what_the_formula_says() {
    check_all::<f64>(20, 5);
    check_all::<f64>(2, 40);
}

#[test]
fn f16_elements_become_what_the_formula_says() {
    check_all::<f16>(20, 5);
    check_all::<f16>(2, 40);
}

#[test]
fn bf16_elements_become_what_the_formula_says() {
    check_all::<bf16>(20, 5);
    check_all::<bf16>(2, 40);
}

#[cfg(feature = "rayon")]
#[test]
fn one_thread_and_three_give_the_same_bits() {
    let _alone = alone();
    let before = Isa::active();
    let pool = |threads| {
        let builder = rayon::ThreadPoolBuilder::new().num_threads(threads);
        builder.build().unwrap()
    };
    let (one, three) = (pool(1), pool(3));
    // Enough for several pieces, which begin and end within groups.
    let layout = Layout::row_major(&[3, 1001, 131]);
    let tiles = [
        Tiles::per_tensor(&layout),
        Tiles::per_channel(&layout, 1),
        Tiles::per_channel(&layout, 2),
        Tiles::per_group(&layout, 2, 30),
        Tiles::per_group(&layout, 1, 77),
    ];
    let x: Vec<f32> = (0..layout.len())
        .map(|i| (i % 4099) as f32 / 7.0 - 200.0)
        .collect();
    for isa in available() {
        isa.force().unwrap();
        for (seed, tiles) in tiles.iter().enumerate() {
            let mut dice = Dice::new(seed as u64);
            let kind = (dice.of(&STEPS), dice.of(&ROUNDINGS));
            let (mut recipe, numbers) = any_numbers::<f32>(&mut dice, kind, tiles.groups());
            (recipe.qmin, recipe.qmax) = (-100, 100);
            let reciprocal = match recipe.steps.multiplies() {
                true => PerGroup::from_slice(&numbers.reciprocal),
                false => PerGroup::new(),
            };
            let zero_point = ZeroPointSlice::Reals(&numbers.zero_point);
            let params = Params::new(
                recipe,
                tiles.clone(),
                &numbers.scale,
                reciprocal,
                zero_point,
            );
            let all = || {
                let mut codes = memory(x.len(), 0_i8);
                quantize(f32::slice(&x), &params, i8::slice_mut(&mut codes)).unwrap();
                let codes: Vec<i8> = written(codes);
                let mut values = memory(x.len(), 0_f32);
                let mut mask = memory(x.len(), 7_u8);
                let out = f32::slice_mut(&mut values);
                fake_quantize_with_mask(f32::slice(&x), &params, out, &mut mask).unwrap();
                let mut back = memory(x.len(), 0_f32);
                dequantize(i8::slice(&codes), &params, f32::slice_mut(&mut back)).unwrap();
                let bits = |values| -> Vec<u64> {
                    let values: Vec<f32> = written(values);
                    values.into_iter().map(bits).collect()
                };
                (codes, bits(values), written(mask), bits(back))
            };
            assert!(one.install(all) == three.install(all), "{isa} {recipe:?}");
        }
    }
    before.force().unwrap();
}
