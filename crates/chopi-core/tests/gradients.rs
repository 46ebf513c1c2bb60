//! The gradients equal their definition, written naively.

use chopi_core::training::{GradientFactor, LearnedParams, fake_quantize, straight_through};
use chopi_core::{
    Chopi, Convention, Granularity, QParams, Rounding, Scheme, SchemeFields, Symmetry,
    backend::{Float, FloatType, Layout, bf16, f16},
};
use proptest::prelude::*;

fn scheme(bits: u32, symmetry: Symmetry, granularity: Granularity) -> Scheme {
    Chopi::builder()
        .num_bits(bits)
        .symmetric(symmetry == Symmetry::Symmetric)
        .granularity(granularity)
        .scheme()
        .unwrap()
}

/// The group of each element of a row-major tensor of shape [a, b, c].
fn group([_, b, c]: [usize; 3], granularity: Granularity, element: usize) -> usize {
    let (i, j, k) = (element / (b * c), element / c % b, element % c);
    match granularity {
        Granularity::PerTensor => 0,
        Granularity::PerChannel { axis } => [i, j, k][axis.rem_euclid(3) as usize],
        Granularity::PerGroup { axis, size } => {
            let groups = |length: usize, along: isize| match axis.rem_euclid(3) == along {
                true => length.div_ceil(size),
                false => length,
            };
            let at = |index: usize, along: isize| match axis.rem_euclid(3) == along {
                true => index / size,
                false => index,
            };
            (at(i, 0) * groups(b, 1) + at(j, 1)) * groups(c, 2) + at(k, 2)
        }
    }
}

struct Case<F> {
    x: Vec<F>,
    dy: Vec<F>,
    shape: [usize; 3],
    params: QParams,
    learned: LearnedParams,
}

/// A case whose sums are exact in any order: scales are powers of two, x multiples of a small one,
/// dy small integers.
fn exact_case<F: Float>(
    shape: [usize; 3],
    scheme: Scheme,
    seed: u64,
    factor: GradientFactor,
    of: impl Fn(f64) -> F,
) -> Case<F> {
    let mut state = seed;
    let mut next = |n: i64| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        ((state >> 33) as i64).rem_euclid(n)
    };
    let len = shape.iter().product();
    let params_shape = scheme.granularity.params_shape(&shape).unwrap();
    let groups: usize = params_shape.iter().product();
    let scale: Vec<f64> = (0..groups)
        .map(|_| 2_f64.powi(next(4) as i32 - 2))
        .collect();
    let zero: Vec<f64> = match scheme.symmetry {
        Symmetry::Symmetric => vec![0.0; groups],
        Symmetry::Asymmetric => (0..groups).map(|_| (next(12) - 4) as f64).collect(),
    };
    let x = (0..len)
        .map(|_| of((next(300) - 150) as f64 / 16.0))
        .collect();
    let dy = (0..len).map(|_| of((next(15) - 7) as f64)).collect();
    let learned = LearnedParams::new(
        &scheme,
        &Convention::CHOPI,
        F::TYPE,
        &params_shape,
        (&scale, &zero),
        factor,
    );
    let learned = learned.unwrap();
    let params = learned.params().clone();
    Case {
        x,
        dy,
        shape,
        params,
        learned,
    }
}

fn check<F: Float + PartialEq>(case: &Case<F>) {
    use chopi_core::backend::Compute;
    let Case {
        x,
        dy,
        shape,
        params,
        learned,
    } = case;
    let layout = Layout::row_major(shape);
    let wide = |v: &F| v.widen().as_f64();
    let scheme = params.scheme();
    let (qmin, qmax) = (scheme.qmin as f64, scheme.qmax as f64);
    let groups = params.scale().len();
    let (mut ds, mut dz, mut counts) = (vec![0.0; groups], vec![0.0; groups], vec![0.0; groups]);
    let mut dx = Vec::new();
    let mut y = Vec::new();
    for (element, (x, dy)) in x.iter().zip(dy).enumerate() {
        let g = group(*shape, scheme.granularity, element);
        let (s, z) = (params.scale()[g], params.zero_point()[g] as f64);
        let v = wide(x) / s;
        let code = match scheme.rounding {
            Rounding::Floor => (v + z).floor(),
            _ => (v + z).round_ties_even(),
        };
        let inside = qmin <= code && code <= qmax;
        let q = code.clamp(qmin, qmax);
        y.push((q - z) * s);
        dx.push(if inside { wide(dy) } else { 0.0 });
        ds[g] += wide(dy) * if inside { (q - z) - v } else { q - z };
        dz[g] -= if inside { 0.0 } else { wide(dy) * s };
        counts[g] += 1.0;
    }
    let wide = |v: &[F]| v.iter().map(|v| v.widen().as_f64()).collect::<Vec<_>>();
    assert_eq!(wide(&fake_quantize(x, &layout, params).unwrap()), y);
    assert_eq!(wide(&straight_through(x, dy, &layout, params).unwrap()), dx);
    let gradients = learned.gradients(x, dy, &layout).unwrap();
    assert_eq!(wide(&gradients.x), dx);
    let factors = learned.factors(&layout).unwrap();
    for g in 0..groups {
        let lsq = 1.0 / (counts[g] * qmax.max(1.0)).sqrt();
        assert!(
            factors[g] == 1.0 || factors[g] == lsq,
            "{} {lsq}",
            factors[g]
        );
        let round = |v: f64| F::TYPE.compute().round(v);
        assert_eq!(
            gradients.scale[g],
            round(ds[g] * factors[g]),
            "scale of {g}"
        );
        let expected = round(dz[g] * factors[g]);
        let got = gradients.zero_point[g];
        // The factor and the scale, a power of two here, are multiplied in another order.
        assert_eq!(got, expected, "zero point of {g}");
    }
}

fn granularities() -> impl Strategy<Value = Granularity> {
    prop_oneof![
        Just(Granularity::PerTensor),
        (-3..3_isize).prop_map(|axis| Granularity::PerChannel { axis }),
        (-3..3_isize, 1..9_usize).prop_map(|(axis, size)| Granularity::PerGroup { axis, size }),
    ]
}

fn shapes() -> impl Strategy<Value = [usize; 3]> {
    prop_oneof![
        (1..5_usize, 1..7_usize, 1..9_usize).prop_map(|(a, b, c)| [a, b, c]),
        Just([3, 2, 700]),
        Just([1, 1500, 1]),
        Just([65, 3, 5]),
    ]
}

proptest! {
    #[test]
    fn gradients_equal_their_definition(
        shape in shapes(),
        granularity in granularities(),
        bits in 2..9_u32,
        symmetric in any::<bool>(),
        floor in any::<bool>(),
        lsq in any::<bool>(),
        seed in any::<u64>(),
    ) {
        let symmetry = if symmetric { Symmetry::Symmetric } else { Symmetry::Asymmetric };
        let scheme = scheme(bits, symmetry, granularity);
        let rounding = if floor { Rounding::Floor } else { scheme.rounding };
        let scheme = Scheme::new(SchemeFields { rounding, ..*scheme }).unwrap();
        let factor = if lsq { GradientFactor::Lsq } else { GradientFactor::Fixed(1.0) };
        check(&exact_case(shape, scheme.clone(), seed, factor, |x| x as f32));
        check(&exact_case(shape, scheme.clone(), seed, factor, |x| x));
        check(&exact_case(shape, scheme.clone(), seed, factor, f16::from_f64));
        check(&exact_case(shape, scheme, seed, factor, bf16::from_f64));
    }
}

#[test]
fn the_order_of_axes_in_memory_does_not_change_gradients() {
    let shape = [4, 6, 10];
    for granularity in [
        Granularity::PerTensor,
        Granularity::PerChannel { axis: 1 },
        Granularity::PerGroup { axis: 2, size: 4 },
    ] {
        let scheme = scheme(4, Symmetry::Asymmetric, granularity);
        let case = exact_case(shape, scheme, 7, GradientFactor::Lsq, |x| x as f32);
        let row_major = Layout::row_major(&shape);
        // [4, 6, 10] lying in memory as [10, 4, 6].
        let layout = Layout::dense(&shape, &[6, 1, 24]).unwrap();
        let permuted = |data: &[f32]| -> Vec<f32> {
            let at = |i: usize| data[(i / 6 % 4) * 60 + (i % 6) * 10 + i / 24];
            (0..240).map(at).collect()
        };
        let expected = case
            .learned
            .gradients(&case.x, &case.dy, &row_major)
            .unwrap();
        let (x, dy) = (permuted(&case.x), permuted(&case.dy));
        let got = case.learned.gradients(&x, &dy, &layout).unwrap();
        assert_eq!(got.x, permuted(&expected.x));
        assert_eq!(got.scale, expected.scale);
        assert_eq!(got.zero_point, expected.zero_point);
    }
}

#[test]
fn infinities_saturate_and_pass_no_gradient_and_nan_stays() {
    let scheme = scheme(8, Symmetry::Symmetric, Granularity::PerTensor);
    let learned = |factor| {
        let (convention, float) = (Convention::CHOPI, FloatType::F32);
        LearnedParams::new(&scheme, &convention, float, &[1], (&[0.5], &[0.0]), factor).unwrap()
    };
    let learned = learned(GradientFactor::Fixed(1.0));
    let x = [
        f32::INFINITY,
        f32::NEG_INFINITY,
        1e30,
        63.5,
        63.75,
        -64.25,
        -64.5,
    ];
    let layout = Layout::row_major(&[7]);
    let dy = [1.0_f32; 7];
    let y = fake_quantize(&x, &layout, learned.params()).unwrap();
    assert_eq!(y, [63.5, -64.0, 63.5, 63.5, 63.5, -64.0, -64.0]);
    let gradients = learned.gradients(&x, &dy, &layout).unwrap();
    // 63.75/0.5 = 127.5 rounds to 128, outside; −128.5 rounds to −128, inside.
    assert_eq!(gradients.x, [0.0, 0.0, 0.0, 1.0, 0.0, 1.0, 0.0]);
    let ds = 127.0 - 128.0 + 127.0 + 0.0 + 127.0 + 0.5 - 128.0;
    assert_eq!(gradients.scale, [ds]);
    assert_eq!(gradients.zero_point, [-5.0 * 0.5]);

    let layout = Layout::row_major(&[1]);
    let gradients = learned.gradients(&[f32::NAN], &[1.0], &layout).unwrap();
    assert_eq!(gradients.x, [0.0]);
    assert!(gradients.scale[0].is_nan());
}

#[test]
fn scales_that_an_optimizer_made_negative_are_the_smallest_and_nan_is_refused() {
    let scheme = scheme(8, Symmetry::Symmetric, Granularity::PerTensor);
    let learned = |scale: f64| {
        LearnedParams::new(
            &scheme,
            &Convention::CHOPI,
            FloatType::F32,
            &[1],
            (&[scale], &[0.0]),
            GradientFactor::Lsq,
        )
    };
    let smallest = f64::from(f32::MIN_POSITIVE);
    assert_eq!(learned(-1.0).unwrap().params().scale(), [smallest]);
    assert!(learned(f64::NAN).is_err());
    assert!(learned(f64::INFINITY).is_err());
}

#[test]
fn slices_of_another_length_are_refused() {
    let scheme = scheme(8, Symmetry::Symmetric, Granularity::PerTensor);
    let (convention, float) = (Convention::CHOPI, FloatType::F32);
    let params = QParams::new(scheme, convention, float, vec![1], vec![1.0], vec![0]).unwrap();
    let layout = Layout::row_major(&[2, 2]);
    let error = straight_through(&[1.0_f32; 4], &[1.0; 3], &layout, &params).unwrap_err();
    assert!(error.to_string().contains("3 elements"), "{error}");
}
