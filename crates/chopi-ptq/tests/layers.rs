//! Layers as a whole: conventions, element types, scales that change nothing, what is refused.

mod support;

use chopi_core::backend::{bf16, f16};
use chopi_core::{Chopi, Convention, QParams, Rounding as CodeRounding, Scheme};
use chopi_ndarray::NdArray;
use chopi_ptq::{
    Choice, Error, Inputs, Method, Moments, awq_scales, bias_correction, equalization_scales,
    quantize, smooth_scales,
};
use ndarray::{Array1, Array2, Array4, ArrayD, Axis};
use support::{grouped, inputs, scheme, second, trace, weights};

const METHODS: [&str; 9] = [
    "rtn",
    "rtn+mse",
    "rtn+kl",
    "rtn+percentile:99",
    "rtn+weighted",
    "hqq",
    "gptq",
    "gptq+weighted",
    "gptq:natural:damping=0.1+hqq",
];

fn moments_of(x: &Array2<f32>) -> Moments {
    let mut moments = Moments::new(x.ncols()).unwrap();
    moments.observe(x).unwrap();
    moments
}

fn method(name: &str) -> Method {
    name.parse().unwrap()
}

/// Tr(D·H·Dᵀ) / Tr(W·H·Wᵀ).
fn error_of(w: &Array2<f32>, values: &Array2<f32>, moments: &Moments) -> f64 {
    let (h, w) = (second(moments), w.mapv(f64::from));
    trace(&(&w - &values.mapv(f64::from)), &h) / trace(&w, &h)
}

#[test]
fn every_convention_with_such_schemes_gets_codes_and_their_error() {
    let (w, moments) = (weights(24, 64, 1), moments_of(&inputs(200, 64, 2)));
    let (mut some, mut real) = (0, 0);
    for &convention in Convention::ALL {
        for symmetric in [true, false] {
            for bits in [4, 8] {
                let builder = || {
                    Chopi::builder()
                        .num_bits(bits)
                        .symmetric(symmetric)
                        .convention(convention)
                };
                for builder in [
                    builder().per_tensor(),
                    builder().per_channel(0),
                    builder().per_group(16, 1),
                ] {
                    let Ok(scheme) = builder.scheme() else {
                        continue;
                    };
                    if convention.check_scheme(&scheme).is_err() {
                        continue;
                    }
                    for name in METHODS {
                        let done =
                            quantize(&w, &moments, &scheme, &convention, &method(name)).unwrap();
                        let values = done.params.dequantize::<NdArray, _>(&done.codes).unwrap();
                        let error = error_of(&w, &values, &moments);
                        let what = format!("{convention:?} {scheme:?} {name}");
                        assert!(
                            (error - done.error.chosen).abs() <= 1e-9 * error,
                            "{what}: {error} {:?}",
                            done.error
                        );
                        assert!(done.error.chosen <= done.error.nearest, "{what}");
                        real += usize::from(done.params.real_zero_point().is_some());
                        some += 1;
                    }
                }
            }
        }
    }
    assert!(some > 200 && real > 0, "{some} {real}");
}

#[test]
fn every_element_type_gets_codes() {
    let w = weights(10, 32, 3).mapv(|w| bf16::from_f32(w).to_f32());
    let w = w.mapv(|w| f16::from_f32(w).to_f32());
    let moments = moments_of(&inputs(100, 32, 4));
    for name in METHODS {
        let (scheme, method, c) = (grouped(), method(name), Convention::CHOPI);
        let of_f32 = quantize(&w, &moments, &scheme, &c, &method).unwrap();
        let codes = of_f32.codes.to_i64();
        let of_f16 = quantize(&w.mapv(f16::from_f32), &moments, &scheme, &c, &method).unwrap();
        let of_bf16 = quantize(&w.mapv(bf16::from_f32), &moments, &scheme, &c, &method).unwrap();
        assert_eq!(of_f16.codes.to_i64(), codes, "{name}");
        assert_eq!(of_bf16.codes.to_i64(), codes, "{name}");
        assert_eq!(of_f16.params.scale(), of_f32.params.scale(), "{name}");
        // In f64 all is rounded less, and few codes are others.
        let of_f64 = quantize(&w.mapv(f64::from), &moments, &scheme, &c, &method).unwrap();
        assert!(
            (of_f64.error.chosen / of_f32.error.chosen - 1.0).abs() < 0.05,
            "{name}"
        );
    }
}

#[test]
fn convolutions_are_matrices_of_their_windows() {
    let w = weights(12, 3 * 2 * 2, 5);
    let moments = moments_of(&inputs(100, 12, 6));
    let shaped: Array4<f32> = w.clone().into_shape_with_order((12, 3, 2, 2)).unwrap();
    let transposed = shaped
        .view()
        .permuted_axes([0, 2, 3, 1])
        .as_standard_layout()
        .into_owned();
    let strided = transposed.view().permuted_axes([0, 3, 1, 2]);
    for name in METHODS {
        for builder in [
            Chopi::builder().num_bits(4).per_tensor(),
            Chopi::builder().num_bits(4).symmetric(true).per_channel(0),
        ] {
            let (scheme, c) = (scheme(builder), Convention::CHOPI);
            let flat = quantize(&w, &moments, &scheme, &c, &method(name)).unwrap();
            let same = quantize(&strided, &moments, &scheme, &c, &method(name)).unwrap();
            assert_eq!(same.codes.shape(), [12, 3, 2, 2]);
            let codes: Vec<i64> = same.codes.to_i64().iter().copied().collect();
            assert_eq!(
                codes,
                flat.codes.to_i64().into_raw_vec_and_offset().0,
                "{name}"
            );
            assert_eq!(
                (same.error, same.choice),
                (flat.error, flat.choice),
                "{name}"
            );
        }
        // A scale for each input channel, and groups of windows' rows.
        for builder in [
            Chopi::builder().num_bits(4).per_channel(1),
            Chopi::builder().num_bits(4).per_group(2, 1),
            Chopi::builder().num_bits(4).per_group(2, -1),
        ] {
            let done = quantize(
                &shaped,
                &moments,
                &scheme(builder),
                &Convention::CHOPI,
                &method(name),
            )
            .unwrap();
            let values = done.params.dequantize::<NdArray, _>(&done.codes).unwrap();
            let values = values.into_shape_with_order((12, 12)).unwrap();
            let error = error_of(&w, &values, &moments);
            assert!((error - done.error.chosen).abs() <= 1e-9 * error, "{name}");
        }
    }
}

#[test]
fn layers_that_take_the_same_inputs_get_what_each_gets_alone() {
    let moments = moments_of(&inputs(200, 48, 7));
    let shared = Inputs::new(&moments).unwrap();
    for (seed, name) in [
        (1, "gptq"),
        (2, "gptq"),
        (3, "gptq:natural"),
        (4, "gptq+weighted"),
    ] {
        let w = weights(20, 48, seed);
        let alone = quantize(&w, &moments, &grouped(), &Convention::CHOPI, &method(name)).unwrap();
        let together = shared
            .quantize(&w, &grouped(), &Convention::CHOPI, &method(name))
            .unwrap();
        assert_eq!(alone.codes.to_i64(), together.codes.to_i64());
        assert_eq!(alone.error, together.error);
    }
}

#[test]
fn layers_may_be_quantized_at_once() {
    let moments = moments_of(&inputs(400, 300, 7));
    let shared = Inputs::new(&moments).unwrap();
    let names = ["gptq", "gptq:natural", "gptq+weighted", "gptq"];
    let codes = |index: usize| {
        let w = weights(120, 300, index as u64);
        let done = shared.quantize(
            &w,
            &grouped(),
            &Convention::CHOPI,
            &method(names[index % 4]),
        );
        done.unwrap().codes.to_i64()
    };
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(4)
        .build()
        .unwrap();
    let at_once = pool.install(|| {
        let ((a, b), (c, d)) = rayon::join(
            || rayon::join(|| codes(0), || codes(1)),
            || rayon::join(|| codes(2), || codes(3)),
        );
        [a, b, c, d]
    });
    for (index, at_once) in at_once.iter().enumerate() {
        assert_eq!(at_once, &codes(index));
    }
}

#[test]
fn dead_and_equal_channels_need_no_more_than_damping() {
    let mut x = inputs(60, 40, 8);
    x.column_mut(5).fill(0.0);
    x.column_mut(6).fill(0.0);
    let copy = x.column(9).to_owned();
    x.column_mut(10).assign(&copy);
    let (w, moments) = (weights(16, 40, 9), moments_of(&x));
    for name in ["gptq", "gptq:natural"] {
        let done = quantize(&w, &moments, &grouped(), &Convention::CHOPI, &method(name)).unwrap();
        assert_eq!((done.choice, done.damping), (Choice::Method, Some(0.01)));
        assert!(done.error.chosen < 0.8 * done.error.nearest);
        let plain = done.params.quantize::<NdArray, _>(&w).unwrap();
        for dead in [5, 6] {
            assert_eq!(
                done.codes.to_i64().column(dead),
                plain.to_i64().column(dead)
            );
        }
    }
    // Without damping the matrix of equal channels is singular, and fewer rows than channels are too.
    for x in [&x, &inputs(7, 40, 10)] {
        let done = quantize(
            &w,
            &moments_of(x),
            &grouped(),
            &Convention::CHOPI,
            &method("gptq:damping=0"),
        )
        .unwrap();
        assert!(
            done.choice != Choice::Method || done.damping.unwrap() > 0.0,
            "{:?}",
            done.damping
        );
    }
    let zeros = moments_of(&Array2::zeros((4, 40)));
    for name in METHODS {
        let done = quantize(&w, &zeros, &grouped(), &Convention::CHOPI, &method(name)).unwrap();
        assert_eq!((done.error.nearest, done.error.chosen), (0.0, 0.0));
    }
}

#[test]
fn scales_lessen_the_error_of_large_channels_and_change_no_output() {
    let x = inputs(300, 58, 11);
    let (q, k, moments) = (weights(32, 58, 12), weights(16, 58, 13), moments_of(&x));
    let per_channel = scheme(Chopi::builder().num_bits(4).symmetric(true).per_channel(0));
    let scales = awq_scales(
        &[&q, &k],
        &moments,
        &per_channel,
        &Convention::CHOPI,
        &method("awq"),
    )
    .unwrap();
    let (low, high) = scales
        .iter()
        .fold((f64::MAX, 0.0_f64), |(a, b), s| (a.min(*s), b.max(*s)));
    assert!(
        (low * high - 1.0).abs() < 1e-9 && high > 1.1,
        "{low} {high}"
    );
    let divided = moments.divided_by(&scales).unwrap();
    let s = Array1::from_vec(scales.iter().map(|s| *s as f32).collect()).insert_axis(Axis(0));
    let mut sums = [0.0; 2];
    for w in [&q, &k] {
        let before = quantize(
            w,
            &moments,
            &per_channel,
            &Convention::CHOPI,
            &method("rtn"),
        )
        .unwrap();
        let after = quantize(
            &(w * &s),
            &divided,
            &per_channel,
            &Convention::CHOPI,
            &method("rtn"),
        )
        .unwrap();
        sums[0] += before.error.chosen;
        sums[1] += after.error.chosen;
    }
    assert!(sums[1] < 0.9 * sums[0], "{sums:?}");
    // x/s and s·w give what x and w give.
    let outputs = x.dot(&q.t());
    let scaled = (&x / &s).dot(&(&q * &s).t());
    assert!(
        outputs
            .iter()
            .zip(&scaled)
            .all(|(a, b)| (a - b).abs() <= 1e-3 * a.abs().max(1.0))
    );
    // What all channels have in common, SmoothQuant leaves alone: max|x| = max|w|.
    let smooth = smooth_scales(&[&q, &k], &moments, 0.5).unwrap();
    for (j, s) in smooth.iter().enumerate() {
        let largest = |w: &Array2<f32>| {
            w.column(j)
                .iter()
                .fold(0.0_f64, |m, w| m.max(f64::from(w.abs())))
        };
        let (x, w) = (moments.abs_max()[j] / s, largest(&q).max(largest(&k)) * s);
        assert!((x / w - 1.0).abs() < 1e-12, "{x} {w}");
    }
}

#[test]
fn awq_chooses_no_scales_where_none_are_better() {
    let x = Array2::<f32>::ones((10, 8));
    let w = Array2::from_shape_fn((3, 8), |(i, j)| {
        (i as f32 + 1.0) * if j % 2 == 0 { 1.0 } else { -1.0 }
    });
    let per_channel = scheme(Chopi::builder().num_bits(4).symmetric(true).per_channel(0));
    let scales = awq_scales(
        &[&w],
        &moments_of(&x),
        &per_channel,
        &Convention::CHOPI,
        &method("awq"),
    )
    .unwrap();
    assert_eq!(scales, [1.0; 8]);
}

#[test]
fn equalized_channels_have_equal_ranges_and_the_same_output() {
    let (mut first, second) = (weights(6, 10, 14), weights(5, 6, 15));
    first.row_mut(2).mapv_inplace(|w| w * 100.0);
    first.row_mut(4).fill(0.0);
    let s = equalization_scales(&first, &second).unwrap();
    assert_eq!(s[4], 1.0);
    let column = Array1::from_vec(s.iter().map(|s| *s as f32).collect::<Vec<_>>());
    let (a, b) = (
        &first / &column.clone().insert_axis(Axis(1)),
        &second * &column.insert_axis(Axis(0)),
    );
    let largest = |w: ndarray::ArrayView1<'_, f32>| w.iter().fold(0.0_f32, |m, w| m.max(w.abs()));
    for i in (0..6).filter(|&i| i != 4) {
        assert!((largest(a.row(i)) / largest(b.column(i)) - 1.0).abs() < 1e-5);
    }
    let x = inputs(20, 10, 16);
    let relu = |w: &Array2<f32>| x.dot(&w.t()).mapv(|y| y.max(0.0));
    let (before, after) = (relu(&first).dot(&second.t()), relu(&a).dot(&b.t()));
    assert!(
        before
            .iter()
            .zip(&after)
            .all(|(a, b)| (a - b).abs() <= 1e-3 * a.abs().max(1.0))
    );
    let windows: Array4<f32> = weights(5, 6 * 9, 17)
        .into_shape_with_order((5, 6, 3, 3))
        .unwrap();
    assert_eq!(
        equalization_scales(&first.clone().into_dyn(), &windows.into_dyn())
            .unwrap()
            .len(),
        6
    );
    let error = equalization_scales(&first, &weights(5, 7, 1))
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "the second weight of shape [5, 7] has 7 channels, expected 6"
    );
}

#[test]
fn a_corrected_bias_keeps_the_mean_of_the_output() {
    let x = inputs(200, 32, 18).mapv(|x| x + 1.0);
    let (w, moments) = (weights(8, 32, 19), moments_of(&x));
    let two_bits = scheme(Chopi::builder().num_bits(2).symmetric(true).per_channel(0));
    let done = quantize(&w, &moments, &two_bits, &Convention::CHOPI, &method("rtn")).unwrap();
    let values = done.params.dequantize::<NdArray, _>(&done.codes).unwrap();
    let bias = bias_correction(&w, &values, &moments).unwrap();
    let mean = |w: &Array2<f32>| {
        x.mapv(f64::from)
            .dot(&w.mapv(f64::from).t())
            .mean_axis(Axis(0))
            .unwrap()
    };
    let (expected, got) = (mean(&w), mean(&values) + Array1::from_vec(bias));
    assert!(
        expected.iter().zip(&got).all(|(a, b)| (a - b).abs() < 1e-5),
        "{expected} {got}"
    );
    let error = bias_correction(&w, &weights(8, 31, 1), &moments)
        .unwrap_err()
        .to_string();
    assert_eq!(
        error,
        "the dequantized weight has shape [8, 31], expected the shape of the weight"
    );
}

#[test]
fn what_does_not_fit_is_refused() {
    let (w, moments) = (weights(4, 32, 20), moments_of(&inputs(50, 32, 21)));
    let said = |w: &ArrayD<f32>, moments: &Moments, scheme: &Scheme, name: &str| {
        let done = quantize(w, moments, scheme, &Convention::CHOPI, &method(name));
        done.map(|done| done.choice).unwrap_err().to_string()
    };
    let good = w.clone().into_dyn();
    for name in METHODS {
        let mut nan = good.clone();
        nan[[2, 7]] = f32::NAN;
        let nan = said(&nan, &moments, &grouped(), name);
        assert_eq!(
            nan,
            "cannot calibrate on NaN or infinity: the first of 1 is NaN at index [2, 7]"
        );
        let other = said(&weights(4, 31, 1).into_dyn(), &moments, &grouped(), name);
        assert_eq!(
            other,
            "the weight of shape [4, 31] has 31 channels, expected 32"
        );
        let flat = said(
            &ndarray::arr1(&[1.0_f32; 32]).into_dyn(),
            &moments,
            &grouped(),
            name,
        );
        assert!(
            flat.starts_with("the weight has shape [32], expected [outputs, inputs]"),
            "{flat}"
        );
        let empty = said(
            &Array2::zeros((0, 32)).into_dyn(),
            &moments,
            &grouped(),
            name,
        );
        assert!(
            empty.starts_with("the weight has shape [0, 32], expected"),
            "{empty}"
        );
        let none = said(&good, &Moments::new(32).unwrap(), &grouped(), name);
        assert_eq!(
            none,
            "the moments have seen no rows: observe inputs of the layer first"
        );
        let axis = scheme(Chopi::builder().per_channel(2));
        let axis = said(&good, &moments, &axis, name);
        assert!(
            axis.starts_with("axis 2 is out of range for a tensor of shape [4, 32]"),
            "{axis}"
        );
    }
    let builder = Chopi::builder()
        .num_bits(4)
        .rounding(CodeRounding::Stochastic { seed: 1 });
    let stochastic = scheme(builder.per_channel(0));
    let error = said(&good, &moments, &stochastic, "gptq");
    assert_eq!(error, "gptq cannot be used with stochastic rounding");
    let done = quantize(
        &w,
        &moments,
        &stochastic,
        &Convention::CHOPI,
        &method("rtn"),
    )
    .unwrap();
    let plain: QParams = done.params;
    assert_eq!(
        done.codes.to_i64(),
        plain.quantize::<NdArray, _>(&w).unwrap().to_i64()
    );
    let none: [&Array2<f32>; 0] = [];
    assert!(matches!(
        smooth_scales(&none, &moments, 0.5),
        Err(Error::Count { .. })
    ));
    assert!(matches!(
        smooth_scales(&[&w], &moments, 1.5),
        Err(Error::Setting { .. })
    ));
    let awq = awq_scales(
        &none,
        &moments,
        &grouped(),
        &Convention::CHOPI,
        &method("awq"),
    );
    assert!(matches!(awq, Err(Error::Count { .. })));
    let negative = Method {
        rounding: chopi_ptq::Rounding::Gptq(chopi_ptq::Gptq {
            damping: -1.0,
            ..Default::default()
        }),
        ..Method::default()
    };
    let error =
        quantize(&w, &moments, &grouped(), &Convention::CHOPI, &negative).map(|done| done.choice);
    assert!(matches!(
        error,
        Err(Error::Setting {
            what: "the damping",
            ..
        })
    ));
}

#[cfg(feature = "serde")]
#[test]
fn methods_are_saved_as_their_names() {
    for name in METHODS {
        let json = serde_json::to_string(&method(name)).unwrap();
        assert_eq!(json, format!("{name:?}"));
        assert_eq!(serde_json::from_str::<Method>(&json).unwrap(), method(name));
    }
    let error = serde_json::from_str::<Method>("\"best\"")
        .unwrap_err()
        .to_string();
    assert!(
        error.starts_with("\"best\" of the method \"best\" is unknown"),
        "{error}"
    );
}
