//! GPTQ against its definition, read naively: column by column, the inverse of H updated at each.

mod support;

use chopi_core::{Chopi, Convention, QParams, Scheme};
use chopi_ndarray::NdArray;
use chopi_ptq::{Choice, Gptq, Method, Moments, Order, Rounding, quantize};
use ndarray::{Array2, s};
use proptest::prelude::*;
use support::{grouped, inputs, scheme, second, trace, weights};

/// The inverse of a symmetric positive definite matrix, by Gauss and Jordan.
fn inverse(matrix: &Array2<f64>) -> Array2<f64> {
    let n = matrix.nrows();
    let (mut a, mut inverse) = (matrix.clone(), Array2::eye(n));
    for i in 0..n {
        let pivot = a[[i, i]];
        for m in [&mut a, &mut inverse] {
            m.row_mut(i).mapv_inplace(|x| x / pivot);
        }
        for k in (0..n).filter(|&k| k != i) {
            let share = a[[k, i]];
            for m in [&mut a, &mut inverse] {
                let row = m.row(i).to_owned();
                m.row_mut(k).scaled_add(-share, &row);
            }
        }
    }
    inverse
}

/// The codes of optimal brain quantization in a fixed order: w_j is rounded, and the weights that are left are
/// changed by −(w_j − ŵ_j)·[H^−1]_jk / [H^−1]_jj, where H is that of the channels that are left.
fn definition(w: &Array2<f32>, h: &Array2<f64>, settings: Gptq, params: &QParams) -> Array2<i64> {
    let n = w.ncols();
    let mut order: Vec<usize> = (0..n).collect();
    if settings.order == Order::Activation {
        order.sort_by(|&a, &b| h[[b, b]].partial_cmp(&h[[a, a]]).unwrap());
    }
    let mean = h.diag().sum() / n as f64;
    let mut w = w.mapv(f64::from);
    let mut left = order.clone();
    let mut rounded = Array2::<f32>::zeros(w.raw_dim());
    let damped = h + Array2::<f64>::eye(n) * (settings.damping * mean);
    let mut inv = inverse(&Array2::from_shape_fn((n, n), |(i, j)| {
        damped[[order[i], order[j]]]
    }));
    while let Some(&j) = left.first() {
        let x = w.mapv(|x| x as f32);
        rounded.column_mut(j).assign(&x.column(j));
        let values = params.fake_quantize::<NdArray, _>(&x).unwrap();
        let error = (&w.column(j) - &values.column(j).mapv(f64::from)) / inv[[0, 0]];
        for (k, &channel) in left.iter().enumerate().skip(1) {
            w.column_mut(channel).scaled_add(-inv[[0, k]], &error);
        }
        // The inverse of H without its first row and column.
        let first = inv.slice(s![1.., ..1]).to_owned();
        let outer = first.dot(&first.t());
        inv = inv.slice(s![1.., 1..]).to_owned() - outer / inv[[0, 0]];
        left.remove(0);
    }
    codes(&params.quantize::<NdArray, _>(&rounded).unwrap())
}

/// H + λI, with the λ of GPTQ.
fn damped(h: &Array2<f64>, settings: Gptq) -> Array2<f64> {
    h + Array2::<f64>::eye(h.nrows()) * (settings.damping * h.diag().mean().unwrap())
}

/// The codes after sweeps of coordinate descent: each channel's are the nearest ones of the numbers where the error
/// under H + λI is least with the values of all other channels as they are.
fn descended(
    w: &Array2<f32>,
    h: &Array2<f64>,
    settings: Gptq,
    params: &QParams,
    mut codes: Array2<i64>,
) -> Array2<i64> {
    let a = damped(h, settings);
    let mut order: Vec<usize> = (0..w.ncols()).collect();
    if settings.order == Order::Activation {
        order.sort_by(|&a, &b| h[[b, b]].partial_cmp(&h[[a, a]]).unwrap());
    }
    let wide = w.mapv(f64::from);
    for _ in 0..settings.sweeps {
        for &j in &order {
            let mut lost = &wide - &dequantized(params, &codes);
            lost.column_mut(j).fill(0.0);
            let least = &wide.column(j) + &(lost.dot(&a.column(j)) / a[[j, j]]);
            let mut x = w.clone();
            x.column_mut(j).assign(&least.mapv(|x| x as f32));
            let chosen = params.quantize::<NdArray, _>(&x).unwrap().to_i64();
            codes.column_mut(j).assign(&chosen.column(j));
        }
    }
    codes
}

/// The values of codes in groups along rows.
fn dequantized(params: &QParams, codes: &Array2<i64>) -> Array2<f64> {
    let (scale, zero) = (params.scale(), params.zero_point());
    let size = codes.len() / scale.len();
    Array2::from_shape_fn(codes.raw_dim(), |(o, j)| {
        let group = (o * codes.ncols() + j) / size;
        scale[group] * (codes[[o, j]] - zero[group]) as f64
    })
}

fn codes(codes: &chopi_ndarray::IntArray<f32, ndarray::Ix2>) -> Array2<i64> {
    codes.to_i64()
}

fn moments_of(x: &Array2<f32>) -> Moments {
    let mut moments = Moments::new(x.ncols()).unwrap();
    moments.observe(x).unwrap();
    moments
}

fn check(
    w: &Array2<f32>,
    moments: &Moments,
    scheme: &Scheme,
    convention: Convention,
    settings: Gptq,
) {
    let method = Method {
        rounding: Rounding::Gptq(settings),
        ..Method::default()
    };
    let done = quantize(w, moments, scheme, &convention, &method).unwrap();
    let h = second(moments);
    let expected = definition(w, &h, settings, &done.params);
    let got = codes(&done.codes);
    if done.choice == Choice::Method {
        let equal = got.iter().zip(&expected).filter(|(a, b)| a == b).count();
        assert!(
            equal as f64 >= 0.999 * w.len() as f64,
            "{equal} of {}",
            w.len()
        );
        assert_eq!(done.damping, Some(settings.damping));
    }
    let values = done.params.dequantize::<NdArray, _>(&done.codes).unwrap();
    let wide = w.mapv(f64::from);
    let error = trace(&(&wide - &values.mapv(f64::from)), &h) / trace(&wide, &h);
    assert!(
        (error - done.error.chosen).abs() <= 1e-9 * error,
        "{error} {:?}",
        done.error
    );
    assert!(done.error.chosen <= done.error.nearest);
}

#[test]
fn codes_are_those_of_the_definition() {
    let (w, x) = (weights(40, 96, 1), inputs(300, 96, 2));
    let moments = moments_of(&x);
    let both = |symmetric| Chopi::builder().num_bits(4).symmetric(symmetric);
    for order in [Order::Activation, Order::Natural] {
        let settings = Gptq {
            damping: 0.01,
            order,
            sweeps: 0,
        };
        for symmetric in [true, false] {
            for builder in [
                both(symmetric).per_tensor(),
                both(symmetric).per_channel(0),
                both(symmetric).per_channel(1),
                both(symmetric).per_group(32, 1),
                both(symmetric).per_group(25, -1),
                both(symmetric).per_group(16, 0),
                both(symmetric).num_bits(3).per_group(32, 1),
                both(symmetric).num_bits(2).per_group(32, 1),
                both(symmetric).num_bits(8).per_group(32, 1),
            ] {
                check(&w, &moments, &scheme(builder), Convention::CHOPI, settings);
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn codes_are_those_of_the_definition_for_any_shape(
        outputs in 1_usize..90,
        channels in 1_usize..70,
        bits in 2_u32..6,
        symmetric: bool,
        size in 1_usize..40,
        seed: u64,
        damping in 0.001_f64..0.2,
        natural: bool,
    ) {
        let (w, x) = (weights(outputs, channels, seed), inputs(3 * channels, channels, seed ^ 1));
        let builder = Chopi::builder().num_bits(bits).symmetric(symmetric).per_group(size, 1);
        let order = if natural { Order::Natural } else { Order::Activation };
        check(&w, &moments_of(&x), &scheme(builder), Convention::CHOPI, Gptq { damping, order, sweeps: 0 });
    }
}

/// A weight, moments, and what GPTQ makes of it with so many sweeps.
fn swept(
    bits: u32,
    symmetric: bool,
    settings: Gptq,
) -> (Array2<f32>, Array2<f64>, QParams, Array2<i64>) {
    let (w, x) = (weights(40, 96, 1), inputs(300, 96, 2));
    let moments = moments_of(&x);
    let builder = Chopi::builder()
        .num_bits(bits)
        .symmetric(symmetric)
        .per_group(32, 1);
    let method = Method {
        rounding: Rounding::Gptq(settings),
        ..Method::default()
    };
    let done = quantize(&w, &moments, &scheme(builder), &Convention::CHOPI, &method).unwrap();
    assert_eq!(done.choice, Choice::Method);
    (w, second(&moments), done.params, codes(&done.codes))
}

#[test]
fn sweeps_are_those_of_the_definition_and_end_where_no_other_code_is_better() {
    for (bits, symmetric) in [(4, true), (4, false), (3, false), (2, true), (2, false)] {
        let with = |sweeps| Gptq {
            sweeps,
            ..Gptq::default()
        };
        let (w, h, params, first) = swept(bits, symmetric, with(0));
        let (a, wide) = (damped(&h, with(0)), w.mapv(f64::from));
        let error = |codes: &Array2<i64>| trace(&(&wide - &dequantized(&params, codes)), &a);
        let mut least = error(&first);
        for sweeps in 1..4 {
            let (.., codes) = swept(bits, symmetric, with(sweeps));
            let expected = descended(&w, &h, with(sweeps), &params, first.clone());
            let equal = codes.iter().zip(&expected).filter(|(a, b)| a == b).count();
            assert!(
                equal as f64 >= 0.999 * w.len() as f64,
                "{equal} of {}",
                w.len()
            );
            assert!(error(&codes) <= least);
            least = error(&codes);
        }
        // With many sweeps, a change of one code, whichever, makes the error larger.
        let (.., codes) = swept(bits, symmetric, with(1000));
        let (lowest, highest) = (params.scheme().qmin, params.scheme().qmax);
        for row in 0..3 {
            for j in 0..w.ncols() {
                for code in lowest..=highest {
                    let mut other = codes.clone();
                    other[[row, j]] = code;
                    assert!(error(&other) >= error(&codes) * (1.0 - 1e-12));
                }
            }
        }
    }
}

#[test]
fn what_makes_the_error_larger_is_not_chosen() {
    let (w, x) = (weights(8, 64, 3), inputs(200, 64, 4));
    let moments = moments_of(&x);
    for name in [
        "rtn",
        "rtn+mse",
        "rtn+weighted",
        "hqq",
        "gptq",
        "gptq+mse",
        "gptq+weighted",
        "gptq+hqq",
        "gptq:sweeps=2+weighted",
    ] {
        for symmetric in [true, false] {
            for bits in [2, 3, 4, 8] {
                let builder = Chopi::builder()
                    .num_bits(bits)
                    .symmetric(symmetric)
                    .per_group(16, 1);
                let done = quantize(
                    &w,
                    &moments,
                    &scheme(builder),
                    &Convention::CHOPI,
                    &name.parse().unwrap(),
                )
                .unwrap();
                assert!(done.error.chosen <= done.error.nearest, "{name}");
                let plain = codes(&done.params.quantize::<NdArray, _>(&w).unwrap());
                if name == "rtn" || done.choice != Choice::Method {
                    assert_eq!(codes(&done.codes), plain, "{name}");
                }
            }
        }
    }
}

#[test]
fn codes_do_not_depend_on_the_threads() {
    let (w, x) = (weights(200, 128, 5), inputs(400, 128, 6));
    let run = |threads| {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        pool.install(|| {
            let moments = moments_of(&x);
            let method = "gptq+weighted".parse().unwrap();
            let done = quantize(&w, &moments, &grouped(), &Convention::CHOPI, &method).unwrap();
            (moments, codes(&done.codes), done.params, done.error)
        })
    };
    assert_eq!(run(1), run(2));
    assert_eq!(run(1), run(5));
}
