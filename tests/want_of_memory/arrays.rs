//! Quantizers, parameters, observers and metrics, on arrays.

use std::cell::RefCell;

use chopi::metrics::{compare, quantization_metrics};
use chopi::packing::Packing;
use chopi::{Builder, Calibration, Chopi, Convention, Granularity, Observer, Rounding};
use chopi_conformance::{alone, for_each_change, for_each_failure};
use ndarray::{ArrayView2, s};

use crate::{array, turned};

/// More groups than a page has numbers.
const GROUPS: usize = 2048;

/// Quantizers whose parameters, or whose way through the kernels, are of each kind.
fn builders() -> Vec<(&'static str, Builder)> {
    let builder = || Chopi::builder().num_bits(8);
    vec![
        ("per tensor", builder()),
        ("per channel", builder().per_channel(0)),
        ("short channels", builder().per_channel(1)),
        ("per group", builder().per_group(3, 1)),
        ("32 bits", builder().num_bits(32).per_channel(0)),
        ("multiplied", {
            builder().convention(Convention::PYCHOP).per_channel(0)
        }),
        ("stochastic", {
            builder().rounding(Rounding::Stochastic { seed: 7 })
        }),
    ]
}

/// Arrays that are read in place, reordered, copied, and on several threads.
fn with_arrays(f: impl Fn(&str, ArrayView2<'_, f32>)) {
    let shape = (GROUPS, 16);
    f("rows", array(shape).view());
    f("columns", turned(shape).view());
    f("with gaps", array((GROUPS, 32)).slice(s![.., ..;2]));
    f("on threads", array((GROUPS, 400)).view());
}

#[test]
fn quantizers_give_an_error_and_stay_as_they_are() {
    let _alone = alone();
    with_arrays(|how, x| {
        for (name, builder) in builders() {
            let new = builder.build().unwrap();
            let name = format!("{name}, {how}");
            for_each_change(&format!("calibrate, {name}"), &new, |q| q.calibrate(&x));
            for_each_change(&format!("first quantize, {name}"), &new, |q| q.quantize(&x));
            let mut quantizer = new;
            quantizer.calibrate(&x).unwrap();
            check_params(&name, &quantizer, x);
        }
    });
}

fn check_params(name: &str, quantizer: &Chopi, x: ArrayView2<'_, f32>) {
    let params = quantizer.params().unwrap();
    let q = params.quantize(&x).unwrap();
    for_each_failure(&format!("quantize, {name}"), || params.quantize(&x));
    for_each_failure(&format!("dequantize, {name}"), || params.dequantize(&q));
    for_each_failure(&format!("fake-quantize, {name}"), || {
        params.fake_quantize(&x)
    });
    for_each_failure(&format!("with mask, {name}"), || {
        params.fake_quantize_with_mask(&x)
    });
    for_each_failure(&format!("metrics, {name}"), || {
        let metrics = quantization_metrics(&x, params)?;
        let first = metrics.first().map(|m| m.sqnr_db().to_bits());
        chopi::Result::Ok((metrics.len(), first))
    });
    if params.scale().len() >= GROUPS {
        // Into memory that is there: nothing is allocated but what there is for each group.
        let (codes, values) = (RefCell::new(q.clone()), RefCell::new(x.to_owned()));
        for_each_failure(&format!("quantize into, {name}"), || {
            params.quantize_into(&x, &mut *codes.borrow_mut())
        });
        for_each_failure(&format!("dequantize into, {name}"), || {
            params.dequantize_into(&q, &mut *values.borrow_mut())
        });
        for_each_failure(&format!("fake-quantize into, {name}"), || {
            params.fake_quantize_into(&x, &mut *values.borrow_mut())
        });
        for_each_failure(&format!("copy, {name}"), || params.try_clone());
        for_each_failure(&format!("part, {name}"), || {
            params.part(params.shape().to_vec(), 0..params.scale().len())
        });
    }
}

#[test]
fn tensors_are_compared_or_there_is_an_error() {
    let _alone = alone();
    let (x, y) = (array((GROUPS, 16)), turned((GROUPS, 16)));
    for granularity in [
        Granularity::PerTensor,
        Granularity::PerChannel { axis: 1 },
        Granularity::PerGroup { axis: 1, size: 3 },
    ] {
        for_each_failure("compare", || {
            compare(&x, &y, granularity).map(|metrics| metrics.len())
        });
    }
}

/// A calibration of each kind, for symmetric and for asymmetric codes.
fn calibrations() -> impl Iterator<Item = (Calibration, bool)> {
    let all = [
        Calibration::MinMax,
        Calibration::Percentile(99.0),
        Calibration::MeanSquaredError,
        Calibration::KullbackLeibler,
    ];
    all.into_iter().flat_map(|c| [(c, false), (c, true)])
}

#[test]
fn observers_give_an_error_and_stay_as_they_are() {
    let _alone = alone();
    // Few channels: each histogram is large by itself. Then many ranges.
    for (shape, channels) in [((3, 2000), 3), ((GROUPS, 16), GROUPS)] {
        let (x, more) = (array(shape), array(shape).mapv(|x| 7.0 * x));
        for (calibration, symmetric) in calibrations() {
            if channels > 3 && calibration != Calibration::MinMax {
                continue;
            }
            let builder = Chopi::builder().num_bits(8).symmetric(symmetric);
            let scheme = builder.per_channel(0).scheme().unwrap();
            let new = Observer::new(scheme.clone(), Convention::CHOPI, calibration).unwrap();
            let mut seen = new.clone();
            seen.observe(&x).unwrap();
            for (before, data) in [(&new, &x), (&seen, &more)] {
                for_each_change(&format!("observe, {calibration}"), before, |o| {
                    o.observe(data)
                });
            }
            for_each_change(&format!("merge, {calibration}"), &new, |o| o.merge(&seen));
            // Percentiles of signed values are found in the histogram as it is.
            for_each_change(&format!("params, {calibration}"), &(), |()| seen.params());
            for_each_change(&format!("whole, {calibration}"), &(), |()| {
                calibration.observe(&x, &scheme, &Convention::CHOPI)
            });
        }
    }
}

#[test]
fn long_data_are_counted_on_threads_or_there_is_an_error() {
    let _alone = alone();
    let x = array((1, 600_000));
    let scheme = Chopi::builder().num_bits(8).scheme().unwrap();
    let calibration = Calibration::Percentile(99.9);
    let new = Observer::new(scheme, Convention::CHOPI, calibration).unwrap();
    for_each_change("observe long data", &new, |o| o.observe(&x));
}

#[test]
fn codes_are_packed_or_there_is_an_error() {
    let _alone = alone();
    let packing = Packing::onnx(4, true).unwrap();
    let codes = vec![-3_i8; 20_000];
    let packed = packing.pack(&codes, 20_000).unwrap();
    for_each_failure("pack", || packing.pack(&codes, 20_000));
    for_each_failure("unpack", || packing.unpack::<i8>(&packed, 1, 20_000));
}
